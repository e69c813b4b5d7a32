"""Which classes of the bundled classifiers are sums of a few others, inside one network and between two.

    python -m benchmarks dependencies            # writes results/dependencies.json and docs/images/dependencies_graph.png

Pictures: every (concept, style) pair that the classifiers learnt from or were tested on, on plain backgrounds. The fit, the choice
of lambda and the judgement use different pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.ledger import ROOT
from photopic.core.config import Config
from photopic.core.results import Report
from photopic.data import emoji_world
from photopic.data.renderings import classes, held_out_pairs, pictures, training_pairs
from photopic.measure.neural_dependencies import DependencyConfig, dependency_graph, logit_dependencies, save_graph
from photopic.metrics.intervals import bootstrap, paired_bootstrap
from photopic.models.classifier import Classifier

SEED = 6_400_002
NETWORKS = ("emoji-resnet-64-0", "emoji-vit-64-0")  # the second one predicts the first
CHUNK = 256  # pictures drawn at a time
ERROR = 0.05
SUPPORT = (
    f"of the dependent classes, with held-out error at most {ERROR} (lambda chosen at that error on other pictures)"
)
PURITY = "same Unicode subgroup: share of a support, less the share of all other classes; dependent classes"
CROSS = f"median held-out error of classes of {NETWORKS[0]} from those of {NETWORKS[1]}; control: its pictures shuffled"
RECALL = "recall on the class's own pictures with its logit replaced by the sum, less that before"
CLAIMS = (
    Claim("dependencies.median_support*", "<= 126", SUPPORT, "classes"),
    Claim("dependencies.purity_gain*", "low > 0", PURITY),
    Claim("dependencies.recall_change*", "", RECALL),
    Claim("dependencies.cross_error", "< 0.5", CROSS),
)


@dataclass(frozen=True)
class DependenciesConfig(Config):
    """How much is measured."""

    share: Annotated[int, Ge(1)] = 1  # one in so many of the pictures
    lambdas: Annotated[int, Ge(2)] = 20  # of the path


@dataclass(frozen=True)
class Logits:
    """What is kept: a network's logits of the sampled pictures."""

    network: str
    share: int


