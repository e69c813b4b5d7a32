"""Does the transfer score rank classifiers as their accuracy on pictures that nobody labelled does?

    python -m benchmarks transfer-score        # writes benchmarks/results/transfer-score.json

The eight bundled classifiers (two architectures, two sizes, two seeds) on each of the seven styles of the emoji world: pairs of
concept and style they never saw. In each style they are ranked by the score, by its parts, and by what a user would look at
instead: mean entropy and mean confidence of the predictions. Spearman's correlation with the true accuracy, meaned over styles; the
control ranks by the score on another style, which shares the part that is a property of the weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge
from scipy.stats import spearmanr

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from photopic.core.config import Config
from photopic.data import renderings
from photopic.data.emoji_world import HELD_OUT_STYLE, STYLES
from photopic.measure.transfer_score import transfer_score
from photopic.metrics.intervals import bootstrap, paired_bootstrap
from photopic.models.classifier import Classifier

MODELS = tuple(f"emoji-{kind}-{size}-{seed}" for kind in ("resnet", "vit") for size in (64, 256) for seed in (0, 1))
CLAIMS = (
    Claim("transfer_score.spearman", "low > 0", "with accuracy, over the bundled classifiers; mean over styles"),
    Claim(
        "transfer_score.spearman_gain", "low > 0", "the same minus that of the mean entropy of predictions, lowest best"
    ),
    Claim("transfer_score.spearman_*", "", "the same of another ranking, or of a part of the score"),
    Claim("transfer_score.accuracy_lost", "", "accuracy of the best classifier minus that of the one the score keeps"),
)
PARTS = ("transfer_score", "hopkins", "information", "nonuniformity", "entropy", "confidence")


@dataclass(frozen=True)
class ScoreConfig(Config):
    """How much is measured."""

    pictures: Annotated[int, Ge(20)] = 400  # of a style, at most
    models: tuple[str, ...] = MODELS  # classifiers


@dataclass(frozen=True)
class Case:
    """One classifier on the pictures of every style."""

    model: str
    pictures: int


def unseen(style: str, count: int) -> list[tuple[str, str]]:
    """Pairs of a style that no classifier was trained on."""
    pairs = [(name, style) for name in renderings.classes()] if style == HELD_OUT_STYLE else renderings.held_out_pairs()
    found = [pair for pair in pairs if pair[1] == style]
    return [found[index] for index in np.random.default_rng(0).permutation(len(found))[:count]]


def measure(bench: Bench[ScoreConfig, Any], case: Case) -> dict[str, dict[str, float]]:
    """By style: accuracy, the score and its parts, and what else could rank."""
    model, found = Classifier.load(case.model), {}
    for style in STYLES:
        pairs = unseen(style, case.pictures)
        pictures = renderings.pictures(pairs)
        chances = model.logits(pictures).softmax(1).double()
        right = chances.argmax(1).numpy() == [model.labels.index(name) for name, _ in pairs]
        found[style] = {key: float(value) for key, value in transfer_score(model, pictures).values.items()} | {
            "accuracy": float(right.mean()),
            "entropy": float(-(chances * chances.clamp_min(1e-30).log()).sum(1).mean()),
            "confidence": float(chances.amax(1).mean()),
        }
    return found


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's correlation; 0 where one of the rankings is of equals."""
    return float(spearmanr(one, other)[0]) if np.ptp(one) and np.ptp(other) else 0.0


def cases(config: ScoreConfig) -> list[Case]:
    """Every classifier."""
    return [Case(model, config.pictures) for model in config.models]


def rows(bench: Bench[ScoreConfig, Any]) -> Iterator[Row]:
    """All claims; styles are resampled."""
    found = [bench.found(case) for case in cases(bench.config)]

    def column(style: str, what: str) -> np.ndarray:
        sign = -1 if what in ("entropy", "nonuniformity") else 1  # lower is better
        return sign * np.array([each[style][what] for each in found])

    ranks = {
        what: np.array([agreement(column(style, what), column(style, "accuracy")) for style in STYLES])
        for what in PARTS
    }
    shifted = [
        agreement(column(STYLES[index - 1], "transfer_score"), column(style, "accuracy"))
        for index, style in enumerate(STYLES)
    ]
    n, note = len(found) * len(STYLES), f"{len(found)} classifiers, {len(STYLES)} styles; interval over styles"
    control = float(np.mean(shifted))
    yield row("transfer_score.spearman", bootstrap(ranks["transfer_score"]), control=control, n=n, note=note)
    gain = paired_bootstrap(ranks["transfer_score"], ranks["entropy"])
    yield row("transfer_score.spearman_gain", gain, baseline=ranks["entropy"].mean(), n=n, note=note)
    for what in PARTS[1:]:
        yield row(f"transfer_score.spearman_{what}", bootstrap(ranks[what]), n=n)
    lost = [
        column(style, "accuracy").max() - column(style, "accuracy")[column(style, "transfer_score").argmax()]
        for style in STYLES
    ]
    yield row("transfer_score.accuracy_lost", bootstrap(lost), n=n)


BENCHMARKS = (
    Benchmark(
        "transfer-score", __doc__, ScoreConfig(), ScoreConfig(40, MODELS[:3]), CLAIMS, rows, cases, measure, seeds=(0,)
    ),
)
