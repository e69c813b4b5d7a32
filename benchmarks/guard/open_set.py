"""Open-set and unified open-set recognition: every scorer of ``photopic.guard.open_set`` on digits and on the emoji world.

    python -m benchmarks.guard.open_set digits     # writes benchmarks/results/open-set-digits.json
    python -m benchmarks.guard.open_set emoji      # writes benchmarks/results/open-set.json and docs/images/open-set-*.svg
    python -m benchmarks.guard.open_set emoji --only emoji-resnet-64-0 --dry    # one classifier, prints only

digits: 6 known classes of scikit-learn's digits with 8 pictures each, a perceptron with one hidden layer, the other 4 classes
unknown; another draw of classes, pictures and weights for each seed, and intervals over seeds.

emoji: the bundled classifiers; known are the held-out renderings of their classes, unknown the concepts held out of every bundled
model, each in two styles, with the shots in five other styles; intervals over concepts, resampled alike for every scorer and
classifier, and averaged over classifiers.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.ledger import ROOT, Row, write_result
from photopic.guard.open_set import FEW_SHOT, REFERENCE, SCORERS, scorer
from photopic.metrics.intervals import bootstrap, paired_bootstrap
from photopic.metrics.rejection import Scores, aurc, rejection_metrics
from photopic.metrics.rejection_plots import rejection_plots
from photopic.metrics.rejection_report import resampled_metrics

SEEDS = tuple(range(7_700_001, 7_700_021))
KNOWN, IMAGES, POOL = (
    6,
    8,
    50,
)  # digits: known classes, training pictures a class, pictures of an unknown class kept for shots
REPEATS = {"digits": 5, "emoji": 3}  # draws of shots
PUBLISHED = {"self_similarity": True, "normalisation": "transductive"}  # FS-KNNS as its code has it
PUBLISHED_SHARE = 2672 / 12672  # of mistakes among what should be rejected, in the tables of the paper
SHOTS = (5, 1)
RIVALS = ("fs-knn", "ssd", "sirc", "msp")
AREAS = ("inc_ood", "inc_inw", "inw_ood", "osr", "uosr")
NAMES = ("inc_ood", "inc_inw", "inw_ood", "osr", "uosr", "aurc", "accuracy")


@dataclass(frozen=True, eq=False)
class Problem:
    """Features of one classifier: what it knows, what it is tested on, and shots of what it does not know.

    Attributes:
        head: Weight and bias of its last layer.
        clean: Features of training samples.
        classes: Their classes.
        test: Features of test samples.
        known: Whether each is of a known class.
        correct: Whether the classifier named it.
        shots: Features by draw of shots, for 5 and for 1 shots a class.
        units: Label of each test sample that is resampled as one.
    """

    head: tuple[np.ndarray, np.ndarray]
    clean: np.ndarray
    classes: np.ndarray
    test: np.ndarray
    known: np.ndarray
    correct: np.ndarray
    shots: Mapping[int, Sequence[np.ndarray]]
    units: Sequence[str]


def digits_problem(seed: int) -> Problem:
    """One draw of known classes, training pictures, weights and shots."""
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    digits = load_digits()
    rng = np.random.default_rng(seed)
    images, labels = digits.data / 16, digits.target
    order = rng.permutation(10)
    by_class = [rng.permutation(np.flatnonzero(labels == each)) for each in order]
    training = np.concatenate([rows[:IMAGES] for rows in by_class[:KNOWN]])
    network = MLPClassifier((64,), solver="lbfgs", alpha=1.0, max_iter=2000, random_state=seed % 2**31)
    network.fit(images[training], labels[training])
    test = np.concatenate([rows[IMAGES:] for rows in by_class[:KNOWN]] + [rows[POOL:] for rows in by_class[KNOWN:]])
    known = np.isin(labels[test], order[:KNOWN])
    correct = known & (network.predict(images[test]) == labels[test])

    def features(rows: np.ndarray) -> np.ndarray:
        return np.maximum(images[rows] @ network.coefs_[0] + network.intercepts_[0], 0)

    shots = {
        count: [
            features(np.concatenate([rows[draw * count : (draw + 1) * count] for rows in by_class[KNOWN:]]))
            for draw in range(REPEATS["digits"])
        ]
        for count in SHOTS
    }
    head = (network.coefs_[1].T, network.intercepts_[1])
    units = [str(row) for row in test]
    return Problem(head, features(training), labels[training], features(test), known, correct, shots, units)


def emoji_problem(name: str, keep: Path | None) -> Problem:
    """The features of one bundled classifier; those a folder keeps are not computed again."""
    from photopic.data import emoji_world, renderings
    from photopic.models.classifier import Classifier

    model = Classifier.load(name)
    number = {label: index for index, label in enumerate(model.labels)}
    side = model.preprocess(np.zeros((1, 64, 64, 3), np.uint8)).shape[-1]
    taught, inside = renderings.training_pairs(), renderings.held_out_pairs()
    whole = [item.name for item in emoji_world.select(split="held_out") if len(item.styles) == len(emoji_world.STYLES)]
    styles = emoji_world.TRAINING_STYLES
    outside = [(each, styles[(place + turn) % 6]) for place, each in enumerate(whole) for turn in (0, 3)]
    others = [[style for style in emoji_world.STYLES if (each, style) not in outside] for each in whole]

    def features(part: str, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        kept = None if keep is None else keep / f"{name}-{part}-{model.digest()[:12]}.npy"
        if kept is not None and kept.exists():
            return np.load(kept)
        rows = [
            model.features(renderings.pictures(pairs[start : start + 512], size=side)).double().numpy()
            for start in range(0, len(pairs), 512)
        ]
        if kept is not None:
            np.save(kept, np.concatenate(rows))
        return np.concatenate(rows)

    pool = features("shots", [(each, style) for each, rest in zip(whole, others, strict=True) for style in rest])
    pool = pool.reshape(len(whole), 5, -1)  # concept, style
    one = [pool[np.arange(len(whole)), (np.arange(len(whole)) + draw) % 5] for draw in range(REPEATS["emoji"])]
    test = features("test", [*inside, *outside])
    head = tuple(each.double().numpy() for each in (model.head.weight, model.head.bias))
    known = np.arange(len(test)) < len(inside)
    truth = np.array([number[each] for each, _ in inside] + [REFERENCE] * len(outside))
    correct = (test @ head[0].T + head[1]).argmax(1) == truth
    classes = np.array([number[each] for each, _ in taught])
    units = [emoji_world.concept(each).base for each, _ in (*inside, *outside)]
    shots = {5: [pool.reshape(-1, pool.shape[-1])], 1: one}
    return Problem((head[0], head[1]), features("taught", taught), classes, test, known, correct, shots, units)


def scored(problem: Problem, name: str, shots: int = 5, **settings: Any) -> list[Scores]:
    """Rejection scores of one scorer on the test samples, for every draw of shots (a few of them)."""
    draws: Sequence[np.ndarray | None] = problem.shots[shots] if name in FEW_SHOT else [None]
    found = []
    for draw in draws:
        X, y = problem.clean, problem.classes
        if draw is not None:
            X, y = np.concatenate([X, draw]), np.append(y, np.full(len(draw), REFERENCE))
            if "k" in SCORERS[name]._get_param_names() and len(draw) < 6:
                settings = {"k": 3, **settings}  # four references: each has three others
        values = scorer(name, head=problem.head, **settings).fit(X, y).rejection_scores(problem.test)
        found.append(Scores.of(values, known=problem.known, correct=problem.correct))
    return found


def means(several: Sequence[Scores]) -> dict[str, float]:
    """Metrics averaged over draws of shots."""
    rows = [rejection_metrics(each) for each in several]
    return {name: float(np.mean([row[name] for row in rows])) for name in NAMES}


def cases() -> list[tuple[str, str, int, dict[str, Any]]]:
    """Label, scorer, shots and settings of everything that is measured."""
    plain: list[tuple[str, str, int, dict[str, Any]]] = [
        (name, name, 5, {}) for name in SCORERS if name not in FEW_SHOT
    ]
    few: list[tuple[str, str, dict[str, Any]]] = [(name, name, {}) for name in FEW_SHOT] + [
        ("fs-knns-published", "fs-knns", PUBLISHED)
    ]
    return plain + [(f"{label}-{shots}shot", name, shots, settings) for label, name, settings in few for shots in SHOTS]


def note(row: Mapping[str, float]) -> str:
    """The areas between groups, of which OSR and UOSR are mixtures."""
    return (
        f"InC/OoD {row['inc_ood']:.3f}, InC/InW {row['inc_inw']:.3f}, InW/OoD {row['inw_ood']:.3f}, "
        f"1000 AURC {1000 * row['aurc']:.1f}, accuracy {row['accuracy']:.3f}"
    )


def digits(resamples: int) -> list[Row]:
    """Means over seeds; an interval resamples seeds."""
    found: dict[str, list[dict[str, float]]] = {label: [] for label, *_ in cases()}
    for seed in SEEDS:
        problem = digits_problem(seed)
        for label, name, shots, settings in cases():
            found[label].append(means(scored(problem, name, shots, **settings)))
    rows = []
    for label, each in found.items():
        middle = {name: float(np.mean([row[name] for row in each])) for name in NAMES}
        for metric in ("uosr", "osr"):
            interval = bootstrap([row[metric] for row in each], resamples=resamples)
            rows.append(Row(f"openset.digits.{metric}.{label}", *interval, n=len(SEEDS), note=note(middle)))
        gap = paired_bootstrap([row["uosr"] for row in each], [row["osr"] for row in each], resamples=resamples)
        rows.append(Row(f"openset.digits.uosr_above_osr.{label}", *gap, target=">= 0", n=len(SEEDS)))
    plain = np.array([row["inw_ood"] for row in found["msp"]])
    rows.append(
        Row("openset.digits.inw_ood.msp", *bootstrap(plain, resamples=resamples), n=len(SEEDS), note="0.485 specified")
    )
    for shots in SHOTS:
        ours = [row["uosr"] for row in found[f"fs-knns-{shots}shot"]]
        for rival in RIVALS:
            other = [row["uosr"] for row in found[f"{rival}-{shots}shot" if rival in FEW_SHOT else rival]]
            interval = paired_bootstrap(ours, other, resamples=resamples)
            about = "UOSR of FS-KNNS minus this" + (", k = 3 of 4 references" if shots == 1 else "")
            rows.append(Row(f"openset.digits.fs-knns_above.{rival}.{shots}shot", *interval, target="high >= 0",
                            n=len(SEEDS), note=about))  # fmt: skip
    return rows


def emoji(names: Sequence[str], resamples: int, keep: Path | None) -> tuple[list[Row], dict[str, Scores]]:
    """Means over classifiers and draws of shots; an interval resamples concepts."""
    values: dict[str, list[dict[str, float]]] = {label: [] for label, *_ in cases()}
    draws: dict[str, list[np.ndarray]] = {label: [] for label in values}
    shown: dict[str, Scores] = {}
    exact: list[float] = []
    for name in names:
        problem = emoji_problem(name, keep)
        for label, kind, shots, settings in cases():
            several = scored(problem, kind, shots, **settings)
            values[label].append(means(several))
            drawn = resampled_metrics(several, AREAS, units=problem.units, resamples=resamples)
            draws[label].append(drawn.mean(1))  # (resamples, areas)
            if name == names[0]:
                shown[label] = several[0]
            if kind == "fs-knns":
                exact.append(aurc(replace(several[0], precision="float32"), compat="published") - aurc(several[0]))
        print(name, {label: round(each[-1]["uosr"], 3) for label, each in values.items()}, flush=True)
    mean = {label: dict(zip(AREAS, np.mean(each, 0).T, strict=True)) for label, each in draws.items()}
    middle = {
        label: {key: float(np.mean([row[key] for row in each])) for key in NAMES} for label, each in values.items()
    }
    count, rows = len(problem.test), []

    def add(claim: str, drawn: np.ndarray, value: float, **about: Any) -> None:
        low, high = np.quantile(drawn, [0.025, 0.975])
        rows.append(Row(claim, value, min(float(low), value), max(float(high), value), n=count, **about))

    for label, found in middle.items():
        for metric in ("uosr", "osr"):
            add(f"openset.{metric}.{label}", mean[label][metric], found[metric], note=note(found))
        each = ", ".join(
            f"{name[6:]} {row['uosr'] - row['osr']:+.3f}" for name, row in zip(names, values[label], strict=True)
        )
        gap = mean[label]["uosr"] - mean[label]["osr"]
        add(f"openset.uosr_above_osr.{label}", gap, found["uosr"] - found["osr"], target=">= 0", note=each)
    for shots in SHOTS:
        ours = f"fs-knns-{shots}shot"
        for rival in RIVALS:
            other = f"{rival}-{shots}shot" if rival in FEW_SHOT else rival
            drawn = mean[ours]["uosr"] - mean[other]["uosr"]
            add(f"openset.fs-knns_above.{rival}.{shots}shot", drawn, middle[ours]["uosr"] - middle[other]["uosr"],
                target="high >= 0", note="UOSR of FS-KNNS minus this")  # fmt: skip
            wrong_part, unknown_part = (mean[ours][area] - mean[other][area] for area in ("inc_inw", "inc_ood"))
            reweighted = PUBLISHED_SHARE * wrong_part + (1 - PUBLISHED_SHARE) * unknown_part
            parts = (middle[ours][area] - middle[other][area] for area in ("inc_inw", "inc_ood"))
            value = float(np.dot((PUBLISHED_SHARE, 1 - PUBLISHED_SHARE), list(parts)))
            about = f"the same, if mistakes were the paper's {PUBLISHED_SHARE:.0%} of what should be rejected"
            add(f"openset.fs-knns_above_published_share.{rival}.{shots}shot", reweighted, value, note=about)
    wrong, unknown = (int(part.sum()) for part in (problem.known & ~problem.correct, ~problem.known))
    rows.append(
        Row(
            "openset.share_of_mistakes",
            wrong / (wrong + unknown),
            n=count,
            note=f"of what should be rejected, {names[-1]}",
        )
    )
    worst = max(exact, key=abs)
    rows.append(
        Row(
            "openset.aurc_float32_off", worst, n=len(exact), note="published AURC minus the exact one, FS-KNNS, largest"
        )
    )
    return rows, shown


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("world", choices=["digits", "emoji"])
    parser.add_argument("--only", nargs="*", help="names of classifiers; all of them by default")
    parser.add_argument("--dry", action="store_true", help="print and write nothing")
    parser.add_argument("--keep", type=Path, help="folder that keeps features between runs")
    parser.add_argument("--resamples", type=int, default=1000)
    options = parser.parse_args()
    started = time.monotonic()
    if options.world == "digits":
        rows = digits(options.resamples)
    else:
        from photopic.models.classifier import bundled_classifiers

        rows, shown = emoji(options.only or bundled_classifiers(), options.resamples, options.keep)
    for row in rows:
        print(f"{row.claim:48} {row.value:8.4f}  {row.low or 0:.4f} to {row.high or 0:.4f}  {row.verdict}  {row.note}")
    if options.dry:
        return
    name = "open-set-digits" if options.world == "digits" else "open-set"
    if options.world == "emoji":
        chosen = {label: shown[label] for label in ("fs-knns-5shot", "fs-knn-5shot", "knn", "msp")}
        for kind, picture in rejection_plots(chosen).items():
            Path(ROOT / f"docs/images/open-set-{kind.replace('_', '-')}.svg").write_text(picture)
    write_result(
        name,
        rows,
        command=" ".join(
            [
                f"python -m benchmarks.guard.open_set {options.world} --resamples {options.resamples}",
                *(["--only", *options.only] if options.only else []),
            ]
        ),
        seeds=SEEDS if options.world == "digits" else [0],
        elapsed_s=time.monotonic() - started,
    )


if __name__ == "__main__":
    main()
