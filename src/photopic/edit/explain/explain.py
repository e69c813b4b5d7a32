"""All probes that an edit allows, as one report: what the edit does to its model.

The interpreting tools of the Cones paper (arXiv:2303.05125) and two that it does not report, as ``probes`` says. Changed: nothing
beyond what is said there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

from photopic.core.config import Flags
from photopic.core.edits import Edit, SparseWeights
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.results import Report
from photopic.data.captioned import CaptionedImages
from photopic.edit.explain._common import PROBE_SETTINGS, Probe, ProbeSettings
from photopic.edit.explain._explain_view import explain_view
from photopic.edit.explain.probes import attention_before_after, precision_ladder, with_and_without_identifier
from photopic.edit.explain.weight_probes import disentanglement, touched_weights
from photopic.models.text_to_image.handle import TextToImage


@dataclass(frozen=True)
class Explained(Report):
    """What all probes of an edit found.

    Attributes:
        probes: By name, in the order they ran.
    """

    probes: Mapping[str, Probe] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON values: those of each probe by its name."""
        return super().to_dict() | {"probes": {name: probe.to_dict() for name, probe in self.probes.items()}}


@method(
    paper="arXiv:2303.05125",
    command="locate explain",
    examples=(
        "Example: photopic locate explain bear.edit --images photos/ -o report.html",
        "Beside another edit: photopic locate explain bear.edit --beside mug.edit -o report.html",
    ),
    view=explain_view,
)
def explain(
    model: TextToImage,
    edit: Edit,
    others: Annotated[Sequence[Edit], Flags("--beside")] = (),
    *,
    images: CaptionedImages | None = None,
    prompt: str | None = None,
    names: Annotated[Sequence[str] | None, Flags()] = None,
    config: ProbeSettings = PROBE_SETTINGS,
) -> Steps[Report]:
    """Show what an edit does: a web page with pictures and numbers.

    Where the words are read before and with the edit; the edit with its word and without; its values at fewer bits; which
    weights it touches and which it shares with other edits.

    Args:
        model: A bundled model, a folder with a diffusers pipeline, or a hub id: the one the edit was made for.
        edit: The edit to explain.
        others: Another edit of the same model to compare with; up to three.
        images: Pictures of the subject, as for photopic locate neurons; with them losses are measured.
        prompt: What to draw; the subject on a red background by default.
        names: What to call the edits, the explained one first; by their words otherwise.
        config: How to draw.

    Returns:
        A report whose ``probes`` hold the numbers, pictures and maps of each.

    Raises:
        EditError: If the edit is for another model, the noun of its word is unknown, or there are too many others.
        ModelError: If a word of the prompt cannot be read.

    Example:
        >>> explain(model, edit).probes["identifier"].values["gap_with"]  # doctest: +SKIP
        0.011
    """
    pictured: dict[str, Any] = {"images": images, "prompt": prompt, "config": config}
    probes: dict[str, Callable[[], Probe]] = {"touched weights": partial(touched_weights, edit)}
    if edit.tokens or prompt:
        probes["attention"] = partial(attention_before_after, model, edit, prompt=prompt, config=config)
    if edit.tokens:
        probes["identifier"] = partial(with_and_without_identifier, model, edit, **pictured)
    if edit.of(SparseWeights):
        probes["precision"] = partial(precision_ladder, model, edit, **pictured)
    if others:
        probes["disentanglement"] = partial(disentanglement, [edit, *others], names)
    found: dict[str, Probe] = {}
    for name, probe in probes.items():
        yield Event(f"explaining: {name}", len(found), len(probes))
        found[name] = probe()
    called = names[0] if names else ", ".join(edit.tokens) or "an edit"
    values = {"edit": called, "probes": len(found), **found["touched weights"].values}
    return Explained(f"What {called} does", values, probes=found)
