"""Where in a picture a classifier sees a class: one method a file, what they share in ``_common``."""
