"""How good the judge of 128-pixel pictures is: on fresh real scenes of one to four things, and through the new autoencoder.

    python -m benchmarks oracle-128            # writes benchmarks/results/oracle-128.json

Scenes as the second edition of emoji-diffusion learns them (24 to 96 pixels, two styles), by seeds no recipe uses. What is missed
here bounds what can be said of generated pictures. Control: four names that are not in the scene. The autoencoder's scenes hold
four things of 49 to 56 pixels, as it is judged by; baseline there: the same scenes as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, share
from benchmarks.harness.ledger import ROOT
from photopic.core.config import Config
from photopic.data import scenes, splits
from photopic.data.pixels import from_pixels
from photopic.metrics.oracle import Oracle

KNOWN = tuple(sorted(splits.KNOWN))
SEED, SIDE = 7_128_001, 128
STYLES = ("noto", "twemoji")
SIDES = (24 / SIDE, 96 / SIDE)
VAE = ROOT / "recipes" / "emoji-diffusion-128" / "checkpoint" / "vae"
COUNTS = {"one": 1, "two": 2, "three": 3, "four": 4}
CLAIMS = (
    Claim("oracle_128.concept_top1", ">= 0.97", "one thing of 24 to 96 pixels, among the known names"),
    Claim("oracle_128.*_present", "", "every thing called present; control: names that are not there"),
    Claim("oracle_128.relation", "", "of two things"),
    Claim("oracle_128.style", "", "of two"),
    Claim("oracle_128.background", "", "its colour"),
    Claim("model.autoencoder_four", ">= 0.95", "four things after the autoencoder of 128 px: all present"),
)


@dataclass(frozen=True)
class Oracle128Config(Config):
    """How much is measured."""

    scenes: Annotated[int, Ge(16)] = 512  # of each number of things


def draw(count: int, things: int, *, anywhere: bool = True) -> list[scenes.Scene]:
    """Scenes of so many things; ``anywhere``: of all sizes, or in the usual layout."""
    objects = tuple(float(number == things) for number in COUNTS.values())
    choice = scenes.SceneOptions(KNOWN, STYLES, SIDE, objects, sides=SIDES if anywhere else None)  # type: ignore[arg-type]
    return [scenes.sample_scene(choice, (SEED, things, int(anywhere), index)) for index in range(count)]


def present(oracle: Oracle, images: Any, drawn: Sequence[scenes.Scene]) -> tuple[list[bool], list[bool]]:
    """Whether every thing of each scene is called present, and each of four names that are not there."""
    rng, found, false = np.random.default_rng(SEED), [], []
    for start in range(0, len(drawn), 64):
        scores = oracle.score(images[start : start + 64])
        for place, scene in enumerate(drawn[start : start + 64]):
            own = type(scores)(*(getattr(scores, name)[place : place + 1] for name in scores.__dataclass_fields__))
            names = list(dict.fromkeys(item.concept for item in scene.placements))
            others = [str(name) for name in rng.choice(KNOWN, 4, replace=False) if name not in names]
            found.append(bool((oracle.presence(own, names) > 0.5).all()))
            false.extend(oracle.presence(own, others)[0] > 0.5)
    return found, false


@cache
def rebuilt(count: int) -> tuple[list[scenes.Scene], torch.Tensor]:
    """Scenes of four, and what the autoencoder makes of them."""
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(VAE, torch_dtype=torch.float32)
    drawn = draw(count, 4, anywhere=False)
    with torch.no_grad():
        parts = from_pixels(np.stack([scene.image for scene in drawn])).split(16)
        return drawn, torch.cat([vae.decode(vae.encode(each).latent_dist.mean).sample for each in parts]).clamp(-1, 1)


def rows(bench: Bench[Oracle128Config, Oracle]) -> Iterator[Row]:
    """Every row."""
    oracle, count = bench.subject, bench.config.scenes
    for word, things in COUNTS.items():
        drawn = draw(count, things)
        images = np.stack([scene.image for scene in drawn])
        found, false = present(oracle, images, drawn)
        if things == 1:
            scores = oracle.score(images)
            names, styles = ([getattr(s.placements[0], field) for s in drawn] for field in ("concept", "style"))
            right = np.array([a == b for a, b in zip(oracle.concept(scores), names, strict=True)])
            sides = np.array([SIDE * scene.placements[0].side for scene in drawn])
            small, large = (f"{right[part].mean():.3f}" for part in (sides < 36, sides >= 60))
            note = f"below 36 pixels {small}, from 60 on {large}"
            yield share("oracle_128.concept_top1", right, note=note)
            yield share("oracle_128.style", [a == b for a, b in zip(oracle.style(scores), styles, strict=True)])
            colours = [scene.background.colour for scene in drawn]
            told = [each.colour for each in oracle.background(scores)]
            yield share("oracle_128.background", [a == b for a, b in zip(told, colours, strict=True)])
        if things == 2:
            pairs = [(image, scene) for image, scene in zip(images, drawn, strict=True) if scene.relations]
            answers = [
                oracle.relation(image[None], *(item.concept for item in scene.placements))[0] == scene.relations[0][1]
                for image, scene in pairs
            ]
            yield share("oracle_128.relation", answers)
        yield replace(share(f"oracle_128.{word}_present", found), control=float(np.mean(false)))
    real, seen = rebuilt(count)
    whole, _ = present(oracle, np.stack([scene.image for scene in real]), real)
    yield share("model.autoencoder_four", present(oracle, seen, real)[0], ceiling=np.array(whole))


def opened(config: Oracle128Config, cache: Any) -> Oracle:
    """The bundled judge of 128 pixels."""
    return Oracle.load(side=128)


BENCHMARKS = (
    Benchmark("oracle-128", __doc__, Oracle128Config(), Oracle128Config(32), CLAIMS, rows, open=opened, seeds=(SEED,)),
)
