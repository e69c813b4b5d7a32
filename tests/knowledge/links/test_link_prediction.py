"""Counting by hand, what a learnt scorer has to beat, and what is asked of a graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from photopic.core.errors import DataError
from photopic.knowledge.links._link_view import link_view
from photopic.knowledge.links.counting import COUNTERS, Counter
from photopic.knowledge.links.link_prediction import LinkConfig, link_prediction
from photopic.report.html import page
from tests.tiny_link_graph import tiny_link_graph

QUICK = LinkConfig(steps=300, dim=8, batch=32, negatives=16, scorers=("distmult",), lr=0.3)


def test_counters_count_what_they_say() -> None:
    graph = tiny_link_graph()
    counter, trained = Counter(graph), graph.training()
    mentions = trained[trained.relation == 0]
    classes = dict(zip(graph.edges("of event").head.tolist(), graph.edges("of event").tail.tolist(), strict=True))
    head = int(graph.edges("mentions", "test").head[0])
    asked = torch.tensor([head]), torch.tensor([0])
    frequency = np.bincount(mentions.tail, minlength=graph.nodes)
    shared = np.zeros(graph.nodes)
    for source, tail in zip(mentions.head.tolist(), mentions.tail.tolist(), strict=True):
        shared[tail] += classes[source] == classes[head]
    tie = frequency / (frequency.max() + 1)
    assert np.allclose(counter.scores("frequency")(*asked)[0], tie)
    assert np.allclose(counter.scores("same class")(*asked)[0], shared + tie)
    # asked for a head: the same count, of the candidate's class
    word = int(graph.edges("mentions", "test").tail[0])
    inverse = counter.scores("same class")(torch.tensor([word]), torch.tensor([len(graph.relations)]))[0]
    of_class = [int(((mentions.tail == word) & (np.vectorize(classes.get)(mentions.head) == classes[head])).sum())]
    assert int(inverse[head]) == of_class[0]


def test_a_sibling_comes_before_every_count() -> None:
    graph = tiny_link_graph()
    assert graph.bases is not None
    head, other = (int(each) for each in graph.of_kind("text")[[1, 2]])
    bases = graph.bases.copy()
    bases[head] = bases[other]  # a variant of something that is learnt from
    score = Counter(replace(graph, bases=bases, part=np.zeros_like(graph.part))).scores("sibling, then class")
    first = score(torch.tensor([head]), torch.tensor([0]))[0].topk(3).indices.tolist()
    edges = graph.edges("mentions")
    assert set(first) == set(edges.tail[edges.head == other].tolist())
    # asked for a head, the texts of that base come first and its pictures do not
    inverse = score(torch.tensor([first[0]]), torch.tensor([len(graph.relations)]))[0]
    assert inverse[head] > 1e5 and inverse[graph.of_kind("image")].max() < 1e5


def test_learnt_scorers_are_compared_to_counting_on_the_same_links() -> None:
    report = link_prediction(tiny_link_graph(), config=replace(QUICK, features="with"))
    assert [row["scorer"] for row in report.rows] == [*COUNTERS, "distmult with features"]
    rows = {row["scorer"]: row for row in report.rows}
    assert rows["frequency"]["mrr"] < rows["same class"]["mrr"]
    gain = rows["distmult with features"]["mrr"] - max(rows[name]["mrr"] for name in COUNTERS)
    assert rows["distmult with features"]["gain"] == pytest.approx(gain)
    assert not any(rows[name]["above_counting"] for name in COUNTERS)
    assert len(report.ranks["frequency"].rank) == 2 * report.values["links"]
    assert "distmult with features" in page(link_view(report))


def test_ranking_among_the_right_kind_is_easier() -> None:
    everything, kind = (
        link_prediction(tiny_link_graph(), config=replace(QUICK, scorers=(), candidates=among))
        for among in ("all", "kind")
    )
    for one, other in zip(everything.ranks.values(), kind.ranks.values(), strict=True):
        assert (one.candidates > other.candidates).all() and (one.rank >= other.rank).all()


def test_what_the_graph_cannot_answer_is_refused() -> None:
    graph = tiny_link_graph()
    with pytest.raises(DataError, match="relation: expected one of mentions, same thing"):
        link_prediction(graph, config=replace(QUICK, relation="mention"))
    with pytest.raises(DataError, match=r"relation 'describes': expected two or more links kept for test, found 0"):
        link_prediction(graph, config=replace(QUICK, relation="describes"))
    with pytest.raises(DataError, match="features: expected some in the graph, found none"):
        link_prediction(replace(graph, features={}), config=replace(QUICK, features="with"))
