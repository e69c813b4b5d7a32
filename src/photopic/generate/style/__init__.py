"""Pictures in the manner of another picture."""
