"""Edits of one base merged into one by rules that weigh what each wants of an entry: one rule a file, one method over them."""
