"""Which classes of the bundled classifiers are sums of a few others, inside one network and between two.

    python -m benchmarks.measure.dependencies            # writes results/dependencies.json and docs/images/dependencies_graph.png
    python -m benchmarks.measure.dependencies --quick    # a tenth of the pictures and five lambdas; prints only

Pictures: every (concept, style) pair that the classifiers learnt from or were tested on, on plain backgrounds. Logits are kept
under out/dependencies by the weights of the network. The fit, the choice of lambda and the judgement use different pictures.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Sequence

import numpy as np

from benchmarks.harness.ledger import ROOT, Row, write_result
from photopic.core.results import Report
from photopic.data import emoji_world
from photopic.data.renderings import classes, held_out_pairs, pictures, training_pairs
from photopic.measure.neural_dependencies import (
    DependencyConfig,
    dependency_graph,
    logit_dependencies,
    save_graph,
)
from photopic.metrics.intervals import bootstrap, paired_bootstrap
from photopic.models.classifier import Classifier

SEED = 6_400_002
NETWORKS = ("emoji-resnet-64-0", "emoji-vit-64-0")  # the second one predicts the first
CHUNK = 256  # pictures drawn at a time
ERROR = 0.05


def sample(quick: bool) -> list[tuple[str, str]]:
    """The pairs, in a random order of their own."""
    pairs = [*training_pairs(), *held_out_pairs()]
    order = np.random.default_rng(SEED).permutation(len(pairs))
    return [pairs[at] for at in order[: len(pairs) // (10 if quick else 1)]]


def logits_of(model: Classifier, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """Logits of every picture, drawn in chunks on one of many backgrounds; kept by the weights."""
    path = ROOT / "out" / "dependencies" / f"{model.name.split('/')[-1]}-{model.digest()[:12]}-{len(pairs)}.npy"
    if not path.exists():
        rng, rows = np.random.default_rng([SEED, 1]), []
        for start in range(0, len(pairs), CHUNK):
            red, green, blue = (int(each) for each in rng.integers(96, 256, 3))
            drawn = pictures(pairs[start : start + CHUNK], background=(red, green, blue))
            rows.append(model.logits(drawn).numpy())
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.concatenate(rows))
    return np.load(path).astype(np.float64)


def purity(report: Report) -> tuple[list[float], list[float]]:
    """Of each dependent class: the share of its support in its own Unicode subgroup, and that of all other classes."""
    subgroup = {item.name: item.subgroup for item in emoji_world.concepts()}
    names = [row["class"] for row in report.rows]
    sizes: dict[str, int] = {}
    for name in names:
        sizes[subgroup[name]] = sizes.get(subgroup[name], 0) + 1
    found, chance = [], []
    for row in report.rows:
        own = subgroup[row["class"]]
        if row["dependent"] and row["support"]:
            found.append(float(np.mean([subgroup[name] == own for name in row["support"]])))
            chance.append((sizes[own] - 1) / (len(names) - 1))
    return found, chance


def within_rows(name: str, report: Report, suffix: str = "") -> list[Row]:
    """Support, purity and replacement inside one network."""
    values, count = report.values, report.values["classes"]
    samples = values["samples"]
    about = (
        f"{name}: {count} classes, covariance of rank {values['rank']} for {values['head_width']} inputs of the head, "
        f"{samples['fit']}/{samples['choose']}/{samples['held_out']} pictures to fit, choose by and judge on"
    )
    held = [row["held_out_error"] for row in report.rows]
    rows = [
        Row(
            f"dependencies.median_support{suffix}", values["median_support"], unit="classes", target=f"<= {count // 10}",
            n=values["dependent"] or None,
            note=f"{about}; of the {values['dependent']} classes with held-out error at most {ERROR} (lambda chosen at that error "
            f"on other pictures); median error of all {np.median(held):.3f}, of the best single class "
            f"{values['median_best_single_error']:.3f}, of the mean 1",
        )
    ]  # fmt: skip
    found, chance = purity(report)
    if len(found) > 1:
        gain, low, high = paired_bootstrap(found, chance)
        note = "same Unicode subgroup: share of a support, less the share of all other classes; dependent classes"
        rows.append(
            Row(
                f"dependencies.purity_gain{suffix}", round(gain, 4), round(low, 4), round(high, 4), target="low > 0",
                baseline=round(float(np.mean(chance)), 4), n=len(found), note=f"{name}: {note}",
            )
        )  # fmt: skip
    chosen = [row for row in report.rows if row["dependent"] and row["recall"] is not None]
    if len(chosen) > 1:
        lost = [row["recall_replaced"] - row["recall"] for row in chosen]
        value, low, high = bootstrap(lost)
        drop = np.mean([row["accuracy_replaced"] for row in chosen]) - values["accuracy"]
        note = (
            f"{name}: recall on the class's own pictures with its logit replaced by the sum, less that before (mean "
            f"{np.mean([row['recall'] for row in chosen]):.3f}); accuracy on all pictures changes by {drop:+.5f} from "
            f"{values['accuracy']:.3f}"
        )
        rows.append(
            Row(
                f"dependencies.recall_change{suffix}", round(value, 4), round(low, 4), round(high, 4), n=len(chosen),
                note=note,
            )
        )  # fmt: skip
    return rows


def cross_row(names: Sequence[str], tied: Report, permuted: Report) -> Row:
    """One network's classes from another's, and the same with that one's pictures shuffled."""
    errors, control = ([row["held_out_error"] for row in each.rows] for each in (tied, permuted))
    note = (
        f"median held-out error of the classes of {names[0]} from those of {names[1]}; {tied.values['dependent']} at most "
        f"{ERROR}; control: pictures of the second shuffled ({permuted.values['dependent']} at most {ERROR}); "
        f"best single class {tied.values['median_best_single_error']:.3f}"
    )
    value, off = float(np.median(errors)), float(np.median(control))
    return Row(
        "dependencies.cross_error", round(value, 4), target="< 0.5", control=round(off, 4), n=len(errors), note=note
    )


