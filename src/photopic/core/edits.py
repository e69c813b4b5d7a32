"""Edits: small changes of a model as data, applied exactly and reverted exactly.

An `Edit` is made of parts: `Shut` (entries that become zero), `Values` (entries that become given values) and `TokenRows` (a new
token). An `EditStack` applies edits to a live model and takes them away in any order; afterwards every byte is the base's again.
`compose` makes one edit of two. Files are in `photopic.core.editfile`.

A parameter is named ``<component>.<parameter name>``, for example
``unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight``, and a position is its index in the flattened parameter.
"""

from photopic.core._edit import Edit, compose
from photopic.core._parts import Part, Shut, TokenRows, Values
from photopic.core._stack import EditStack
from photopic.core._tokens import check_new_token

__all__ = ["Edit", "EditStack", "Part", "Shut", "TokenRows", "Values", "check_new_token", "compose"]
