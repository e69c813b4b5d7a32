"""Drawing as ``photopic generate`` does it, step by step: the command line writes what comes of it, and so does the studio.

``prepare`` refuses what can be refused before a model takes time, ``draw_events`` draws: an event a step, and with the last of each
batch its pictures, each with the settings that its PNG carries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8

from photopic import __version__
from photopic.calls.conditions import Composed, Given, named, read_composed
from photopic.calls.controls import read_control
from photopic.core.edits.file import load
from photopic.core.errors import PhotopicError
from photopic.core.events import Event
from photopic.core.nn.attention import capture_attention
from photopic.data.folder import load_mask, load_picture
from photopic.data.layout_file import read_layout
from photopic.data.pictures import png_bytes
from photopic.edit.applying import check_tokens, check_unknown_tokens, check_words, in_force, notes
from photopic.generate.guidance.layout_guidance import LayoutGuidance, LayoutGuidanceConfig
from photopic.generate.guidance.regional_edits import RegionalEdits, RegionalEditsConfig
from photopic.generate.guidance.regional_prompts import RegionalPrompts
from photopic.generate.style.style_injection import StyleInjection
from photopic.knowledge.graph_drawing import read_drawing
from photopic.knowledge.prompt_layout import layout_of_prompt
from photopic.models.text_to_image.generate_config import GenerateConfig
from photopic.models.text_to_image.word_attention import positions_of
from photopic.models.text_to_image.words import words_of

if TYPE_CHECKING:
    from photopic.core.edits import Edit, OverlapPolicy
    from photopic.core.sampling import Control
    from photopic.data.layout import Layout
    from photopic.models.text_to_image.handle import TextToImage

CHECKED_SIDE = 8  # pixels to which a picture is read to see that it is one


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What to draw, files by their paths.

    Attributes:
        prompt: What to draw.
        edits: Files to apply, each with how far it goes, 0 to 1.
        count: How many pictures; picture i is of seed ``seed + i``.
        seed: Of the first.
        config: How to draw.
        overlap: What entries become that several edits set.
        force: Whether edits for another base are taken.
        image: A picture to start from.
        mask: Light where it is drawn anew.
        style_of: A picture whose style is taken; ``image`` is then what is drawn again in it, whole.
        layout: A file with a region for each subject.
        graph: A file with a bag of concepts, in place of prompt and layout.
        arrange: Whether the layout is taken from the prompt; it is too where one is needed and none given.
        own_prompts: Whether each region of a layout from the prompt reads its own thing alone.
        layout_strength: How strongly a subject is drawn into its region, where the layout does not say.
        repeats: How often each step is done with a layout.
        in_region: Whether each edit changes its own region only.
        controls: What steers the sampler besides, as ``name:key=value``.
        conditions: What is taken of other pictures, as ``palette=a.png``.
        minus: What the pictures are led away from, likewise.
        task: Name of a task of ``generate.conditions.TASKS``.
        other: Its second picture.
        share: How far towards that, of a task that is mixed.
        attention: Whether to read meanwhile where each word of the prompt is looked at; the pictures stay the same to the bit.
        path_of: See ``read_control``.
    """

    prompt: str
    edits: Sequence[tuple[Path, float]] = ()
    count: int = 8
    seed: int = 0
    config: GenerateConfig = field(default_factory=GenerateConfig)
    overlap: OverlapPolicy = "error"
    force: bool = False
    image: Path | None = None
    mask: Path | None = None
    style_of: Path | None = None
    layout: Path | None = None
    graph: Path | None = None
    arrange: bool = False
    own_prompts: bool = False
    layout_strength: float | None = None
    repeats: int | None = None
    in_region: bool = False
    controls: Sequence[str] = ()
    conditions: Sequence[str] = ()
    minus: Sequence[str] = ()
    task: str | None = None
    other: Path | None = None
    share: float | None = None
    attention: bool = False
    path_of: Callable[[Mapping[str, Any], str], str] | None = None

    @property
    def paths(self) -> list[Path]:
        """Of the edits."""
        return [path for path, _ in self.edits]

    @property
    def weights(self) -> list[float]:
        """Of the edits."""
        return [weight for _, weight in self.edits]

    @property
    def is_arranged(self) -> bool:
        """Whether the layout comes from the prompt."""
        needed = self.arrange or self.own_prompts or self.in_region or self.layout_strength is not None or self.repeats
        return bool(needed) and self.layout is None and self.graph is None


@dataclass(frozen=True)
class Prepared:
    """What to draw, with its edits and its layout read."""

    asked: Asked
    edits: Sequence[Edit]
    layout: Layout | None
    composed: Composed | None = None  # what other pictures are to give

    def kept(self, images: Sequence[UInt8[np.ndarray, "h w 3"]]) -> list[str]:
        """How far the pictures are from each condition, in words; nothing without conditions."""
        return [] if self.composed is None else self.composed.kept(images)


