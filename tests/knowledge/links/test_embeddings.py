"""The learner against autograd and Adagrad of torch, and what is left out of its softmax."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from photopic.core.errors import DataError, DivergedError
from photopic.knowledge.links.embeddings import EmbeddingConfig, LinkEmbeddings
from tests.tiny_link_graph import tiny_link_graph

CONFIG = EmbeddingConfig(steps=3, dim=4, batch=16, negatives=8, dropout=0.0)


@pytest.mark.parametrize("plugin", [False, True])
def test_a_step_is_adagrad_on_the_filtered_cross_entropy(plugin: bool) -> None:
    graph = tiny_link_graph()
    learner = LinkEmbeddings(graph, "complex", plugin, CONFIG)
    true = set(zip(*(getattr(learner.edges, end).tolist() for end in ("head", "relation", "tail")), strict=True))
    copies = {name: each.clone().requires_grad_() for name, each in learner.tensors.items()}
    optimizer = torch.optim.Adagrad(copies.values(), lr=CONFIG.lr)
    for step in range(3):
        edges, drawn = learner._batch(step)
        columns = sorted({*edges.tail.tolist(), *drawn.tolist()})
        vectors = copies["nodes"]
        for kind, (place, rows) in learner.features.items():
            vectors = vectors + torch.where(place[:, None] >= 0, rows[place] @ copies[f"feature.{kind}"], 0.0)
        h, r, t = vectors[edges.head], copies["relations"][edges.relation.astype(int)], vectors[columns]
        scores = learner.scorer(h, r, t)
        for row, (head, relation, tail) in enumerate(zip(edges.head, edges.relation, edges.tail, strict=True)):
            for column, node in enumerate(columns):
                if node != tail and (head, relation, node) in true:
                    scores = scores.index_put((torch.tensor(row), torch.tensor(column)), torch.tensor(-torch.inf))
        loss = F.cross_entropy(scores, torch.tensor([columns.index(each) for each in edges.tail]))
        optimizer.zero_grad()
        (loss + CONFIG.l2 * sum(each.square().sum(-1).mean() for each in (h, r, t))).backward()
        optimizer.step()
        assert learner.step(step)["loss"] == pytest.approx(loss.item(), rel=1e-5)
    for name, each in learner.tensors.items():
        torch.testing.assert_close(each, copies[name].detach(), rtol=1e-4, atol=1e-5)


def test_an_epoch_sees_every_edge_once_in_both_directions() -> None:
    learner = LinkEmbeddings(tiny_link_graph(), "distmult", False, CONFIG)
    per_epoch = len(learner.edges) // CONFIG.batch
    seen = [tuple(edge) for step in range(per_epoch) for edge in np.stack(vars_of(learner._batch(step)[0]), 1).tolist()]
    assert len(set(seen)) == len(seen) == per_epoch * CONFIG.batch
    trained = tiny_link_graph().training()
    assert len(learner.edges) == 2 * len(trained)


def vars_of(edges: object) -> list[np.ndarray]:
    return [getattr(edges, end) for end in ("head", "relation", "tail")]


def test_with_the_plug_in_it_begins_as_the_plain_one() -> None:
    plain, helped = (LinkEmbeddings(tiny_link_graph(), "rotate", plugin, CONFIG).vectors() for plugin in (False, True))
    assert torch.equal(plain, helped)


def test_dropout_leaves_numbers_out_of_a_step_but_not_of_the_result() -> None:
    config = replace(CONFIG, dropout=0.9)
    learners = [LinkEmbeddings(tiny_link_graph(), "distmult", False, each) for each in (CONFIG, config, config)]
    assert torch.equal(learners[0].vectors(), learners[1].vectors())
    losses = [each.step(0)["loss"] for each in learners]
    assert losses[0] != losses[1] == losses[2]


def test_only_the_relations_that_are_named_are_learnt_from() -> None:
    graph = tiny_link_graph()
    learner = LinkEmbeddings(graph, "distmult", False, replace(CONFIG, learn_from=("mentions",)))
    assert set(learner.edges.relation.tolist()) == {0, len(graph.relations)}
    with pytest.raises(DataError, match="expected one of mentions"):
        LinkEmbeddings(graph, "distmult", False, replace(CONFIG, learn_from=("mention",)))


def test_a_loss_that_is_no_number_is_refused() -> None:
    learner = LinkEmbeddings(tiny_link_graph(), "distmult", False, CONFIG)
    learner.tensors["nodes"][:] = torch.inf
    with pytest.raises(DivergedError, match="lower the learning rate"):
        learner.step(0)
