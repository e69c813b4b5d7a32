"""Models carried over to pictures of another domain that nobody labelled: with the source at hand, or without it."""
