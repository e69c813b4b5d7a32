"""What a graph says of pictures, families of weight 0, and that pictures of one thing come together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from photopic.core.errors import DataError, FieldError
from photopic.data.knowledge_graph import KnowledgeGraph
from photopic.tune.graph_contrast import GraphContrast, GraphContrastConfig, Neighbours, graph_contrast, read_pictures
from tests.tiny_encoders import tiny_dual_encoder
from tests.tiny_link_graph import tiny_link_graph

QUICK = GraphContrastConfig(steps=3, batch=8)


def without(graph: KnowledgeGraph, relation: str) -> KnowledgeGraph:
    kept = graph.triples.relation != graph.relation(relation)
    return graph.with_triples(graph.triples[kept], graph.part[kept])


def deltas(graph: KnowledgeGraph, config: GraphContrastConfig) -> dict[str, torch.Tensor]:
    return dict(graph_contrast(tiny_dual_encoder(), graph, pictures="emoji-world", config=config).parts[0].deltas)  # type: ignore[attr-defined]


def test_a_family_of_weight_0_is_as_if_its_edges_were_not_there() -> None:
    config = replace(QUICK, picture_weight=0.0)
    with_edges, absent = deltas(tiny_link_graph(), config), deltas(without(tiny_link_graph(), "same thing"), config)
    assert with_edges and all(torch.equal(each, absent[name]) for name, each in with_edges.items())
    both = deltas(tiny_link_graph(), QUICK)
    assert any(not torch.equal(each, both[name]) for name, each in with_edges.items())


def test_partners_are_other_pictures_of_the_same_thing_each_as_likely() -> None:
    neighbours = Neighbours(tiny_link_graph())
    neighbours.thing = np.array([0, 1, 0, 2, 0, 0])  # one of four, two alone
    rng, anchors = np.random.default_rng(0), np.tile(np.arange(6), 3000)
    found = neighbours.partners(anchors, rng)
    assert (found[anchors == 1] == 1).all() and (found[anchors == 3] == 3).all()
    for anchor in (0, 2, 4, 5):
        drawn, counts = np.unique(found[anchors == anchor], return_counts=True)
        assert set(drawn) == {0, 2, 4, 5} - {anchor} and counts.min() > 900


def test_all_texts_of_a_picture_in_a_batch_are_right_for_it() -> None:
    graph = tiny_link_graph()
    learner = GraphContrast(tiny_dual_encoder(), Neighbours(graph), "emoji-world", QUICK)
    edges, places = graph.edges("describes"), np.arange(4)
    true = set(zip(edges.tail.tolist(), edges.head.tolist(), strict=True))
    images = torch.nn.functional.normalize(torch.randn(4, learner.texts.shape[1]), dim=-1)
    logits = learner.model.logit_scale * images @ learner.texts[:3].mT
    right = torch.tensor(
        [
            [(int(learner.neighbours.pictures[p]), int(learner.neighbours.texts[t])) in true for t in range(3)]
            for p in places
        ]
    )
    one = [-logits[p].log_softmax(0)[right[p]].mean() for p in places if right[p].any()]
    other = [-logits[:, t].log_softmax(0)[right[:, t]].mean() for t in range(3) if right[:, t].any()]
    expected = (torch.stack(one).mean() + torch.stack(other).mean()) / 2
    torch.testing.assert_close(learner._pairs(images, places, np.arange(3)), expected)


def test_pictures_of_one_thing_come_nearer_each_other() -> None:
    graph, config = (
        tiny_link_graph(),
        GraphContrastConfig(steps=40, batch=8, pair_weight=0.0, picture_weight=1.0, lr=3e-3, augment=False),
    )
    model = tiny_dual_encoder()
    edit = graph_contrast(model, graph, pictures="emoji-world", config=config)
    uris = [graph.uris[node] for node in graph.of_kind("image")]

    def gap() -> float:
        """Mean cosine of the two drawings of a thing, above that of any two."""
        features = model.image_features(read_pictures(uris, "emoji-world"))
        return float((features[::2] * features[1::2]).sum(1).mean() - (features @ features.mT).mean())

    before = gap()
    model.edits.load(edit)
    assert gap() > 1.5 * before > 0


def test_pictures_are_read_from_their_folder(tmp_path: Path) -> None:
    Image.new("RGB", (5, 4), (1, 2, 3)).save(tmp_path / "a.png")
    assert read_pictures(["a.png"], str(tmp_path))[0].shape == (4, 5, 3)
    with pytest.raises(DataError, match=r"b\.png"):
        read_pictures(["b.png"], str(tmp_path))


def test_a_graph_without_captioned_pictures_and_no_weight_at_all_are_refused() -> None:
    with pytest.raises(DataError, match="two or more pictures with a text that describes them, found 0"):
        graph_contrast(
            tiny_dual_encoder(), without(tiny_link_graph(), "describes"), pictures="emoji-world", config=QUICK
        )
    with pytest.raises(FieldError, match="found 0 for both"):
        GraphContrastConfig(pair_weight=0.0, picture_weight=0.0)
