"""Rejection metrics: the mixture identities, ties, the published AURC, brute force, intervals and refusals."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, roc_auc_score, roc_curve

from photopic.core.errors import DataError
from photopic.metrics.ranking import auroc
from photopic.metrics.rejection import METRICS, Scores, aurc, best_f1, f1_at, fpr_at, rejection_metrics
from photopic.metrics.rejection_plots import rejection_plots
from photopic.metrics.rejection_report import class_report, paired_difference, rejection_report, resampled_metrics


def drawn(seed: int, count: int = 200, levels: int = 30) -> Scores:
    """Scores with many ties."""
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 3, count)
    values = np.round((rng.normal(size=count) + groups * 0.8) * levels / 6) / levels
    return Scores.of(values, known=groups < 2, correct=groups == 0)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=40))
@settings(max_examples=150, deadline=None)
def test_the_mixture_identities_hold_in_every_report(rows: list[tuple[int, int]]) -> None:
    values, groups = np.array(rows, float).T
    report = rejection_report(Scores.of(values / 7, known=groups < 2, correct=groups == 0), resamples=0)
    assert report.values["mixture_error"] <= 1e-12


def test_the_identities_and_areas_are_those_of_another_implementation() -> None:
    scores = drawn(0)
    found, groups = rejection_metrics(scores), scores.groups
    three = {
        name: auroc(scores.values[groups == high], scores.values[groups == low])
        for name, low, high in (("inc_ood", 0, 2), ("inc_inw", 0, 1), ("inw_ood", 1, 2))
    }
    inc, inw, ood = np.bincount(groups)
    assert found["uosr"] == pytest.approx(roc_auc_score(groups > 0, scores.values), abs=1e-12)
    assert found["osr"] == pytest.approx(roc_auc_score(groups == 2, scores.values), abs=1e-12)
    assert {name: found[name] for name in three} == pytest.approx(three, abs=1e-12)
    assert found["uosr"] == pytest.approx((inw * three["inc_inw"] + ood * three["inc_ood"]) / (inw + ood), abs=1e-12)
    assert found["osr"] == pytest.approx((inc * three["inc_ood"] + inw * three["inw_ood"]) / (inc + inw), abs=1e-12)


def test_aurc_is_the_mean_over_all_orders_of_ties() -> None:
    values, errors = [0.1, 0.5, 0.5, 0.5, 0.9], [0, 1, 0, 1, 1]
    brute = []
    for middle in permutations([1, 0, 1]):
        order = np.array([0, *middle, 1])
        brute.append(np.mean(np.cumsum(order) / np.arange(1, 6)))
    scores = Scores.of(values, known=[True] * 5, correct=[not error for error in errors])
    assert aurc(scores) == pytest.approx(np.mean(brute), abs=1e-15)


def test_the_published_aurc_ties_what_differs_and_then_favours_known_samples() -> None:
    values = 1e-9 * np.arange(6, dtype=np.float32)  # 1 - score is 1 for all of them in float32
    groups = np.array([2, 2, 2, 0, 0, 0])  # the unknown ones score lowest: as bad as can be
    scores = Scores.of(values, known=groups < 2, correct=groups == 0)
    assert aurc(scores, compat="published") == pytest.approx(np.mean([0, 0, 0, 1 / 4, 2 / 5, 3 / 6]))
    assert aurc(scores) == pytest.approx(np.mean([1, 1, 1, 3 / 4, 3 / 5, 3 / 6]))
    doubles = Scores.of(values.astype(float), known=groups < 2, correct=groups == 0)  # scores in float64 stay apart
    assert aurc(doubles, compat="published") == aurc(scores)
    apart = drawn(1, levels=10**6)
    assert aurc(apart, compat="published") == pytest.approx(aurc(apart), abs=1e-4)


def test_fpr_and_f1_are_those_of_scikit_learn() -> None:
    scores = drawn(2)
    fpr, tpr, _ = roc_curve(scores.groups > 0, scores.values, drop_intermediate=False)
    assert fpr_at(scores) == pytest.approx(fpr[np.abs(tpr - 0.95).argmin()])
    assert fpr_at(scores, rule="at_least") == pytest.approx(fpr[(tpr >= 0.95).argmax()])
    assert fpr_at(scores, rule="at_least") >= fpr_at(scores, rule="nearest")
    ways = product((2, 15, 56), (("osr", 2), ("uosr", 1)), (("reject", 1), ("accept", -1)))
    for seed, (task, wanted), (positive, sign) in ways:
        each = drawn(seed)  # the published points leave out those on a straight line, of 15 and 56 the nearest one
        positives = each.groups >= wanted if positive == "reject" else each.groups < wanted
        fpr, tpr, _ = roc_curve(positives, sign * each.values)
        found = fpr_at(each, task=task, rule="published", positive=positive)  # type: ignore[arg-type]
        assert found == pytest.approx(fpr[np.abs(tpr - 0.95).argmin()])
    best, threshold = best_f1(scores)
    assert f1_at(scores, threshold) == pytest.approx(best)
    assert f1_at(scores, threshold) == pytest.approx(f1_score(scores.groups > 0, scores.values > threshold))
    assert best >= max(f1_at(scores, value) for value in scores.values) - 1e-12


def test_higher_accepts_turns_the_scores_over() -> None:
    rejecting = drawn(3)
    accepting = Scores.of(-rejecting.values, known=rejecting.groups < 2, correct=rejecting.groups == 0, higher="accept")
    assert rejection_metrics(accepting) == rejection_metrics(rejecting)


def test_a_missing_group_leaves_out_what_needs_it_and_nothing_else() -> None:
    no_wrong = rejection_metrics(Scores.of([0.1, 0.2, 0.3], known=[True, True, False], correct=[True, True, False]))
    assert no_wrong["inc_inw"] is None and no_wrong["inw_ood"] is None
    assert no_wrong["uosr"] == no_wrong["osr"] == no_wrong["inc_ood"] == 1.0
    only_correct = rejection_metrics(Scores.of([0.1], known=[True], correct=[True]))
    assert {name for name, value in only_correct.items() if value is not None} == {"aurc", "accuracy"}


def test_an_interval_holds_its_value_and_narrows_with_samples() -> None:
    few, many = (rejection_report(drawn(4, count), resamples=200, threshold=0.5) for count in (60, 2000))
    widths = []
    for report in (few, many):
        row = next(row for row in report.rows if row["metric"] == "uosr")
        assert row["low"] <= row["value"] <= row["high"]
        widths.append(row["high"] - row["low"])
    assert widths[1] < widths[0] / 3
    assert [row["metric"] for row in few.rows] == list(METRICS)
    assert 0 <= many.values["accepted"]["OoD"] < many.values["accepted"]["InC"] <= 1


def test_units_are_resampled_together() -> None:
    scores = drawn(5, 60)
    repeated = Scores(np.tile(scores.values, 30), np.tile(scores.groups, 30))
    units = np.tile(np.arange(60), 30).tolist()
    alone, together = (
        next(row for row in rejection_report(repeated, units=each, resamples=200).rows if row["metric"] == "uosr")
        for each in (None, units)
    )
    assert together["high"] - together["low"] > 3 * (alone["high"] - alone["low"])


def test_a_paired_difference_is_narrower_than_two_intervals() -> None:
    scores = drawn(6, 400)
    noise = np.random.default_rng(0).normal(0, 0.02, 400)
    other = Scores(scores.values + noise, scores.groups)
    value, low, high = paired_difference(scores, other, "uosr", resamples=200)
    assert low <= value <= high and abs(value) < 0.01
    assert high - low < 0.02
    draws = resampled_metrics([scores, other], ["uosr"], resamples=200)[..., 0]
    assert np.quantile(draws[:, 0] - draws[:, 1], 0.025) == pytest.approx(low)


def test_each_class_has_its_row() -> None:
    scores = Scores.of(
        [0.1, 0.3, 0.7, 0.9, 0.2], known=[True] * 3 + [False] * 2, correct=[True, True, False, False, False]
    )
    rows = {row["class"]: row for row in class_report(scores, ["cat", "dog", "cat", "yak", "emu"], threshold=0.5).rows}
    assert rows["cat"]["accuracy"] == 0.5 and rows["cat"]["accepted"] == 0.5
    assert rows["yak"]["auroc"] == 1.0 and rows["emu"]["auroc"] == 0.5
    assert rows["cat"]["auroc"] == 1.0 and rows["dog"]["auroc"] == pytest.approx(2 / 3)
    with pytest.raises(DataError, match="cat is known in some samples"):
        class_report(scores, ["cat", "dog", "cat", "cat", "emu"])


def test_the_plots_are_self_contained_pictures() -> None:
    plots = rejection_plots({"<msp>": drawn(7), "knn": drawn(8)})
    assert set(plots) == {"risk_coverage", "roc", "histogram"}
    for picture in plots.values():
        assert picture.startswith("<svg") and picture.rstrip().endswith("</svg>")
        assert (
            "&lt;msp&gt;" in picture and "<msp>" not in picture and "http" not in picture.replace("www.w3.org", "")[60:]
        )


@pytest.mark.parametrize(
    ("values", "known", "message"),
    [
        ([], [], "expected one score"),
        ([0.1], [True, False], "found shapes"),
        ([0.1, float("nan")], [True, False], "1 of 2 are NaN"),
    ],
)
def test_scores_that_cannot_be_used_are_refused(values: list[float], known: list[bool], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Scores.of(values, known=known, correct=known)


def test_refusals_name_what_is_missing() -> None:
    scores = Scores.of([0.1, 0.2], known=[True, True], correct=[True, True])
    with pytest.raises(DataError, match="0 to reject"):
        fpr_at(scores)
    with pytest.raises(DataError, match="not defined"):
        paired_difference(scores, scores)
    with pytest.raises(DataError, match="one classifier"):
        paired_difference(scores, Scores.of([0.1, 0.2], known=[True, False], correct=[True, True]))
