"""Models trained from their beginning."""
