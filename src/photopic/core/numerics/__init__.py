"""Numerics that know no network: the lasso, covariances, spectra, quantisation, an optimiser."""
