"""Pictures or texts that are alike: mutual nearest neighbours of encoder features, above what random pairs reach, by faiss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Gt, Le, Lt
from jaxtyping import Float, Int64

from photopic.core.config import Config
from photopic.core.errors import DataError
from photopic.knowledge.graph.tables import NEEDED

EXACT_LIMIT = 1_000_000  # nodes above which every pair is too many
BLOCK = 4_096  # nodes whose neighbours are sought at a time
PAIRS = 100_000  # random pairs that say what cosine chance reaches


@dataclass(frozen=True, kw_only=True)
class SimilarityConfig(Config):
    """When two nodes are called alike."""

    neighbours: Annotated[int, Ge(1)] = 5  # nearest ones that are asked of each; both must name each other
    quantile: Annotated[float, Ge(0), Lt(1)] = 0.95  # share of random pairs whose cosine an edge has to exceed
    search: Literal["exact", "approximate"] = (
        "exact"  # exact up to 1,000,000 nodes; approximate looks into a part of them
    )
    probed: Annotated[float, Gt(0), Le(1)] = 0.05  # share of its cells that an approximate search looks into


@dataclass(frozen=True, eq=False)
class Alike:
    """Pairs of rows that are alike.

    Attributes:
        head: The smaller row of each pair.
        tail: The larger.
        weight: Cosine.
        threshold: Cosine that a pair had to exceed.
    """

    head: Int64[np.ndarray, " pairs"]
    tail: Int64[np.ndarray, " pairs"]
    weight: Float[np.ndarray, " pairs"]
    threshold: float


def alike(features: Float[np.ndarray, "nodes dim"], config: SimilarityConfig, limit: int = EXACT_LIMIT) -> Alike:
    """Pairs that are among each other's nearest and nearer than random pairs are.

    Args:
        features: Rows of length 1.
        config: How many neighbours, above which quantile, and how they are sought.
        limit: Nodes up to which a search is exact.

    Raises:
        DataError: If there are more nodes than an exact search takes, or faiss is not installed.

    Example:
        >>> rows = np.eye(4, 8, dtype=np.float32).repeat(2, axis=0)  # four pairs of twins
        >>> alike(rows, SimilarityConfig(neighbours=1, quantile=0.5)).head
        array([0, 2, 4, 6])
    """
    count = len(features)
    if config.search == "exact" and count > limit:
        raise DataError(
            f"similarity: expected at most {limit:,} nodes for an exact search, found {count:,}; choose "
            "search=approximate, or leave the encoder out"
        )
    if count < 2:
        return Alike(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32), 1.0)
    threshold = _chance(features, config.quantile)
    pairs = [block[:, block[2] > threshold] for block in _nearest(features, config)]
    head, tail, cosine = np.concatenate(pairs, axis=1)  # (3, found)
    forward = head.astype(np.int64) * count + tail.astype(np.int64)  # a number for each ordered pair
    backward = tail.astype(np.int64) * count + head.astype(np.int64)
    both = np.isin(forward, backward) & (head < tail)
    order = np.argsort(forward[both])
    chosen = [each[both][order] for each in (head, tail, cosine)]
    return Alike(chosen[0].astype(np.int64), chosen[1].astype(np.int64), chosen[2].astype(np.float32), threshold)


def _chance(features: Float[np.ndarray, "nodes dim"], quantile: float) -> float:
    """The quantile of the cosine of random pairs of different nodes; the same pairs for the same number of nodes."""
    rng, count = np.random.default_rng(0), len(features)
    first = rng.integers(0, count, PAIRS)
    second = (first + rng.integers(1, count, PAIRS)) % count  # never the node itself
    cosines = [
        np.einsum("nd,nd->n", *(features[each[start : start + BLOCK]].astype(np.float32) for each in (first, second)))
        for start in range(0, PAIRS, BLOCK)
    ]
    return float(np.quantile(np.concatenate(cosines), quantile))


def _nearest(
    features: Float[np.ndarray, "nodes dim"], config: SimilarityConfig
) -> Iterator[Float[np.ndarray, "3 found"]]:
    """Row, neighbour and cosine of the nearest ones of each node, block by block."""
    index = _index(features, config)
    wanted = min(config.neighbours + 1, len(features))  # each finds itself as well
    for start in range(0, len(features), BLOCK):
        cosine, found = index.search(features[start : start + BLOCK].astype(np.float32), wanted)
        row = np.broadcast_to(np.arange(start, start + len(found))[:, None], found.shape)
        # a twin may stand before the node itself, which is then not among those asked for
        kept = (found != row) & (found >= 0)
        kept &= np.cumsum(kept, axis=1) <= config.neighbours
        yield np.stack([row[kept], found[kept], cosine[kept]]).astype(np.float64)


def _index(features: Float[np.ndarray, "nodes dim"], config: SimilarityConfig) -> Any:
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise DataError(f"knowledge: {NEEDED.format(error.name)}") from error
    count, dim = features.shape
    index: Any = faiss.IndexFlatIP(dim)
    if config.search == "approximate":
        cells = max(int(count**0.5), 1)
        # cells of k-means with faiss's fixed seed; each search looks into the nearest of them
        index = faiss.IndexIVFFlat(index, dim, cells, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = max(int(cells * config.probed), 1)
        index.train(np.ascontiguousarray(features[:: max(count // (64 * cells), 1)], np.float32))
    for start in range(0, count, BLOCK):
        index.add(features[start : start + BLOCK].astype(np.float32))
    return index
