"""What the parts of a diffusion process share."""

from __future__ import annotations

PREDICTIONS = ("epsilon", "velocity", "sample")
"""What a network puts out: the noise; v (Salimans & Ho, arXiv 2202.00512); or the clean sample."""

DIFFUSERS_NAMES = {"epsilon": "epsilon", "velocity": "v_prediction", "sample": "sample"}
"""How diffusers calls them."""
