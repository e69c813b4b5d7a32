"""The weights of a model as they are learnt beside it, and what was learnt as an edit of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from photopic.core.edits import DenseDelta, Edit
from photopic.models.handle import Handle


def weight_copies(model: Handle) -> dict[str, Tensor]:
    """A copy of every weight to learn, by the names of edits; statistics of normalisation are no weights.

    Args:
        model: Stays as it is; ``model.functional`` computes with the copies.

    Example:
        >>> model.functional(weight_copies(model))(pixels)  # doctest: +SKIP
    """
    return {
        f"{component}.{name}": weight.detach().clone().requires_grad_()
        for component, network in model.components.items()
        for name, weight in network.named_parameters()
        if weight.is_floating_point()
    }


def learnt_edit(model: Handle, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Edit:
    """What was added to a model's weights; what did not move is not stored.

    Args:
        model: As it was before.
        tensors: As they were learnt, by the names of edits.
        facts: For the provenance.
    """
    base = model.parameters(*tensors)
    with torch.no_grad():
        deltas = {name: tensor.detach() - base[name] for name, tensor in tensors.items()}
    deltas = {name: delta for name, delta in deltas.items() if bool(delta.any())}
    return Edit((DenseDelta(deltas),), model.fingerprint(*deltas), dict(facts))
