"""Deep propagation on a graph that does not blur: classes by a perceptron, spread K times along edges, gated node by node.

A graph convolution transforms and propagates in each layer, and deep ones make all nodes alike. Here Z = MLP(X) is made once, H_k =
A_hat^k Z for k = 0 to K, and each node weighs its own H_k by s_k = sigmoid(H_k w). K = 0 has no gate and is the perceptron.

Paper: *Towards Deeper Graph Neural Networks* (DAGNN, KDD 2020, arXiv:2007.09296). Changed: none of the mechanism; classes, features
and edges are those of a knowledge graph of pictures. Claims: ``dagnn.*`` of benchmarks/knowledge/dagnn.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Gt, Lt
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from photopic.core.events import Event, Steps
from photopic.core.fit import OptimizedTensors, fit
from photopic.core.method import method
from photopic.core.results import Report
from photopic.core.runs import Run
from photopic.core.view import Lines, Section, Table, View
from photopic.data.knowledge_graph import KnowledgeGraph
from photopic.knowledge.graphs._common import (
    NodeClasses,
    NodeClassesConfig,
    Propagation,
    node_classes,
    node_features,
    smoothness,
)
from photopic.metrics.intervals import bootstrap

LOOKS = 5  # steps between looks at validation


@dataclass(frozen=True, kw_only=True)
class DAGNNConfig(NodeClassesConfig):
    """How deep, and how it is learnt."""

    depth: Annotated[int, Ge(0)] = 10  # K: how many times classes are spread along edges; 0 is the perceptron
    gate: bool = True  # weigh the depths node by node; without, they are averaged
    hidden: Annotated[int, Ge(1)] = 64  # width of the perceptron
    steps: Annotated[int, Ge(1)] = 200  # steps of learning; those weights count that do best on validation
    lr: Annotated[float, Gt(0)] = 1e-2  # size of a step of Adam
    weight_decay: Annotated[float, Ge(0)] = 5e-4  # of all weights
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.5  # share of features and hidden numbers that a step leaves out


def dagnn_view(report: Report) -> View:
    """Accuracy, and how far nodes of few and of many edges look."""
    values = report.values
    sections = [Section("", [Table(["", ""], [[name, f"{value:.4g}"] for name, value in values.items()])])]
    if report.rows:
        lines = [
            (f"nodes of {group} edges", [(row["depth"], row[group]) for row in report.rows])
            for group in ("few", "some", "many")
        ]
        sections.append(Section("Gates", [Lines(lines, "depth k", "mean gate")]))
    return View("Classes by deep propagation", sections, f"{values['accuracy']:.1%} of the test nodes are named right.")


@method(
    paper="arXiv:2007.09296",
    claims="dagnn.",
    command="knowledge dagnn",
    presets={"paper": DAGNNConfig(steps=1000, dropout=0.8, weight_decay=5e-3)},
    examples=("Example: photopic knowledge dagnn my.graph/ --depth 20 -o classes.html",),
    view=dagnn_view,
)
def dagnn(graph: KnowledgeGraph, *, config: DAGNNConfig = DAGNNConfig(), run: Run | None = None) -> Steps[Report]:
    """Tell the class of a graph's nodes from their features and those many edges away.

    Args:
        graph: Built with an encoder, and with classes.
        config: How deep, and how it is learnt.
        run: A run folder to checkpoint in and to resume from.

    Returns:
        ``accuracy`` on test nodes with the bounds of its 95 % interval, ``valid`` accuracy, ``smoothness`` of what is said; a row
        a depth: the mean gate of nodes with few, some and many edges.

    Raises:
        DataError: If the graph has no features, or fewer than two classes with two nodes to learn from.

    Example:
        >>> dagnn(graph).values["accuracy"]  # doctest: +SKIP
        0.63
    """
    found = node_classes(graph, config)
    learner = DAGNN(torch.from_numpy(node_features(graph)), Propagation(graph), found, config)
    yield Event("preparing")
    yield from fit(learner, config.steps, run=run, save_every=50)
    said = learner.best_logits()
    test = found.of(2)
    right = (said.argmax(1).numpy()[found.nodes] == found.labels)[test]
    value, low, high = bootstrap(right.astype(float), groups=found.bases[test].tolist())
    values = {
        "accuracy": value,
        "low": low,
        "high": high,
        "valid": float(learner.best[0]),
        "smoothness": smoothness(said[found.nodes]),
    }
    return Report("deep propagation", values, _gate_rows(learner))


class DAGNN(OptimizedTensors):
    """A learner.

    Args:
        features: X.
        propagate: Z -> A_hat Z.
        found: Nodes and classes.
        config: How.

    Attributes:
        best: Accuracy on validation of the weights that count, kept in ``kept``.
    """

    def __init__(
        self, features: Float[Tensor, "nodes dim"], propagate: Propagation, found: NodeClasses, config: DAGNNConfig
    ):
        self.features, self.propagate, self.found, self.config = features, propagate, found, config
        draw = torch.Generator().manual_seed(config.seed)
        sizes = {"first": (features.shape[1], config.hidden), "second": (config.hidden, len(found.names))}
        tensors = {name: torch.randn(*size, generator=draw) * (2 / size[0]) ** 0.5 for name, size in sizes.items()}
        tensors |= {"gate": torch.zeros(len(found.names), 1)} if config.gate and config.depth else {}
        for each in tensors.values():
            each.requires_grad_()
        optimizer = torch.optim.Adam(tensors.values(), lr=config.lr, weight_decay=config.weight_decay)
        super().__init__(tensors, optimizer, lambda step: config.lr)
        self.best, self.kept = torch.full((1,), -1.0), {name: each.detach().clone() for name, each in tensors.items()}
        self.nodes, self.labels = torch.from_numpy(found.nodes), torch.from_numpy(found.labels)

    def logits(
        self, tensors: Mapping[str, Tensor], draw: torch.Generator | None = None
    ) -> Float[Tensor, "nodes classes"]:
        """sum over k of s_k H_k, or the mean of H_k without a gate (eqs. 8 and 9)."""
        hidden = torch.relu(self._dropped(self.features, draw) @ tensors["first"])
        depths = self.depths(self._dropped(hidden, draw) @ tensors["second"])  # (K + 1, nodes, classes)
        if "gate" not in tensors:
            return depths.mean(0)
        return (self.gates(depths, tensors["gate"]) * depths).sum(0)

    def depths(self, values: Float[Tensor, "nodes classes"]) -> Float[Tensor, "depths nodes classes"]:
        """H_0 = Z to H_K = A_hat^K Z."""
        found = [values]
        for _ in range(self.config.depth):
            found.append(self.propagate(found[-1]))
        return torch.stack(found)

    @staticmethod
    def gates(
        depths: Float[Tensor, "depths nodes classes"], gate: Float[Tensor, "classes 1"]
    ) -> Float[Tensor, "depths nodes 1"]:
        """s_k = sigmoid(H_k w), a number a node and depth."""
        return torch.sigmoid(depths @ gate)

    def step(self, step: int) -> Mapping[str, float]:
        """One step down the cross-entropy of the training nodes."""
        draw = torch.Generator().manual_seed((self.config.seed << 32) + step)
        train = torch.from_numpy(self.found.of(0))
        loss = F.cross_entropy(self.logits(self.tensors, draw)[self.nodes[train]], self.labels[train])
        self.update(loss, step=step)
        if step % LOOKS == 0 or step + 1 == self.config.steps:
            self._look()
        return {"loss": loss.item(), "accuracy": float(self.best)}

    @torch.no_grad()
    def _look(self) -> None:
        """Keep the weights where validation was never better."""
        valid = torch.from_numpy(self.found.of(1))
        right = (self.logits(self.tensors)[self.nodes[valid]].argmax(1) == self.labels[valid]).float().mean()
        if right > self.best:
            self.best = right.reshape(1)
            self.kept = {name: each.detach().clone() for name, each in self.tensors.items()}

    def _dropped(self, values: Tensor, draw: torch.Generator | None) -> Tensor:
        if draw is None or not self.config.dropout:
            return values
        return values * (torch.rand(values.shape, generator=draw) >= self.config.dropout) / (1 - self.config.dropout)

    @torch.no_grad()
    def best_logits(self) -> Float[Tensor, "nodes classes"]:
        """Of the weights that did best on validation."""
        return self.logits(self.kept)

    def state(self) -> dict[str, Tensor]:
        """What the optimizer has, and the best weights."""
        return super().state() | {"best": self.best} | {f"kept.{name}": each for name, each in self.kept.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put back what ``state`` gave."""
        super().restore(state)
        self.best, self.kept = state["best"].clone(), {name: state[f"kept.{name}"].clone() for name in self.kept}


@torch.no_grad()
def _gate_rows(learner: DAGNN) -> tuple[Mapping[str, Any], ...]:
    """By depth the mean gate of the third of the nodes with fewest edges, the middle third and the third with most."""
    if "gate" not in learner.kept:
        return ()
    hidden = torch.relu(learner.features @ learner.kept["first"])
    gates = learner.gates(learner.depths(hidden @ learner.kept["second"]), learner.kept["gate"])[:, learner.nodes, 0]
    degree = learner.propagate.degree[learner.nodes].numpy()
    thirds = np.array_split(np.argsort(degree, kind="stable"), 3)
    return tuple(
        {
            "depth": depth,
            **{name: float(each[third].mean()) for name, third in zip(("few", "some", "many"), thirds, strict=True)},
        }
        for depth, each in enumerate(gates)
    )
