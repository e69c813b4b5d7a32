"""What edits would do to each other, before they are composed: overlaps against chance, opposite signs, shared subspaces, drift."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from photopic.core.edits.changes import Change, at_positions, repeated
from photopic.core.edits.compose import check_same_base
from photopic.core.edits.edit import Edit
from photopic.core.edits.positions import overlap
from photopic.core.edits.stack import EditStack
from photopic.core.errors import EditError
from photopic.core.fingerprint import named_tensors
from photopic.core.results import Report, provenance

ANGLES = 4  # leading directions compared


def interference(
    *edits: Edit,
    base: Mapping[str, nn.Module] | None = None,
    probe: Callable[[], Float[Tensor, "..."]] | None = None,
    names: Sequence[str] | None = None,
    spans: bool = True,
) -> Report:
    """Compare every two edits on every tensor both touch.

    Args:
        edits: Two or more, for one base.
        base: The base's modules by component, with no edit in force. With it signs and subspaces of edits that set entries are
            known too.
        probe: Runs the modules of ``base`` on a batch and returns their output; it is called on the base, on each edit alone and
            on all together.
        names: What to call the edits, one each; by their tokens or nouns otherwise.
        spans: Whether angles are wanted; they take a decomposition of every tensor, seconds for a large model.

    Returns:
        A report. ``values``: shared entries, what independent sets of these sizes would share, their ratio, the share of shared
        entries whose changes have opposite signs; with a probe the relative drift of each edit, of all together, and how far that
        is from the sum of the single drifts. One row a pair and tensor, worst overlap first; ``cosine`` is that of the changes,
        ``angle_deg`` the smallest principal angle between the spans of the four leading left singular vectors. None where the
        base is needed and not given.

    Raises:
        EditError: If fewer than two edits are given, they are for different bases, or a probe comes without the base.

    Example:
        >>> interference(bear, mug).values["shared"]  # doctest: +SKIP
        1204
    """
    if len(edits) < 2:
        raise EditError(f"interference: expected at least two edits, found {len(edits)}")
    if probe is not None and base is None:
        raise EditError("interference: a probe needs the modules it runs; pass base=")
    for other in edits[1:]:
        check_same_base(edits[0], other)
    tensors = None if base is None else named_tensors(base)
    names = [edit.label or f"edit {number}" for number, edit in enumerate(edits, 1)] if names is None else list(names)
    rows = [
        _row(f"{names[a]} + {names[b]}", name, edits[a], edits[b], tensors, spans)
        for a, b in combinations(range(len(edits)), 2)
        for name in sorted(edits[a].touched().keys() & edits[b].touched().keys())
    ]
    rows.sort(key=lambda row: (-row["shared"], row["pair"], row["tensor"]))
    shared, expected = sum(row["shared"] for row in rows), sum(row["expected"] for row in rows)
    signed = [row for row in rows if row["opposite"] is not None and row["shared"]]
    values: dict[str, Any] = {
        "edits": names,
        "shared": shared,
        "expected": expected,
        "over_chance": shared / expected if expected else None,
        "opposite": sum(row["opposite"] for row in signed) / sum(row["shared"] for row in signed) if signed else None,
        "set_twice": sum(row["set_twice"] for row in rows),
        "same_tokens": sorted(set.intersection(*(set(edit.tokens) for edit in edits))),
    }
    if probe is not None and base is not None:
        values |= _drift(edits, names, base, probe)
    return Report("interference", values, tuple(rows), provenance("interference"))


def _row(pair: str, name: str, a: Edit, b: Edit, tensors: Mapping[str, Tensor] | None, spans: bool) -> dict[str, Any]:
    first, second = a.touched()[name], b.touched()[name]
    size = torch.Size(a.base.shapes[name]).numel()
    counts = [size if each is None else len(each) for each in (first, second)]
    shared = overlap(first, second, size)
    opposite, cosine, angle = _signs_and_spans(name, a, b, tensors, spans)
    return {
        "pair": pair,
        "tensor": name,
        "entries": counts,
        "shared": shared,
        "expected": counts[0] * counts[1] / size,  # of two independent uniform sets: |A| |B| / size
        "set_twice": _set_twice(name, a, b, size),
        "opposite": opposite,
        "cosine": cosine,
        "angle_deg": angle,
    }


def _set_twice(name: str, a: Edit, b: Edit, size: int) -> int:
    """Entries that both set, other than to zero in both: the ones a policy has to decide on."""
    pairs = [(x, y) for x in a.weight_parts for y in b.weight_parts if name in x.names() and name in y.names()]
    decided = [(x, y) for x, y in pairs if not (x.adds or y.adds or (x.zeroes and y.zeroes))]
    return sum(overlap(x.change(name).indices, y.change(name).indices, size) for x, y in decided)


def _signs_and_spans(
    name: str, a: Edit, b: Edit, tensors: Mapping[str, Tensor] | None, spans: bool
) -> tuple[int | None, float | None, float | None]:
    """Shared entries whose changes have opposite signs, the cosine of the changes, and the angle between their spans."""
    try:
        first, second = Change.of(a, name, tensors), Change.of(b, name, tensors)
    except EditError:  # the edits set entries and the base is not given
        return None, None, None
    both = repeated([first.positions, second.positions])
    opposite = (
        int((at_positions(first, both).sign() * at_positions(second, both).sign() < 0).sum())
        if both is None or len(both)
        else 0
    )
    x, y = (_dense(change, a.base.shapes[name]) for change in (first, second))  # in the tensor's shape
    norms = x.norm() * y.norm()
    cosine = float((x * y).sum() / norms) if norms else 0.0
    return opposite, cosine, _angle(x, y) if spans else None


def _angle(x: Float[Tensor, "..."], y: Float[Tensor, "..."]) -> float | None:
    if x.ndim < 2 or not x.any() or not y.any():
        return None
    spans = []
    for each in (x.flatten(1), y.flatten(1)):
        left, values, _ = torch.linalg.svd(each, full_matrices=False)  # (out, in) -> (out, r), (r,)
        spans.append(left[:, : min(ANGLES, int((values > values[0] * 1e-6).sum()))])
    largest = torch.linalg.svdvals(spans[0].mT @ spans[1])[0].clamp(max=1)  # cosine of the smallest principal angle
    return float(torch.rad2deg(torch.arccos(largest)))


def _dense(change: Change, shape: tuple[int, ...]) -> Float[Tensor, "..."]:
    if change.positions is None:
        return change.delta.view(shape)
    return torch.zeros(torch.Size(shape).numel()).index_copy_(0, change.positions, change.delta).view(shape)


def _drift(
    edits: Sequence[Edit], names: Sequence[str], base: Mapping[str, nn.Module], probe: Callable[[], Tensor]
) -> dict[str, Any]:
    """Root mean square change of the probe's output over the root mean square of the output itself."""
    stack = EditStack(base)
    with torch.no_grad():
        output = probe().float()  # of the base
        changes = []
        for edit in edits:
            with stack.applied(_without_tokens(edit)):
                changes.append(probe().float() - output)  # of one edit alone
        for number, edit in enumerate(edits):
            stack.load(_without_tokens(edit), name=str(number), overlap="last")
        together = probe().float() - output
        stack.clear()
    size = output.norm()  # norms of equal length divide as root mean squares do
    return {
        "drift": {name: float(change.norm() / size) for name, change in zip(names, changes, strict=True)},
        "drift_together": float(together.norm() / size),
        "drift_beyond_sum": float((together - torch.stack(changes).sum(0)).norm() / size),
    }


def _without_tokens(edit: Edit) -> Edit:
    """A probe speaks no new words, and the modules may come without tokenizers."""
    return Edit(tuple(part for part in edit.parts if part.kind != "token"), edit.base, edit.provenance)
