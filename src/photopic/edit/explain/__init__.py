"""Probes of what an edit does to its model."""
