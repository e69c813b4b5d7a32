"""What runs in the race and by which rules, stated before any result: subjects, methods, grids, groups, prompts, boxes.

Nothing here imports torch or looks at a result; `chosen` is the rule that a result is put into.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Annotated

from annotated_types import Ge

from photopic.core.config import Config
from photopic.data import scenes, splits

Box = tuple[float, float, float, float]  # left, top, right, bottom as fractions of the side, from the top left

# Subjects of the test: of the eight of `subjects.EIGHT`, the five on which composing was not tried out.
TEST = ("zebra", "parrot", "tropical fish", "doughnut", "fire engine")
# Subjects of the tuning: the first two of `splits.SUBJECTS` that are not in `EIGHT` and have different nouns.
TUNING_ON = ("polar bear", "tiger")
DRIFT_BOUND = 0.10  # mean 1 - cosine on unrelated prompts that a setting may cost to be chosen


@dataclass(frozen=True)
class Method:
    """One way of customising, with its grid.

    Attributes:
        name: Of its claims.
        rates: Learning rates tried: the documented one, then ten times it; none where defaults are taken as they are.
        source: Where the first rate is documented, or what it follows.
    """

    name: str
    rates: tuple[float, ...]
    source: str


PEERS = (
    Method("dreambooth", (5e-6, 5e-5), "diffusers' DreamBooth guide"),
    Method("custom_diffusion", (1e-5, 1e-4), "diffusers' Custom Diffusion guide; the row at the same rate"),
    Method("lora4", (1e-4, 1e-3), "diffusers' DreamBooth LoRA guide"),
    Method("lora16", (1e-4, 1e-3), "diffusers' DreamBooth LoRA guide"),
    Method("shira", (1e-4, 1e-3), "none for pictures: as LoRA; r=4, as many values as LoRA r=4"),
    Method("ia3", (3e-3, 3e-2), "its paper's rate for language models"),
    Method("textual_inversion", (5e-4, 5e-3), "diffusers' textual-inversion guide"),
)
RESIDUAL = Method("token_residual", (), "its own defaults; taken as they are")
SEARCH = Method("neurons", (), "its own default; no grid")
VALUES = Method("tuned", (1e-3, 1e-2), "the default of tune located weights")
BITS = {0.01: (16,), 0.02: (16, 2), 0.05: (16,)}  # of the tuned values, by the density of the search
MERGES = ("linear", "cat", "ties")  # of peft's add_weighted_adapter
MERGE_GRID = {  # tuned on the pair TUNING_ON: weight of each adapter, and the density TIES keeps
    "linear": ((1.0, None), (0.7, None)),
    "cat": ((1.0, None), (0.7, None)),
    "ties": ((1.0, 0.2), (1.0, 0.5)),
}


@dataclass(frozen=True)
class RaceConfig(Config):
    """How much is measured."""

    test: tuple[str, ...] = TEST  # subjects
    tuning: tuple[str, ...] = TUNING_ON  # subjects of the tuning, two
    counts: tuple[int, ...] = (100,)  # steps tried, of every trained method; the search has the most of them
    batch: Annotated[int, Ge(1)] = 8  # subject pictures of each step, and as many preservation pictures
    preservation: Annotated[int, Ge(1)] = 200  # preservation pictures
    bits: Mapping[float, tuple[int, ...]] = field(default_factory=lambda: BITS)
    composed: float = 0.02  # density of the edits (16 bits) that are composed; the values' rate is chosen at it
    company: tuple[int, ...] = (4, 200)  # of what is composed: collages a picture, and steps of the training
    samples: Annotated[int, Ge(1)] = 12  # pictures of the token prompt of each subject and method
    others: Annotated[int, Ge(1)] = 8  # pictures of unrelated prompts of each subject and method
    tuning_samples: Annotated[int, Ge(1)] = 12  # the same for a setting of the grid
    groups: Mapping[int, tuple[int, int]] = field(  # subjects together: (groups at most, pictures a group)
        default_factory=lambda: {2: (10, 26), 3: (4, 8), 4: (2, 4)}
    )
    group_others: Annotated[int, Ge(1)] = 4  # pictures of unrelated prompts of each group and way
    real: Annotated[int, Ge(1)] = 6  # real scenes of each group, judged like drawn ones
    rates: Annotated[int, Ge(1)] = 2  # of each grid, how many
    model: str = "emoji-diffusion"  # a bundled name or a folder

    @property
    def densities(self) -> tuple[float, ...]:
        """Shares of the weights, each searched for on its own."""
        return tuple(self.bits)

    def sets(self, *sizes: int) -> list[tuple[str, ...]]:
        """The groups of some sizes."""
        return [
            group for size in sizes if size in self.groups for group in groups(self.test, size, self.groups[size][0])
        ]


QUICK = RaceConfig(
    test=("zebra", "parrot"), company=(1, 4), counts=(2, 4), batch=2, preservation=20, bits={0.02: (16, 2), 0.05: (16,)},
    samples=2, others=2, tuning_samples=2, groups={2: (1, 2)}, group_others=2, real=2, rates=1,
)  # fmt: skip


@dataclass(frozen=True)
class Tried:
    """A setting of a grid on the tuning subject, and what came of it."""

    rate: float
    steps: int
    similarity: float
    drift: float


def chosen(tried: Sequence[Tried], bound: float = DRIFT_BOUND) -> Tried:
    """The rule: highest similarity among those whose drift stays within the bound; the least drift where none does.

    Example:
        >>> chosen([Tried(1e-3, 60, 0.6, 0.05), Tried(1e-2, 60, 0.9, 0.5)]).rate
        0.001
    """
    within = [each for each in tried if each.drift <= bound]
    if within:
        return max(within, key=lambda each: (each.similarity, -each.steps))
    return min(tried, key=lambda each: (each.drift, each.steps))


def token(name: str) -> str:
    """The new word of a subject: ``fire engine`` -> ``<fire-engine>``; each subject has its own."""
    return f"<{re.sub('[^a-z]+', '-', name.lower())}>"


def phrase(name: str) -> str:
    """``panda`` -> ``a <panda> bear``."""
    return f"a {token(name)} {splits.SUBJECTS[name]}"


def groups(names: Sequence[str], size: int, most: int) -> list[tuple[str, ...]]:
    """Up to ``most`` groups of ``size`` subjects with different class nouns, each subject about as often.

    Example:
        >>> groups(("panda", "polar bear", "violin"), 2, 9)
        [('panda', 'violin'), ('polar bear', 'violin')]
    """
    left = [
        group for group in combinations(names, size) if len({splits.SUBJECTS[name] for name in group}) == len(group)
    ]
    taken: list[tuple[str, ...]] = []
    used = dict.fromkeys(names, 0)
    while left and len(taken) < most:
        group = min(left, key=lambda each: (sum(used[name] ** 2 for name in each), left.index(each)))
        left.remove(group)
        taken.append(group)
        for name in group:
            used[name] += 1
    return sorted(taken, key=lambda group: [names.index(name) for name in group])


def boxes(count: int) -> tuple[Box, ...]:
    """Where the subjects of a group go: side by side, for four in two rows.

    Example:
        >>> boxes(2)
        ((0.03, 0.2, 0.47, 0.8), (0.53, 0.2, 0.97, 0.8))
    """
    if count == 4:
        return tuple((x, y, x + 0.44, y + 0.44) for y in (0.03, 0.53) for x in (0.03, 0.53))
    width = 1 / count
    return tuple((round(i * width + 0.03, 4), 0.2, round((i + 1) * width - 0.03, 4), 0.8) for i in range(count))


def group_prompts(group: Sequence[str], count: int) -> list[str]:
    """``a <a> bear left of a <b> bus on a red background`` over the colours in turn; three and more are listed.

    The base model learnt its pairs with a relation, so that is how a pair is asked for, of every method alike.
    """
    words = [phrase(name) for name in group]
    listed = f"{words[0]} left of {words[1]}" if len(words) == 2 else f"{', '.join(words[:-1])} and {words[-1]}"
    colours = tuple(scenes.COLOURS)
    return [f"{listed} on {scenes.with_article(colours[i % 12] + ' background')}" for i in range(count)]
