"""Edits looked at, checked, compared, explained, applied and exchanged."""
