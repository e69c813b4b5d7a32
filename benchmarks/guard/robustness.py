"""Do attacks made with sets of pictures and captions carry over to another dual encoder better than those made with pairs?

    python -m benchmarks robustness             # writes benchmarks/results/robustness.json

Captioned scenes are attacked on one bundled encoder and searched with the other, both ways; equal ball, steps and step size, and
one exchanged word a caption. Success: the share of first hits, in both directions, that were right before and are wrong after.
Settings were chosen on scenes of seed 991.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from photopic.core.config import Config
from photopic.data.captioned_pictures import captioned_scenes
from photopic.guard.protect.set_level_guidance import ATTACKS, Attack, RobustnessConfig, attacked, hits, successes
from photopic.metrics.intervals import bootstrap, paired_bootstrap
from photopic.models.dual_encoder import DualEncoder

SEED = 9101  # of the scenes
MODELS = ("emoji-clip-vit", "emoji-clip-cnn")
RIVALS = ("pgd", "separate", "co-attack")
CLAIMS = (
    Claim(
        "sga.transfer_gain",
        "low > 0",
        "success on the other encoder minus that of the best of pgd, separate and co-attack",
    ),
    Claim("sga.gain_over_*", "low > 0", "success on the other encoder minus that of this attack"),
    Claim("sga.transfer_gain_vit_to_cnn", "", "the same as transfer_gain, attacked on the ViT"),
    Claim("sga.transfer_gain_cnn_to_vit", "", "the same as transfer_gain, attacked on the CNN"),
    Claim(
        "sga.success_*",
        "",
        "share of right first hits lost, on the attacked encoder (own) or the other; control: random",
    ),
    Claim("sga.clean", "", "share of right first hits before any attack, both encoders and directions"),
)


@dataclass(frozen=True)
class RobustnessBenchConfig(Config):
    """How much is measured."""

    pictures: Annotated[int, Ge(2)] = 256  # scenes with their captions
    seed: Annotated[int, Ge(0)] = SEED  # of the scenes


@dataclass(frozen=True)
class Case:
    """One attack made on one encoder."""

    model: str
    attack: Attack | str


class Encoders:
    """Both, by name."""

    def __init__(self) -> None:
        self.models = {name: DualEncoder.load(name, "cpu") for name in MODELS}
        self.digest = "".join(each.digest() for each in self.models.values())


def measure(bench: Bench[RobustnessBenchConfig, Encoders], case: Case) -> dict[str, Any]:
    """First hits of both encoders after an attack."""
    models, data = bench.subject.models, captioned_scenes(bench.config.pictures, seed=bench.config.seed)
    images, captions = data.images, data.captions
    if case.attack != "none":
        steps = attacked(models[case.model], data, case.attack, RobustnessConfig())  # type: ignore[arg-type]
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                images, captions = stop.value
                break
    return {name: hits(model, images, captions).tolist() for name, model in models.items()}


def cases(config: RobustnessBenchConfig) -> list[Case]:
    """Every attack on both encoders."""
    return [Case(MODELS[0], "none"), *(Case(model, attack) for model in MODELS for attack in ATTACKS)]


def rows(bench: Bench[RobustnessBenchConfig, Encoders]) -> Iterator[Row]:
    """All claims, from what the workers kept; a picture counts with both encoders it was attacked on."""
    before = {name: np.array(each) for name, each in bench.found(Case(MODELS[0], "none")).items()}
    count, pairs = bench.config.pictures, list(zip(MODELS, MODELS[::-1], strict=True))

    def lost(attack: str, way: int, *, own: bool = False) -> np.ndarray:
        source, other = pairs[way]
        judged = source if own else other
        return successes(before[judged], np.array(bench.found(Case(source, attack))[judged]))

    def mean(attack: str, ways: tuple[int, ...] = (0, 1), *, own: bool = False) -> np.ndarray:
        """One number a picture: over the ways in which it was right before."""
        return np.stack([lost(attack, way, own=own) for way in ways])

    def gain(rival: str, ways: tuple[int, ...]) -> tuple[Any, int]:
        ours, theirs = mean("set-level", ways), mean(rival, ways)
        groups = np.broadcast_to(np.arange(count), ours.shape)
        kept = ~np.isnan(ours)
        return paired_bootstrap(ours[kept], theirs[kept], groups=groups[kept].tolist()), int(kept.any(0).sum())

    def best(ways: tuple[int, ...]) -> str:
        return max(RIVALS, key=lambda name: float(np.nanmean(mean(name, ways))))

    for name, ways in (("", (0, 1)), ("_vit_to_cnn", (0,)), ("_cnn_to_vit", (1,))):
        rival = best(ways)
        found, n = gain(rival, ways)
        control = float(np.nanmean(mean("random", ways)))
        yield row(
            f"sga.transfer_gain{name}",
            found,
            n=n,
            baseline=float(np.nanmean(mean(rival, ways))),
            control=control,
            note=f"best: {rival}",
        )
    for rival in RIVALS:
        found, n = gain(rival, (0, 1))
        yield row(f"sga.gain_over_{rival.replace('-', '_')}", found, n=n)
    for attack in ATTACKS:
        for own in (True, False):
            values = mean(attack, own=own)
            values, control = values[~np.isnan(values)], float(np.nanmean(mean("random", own=own)))
            claim = f"sga.success_{attack.replace('-', '_')}_{'own' if own else 'other'}"
            yield row(claim, bootstrap(values), n=len(values), control=control)
    yield row("sga.clean", float(np.mean(list(before.values()))), n=count)


BENCHMARKS = (
    Benchmark(
        "robustness", __doc__, RobustnessBenchConfig(), RobustnessBenchConfig(64, 991), CLAIMS, rows, cases, measure,
        open=lambda config, cache: Encoders(), seeds=(SEED,),
    ),
)  # fmt: skip
