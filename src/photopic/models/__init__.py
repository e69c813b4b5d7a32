"""Handles over pretrained models, bundled or the user's own."""

from photopic.models.loading import bundled_names, load

__all__ = ["bundled_names", "load"]
