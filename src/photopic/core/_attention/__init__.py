"""What `photopic.core.attention` is made of; import that."""
