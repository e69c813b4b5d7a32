"""What open-set scorers are measured on: features of a perceptron on digits and of the bundled classifiers, and their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.harness.cache import ResultCache
from photopic.data import emoji_world, renderings
from photopic.guard.open_set import FEW_SHOT, REFERENCE, SCORERS, scorer
from photopic.metrics.rejection import Scores, rejection_metrics
from photopic.models.classifier import Classifier

KNOWN, IMAGES, POOL = (
    6,
    8,
    50,
)  # digits: known classes, training pictures of each, pictures of an unknown class kept for shots
REPEATS = {"digits": 5, "emoji": 3}  # draws of shots
PUBLISHED = {"self_similarity": True, "normalisation": "transductive"}  # FS-KNNS as its code has it
SHOTS = (5, 1)
AREAS = ("inc_ood", "inc_inw", "inw_ood", "osr", "uosr")
NAMES = (*AREAS, "aurc", "accuracy")


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


def emoji_problem(name: str, cache: ResultCache) -> Problem:
    """The features of one bundled classifier; kept."""
    model = Classifier.load(name)
    number = {label: index for index, label in enumerate(model.labels)}
    side = model.preprocess(np.zeros((1, 64, 64, 3), np.uint8)).shape[-1]
    taught, inside = renderings.training_pairs(), renderings.held_out_pairs()
    whole = [item.name for item in emoji_world.select(split="held_out") if len(item.styles) == len(emoji_world.STYLES)]
    styles = emoji_world.TRAINING_STYLES
    outside = [(each, styles[(place + turn) % 6]) for place, each in enumerate(whole) for turn in (0, 3)]
    others = [[style for style in emoji_world.STYLES if (each, style) not in outside] for each in whole]

    def features(part: str, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        def make() -> np.ndarray:
            return np.concatenate([
                model.features(renderings.pictures(pairs[start : start + 512], size=side)).double().numpy()
                for start in range(0, len(pairs), 512)
            ])  # fmt: skip

        return cache.array({"features": name, "part": part, "pairs": pairs, "of": model.digest()}, make)

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
