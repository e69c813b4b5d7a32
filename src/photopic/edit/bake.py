"""A model with edits written into its weights, as a folder of its own that any program reads which reads the base."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from photopic.core.config import Flags
from photopic.core.edits import Edit
from photopic.core.edits.stack_item import LoadOverlapPolicy
from photopic.core.errors import EditError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.edit._common import called, check_base, labels
from photopic.models.handle import Handle


@dataclass(frozen=True)
class EditedModel:
    """A base and the edits that its copy on disk is to have.

    Attributes:
        base: Stays as it is.
        edits: In the order in which they are applied.
        names: What to call them.
        weights: How far each goes.
        overlap: Whether an entry that two of them touch is refused, or set or added by the later one on top.
        provenance: Filled in by the method.
    """

    base: Handle
    edits: tuple[Edit, ...]
    names: tuple[str, ...]
    weights: tuple[float, ...]
    overlap: LoadOverlapPolicy = "error"
    provenance: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write the folder; afterwards the base is as before.

        Raises:
            EditError: If entries clash; make one edit of them first.
            ModelError: If this kind of model is not written as a folder.
        """
        with ExitStack() as stack:
            for edit, name, weight in zip(self.edits, self.names, self.weights, strict=True):
                with called(name):
                    stack.enter_context(self.base.edits.applied(edit, weight=weight, overlap=self.overlap))
            self.base.save(folder)


@method(
    examples=(
        "Example: photopic edit bake reads.edit --model emoji-clip-vit -o reads/",
        "Half way: photopic edit bake style.edit --model ./base --weight 0.5 -o half/",
    ),
    after=("next: photopic.load('{output}') in Python, or --model {output}",),
)
def bake(
    edits: Sequence[Edit],
    model: Annotated[Handle, Flags("--model", default="emoji-diffusion")],
    *,
    weights: Annotated[Sequence[float] | None, Flags("--weight")] = None,
    overlap: LoadOverlapPolicy = "error",
    names: Annotated[Sequence[str] | None, Flags()] = None,
) -> Steps[EditedModel]:
    """Write a model with edits in its weights as a folder of its own, for programs that know no edits.

    The folder is what diffusers or transformers reads. The edits cannot be taken off it again: keep the base and the edit files.

    Args:
        edits: Edit files for the model, applied in this order.
        model: A bundled model, a folder with a pipeline, dual encoder or classifier, or a hub id. It is only read.
        weights: How far each edit goes: one for each, in order; 1 each by default.
        overlap: Entries that two edits touch: refuse them (error), or let the later one set or add to them (last).
        names: What to call the edits; their words by default.

    Returns:
        What ``save`` writes.

    Raises:
        EditError: If an edit was made for another base, brings a new word, or acts beside the weights; if the weights are
            not one for each.

    Example:
        >>> bake([edit], model).save(Path("mine"))  # doctest: +SKIP
    """
    shown = labels(edits, names)
    if not edits:
        raise EditError("edits: expected one or more, found none")
    if weights is not None and len(weights) != len(edits):
        raise EditError(f"--weight: expected one for each of {len(edits)} edits, found {len(weights)}")
    for edit, name in zip(edits, shown, strict=True):
        _check_in_weights(edit, name)
    yield Event("checking")
    check_base(model, edits, shown)
    return EditedModel(model, tuple(edits), tuple(shown), tuple(weights or [1.0] * len(edits)), overlap)


def _check_in_weights(edit: Edit, name: str) -> None:
    """Refuse what weights alone cannot hold."""
    if edit.tokens:
        raise EditError(
            f"{name}: brings the word {edit.tokens[0]}, which the folder's tokenizer would lack; use the file with "
            "photopic generate --with, or photopic edit export"
        )
    if beside := [part.kind for part in edit.parts if not part.names()]:
        raise EditError(
            f"{name}: expected changes of weights, found {beside[0]}, which acts beside them; use the edit file itself"
        )
