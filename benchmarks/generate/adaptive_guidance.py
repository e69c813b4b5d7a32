"""How many network calls does adaptive guidance spare, and are the pictures still the same to an independent judge?

    python -m benchmarks.generate.adaptive_guidance             # writes benchmarks/results/adaptive-guidance.json
    python -m benchmarks.generate.adaptive_guidance --quick     # few pictures; prints only

Each prompt and seed is drawn with full guidance, with adaptive guidance at several thresholds, with as many guided steps at random
places (the control: does the agreement say which steps matter?), and with full guidance in so few steps that the calls are as many.
The judge is the oracle's text alignment. Its noise: half the 95 % interval of the mean difference between as many pictures of other
seeds with full guidance, which is 0 in truth. Interrupted, it goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, UInt8

from benchmarks.harness.cache import code_of
from benchmarks.harness.ledger import Row
from benchmarks.harness.runner import Benchmark, mine, run
from benchmarks.harness.subjects import COLOURS, Bench
from photopic.core.sampling import Control, Step
from photopic.data import scenes, splits
from photopic.generate.guidance.adaptive_guidance import AdaptiveGuidance, AdaptiveGuidanceConfig
from photopic.metrics.intervals import bootstrap, paired_bootstrap

SEED = 9_000_000  # of the samples
SWEPT = (0.9, 0.95, 0.97, 0.98)  # thresholds beside the default
DEFAULT = AdaptiveGuidanceConfig().threshold
BATCH = 16
MODULES = (
    "photopic.generate.guidance.adaptive_guidance",
    "photopic.models.text_to_image.handle",
    "photopic.core.sampling.loop",
)


@dataclass(frozen=True)
class Settings:
    """How much is measured."""

    pictures: int = 256  # with full, adaptive and randomly placed guidance
    swept: int = 64  # of them also with other thresholds, in fewer steps, and with other seeds


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


def starts(count: int) -> list[int]:
    """First picture of each batch."""
    return list(range(0, count, BATCH))


@cache
def _code() -> str:
    return code_of(*MODULES, drawn, prompts, GuidedAt)


def drawn(bench: Bench, start: int, way: str, value: float = 0.0) -> dict[str, Any]:
    """One batch drawn in one way.

    Args:
        bench: The model and the judge.
        start: Number of the first picture.
        way: ``full``, ``other`` (other seeds), ``adaptive``, ``random`` (guided in as many steps as adaptive guidance at the
            default guides each picture, at random places) or ``fewer`` (full guidance in fewer steps).
        value: The threshold of ``adaptive``, the steps of ``fewer``.

    Returns:
        For each picture ``score``, its text alignment, ``guided``, the steps that were guided, and ``pixels``.
    """

    def make() -> dict[str, Any]:
        said = prompts(start + BATCH)[start:]
        seeds = [SEED + index + (1_000_000 if way == "other" else 0) for index in range(start, start + BATCH)]
        steps = int(value) if way == "fewer" else bench.steps
        control: Any = None
        if way == "adaptive":
            control = AdaptiveGuidance(config=AdaptiveGuidanceConfig(threshold=value))
        elif way == "random":
            guided = drawn(bench, start, "adaptive", DEFAULT)["guided"]
            places = np.random.default_rng((10, start)).random((BATCH, steps)).argsort(1)
            control = GuidedAt(places < np.array(guided)[:, None])
        images = bench.model.generate(
            said, seeds=seeds, steps=steps, guidance=bench.guidance, controls=[control] if control else []
        )
        used = control.guided_steps.tolist() if way == "adaptive" else [steps] * BATCH
        scores = bench.oracle.text_alignment(bench.oracle.score(images), said)
        print(way, value, start, flush=True)
        return {"score": [float(each) for each in scores], "guided": used, "pixels": images.tolist()}

    key = {"adaptive": start, "way": way, "value": value, "steps": bench.steps, "guidance": bench.guidance}
    return bench.kept.value(key | {"code": _code()}, make)


class Found:
    """What was drawn in one way, over all batches.

    Attributes:
        score: Text alignment, one a picture.
        guided: Steps that were guided.
        pixels: The pictures.
    """

    def __init__(self, bench: Bench, count: int, way: str, value: float = 0.0):
        parts = [drawn(bench, start, way, value) for start in starts(count)]
        self.score = np.concatenate([each["score"] for each in parts])
        self.guided = np.concatenate([each["guided"] for each in parts])
        self.pixels: UInt8[np.ndarray, "n h w 3"] = np.concatenate([np.array(e["pixels"], np.uint8) for e in parts])

    def saved(self, steps: int) -> np.ndarray:
        """Share of the network calls spared, for a picture drawn alone."""
        return 1 - (steps + self.guided) / (2 * steps)

    def away(self, other: Found) -> np.ndarray:
        """Root mean square difference of each picture to the other's, of 255."""
        difference = self.pixels.astype(float) - other.pixels[: len(self.pixels)]
        return np.sqrt((difference**2).mean((1, 2, 3)))


