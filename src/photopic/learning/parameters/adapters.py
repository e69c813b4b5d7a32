"""Adapters, prefixes and prompts beside the operations of a vision transformer, to be trained and to be kept as an edit.

Every branch reads what enters its operation before the layer normalisation and is added at the operation's residual sum
(U-Tuning, arXiv 2303.00690). One branch an operation; a ConvNet has no such blocks and is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from photopic.core.edits import AdapterPlacement, Adapters
from photopic.core.edits.attached_adapters import attached
from photopic.core.errors import DataError, ModelError
from photopic.models.dual_encoder import COMPONENT, DualEncoder

Op = Literal["attention", "ffn", "block", "query", "value"]
Kind = Literal["adapter", "prefix", "prompt"]
Scaling = Literal["none", "scalar", "channel", "input"]
Activation = Literal["gelu", "relu", "identity"]
Init = Literal["zero", "xavier"]

TOWER = f"{COMPONENT}.vision_model"
NORMS = (("layer_norm1", "layer_norm2"), ("layernorm_before", "layernorm_after"), ("norm1", "norm2"))
LINEAR_OPS = ("query", "value")  # a branch beside one of them reads its own input, and may be merged into it
CHOICES: dict[str, tuple[str, ...]] = {
    "op": ("attention", "ffn", "block", "query", "value"),
    "kind": ("adapter", "prefix", "prompt"),
    "scaling": ("none", "scalar", "channel", "input"),
    "activation": ("gelu", "relu", "identity"),
}


@dataclass(frozen=True)
class AdapterSpec:
    """One branch in every block."""

    op: Op  # what it stands beside: the attention, the MLP, the whole block, or one projection of the attention
    kind: Kind = "adapter"
    length: int = 10  # width of an adapter's bottleneck, or number of keys of a prefix or prompt
    scaling: Scaling = "channel"  # what the branch is multiplied with
    activation: Activation = "gelu"  # of an adapter
    bias: bool = True  # whether an adapter has biases
    serial: bool = False  # whether an adapter reads the output of the operation, as the first ones did

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise DataError(f"tuner: {name}: expected {', '.join(known)}, found {getattr(self, name)!r}")
        if self.length < 1:
            raise DataError(f"tuner: length: expected 1 or more, found {self.length}")
        if self.kind != "adapter" and (self.serial or self.op in LINEAR_OPS):
            raise DataError(
                f"tuner: expected an adapter beside a projection or after an operation, found a {self.kind}; use kind adapter"
            )


@dataclass(frozen=True)
class TransformerBlock:
    """Where things are in one block, as edits call them.

    Attributes:
        name: The block.
        attention: The attention.
        ffn: The MLP.
        norms: The layer normalisations before the two.
        query: Query projection.
        key: Key projection.
        value: Value projection.
        heads: Of the attention.
        width: Of what flows through the block.
    """

    name: str
    attention: str
    ffn: str
    norms: tuple[str, str]
    query: str
    key: str
    value: str
    heads: int
    width: int

    def module(self, op: Op) -> str:
        """The module whose output an operation's branch is added to."""
        return {
            "attention": self.attention,
            "ffn": self.ffn,
            "block": self.name,
            "query": self.query,
            "value": self.value,
        }[op]


def transformer_blocks(model: DualEncoder) -> tuple[TransformerBlock, ...]:
    """The blocks of an image tower, first to last.

    Raises:
        ModelError: If it has none, as a ConvNet.

    Example:
        >>> len(transformer_blocks(DualEncoder.load("emoji-clip-vit")))  # doctest: +SKIP
        4
    """
    blocks = blocks_of(model.image_tower)
    if not blocks:
        raise ModelError(
            f"{model.name}: expected an image tower of transformer blocks, each with two layer normalisations, an attention and "
            f"an MLP, found {type(model.image_tower).__name__}; tune it with a mask instead"
        )
    return blocks


def blocks_of(tower: nn.Module) -> tuple[TransformerBlock, ...]:
    """The blocks of any vision transformer of transformers (CLIP, SigLIP, ViT), first to last; none of a ConvNet."""
    found = [_block(name, part) for name, part in tower.named_modules()]
    return tuple(each for each in found if each is not None)


def parameter_count(spec: AdapterSpec, width: int, blocks: int = 1) -> int:
    """Trained numbers of one branch in every block: the formulas of the paper.

    Args:
        spec: The branch.
        width: d, of what flows through the blocks.
        blocks: How many.

    Example:
        >>> parameter_count(AdapterSpec("attention"), 768, 12) == 12 * (2 * 768 * 10 + 10 + 2 * 768)
        True
    """
    length = spec.length
    tensors = {
        "adapter": 2 * width * length + (length + width) * spec.bias,
        "prefix": 2 * length * width,
        "prompt": length * width,
    }
    scale = {"none": 0, "scalar": 1, "channel": width, "input": width + 1}
    return blocks * (tensors[spec.kind] + scale[spec.scaling])


