"""Masked image modelling: an encoder learns by filling in the patches of a picture that it was not shown."""