def sample(share: int) -> list[tuple[str, str]]:
    """The pairs, in a random order of their own; one in ``share``."""
    pairs = [*training_pairs(), *held_out_pairs()]
    order = np.random.default_rng(SEED).permutation(len(pairs))
    return [pairs[at] for at in order[: len(pairs) // share]]


def logits_of(bench: Bench[Any, Any], case: Logits) -> np.ndarray:
    """Logits of every picture, drawn in chunks on one of many backgrounds, columns in the order of ``classes``."""

    def make() -> np.ndarray:
        pairs, rng, found = sample(case.share), np.random.default_rng([SEED, 1]), []
        model = Classifier.load(case.network)
        for start in range(0, len(pairs), CHUNK):
            red, green, blue = (int(each) for each in rng.integers(96, 256, 3))
            drawn = pictures(pairs[start : start + CHUNK], background=(red, green, blue))
            found.append(model.logits(drawn).numpy())
        return np.concatenate(found)[:, [model.labels.index(label) for label in classes()]]

    return bench.array({"logits": case}, make).astype(np.float64)


def measure(bench: Bench[Any, Any], case: Logits) -> int:
    """Keep the logits of a network."""
    return len(logits_of(bench, case))


def purity(report: Report) -> tuple[list[float], list[float]]:
    """Of each dependent class: the share of its support in its own Unicode subgroup, and that of all other classes."""
    subgroup = {item.name: item.subgroup for item in emoji_world.concepts()}
    names = [each["class"] for each in report.rows]
    sizes: dict[str, int] = {}
    for name in names:
        sizes[subgroup[name]] = sizes.get(subgroup[name], 0) + 1
    found, chance = [], []
    for each in report.rows:
        own = subgroup[each["class"]]
        if each["dependent"] and each["support"]:
            found.append(float(np.mean([subgroup[name] == own for name in each["support"]])))
            chance.append((sizes[own] - 1) / (len(names) - 1))
    return found, chance


def within_rows(name: str, report: Report, head_width: int, suffix: str) -> Iterator[Row]:
    """Support, purity and replacement inside one network."""
    values, samples = report.values, report.values["samples"]
    note = (
        f"{name}: {values['classes']} classes, covariance of rank {values['rank']} for {head_width} inputs of the head, "
        f"{samples['fit']}/{samples['choose']}/{samples['held_out']} pictures to fit, choose by and judge on; median error of all "
        f"{np.median([each['held_out_error'] for each in report.rows]):.3f}, of the best single class "
        f"{values['median_best_single_error']:.3f}, of the mean 1"
    )
    claim = "dependencies.median_support"
    yield row(f"{claim}{suffix}", values["median_support"], n=values["dependent"] or None, note=note)
    found, chance = purity(report)
    if len(found) > 1:
        gain, baseline = paired_bootstrap(found, chance), float(np.mean(chance))
        yield row(f"dependencies.purity_gain{suffix}", gain, baseline=baseline, n=len(found), note=name)
    chosen = [each for each in report.rows if each["dependent"] and each["recall"] is not None]
    if len(chosen) > 1:
        lost = bootstrap([each["recall_replaced"] - each["recall"] for each in chosen])
        drop = np.mean([each["accuracy_replaced"] for each in chosen]) - values["accuracy"]
        note = (
            f"{name}: recall before {np.mean([each['recall'] for each in chosen]):.3f}; accuracy on all pictures changes by "
            f"{drop:+.5f} from {values['accuracy']:.3f}"
        )
        yield row(f"dependencies.recall_change{suffix}", lost, n=len(chosen), note=note)


def rows(bench: Bench[DependenciesConfig, Any]) -> Iterator[Row]:
    """Inside each network, then between both."""
    pairs = sample(bench.config.share)
    logits = [logits_of(bench, case) for case in cases(bench.config)]
    config = dependency_config(bench.config)
    for name, each in zip(NETWORKS, logits, strict=True):
        report = within(each, pairs, config)
        suffix = "" if name == NETWORKS[0] else "." + name.replace("-", "_")
        yield from within_rows(name, report, Classifier.load(name).head.in_features, suffix)
    shuffled = logits[1][np.random.default_rng(SEED).permutation(len(pairs))]
    tied, permuted = (
        logit_dependencies(logits[0], names=classes(), other=each, config=config) for each in (logits[1], shuffled)
    )
    errors, control = (np.median([each["held_out_error"] for each in report.rows]) for report in (tied, permuted))
    note = (
        f"{tied.values['dependent']} at most {ERROR}, with shuffled pictures {permuted.values['dependent']}; best single class "
        f"{tied.values['median_best_single_error']:.3f}"
    )
    yield row("dependencies.cross_error", float(errors), control=float(control), n=len(tied.rows), note=note)


def within(logits: np.ndarray, pairs: Sequence[tuple[str, str]], config: DependencyConfig) -> Report:
    """The dependencies inside one network."""
    index = {name: at for at, name in enumerate(classes())}
    return logit_dependencies(logits, names=classes(), labels=[index[name] for name, _ in pairs], config=config)


def dependency_config(config: DependenciesConfig) -> DependencyConfig:
    """How the dependencies are found."""
    return DependencyConfig(error=ERROR, lambdas=config.lambdas, shares=(0.1, 0.2), seed=SEED)


def cases(config: DependenciesConfig) -> list[Logits]:
    """Both networks."""
    return [Logits(name, config.share) for name in NETWORKS]


def draw_graph(bench: Bench[DependenciesConfig, Any], _: Sequence[Row]) -> None:
    """docs/images/dependencies_graph.png, of the first network."""
    logits = logits_of(bench, cases(bench.config)[0])
    report = within(logits, sample(bench.config.share), dependency_config(bench.config))
    save_graph(dependency_graph(report), ROOT / "docs" / "images" / "dependencies_graph.png")


BENCHMARKS = (
    Benchmark(
        "dependencies", __doc__, DependenciesConfig(), DependenciesConfig(10, 5), CLAIMS, rows, cases, measure,
        seeds=(SEED,), finish=draw_graph,
    ),
)  # fmt: skip
