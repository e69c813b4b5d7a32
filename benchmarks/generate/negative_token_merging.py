"""Does negative token merging make a batch more varied at the same meaning, and keep pictures away from a reference?

    python -m benchmarks negative-token-merging      # writes benchmarks/results/negative-token-merging.json

Diversity: batches of one prompt, eight seeds, drawn plainly, with the control, and with one that pushes as far from a cell of the
reference at random (does the likeness say where to push?). The judge is the oracle: distance of embeddings between pictures of a
batch, and text alignment. Reference: the same prompts drawn plainly, kept away from one plain picture of another seed, and with the
name of the thing as the negative prompt; similarity to the reference is that of the oracle's embeddings. Seeds are paired.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from PIL import Image
from torch import Tensor

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.subjects import COLOURS, JudgedModel
from photopic.core.config import Config
from photopic.core.nn.attention import Place
from photopic.core.sampling import Step
from photopic.data import scenes, splits
from photopic.generate.guidance.negative_token_merging import NegativeTokenMerging, NegativeTokenMergingConfig
from photopic.metrics.intervals import bootstrap, paired_bootstrap, ratio_bootstrap

SEED = 9_500_000  # of the samples
SIZE = 8  # pictures of a batch
CLAIMS = (
    Claim("negtome.diversity_gain", ">= 1.1", "mean distance between pictures of a batch, with over without"),
    Claim("negtome.diversity_gain_random", "", "the same where each cell is pushed from a random cell"),
    Claim("negtome.alignment_change", ">= -0.01", "text alignment, with minus without"),
    Claim("negtome.alignment_change_random", "", "the same where each cell is pushed from a random cell"),
    Claim("negtome.reference_similarity", "high < 0", "similarity to the reference, with minus without"),
    Claim(
        "negtome.reference_vs_negative_prompt",
        "high < 0",
        "similarity to the reference, minus that of a negative prompt",
    ),
    Claim("negtome.reference_alignment", "", "text alignment of pictures kept away from a reference, minus without"),
)


@dataclass(frozen=True)
class MergingConfig(Config):
    """How much is measured."""

    batches: Annotated[int, Ge(1)] = 32  # of 8 pictures of one prompt, in each way
    model: str = "emoji-diffusion"  # a bundled name or a folder


@dataclass(frozen=True)
class Batch:
    """Pictures of one prompt drawn in one way: ``plain``, ``batch``, ``random``, ``reference`` or ``negative``."""

    number: int
    way: str


class RandomMerging(NegativeTokenMerging):
    """The same push, from cells of the reference at random."""

    def block(self, output: Tensor, place: Place, step: Step) -> Tensor:
        if not self._is_early(step):
            return output
        halves = []
        for half in output.chunk(2 if step.guided else 1):  # (pictures, cells, dim)
            generator = torch.Generator().manual_seed(step.index)
            match = half[:1, torch.randint(half.shape[1], (half.shape[1],), generator=generator)]
            halves += [half[:1], (1 + self.config.alpha) * half[1:] - self.config.alpha * match]
        return torch.cat(halves)


def prompt(number: int) -> str:
    """A known concept on a background."""
    name = np.random.default_rng((12, number)).choice(sorted(splits.KNOWN))
    return f"{scenes.with_article(str(name))} on {scenes.with_article(COLOURS[number % 12] + ' background')}"


def measure(bench: Bench[Any, JudgedModel], batch: Batch) -> dict[str, Any]:
    """One batch in one way: embeddings, text alignment, and of ways with a reference the similarity to it."""
    judge, said = bench.subject, prompt(batch.number)
    seeds = [SEED + SIZE * batch.number + index for index in range(SIZE)]
    reference = judge.drawn([said], [SEED + 1_000_000 + batch.number])
    options: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "reference.png"
        Image.fromarray(reference[0]).save(file)
        control = {"batch": NegativeTokenMerging, "random": RandomMerging}.get(batch.way)
        controls = [control()] if control else [NegativeTokenMerging(str(file))] if batch.way == "reference" else []
        if batch.way == "negative":
            options["negative_prompt"] = said.partition(" on ")[0]
        images = judge.drawn([said] * SIZE, seeds, controls=controls, **options)
    score, to = judge.oracle.score(images), judge.oracle.score(reference)
    embedding = score.embedding.numpy()  # (8, 128), of length 1
    likeness = embedding @ embedding.T
    return {
        "distance": float(1 - likeness[~np.eye(SIZE, dtype=bool)].mean()),
        "alignment": judge.oracle.text_alignment(score, [said] * SIZE).tolist(),
        "similarity": (embedding @ to.embedding.numpy()[0]).tolist(),
    }


WAYS = ("plain", "batch", "random", "reference", "negative")


def batches(config: MergingConfig) -> list[Batch]:
    """Everything that is drawn."""
    return [Batch(number, way) for number in range(config.batches) for way in WAYS]


def rows(bench: Bench[MergingConfig, JudgedModel]) -> Iterator[Row]:
    """All claims, from what the workers kept; batches are resampled."""
    numbers = range(bench.config.batches)
    found = {way: [bench.found(Batch(number, way)) for number in numbers] for way in WAYS}

    def column(way: str, what: str) -> np.ndarray:
        return np.concatenate([np.atleast_1d(each[what]) for each in found[way]])

    def paired(one: str, other: str, what: str) -> Sequence[float]:
        groups = [number for number in numbers for _ in range(SIZE)]
        return paired_bootstrap(column(one, what), column(other, what), groups=groups)

    default, n = NegativeTokenMergingConfig(), SIZE * len(numbers)
    how = f"alpha {default.alpha:g}, threshold {default.threshold:g}, the first {default.until:.0%} of the steps"
    plain = column("plain", "distance")
    for way, ending in (("batch", ""), ("random", "_random")):
        gain = ratio_bootstrap(column(way, "distance"), plain)
        yield row(f"negtome.diversity_gain{ending}", gain, baseline=plain.mean(), n=n, note=how)
        yield row(f"negtome.alignment_change{ending}", paired(way, "plain", "alignment"), n=n)
    base = bootstrap(column("plain", "similarity"))[0]
    yield row("negtome.reference_similarity", paired("reference", "plain", "similarity"), baseline=base, n=n, note=how)
    note = "the name of the thing as the negative prompt"
    yield row("negtome.reference_vs_negative_prompt", paired("reference", "negative", "similarity"), n=n, note=note)
    yield row("negtome.reference_alignment", paired("reference", "plain", "alignment"), n=n)


BENCHMARKS = (
    Benchmark(
        "negative-token-merging", __doc__, MergingConfig(), MergingConfig(2), CLAIMS, rows, batches, measure,
        open=lambda config, cache: JudgedModel(config.model, cache), seeds=(12, SEED),
    ),
)  # fmt: skip
