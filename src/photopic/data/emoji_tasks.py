"""Few-shot tasks of the emoji world: a style no bundled model saw, concepts none saw, or groups of things; train and test apart.

Use it as ``train, test = emoji_task("held-out-style", classes=20)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches

import numpy as np
from jaxtyping import UInt8

from photopic.core.errors import DataError
from photopic.data import emoji_world
from photopic.data.emoji_world import HELD_OUT_STYLE, TRAINING_STYLES
from photopic.data.few_shot import LabelledImages
from photopic.data.scenes import SceneOptions, sample_scene

CLASSES = 50  # of a task of concepts
GROUPS = (  # subgroups whose things look alike and are named by words
    "animal-mammal",
    "animal-bird",
    "animal-marine",
    "animal-bug",
    "animal-reptile",
    "plant-flower",
    "food-fruit",
    "food-vegetable",
    "food-prepared",
    "food-sweet",
    "drink",
    "transport-ground",
    "transport-air",
    "transport-water",
    "place-building",
    "sky-weather",
    "clothing",
    "person-sport",
    "sport",
    "game",
    "tool",
    "musical-instrument",
    "household",
    "time",
)

Pair = tuple[str, str]  # concept and style
Pairs = tuple[list[Pair], list[Pair]]  # to train on, to test on


def emoji_task(
    name: str,
    *,
    classes: int | None = None,
    train_per_class: int = 16,
    test_per_class: int = 20,
    seed: int = 0,
    size: int = 64,
) -> tuple[LabelledImages, LabelledImages]:
    """Draw a task: single things at random places on random backgrounds, no picture twice.

    Args:
        name: ``held-out-style``: known concepts in the style no bundled model was trained on. ``held-out-concepts``: concepts
            no bundled model was trained on, with styles to train on and other styles to test on. ``groups``: subgroups
            such as ``animal mammal``, with concepts to train on and other concepts to test on.
        classes: How many, drawn by the seed; None takes 50, or all groups.
        train_per_class: Pictures of each class to draw shots from.
        test_per_class: Pictures of each class to measure on.
        seed: Of the classes and of every picture.
        size: Side of a picture in pixels.

    Returns:
        What to draw shots from, and what to measure on, with the same class names.

    Raises:
        DataError: If there is no such task, or it has fewer classes.

    Example:
        >>> train, test = emoji_task("held-out-style", classes=3, train_per_class=2, test_per_class=1, size=32)
        >>> train.counts, test.counts
        ((2, 2, 2), (1, 1, 1))
    """
    if name not in TASKS:
        near = get_close_matches(name, TASKS, n=1, cutoff=0.0)[0]
        raise DataError(f"task {name!r}: expected one of {', '.join(TASKS)}, found another; did you mean {near}?")
    for what, count in (("train_per_class", train_per_class), ("test_per_class", test_per_class), ("seed", seed + 1)):
        if count < 1:
            raise DataError(
                f"{what}: expected {'0' if what == 'seed' else '1'} or more, found {count - (what == 'seed')}"
            )
    rng = np.random.default_rng((seed, *name.encode()))
    found = TASKS[name](rng)
    wanted = min(CLASSES, len(found)) if classes is None else classes
    if not 2 <= wanted <= len(found):
        raise DataError(f"classes: expected 2 to {len(found)} for {name}, found {wanted}")
    chosen = sorted(str(each) for each in rng.choice(sorted(found), wanted, replace=False))
    seen: set[bytes] = set()
    parts = [
        _pictures([found[label][part] for label in chosen], count, (seed, part), size, seen)
        for part, count in enumerate((train_per_class, test_per_class))
    ]
    return (
        LabelledImages(parts[0], np.repeat(np.arange(wanted), train_per_class), tuple(chosen)),
        LabelledImages(parts[1], np.repeat(np.arange(wanted), test_per_class), tuple(chosen)),
    )


def _held_out_style(rng: np.random.Generator) -> dict[str, Pairs]:
    """A known concept is the same in both; its pictures differ in place, size and background."""
    known = [item for item in emoji_world.select(split="known", style=HELD_OUT_STYLE) if not item.is_variant]
    return {item.name: ([(item.name, HELD_OUT_STYLE)],) * 2 for item in known}


def _held_out_concepts(rng: np.random.Generator) -> dict[str, Pairs]:
    """Half of the training styles that draw the concept to train on, the others to test on."""
    found = {}
    for item in emoji_world.select(split="held_out"):
        styles = [style for style in TRAINING_STYLES if style in item.styles]
        if item.is_variant or len(styles) < 2:
            continue
        order = [(item.name, styles[place]) for place in rng.permutation(len(styles))]
        found[item.name] = (order[: len(order) // 2], order[len(order) // 2 :])
    return found


def _groups(rng: np.random.Generator) -> dict[str, Pairs]:
    """Half of the concepts of a group to train on, the others to test on, each in any training style."""
    found = {}
    for group in GROUPS:
        members = [item for item in emoji_world.concepts() if item.subgroup == group and not item.is_variant]
        order = [members[place] for place in rng.permutation(len(members))]
        half = len(order) // 2
        halves = [
            [
                (item.name, str(rng.choice([style for style in TRAINING_STYLES if style in item.styles])))
                for item in part
            ]
            for part in (order[:half], order[half:])
        ]
        found[group.replace("-", " ")] = (halves[0], halves[1])
    return found


TASKS: dict[str, Callable[[np.random.Generator], dict[str, Pairs]]] = {
    "held-out-style": _held_out_style,
    "held-out-concepts": _held_out_concepts,
    "groups": _groups,
}


def _pictures(
    pairs: Sequence[Sequence[Pair]], count: int, seed: tuple[int, ...], size: int, seen: set[bytes]
) -> UInt8[np.ndarray, "n size size 3"]:
    """``count`` pictures a class, its pairs in turn; what was seen before is drawn again."""
    drawn = []
    for label, each in enumerate(pairs):
        for number in range(count):
            name, style = each[number % len(each)]
            options = SceneOptions(concepts=(name,), styles=(style,), size=size, objects=(1.0, 0.0, 0.0, 0.0))
            attempt = 0
            while (image := sample_scene(options, (*seed, label, number, attempt)).image).tobytes() in seen:
                attempt += 1
            seen.add(image.tobytes())
            drawn.append(image)
    return np.stack(drawn)
