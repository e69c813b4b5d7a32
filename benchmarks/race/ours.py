"""The ways of this library: concept neurons at several densities, their tuned values, and a token residual."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from photopic.core import editfile
from photopic.core.edits import Edit, Shut, TokenRows
from photopic.core.runs import Run
from photopic.locate.concept_neurons import ConceptNeuronsConfig, locate
from photopic.models.attention_weights import attention_weights
from photopic.models.text_to_image import TextToImage
from photopic.models.weight_mask import WeightMask
from photopic.tune.located_weights import LocatedWeightsConfig
from photopic.tune.located_weights import tune as tune_values
from race.given import SEED, Given
from race.peers import write_facts

EDIT = "subject.edit"


def search(
    model: TextToImage, given: Given, folder: Path, *,
    rate: float, counts: Sequence[int], batch: int, preservation: int, densities: Sequence[float],
) -> Iterator[int]:  # fmt: skip
    """One mask search, from which the edits of all densities and step counts are taken; yields after every step.

    The search does not depend on the density, so that each edit is what ``locate`` gives at that density and number of steps
    (a test says so); each is therefore charged with the whole search up to its step, and with nothing else.
    """
    began = time.process_time()
    run = Run(folder / "run")
    config = ConceptNeuronsConfig(
        steps=max(counts), lr=rate, batch=batch, preservation_count=preservation, evaluation=0, density=max(densities),
        seed=SEED,
    )  # fmt: skip
    ready: dict[int, float] = {}
    masks: dict[int, WeightMask] = {}
    for event in locate(
        model, given.images, noun=given.noun, token=given.token, captions=given.captions, config=config, run=run,
        save_every=math.gcd(*counts),
    ):  # fmt: skip
        if event.step in counts and event.step not in masks:
            checkpoint = run.load()
            assert checkpoint is not None
            masks[event.step] = WeightMask(attention_weights(model), lr=rate)
            masks[event.step].restore(checkpoint[0], event.step)
            ready[event.step] = time.process_time() - began
        if event.edit is None:
            yield event.step
        else:
            whole = event.edit
    for steps, mask in masks.items():
        for density in densities:
            made = folder / f"{steps}" / f"{density}"
            made.mkdir(parents=True, exist_ok=True)
            editfile.save(_at(whole, mask, density, steps), made / EDIT)
            write_facts(made, ready[steps])


def _at(whole: Edit, mask: WeightMask, density: float, steps: int) -> Edit:
    """The edit of a density and a number of steps; what it says of itself is as long as what ``locate`` writes."""
    shut = mask.lowest(density)
    share = sum(map(len, shut.values())) / sum(weight.numel() for weight in mask.weights.values())
    config = whole.provenance["config"] | {"density": density, "steps": steps}
    rows = tuple(part for part in whole.parts if isinstance(part, TokenRows))
    provenance = dict(whole.provenance) | {"config": config, "steps": steps, "share_shut": share}
    return Edit((Shut(shut), *rows), whole.base, provenance)


def values(
    model: TextToImage, given: Given, folder: Path, located: Path, *,
    rate: float, counts: Sequence[int], batch: int, preservation: int, bits: Literal[32, 16, 2],
) -> Iterator[int]:  # fmt: skip
    """Values of the located weights, tuned from the shut state; the seconds of the search are added by who asks."""
    edit = editfile.load(located / EDIT)
    for steps in counts:
        began = time.process_time()
        config = LocatedWeightsConfig(
            bits=bits, steps=steps, lr=rate, batch=batch, preservation_count=preservation, evaluation=0, seed=SEED
        )
        for event in tune_values(model, given.images, edit, captions=given.captions, config=config):
            if event.edit is None:
                yield event.step
                continue
            made = folder / str(steps)
            made.mkdir(parents=True, exist_ok=True)
            editfile.save(event.edit, made / EDIT)
            write_facts(made, time.process_time() - began)


def residual(model: TextToImage, given: Given, folder: Path, *, steps: int | None = None) -> Iterator[int]:
    """A token residual at its own defaults, in ``default/``; the token stands for the noun, so captions lose the noun."""
    from photopic.tune.token_residual import TokenResidualConfig
    from photopic.tune.token_residual import tune as tune_residual

    began = time.process_time()
    config = TokenResidualConfig(evaluation=0)
    config = config if steps is None else replace(config, steps=steps)
    captions = [caption.replace(f"{given.token} ", "") for caption in given.captions]
    for event in tune_residual(
        model, given.images, noun=given.noun, token=given.token, captions=captions, config=config
    ):
        if event.edit is None:
            yield event.step
            continue
        made = folder / "default"
        made.mkdir(parents=True, exist_ok=True)
        editfile.save(event.edit, made / EDIT)
        write_facts(made, time.process_time() - began)
