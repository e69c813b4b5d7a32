"""The file of an edit: `load`, `save`, and the same with bytes; see `photopic.core.editfile.content`."""

from photopic.core.edits.file.reading import content_of, from_bytes, load, save, to_bytes

__all__ = ["content_of", "from_bytes", "load", "save", "to_bytes"]
