"""Several edits of one model as one, with a word first on where they get in each other's way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from photopic.core.config import Flags
from photopic.core.edits import Edit, OverlapPolicy, TokenEmbedding
from photopic.core.edits import compose as composed
from photopic.core.edits.interference import interference
from photopic.core.errors import EditError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.edit._common import check_base, labels, shared_note
from photopic.models.handle import Handle


@method(
    examples=(
        "Example: photopic compose bear.edit mug.edit -o both.edit",
        "Two fine-tunings: photopic compose a.edit b.edit --overlap ties --weight 0.5 --weight 0.5 --model ./base -o ab.edit",
        "What they share, layer by layer: photopic edit interference bear.edit mug.edit",
    ),
)
def compose(
    edits: Sequence[Edit],
    *,
    overlap: OverlapPolicy = "error",
    weights: Annotated[Sequence[float] | None, Flags("--weight")] = None,
    model: Handle | None = None,
    names: Annotated[Sequence[str] | None, Flags()] = None,
) -> Steps[Edit]:
    """Make one edit of several, and say first where they get in each other's way.

    The result remembers what it was made of: photopic inspect shows it as a tree.

    Args:
        edits: Two or more edit files for the same base model.
        overlap: Entries that several edits touch: refuse them unless all do the same (error), values win over shutting (union), the
            earlier edit wins (first), changes are added (sum), or the changes that agree with the elected sign are averaged (ties).
        weights: How far each edit goes: one for each, in order; 1 each by default.
        model: The base model, needed for sum, ties and weights where an edit shuts or sets entries.
        names: What to call the edits; their words by default.

    Returns:
        One edit whose provenance lists its parents.

    Raises:
        EditError: If there are fewer than two, the bases differ, entries clash under the policy, two bring one word with different
            rows, or the base is needed and not given, or another one.

    Example:
        >>> both = compose([bear, mug], overlap="union")  # doctest: +SKIP
    """
    called = labels(edits, names)
    if len(edits) < 2:
        raise EditError(f"compose: expected at least two edits, found {len(edits)}; name another")
    if weights is not None and len(weights) != len(edits):
        raise EditError(f"--weight: expected one for each of {len(edits)} edits, found {len(weights)}")
    _check_tokens(edits, called)
    option = f"overlap {overlap}" if overlap in ("sum", "ties") else "weight" if set(weights or [1.0]) != {1.0} else ""
    if model is None and option:
        _check_only_added(edits, called, option)
    if model is not None:
        check_base(model, edits, called)
    shared = interference(*edits, names=called, spans=False).values
    yield Event("composing", warning=shared_note(shared) if shared["shared"] else "")
    made = composed(*edits, overlap=overlap, weights=weights, base=None if model is None else model.components)
    return replace(made, provenance={key: value for key, value in made.provenance.items() if key != "method"})


def _check_tokens(edits: Sequence[Edit], names: Sequence[str]) -> None:
    """Two edits may bring one word if they mean the same by it."""
    seen: dict[str, tuple[str, TokenEmbedding]] = {}
    for name, edit in zip(names, edits, strict=True):
        for part in edit.of(TokenEmbedding):
            other, known = seen.setdefault(part.token, (name, part))
            if known.digest() != part.digest():
                raise EditError(
                    f"{name}: its word {part.token} is also that of {other}, with another row; locate one again with "
                    "another --token"
                )


def _check_only_added(edits: Sequence[Edit], names: Sequence[str], option: str) -> None:
    """The change of an entry that is shut or set depends on what was there."""
    for name, edit in zip(names, edits, strict=True):
        if not all(part.adds for part in edit.weight_parts):
            raise EditError(f"{name}: shuts or sets entries, so {option} needs the base model; name it with --model")
