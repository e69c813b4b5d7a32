"""What does a located edit give for what it costs? Eight held-out subjects, each customised in six ways.

    python -m benchmarks customisation                    # writes benchmarks/results/customisation.json

The ways: the base model with the new token's row; the concept neurons alone (no value learnt); their values tuned from
the shut state, kept at 16 and at 2 bits; a random set of the same per-layer sizes tuned as long; all key and value
weights tuned as long. All six share one token row, which none of them trains: Custom Diffusion trains the key and value
weights *and* the row, so what stands for it here is its weights alone, on equal terms with the rest. Free samples with
paired seeds, judged by the oracle.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.subjects import EIGHT, JudgedModel, token_prompts, unrelated_prompts
from photopic.core.config import Config
from photopic.core.edits import Edit
from photopic.core.edits.file import to_bytes
from photopic.locate.concept_neurons import ConceptNeuronsConfig
from photopic.metrics.intervals import bootstrap, paired_bootstrap, ratio_bootstrap
from photopic.tune.subject.located_weights import LocatedWeightsConfig

SEED = 6_000_000  # of the samples
WAYS: dict[str, dict[str, Any]] = {
    "base": {},
    "index_only": {},
    "tuned_16": {"bits": 16},
    "tuned_2": {"bits": 2},
    "random_16": {"bits": 16, "where": "random"},
    "all_kv": {"bits": 16, "where": "all"},
}
VERSUS_ALL = (
    "tuned located weights against all key and value weights tuned; the token's row is the same and stays fixed"
)
CLAIMS = (
    Claim(
        "neurons.similarity_vs_random",
        "low > 0",
        "subject similarity, minus that of a tuned random set of the same sizes",
    ),
    Claim("neurons.similarity_vs_all_kv", ">= 0.95", f"ratio of subject similarity, {VERSUS_ALL}"),
    Claim("neurons.gain_vs_all_kv", "", f"ratio of the gains over the base, {VERSUS_ALL}"),
    Claim("neurons.drift_vs_all_kv", "high < 0", f"drift on unrelated prompts, {VERSUS_ALL}"),
    Claim("neurons.two_bits_vs_sixteen", "", "subject similarity"),
    Claim("neurons.index_only_vs_tuned", "", "subject similarity"),
    Claim("customisation.similarity.*"),
    Claim("customisation.alignment.*"),
    Claim("customisation.unrelated.*", "", "text alignment of unrelated prompts"),
    Claim("customisation.drift.*"),
    Claim("customisation.bytes.*", unit="bytes"),
)


@dataclass(frozen=True)
class CustomisationConfig(Config):
    """How much is measured."""

    subjects: tuple[str, ...] = EIGHT  # held-out concepts
    samples: Annotated[int, Ge(1)] = 20  # pictures of the token prompt of each subject and way
    others: Annotated[int, Ge(1)] = 12  # pictures of unrelated prompts of each subject and way
    search: ConceptNeuronsConfig = field(default_factory=ConceptNeuronsConfig)
    tuning: LocatedWeightsConfig = field(default_factory=lambda: LocatedWeightsConfig(steps=80, evaluation=0))
    model: str = "emoji-diffusion"  # a bundled name or a folder


QUICK = CustomisationConfig(
    ("panda", "violin"),
    4,
    2,
    ConceptNeuronsConfig(steps=30, lr=0.1, batch=4, preservation_count=40, evaluation=20, controls=1),
    LocatedWeightsConfig(steps=10, batch=4, preservation_count=40, evaluation=0),
)


@dataclass(frozen=True)
class Case:
    """One subject customised one way."""

    name: str
    way: str
    samples: int
    others: int
    search: ConceptNeuronsConfig
    tuning: LocatedWeightsConfig

    def edit(self, judge: JudgedModel) -> Edit:
        """What customises it."""
        if self.way == "base":
            return judge.token_only(self.name, self.search)
        if self.way == "index_only":
            return judge.located(self.name, self.search)
        return judge.tuned(self.name, self.search, replace(self.tuning, **WAYS[self.way]))


def cases(config: CustomisationConfig, ways: tuple[str, ...] = tuple(WAYS)) -> list[Case]:
    """Every subject in some ways."""
    rest = (config.samples, config.others, config.search, config.tuning)
    return [Case(name, way, *rest) for name in config.subjects for way in ways]


def measure(bench: Bench[Any, JudgedModel], case: Case) -> dict[str, Any]:
    """Draw and judge: ``bytes``, and one number a picture of everything else.

    Returns:
        ``similarity`` and ``alignment`` (of the background) of the token prompts; of unrelated prompts ``drift``, 1 - cosine to
        the base model's picture of the same seed, and ``unrelated``, their text alignment.
    """
    judge, edit = bench.subject, case.edit(bench.subject)
    words, others = token_prompts(case.name, case.samples), unrelated_prompts(case.name, case.others)
    sample = judge.judged(edit, words, list(range(SEED, SEED + len(words))))
    seeds = list(range(SEED, SEED + len(others)))
    plain = judge.judged(None, others, seeds)
    drawn = plain if case.way == "base" else judge.judged(edit, others, seeds)
    return {
        "similarity": judge.similarity(case.name, sample).tolist(),
        "alignment": sample.alignment.tolist(),
        "drift": (1 - (plain.embedding * drawn.embedding).sum(1)).tolist(),
        "unrelated": drawn.alignment.tolist(),
        "bytes": len(to_bytes(edit)),
    }


def rows(bench: Bench[CustomisationConfig, JudgedModel]) -> Iterator[Row]:
    """All claims, from what the workers kept."""
    config = bench.config
    found = {way: [bench.found(case) for case in cases(config, (way,))] for way in WAYS}
    of_samples = [name for name in config.subjects for _ in range(config.samples)]
    of_others = [name for name in config.subjects for _ in range(config.others)]
    groups = {"similarity": of_samples, "alignment": of_samples, "drift": of_others, "unrelated": of_others}

    def column(way: str, what: str) -> np.ndarray:
        return np.concatenate([each[what] for each in found[way]])

    ours, theirs, base = (column(way, "similarity") for way in ("tuned_16", "all_kv", "base"))
    for claim, ratio in (("similarity", (ours, theirs)), ("gain", (ours - base, theirs - base))):
        yield row(f"neurons.{claim}_vs_all_kv", ratio_bootstrap(*ratio, groups=of_samples), n=len(of_samples))
    for claim, way, other, what in (
        ("similarity_vs_random", "tuned_16", "random_16", "similarity"),
        ("drift_vs_all_kv", "tuned_16", "all_kv", "drift"),
        ("two_bits_vs_sixteen", "tuned_2", "tuned_16", "similarity"),
        ("index_only_vs_tuned", "index_only", "tuned_16", "similarity"),
    ):
        gap = paired_bootstrap(column(way, what), column(other, what), groups=groups[what])
        yield row(f"neurons.{claim}", gap, n=len(groups[what]))
    for way in WAYS:
        for what, names in groups.items():
            if (way, what) != ("base", "drift"):
                mean = bootstrap(column(way, what), groups=names)
                yield row(f"customisation.{what}.{way}", mean, n=len(names))
        if way != "base":
            size = round(float(np.mean([each["bytes"] for each in found[way]])))
            yield row(f"customisation.bytes.{way}", size, n=len(config.subjects))


BENCHMARKS = (
    Benchmark(
        "customisation", __doc__, CustomisationConfig(), QUICK, CLAIMS, rows, cases, measure,
        open=lambda config, cache: JudgedModel(config.model, cache), seeds=(0, SEED), folder="customisation",
    ),
)  # fmt: skip