@dataclass(frozen=True, eq=False)
class Drawn:
    """One batch of pictures.

    Attributes:
        images: RGB.
        first: The number of its first picture among all, from 0.
        settings: Of all pictures; each has its own seed besides.
        seed: Of the first picture of all.
        words: Of the prompt, where attention was read.
        maps: For every picture and word the share of each latent cell's attention that the word gets, 0 to 1; None: not read.
    """

    images: UInt8[np.ndarray, "n height width 3"]
    first: int
    settings: Mapping[str, Any]
    seed: int
    words: tuple[str, ...] = ()
    maps: Float[np.ndarray, "n words h w"] | None = None

    def files(self) -> Iterator[bytes]:
        """The pictures as PNG with their settings."""
        for index, image in enumerate(self.images):
            yield png_bytes(image, {**self.settings, "seed": self.seed + self.first + index})


def prepare(asked: Asked) -> Prepared:
    """Read the files that are asked for and refuse what does not fit, before a model takes time.

    Raises:
        PhotopicError: Names what does not fit, and the fix.
    """
    _check(asked)
    layout = read_layout(asked.layout) if asked.layout is not None else None
    if asked.is_arranged:
        layout = layout_of_prompt(asked.prompt, own_prompts=asked.own_prompts)
    if asked.graph is not None:
        drawing = read_drawing(asked.graph)
        asked, layout = replace(asked, prompt=drawing.prompt), drawing.layout
    if asked.style_of is not None:
        load_picture(asked.style_of, CHECKED_SIDE)
    if asked.image is not None:  # the size that it becomes is not known yet
        load_picture(asked.image, CHECKED_SIDE)
        if asked.mask is not None:
            load_mask(asked.mask, CHECKED_SIDE, of=asked.image)
    words = (asked.conditions, asked.minus, asked.task, asked.other, asked.share)
    composed = read_composed(Given(*words, asked.image, asked.mask))
    if composed is not None and not asked.prompt:
        asked = replace(asked, prompt=composed.caption)
    edits = [load(path) for path in asked.paths]
    check_tokens(asked.prompt, asked.paths, edits)
    check_words(asked.prompt, asked.paths, edits)
    if layout is not None:  # each edit's word has a region of its own
        layout.place_of([token for edit in edits for token in edit.subjects])
    return Prepared(asked, edits, layout, composed)


def _check(asked: Asked) -> None:
    """Options that need another, or exclude each other."""
    if asked.image is None and (asked.mask is not None or asked.config.strength is not None):
        raise PhotopicError("--mask and --strength: expected a picture to start from; add --image")
    if asked.image is not None and (asked.config.width or asked.config.height) is not None:
        raise PhotopicError("--width and --height: expected none with --image, whose square is drawn; leave them out")
    if asked.style_of is not None and (asked.mask is not None or asked.config.strength is not None):
        raise PhotopicError("--style-of: draws the whole of --image again, found --mask or --strength; leave it out")
    if asked.graph is not None and (asked.prompt or asked.layout is not None):
        raise PhotopicError("--graph: says what to draw and where, found a prompt or a layout besides; leave one out")
    if (asked.arrange or asked.own_prompts) and (asked.layout or asked.graph) is not None:
        raise PhotopicError(
            "--arrange and --own-prompts: take the layout from the prompt, found --layout or --graph besides; leave one out"
        )
    if asked.is_arranged and not asked.prompt:
        raise PhotopicError("--arrange: expected a prompt that names things, found none; write one, or give --layout")
    if asked.in_region and asked.overlap != "error":
        raise PhotopicError(
            f"--overlap {asked.overlap}: expected no policy with --in-region, where each edit has its own place; leave one out"
        )
    if asked.in_region and asked.force:
        raise PhotopicError("--in-region: expected edits made for this model, found --force; leave one of the two out")


def draw_events(prepared: Prepared, model: TextToImage) -> Iterator[Event[Drawn]]:
    """Draw: an event a step over all batches, and one with the pictures of each batch; remarks are events with a warning.

    The same bytes as ``TextToImage.generate`` with the edits in force. Closed in between, the model is as it was.

    Raises:
        PhotopicError: If prompt, edits, controls and model do not fit together.
    """
    asked, edits = prepared.asked, prepared.edits
    controls = _controls(prepared, model)
    with ExitStack() as trial:  # controls may bring words of their own
        for each in controls:
            trial.enter_context(each.applied(model))
        check_unknown_tokens(asked.prompt, model, edits)
    with ExitStack() as stack:
        if not asked.in_region:
            for note in notes(edits, [path.name for path in asked.paths], model.components):
                yield Event("drawing", warning=note)
            force = in_force(model, asked.paths, edits, asked.weights, force=asked.force, overlap=asked.overlap)
            stack.enter_context(force)
        for name in model.edits.forced:
            said = f"{name} was made for another base than {model.name}; the pictures say so"
            yield Event("drawing", warning=said)
        yield from _batches(prepared, model, controls, settings_of(prepared, model))