def fewer_steps(bench: Bench, guided: np.ndarray) -> int:
    """Steps of full guidance that call the network as often as adaptive guidance did on average."""
    return round(float(bench.steps + guided.mean()) / 2)


def rows_of(bench: Bench, settings: Settings) -> list[Row]:
    """All claims, from what the workers kept."""
    count, steps = settings.pictures, bench.steps
    full, other = Found(bench, count, "full"), Found(bench, settings.swept, "other")
    adaptive, scattered = Found(bench, count, "adaptive", DEFAULT), Found(bench, count, "random")
    fewer = Found(bench, settings.swept, "fewer", fewer_steps(bench, adaptive.guided[:BATCH]))
    noise = 1.96 * float(np.std(full.score[: settings.swept] - other.score, ddof=1)) / count**0.5
    together = 1 - (steps + adaptive.guided.reshape(-1, BATCH).max(1)) / (2 * steps)  # a batch ends with its last
    swept = settings.swept
    rows = [
        _row("calls_saved", bootstrap(adaptive.saved(steps)), ">= 0.25", count,
             f"share of network calls spared at threshold {DEFAULT:g}, pictures drawn alone; of {2 * steps} with full guidance"),
        _row("calls_saved_batch_16", bootstrap(together), None, len(together),
             "drawn in batches of 16: the half is spared once all 16 have stopped"),
        _row("oracle_drop", paired_bootstrap(full.score, adaptive.score), f"high < {noise:.4f}", count,
             "text alignment with full minus adaptive guidance; target: the oracle's noise",
             control=_mean(full.score - scattered.score)),
        _row("oracle_gain_over_random", paired_bootstrap(adaptive.score, scattered.score), None, count,
             "text alignment with adaptive guidance minus as many guided steps at random places"),
        _row("difference", bootstrap(adaptive.away(full)), None, count,
             "root mean square difference to the picture of full guidance, of 255; control: guided at random places",
             baseline=_mean(other.away(full)), control=_mean(scattered.away(full))),
        _row("closer_than_random", paired_bootstrap(scattered.away(full), adaptive.away(full)), "low > 0", count,
             "that difference with as many guided steps at random places, minus adaptive"),
        _row("closer_than_fewer_steps", paired_bootstrap(fewer.away(full), adaptive.away(full)[:swept]), "low > 0", swept,
             "that difference of full guidance in fewer steps with as many calls, minus adaptive"),
        _row("gain_over_fewer_steps", paired_bootstrap(adaptive.score[:swept], fewer.score), None, swept,
             "text alignment with adaptive guidance minus full guidance in fewer steps with as many calls"),
    ]  # fmt: skip
    for threshold in SWEPT:
        found, name = Found(bench, swept, "adaptive", threshold), f"{threshold:g}".replace(".", "_")
        rows += [
            _row(f"calls_saved_at_{name}", bootstrap(found.saved(steps)), None, swept, f"at threshold {threshold:g}"),
            _row(f"oracle_drop_at_{name}", paired_bootstrap(full.score[:swept], found.score), None, swept,
                 f"text alignment with full guidance minus at threshold {threshold:g}"),
        ]  # fmt: skip
    return rows


def _mean(values: np.ndarray) -> float:
    return round(float(values.mean()), 4)


def _row(claim: str, interval: Any, target: str | None, n: int, note: str, **beside: Any) -> Row:
    value, low, high = (round(float(number), 5) for number in interval)
    return Row(f"adaptive_guidance.{claim}", value, low, high, target=target, n=n, note=note, **beside)


def work(bench: Bench, settings: Settings, part: str) -> None:
    """A worker's share of everything slow."""
    first = drawn(bench, 0, "adaptive", DEFAULT)["guided"]
    fewer = fewer_steps(bench, np.array(first))
    for start in mine(starts(settings.pictures), part):
        for way, value in (("full", 0.0), ("adaptive", DEFAULT), ("random", 0.0)):
            drawn(bench, start, way, value)
        if start < settings.swept:
            drawn(bench, start, "other")
            for threshold in SWEPT:
                drawn(bench, start, "adaptive", threshold)
            drawn(bench, start, "fewer", fewer)


if __name__ == "__main__":
    full, quick = Settings(), Settings(pictures=32, swept=16)
    run(Benchmark("adaptive-guidance", __file__, __doc__ or "", full, quick, work, rows_of, [9, 10, SEED], _code))
