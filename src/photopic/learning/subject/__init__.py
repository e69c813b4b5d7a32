"""A subject to learn: its pictures, its new token, prompts, and what must be preserved."""