def write(rows: Sequence[Row], began: float, quick: bool) -> None:
    """Write what there is so far: the whole takes long."""
    if not quick:
        elapsed = time.monotonic() - began
        write_result(
            "dependencies", rows, command="python -m benchmarks.measure.dependencies", seeds=[SEED], elapsed_s=elapsed
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the pictures and five lambdas; print only")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    began = time.monotonic()
    pairs = sample(options.quick)
    index = {name: at for at, name in enumerate(classes())}
    config = DependencyConfig(error=ERROR, lambdas=5 if options.quick else 20, shares=(0.1, 0.2), seed=SEED)
    models = [Classifier.load(name) for name in NETWORKS]
    rows, logits = [], []
    for name, model in zip(NETWORKS, models, strict=True):
        assert set(model.labels) == set(index), f"{name}: other classes than data.renderings.classes()"
        order = [model.labels.index(label) for label in index]
        logits.append(logits_of(model, pairs)[:, order])
        print(f"{name}: logits of {len(pairs)} pictures, {time.monotonic() - began:.0f} s", flush=True)
    labels = [index[concept] for concept, _ in pairs]
    for at, name in enumerate(NETWORKS):
        report = logit_dependencies(logits[at], names=tuple(index), labels=labels, config=config)
        widened = Report(report.name, {**report.values, "head_width": models[at].head.in_features}, report.rows)
        rows += within_rows(name, widened, "" if at == 0 else "." + name.replace("-", "_"))
        if at == 0 and not options.quick:
            save_graph(dependency_graph(report), ROOT / "docs" / "images" / "dependencies_graph.png")
        print(
            *(f"{row.claim} {row.value} [{row.low}, {row.high}] {row.note}" for row in rows[-3:]), sep="\n", flush=True
        )
    shuffled = logits[1][np.random.default_rng(SEED).permutation(len(pairs))]
    tied, permuted = (
        logit_dependencies(logits[0], names=tuple(index), other=each, config=config) for each in (logits[1], shuffled)
    )
    rows.append(cross_row(NETWORKS, tied, permuted))
    print(f"{rows[-1].claim} {rows[-1].value} control {rows[-1].control} {rows[-1].note}")
    write(rows, began, options.quick)


if __name__ == "__main__":
    main()
