"""The file of an edit: `load`, `save`, and the same with bytes; see `photopic.core.edits.file.reading`."""

from photopic.core.edits.file.reading import from_bytes, load, save, to_bytes

__all__ = ["from_bytes", "load", "save", "to_bytes"]
