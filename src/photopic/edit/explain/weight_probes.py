"""The probes of an edit that need no model: which weights it touches, and which it shares with other edits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Size, Tensor

from photopic.core.edits import Edit
from photopic.core.edits.interference import interference
from photopic.core.errors import EditError
from photopic.core.nn.layer_names import place, running_order
from photopic.core.results import provenance
from photopic.edit.explain._common import Probe, origin

PATCH = 96  # rows and columns of a matrix that the map of disentanglement shows
COLOURS = np.array(  # nobody's, shared, then one an edit
    [(236, 232, 223), (34, 37, 43), (217, 114, 46), (46, 120, 200), (60, 150, 90), (150, 80, 170)], np.uint8
)


def touched_weights(edit: Edit) -> Probe:
    """How many weights an edit touches by block and projection.

    Returns:
        One row a block and projection, in the order the network runs them: ``block``, ``projection`` (``k``, ``v``, or
        empty), ``count``, ``size`` of the touched tensors, ``share``. ``values``: the sums over all and by projection.

    Example:
        >>> touched_weights(edit).values["count"]  # doctest: +SKIP
        14745
    """
    counts: dict[tuple[str, str], list[int]] = {}
    for name, positions in edit.touched().items():
        block, _, projection = place(name)
        size = Size(edit.base.shapes[name]).numel()
        sums = counts.setdefault((block, projection), [0, 0])
        sums[0] += size if positions is None else len(positions)
        sums[1] += size
    order = sorted(counts, key=lambda key: (running_order(key[0]), key[1]))
    rows: tuple[dict[str, Any], ...] = tuple(
        {"block": block, "projection": projection, "count": count, "size": size, "share": count / size}
        for block, projection in order
        for count, size in [counts[block, projection]]
    )
    values: dict[str, Any] = {"count": sum(row["count"] for row in rows), "size": sum(row["size"] for row in rows)}
    for projection in sorted({row["projection"] for row in rows} - {""}):
        of = [row for row in rows if row["projection"] == projection]
        values[f"share_{projection}"] = sum(row["count"] for row in of) / sum(row["size"] for row in of)
    return Probe("touched weights", values, rows, provenance("locate.explain.touched_weights", edit=origin(edit)))


def disentanglement(edits: Sequence[Edit], names: Sequence[str] | None = None) -> Probe:
    """Which weights two or more edits touch alone and which they share, against chance.

    Args:
        edits: Two to four edits for one base.
        names: What to call them.

    Returns:
        One row a pair and tensor: ``pair``, ``tensor``, ``only`` (of each), ``shared``, ``expected`` of independent sets of
        these sizes, ``ratio``. ``values``: the sums of each pair. Pictures by tensor: the upper left corner of the matrix,
        a pixel a weight; its colours are ``COLOURS``: nobody's, shared, then one an edit.

    Raises:
        EditError: If there are fewer than two edits or more than four, or they are for different bases.

    Example:
        >>> disentanglement([bear, mug]).values["<bear> + <mug>"]["ratio"]  # doctest: +SKIP
        1.4
    """
    if len(edits) > len(COLOURS) - 2:
        raise EditError(f"disentanglement: expected two to {len(COLOURS) - 2} edits, found {len(edits)}")
    report = interference(*edits, names=names)
    rows = tuple(
        {
            "pair": row["pair"],
            "tensor": row["tensor"],
            "only": [count - row["shared"] for count in row["entries"]],
            "shared": row["shared"],
            "expected": row["expected"],
            "ratio": _ratio(row["shared"], row["expected"]),
        }
        for row in sorted(
            report.rows, key=lambda row: (row["pair"], running_order(place(row["tensor"])[0]), row["tensor"])
        )
    )
    values: dict[str, Any] = {"edits": report.values["edits"], "pairs": {}}
    for pair in (" + ".join(both) for both in combinations(report.values["edits"], 2)):
        of = [row for row in rows if row["pair"] == pair]
        shared, expected = sum(row["shared"] for row in of), sum(row["expected"] for row in of)
        values["pairs"][pair] = {"shared": shared, "expected": expected, "ratio": _ratio(shared, expected)}
    shapes = {name: tuple(shape) for edit in edits for name, shape in edit.base.shapes.items()}
    touched = [edit.touched() for edit in edits]
    tensors = sorted(set().union(*touched), key=lambda name: (running_order(place(name)[0]), name))
    pictures = {name: _owners(touched, name, shapes[name])[None] for name in tensors if len(shapes[name]) == 2}
    return Probe("disentanglement", values, rows, report.provenance, pictures)


def _owners(
    touched: Sequence[Mapping[str, Tensor | None]], name: str, shape: tuple[int, ...]
) -> UInt8[np.ndarray, "rows columns 3"]:
    """Who touches each weight of a corner of a matrix, in ``COLOURS``."""
    owner = torch.zeros(Size(shape).numel(), dtype=torch.int64)
    count = torch.zeros_like(owner)
    for number, tensors in enumerate(touched):
        if name in tensors:
            positions = tensors[name]
            where: Any = slice(None) if positions is None else positions
            owner[where] = number + 2
            count[where] += 1
    owner[count > 1] = 1
    return COLOURS[owner.view(shape)[:PATCH, :PATCH].numpy()]


def _ratio(shared: int, expected: float) -> float | None:
    return shared / expected if expected else None
