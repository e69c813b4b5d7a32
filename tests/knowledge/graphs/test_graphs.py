"""Propagation and DAGNN against dense algebra, and what is parted, averaged and ruled out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from photopic.core.errors import DataError
from photopic.knowledge.graphs._common import (
    NodeClassesConfig,
    Propagation,
    node_classes,
    node_features,
    propagated,
    smoothness,
)
from photopic.knowledge.graphs.classification import classification, linear, nearest_class, neighbour_means
from photopic.knowledge.graphs.dagnn import DAGNN, DAGNNConfig, dagnn
from tests.tiny_link_graph import CLASSES, tiny_link_graph

GRAPH = tiny_link_graph()
CONFIG = DAGNNConfig(depth=3, hidden=8, steps=4, dropout=0.0)


def dense() -> torch.Tensor:
    edges = propagated(GRAPH)
    adjacency = torch.eye(GRAPH.nodes)
    for head, tail in zip(edges.head.tolist(), edges.tail.tolist(), strict=True):
        adjacency[head, tail] += 1
        adjacency[tail, head] += 1
    scale = adjacency.sum(1).rsqrt()
    return scale[:, None] * adjacency * scale


def learner(config: DAGNNConfig) -> DAGNN:
    return DAGNN(torch.from_numpy(node_features(GRAPH)), Propagation(GRAPH), node_classes(GRAPH, config), config)


def test_propagation_is_the_normalised_matrix_without_edges_to_classes() -> None:
    values = torch.randn(GRAPH.nodes, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Propagation(GRAPH)(values), dense() @ values)
    assert not np.isin(propagated(GRAPH).tail, GRAPH.of_kind("fact")).any()


def test_deep_propagation_makes_all_nodes_of_a_part_alike() -> None:
    values = torch.rand(GRAPH.nodes, 3, generator=torch.Generator().manual_seed(0)) + 0.1
    text = torch.from_numpy(GRAPH.of_kind("text"))
    spread = {0: values}
    for depth in range(1, 201):
        spread[depth] = Propagation(GRAPH)(spread[depth - 1])
    assert smoothness(spread[200][text]) < 0.05 * smoothness(values[text])
    pair = torch.tensor([[1.0, 0.0], [0.0, 2.0]])  # two rows at a right angle: the distance is sqrt 2, halved
    assert smoothness(pair) == pytest.approx(2**0.5 / 2)


def test_depth_0_is_the_perceptron_exactly() -> None:
    model = learner(replace(CONFIG, depth=0))
    assert "gate" not in model.tensors
    expected = torch.relu(model.features @ model.tensors["first"]) @ model.tensors["second"]
    assert torch.equal(model.logits(model.tensors), expected)


def test_each_node_weighs_its_depths_by_its_gate() -> None:
    model = learner(CONFIG)
    draw = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(each.shape, generator=draw) for name, each in model.tensors.items()}
    z = torch.relu(model.features @ tensors["first"]) @ tensors["second"]
    powers = [torch.linalg.matrix_power(dense(), k) @ z for k in range(4)]
    expected = torch.stack([torch.sigmoid(each @ tensors["gate"]) * each for each in powers]).sum(0)  # eqs. 8 and 9
    torch.testing.assert_close(model.logits(tensors), expected, rtol=1e-4, atol=1e-5)
    without = {name: each for name, each in tensors.items() if name != "gate"}
    torch.testing.assert_close(model.logits(without), torch.stack(powers).mean(0), rtol=1e-4, atol=1e-5)


def test_the_weights_that_count_are_those_best_on_validation() -> None:
    model = learner(CONFIG)
    valid = model.found.of(1)
    by_class = torch.eye(len(model.found.names))[torch.from_numpy(model.found.labels)]
    logits = torch.zeros(GRAPH.nodes, len(model.found.names))
    wrong = logits.clone()
    logits[model.nodes] = by_class
    wrong[model.nodes] = by_class.roll(1, 1)
    for said, best, kept in ((wrong, 0.0, 1.0), (logits, 1.0, 2.0), (wrong, 1.0, 2.0)):  # worse, better, worse again
        model.logits = lambda *_, said=said: said  # type: ignore[method-assign,misc]
        model.tensors["first"] = torch.full_like(model.tensors["first"], kept if said is logits or best == 0 else 3.0)
        model._look()
        assert float(model.best) == best and bool((model.kept["first"] == kept).all())
    assert valid.any()


def test_the_best_weights_come_back_with_the_state() -> None:
    one, other = learner(replace(CONFIG, dropout=0.5)), learner(replace(CONFIG, dropout=0.5))
    for step in range(3):
        one.step(step)
    other.restore({name: each.clone() for name, each in one.state().items()})
    assert torch.equal(one.best, other.best) and all(
        torch.equal(each, other.kept[name]) for name, each in one.kept.items()
    )
    assert one.step(3) == other.step(3)


def test_nodes_of_one_base_concept_are_in_one_part() -> None:
    for seed in range(5):
        found = node_classes(GRAPH, NodeClassesConfig(seed=seed))
        parts: dict[int, set[int]] = {}
        for base, part in zip(found.bases.tolist(), found.part.tolist(), strict=True):
            parts.setdefault(base, set()).add(part)
        assert {len(each) for each in parts.values()} == {1}
        assert len(found.names) <= CLASSES and np.bincount(found.labels[found.of(0)]).min() >= 2


def test_neighbour_means_are_by_kind() -> None:
    features = node_features(GRAPH)
    text = int(GRAPH.of_kind("text")[0])
    edges = GRAPH.edges("describes")
    pictures = features[edges.tail[edges.head == text]]
    found = neighbour_means(GRAPH, features)
    assert np.allclose(found[text, : features.shape[1]], pictures.mean(0), atol=1e-6)  # image before text
    assert not found[GRAPH.of_kind("fact")].any()


def test_heads_by_hand() -> None:
    found = node_classes(GRAPH, NodeClassesConfig())
    features = np.eye(CLASSES)[found.labels].astype(np.float32)
    for scores in (nearest_class(features, found), linear(features, found)):
        assert (scores.argmax(1) == found.labels).all()


def test_features_tell_classes_that_frequency_does_not() -> None:
    rows = {(row["head"], row["features"]): row["top1"] for row in classification(GRAPH).rows}
    assert len(rows) == 5
    assert rows["linear", "own and neighbours"] > rows["most frequent", "none"] + 0.3


def test_a_graph_without_features_or_classes_is_refused() -> None:
    with pytest.raises(DataError, match="features: expected those of one encoder"):
        dagnn(replace(GRAPH, features={}), config=CONFIG)
    kept = GRAPH.triples.relation != GRAPH.relation("of event")
    with pytest.raises(DataError, match="classes: expected two or more"):
        classification(GRAPH.with_triples(GRAPH.triples[kept], GRAPH.part[kept]))
