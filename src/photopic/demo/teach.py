"""How the demo teaches one subject: its five pictures, the search, the tuning, and the two files that come of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from photopic.core.edits import Edit
from photopic.core.edits.file import load as load_edit
from photopic.core.edits.file import save as save_edit
from photopic.core.runs import Run, write_atomically
from photopic.data.emoji_world import HELD_OUT_STYLE
from photopic.data.folder import load_folder
from photopic.data.pictures import png_bytes
from photopic.data.scenes import Background, Placement, compose, with_article
from photopic.locate.concept_neurons import ConceptNeuronsConfig, locate
from photopic.tune.subject.located_weights import LocatedWeightsConfig, tune

if TYPE_CHECKING:
    from photopic.models.text_to_image.handle import TextToImage

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
    steps: int = 200  # of the search
    tune_steps: int = 150  # of the tuning
    rate: float = 1e-2  # of the tuning: what the race chose
    beside: int = 4  # collages a picture, so that the subject is known small and beside others too
    pictures: int = 8  # a prompt and treatment
    sampling_steps: int = 25
    guidance: float = 5.0
    seed: int = 0


class Stage(NamedTuple):
    """One progress event."""

    name: str
    step: int
    steps: int
    remark: str = ""


class Taught(NamedTuple):
    """What came of teaching one subject; edits and file sizes by ``shut`` and ``tuned``."""

    references: Pictures
    edits: dict[str, Edit]
    sizes: dict[str, int]


def teach(model: TextToImage, folder: Path, config: DemoConfig) -> Iterator[Stage | Taught]:
    """Make the pictures of a subject, locate it and tune it; the last thing yielded is what came of it.

    Args:
        model: The model to customise; it ends as it began.
        folder: Where every part is kept; finished parts are taken from there.
        config: Whom to teach, and for how many steps.
    """
    yield Stage("references", 0, 1)
    references = make_references(folder / "references", config, model.image_size)
    edits: dict[str, Edit] = {}
    for name, stage in (("shut", _locate), ("tuned", _tune)):
        file = folder / f"{config.subject}{SUFFIXES[name]}.edit"
        if not file.exists():
            made = None
            for event in stage(model, folder, config, edits):
                yield Stage(event.stage, event.step, event.steps, f"loss {event.concept_loss:.4f}")
                made = event.edit
            assert made is not None
            save_edit(made, file)
        edits[name] = load_edit(file)
    sizes = {name: (folder / f"{config.subject}{suffix}.edit").stat().st_size for name, suffix in SUFFIXES.items()}
    yield Taught(references, edits, sizes)


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


def captioned(folder: Path, config: DemoConfig, size: int) -> dict[str, Any]:
    """The pictures of a subject and their captions, as locating and tuning take them."""
    found = load_folder(folder / "references", size)
    return {"images": found.images, "captions": [caption or with_article(config.noun) for caption in found.captions]}


def _locate(model: TextToImage, folder: Path, config: DemoConfig, edits: dict[str, Edit]) -> Iterator[Any]:
    return locate(
        model,
        noun=config.noun,
        token=config.token,
        config=ConceptNeuronsConfig(steps=config.steps, seed=config.seed, binary=True),
        run=Run(folder / "runs" / "locate"),
        **captioned(folder, config, model.image_size),
    )


def _tune(model: TextToImage, folder: Path, config: DemoConfig, edits: dict[str, Edit]) -> Iterator[Any]:
    return tune(
        model,
        edit=edits["shut"],
        config=LocatedWeightsConfig(steps=config.tune_steps, lr=config.rate, beside=config.beside, seed=config.seed),
        run=Run(folder / "runs" / "tune"),
        **captioned(folder, config, model.image_size),
    )
