"""How many network calls does adaptive guidance spare, and are the pictures still the same to an independent judge?

    python -m benchmarks adaptive-guidance             # writes benchmarks/results/adaptive-guidance.json

Each prompt and seed is drawn with full guidance, with adaptive guidance at several thresholds, with as many guided steps at random
places (the control: does the agreement say which steps matter?), and with full guidance in so few steps that the calls are as many.
The judge is the oracle's text alignment. Its noise: half the 95 % interval of the mean difference between as many pictures of other
seeds with full guidance, which is 0 in truth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from jaxtyping import Bool, UInt8

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.subjects import COLOURS, JudgedModel
from photopic.core.config import Config
from photopic.core.sampling import Control, Step
from photopic.data import scenes, splits
from photopic.generate.guidance.adaptive_guidance import AdaptiveGuidance, AdaptiveGuidanceConfig
from photopic.metrics.intervals import bootstrap, paired_bootstrap

SEED = 9_000_000  # of the samples
SWEPT = (0.9, 0.95, 0.97, 0.98)  # thresholds beside the default
DEFAULT = AdaptiveGuidanceConfig().threshold
SIZE = 16  # pictures of a batch
AWAY = "root mean square difference to the picture of full guidance, of 255"
CLAIMS = (
    Claim(
        "adaptive_guidance.calls_saved",
        ">= 0.25",
        f"share of network calls spared at {DEFAULT:g}, pictures drawn alone",
    ),
    Claim(
        "adaptive_guidance.calls_saved_batch_16", "", "in batches of 16: the half is spared once all 16 have stopped"
    ),
    Claim(
        "adaptive_guidance.oracle_drop",
        "",
        "text alignment with full minus adaptive guidance; target: the oracle's noise",
    ),
    Claim(
        "adaptive_guidance.oracle_gain_over_random", "", "text alignment minus that of as many guided steps anywhere"
    ),
    Claim("adaptive_guidance.difference", "", f"{AWAY}; baseline: other seeds; control: guided at random places"),
    Claim("adaptive_guidance.closer_than_random", "low > 0", f"{AWAY}, guided at random places, minus adaptive"),
    Claim(
        "adaptive_guidance.closer_than_fewer_steps", "low > 0", f"{AWAY}, as many calls in fewer steps, minus adaptive"
    ),
    Claim(
        "adaptive_guidance.gain_over_fewer_steps", "", "text alignment minus that of full guidance with as many calls"
    ),
    Claim("adaptive_guidance.calls_saved_at_*", "", "share of network calls spared at that threshold"),
    Claim("adaptive_guidance.oracle_drop_at_*", "", "text alignment with full guidance minus at that threshold"),
)


@dataclass(frozen=True)
class AdaptiveConfig(Config):
    """How much is measured."""

    batches: Annotated[int, Ge(1)] = 16  # of 16 pictures, with full, adaptive and randomly placed guidance
    swept: Annotated[int, Ge(1)] = 16  # of them also at other thresholds, in fewer steps, and with other seeds
    model: str = "emoji-diffusion"  # a bundled name or a folder


@dataclass(frozen=True)
class Batch:
    """Pictures drawn together in one way.

    Attributes:
        number: Its place among the batches.
        way: ``full``, ``other`` (other seeds), ``adaptive``, ``random`` (guided in as many steps as adaptive guidance at the
            default guides each picture, at random places) or ``fewer`` (full guidance with as many calls as adaptive).
        threshold: Of ``adaptive``.
    """

    number: int
    way: str
    threshold: float = DEFAULT


class GuidedAt(Control):
    """Guides each picture in given steps only."""

    def __init__(self, guided: Bool[np.ndarray, "batch steps"]):
        self.guided = torch.from_numpy(guided)

    def is_guided(self, step: Step) -> bool:
        return bool(self.guided[:, step.index].any())

    def guidance(self, conditional: Any, unconditional: Any, scale: float, step: Step) -> Any:
        return torch.where(
            self.guided[:, step.index, None, None, None],  # (batch,) -> (batch, 1, 1, 1)
            unconditional + scale * (conditional - unconditional),
            conditional,
        )


def prompts(count: int) -> list[str]:
    """One object or two and how they lie, known concepts only, in turn."""
    names, made = sorted(splits.KNOWN), []
    for index in range(count):
        rng = np.random.default_rng((9, index))
        first, second = (scenes.with_article(str(name)) for name in rng.choice(names, 2, replace=False))
        said = first if index % 2 else f"{first} {scenes.RELATIONS[index // 2 % 4]} {second}"
        made.append(f"{said} on {scenes.with_article(COLOURS[index % 12] + ' background')}")
    return made


def measure(bench: Bench[Any, JudgedModel], batch: Batch) -> dict[str, Any]:
    """One batch drawn in one way.

    Returns:
        For each picture ``score``, its text alignment, ``guided``, the steps that were guided, and ``pixels``.
    """
    judge, steps, first = bench.subject, bench.subject.steps, batch.number * SIZE
    control: Control | None = None
    said = prompts(first + SIZE)[first:]
    seeds = [SEED + index + (1_000_000 if batch.way == "other" else 0) for index in range(first, first + SIZE)]
    if batch.way == "fewer":  # as many calls as adaptive guidance makes on average
        steps = round(float(steps + np.mean(bench.found(Batch(0, "adaptive"))["guided"])) / 2)
    elif batch.way == "adaptive":
        control = AdaptiveGuidance(config=AdaptiveGuidanceConfig(threshold=batch.threshold))
    elif batch.way == "random":
        guided = np.array(bench.found(Batch(batch.number, "adaptive"))["guided"])
        places = np.random.default_rng((10, first)).random((SIZE, steps)).argsort(1)
        control = GuidedAt(places < guided[:, None])
    images = judge.drawn(said, seeds, steps=steps, controls=[control] if control else [])
    used = control.guided_steps.tolist() if isinstance(control, AdaptiveGuidance) else [steps] * SIZE
    score = judge.oracle.text_alignment(judge.oracle.score(images), said).tolist()
    return {"score": score, "guided": used, "pixels": images.tolist()}


def batches(config: AdaptiveConfig) -> list[Batch]:
    """Everything that is drawn."""
    everywhere = [Batch(number, way) for number in range(config.batches) for way in ("full", "adaptive", "random")]
    ways = [("other", DEFAULT), ("fewer", DEFAULT), *(("adaptive", threshold) for threshold in SWEPT)]
    return everywhere + [Batch(number, *way) for number in range(config.swept) for way in ways]


class Drawn:
    """What was drawn in one way, over all batches.

    Attributes:
        score: Text alignment, one a picture.
        guided: Steps that were guided.
        saved: Share of the network calls spared, for a picture drawn alone.
        pixels: The pictures.
    """

    def __init__(self, bench: Bench[Any, JudgedModel], count: int, way: str, threshold: float = DEFAULT):
        found = [bench.found(Batch(number, way, threshold)) for number in range(count)]
        self.score = np.concatenate([each["score"] for each in found])
        self.guided = np.concatenate([each["guided"] for each in found])
        self.saved = 1 - (bench.subject.steps + self.guided) / (2 * bench.subject.steps)
        self.pixels: UInt8[np.ndarray, "n h w 3"] = np.concatenate(
            [np.array(each["pixels"], np.uint8) for each in found]
        )

    def away(self, other: Drawn) -> np.ndarray:
        """Root mean square difference of each picture to the other's, of 255."""
        difference = self.pixels.astype(float) - other.pixels[: len(self.pixels)]
        return np.sqrt((difference**2).mean((1, 2, 3)))


