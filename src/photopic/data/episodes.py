"""Few-shot episodes: a few classes, a few labelled samples of each to learn from and a few others to judge by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from photopic.core.errors import DataError


class Episodes(NamedTuple):
    """Several episodes of one shape, as indices of samples.

    Attributes:
        classes: The classes of each episode in random order.
        support: Labelled samples of each class.
        queries: Samples to judge, others than the support.
    """

    classes: Int64[np.ndarray, "episodes way"]
    support: Int64[np.ndarray, "episodes way shots"]
    queries: Int64[np.ndarray, "episodes way each"]


def draw_episodes(
    labels: Int64[np.ndarray, "n"],
    names: Sequence[str],
    *,
    episodes: int,
    way: int = 5,
    shots: int = 1,
    queries: int = 1,
    seed: int | Sequence[int] = 0,
    groups: Sequence[int] | None = None,
    within: float = 0.0,
) -> Episodes:
    """Draw episodes; each has a generator of its own, so the first ten of a hundred are those of ten.

    Args:
        labels: The class of each sample, from 0.
        names: What the classes are called, for messages.
        episodes: How many.
        way: Classes an episode.
        shots: Labelled samples a class.
        queries: Judged samples a class.
        seed: The same seed draws the same.
        groups: The group of each class: classes of one group are hard to tell apart, such as motions of one object.
        within: Share of episodes whose classes are all of one group; no other group than one of ``way`` classes is used.

    Raises:
        DataError: If there are fewer classes than ``way``, a class has too few samples, or no group has ``way`` classes.

    Example:
        >>> draw_episodes(np.array([0, 0, 1, 1]), ("a", "b"), episodes=3, way=2).support.shape
        (3, 2, 1)
    """
    if min(way - 1, shots, queries, episodes) < 1:
        raise DataError(f"episodes: expected 2 or more classes and 1 or more of each, found {way}, {shots}, {queries}")
    if len(names) < way:
        raise DataError(
            f"episodes: expected {way} or more classes, found {len(names)}; ask for fewer classes an episode"
        )
    members = [np.flatnonzero(labels == number) for number in range(len(names))]  # the samples of each class
    for name, found in zip(names, members, strict=True):
        if len(found) < shots + queries:
            raise DataError(
                f"class {name!r}: expected {shots + queries} or more ({shots} to learn from, {queries} to judge by), "
                f"found {len(found)}; add some or ask for fewer"
            )
    pools = [np.flatnonzero(np.equal(groups, each)) for each in dict.fromkeys(groups)] if groups and within else []
    pools = [pool for pool in pools if len(pool) >= way]
    if within and not pools:
        raise DataError(f"episodes within a group: expected a group of {way} or more classes, found none; leave it out")
    prefix = [seed] if isinstance(seed, int) else list(seed)
    classes, chosen = [], []
    for number in range(episodes):
        rng = np.random.default_rng([*prefix, number])  # of its own, so that more episodes change none
        inside = within > 0 and rng.random() < within
        pool = pools[int(rng.integers(len(pools)))] if inside else np.arange(len(names))
        classes.append(rng.choice(pool, way, replace=False))
        chosen.append([rng.choice(members[each], shots + queries, replace=False) for each in classes[-1]])
    samples: np.ndarray = np.array(chosen)  # (episodes, way, shots + queries)
    return Episodes(np.array(classes), samples[..., :shots], samples[..., shots:])
