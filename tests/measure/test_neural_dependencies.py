from __future__ import annotations

import warnings
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from photopic.core.errors import DataError, ModelError
from photopic.core.results import Report
from photopic.learning.losses.dependency import classification_loss, dependency_penalty
from photopic.measure.neural_dependencies import (
    DependencyConfig,
    dependency_graph,
    logit_dependencies,
    neural_dependencies,
    new_class,
    save_graph,
)
from photopic.models.classifier import Classifier

CLASSES = 12


def independent(samples: int = 1500, classes: int = CLASSES, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(samples, classes))


def planted(noise: float) -> np.ndarray:
    """Logit 4 is a known sum of three others, and noise; scales and means differ between classes."""
    rows = independent() * np.linspace(1, 5, CLASSES) + np.linspace(-3, 3, CLASSES)
    rows[:, 4] = 0.8 * rows[:, 1] - 0.5 * rows[:, 7] + 0.3 * rows[:, 10] + 2 + noise * independent(seed=1)[:, 0]
    return rows


@pytest.mark.parametrize("centring", ["standardised", "centred"])
def test_a_planted_dependency_is_recovered(centring: str) -> None:
    rows = planted(0.1)
    report = logit_dependencies(rows, config=DependencyConfig(centring=centring, error=0.01))  # type: ignore[arg-type]
    row = report.rows[4]
    assert row["dependent"]
    assert row["support_indices"] == [1, 7, 10]
    np.testing.assert_allclose(row["theta"], [0.8, -0.5, 0.3], atol=0.15)
    end = row["path_held_out_error"][-1] * rows[:, 4].var()
    assert end == pytest.approx(0.01, rel=0.3)  # the variance of the noise
    assert row["best_single_error"] > 0.2
    assert report.values["gauge"] is False


def test_independent_logits_have_no_dependency() -> None:
    report = logit_dependencies(independent(4000))
    assert report.values["dependent"] == 0
    assert report.values["median_support"] is None
    assert min(row["held_out_error"] for row in report.rows) > 0.97
    assert [row["predict_mean_error"] for row in report.rows] == [1.0] * CLASSES


def test_theta_gives_the_reported_error_on_the_samples_it_was_judged_on() -> None:
    rows = planted(0.5)
    config = DependencyConfig(error=0.1)
    report = logit_dependencies(rows, config=config)
    from photopic.measure._dependency_fit import parts

    fitted, _, judged = parts(len(rows), config.shares, config.seed)
    for row in report.rows:
        sums = rows[judged][:, row["support_indices"]] @ np.array(row["theta"]) + row["offset"]
        target = rows[judged, row["index"]]
        unit = ((target - rows[fitted, row["index"]].mean()) ** 2).mean()
        assert ((target - sums) ** 2).mean() / unit == pytest.approx(row["held_out_error"], rel=1e-9)


def test_the_gauge_is_recorded_and_makes_a_dense_tie_of_all() -> None:
    report = logit_dependencies(independent(), config=DependencyConfig(gauge=True, lambdas=30, smallest=1e-6))
    assert report.values["gauge"] is True
    assert report.provenance["config"]["gauge"] is True
    assert report.rows[0]["path_held_out_error"][-1] < 1e-3
    assert report.rows[0]["path_support"][-1] == CLASSES - 1


def test_dependencies_by_what_all_logits_share_are_told_and_go_with_the_gauge() -> None:
    rows = independent(6000) + 20 * independent(6000, seed=1)[:, :1]  # the softmax does not see the second part
    with pytest.warns(UserWarning, match=f"{CLASSES} of {CLASSES} dependent classes depend by what all logits"):
        report = logit_dependencies(rows)
    assert "gauge" in report.values["warnings"][0]
    assert not logit_dependencies(rows, config=DependencyConfig(gauge=True)).values["warnings"]


def test_the_raw_second_moment_has_no_offset() -> None:
    rows = independent() + 3.0
    report = logit_dependencies(rows, config=DependencyConfig(centring="raw"))
    assert {row["offset"] for row in report.rows} == {0.0}


def test_a_head_of_few_features_has_a_covariance_of_that_rank_over_a_thousand_classes() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(1800, 16)).astype(np.float32)
    logits = (features @ rng.normal(size=(16, 1024)).astype(np.float32)).astype(np.float64)
    with pytest.warns(UserWarning, match="at least 5120 for a stable fit"):
        report = logit_dependencies(logits, config=DependencyConfig(lambdas=3, smallest=0.05, error=0.9))
    assert report.values["rank"] == 16
    assert report.values["dependent"] == 1024


