"""Dual encoders trained on with another contrast: hard negatives, mixtures on the sphere, retrievals."""