class TrainableAdapters:
    """Branches that are being trained.

    Args:
        model: Whose image tower gets them; its weights are never written.
        specs: What they are, at most one an operation.
        init: ``zero``: at first the branches change nothing, since the matrix (adapter), the values (prefix) or the scale
            (prompt) through which each acts is zero. ``xavier``: everything random, as the successor's library does.
        seed: Of the random start.

    Attributes:
        branches: How each works, by the module that it is beside.
        tensors: What is trained, by module and role; they require gradients.

    Raises:
        ModelError: If the image tower has no transformer blocks.
        DataError: If two branches are beside one operation, or a prompt has no scale that could be zero.

    Example:
        >>> tuners = TrainableAdapters(model, [AdapterSpec("attention"), AdapterSpec("ffn")])  # doctest: +SKIP
        >>> with tuners.attached():  # doctest: +SKIP
        ...     features = model.encode_pixels(pixels)
    """

    def __init__(self, model: DualEncoder, specs: Sequence[AdapterSpec], *, init: Init = "zero", seed: int = 0):
        ops = [spec.op for spec in specs]
        if twice := sorted({op for op in ops if ops.count(op) > 1}):
            raise DataError(f"tuners: expected one branch an operation, found several beside {twice[0]}")
        for spec in specs:
            if init == "zero" and spec.kind == "prompt" and spec.scaling in ("none", "input"):
                raise DataError(
                    f"tuners: a prompt scaled by {spec.scaling} cannot start at zero; use scaling channel or scalar, or init xavier"
                )
        self.model, self.specs = model, tuple(specs)
        self.branches: dict[str, AdapterPlacement] = {}
        self.tensors: dict[str, Tensor] = {}
        draw = torch.Generator().manual_seed(seed)
        for block in transformer_blocks(model) if specs else ():
            for spec in specs:
                name = block.module(spec.op)
                self.branches[name] = branch_of(block, spec)
                for role, tensor in _start(spec, block.width, init, draw).items():
                    self.tensors[f"{name}/{role}"] = tensor.to(model.device).requires_grad_()

    @property
    def count(self) -> int:
        """Numbers that are trained."""
        return sum(tensor.numel() for tensor in self.tensors.values())

    def attached(self) -> AbstractContextManager[None]:
        """The branches on the model inside a ``with`` block."""
        return attached(self.model.network, self.branches, self.tensors, component=COMPONENT)

    def part(self) -> Adapters:
        """As a part of an edit."""
        return Adapters(self.branches, self.tensors)


def branch_of(block: TransformerBlock, spec: AdapterSpec) -> AdapterPlacement:
    """How a branch stands in a block: beside the MLP it reads the second normalisation's input, else the first's."""
    if spec.serial or spec.op in LINEAR_OPS:
        return AdapterPlacement("adapter", spec.scaling, spec.activation, serial=spec.serial)
    # pre-normalisation blocks: the MLP's input comes before the second
    norm = block.norms[1] if spec.op == "ffn" else block.norms[0]
    reads = "" if spec.op == "block" else norm
    if spec.kind == "adapter":
        return AdapterPlacement("adapter", spec.scaling, spec.activation, reads)
    projections: dict[str, Any] = {"key": block.key, "value": block.value} if spec.kind == "prompt" else {}
    return AdapterPlacement(
        spec.kind, spec.scaling, "identity", reads, norm=norm, query=block.query, heads=block.heads, **projections
    )


def _block(name: str, part: nn.Module) -> TransformerBlock | None:
    """What a module is as a block; None if it is none."""
    children = dict(part.named_children())
    attentions = [
        each
        for each, child in children.items()
        if all(isinstance(getattr(child, p, None), nn.Module) for p in ("q_proj", "k_proj", "v_proj"))
    ]
    norms = next((pair for pair in NORMS if set(pair) <= children.keys()), None)
    if len(attentions) != 1 or norms is None or "mlp" not in children:
        return None
    attention: Any = children[attentions[0]]
    rest = children.keys() - {attentions[0], "mlp", *norms}
    if not all(isinstance(children[each], nn.Dropout | nn.Identity) for each in rest):
        return None  # something else stands between an operation and its residual sum
    prefix = f"{TOWER}.{name}" if name else TOWER
    inside = f"{prefix}.{attentions[0]}"
    return TransformerBlock(
        name=prefix,
        attention=inside,
        ffn=f"{prefix}.mlp",
        norms=(f"{prefix}.{norms[0]}", f"{prefix}.{norms[1]}"),
        query=f"{inside}.q_proj",
        key=f"{inside}.k_proj",
        value=f"{inside}.v_proj",
        heads=int(getattr(attention, "num_heads", 0) or attention.num_attention_heads),
        width=int(attention.q_proj.out_features),
    )


def _start(spec: AdapterSpec, width: int, init: Init, draw: torch.Generator) -> dict[str, Tensor]:
    """The tensors of one branch before training."""

    def xavier(rows: int, columns: int) -> Tensor:
        return nn.init.xavier_uniform_(torch.empty(rows, columns), generator=draw)

    def small(count: int) -> Tensor:
        return torch.zeros(count) if init == "zero" else 1e-6 * torch.randn(count, generator=draw)

    found: dict[str, Tensor] = {}
    if spec.kind == "adapter":
        found = {"down": xavier(spec.length, width), "up": xavier(width, spec.length)}  # (rank, width), (width, rank)
        if spec.bias:
            found |= {"down_bias": small(spec.length), "up_bias": small(width)}
    elif spec.kind == "prefix":
        # (length, width) each, split into heads when used
        found = {"keys": xavier(spec.length, width), "values": xavier(spec.length, width)}
    else:
        found = {"tokens": xavier(spec.length, width)}  # projected by the frozen W_k and W_v of the block
    if spec.scaling in ("scalar", "channel"):
        found["scale"] = torch.ones(1 if spec.scaling == "scalar" else width)
    elif spec.scaling == "input":
        found |= {"gate": xavier(1, width)[0], "gate_bias": small(1)}  # sigmoid(x w + b), averaged over tokens
    if init == "zero":
        found[{"adapter": "up", "prefix": "values", "prompt": "scale"}[spec.kind]].zero_()
    return found
