"""Open-set and unified open-set recognition: every scorer of ``photopic.guard.open_set`` on digits and on the emoji world.

    python -m benchmarks open-set-digits     # writes benchmarks/results/open-set-digits.json
    python -m benchmarks open-set            # writes benchmarks/results/open-set.json and docs/images/open-set-*.svg

digits: 6 known classes of scikit-learn's digits with 8 pictures each, a perceptron with one hidden layer, the other 4 classes
unknown; another draw of classes, pictures and weights for each seed, and intervals over seeds.

emoji: the bundled classifiers; known are the held-out renderings of their classes, unknown the concepts held out of every bundled
model, each in two styles, with the shots in five other styles; intervals over concepts, resampled alike for every scorer and
classifier, and averaged over classifiers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from benchmarks.guard.open_set_problems import (
    AREAS,
    NAMES,
    SHOTS,
    cases,
    digits_problem,
    emoji_problem,
    means,
    scored,
)
from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.cache import ResultCache
from benchmarks.harness.ledger import ROOT
from photopic.core.config import Config
from photopic.guard.open_set import FEW_SHOT
from photopic.metrics.intervals import Interval, bootstrap, paired_bootstrap
from photopic.metrics.rejection import aurc
from photopic.metrics.rejection_plots import rejection_plots
from photopic.metrics.rejection_report import resampled_metrics
from photopic.models.classifier import bundled_classifiers

SEEDS = tuple(range(7_700_001, 7_700_021))

PUBLISHED_SHARE = 2672 / 12672  # of mistakes among what should be rejected, in the tables of the paper
RIVALS = ("fs-knn", "ssd", "sirc", "msp")
DRAWN = ("fs-knns-5shot", "fs-knn-5shot", "knn", "msp")  # scorers of the pictures in the docs
ABOVE = "UOSR of FS-KNNS minus this"
SHARES = f"the same, if mistakes were the paper's {PUBLISHED_SHARE:.0%} of what should be rejected"
CLAIMS = (
    Claim("openset.uosr.*"),
    Claim("openset.osr.*"),
    Claim("openset.uosr_above_osr.*", ">= 0"),
    Claim("openset.fs-knns_above.*", "high >= 0", ABOVE),
    Claim("openset.fs-knns_above_published_share.*", "", SHARES),
    Claim("openset.share_of_mistakes", "", "of what should be rejected"),
    Claim("openset.aurc_float32_off", "", "published AURC minus the exact one, FS-KNNS, largest"),
)
DIGITS_CLAIMS = (
    Claim("openset.digits.uosr.*"),
    Claim("openset.digits.osr.*"),
    Claim("openset.digits.uosr_above_osr.*", ">= 0"),
    Claim("openset.digits.inw_ood.msp", "", "0.485 specified"),
    Claim("openset.digits.fs-knns_above.*", "high >= 0", ABOVE),
)


@dataclass(frozen=True)
class OpenSetConfig(Config):
    """How much is measured."""

    classifiers: tuple[str, ...] = ()  # bundled ones; all of them where none is named
    resamples: Annotated[int, Ge(10)] = 200  # of the bootstrap

    @property
    def names(self) -> tuple[str, ...]:
        """The classifiers."""
        return self.classifiers or tuple(bundled_classifiers())


@dataclass(frozen=True)
class DigitsConfig(Config):
    """How much is measured."""

    seeds: tuple[int, ...] = SEEDS  # of classes, pictures and weights
    resamples: Annotated[int, Ge(10)] = 1000  # of the bootstrap


def rivals() -> Iterator[tuple[str, str, str]]:
    """FS-KNNS against others: claim, its label, the other's."""
    for shots in SHOTS:
        for rival in RIVALS:
            yield f"{rival}.{shots}shot", f"fs-knns-{shots}shot", f"{rival}-{shots}shot" if rival in FEW_SHOT else rival


def note(found: Mapping[str, float]) -> str:
    """The areas between groups, of which OSR and UOSR are mixtures."""
    return (
        f"InC/OoD {found['inc_ood']:.3f}, InC/InW {found['inc_inw']:.3f}, InW/OoD {found['inw_ood']:.3f}, "
        f"1000 AURC {1000 * found['aurc']:.1f}, accuracy {found['accuracy']:.3f}"
    )


