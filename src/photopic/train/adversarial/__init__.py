"""Generators of pictures that learn against a discriminator."""
