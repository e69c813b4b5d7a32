"""Adapters that are no more than a change of a weight, as that change."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from photopic.core.edits import AdapterPlacement, Adapters, Edit, LowRankDelta
from photopic.core.errors import EditError
from photopic.models.dual_encoder import DualEncoder


def merged(edit: Edit, model: DualEncoder) -> Edit:
    """The same edit with its branches in the weights, where that is exact: W + scale x up @ down.

    It is for adapters with the activation ``identity`` and without biases or an input-dependent scale, beside one linear layer
    whose own input they read (operations ``query`` and ``value``). Other parts stay.

    Args:
        edit: With branches.
        model: The one it was made for.

    Raises:
        EditError: Names the first branch that no weight can hold, and why.

    Example:
        >>> merged(edit, model).parts[0].kind  # doctest: +SKIP
        'low_rank'
    """
    up, down = {}, {}
    branched = edit.of(Adapters)
    for part in branched:
        for name, branch in part.branches.items():
            own = {role: part.tensors[f"{name}/{role}"] for role in _roles(part, name)}
            if reason := _unmergeable(model, name, branch, own):
                raise EditError(f"{name}: expected a branch that fits into weights, but {reason}; keep it as it is")
            if f"{name}.weight" in up:
                raise EditError(f"{name}: two branches of this edit are beside it; merge them one after the other")
            # one a row of the weight, or one for all
            scale = own["scale"].float().unsqueeze(-1) if "scale" in own else torch.ones(1)
            up[f"{name}.weight"] = part.scale * scale * own["up"].float()  # (out, 1) * (out, rank)
            down[f"{name}.weight"] = own["down"].float()
    if not up:
        raise EditError("merge: expected an edit with tuners, found none")
    rest = tuple(part for part in edit.parts if part not in branched)
    base = model.edits.fingerprint(*up, *edit.touched())
    return Edit((LowRankDelta(up, down), *rest), base, {"method": "merge", "parents": [dict(edit.provenance)]})


def _roles(part: Adapters, name: str) -> list[str]:
    return [each.rpartition("/")[2] for each in part.tensors if each.rpartition("/")[0] == name]


def _unmergeable(model: DualEncoder, name: str, branch: AdapterPlacement, tensors: dict[str, Tensor]) -> str:
    """Why a branch is more than a change of a weight; empty if it is not."""
    module = model.network.get_submodule(name.partition(".")[2])
    if branch.kind != "adapter":
        return f"a {branch.kind} is no linear function of its input"
    if branch.activation != "identity":
        return f"its activation is {branch.activation}"
    if any(bool(tensors[role].any()) for role in ("down_bias", "up_bias") if role in tensors):
        return "it has biases"
    if branch.scaling == "input":
        return "its scale depends on the input"
    if not isinstance(module, nn.Linear) or branch.serial or branch.reads not in ("", name):
        return f"it is not beside a linear layer whose input it reads, but beside {type(module).__name__}"
    return ""