def _controls(prepared: Prepared, model: TextToImage) -> list[Control]:
    """What steers the sampler: what was asked for by its words, then the layout."""
    asked = prepared.asked
    controls = [read_control(word, model, asked.path_of) for word in asked.controls]
    if prepared.composed is not None:
        controls.append(prepared.composed.control(model))
    if asked.style_of is not None:
        controls.append(StyleInjection(str(asked.style_of), None if asked.image is None else str(asked.image)))
    if prepared.layout is not None:
        chosen: dict[str, Any] = {"strength": asked.layout_strength, "repeats": asked.repeats}
        config = LayoutGuidanceConfig(**{name: value for name, value in chosen.items() if value is not None})
        controls.append(LayoutGuidance(prepared.layout, config=config))
        has_own = any(region.prompt for region in prepared.layout.regions)
        controls += [RegionalPrompts(prepared.layout)] if has_own else []
        if asked.in_region:
            controls += [
                RegionalEdits(prepared.layout, [edit], config=RegionalEditsConfig(weight=weight))
                for edit, weight in zip(prepared.edits, asked.weights, strict=True)
            ]
    return controls


def _batches(
    prepared: Prepared, model: TextToImage, controls: Sequence[Control], settings: Mapping[str, Any]
) -> Iterator[Event[Drawn]]:
    """Batch by batch, each by itself, so that the attention that is read is that of its own pictures."""
    asked = prepared.asked
    # with a style the picture is what a control draws again, not what sampling starts from
    given = asked.image is not None and not asked.style_of and (asked.task is None or asked.mask is not None)
    image = load_picture(asked.image, model.image_size) if given and asked.image else None
    mask = load_mask(asked.mask, model.image_size, of=asked.image) if asked.mask and asked.image else None
    size, words = asked.config.batch, words_of(asked.prompt) if asked.attention else ()
    starts = range(0, asked.count, size)
    for number, first in enumerate(starts):
        seeds = range(asked.seed + first, asked.seed + min(first + size, asked.count))
        with ExitStack() as reading:
            maps = reading.enter_context(_read(model, asked.prompt, words)) if words else None
            for event in model.drawing([asked.prompt] * len(seeds), seeds, asked.config, controls, image, mask):
                drawn = None
                if event.result is not None:
                    # (calls, samples, words, h, w) -> (samples, words, h, w): the mean over the steps
                    read = None if maps is None else maps.each().mean(0).numpy()
                    drawn = Drawn(event.result.images, first, settings, asked.seed, words, read)
                done, total = number * event.total + event.done, len(starts) * event.total  # over all batches
                yield Event("drawing", done, total, result=drawn)


def _read(model: TextToImage, prompt: str, words: Sequence[str]) -> Any:
    """A block in which the attention of every picture is kept apart."""
    model.check_unet("attention")
    block: Any = capture_attention(model.unet, positions_of(model, prompt, words), each=True)
    return block


def settings_of(prepared: Prepared, model: TextToImage) -> dict[str, Any]:
    """What a picture says of how it was made, files by name and content; with edits in force. Its seed comes beside it."""
    asked, config = prepared.asked, prepared.asked.config
    said = {"negative": config.negative_prompt, "scheduler": config.scheduler, "strength": config.strength}
    said |= {"width": config.width, "height": config.height}
    found: dict[str, Any] = {
        "kind": "draw",
        "prompt": asked.prompt,
        "steps": config.steps,
        "guidance": config.guidance,
        "model": model.name,
        "edits": [
            {**named(path), "weight": weight, "forced": str(path) in model.edits.forced} for path, weight in asked.edits
        ],
        "photopic": __version__,
    } | {name: value for name, value in said.items() if value is not None}
    found |= {} if asked.overlap == "error" else {"overlap": asked.overlap}
    files = {"image": asked.image, "mask": asked.mask, "style_of": asked.style_of, "other": asked.other}
    found |= {name: named(path) for name, path in files.items() if path is not None}
    found |= {"controls": list(asked.controls)} if asked.controls else {}
    found |= {"conditions": prepared.composed.said()} if prepared.composed else {}
    if prepared.layout is not None:
        source = asked.layout or asked.graph
        # of a layout from the prompt there is no file: its regions say it all
        found["graph" if asked.graph else "layout"] = ({"file": "the prompt"} if source is None else named(source)) | {
            "strength": asked.layout_strength,
            "repeats": asked.repeats or 1,
            "in_region": asked.in_region,
            "regions": [
                {"words": each.words, "box": each.box and list(each.box), "strength": each.strength}
                | {name: getattr(each, name) for name in ("prompt", "guidance") if getattr(each, name) is not None}
                for each in prepared.layout.regions
            ],
        }
    return found
