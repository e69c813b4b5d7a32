"""Directions of a generator's latent space: which of them change a region of its picture and leave the rest."""
