"""What is learnt of or added to a generator's latents: parts of w tied to parts of the picture, styles beyond the data."""