def rows(bench: Bench[AdaptiveConfig, JudgedModel]) -> Iterator[Row]:
    """All claims, from what the workers kept."""
    count, swept, steps = SIZE * bench.config.batches, SIZE * bench.config.swept, bench.subject.steps
    full, adaptive, random = (Drawn(bench, bench.config.batches, way) for way in ("full", "adaptive", "random"))
    other, fewer = (Drawn(bench, bench.config.swept, way) for way in ("other", "fewer"))
    noise = 1.96 * float(np.std(full.score[:swept] - other.score, ddof=1)) / count**0.5
    together = 1 - (steps + adaptive.guided.reshape(-1, SIZE).max(1)) / (2 * steps)  # a batch ends with its last
    away, of_random = adaptive.away(full), random.away(full)
    drop, beside = paired_bootstrap(full.score, adaptive.score), (full.score - random.score).mean()
    measured: tuple[tuple[str, Any, int, dict[str, Any]], ...] = (
        ("calls_saved", bootstrap(adaptive.saved), count, {}),
        ("calls_saved_batch_16", bootstrap(together), len(together), {}),
        ("oracle_drop", drop, count, {"target": f"high < {noise:.4f}", "control": beside}),
        ("oracle_gain_over_random", paired_bootstrap(adaptive.score, random.score), count, {}),
        ("difference", bootstrap(away), count, {"baseline": other.away(full).mean(), "control": of_random.mean()}),
        ("closer_than_random", paired_bootstrap(of_random, away), count, {}),
        ("closer_than_fewer_steps", paired_bootstrap(fewer.away(full), away[:swept]), swept, {}),
        ("gain_over_fewer_steps", paired_bootstrap(adaptive.score[:swept], fewer.score), swept, {}),
    )
    for claim, value, n, more in measured:
        yield row(f"adaptive_guidance.{claim}", value, n=n, **more)
    for threshold in SWEPT:
        found, name = Drawn(bench, bench.config.swept, "adaptive", threshold), f"{threshold:g}".replace(".", "_")
        yield row(f"adaptive_guidance.calls_saved_at_{name}", bootstrap(found.saved), n=swept)
        drop = paired_bootstrap(full.score[:swept], found.score)
        yield row(f"adaptive_guidance.oracle_drop_at_{name}", drop, n=swept)


BENCHMARKS = (
    Benchmark(
        "adaptive-guidance", __doc__, AdaptiveConfig(), AdaptiveConfig(2, 1), CLAIMS, rows, batches, measure,
        open=lambda config, cache: JudgedModel(config.model, cache), seeds=(9, 10, SEED),
    ),
)  # fmt: skip
