"""What a customised model must not forget: captioned pictures of other things, and of the subject's class.

For the bundled model they are real renderings of concepts it knows; any other model draws them itself from class
prompts and diverse prompts, as DreamBooth does for the class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.runs import Run
from photopic.data import emoji_world
from photopic.data.captioned import CaptionedImages
from photopic.data.pixels import from_pixels
from photopic.data.scenes import SceneOptions, sample_scene, with_article
from photopic.data.splits import KNOWN
from photopic.learning.losses.denoising import UNLIMITED, Limits
from photopic.learning.subject.new_token import nearest_nouns

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
    model: TextToImage,
    noun: str,
    *,
    kind: Preservation,
    count: int,
    seed: int,
    run: Run | None = None,
    limits: Limits = UNLIMITED,
) -> Steps[CaptionedImages]:
    """Prepare pictures with captions, as large as the model's own, reporting every batch that is drawn.

    Args:
        model: The model that must keep drawing them.
        noun: Class noun of the subject.
        kind: ``scenes``: diverse things; ``class``: the class noun only; ``both``: half and half.
        count: How many pictures.
        seed: Of the scenes, or of the generated pictures.
        run: A run folder; what was drawn is kept in its part ``preservation``. Renderings take no time and are not kept.
        limits: How many are drawn together.

    Raises:
        DataError: If the class is to be preserved and the bundled model does not draw it.
        RunMismatchError: If the run folder belongs to another computation.

    Example:
        >>> finished(preservation_examples(model, "bear", kind="both", count=200, seed=0)).captions[0]  # doctest: +SKIP
        'a bear'
    """
    of_class = {"scenes": 0, "class": count, "both": count // 2}[kind]
    yield Event("preparing")
    if model.knows_emoji:
        return _rendered(model, noun, count, of_class, seed)
    prompts = [with_article(noun) if i < of_class else _diverse_prompt(i) for i in range(count)]
    pictures = yield from _drawn(model, prompts, seed, run and run.part("preservation"), limits)
    return CaptionedImages(_as_tensor(pictures), prompts)


def _drawn(model: TextToImage, prompts: Sequence[str], seed: int, run: Run | None, limits: Limits) -> Steps[np.ndarray]:
    """Draw a picture a prompt, from the last batch that a run folder holds on; uint8 (n, size, size, 3)."""
    together = min(16, limits.pictures(model.image_size))
    seeds = [seed * 100_003 + i for i in range(len(prompts))]
    drawn = np.zeros((0, model.image_size, model.image_size, 3), np.uint8)
    if run is not None and (found := run.resume()) is not None:
        drawn = found[0]["images"].numpy()  # whole batches, so that those to come hold the same pictures
    rest = len(drawn)
    yield Event("drawing what must not change", rest, len(prompts))
    for event in model.generate_events(prompts[rest:], seeds=seeds[rest:], steps=DRAWING_STEPS, batch=together):
        drawn = np.concatenate([drawn, event.images])
        if run is not None:
            run.checkpoint({"images": torch.from_numpy(drawn)}, len(drawn))
        yield Event("drawing what must not change", len(drawn), len(prompts))
    return drawn


def _rendered(model: TextToImage, noun: str, count: int, of_class: int, seed: int) -> CaptionedImages:
    """Scenes of the emoji world, the first of them of the class alone."""
    everything = tuple(item.name for item in emoji_world.select(split="known"))
    if of_class and noun not in KNOWN:
        near = nearest_nouns(noun)
        raise DataError(
            f"noun {noun!r}: {model.name} does not draw it; use a noun it draws, such as {near}, or preserve scenes only"
        )
    scenes = []
    for index in range(count):
        # of the class first, alone and large as the subject's own pictures are, then whatever the model knows
        options = SceneOptions(
            concepts=(noun,) if index < of_class else everything,
            styles=KNOWN_STYLES,
            size=model.image_size,
            objects=(1.0, 0.0, 0.0, 0.0) if index < of_class else OBJECTS,
            backgrounds=BACKGROUNDS,
        )
        scenes.append(sample_scene(options, (seed, 77, index)))
    return CaptionedImages(_as_tensor([scene.image for scene in scenes]), [scene.caption for scene in scenes])


def _diverse_prompt(index: int) -> str:
    return TEMPLATES[index // len(THINGS) % len(TEMPLATES)].format(THINGS[index % len(THINGS)])


def _as_tensor(pictures: Sequence[np.ndarray] | np.ndarray) -> Tensor:
    return from_pixels(np.stack(list(pictures)))  # (n, 3, size, size)
