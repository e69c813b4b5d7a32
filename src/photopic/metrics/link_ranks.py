"""Filtered realistic ranks of links: where the right tail of ``(head, relation, ?)`` stands among all candidates.

Every *other* tail that is true, in training, validation or test, is taken out first; of equal scores the mean place counts, so that
a scorer which says the same of all is worth what chance is. A head is asked for as the tail of the inverse relation. All answers of
one question share one row of scores, and a batch of questions is one call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from photopic.core.errors import DataError
from photopic.data.knowledge_graph import Triples
from photopic.metrics.intervals import Interval, bootstrap, ratio_bootstrap

Score = Callable[[Tensor, Tensor], Tensor]  # heads (b,), relations (b,) -> scores (b, nodes), of its own memory
HITS = (1, 3, 10)


class KnownTails:
    """Which tails are true of a head and a relation, found in one look.

    Args:
        triples: All that is true, inverse edges among them.
        relations: How many relations there are, inverse ones among them.

    Example:
        >>> known = KnownTails(Triples(np.array([0, 0]), np.zeros(2, np.int16), np.array([2, 1])), 1)
        >>> known.of(np.array([0]), np.array([0]))
        (array([0, 0]), array([1, 2]))
    """

    def __init__(self, triples: Triples, relations: int):
        self.relations = relations
        questions = triples.head * relations + triples.relation
        order = np.lexsort((triples.tail, questions))
        self.tails, self.questions = triples.tail[order], questions[order]

    def of(
        self, heads: Int64[np.ndarray, " b"], relations: Int[np.ndarray, " b"]
    ) -> tuple[Int64[np.ndarray, " found"], Int64[np.ndarray, " found"]]:
        """Of each question its true tails: the number of the question within the batch, and the tail."""
        asked = heads * self.relations + relations
        starts, ends = (np.searchsorted(self.questions, asked, side) for side in ("left", "right"))
        counts = ends - starts
        rows = np.repeat(np.arange(len(asked)), counts)
        # the count-th entry behind each start, without a loop
        within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        return rows, self.tails[np.repeat(starts, counts) + within]


@dataclass(frozen=True, eq=False)
class LinkRanks:
    """Ranks of links, from 1, with the number of candidates that each was ranked among.

    Attributes:
        rank: Of each link; halves where scores are equal.
        candidates: How many there were, itself among them.
    """

    rank: Float[np.ndarray, " n"]
    candidates: Int64[np.ndarray, " n"]

    @property
    def reciprocal(self) -> Float[np.ndarray, " n"]:
        """1 / rank, whose mean is the MRR."""
        return 1 / self.rank


def filtered_ranks(
    score: Score, links: Triples, known: KnownTails, *, candidates: Bool[np.ndarray, "relations nodes"] | None = None,
    batch: int = 256,
) -> LinkRanks:  # fmt: skip
    """Rank the tail of each link among all candidates that are not true of its head and relation as well.

    Args:
        score: Scores of all nodes as tails, a larger one for a likelier; it is called once for each batch of questions.
        links: What is ranked; heads are asked for by inverse relations.
        known: All true tails, of training, validation and test, the links themselves among them.
        candidates: Which nodes may stand behind each relation; None: all.
        batch: Questions a call.

    Returns:
        ``#greater + (#equal + 1) / 2``, the link itself among the equal.

    Raises:
        DataError: If there is no link, or a score is not a number.

    Example:
        >>> links = Triples(np.array([0]), np.zeros(1, np.int16), np.array([1]))
        >>> filtered_ranks(lambda h, r: torch.zeros(len(h), 5), links, KnownTails(links, 1)).rank
        array([3.])
    """
    if not len(links):
        raise DataError("links: expected one or more to rank, found none")
    questions, asked = np.unique(links.head * known.relations + links.relation, return_inverse=True)
    heads, relations = np.divmod(questions, known.relations)
    order = np.argsort(asked, kind="stable")  # links by their question
    bounds = np.searchsorted(asked[order], np.arange(0, len(questions) + batch, batch))
    rank, count = np.empty(len(links)), np.empty(len(links), np.int64)
    for number, start in enumerate(range(0, len(questions), batch)):
        chosen = order[bounds[number] : bounds[number + 1]]
        part = slice(start, start + batch)
        rank[chosen], count[chosen] = _ranked(
            score, heads[part], relations[part], asked[chosen] - start, links.tail[chosen], known, candidates
        )
    return LinkRanks(rank, count)


@torch.no_grad()
def _ranked(
    score: Score, heads: np.ndarray, relations: np.ndarray, rows: np.ndarray, tails: np.ndarray,
    known: KnownTails, candidates: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Ranks and candidates of the links ``(rows[i], tails[i])`` of one batch of questions."""
    scores = score(torch.from_numpy(heads), torch.from_numpy(relations))  # (questions, nodes)
    if bool(scores.isnan().any()):
        raise DataError("scores: expected numbers, found nan; lower the learning rate")
    right = scores[rows, tails].clone()  # (links,), before the true tails are taken out
    question, taken = known.of(heads, relations)
    if candidates is None:
        others = np.full(len(heads), scores.shape[1]) - np.bincount(question, minlength=len(heads))
    else:
        allowed = candidates[relations]  # (questions, nodes)
        others = allowed.sum(1) - np.bincount(question[allowed[question, taken]], minlength=len(heads))
        scores.masked_fill_(torch.from_numpy(~allowed), -torch.inf)
    scores[question, taken] = -torch.inf
    greater, equal = torch.empty(len(rows)), torch.empty(len(rows))
    for index in range(0, len(rows), 64):  # blocks that stay in the cache
        block = scores[rows[index : index + 64]]  # (64, nodes)
        own = right[index : index + 64, None]
        greater[index : index + 64] = (block > own).sum(1)
        equal[index : index + 64] = (block == own).sum(1)  # without the link itself, which is taken out too
    return (greater + (equal + 2) / 2).double().numpy(), others[rows] + 1


def link_metrics(ranks: LinkRanks, groups: Sequence[object] | np.ndarray | None = None) -> dict[str, Interval]:
    """MRR, Hits@1, 3, 10 and the adjusted mean rank index, each with a bootstrap interval over links.

    The index is 1 - (mean rank - 1) / (mean rank of chance - 1): 1 is perfect, 0 chance, below 0 worse.

    Args:
        ranks: Of the links.
        groups: Label of each link; those with one label, such as both directions of an edge, are resampled together.

    Example:
        >>> link_metrics(LinkRanks(np.ones(4), np.full(4, 9)))["mrr"].value
        1.0
    """
    labels = None if groups is None else list(groups)
    found = {"mrr": bootstrap(ranks.reciprocal, groups=labels)}
    found |= {f"hits_at_{k}": bootstrap((ranks.rank <= k).astype(float), groups=labels) for k in HITS}
    chance = (ranks.candidates - 1) / 2  # (m + 1) / 2 - 1: expected rank above the first
    worse = ratio_bootstrap(ranks.rank - 1, chance, groups=labels)
    return found | {"adjusted_mean_rank_index": Interval(1 - worse.value, 1 - worse.high, 1 - worse.low)}
