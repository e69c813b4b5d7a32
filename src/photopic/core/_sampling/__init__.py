"""What `photopic.core.sampling` is made of; import that."""
