"""Methods that tune a model for a subject."""
