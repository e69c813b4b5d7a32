"""Decide whether to trust what a classifier says of an input; ``photopic.guarded(model)`` puts the checks around it."""
