"""What can an edit of so many bytes do? Files of two sizes, filled in five ways, judged by what they draw.

    python -m benchmarks byte-front                    # writes benchmarks/results/byte-front.json

The ways: single weights shut, whole rows shut, and single weights or rows whose values are learnt and kept at 2 or 16 bits. Three
held-out subjects, five pictures each, ``--binary`` searches; free samples with paired seeds. Baseline: the base with the token's
row alone. Control: as many weights of each matrix at random, whole rows where rows are found.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.subjects import THREE, JudgedModel, shut, token_prompts, unrelated_prompts, with_shut
from photopic.core.config import Config
from photopic.core.edits.file import to_bytes
from photopic.locate.concept_neurons import ConceptNeuronsConfig
from photopic.metrics.intervals import bootstrap, paired_bootstrap
from photopic.models.text_to_image.attention_weights import attention_weights, random_positions

SEED = 6_400_000  # of the samples
WAYS: dict[str, dict[str, Any]] = {
    "entries": {},
    "rows": {"structure": "rows"},
    "entries_2": {"tune": 80, "bits": 2},
    "rows_2": {"tune": 80, "bits": 2, "structure": "rows"},
    "entries_16": {"tune": 80, "bits": 16},
}
CLAIMS = (
    Claim("bytes.fit", "== 1", "share of the edits whose file keeps within what was asked for"),
    Claim("bytes.best_over_random", "low > 0", "similarity of the best shut way over random weights of its structure"),
    Claim("bytes.rows_over_entries.*", "", "similarity, shut; paired by picture"),
    Claim("bytes.similarity.*", "", "subject similarity; baseline: the token's row alone; control: random weights"),
    Claim("bytes.drift.*", "", "1 - cosine of the oracle embeddings of unrelated prompts, same seeds"),
)


@dataclass(frozen=True)
class ByteFrontConfig(Config):
    """How much is measured."""

    subjects: tuple[str, ...] = THREE  # held-out concepts
    sizes: tuple[int, ...] = (4096, 8192)  # bytes of a file
    samples: Annotated[int, Ge(1)] = 16  # pictures of the token prompt of each subject and way
    others: Annotated[int, Ge(1)] = 8  # pictures of unrelated prompts
    steps: Annotated[int | None, Ge(1)] = None  # of a search, for a trial of the benchmark
    model: str = "emoji-diffusion"  # a bundled name or a folder


@dataclass(frozen=True)
class Case:
    """One subject in a file of one size, filled one way."""

    name: str
    way: str
    size: int
    samples: int
    others: int
    steps: int | None

    @property
    def search(self) -> ConceptNeuronsConfig:
        """How its weights are found."""
        way = WAYS[self.way] | ({"tune": 2} if self.steps and "tune" in WAYS[self.way] else {})
        return ConceptNeuronsConfig(binary=True, bytes=self.size, steps=self.steps, evaluation=0, **way)


def cases(config: ByteFrontConfig) -> list[Case]:
    """Every subject, size and way."""
    every = itertools.product(config.subjects, config.sizes, WAYS)
    return [Case(name, way, size, config.samples, config.others, config.steps) for name, size, way in every]


def measure(bench: Bench[Any, JudgedModel], case: Case) -> dict[str, Any]:
    """Locate, draw and judge: one number a picture, and the bytes of the file."""
    judge = bench.subject
    edit = judge.located(case.name, case.search)
    words, others = token_prompts(case.name, case.samples), unrelated_prompts(case.name, case.others)
    seeds, other_seeds = list(range(SEED, SEED + len(words))), list(range(SEED, SEED + len(others)))
    edits = {"similarity": edit, "base": judge.token_only(case.name, case.search)}
    if "tune" not in WAYS[case.way]:
        weights = attention_weights(judge.model)
        drawn = random_positions(shut(edit), weights, 1, whole_rows=case.way == "rows")
        edits["random"] = with_shut(edit, drawn, judge.model.edits.fingerprint(*weights))
    judged = {key: judge.judged(each, words, seeds) for key, each in edits.items()}
    plain, moved = judge.judged(None, others, other_seeds), judge.judged(edit, others, other_seeds)
    return {
        **{key: judge.similarity(case.name, each).tolist() for key, each in judged.items()},
        "drift": (1 - (plain.embedding * moved.embedding).sum(1)).tolist(),
        "bytes": len(to_bytes(edit)),
        "share": edit.provenance["share_shut"],
    }


def rows(bench: Bench[ByteFrontConfig, JudgedModel]) -> Iterator[Row]:
    """All claims."""
    config = bench.config
    every = cases(config)
    yield row("bytes.fit", float(np.mean([bench.found(each)["bytes"] <= each.size for each in every])), n=len(every))
    samples = [name for name in config.subjects for _ in range(config.samples)]
    others = [name for name in config.subjects for _ in range(config.others)]

    def column(size: int, way: str, what: str) -> np.ndarray:
        own = [each for each in every if (each.size, each.way) == (size, way)]
        return np.concatenate([np.atleast_1d(bench.found(each)[what]) for each in own])

    for size in config.sizes:
        means = {way: column(size, way, "similarity").mean() for way in ("entries", "rows")}
        best = max(means, key=means.__getitem__)
        gap = paired_bootstrap(column(size, best, "similarity"), column(size, best, "random"), groups=samples)
        if size == config.sizes[-1]:
            yield row("bytes.best_over_random", gap, n=len(samples), note=f"{best} of {size} bytes")
        both = (column(size, way, "similarity") for way in ("rows", "entries"))
        yield row(f"bytes.rows_over_entries.{size}", paired_bootstrap(*both, groups=samples), n=len(samples))
        for way in WAYS:
            found = bootstrap(column(size, way, "similarity"), groups=samples)
            control = None if "tune" in WAYS[way] else column(size, way, "random").mean()
            base = column(size, way, "base").mean()
            note = (
                f"{column(size, way, 'share').mean():.2%} of the weights; {column(size, way, 'bytes').mean():.0f} bytes"
            )
            claim = f"bytes.similarity.{way}_{size}"
            yield row(claim, found, baseline=base, control=control, n=len(samples), note=note)
            moved = bootstrap(column(size, way, "drift"), groups=others)
            yield row(f"bytes.drift.{way}_{size}", moved, n=len(others))


BENCHMARKS = (
    Benchmark(
        "byte-front", __doc__, ByteFrontConfig(), ByteFrontConfig(("panda", "violin"), (4096,), 2, 2, 4), CLAIMS, rows, cases,
        measure, open=lambda config, cache: JudgedModel(config.model, cache), seeds=(0, SEED), folder="customisation",
    ),
)  # fmt: skip