def test_replacement_is_what_replacing_one_logit_by_hand_gives() -> None:
    from photopic.measure._dependency_fit import parts

    rows = planted(2.0)
    labels = (rows + independent(seed=3)).argmax(1)
    config = DependencyConfig(error=0.3)
    report = logit_dependencies(rows, labels=labels.tolist(), config=config)
    judged = parts(len(rows), config.shares, config.seed)[2]
    logits, true = rows[judged], labels[judged]
    assert report.values["accuracy"] == pytest.approx((logits.argmax(1) == true).mean())
    for row in report.rows:
        replaced, index = logits.copy(), row["index"]
        replaced[:, index] = logits[:, row["support_indices"]] @ np.array(row["theta"]) + row["offset"]
        decided, positive = replaced.argmax(1), true == index
        assert row["accuracy_replaced"] == pytest.approx((decided == true).mean())
        assert positive.any() == (row["recall"] is not None)
        if positive.any():
            assert row["recall_replaced"] == pytest.approx((decided[positive] == index).mean())
            assert row["recall"] == pytest.approx((logits.argmax(1)[positive] == index).mean())
        assert row["agreement_replaced"] == pytest.approx((decided == logits.argmax(1)).mean())
        change = torch.softmax(torch.tensor(replaced), 1) - torch.softmax(torch.tensor(logits), 1)
        assert row["probability_error"] == pytest.approx(float(change[:, index].abs().mean()))


def test_between_networks_and_not_after_permuting_one() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(3000, 4))
    left, right = (shared @ rng.normal(size=(4, 20)) + 0.02 * rng.normal(size=(3000, 20)) for _ in range(2))
    tied = logit_dependencies(left, other=right)
    assert tied.values["between"] is True
    assert tied.values["dependent"] >= 16  # lambda is chosen at the edge, on other samples
    permuted = logit_dependencies(left, other=right[rng.permutation(3000)])
    errors = [row["held_out_error"] for row in permuted.rows]
    assert permuted.values["dependent"] == 0
    assert 0.95 < np.median(errors) < 1.05


# --- networks


def classifier(seed: int = 0, labels: int = 6, name: str = "tiny") -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Flatten(), nn.Linear(27, 3), nn.Tanh(), nn.Linear(3, labels))

    def preprocess(images: object) -> torch.Tensor:
        return torch.from_numpy(np.stack(list(images))).permute(0, 3, 1, 2) / 128 - 1  # type: ignore[call-overload]

    return Classifier(network, preprocess=preprocess, labels=[f"class {at}" for at in range(labels)], name=name)


def pictures(count: int = 400) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 3, 3, 3), np.uint8)


@pytest.mark.parametrize("as_list", [False, True])
def test_a_network_is_read_in_batches_and_its_rank_is_that_of_its_head(as_list: bool) -> None:
    model, images = classifier(), pictures()
    events = list(
        neural_dependencies.events(model, list(images) if as_list else images, config=DependencyConfig(batch=50))
    )
    report = events[-1].result
    assert report is not None
    assert [event.stage for event in events if event.stage != "reading"][-1] == "done"
    assert events[-2].done == events[-2].total == 80
    assert report.values["rank"] == report.values["head_width"] == 3
    direct = logit_dependencies(model.logits(images).numpy().astype(np.float64), names=model.labels)
    assert [row["support"] for row in report.rows] == [row["support"] for row in direct.rows]
    assert report.provenance["model"] == "tiny"


def test_two_networks_need_the_same_classes() -> None:
    with pytest.raises(ModelError, match="large: 7 classes, but tiny has 6"):
        neural_dependencies(classifier(), pictures(), other=classifier(1, 7, "large"))
    other = classifier(1, name="renamed")
    other.labels = (*other.labels[:5], "zebra")
    report = neural_dependencies(classifier(), pictures(), other=other)
    assert "class 5 is 'class 5' in tiny and 'zebra' in renamed" in report.values["warnings"]
    assert report.values["between"] is True


def test_a_network_that_puts_out_nan_is_named_by_sample_and_class() -> None:
    model = classifier()
    model.head.bias.data[2] = torch.nan
    with pytest.raises(DataError, match="sample 0, class 2 is nan"):
        neural_dependencies(model, pictures())


# --- bad input


def test_fewer_samples_than_classes_says_what_is_undetermined() -> None:
    with pytest.warns(UserWarning, match="18 images to fit for 40 classes: the covariance has rank at most 17"):
        report = logit_dependencies(independent(30, 40))
    assert report.values["warnings"]


