"""Which links of a knowledge graph are missing: four learnt scorers, plain and with features, beside counting without learning.

Counting comes first: a scorer counts as working only where its interval lies above what counting reaches on the same links. Links
are kept apart by base concept, both directions on one side, and ranked filtered among all nodes or among those of the right kind.

Papers: UKnow (arXiv:2302.06891) for graph and plug-in; its losses and settings are not published, so those here are our own:
softmax over in-batch and shared negatives, both directions, Adagrad. Scorers: ``knowledge/links/scorers.py``. Claims: ``uknow.*``
of benchmarks/knowledge/links.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge
from jaxtyping import Bool

from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.fit import fit
from photopic.core.method import method
from photopic.core.results import Report
from photopic.core.runs import Run
from photopic.data.knowledge_graph import KnowledgeGraph
from photopic.knowledge.links._link_view import link_view
from photopic.knowledge.links.counting import COUNTERS, Counter
from photopic.knowledge.links.embeddings import EmbeddingConfig, LinkEmbeddings
from photopic.knowledge.links.scorers import Name
from photopic.metrics.intervals import paired_bootstrap
from photopic.metrics.link_ranks import KnownTails, LinkRanks, Score, filtered_ranks, link_metrics

METRICS = {
    "mrr": "MRR",
    "hits_at_1": "Hits@1",
    "hits_at_3": "Hits@3",
    "hits_at_10": "Hits@10",
    "adjusted_mean_rank_index": "AMRI",
}


@dataclass(frozen=True, kw_only=True)
class LinkConfig(EmbeddingConfig):
    """Which links are asked for, of whom, among what."""

    relation: str = "mentions"  # relation whose links are asked for; the graph keeps some of them apart
    scorers: tuple[Name, ...] = (
        "transe",
        "distmult",
        "complex",
        "rotate",
    )  # learnt scorers, commas between
    features: Literal["without", "with", "both"] = "both"  # whether vectors are helped by the nodes' features
    candidates: Literal["all", "kind"] = (
        "all"  # rank among all nodes, or among those of the right kind, which is easier
    )
    measure: Literal["valid", "test"] = "test"  # links to measure on; choose settings on valid
    shown: Annotated[int, Ge(0)] = 8  # links on the page for which the best scorer's first guesses are shown


@dataclass(frozen=True)
class LinkReport(Report):
    """A report with the ranks that it is made of.

    Attributes:
        ranks: By row, of every link: first asked for the tail, then for the head.
        guesses: Of some links what the best scorer says first: ``head``, ``relation``, ``right``, ``rank``, ``guesses``.
    """

    ranks: Mapping[str, LinkRanks] = field(default_factory=dict)
    guesses: Sequence[Mapping[str, Any]] = ()


@method(
    paper="arXiv:2302.06891",
    claims="uknow.",
    command="knowledge link",
    examples=(
        "Example: photopic knowledge link my.graph/ -o links.html",
        "One scorer: photopic knowledge link my.graph/ --scorers distmult --features with -o links.html",
    ),
    view=link_view,
)
def link_prediction(
    graph: KnowledgeGraph, *, config: LinkConfig = LinkConfig(), run: Run | None = None
) -> Steps[LinkReport]:
    """Predict missing links of a graph, by counting and by learnt vectors, and say which of them really work.

    Args:
        graph: With links kept apart for validation and test.
        config: Which links, scorers and candidates.
        run: A run folder to checkpoint in and to resume from.

    Returns:
        A row a counter and scorer: MRR, Hits@1, 3, 10 and the adjusted mean rank index over both directions, each with the bounds
        of its 95 % interval, and ``above_counting``: whether the interval of its MRR minus the best counter's lies above zero.

    Raises:
        DataError: If the graph knows no such relation, keeps fewer than two of its links apart, or has no features where they are
            asked for.

    Example:
        >>> link_prediction(graph).rows[0]["scorer"]  # doctest: +SKIP
        'frequency'
    """
    asked = Asked(graph, config.relation, config.measure, config.candidates)
    yield Event("counting", 0, len(COUNTERS))
    counter, ranks, scores = Counter(graph), {}, {}
    for number, name in enumerate(COUNTERS, 1):
        ranks[name] = asked.ranks(counter.scores(name))
        yield Event("counting", number, len(COUNTERS), {"mrr": ranks[name].reciprocal.mean()})
    for scorer, with_features in _wanted(graph, config):
        name = f"{scorer} with features" if with_features else scorer
        learner = LinkEmbeddings(graph, scorer, with_features, config)
        yield from fit(
            learner,
            config.steps,
            run=run and run.part(name.replace(" ", "-")),
            save_every=500,
            stage=f"learning {name}",
        )
        scores[name] = learner.scores()
        ranks[name] = asked.ranks(scores[name])
    best = max(scores, key=lambda name: ranks[name].reciprocal.mean(), default="")
    guesses = asked.guesses(scores[best], ranks[best], config.shown) if best else ()
    values = {"relation": config.relation, "links": len(asked.links), "candidates": config.candidates, "best": best}
    return LinkReport("link prediction", values, _rows(ranks, asked), ranks=ranks, guesses=guesses)


def _wanted(graph: KnowledgeGraph, config: LinkConfig) -> list[tuple[Name, bool]]:
    if config.features == "with" and not graph.features:
        raise DataError(
            "features: expected some in the graph, found none; build it with --encoder, or take --features without"
        )
    ways = {"without": (False,), "with": (True,), "both": (False, True) if graph.features else (False,)}[
        config.features
    ]
    return [(scorer, way) for scorer in config.scorers for way in ways]


class Asked:
    """The links that are asked for, in both directions, and how they are ranked.

    Args:
        graph: With links kept apart.
        relation: Of the links.
        part: ``valid`` or ``test``.
        among: ``all`` nodes, or those of the ``kind`` that the relation has on that side.

    Attributes:
        links: One direction.

    Raises:
        DataError: If fewer than two links are kept apart.
    """

    def __init__(self, graph: KnowledgeGraph, relation: str, part: str, among: str = "all"):
        self.graph, number, count = graph, graph.relation(relation), len(graph.relations)
        self.links = graph.edges(relation, part)
        if len(self.links) < 2:
            raise DataError(
                f"relation {relation!r}: expected two or more links kept for {part}, found {len(self.links)}; build the graph with "
                f"--split '{relation}', or ask for another"
            )
        everything = graph.triples  # train, valid and test: what is true is no wrong answer, wherever it stands
        self.known = KnownTails(everything.joined(everything.reversed(count)), 2 * count)
        self.both = self.links.joined(self.links.reversed(count))
        self.candidates = self._of_kind(number) if among == "kind" else None

    def _of_kind(self, relation: int) -> Bool[np.ndarray, "relations nodes"]:
        """Nodes of the kinds that edges of the relation have at their tails, and of its inverse at their heads."""
        graph = self.graph
        edges = graph.triples[graph.triples.relation == relation]
        allowed = np.ones((2 * len(graph.relations), graph.nodes), bool)
        allowed[relation] = np.isin(graph.kind, graph.kind[edges.tail])
        allowed[relation + len(graph.relations)] = np.isin(graph.kind, graph.kind[edges.head])
        return allowed

    def ranks(self, score: Score) -> LinkRanks:
        """Of all links: first asked for the tail, then for the head."""
        return filtered_ranks(score, self.both, self.known, candidates=self.candidates)

    @property
    def groups(self) -> np.ndarray:
        """Both directions of an edge are one, for intervals."""
        return np.tile(np.arange(len(self.links)), 2)

    def guesses(self, score: Score, ranks: LinkRanks, count: int) -> tuple[dict[str, Any], ...]:
        """Of links spread over the ranks what is said first when the tail is asked for, without what training knows."""
        texts, found = self.graph.texts, []
        order = np.argsort(ranks.rank[: len(self.links)], kind="stable")
        for place in order[np.linspace(0, len(order) - 1, min(count, len(order))).astype(int)]:
            head, relation, tail = (int(getattr(self.links, end)[place]) for end in ("head", "relation", "tail"))
            scores = score(torch.tensor([head]), torch.tensor([relation]))[0]  # (nodes,)
            trained = self.graph.training()
            scores[trained.tail[(trained.head == head) & (trained.relation == relation)]] = -torch.inf
            first = scores.topk(min(5, len(scores))).indices.tolist()
            found.append({
                "head": texts[head], "relation": self.graph.relations[relation].name, "right": texts[tail],
                "rank": float(ranks.rank[place]), "guesses": [texts[each] for each in first],
            })  # fmt: skip
        return tuple(found)


def _rows(ranks: Mapping[str, LinkRanks], asked: Asked) -> tuple[Mapping[str, Any], ...]:
    best = max(COUNTERS, key=lambda name: ranks[name].reciprocal.mean())
    rows = []
    for name, each in ranks.items():
        row: dict[str, Any] = {"scorer": name}
        for metric, (value, low, high) in link_metrics(each, asked.groups).items():
            row |= {metric: value, f"{metric}_low": low, f"{metric}_high": high}
        # the same links for both, so the difference has the smaller interval
        gain = paired_bootstrap(each.reciprocal, ranks[best].reciprocal, groups=list(asked.groups))
        rows.append(row | {"gain": gain.value, "above_counting": name not in COUNTERS and gain.low > 0})
    return tuple(rows)
