"""Where a classifier has its head, and which of its parts are "the layers"."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn

from photopic.core.errors import ModelError

STAGE = re.compile(r"(Embeddings|Layer|Block|BasicBlock|Bottleneck|InvertedResidual|Stem)$")
POOL = (nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool1d)


def head_name(network: nn.Module, classes: int, name: str) -> str:
    """Dotted name of the last linear layer with an output a class.

    Args:
        network: Where to look.
        classes: Number of outputs.
        name: Of the model, for messages.

    Raises:
        ModelError: If there is none.

    Example:
        >>> head_name(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), 2, "mine")
        '2'
    """
    linear = {key: part.out_features for key, part in network.named_modules() if isinstance(part, nn.Linear)}
    fitting = [key for key, outputs in linear.items() if outputs == classes]
    if fitting:
        return fitting[-1]
    last = f"the last one has {list(linear.values())[-1]} outputs" if linear else "it has no linear layer"
    raise ModelError(
        f"{name}: expected a last linear layer with {classes} outputs, one a label, but {last}; "
        "give as many labels as logits"
    )


def blocks_of(network: nn.Module, head: str) -> tuple[str, ...]:
    """The outermost repeated parts and the global pool; of a network without such parts its children before the head."""
    parts = dict(network.named_modules())
    stages = [key for key, part in parts.items() if key and STAGE.search(type(part).__name__)]
    outermost = [key for key in stages if not any(key.startswith(f"{other}.") for other in stages)]
    if outermost:
        pools = {key for key, part in parts.items() if isinstance(part, POOL) and not _inside(key, outermost)}
        return tuple(key for key in parts if key in pools or key in outermost)
    leaves = [
        key for key, part in parts.items() if key and not isinstance(part, nn.Flatten) and not any(part.children())
    ]
    return tuple(key for key in leaves if key != head)


def _inside(key: str, others: Sequence[str]) -> bool:
    return any(key.startswith(f"{other}.") for other in others)
