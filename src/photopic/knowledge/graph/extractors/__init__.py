"""Extractors: one file a source of nodes and edges, each named in ``registry.py``."""
