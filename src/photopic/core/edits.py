"""Edits: small changes of a model as data, applied exactly and reverted exactly.

An `Edit` is made of parts:

- `Shut`: entries that become zero, or a binary mask; `Values`: entries that become given values, or that values are added to;
- `LowRank`: a product of two thin matrices added (LoRA); `Delta`: a dense change added (a task vector);
- `TokenRows`: a new token; `TokenResidual`: what is added to a text encoder's output where words stand;
- `Insertion`: a bottleneck beside a module; `Direction`: a latent direction added to a module's output;
- `Tuner`: adapters, prefixes and prompts beside the operations of a transformer;
- `StartNoise`: what sampling starts from; `Head`: the classifier learnt with an edit, which changes no model.

An `EditStack` applies edits to a live model and takes them away in any order; afterwards every byte is the base's again. `attach`
makes one for a plain pipeline or module. `compose`, `difference` and `restrict` are the algebra; `take_apart` gives back the
parents of what was tuned together. Files are in `photopic.core.editfile`.

A parameter is named ``<component>.<parameter name>``, for example
``unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight``, and a position is its index in the flattened parameter.
"""

from photopic.core._edits.activations import Direction, Insertion, StartNoise, TokenResidual
from photopic.core._edits.algebra import Policy, compose, difference, restrict
from photopic.core._edits.apart import belonging, regions, take_apart
from photopic.core._edits.applied import Applied
from photopic.core._edits.attach import attach
from photopic.core._edits.branches import Branch
from photopic.core._edits.dense import Delta, LowRank
from photopic.core._edits.edit import Edit, Part
from photopic.core._edits.parts import Shut, TokenRows, Values
from photopic.core._edits.stack import EditStack
from photopic.core._edits.tokens import check_new_token
from photopic.core._edits.tuner import Head, Tuner

__all__ = [
    "Applied",
    "Branch",
    "Delta",
    "Direction",
    "Edit",
    "EditStack",
    "Head",
    "Insertion",
    "LowRank",
    "Part",
    "Policy",
    "Shut",
    "StartNoise",
    "TokenResidual",
    "TokenRows",
    "Tuner",
    "Values",
    "attach",
    "belonging",
    "check_new_token",
    "compose",
    "difference",
    "regions",
    "restrict",
    "take_apart",
]
