"""How the demo teaches one subject: its five pictures, the search, the tuning, and the two files that come of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from photopic.core.edits import Edit, TokenEmbedding
from photopic.core.edits.file import load as load_edit
from photopic.core.edits.file import save as save_edit
from photopic.core.events import Event, Steps
from photopic.core.runs import Run, write_atomically
from photopic.data.captioned import CaptionedImages, read_captioned
from photopic.data.emoji_world import HELD_OUT_STYLE
from photopic.data.pictures import png_bytes
from photopic.data.scenes import Background, Placement, compose, with_article
from photopic.learning.subject.collage import in_company
from photopic.learning.subject.examples import subject
from photopic.learning.subject.preservation import preservation_examples
from photopic.locate.concept_neurons import SHORT, ConceptNeuronsConfig, concept_neurons
from photopic.tune.subject.located_weights import LocatedWeightsConfig, located_weights

if TYPE_CHECKING:
    from photopic.models.text_to_image.handle import TextToImage

PRESERVED = 200  # pictures of what must not change
Pictures = UInt8[np.ndarray, "n h w 3"]
SUFFIXES = {"shut": "", "tuned": "-tuned"}  # of the edit files
BACKGROUNDS = (  # of the five reference pictures
    Background("blue"),
    Background("yellow", "striped"),
    Background("green"),
    Background("pink", "gradient", "white"),
    Background("gray", "dotted"),
)


@dataclass(frozen=True)
class DemoConfig:
    """What the demo shows and how much of it."""

    subject: str = "panda"  # a concept no bundled model has seen
    noun: str = "bear"  # the class noun a user would give it
    token: str = "<mine>"  # its new word
    style: str = HELD_OUT_STYLE  # the style of the references, unseen too
    steps: int = SHORT.steps  # of the search
    tune_steps: int = 150  # of the tuning
    rate: float = 1e-2  # of the tuning: what the race chose
    beside: int = 4  # collages a picture, so that the subject is known small and beside others too
    pictures: int = 8  # a prompt and treatment
    sampling_steps: int = 25
    guidance: float = 5.0
    seed: int = 0


@dataclass(frozen=True)
class Taught:
    """What came of teaching one subject.

    Attributes:
        references: Its five pictures.
        edits: By ``shut`` and ``tuned``.
        sizes: Bytes of the two files.
        pictures: What the tuning learnt from: the five beside other things too, if ``DemoConfig.beside`` says so.
        preserved: What must not change.
    """

    references: Pictures
    edits: dict[str, Edit]
    sizes: dict[str, int]
    pictures: CaptionedImages
    preserved: CaptionedImages


def teach(model: TextToImage, folder: Path, config: DemoConfig) -> Steps[Taught]:
    """Make the pictures of a subject, locate it and tune it.

    Args:
        model: The model to customise; it ends as it began.
        folder: Where every part is kept; finished parts are taken from there.
        config: Whom to teach, and for how many steps.
    """
    yield Event("references")
    references = make_references(folder / "references", config, model.image_size)
    alone, runs, seed = read_captioned(folder / "references", model.image_size), folder / "runs", config.seed
    preserved = yield from preservation_examples(
        model, config.noun, kind="both", count=PRESERVED, seed=seed, run=Run(runs)
    )
    search = ConceptNeuronsConfig(steps=config.steps, seed=seed, binary=True)
    files = {name: folder / f"{config.subject}{suffix}.edit" for name, suffix in SUFFIXES.items()}
    events = concept_neurons.events(
        model, alone, noun=config.noun, token=config.token, preserved=preserved, config=search, run=Run(runs / "locate")
    )
    shut = yield from _kept(files["shut"], events)
    pictures = yield from _beside(model, runs / "beside", config, alone, shut)
    tuning = LocatedWeightsConfig(steps=config.tune_steps, lr=config.rate, seed=seed)
    events = located_weights.events(model, shut, pictures, preserved=preserved, config=tuning, run=Run(runs / "tune"))
    tuned = yield from _kept(files["tuned"], events)
    sizes = {name: file.stat().st_size for name, file in files.items()}
    return Taught(references, {"shut": shut, "tuned": tuned}, sizes, pictures, preserved)


def _kept(file: Path, events: Iterator[Event[Edit]]) -> Steps[Edit]:
    """The edit of a file, made if it is not there."""
    if not file.exists():
        for event in events:
            yield replace(event, result=None)
        assert event.result is not None
        save_edit(event.result, file)
    return load_edit(file)


def _beside(
    model: TextToImage, folder: Path, config: DemoConfig, alone: CaptionedImages, shut: Edit
) -> Steps[CaptionedImages]:
    """The pictures, and as many of the subject small beside other things; drawn once, for the tuning and for the LoRA."""
    (rows,) = shut.of(TokenEmbedding)
    named = CaptionedImages(alone.images, subject(model, alone, noun=config.noun, rows=rows).captions)
    if not config.beside:
        return named
    run = Run(folder)
    if (found := run.load()) is not None:
        return CaptionedImages(found[0]["images"], found[1]["captions"])
    yield Event("drawing what stands beside it")
    words = f"{config.token} {config.noun}"
    made = in_company(model, named, subject=words, each=config.beside, seed=config.seed)
    run.save({"images": made.images}, {"captions": list(made.captions or ())})
    return made


def make_references(folder: Path, config: DemoConfig, size: int) -> Pictures:
    """Write the five pictures of the subject with their captions, and return them."""
    folder.mkdir(exist_ok=True)
    scenes = []
    for index, background in enumerate(BACKGROUNDS):
        place = (0.5 + 0.04 * (index - 2), 0.5 + 0.03 * ((index * 2) % 5 - 2))
        scene = compose([Placement(config.subject, config.style, place, 0.7 + 0.03 * index)], background, size=size)
        caption = f"{with_article(config.noun)} on {scene.caption.partition(' on ')[2]}"
        stem = f"{config.subject}-{index + 1}"
        write_atomically(folder / f"{stem}.png", png_bytes(scene.image))
        write_atomically(folder / f"{stem}.txt", (caption + "\n").encode())
        scenes.append(scene)
    return np.stack([scene.image for scene in scenes])
