"""What ``photopic generate`` does with ``--layout``: read it, guide by it, keep edits to its regions, draw it over the pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from photopic.core.errors import PhotopicError

if TYPE_CHECKING:
    from photopic.core.edits import Edit
    from photopic.core.sampling import Control
    from photopic.data.layout import Layout
    from photopic.models.text_to_image.handle import TextToImage

LayoutFile = Annotated[
    Path | None,
    typer.Option(
        "--layout",
        help="JSON with a box or a painted mask for each subject; see docs/methods/layout_guidance.md.",
        show_default="none",
    ),
]
LayoutStrength = Annotated[
    float | None,
    typer.Option(
        "--layout-strength",
        min=0.0,
        help="How strongly a subject is drawn into its region, where the layout does not say.",
        show_default="2.5",
    ),
]
Repeats = Annotated[
    int | None,
    typer.Option(
        min=1, help="With --layout: how often each step is done, for as many times the time.", show_default="1"
    ),
]
InRegion = Annotated[
    bool, typer.Option("--in-region", help="With --layout: let each edit change its own region of the picture only.")
]


@dataclass(frozen=True, eq=False)
class LayoutRequest:
    """A layout and how it was asked to be followed."""

    path: Path
    layout: Layout
    strength: float | None
    repeats: int
    in_region: bool

    def controls(self, model: TextToImage, prompt: str) -> list[Control]:
        """The guidance of a run, with the words of every edit in force.

        Raises:
            DataError: If a subject is not in the prompt.
        """
        from photopic.generate.guidance.layout_guidance import LayoutGuidance, LayoutGuidanceConfig, subject_positions

        strength = LayoutGuidanceConfig.strength if self.strength is None else self.strength
        config = LayoutGuidanceConfig(strength=strength, repeats=self.repeats)
        return [LayoutGuidance(self.layout, subject_positions(model, prompt, self.layout), config)]

    def apply(self, stack: ExitStack, model: TextToImage, edit: Edit, weight: float) -> None:
        """Put an edit in force in its region only, until the stack is left."""
        from photopic.generate.guidance.regional_edits import by_region, regional_edits

        stack.enter_context(regional_edits(model, self.layout, by_region(self.layout, [edit]), weight=weight))

    def settings(self) -> dict[str, Any]:
        """What a picture says about its layout."""
        named = {"file": self.path.name, "sha256": hashlib.sha256(self.path.read_bytes()).hexdigest()}
        return {"layout": named | {"strength": self.strength, "repeats": self.repeats, "in_region": self.in_region}}

    def preview(self, images: Sequence[Any], scale: int) -> Any:
        """The layout drawn over every picture, as one contact sheet."""
        from photopic.data.pictures import contact_sheet

        return contact_sheet([self.layout.preview(image, scale=scale) for image in images])


def layout_request(
    path: Path | None,
    strength: float | None,
    repeats: int | None,
    in_region: bool,
    force: bool,
    edits: Sequence[Edit],
) -> LayoutRequest | None:
    """Read the layout, if there is one, and check that each edit's word has a region of its own.

    Raises:
        DataError: If the layout cannot be used, or subjects and regions do not pair up.
        PhotopicError: If options are given that need another.
    """
    if path is None:
        if strength is not None or repeats is not None or in_region:
            raise PhotopicError("--layout-strength, --repeats and --in-region: expected a layout; add --layout")
        return None
    if in_region and force:
        raise PhotopicError("--in-region: expected edits made for this model, found --force; leave one of the two out")
    from photopic.data.layout import Layout

    layout = Layout.from_file(path)
    layout.place_of([token for edit in edits for token in edit.subjects])
    return LayoutRequest(path, layout, strength, repeats or 1, in_region)
