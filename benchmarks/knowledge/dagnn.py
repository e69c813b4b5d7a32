"""How deep may one propagate on the concept graph: decoupled with a gate (DAGNN), without, and as a graph convolution.

    python -m benchmarks dagnn                 # writes benchmarks/results/dagnn.json

Graph: names and keywords of the emoji world's concepts (1,914 texts, and keywords used twice or more), joined by ``mentions`` and
``continues``; features of ``emoji-clip-vit``'s text encoder. Asked for: the group of a concept (coarse classes). Base concepts are
parted .6, .2, .2 by the seed, and pairs share the parts and the start.

Protocol, written before the run. Five seeds; depths 0, 2, 10, 30, 50 for DAGNN, 10 and 30 without the gate and with shuffled
edges, and 2, 10, 30 for the graph convolution (H <- relu(A_hat H W), as wide as DAGNN's perceptron, same optimizer, steps and
dropout; those weights count that do best on validation). DAGNN's learning rate, dropout and steps are the method's defaults, for
all arms alike.

- ``dagnn.depth_gain``: test accuracy at depth 30, DAGNN minus graph convolution; baseline: the convolution; control: DAGNN with
  shuffled edges minus the convolution. Intervals: Student's t over seeds.
- ``dagnn.depth_kept``: DAGNN at depth 50 minus its best depth from 10 to 50, 0 or below; the paper's property asks for no more than
  one point lost. ``dagnn.gate_gain``: at depth 30, with the gate minus without. ``dagnn.edge_gain``: true minus shuffled edges.
  ``dagnn.perceptron_gain``: depth 10 minus depth 0. ``dagnn.gate_by_degree``: mean gate at depth 10 of nodes with many edges minus
  those with few. ``dagnn.accuracy_*``: each arm and depth.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.cache import ResultCache
from benchmarks.knowledge.emoji_graph import emoji_graph
from photopic.core.config import Config
from photopic.core.events import finished
from photopic.core.fit import fit
from photopic.data.knowledge_graph import KnowledgeGraph, Triples
from photopic.knowledge.graphs._common import Propagation, node_classes, node_features
from photopic.knowledge.graphs.dagnn import DAGNN, DAGNNConfig, dagnn
from photopic.metrics.intervals import student

DEPTHS = {
    "dagnn": (0, 2, 10, 30, 50),
    "ungated": (10, 30),
    "shuffled": (10, 30),
    "convolution": (2, 10, 30),
}
DEEP, SHALLOW = 30, 10
CLAIMS = (
    Claim("dagnn.depth_gain", "low > 0", "accuracy at depth 30, DAGNN minus a graph convolution"),
    Claim("dagnn.depth_kept", ">= -0.01", "accuracy at depth 50 minus that of the best depth from 10 on"),
    Claim("dagnn.gate_gain", "", "accuracy at depth 30, with the gate minus the mean of all depths"),
    Claim("dagnn.edge_gain", "low > 0", "accuracy at depth 10, true minus shuffled edges"),
    Claim("dagnn.perceptron_gain", "", "accuracy at depth 10 minus depth 0, the perceptron"),
    Claim("dagnn.gate_by_degree", "", "mean gate at depth 10, nodes with many edges minus those with few"),
    Claim("dagnn.accuracy_*", "", "test accuracy"),
)


@dataclass(frozen=True)
class DepthConfig(Config):
    """How much is measured."""

    steps: Annotated[int, Ge(1)] = 150  # of each arm
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)  # of parts and starts
    arms: tuple[str, ...] = tuple(DEPTHS)  # which


@dataclass(frozen=True)
class Case:
    """One arm at one depth with one seed."""

    arm: str
    depth: int
    seed: int
    steps: int


class Convolution(DAGNN):
    """A graph convolution: a layer transforms and propagates, as many as it is deep."""

    def __init__(self, features: Tensor, propagate: Propagation, found: Any, config: DAGNNConfig):
        super().__init__(features, propagate, found, replace(config, gate=False))
        draw = torch.Generator().manual_seed(config.seed + 1)
        hidden = {
            f"layer.{layer}": (torch.randn(config.hidden, config.hidden, generator=draw) * (2 / config.hidden) ** 0.5)
            for layer in range(config.depth - 2)
        }
        self.tensors |= {name: each.requires_grad_() for name, each in hidden.items()}
        self.optimizer = torch.optim.Adam(self.tensors.values(), lr=config.lr, weight_decay=config.weight_decay)
        self.kept = {name: each.detach().clone() for name, each in self.tensors.items()}

    def logits(self, tensors: Mapping[str, Tensor], draw: torch.Generator | None = None) -> Tensor:
        """H <- relu(A_hat H W), layer by layer; the last without relu."""
        names = ["first", *(name for name in tensors if name.startswith("layer.")), "second"]
        values = self.features
        for name in names:
            values = self.propagate(self._dropped(values, draw) @ tensors[name])
            values = values if name == "second" else torch.relu(values)
        return values


def cases(config: DepthConfig) -> list[Case]:
    """Every arm at each of its depths with every seed."""
    return [
        Case(arm, depth, seed, config.steps) for seed in config.seeds for arm in config.arms for depth in DEPTHS[arm]
    ]


def opened(config: DepthConfig, cache: ResultCache) -> KnowledgeGraph:
    """Names, keywords and their classes."""
    graph = emoji_graph(cache, features=("entity", "text"))
    nodes = np.flatnonzero(graph.kind != graph.kinds.index("image"))  # pictures are left out
    place = np.full(graph.nodes, -1)
    place[nodes] = np.arange(len(nodes))
    edges = graph.triples
    kept = (place[edges.head] >= 0) & (place[edges.tail] >= 0)
    return replace(
        graph,
        kind=graph.kind[nodes],
        texts=tuple(graph.texts[node] for node in nodes.tolist()),
        triples=Triples(place[edges.head[kept]], edges.relation[kept], place[edges.tail[kept]]),
        part=graph.part[kept],
        bases=np.asarray(graph.bases)[nodes],
        uris=(),
    )


def measure(bench: Bench[DepthConfig, KnowledgeGraph], case: Case) -> dict[str, float]:
    """Test accuracy, and of DAGNN the difference of gates."""
    graph = bench.subject
    config = DAGNNConfig(level="coarse", depth=case.depth, gate=case.arm != "ungated", steps=case.steps, seed=case.seed)
    if case.arm == "convolution":
        found = node_classes(graph, config)
        learner = Convolution(torch.from_numpy(node_features(graph)), Propagation(graph), found, config)
        finished(fit(learner, case.steps))
        said, test = learner.best_logits().argmax(1).numpy()[found.nodes], found.of(2)
        return {"accuracy": float((said == found.labels)[test].mean())}
    given = graph.with_triples(_shuffled(graph, case.seed), graph.part) if case.arm == "shuffled" else graph
    report = dagnn(given, config=config)
    gates = report.rows[SHALLOW]["many"] - report.rows[SHALLOW]["few"] if len(report.rows) > SHALLOW else 0.0
    return {"accuracy": report.values["accuracy"], "gates": gates}


def _shuffled(graph: KnowledgeGraph, seed: int) -> Triples:
    """Tails of all edges but those to classes, permuted within their relation."""
    tails, rng = graph.triples.tail.copy(), np.random.default_rng(seed)
    for number, relation in enumerate(graph.relations):
        rows = np.flatnonzero(graph.triples.relation == number)
        tails[rows] = tails[rng.permutation(rows)] if relation.name != "of event" else tails[rows]
    return replace(graph.triples, tail=tails)


def rows(bench: Bench[DepthConfig, KnowledgeGraph]) -> Iterator[Row]:
    """All claims; seeds are paired."""
    seeds, steps = bench.config.seeds, bench.config.steps
    found = {
        (arm, depth): [bench.found(Case(arm, depth, seed, steps)) for seed in seeds]
        for arm in bench.config.arms
        for depth in DEPTHS[arm]
    }
    accuracy = {key: np.array([each["accuracy"] for each in several]) for key, several in found.items()}
    n = len(seeds)
    for (arm, depth), each in accuracy.items():
        yield row(f"dagnn.accuracy_{arm}_{depth}", student(each), n=n)
    deep, plain = accuracy["dagnn", DEEP], accuracy["convolution", DEEP]
    control = (accuracy["shuffled", DEEP] - plain).mean()
    yield row("dagnn.depth_gain", student(deep - plain), n=n, baseline=plain.mean(), control=control)
    best = max(
        (depth for depth in DEPTHS["dagnn"] if depth >= SHALLOW), key=lambda depth: accuracy["dagnn", depth].mean()
    )
    yield row(
        "dagnn.depth_kept", student(accuracy["dagnn", 50] - accuracy["dagnn", best]), n=n, note=f"best depth {best}"
    )
    yield row(
        "dagnn.gate_gain", student(deep - accuracy["ungated", DEEP]), n=n, baseline=accuracy["ungated", DEEP].mean()
    )
    shuffled = accuracy["shuffled", SHALLOW]
    yield row("dagnn.edge_gain", student(accuracy["dagnn", SHALLOW] - shuffled), n=n, baseline=shuffled.mean())
    perceptron = accuracy["dagnn", 0]
    yield row(
        "dagnn.perceptron_gain", student(accuracy["dagnn", SHALLOW] - perceptron), n=n, baseline=perceptron.mean()
    )
    yield row("dagnn.gate_by_degree", student([each["gates"] for each in found["dagnn", SHALLOW]]), n=n)


FULL = DepthConfig()
BENCHMARKS = (
    Benchmark(
        "dagnn", __doc__, FULL, replace(FULL, steps=2, seeds=(0, 1)), CLAIMS, rows, cases, measure, open=opened, seeds=FULL.seeds,
        folder="links",
    ),
)  # fmt: skip
