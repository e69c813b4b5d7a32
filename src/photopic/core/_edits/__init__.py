"""What `photopic.core.edits` and `photopic.core.editfile` are made of; import those."""
