"""Trainable parameters beside the weights of a model, which are never written."""
