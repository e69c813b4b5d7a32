"""Protections of one's own pictures and tests of one's own models, which change pictures inside a ball of whole levels."""
