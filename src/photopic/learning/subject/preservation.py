"""What a customised model must not forget: captioned pictures of other things, and of the subject's class.

For the bundled model they are real renderings of concepts it knows; any other model draws them itself from class
prompts and diverse prompts, as DreamBooth does for the class.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from photopic.core.errors import DataError
from photopic.core.runs import Run
from photopic.data import emoji_world
from photopic.data.scenes import SceneOptions, sample_scene
from photopic.data.splits import KNOWN
from photopic.learning.losses.denoising import PIXELS_AT_ONCE
from photopic.learning.progress import Progress, load_matching

if TYPE_CHECKING:
    from photopic.models.text_to_image.handle import TextToImage

Preservation = Literal["scenes", "class", "both"]
KNOWN_STYLES = ("noto", "twemoji")  # what emoji-diffusion learnt to draw
OBJECTS = (0.5, 0.5, 0.0, 0.0)  # one or two objects, as in its training
BACKGROUNDS = (0.7, 0.15, 0.15)
THINGS = (
    "dog, cat, bird, tree, flower, house, car, boat, chair, table, cup, plate of food, person, child, street, "
    "mountain, beach, book, clock, bicycle, train, horse, bridge, lamp, bottle, shoe, guitar, garden, kitchen"
).split(", ")
DRAWING_STEPS = 25
TEMPLATES = ("a photo of a {}", "a painting of a {}", "a {} on a red background", "a {} in the rain")


def preservation_examples(
    model: TextToImage, noun: str, *, kind: Preservation, count: int, seed: int
) -> tuple[Float[Tensor, "count 3 size size"], list[str]]:
    """Pictures in -1 to 1 with captions; drives ``preservation_events`` to its end. See there for arguments and errors.

    Returns:
        The pictures, as large as the model's own, and one caption each.
    """
    *_, last = preservation_events(model, noun, kind=kind, count=count, seed=seed)
    assert last.examples is not None
    pictures, captions = last.examples
    return pictures, list(captions)


def preservation_events(
    model: TextToImage, noun: str, *, kind: Preservation, count: int, seed: int, run: Run | None = None
) -> Iterator[Progress]:
    """Prepare pictures with captions, reporting after every batch that is drawn; the last event carries the examples.

    Args:
        model: The model that must keep drawing them.
        noun: Class noun of the subject.
        kind: ``scenes``: diverse things; ``class``: the class noun only; ``both``: half and half.
        count: How many pictures.
        seed: Of the scenes, or of the generated pictures.
        run: A run folder that keeps what was drawn, to resume from; renderings take no time and are not kept.

    Raises:
        DataError: If the class is to be preserved and the bundled model does not draw it.
        RunMismatchError: If the run folder holds pictures of another model or for other options.

    Example:
        >>> for event in preservation_events(model, "bear", kind="both", count=200, seed=0):    # doctest: +SKIP
        ...     print(event.step, event.steps)
    """
    of_class = {"scenes": 0, "class": count, "both": count // 2}[kind]
    yield Progress("preparing", steps=count)
    if model.knows_emoji:
        yield Progress("done", count, count, examples=_rendered(model, noun, count, of_class, seed))
        return
    clock = time.monotonic()
    prompts = [f"a {noun}" if i < of_class else _diverse_prompt(i) for i in range(count)]
    seeds = [seed * 100_003 + i for i in range(count)]
    together = max(1, min(16, PIXELS_AT_ONCE // model.image_size**2))
    identity = _identity(model.digest(), prompts, seeds, together, DRAWING_STEPS) if run else ""
    drawn, before = np.zeros((0, model.image_size, model.image_size, 3), np.uint8), 0
    if run and (found := load_matching(run, identity)):
        tensors, before = found  # whole batches: the ones to come hold the same pictures as in an uninterrupted run
        drawn = tensors["images"].numpy()
    rest, theirs = prompts[before:], seeds[before:]
    for event in model.generate_events(rest, seeds=theirs, steps=DRAWING_STEPS, batch=together):
        drawn = np.concatenate([drawn, event.images])
        if run:
            run.save({"images": torch.from_numpy(drawn)}, {"step": len(drawn), "identity": identity})
        elapsed = time.monotonic() - clock
        to_go = elapsed / event.done * (event.total - event.done)
        yield Progress("drawing", len(drawn), count, elapsed_s=elapsed, eta_s=to_go)
    yield Progress("done", count, count, elapsed_s=time.monotonic() - clock, examples=(_as_tensor(drawn), prompts))


def _rendered(model: TextToImage, noun: str, count: int, of_class: int, seed: int) -> tuple[Tensor, list[str]]:
    everything = tuple(item.name for item in emoji_world.select(split="known"))
    if of_class and noun not in KNOWN:
        raise DataError(f"noun {noun!r}: {model.name} does not draw it; use a noun it draws, or preserve scenes only")
    scenes = []
    for index in range(count):
        options = SceneOptions(
            concepts=(noun,) if index < of_class else everything,
            styles=KNOWN_STYLES,
            size=model.image_size,
            objects=(1.0, 0.0, 0.0, 0.0) if index < of_class else OBJECTS,
            backgrounds=BACKGROUNDS,
        )
        scenes.append(sample_scene(options, (seed, 77, index)))
    return _as_tensor([scene.image for scene in scenes]), [scene.caption for scene in scenes]


def _identity(*what: object) -> str:
    """Hex sha256 of everything the pictures depend on."""
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def _diverse_prompt(index: int) -> str:
    return TEMPLATES[index // len(THINGS) % len(TEMPLATES)].format(THINGS[index % len(THINGS)])


def _as_tensor(pictures: Sequence[np.ndarray] | np.ndarray) -> Tensor:
    return torch.from_numpy(np.stack(list(pictures))).permute(0, 3, 1, 2).float() / 127.5 - 1
