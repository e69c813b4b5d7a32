"""Edits: small changes of a model as data, applied exactly and reverted exactly.

An `Edit` is made of parts:

- `ZeroedWeights`: entries that become zero, or a binary mask;
- `SparseWeights`: entries that become given values, or that values are added to;
- `LowRankDelta`: a product of two thin matrices added (LoRA); `DenseDelta`: a dense change added (a task vector);
- `TokenEmbedding`: a new token; `TokenResidual`: what is added to a text encoder's output where words stand;
- `ParallelAdapter`: a bottleneck beside a module; `SteeringVector`: a latent direction added to a module's output;
- `Adapters`: adapters, prefixes and prompts beside the operations of a transformer;
- `InitialNoise`: what sampling starts from; `ClassifierHead`: the classifier learnt with an edit, which changes no model.

An `EditStack` applies edits to a live model and takes them away in any order; afterwards every byte is the base's again. `attach`
makes one for a plain pipeline or module. `compose`, `difference` and `restrict` are the algebra; `take_apart` gives back the
parents of what was tuned together. Files are in `photopic.core.edits.file`.

A parameter is named ``<component>.<parameter name>``, for example
``unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight``, and a position is its index in the flattened parameter.
"""

from photopic.core.editfile.placement import AdapterPlacement
from photopic.core.editfile.views import Searched, Subject
from photopic.core.edits.activations import InitialNoise, ParallelAdapter, SteeringVector, TokenResidual
from photopic.core.edits.adapters import Adapters, ClassifierHead
from photopic.core.edits.attach import attach
from photopic.core.edits.compose import OverlapPolicy, compose, difference, restrict
from photopic.core.edits.decompose import belonging, regions, take_apart
from photopic.core.edits.dense import DenseDelta, LowRankDelta
from photopic.core.edits.edit import Edit
from photopic.core.edits.part import Part
from photopic.core.edits.runtime_tokens import check_new_token
from photopic.core.edits.sparse import SparseWeights, ZeroedWeights
from photopic.core.edits.stack import EditStack
from photopic.core.edits.stack_item import LoadedEdit
from photopic.core.edits.token_rows import TokenEmbedding

__all__ = [
    "AdapterPlacement",
    "Adapters",
    "ClassifierHead",
    "DenseDelta",
    "Edit",
    "EditStack",
    "InitialNoise",
    "LoadedEdit",
    "LowRankDelta",
    "OverlapPolicy",
    "ParallelAdapter",
    "Part",
    "Searched",
    "SparseWeights",
    "SteeringVector",
    "Subject",
    "TokenEmbedding",
    "TokenResidual",
    "ZeroedWeights",
    "attach",
    "belonging",
    "check_new_token",
    "compose",
    "difference",
    "regions",
    "restrict",
    "take_apart",
]
