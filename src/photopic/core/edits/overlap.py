"""What an edit writes to a model, and where two edits would write to the same entry."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from torch import Tensor, nn

from photopic.core.edits.edit import Edit
from photopic.core.edits.positions import Write, check_shape, check_tensor, deduplicated, first_names, overlap
from photopic.core.edits.stack_item import LoadedEdit
from photopic.core.errors import OverlapError
from photopic.core.frozen import frozen_weights

Writes = dict[str, list[Write]]  # by the first name of a shared parameter


def resolved(edit: Edit, tensors: Mapping[str, Tensor], model: str, modules: Mapping[str, nn.Module]) -> Writes:
    """What to write, with every shared parameter under one name and its positions once.

    Args:
        edit: Any edit.
        tensors: Those of the model, by name.
        model: What to call it in messages.
        modules: Component name to module.

    Raises:
        EditError: If the edit does not fit the model; names the tensor.
    """
    first = first_names(tensors)  # tied weights are one tensor with several names
    touched = edit.touched()
    frozen: Any = frozen_weights(modules, touched)  # which nothing is written to: their changes stand beside them
    gathered: dict[str, Any] = {}
    for name in touched:
        if name in frozen:
            layer = frozen[name]  # packed weights have other shapes than what they stand for
            check_shape(name, (layer.out_features, layer.in_features), edit.base.shapes[name], model)
        else:
            check_tensor(name, tensors.get(name), edit.base.shapes[name], model, modules)
        writes = [part.change(name) for part in edit.weight_parts if name in part.names()]
        gathered.setdefault(name if name in frozen else first[name], []).append(writes)
    return {
        name: lists[0] if len(lists) == 1 else deduplicated(name, [write for writes in lists for write in writes])
        for name, lists in sorted(gathered.items())
    }


def check_overlap(later: LoadedEdit, new: Writes, before: Mapping[str, Writes], tensors: Mapping[str, Tensor]) -> None:
    """Refuse an edit that touches entries an earlier one touches, unless both shut them or it may write them last.

    Args:
        later: The edit.
        new: What it writes.
        before: What the edits in force before it write, by their names.
        tensors: Those of the model, by name.

    Raises:
        OverlapError: Names both edits, the tensor and how many entries.
    """
    if later.overlap == "last" or not later.is_on:
        return
    for other, writes in before.items():
        for name in sorted(new.keys() & writes.keys()):
            pairs = [(a, b) for a in new[name] for b in writes[name] if not _both_shut(a, b)]
            entries = prod(later.edit.base.shapes[name]) if name in later.edit.base.shapes else tensors[name].numel()
            clashing = sum(overlap(a.indices, b.indices, entries) for a, b in pairs)
            if clashing:
                raise OverlapError(
                    f"{later.name} and {other} both touch {clashing} entries of {name}",
                    "pass overlap='last' to set or add the later one on top",
                    tensor=name,
                    count=clashing,
                )


def _both_shut(a: Write, b: Write) -> bool:
    return a.values is None and b.values is None
