"""The ways of this library: concept neurons at several densities, their tuned values, and a token residual."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from benchmarks.tune.race.peers import write_facts
from benchmarks.tune.race.subject_case import SEED, Given
from photopic.core.edits import Edit
from photopic.core.edits import file as edit_file
from photopic.core.events import Event
from photopic.data.captioned import CaptionedImages
from photopic.locate.concept_neurons import LONG, ConceptNeuronsConfig, Schedule, concept_neurons
from photopic.models.text_to_image.handle import TextToImage
from photopic.tune.subject.located_weights import LocatedWeightsConfig, located_weights
from photopic.tune.subject.token_residual import TokenResidualConfig, token_residual

EDIT = "subject.edit"


def search(
    model: TextToImage, given: Given, folder: Path, *,
    steps: int, batch: int, preservation: int, density: float, seed: int = SEED, schedule: Schedule = LONG,
) -> Iterator[int]:  # fmt: skip
    """The search of one density and number of steps, as ``locate --binary`` does it; yields after every step.

    The race has searches of 100 steps, so by default rate and decays are those of long ones. Binary, because the files here shut
    few weights: what a soft mask moves is lost where only the lowest masks are kept.

    Another density or another number of steps is another search, so each edit is charged with its own.
    """
    began = time.process_time()
    config = ConceptNeuronsConfig(
        steps=steps, batch=batch, preservation_count=preservation, evaluation=0, density=density, binary=True, seed=seed,
        lr=schedule.lr, betas=schedule.betas,
    )  # fmt: skip
    events = concept_neurons.events(model, given.pictures, noun=given.noun, token=given.token, config=config)
    yield from _kept(events, folder / str(steps), began)


def values(
    model: TextToImage, given: Given, folder: Path, located: Path, *,
    rate: float, counts: Sequence[int], batch: int, preservation: int, bits: Literal[32, 16, 2], beside: int = 0,
) -> Iterator[int]:  # fmt: skip
    """Values of the located weights, tuned from the shut state; the seconds of the search are added by who asks."""
    edit = edit_file.load(located / EDIT)
    for steps in counts:
        began = time.process_time()
        config = LocatedWeightsConfig(
            bits=bits, steps=steps, lr=rate, batch=batch, preservation_count=preservation, beside=beside, evaluation=0,
            seed=SEED,
        )  # fmt: skip
        yield from _kept(located_weights.events(model, edit, given.pictures, config=config), folder / str(steps), began)


def residual(model: TextToImage, given: Given, folder: Path, *, steps: int | None = None) -> Iterator[int]:
    """A token residual at its own defaults, in ``default/``; the token stands for the noun, so captions lose the noun."""
    began = time.process_time()
    config = TokenResidualConfig(evaluation=0)
    config = config if steps is None else replace(config, steps=steps)
    pictures = CaptionedImages(given.images, [caption.replace(f"{given.token} ", "") for caption in given.captions])
    events = token_residual.events(model, pictures, noun=given.noun, token=given.token, config=config)
    yield from _kept(events, folder / "default", began)


def _kept(events: Iterator[Event[Edit]], folder: Path, began: float) -> Iterator[int]:
    """The steps of a method as they are done; its edit and what it cost end in the folder."""
    for event in events:
        if "loss" in event.numbers:  # a step of learning, and not of what is drawn or evaluated
            yield event.done
        if event.result is not None:
            folder.mkdir(parents=True, exist_ok=True)
            edit_file.save(event.result, folder / EDIT)
            write_facts(folder, time.process_time() - began)
