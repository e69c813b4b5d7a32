"""The file of an edit as bytes and arrays, without torch; `photopic.core.edits.file` makes edits of it."""