def test_constant_logits_are_named_and_left_out() -> None:
    rows = planted(0.1)
    rows[:, 0] = 7.0
    with pytest.warns(UserWarning, match="constant logits, left out: bear"):
        report = logit_dependencies(rows, names=["bear", *map(str, range(1, CLASSES))])
    assert report.values["constant"] == ["bear"]
    assert report.rows[0]["held_out_error"] is None
    assert not report.rows[0]["dependent"]
    assert all("bear" not in row["support"] for row in report.rows)
    with pytest.raises(DataError, match="all 12 logits are constant"):
        logit_dependencies(np.ones((100, CLASSES)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [0, 1]}, "one for each of 1500 images, found 2"),
        ({"labels": [CLASSES] * 1500}, "0 to 11, found 12"),
        ({"names": ["a"]}, "12 classes: expected as many names, found 1"),
        ({"other": np.zeros((3, 2))}, "found 1500 and 3"),
        ({"logits": independent(4)}, "give more images"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        logit_dependencies(**({"logits": independent()} | change))


# --- the graph


@pytest.fixture(scope="module")
def report() -> Report:
    return logit_dependencies(planted(0.1), names=[f"class {at}" for at in range(CLASSES)])


def test_the_graph_is_written_in_three_forms(report: Report, tmp_path: Path) -> None:
    graph = dependency_graph(report)
    assert ("class 1", "class 4") in graph.edges
    read = nx.read_graphml(save_graph(graph, tmp_path / "graph.graphml"))
    assert dict(read.edges) == dict(graph.edges)
    assert read.nodes["class 4"]["held_out_error"] == report.rows[4]["held_out_error"]
    lines = save_graph(graph, tmp_path / "graph.csv").read_text().splitlines()
    assert lines[0] == "predictor,class,theta,held_out_error"
    assert len(lines) == 1 + graph.number_of_edges()
    with Image.open(save_graph(graph, tmp_path / "graph.png")) as picture:
        assert picture.size == (1400, 1400)
    with pytest.raises(DataError, match=r"graph.txt: expected a file that ends in .graphml"):
        save_graph(graph, tmp_path / "graph.txt")
    assert dependency_graph(report, all_classes=True).number_of_edges() >= graph.number_of_edges()


def test_the_report_is_json(report: Report) -> None:
    import json

    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["rows"][4]["support"]


# --- our readings of what the paper names


def test_a_new_class_that_is_a_sum_is_found_from_few_samples() -> None:
    rows = independent(2000)
    belongs = rows[:, 2] + rows[:, 5] > 1.5
    few = np.concatenate([np.flatnonzero(belongs)[:20], np.flatnonzero(~belongs)[:60]])
    found = new_class(rows[few], belongs[few])
    assert {2, 5} <= set(found.members.tolist())
    rest = np.setdiff1d(np.arange(2000), few)
    scores = found.logit(rows[rest])
    ranks = scores[belongs[rest]][:, None] > scores[~belongs[rest]]
    assert ranks.mean() > 0.85  # area under the curve
    with pytest.raises(DataError, match="found 2 and 3"):
        new_class(rows[:5], [True, True, False, False, False])


def test_the_regulariser_is_off_unless_asked_for_and_loosens_a_tie() -> None:
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(64, 8, generator=generator), torch.randint(0, 3, (64,), generator=generator)
    head = nn.Linear(8, 3)
    with torch.no_grad():
        head.weight[1] = head.weight[0] + 0.05
    plain = nn.functional.cross_entropy(head(features), labels)
    assert torch.equal(classification_loss(head(features), labels, edges=[(0, 1)]), plain)
    before = dependency_penalty(head(features), [(0, 1)]).detach()
    expected = abs(np.corrcoef(head(features).detach().numpy()[:, :2].T)[0, 1])
    assert float(before) == pytest.approx(expected, abs=1e-5)
    optimiser = torch.optim.Adam(head.parameters(), 0.05)
    for _ in range(30):
        optimiser.zero_grad()
        classification_loss(head(features), labels, edges=[(0, 1)], our_reading=2.0).backward()
        optimiser.step()
    assert dependency_penalty(head(features), [(0, 1)]) < 0.3 * before
    with pytest.raises(DataError, match=r"classes 0 to 2 .* found \[\(0, 3\)\]"):
        dependency_penalty(head(features), [(0, 3)])


def test_no_warning_where_there_is_enough() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert logit_dependencies(independent(4000)).values["warnings"] == []
