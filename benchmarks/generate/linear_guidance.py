"""How many network calls does linear guidance spare, and how near are its pictures to those of full guidance?

    python -m benchmarks linear-guidance         # writes benchmarks/results/linear-guidance.json

The map is fitted on 64 pictures of other prompts and seeds. Each prompt and seed is then drawn with full guidance, with linear
guidance in the later half, with the conditional prediction alone in the same steps (the control: does the map add anything?), and
with full guidance in so few steps that the calls are as many. The judge is the oracle's text alignment; its noise is half the 95 %
interval of the mean difference to as many pictures of other seeds.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge
from jaxtyping import Float, UInt8

from benchmarks.generate.adaptive_guidance import GuidedAt, prompts
from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.subjects import JudgedModel
from photopic.core.config import Config
from photopic.core.sampling import Control
from photopic.generate.guidance.linear_guidance import (
    LinearFitConfig,
    LinearGuidance,
    LinearGuidanceConfig,
    fit_linear_guidance,
)
from photopic.metrics.intervals import bootstrap, paired_bootstrap

SEED, SIZE = 9_800_000, 16  # of the samples; pictures of a batch
FITTED = 16  # prompts of the fit, behind those that are measured
WAYS = ("full", "linear", "conditional", "fewer", "other")
CLAIMS = (
    Claim("linear_guidance.calls_saved", ">= 0.25", "share of network calls spared"),
    Claim("linear_guidance.oracle_drop", "", "text alignment, full minus linear guidance; target: the oracle's noise"),
    Claim("linear_guidance.gain_over_fewer_steps", "low > 0", "text alignment minus that of as many calls, full guidance"),
    Claim("linear_guidance.ssim", "", "structural similarity to the picture of full guidance; baseline: other seeds"),
    Claim("linear_guidance.ssim_over_fewer_steps", "low > 0", "the same, minus that of as many calls in fewer steps"),
    Claim("linear_guidance.ssim_over_conditional", "low > 0", "the same, minus that of the conditional prediction alone"),
    Claim("linear_guidance.explained", "", "least share, over the spared steps, of what parts both halves explained in the fit"),
)  # fmt: skip


@dataclass(frozen=True)
class LinearBenchConfig(Config):
    """How much is measured."""

    batches: Annotated[int, Ge(1)] = 16  # of 16 pictures, in each way
    model: str = "emoji-diffusion"  # a bundled name or a folder


@dataclass(frozen=True)
class Batch:
    """Pictures drawn together in one of ``WAYS``; ``fit`` is the fit, which all share."""

    number: int
    way: str


def measure(bench: Bench[Any, JudgedModel], batch: Batch) -> dict[str, Any]:
    """Of the fit its weights; of a batch ``score``, ``pixels`` and the ``calls`` of a picture."""
    judge, steps = bench.subject, bench.subject.steps
    if batch.way == "fit":
        config = LinearFitConfig(steps=steps, guidance=judge.guidance, pictures=4, seed=SEED - 1000)
        found = fit_linear_guidance(judge.model, prompts=prompts(512)[-FITTED:], config=config)
        return found.to_dict()
    first, control, half = batch.number * SIZE, None, LinearGuidanceConfig().start
    said = prompts(first + SIZE)[first:]
    kept = round(half * steps)  # guided in full
    if batch.way == "linear":
        control = linear(bench.found(Batch(0, "fit")))
    elif batch.way == "conditional":
        control = GuidedAt(np.broadcast_to(np.arange(steps) < kept, (SIZE, steps)).copy())
    fewer = (steps + kept) // 2 if batch.way == "fewer" else steps
    seeds = [SEED + index + (1_000_000 if batch.way == "other" else 0) for index in range(first, first + SIZE)]
    images = judge.drawn(said, seeds, steps=fewer, controls=[] if control is None else [control])
    guided = control.guided_steps if isinstance(control, LinearGuidance) else kept if control else fewer
    score = judge.oracle.text_alignment(judge.oracle.score(images), said).tolist()
    return {"score": score, "pixels": images.tolist(), "calls": fewer + guided}


def linear(fit: dict[str, Any]) -> Control:
    """The control of kept weights."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "linear.json"
        file.write_text(json.dumps(fit))
        return LinearGuidance(str(file))


def ssim(one: UInt8[np.ndarray, "n h w 3"], other: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, " n"]:
    """Structural similarity in windows of 7x7 pixels, the mean over channels and places (Wang et al., 2004, its constants)."""
    a, b = (torch.from_numpy(each).permute(0, 3, 1, 2).double() / 255 for each in (one, other))

    def mean(x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(x, 7, 1)

    first, second = mean(a), mean(b)
    spread, both = mean(a * a) - first**2 + mean(b * b) - second**2, mean(a * b) - first * second
    found = (2 * first * second + 1e-4) * (2 * both + 9e-4) / ((first**2 + second**2 + 1e-4) * (spread + 9e-4))
    scores: np.ndarray = found.mean((1, 2, 3)).numpy()
    return scores


def batches(config: LinearBenchConfig) -> list[Batch]:
    """The fit, then everything that is drawn."""
    return [Batch(0, "fit"), *(Batch(number, way) for number in range(config.batches) for way in WAYS)]


def rows(bench: Bench[LinearBenchConfig, JudgedModel]) -> Iterator[Row]:
    """All claims, from what the workers kept."""
    found = {way: [bench.found(Batch(number, way)) for number in range(bench.config.batches)] for way in WAYS}
    score = {way: np.concatenate([each["score"] for each in found[way]]) for way in WAYS}
    pixels = {way: np.concatenate([np.array(each["pixels"], np.uint8) for each in found[way]]) for way in WAYS}
    near = {way: ssim(pixels[way], pixels["full"]) for way in WAYS[1:]}
    n, steps = len(score["full"]), bench.subject.steps
    noise = 1.96 * float(np.std(score["full"] - score["other"], ddof=1)) / n**0.5
    saved = [1 - found["linear"][0]["calls"] / (2 * steps), 1 - found["fewer"][0]["calls"] / (2 * steps)]
    yield row("linear_guidance.calls_saved", saved[0], baseline=saved[1], n=n, note="baseline: fewer steps")
    drop = paired_bootstrap(score["full"], score["linear"])
    beside = float((score["full"] - score["conditional"]).mean())
    yield row("linear_guidance.oracle_drop", drop, target=f"high < {noise:.4f}", control=beside, n=n)
    yield row("linear_guidance.gain_over_fewer_steps", paired_bootstrap(score["linear"], score["fewer"]), n=n)
    yield row("linear_guidance.ssim", bootstrap(near["linear"]), baseline=near["other"].mean(), n=n)
    yield row("linear_guidance.ssim_over_fewer_steps", paired_bootstrap(near["linear"], near["fewer"]), n=n)
    yield row("linear_guidance.ssim_over_conditional", paired_bootstrap(near["linear"], near["conditional"]), n=n)
    spared = bench.found(Batch(0, "fit"))["rows"][round(LinearGuidanceConfig().start * steps) :]
    yield row("linear_guidance.explained", min(each["explained"] for each in spared), n=FITTED * 4)


BENCHMARKS = (
    Benchmark(
        "linear-guidance", __doc__, LinearBenchConfig(), LinearBenchConfig(1), CLAIMS, rows, batches, measure,
        open=lambda config, cache: JudgedModel(config.model, cache), seeds=(9, SEED - 1000, SEED),
    ),
)  # fmt: skip
