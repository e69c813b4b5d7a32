"""What a mask search may spend: a set chosen under a budget of bytes, and a penalty that ends a search at a density.

`select` spends the bytes of the coded positions (`photopic.core.indices`), which is what the file costs: scattered entries, whole
rows, or entries in the best rows only, whichever form is asked for. Whole columns are none: the code sees them as scattered.
`SparsityPenalty` is added to the loss while the mask is trained, so that the entries worth shutting are found at the density asked
for and not cut down to it afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from photopic.core import indices
from photopic.core.errors import DataError

Structure = Literal["entries", "rows", "within-rows", "cheapest"]
LOW = 0.5  # a mask below it is low
ROW_SHARES = (1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125)  # of the rows that may hold entries, tried by within-rows


@dataclass(frozen=True)
class Selection:
    """Positions chosen under a budget.

    Attributes:
        positions: Tensor name to its sorted flat positions; names without any are left out.
        size_bytes: Of the coded positions in the file.
        gain: Sum of the scores of what was chosen.
        structure: How it was chosen.
    """

    positions: dict[str, Int64[Tensor, " n"]]
    size_bytes: int
    gain: float
    structure: str


def scores_of(
    masks: Mapping[str, Float[Tensor, "..."]], saliency: Mapping[str, Float[Tensor, "..."]] | None = None
) -> dict[str, Float[Tensor, "..."]]:
    """How much shutting each entry is worth: 1 - M, ties broken by saliency.

    Args:
        masks: M by name, 0 to 1.
        saliency: By the same names theta x dL/dtheta, which is high where shutting lowers the loss.

    Example:
        >>> scores_of({"w": torch.tensor([0.0, 1.0])})["w"].tolist()
        [1.0, 0.0]
    """
    found = {name: 1 - mask.detach().float().cpu() for name, mask in masks.items()}
    if saliency is None:
        return found
    largest = max(float(each.abs().max()) for each in saliency.values()) or 1.0
    return {name: score + 1e-6 * saliency[name].float().cpu() / largest for name, score in found.items()}


def select(
    scores: Mapping[str, Float[Tensor, "..."]], size_bytes: int, *, structure: Structure = "entries"
) -> Selection:
    """The entries with the highest scores whose coded positions fit into a budget.

    Args:
        scores: Tensor name to one score an entry, in the tensor's shape; entries at 0 or less are never chosen.
        size_bytes: What the coded positions may take.
        structure: ``entries``: anywhere; ``rows``: whole rows, by the mean score; ``within-rows``: entries in the best rows only,
            as many rows as gain most; ``cheapest``: whichever of these gains most.

    Raises:
        DataError: If not one entry fits.

    Example:
        >>> select({"w": torch.tensor([[0.0, 1.0], [0.0, 0.0]])}, 100).positions
        {'w': tensor([1])}
    """
    if structure == "cheapest":
        found = [_selected(scores, size_bytes, each) for each in ("entries", "rows", "within-rows")]
        chosen = max((each for each in found if each), key=lambda each: each.gain, default=None)
    else:
        chosen = _selected(scores, size_bytes, structure)
    if chosen is None:
        raise DataError(f"budget of {size_bytes} bytes: expected room for one position, found too little; raise it")
    return chosen


def coded_bytes(positions: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> int:
    """What the file spends on positions, each tensor coded by its rows."""
    return sum(
        len(
            indices.encode(
                at.numpy(), math.prod(shapes[name]), row=_row(shapes[name]) if len(shapes[name]) > 1 else None
            )
        )
        for name, at in positions.items()
        if len(at)
    )


class SparsityPenalty:
    """The L1 norm of 1 - M, with a weight that lets only a falling share of the masks sink: a density by the end of a search.

    A mask sinks while the loss pulls it down (dL/dM) more than the penalty pushes it up (the weight). After each step the weight
    becomes the pull that just the allowed share of the masks exceeds, by a running mean; so its scale is found, not given, and
    suits any loss. The allowed share falls from ``start`` to ``density`` along a quarter of a cosine over the first ``settle`` of
    the steps, and as much below that as more masks than allowed are low.

    Args:
        density: Share of the masks that may sink at the end, above 0 to 1.
        steps: Of the search.
        start: Share allowed at first.
        settle: Share of the steps after which only ``density`` is allowed.
        decay: Of the running mean of the pulls.

    Attributes:
        weight: Of the norm: what to take from each entry of dL/dM.

    Raises:
        DataError: If the density is not above 0 to 1.

    Example:
        >>> penalty = SparsityPenalty(0.02, steps=200)                                # doctest: +SKIP
        >>> gradients = torch.autograd.grad(losses.total, list(masks.values()))       # doctest: +SKIP
        >>> penalty.update(masks, dict(zip(masks, gradients, strict=True)), step)     # doctest: +SKIP
        >>> gradients = [gradient - penalty.weight for gradient in gradients]         # doctest: +SKIP
    """

    def __init__(self, density: float, steps: int, *, start: float = 0.5, settle: float = 0.6, decay: float = 0.95):
        if not 0 < density <= 1:
            raise DataError(f"density: expected above 0 to 1, found {density}")
        self.density, self.steps, self.start, self.settle = density, steps, max(start, density), settle
        self.decay, self.weight = decay, 0.0
        self._pulls: dict[str, Tensor] = {}

    def __call__(self, masks: Mapping[str, Float[Tensor, "..."]]) -> Float[Tensor, ""]:
        """The penalty of masks in 0 to 1; minus its gradient is ``weight`` for every entry."""
        return self.weight * torch.stack([(1 - mask).sum() for mask in masks.values()]).sum()

    def allowed(self, step: int) -> float:
        """Share of the masks that may sink after a step, counted from 0."""
        done = min(1.0, (step + 1) / max(1.0, self.settle * self.steps))
        return self.density + (self.start - self.density) * math.cos(math.pi / 2 * done)

    def update(
        self, masks: Mapping[str, Float[Tensor, "..."]], pulls: Mapping[str, Float[Tensor, "..."]], step: int
    ) -> None:
        """Set the weight from the masks and dL/dM of a step, the latter without the penalty."""
        for name, pull in pulls.items():
            mean = self._pulls.setdefault(name, torch.zeros_like(pull, dtype=torch.float32))
            mean.mul_(self.decay).add_(pull.detach(), alpha=1 - self.decay)
        flat = torch.cat([mean.flatten() for mean in self._pulls.values()]) / (1 - self.decay ** (step + 1))
        allowed = self.allowed(step)
        low = sum(int((mask.detach() < LOW).sum()) for mask in masks.values()) / len(flat)
        sinking = min(len(flat), max(1, round(allowed * min(1.0, allowed / max(low, 1e-9)) * len(flat))))
        self.weight = max(0.0, float(flat.kthvalue(len(flat) - sinking + 1).values))

    def tensors(self, prefix: str = "pull.") -> dict[str, Tensor]:
        """Everything a checkpoint needs; ``restore`` is the inverse."""
        return {prefix + name: mean for name, mean in self._pulls.items()}

    def restore(self, tensors: Mapping[str, Tensor], device: torch.device, prefix: str = "pull.") -> None:
        """Go back to the state ``tensors`` gave; the weight follows with the next step."""
        kept = {name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)}
        self._pulls = {name: each.to(device).clone() for name, each in kept.items()}


def _selected(
    scores: Mapping[str, Tensor], size_bytes: int, structure: Literal["entries", "rows", "within-rows"]
) -> Selection | None:
    if structure == "within-rows":
        order = _rows_by_gain(scores)
        found = [_most(_only_rows(scores, order, share), size_bytes, "within-rows") for share in ROW_SHARES]
        return max((each for each in found if each), key=lambda each: each.gain, default=None)
    if structure == "rows":
        return _most_rows(scores, size_bytes)
    return _most(scores, size_bytes, "entries")


def _most(scores: Mapping[str, Tensor], size_bytes: int, structure: str) -> Selection | None:
    """As many of the best entries as fit, by bisection over their number."""
    shapes = {name: tuple(score.shape) for name, score in scores.items()}
    flat = torch.cat([score.flatten() for score in scores.values()])
    order = flat.argsort(descending=True, stable=True)[: int((flat > 0).sum())]
    return _largest(
        len(order), size_bytes, shapes, lambda count: _split(order[:count], shapes), structure, dict(scores)
    )


def _most_rows(scores: Mapping[str, Tensor], size_bytes: int) -> Selection | None:
    """As many of the best rows as fit."""
    shapes = {name: tuple(score.shape) for name, score in scores.items()}
    order = _rows_by_gain(scores)

    def rows(count: int) -> dict[str, Tensor]:
        found: dict[str, list[Tensor]] = {}
        for name, row in order[:count]:
            length = _row(shapes[name])
            found.setdefault(name, []).append(torch.arange(row * length, (row + 1) * length))
        return {name: torch.cat(each).sort().values for name, each in found.items()}

    return _largest(len(order), size_bytes, shapes, rows, "rows", dict(scores))


def _largest(  # the code of a set grows with the set but for a few bytes, so the last count is checked again
    most: int,
    size_bytes: int,
    shapes: Mapping[str, tuple[int, ...]],
    chosen: Callable[[int], dict[str, Tensor]],
    structure: str,
    scores: Mapping[str, Tensor],
) -> Selection | None:
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        fits = coded_bytes(chosen(middle), shapes) <= size_bytes
        low, high = (middle, high) if fits else (low, middle - 1)
    if not low:
        return None
    positions = chosen(low)
    gain = sum(float(scores[name].flatten()[at].sum()) for name, at in positions.items())
    return Selection(positions, coded_bytes(positions, shapes), gain, structure)


def _rows_by_gain(scores: Mapping[str, Tensor]) -> list[tuple[str, int]]:
    """Tensor name and number of each row whose mean score is above 0, best first."""
    means = {name: score.reshape(-1, _row(tuple(score.shape))).mean(1) for name, score in scores.items()}
    flat = torch.cat(list(means.values()))
    places = [(name, row) for name, mean in means.items() for row in range(len(mean))]
    order = flat.argsort(descending=True, stable=True)[: int((flat > 0).sum())]
    return [places[at] for at in order.tolist()]


def _only_rows(scores: Mapping[str, Tensor], order: list[tuple[str, int]], share: float) -> dict[str, Tensor]:
    """Scores that are 0 outside the best share of the rows."""
    kept = {name: torch.zeros_like(score) for name, score in scores.items()}
    for name, row in order[: math.ceil(share * len(order))]:
        kept[name].view(-1, _row(tuple(kept[name].shape)))[row] = scores[name].reshape(
            -1, _row(tuple(kept[name].shape))
        )[row]
    return kept


def _split(positions: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Positions in all tensors laid end to end -> sorted positions by name."""
    positions, start, found = positions.sort().values, 0, {}
    for name, shape in shapes.items():
        end = start + math.prod(shape)
        first, last = torch.searchsorted(positions, torch.tensor([start, end])).tolist()
        if last > first:
            found[name] = positions[first:last] - start
        start = end
    return found


def _row(shape: tuple[int, ...]) -> int:
    """Entries of one output of a layer, as the file codes them."""
    return math.prod(shape[1:]) if len(shape) > 1 else math.prod(shape)
