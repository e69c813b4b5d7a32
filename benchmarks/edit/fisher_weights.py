"""Fisher merging with the share of each model chosen on pictures of its own, as published; and the plain average chosen alike.

    python -m benchmarks fisher-weights         # writes benchmarks/results/fisher-weights.json

The specialists are those of ``merging``. Said before anything was measured: the first one counts 0.1, 0.2, ... 0.9 and the second
the rest; the share is chosen by accuracy over both styles on pictures that nothing was learnt from and nothing is judged on, of
equals the one nearest to a half, for Fishers and for the average each. Control: the same with Fishers of noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.edit.merging import SEED, STYLES, Case, MergingConfig, cases, pictures, unknown
from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from photopic.core.edits import Edit
from photopic.data.few_shot import FewShotTask, LabelledImages
from photopic.edit.merging.merge import MergeConfig, merge
from photopic.learning.classifiers import TextClassifier
from photopic.metrics.intervals import bootstrap
from photopic.models.dual_encoder import DualEncoder
from photopic.tune.few_shot.full import FullConfig, full_fine_tuning

SHARES = tuple(step / 10 for step in range(1, 10))  # of the first specialist
VALIDATION = 4  # pictures of each class and style to choose by
RULES = {
    "average": MergeConfig(),
    "fisher": MergeConfig(by="fisher", pictures=64),
    "fisher_of_noise": MergeConfig(by="fisher", pictures=64),
}
CLAIMS = (
    Claim(
        "fisher_merging.chosen_gain",
        "low > 0",
        "accuracy over both styles minus the plain average's, shares chosen for both; control: Fishers of noise",
    ),
)


def measure(bench: Bench[Any, DualEncoder], case: Case) -> dict[str, list[float]]:
    """Of each rule accuracy in each style with the share that was chosen, and the share."""
    model, names = bench.subject, unknown(case.classes, case.seed)
    train, test = (
        [pictures(names, style, count, (case.seed, place, *more)) for place, style in enumerate(STYLES)]
        for count, more in ((case.shots, ()), (case.test, (1,)))
    )
    held = [pictures(names, style, VALIDATION, (case.seed, place, 2)) for place, style in enumerate(STYLES)]
    rows, config = model.class_features(names), FullConfig(steps=case.steps, seed=case.seed)
    edits = [full_fine_tuning(model, FewShotTask(each), config=config) for each in train]
    noise = np.random.default_rng((SEED, case.seed)).integers(0, 256, np.shape(train[0].images), dtype=np.uint8)
    unrelated = [LabelledImages(noise, train[0].labels, names)] * 2

    def right(edit: Edit, shown: Sequence[LabelledImages]) -> list[float]:
        tuned = TextClassifier(model, rows, edit)
        return [float((tuned.logits(each.images).argmax(1).numpy() == each.labels).mean()) for each in shown]

    found = {}
    for rule, how in RULES.items():
        images = unrelated if rule == "fisher_of_noise" else train
        merged = {
            share: merge(edits, model=model, images=images, weights=[share, 1 - share], config=how) for share in SHARES
        }
        known = {share: sum(right(edit, held)) for share, edit in merged.items()}
        best = max(SHARES, key=lambda share: (known[share], -abs(share - 0.5)))
        found[rule] = [*right(merged[best], test), best]
    return found


def rows(bench: Bench[MergingConfig, DualEncoder]) -> Iterator[Row]:
    """The gain of Fishers; paired by seed and style."""
    found = [bench.found(case) for case in bench.cases]
    over = {rule: np.array([each[rule][:2] for each in found]) for rule in RULES}  # (seeds, styles)
    shares = {rule: ", ".join(f"{each[rule][2]:.1f}" for each in found) for rule in RULES}
    groups = np.repeat(np.arange(len(found)), len(STYLES)).tolist()
    gain = bootstrap((over["fisher"] - over["average"]).ravel(), groups=groups, seed=SEED)
    control = float((over["fisher_of_noise"] - over["average"]).mean())
    said = "; ".join(f"{rule} {over[rule].mean():.3f} at shares {shares[rule]}" for rule in RULES)
    yield row("fisher_merging.chosen_gain", gain, n=len(found) * len(STYLES), baseline=0.0, control=control, note=said)


QUICK = replace(MergingConfig(), seeds=1, classes=4, steps=2, shots=2, test=2)
BENCHMARKS = (
    Benchmark(
        "fisher-weights", __doc__, MergingConfig(), QUICK, CLAIMS, rows, cases, measure,
        open=lambda config, cache: DualEncoder.load(config.model, "cpu"), seeds=(0, 1, 2, 3, 4, SEED),
    ),
)  # fmt: skip
