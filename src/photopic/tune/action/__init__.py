"""Few-shot action recognition."""
