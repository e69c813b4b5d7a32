"""Models that were tuned from one base merged into one: plain average, task arithmetic, TIES, DARE and Fisher merging.

Each rule is a file of this folder with its paper. Claims: ``fisher_merging.*`` of benchmarks/edit/merging.py; exact facts in
tests/edit/merging/test_merge.py.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from photopic.core.config import Config, Flags
from photopic.core.edits import Edit
from photopic.core.edits.stored import StoredEdit
from photopic.core.errors import DataError, EditError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.data.class_folder import ClassFolder
from photopic.data.few_shot import LabelledImages
from photopic.edit.merging._average import added, averaged
from photopic.edit.merging._common import Changes, Totals, as_edit, check_model
from photopic.edit.merging._dare import dropped_and_rescaled
from photopic.edit.merging._fisher import fisher_weighted
from photopic.edit.merging._ties import elected
from photopic.models.handle import Handle


@dataclass(frozen=True, kw_only=True)
class MergeConfig(Config):
    """By which rule, and how."""

    # mean of the models (average), sum of what each adds (task-arithmetic), mean of what agrees with an elected sign (ties), sum of
    # randomly thinned changes (dare), or mean weighed by what each model's predictions depend on (fisher)
    by: Literal["average", "task-arithmetic", "ties", "dare", "fisher"] = "average"
    scale: Annotated[float, Gt(0)] = 1.0  # what the merged change is multiplied with; for sums often 0.3 to 0.5
    keep: Annotated[float, Gt(0), Le(1)] = 0.2  # ties: share of each tensor's entries that an edit keeps, the largest
    drop: Annotated[float, Ge(0), Lt(1)] = 0.9  # dare: share of the entries that are dropped
    pictures: Annotated[int, Ge(1)] = 256  # fisher: pictures of each edit's folder that are looked at, at most
    floor: Annotated[float, Gt(0)] = 1e-8  # fisher: added to all weights, so that what matters to nobody is averaged
    seed: Annotated[int, Ge(0)] = 0  # seed of everything random; the same seed merges the same


@method(
    paper="arXiv:2111.09832",
    claims="fisher_merging.",
    examples=(
        "Example: photopic edit merge noto.edit twemoji.edit --by ties -o both.edit",
        "Fisher merging: photopic edit merge a.edit b.edit --by fisher --images a/ --images b/ --model emoji-clip-vit -o c.edit",
    ),
    after=("next: photopic inspect {output}",),
)
def merge(
    edits: Sequence[StoredEdit] | Sequence[Edit],
    *,
    model: Handle | None = None,
    images: Sequence[ClassFolder] | Sequence[LabelledImages] | None = None,
    weights: Annotated[Sequence[float] | None, Flags("--weight")] = None,
    config: MergeConfig = MergeConfig(),
) -> Steps[Edit]:
    """Make one model of several that were tuned from the same base, as one edit that comes off again.

    Args:
        edits: Two or more edits of weights, all for one base model.
        model: The base model; needed for fisher, and where an edit shuts or sets entries.
        images: Pictures of what each edit is for, in their order; needed for fisher.
        weights: How much each edit counts, in order; 1 each by default. For sums they may be negative.
        config: By which rule, and how.

    Returns:
        What is added to the base.

    Raises:
        EditError: If there are fewer than two, the bases differ, one does more than change weights, the model is not their base, or
            is needed and not given; or if nothing is left.
        DataError: If weights or folders are not one an edit.

    Example:
        >>> both = merge([noto, twemoji], config=MergeConfig(by="ties"))  # doctest: +SKIP
    """
    scales = _checked_weights([1.0] * len(edits) if weights is None else weights, len(edits), config.by)
    changes = Changes(edits, model)
    check_model(model, changes)
    yield Event("merging", 0, len(changes))
    if config.by == "fisher":
        if model is None:
            raise EditError("--by fisher: needs the base model; name it with --model")
        if images is None or len(images) != len(edits):
            raise DataError(
                f"--images: expected one folder for each of {len(edits)} edits, found {len(images or ())}; --by fisher measures "
                "each edit on its own pictures"
            )
        with tempfile.TemporaryDirectory(prefix="photopic-") as folder:
            of = {"floor": config.floor, "pictures": config.pictures, "seed": config.seed, "folder": Path(folder)}
            totals = yield from fisher_weighted(changes, scales, model, images, **of)  # type: ignore[arg-type]
            return as_edit(totals, changes, config.scale, weights=scales)
    return as_edit(_merged(changes, scales, config), changes, config.scale, weights=scales)


def _merged(changes: Changes, weights: Sequence[float], config: MergeConfig) -> Totals:
    if config.by == "ties":
        return elected(changes, weights, config.keep)
    if config.by == "dare":
        return dropped_and_rescaled(changes, weights, config.drop, config.seed)
    return (averaged if config.by == "average" else added)(changes, weights)


def _checked_weights(weights: Sequence[float], count: int, rule: str) -> list[float]:
    if len(weights) != count:
        raise DataError(f"--weight: expected one for each of {count} edits, found {len(weights)}")
    if rule in ("average", "fisher") and min(weights, default=1.0) <= 0:
        raise DataError(
            f"--weight: expected more than 0 for a mean, found {min(weights)}; --by task-arithmetic subtracts"
        )
    return list(weights)
