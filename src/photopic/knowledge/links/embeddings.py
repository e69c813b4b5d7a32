"""Learning the vectors of nodes and relations by which a scorer tells true tails from others.

Every edge is asked in both directions. The loss is the softmax over the tails of the batch and of nodes drawn for all of it; what
is true in training as well is no wrong answer and left out. With the plug-in a node's vector is its own plus ``W`` times its
feature, one ``W`` a kind, so that what is seldom linked is placed by what it looks like or means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt, Lt
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from photopic.core.config import Config
from photopic.core.errors import DivergedError
from photopic.data.knowledge_graph import KnowledgeGraph, Triples
from photopic.knowledge.links.scorers import SCORERS, Name
from photopic.metrics.link_ranks import KnownTails


@dataclass(frozen=True, kw_only=True)
class EmbeddingConfig(Config):
    """How vectors are learnt."""

    steps: Annotated[int, Ge(1)] = 3000  # steps of learning of each scorer; more takes longer
    dim: Annotated[int, Ge(1)] = 64  # complex numbers of a node, twice as many real ones
    lr: Annotated[float, Gt(0)] = 0.1  # size of a step of Adagrad
    l2: Annotated[float, Ge(0)] = 3e-3  # weight of the squared lengths of the vectors of a batch
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.4  # share of a node's numbers that a step leaves out
    batch: Annotated[int, Ge(1)] = 512  # edges a step
    negatives: Annotated[int, Ge(0)] = 256  # nodes drawn as further wrong answers of a whole batch
    feature_scale: Annotated[float, Gt(0)] = (
        0.1  # length of features before W; Adagrad moves W as far whatever they are
    )
    learn_from: tuple[str, ...] = ()  # relation to learn from, several times; by default all
    seed: Annotated[int, Ge(0)] = 0  # seed of everything random; the same seed learns the same


class LinkEmbeddings:
    """A learner of vectors.

    Args:
        graph: Its training edges are learnt from.
        scorer: Which.
        plugin: Whether features are used.
        config: How.

    Attributes:
        tensors: ``nodes``, ``relations`` and, of each kind with features, ``feature.<kind>``.
    """

    def __init__(self, graph: KnowledgeGraph, scorer: Name, plugin: bool, config: EmbeddingConfig):
        self.scorer, self.config, self.nodes = SCORERS[scorer], config, graph.nodes
        self.relations = 2 * len(graph.relations)
        train = graph.training()
        if config.learn_from:
            train = train[np.isin(train.relation, [graph.relation(name) for name in config.learn_from])]
        self.edges = train.joined(train.reversed(len(graph.relations)))
        self.known = KnownTails(self.edges, self.relations)
        self.features = _features(graph, config.feature_scale) if plugin else {}
        self.tensors = self._start()
        self.squares = {name: torch.zeros_like(each) for name, each in self.tensors.items()}

    def _start(self) -> dict[str, Tensor]:
        width, config = 2 * self.config.dim, self.config
        generator = torch.Generator().manual_seed(config.seed)

        def drawn(rows: int, columns: int, spread: float) -> Tensor:
            return torch.randn(rows, columns, generator=generator) * spread

        relation_width = round(width * self.scorer.relation_width)
        tensors = {
            "nodes": drawn(self.nodes, width, width**-0.5),
            "relations": drawn(self.relations, relation_width, 1.0),
        }
        for kind, (_, rows) in self.features.items():
            tensors[f"feature.{kind}"] = torch.zeros(rows.shape[1], width)  # begins as the plain one
        return tensors

    def step(self, step: int) -> Mapping[str, float]:
        """One step of Adagrad down the cross-entropy of the right tails of a batch; only the rows of its nodes are touched."""
        edges, drawn = self._batch(step)
        columns, target = np.unique(np.concatenate([edges.tail, drawn]), return_inverse=True)
        right = torch.from_numpy(target.reshape(-1)[: len(edges)])
        nodes, place = np.unique(np.concatenate([edges.head, columns]), return_inverse=True)
        rows = {"nodes": torch.from_numpy(nodes)}  # of other tensors all
        leaves = {name: each[rows[name]] if name in rows else each.clone() for name, each in self.tensors.items()}
        with torch.enable_grad():
            for each in leaves.values():
                each.requires_grad_()
            vectors = self._with_features(leaves, rows["nodes"])  # (nodes of the batch, dim)
            if self.config.dropout:  # what is left is scaled up, as torch's dropout does, by a draw of the step alone
                draw = torch.Generator().manual_seed((self.config.seed << 32) + step)
                kept = torch.rand(vectors.shape, generator=draw) >= self.config.dropout
                vectors = vectors * kept / (1 - self.config.dropout)
            heads, tails = (vectors[torch.from_numpy(each)] for each in np.split(place.reshape(-1), [len(edges)]))
            relations = leaves["relations"][torch.from_numpy(edges.relation.astype(np.int64))]
            scores = self.scorer(heads, relations, tails)  # (batch, columns)
            scores = scores.masked_fill(self._also_true(edges, columns, right), -torch.inf)
            loss = F.cross_entropy(scores, right)
            lengths = sum(each.square().sum(-1).mean() for each in (heads, relations, tails))
            self._update(leaves, rows, loss + self.config.l2 * lengths, step)
        return {"loss": loss.item(), "accuracy": float((scores.argmax(1) == right).float().mean())}

    def _update(self, leaves: Mapping[str, Tensor], rows: Mapping[str, Tensor], loss: Tensor, step: int) -> None:
        """Adagrad on the rows of a batch: each number moves by lr g / sqrt(sum of all its g^2)."""
        if not torch.isfinite(loss):
            raise DivergedError(f"step {step + 1}: the loss is {loss.item()}; lower the learning rate")
        for (name, leaf), grad in zip(leaves.items(), torch.autograd.grad(loss, list(leaves.values())), strict=True):
            at = rows.get(name, slice(None))
            self.squares[name][at] += grad.square()
            self.tensors[name][at] = leaf.detach() - self.config.lr * grad / (self.squares[name][at].sqrt() + 1e-10)

    def state(self) -> dict[str, Tensor]:
        """The vectors, and the sums of the squares of their gradients."""
        return {**self.tensors, **{f"squares.{name}": each for name, each in self.squares.items()}}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put back what ``state`` gave."""
        for name, each in self.state().items():
            each.copy_(state[name])

    def _batch(self, step: int) -> tuple[Triples, Int64[np.ndarray, " negatives"]]:
        """Edges of a step, all in random order and then all in another, and nodes drawn for it."""
        size = min(self.config.batch, len(self.edges))
        epoch, place = divmod(step, len(self.edges) // size)
        order = np.random.default_rng((self.config.seed, 1, epoch)).permutation(len(self.edges))
        drawn = np.random.default_rng((self.config.seed, 2, step)).integers(self.nodes, size=self.config.negatives)
        return self.edges[order[place * size : (place + 1) * size]], drawn

    def _also_true(self, edges: Triples, columns: np.ndarray, right: Tensor) -> Tensor:
        """Booleans (batch, columns): tails that training says are true of the question, apart from the right one."""
        place = np.full(self.nodes, -1)
        place[columns] = np.arange(len(columns))
        rows, tails = self.known.of(edges.head, edges.relation)
        here = place[tails] >= 0
        found = torch.zeros(len(edges), len(columns), dtype=torch.bool)
        found[rows[here], place[tails[here]]] = True
        found[torch.arange(len(edges)), right] = False
        return found

    def _with_features(self, tensors: Mapping[str, Tensor], nodes: Int64[Tensor, " n"]) -> Float[Tensor, "n dim"]:
        """Vectors of the nodes of the rows of ``tensors["nodes"]``: their own, plus W times their features."""
        found = tensors["nodes"]
        for kind, (place, rows) in self.features.items():
            at = place[nodes]  # -1 for nodes of other kinds
            mine = (at >= 0).nonzero()[:, 0]
            found = found.index_add(0, mine, rows[at[mine]] @ tensors[f"feature.{kind}"])
        return found

    def vectors(self) -> Float[Tensor, "nodes dim"]:
        """Of all nodes."""
        return self._with_features(self.tensors, torch.arange(self.nodes))

    def scores(self) -> Callable[[Tensor, Tensor], Float[Tensor, "b nodes"]]:
        """Scores of all nodes as tails of heads and relations: what ``filtered_ranks`` asks for."""
        vectors, relations = self.vectors(), self.tensors["relations"]
        return lambda head, relation: self.scorer(vectors[head], relations[relation], vectors)


def _features(graph: KnowledgeGraph, scale: float) -> dict[str, tuple[Int64[Tensor, " nodes"], Float[Tensor, "_ _"]]]:
    """By kind: where each node's row is, -1 for other kinds, and the rows."""
    found = {}
    for kind, rows in sorted(graph.features.items()):
        place = torch.full((graph.nodes,), -1)
        place[torch.from_numpy(graph.of_kind(kind))] = torch.arange(len(rows))
        found[kind] = (place, scale * F.normalize(torch.from_numpy(rows.astype(np.float32)), dim=-1))
    return found
