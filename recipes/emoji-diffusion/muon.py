"""For 4_unet.py, which imports the optimizer by this name."""

from photopic.core.muon import muon_and_adamw

__all__ = ["muon_and_adamw"]
