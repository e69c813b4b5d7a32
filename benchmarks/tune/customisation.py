"""What does a located edit give for what it costs? Eight held-out subjects, each customised in six ways.

    python -m benchmarks.tune.customisation                    # writes benchmarks/results/customisation.json
    python -m benchmarks.tune.customisation --quick            # two subjects, few samples; prints only

The ways: the base model with the new token's row; the concept neurons alone (no value learnt); their values tuned from
the shut state, kept at 16 and at 2 bits; a random set of the same per-layer sizes tuned as long; all key and value
weights tuned as long. All six share one token row, which none of them trains: Custom Diffusion trains the key and value
weights *and* the row, so what stands for it here is its weights alone, on equal terms with the rest. Free samples with
paired seeds, judged by the oracle. Interrupted, it goes on from ``runs/customisation``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from benchmarks.harness.cache import code_of
from benchmarks.harness.ledger import Row
from benchmarks.harness.runner import Benchmark, mine, run
from benchmarks.harness.subjects import EIGHT, TUNING, Bench, token_prompts, unrelated_prompts
from photopic.core.edits import Edit
from photopic.core.edits.file import to_bytes
from photopic.locate.concept_neurons import ConceptNeuronsConfig
from photopic.metrics.intervals import bootstrap, paired_bootstrap, ratio_bootstrap
from photopic.tune.subject.located_weights import LocatedWeightsConfig

SEED = 6_000_000  # of the samples
WAYS: dict[str, dict[str, Any]] = {
    "tuned_16": {"bits": 16},
    "tuned_2": {"bits": 2},
    "random_16": {"bits": 16, "where": "random"},
    "all_kv": {"bits": 16, "where": "all"},
}
ROW_FIXED = "the token's row is the same in all ways and stays fixed; Custom Diffusion would train it too"


@dataclass(frozen=True)
class Settings:
    """How much is measured."""

    subjects: tuple[str, ...] = EIGHT
    samples: int = 20  # pictures of the token prompt a subject and way
    others: int = 12  # pictures of unrelated prompts a subject and way
    search: ConceptNeuronsConfig = field(default_factory=ConceptNeuronsConfig)
    tuning: LocatedWeightsConfig = field(default_factory=lambda: LocatedWeightsConfig(steps=80, evaluation=0))


QUICK = Settings(
    ("panda", "violin"), 4, 2,
    ConceptNeuronsConfig(steps=30, lr=0.1, batch=4, preservation_count=40, evaluation=20, controls=1),
    LocatedWeightsConfig(steps=10, batch=4, preservation_count=40, evaluation=0),
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """One subject customised one way; one number a picture except ``size_bytes``."""

    similarity: np.ndarray  # oracle subject similarity of the token prompts
    alignment: np.ndarray  # text alignment (the background) of the token prompts
    drift: np.ndarray  # 1 - cosine to the base model's picture of the same unrelated prompt and seed
    unrelated: np.ndarray  # text alignment of the unrelated prompts
    size_bytes: int


def edit_of(bench: Bench, settings: Settings, name: str, way: str) -> Edit:
    """The edit of a subject and a way."""
    if way == "base":
        return bench.token_only(name, settings.search)
    if way == "index_only":
        return bench.located(name, settings.search)
    return bench.tuned(name, settings.search, replace(settings.tuning, **WAYS[way]))


def measure(bench: Bench, settings: Settings, name: str, way: str) -> Measured:
    """Draw and judge; what was drawn is kept."""
    edit = edit_of(bench, settings, name, way)
    words, others = token_prompts(name, settings.samples), unrelated_prompts(name, settings.others)
    sample = bench.judged(edit, words, list(range(SEED, SEED + len(words))))
    seeds = list(range(SEED, SEED + len(others)))
    plain = bench.judged(None, others, seeds)
    drawn = plain if way == "base" else bench.judged(edit, others, seeds)
    drift = 1 - (plain.embedding * drawn.embedding).sum(1)
    size = len(to_bytes(edit))
    return Measured(bench.similarity(name, sample), sample.alignment, drift, drawn.alignment, size)


def rows_of(bench: Bench, settings: Settings) -> list[Row]:
    """All claims, from what the workers kept."""
    ways = ("base", "index_only", *WAYS)
    found = {way: [measure(bench, settings, name, way) for name in settings.subjects] for way in ways}

    def column(way: str, field: str) -> np.ndarray:
        return np.concatenate([getattr(each, field) for each in found[way]])

    names = [name for name in settings.subjects for _ in range(settings.samples)]
    other_names = [name for name in settings.subjects for _ in range(settings.others)]
    base = column("base", "similarity")

    def against(way: str, other: str, field: str = "similarity") -> Sequence[float]:
        groups = names if field in ("similarity", "alignment") else other_names
        return paired_bootstrap(column(way, field), column(other, field), groups=groups)

    ratio = ratio_bootstrap(column("tuned_16", "similarity"), column("all_kv", "similarity"), groups=names)
    gain_ratio = ratio_bootstrap(
        column("tuned_16", "similarity") - base, column("all_kv", "similarity") - base, groups=names
    )
    rows = [
        _row("neurons.similarity_vs_random", against("tuned_16", "random_16"), "low > 0", len(names),
             "subject similarity, tuned located weights minus a tuned random set of the same per-layer sizes"),
        _row("neurons.similarity_vs_all_kv", ratio, ">= 0.95", len(names),
             f"subject similarity, tuned located weights over all key and value weights tuned; {ROW_FIXED}"),
        _row("neurons.gain_vs_all_kv", gain_ratio, None, len(names), f"the same ratio of the gains over the base; {ROW_FIXED}"),
        _row("neurons.drift_vs_all_kv", against("tuned_16", "all_kv", "drift"), "high < 0", len(other_names),
             f"drift on unrelated prompts, tuned located weights minus all key and value weights tuned; {ROW_FIXED}"),
        _row("neurons.two_bits_vs_sixteen", against("tuned_2", "tuned_16"), None, len(names), "subject similarity"),
        _row("neurons.index_only_vs_tuned", against("index_only", "tuned_16"), None, len(names), "subject similarity"),
    ]  # fmt: skip
    for way in ways:
        size = np.mean([each.size_bytes for each in found[way]])
        similar = bootstrap(column(way, "similarity"), groups=names)
        rows += [
            _row(f"customisation.similarity.{way}", similar, None, len(names), ROW_FIXED if way == "all_kv" else ""),
            _row(f"customisation.alignment.{way}", bootstrap(column(way, "alignment"), groups=names), None, len(names)),
            _row(f"customisation.unrelated.{way}", bootstrap(column(way, "unrelated"), groups=other_names), None,
                 len(other_names), "text alignment of unrelated prompts"),
        ]  # fmt: skip
        if way != "base":
            drift = bootstrap(column(way, "drift"), groups=other_names)
            rows.append(_row(f"customisation.drift.{way}", drift, None, len(other_names)))
            rows.append(Row(f"customisation.bytes.{way}", round(float(size)), unit="bytes", n=len(settings.subjects)))
    return rows


def _row(claim: str, interval: Sequence[float], target: str | None, n: int, note: str = "") -> Row:
    value, low, high = (round(float(number), 5) for number in interval)
    return Row(claim, value, low, high, target=target, n=n, note=note)


def work(bench: Bench, settings: Settings, part: str) -> None:
    """A worker's share of everything slow."""
    for name in mine(settings.subjects, part):
        for way in ("base", "index_only", *WAYS):
            measure(bench, settings, name, way)
            print(f"{name} {way}", flush=True)


if __name__ == "__main__":
    run(
        Benchmark(
            "customisation",
            __file__,
            __doc__ or "",
            Settings(),
            QUICK,
            work,
            rows_of,
            [0, SEED],
            lambda: code_of(TUNING),
        )
    )