def averaged(several: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means of every number."""
    return {name: float(np.mean([each[name] for each in several])) for name in NAMES}


def digits(bench: Bench[DigitsConfig, Any]) -> Iterator[Row]:
    """Means over seeds; an interval resamples seeds."""
    n, resamples = len(bench.config.seeds), bench.config.resamples
    found: dict[str, list[dict[str, float]]] = {label: [] for label, *_ in cases()}
    for seed in bench.config.seeds:
        problem = digits_problem(seed)
        for label, name, shots, settings in cases():
            found[label].append(means(scored(problem, name, shots, **settings)))
    columns = {label: {name: [one[name] for one in each] for name in NAMES} for label, each in found.items()}
    for label, each in columns.items():
        for metric in ("uosr", "osr"):
            interval = bootstrap(each[metric], resamples=resamples)
            yield row(f"openset.digits.{metric}.{label}", interval, n=n, note=note(averaged(found[label])))
        gap = paired_bootstrap(each["uosr"], each["osr"], resamples=resamples)
        yield row(f"openset.digits.uosr_above_osr.{label}", gap, n=n)
    yield row("openset.digits.inw_ood.msp", bootstrap(columns["msp"]["inw_ood"], resamples=resamples), n=n)
    for claim, ours, other in rivals():
        gap = paired_bootstrap(columns[ours]["uosr"], columns[other]["uosr"], resamples=resamples)
        about = "k = 3 of 4 references" if claim.endswith("1shot") else ""
        yield row(f"openset.digits.fs-knns_above.{claim}", gap, n=n, note=about)


class Measured:
    """Every scorer on every classifier.

    Attributes:
        values: Of each scorer and classifier the metrics, averaged over draws of shots.
        middle: The same averaged over classifiers.
        draws: Of each scorer and area the resampled values, averaged over classifiers.
        exact: Published AURC minus the exact one, of FS-KNNS.
        last: The last classifier's problem.
    """

    def __init__(self, bench: Bench[OpenSetConfig, ResultCache]):
        self.values: dict[str, list[dict[str, float]]] = {label: [] for label, *_ in cases()}
        draws: dict[str, list[np.ndarray]] = {label: [] for label in self.values}
        self.exact: list[float] = []
        for name in bench.config.names:
            self.last = emoji_problem(name, bench.subject)
            for label, kind, shots, settings in cases():
                several = scored(self.last, kind, shots, **settings)
                self.values[label].append(means(several))
                drawn = resampled_metrics(several, AREAS, units=self.last.units, resamples=bench.config.resamples)
                draws[label].append(drawn.mean(1))  # (resamples, areas)
                if kind == "fs-knns":
                    single = replace(several[0], precision="float32")
                    self.exact.append(aurc(single, compat="published") - aurc(several[0]))
            print(name, {label: round(each[-1]["uosr"], 3) for label, each in self.values.items()}, flush=True)
        self.middle = {label: averaged(each) for label, each in self.values.items()}
        self.draws = {label: dict(zip(AREAS, np.mean(each, 0).T, strict=True)) for label, each in draws.items()}

    def gap(self, ours: str, other: str, area: str) -> np.ndarray:
        """Difference of two scorers: its value, then its resampled values."""
        drawn = self.draws[ours][area] - self.draws[other][area]
        return np.array([self.middle[ours][area] - self.middle[other][area], *drawn])


def interval_of(value_and_draws: np.ndarray) -> Interval:
    """The percentile interval of resampled values."""
    value, *drawn = value_and_draws.tolist()
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(value, min(float(low), value), max(float(high), value))


def emoji(bench: Bench[OpenSetConfig, ResultCache]) -> Iterator[Row]:
    """Means over classifiers and draws of shots; an interval resamples concepts."""
    found = Measured(bench)
    n, names = len(found.last.test), bench.config.names
    for label, middle in found.middle.items():
        drawn = {metric: np.array([middle[metric], *found.draws[label][metric]]) for metric in ("uosr", "osr")}
        for metric, each in drawn.items():
            yield row(f"openset.{metric}.{label}", interval_of(each), n=n, note=note(middle))
        gaps = zip(names, found.values[label], strict=True)
        said = ", ".join(f"{name[6:]} {each['uosr'] - each['osr']:+.3f}" for name, each in gaps)
        yield row(f"openset.uosr_above_osr.{label}", interval_of(drawn["uosr"] - drawn["osr"]), n=n, note=said)
    for claim, ours, other in rivals():
        yield row(f"openset.fs-knns_above.{claim}", interval_of(found.gap(ours, other, "uosr")), n=n)
        wrong, unknown = (found.gap(ours, other, area) for area in ("inc_inw", "inc_ood"))
        reweighted = PUBLISHED_SHARE * wrong + (1 - PUBLISHED_SHARE) * unknown
        yield row(f"openset.fs-knns_above_published_share.{claim}", interval_of(reweighted), n=n)
    last = found.last
    wrong_count, unknown_count = int((last.known & ~last.correct).sum()), int((~last.known).sum())
    yield row("openset.share_of_mistakes", wrong_count / (wrong_count + unknown_count), n=n, note=names[-1])
    yield row("openset.aurc_float32_off", max(found.exact, key=abs), n=len(found.exact))


def draw_pictures(bench: Bench[OpenSetConfig, ResultCache], _: Sequence[Row]) -> None:
    """docs/images/open-set-*.svg, of the first classifier."""
    problem = emoji_problem(bench.config.names[0], bench.subject)
    chosen = {label: scored(problem, kind, shots, **more)[0] for label, kind, shots, more in cases() if label in DRAWN}
    for kind, picture in rejection_plots(chosen).items():
        (ROOT / f"docs/images/open-set-{kind.replace('_', '-')}.svg").write_text(picture)


QUICK = OpenSetConfig(("emoji-resnet-64-0",), 20)
BENCHMARKS = (
    Benchmark(
        "open-set",
        __doc__,
        OpenSetConfig(),
        QUICK,
        CLAIMS,
        emoji,
        open=lambda config, cache: cache,
        finish=draw_pictures,
    ),
    Benchmark(
        "open-set-digits", __doc__, DigitsConfig(), DigitsConfig(SEEDS[:3], 50), DIGITS_CLAIMS, digits, seeds=SEEDS
    ),
)
