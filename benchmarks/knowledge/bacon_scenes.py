"""The scenes that the benchmarks of bags of concepts share, and the plain captions that are read by rules."""

from __future__ import annotations

from functools import cache

from photopic.core.errors import DataError
from photopic.data import emoji_world, renderings, scenes
from photopic.data.scenes import (
    COLOURS,
    NUMBER_WORDS,
    RELATIONS,
    STYLE_WORDS,
    TEXTURES,
    Background,
    Scene,
    SceneOptions,
)
from photopic.knowledge.bag_of_concepts import BagOfConcepts, ConceptObject, Relation
from photopic.knowledge.compact_caption import word
from photopic.knowledge.scene_bags import is_living

# Every set by what of it no bundled model was shown; ``seen`` are new scenes of renderings that were.
SETS = ("renderings", "style", "concepts", "seen")
SEED = 2_200_000  # of the scenes; no training uses it


def scenes_of(title: str, count: int, *, objects: tuple[float, float, float, float] = (0.25,) * 4) -> list[Scene]:
    """New scenes of one set, the same for any count: one to four things, a fifth of them tinted, a tenth repeats one."""
    styles = (emoji_world.HELD_OUT_STYLE,) if title == "style" else emoji_world.TRAINING_STYLES
    found = []
    for index in range(count):
        style = styles[index % len(styles)]
        options = SceneOptions(_concepts(title, style), (style,), objects=objects, tinted=0.2, repeated=0.1)
        found.append(scenes.sample_scene(options, (SEED, SETS.index(title), index)))
    return found


@cache
def _concepts(title: str, style: str) -> tuple[str, ...]:
    """What the scenes of a set are drawn of, in a style."""
    if title == "concepts":  # no variants and every style, as the known ones
        held_out = emoji_world.select(split="held_out")
        return tuple(
            item.name for item in held_out if not item.is_variant and len(item.styles) == len(emoji_world.STYLES)
        )
    held_out_pairs = set(renderings.held_out_pairs())
    wanted = {"renderings": True, "style": None, "seen": False}[title]
    return tuple(name for name in renderings.classes() if wanted is None or ((name, style) in held_out_pairs) == wanted)


def read_plain(text: str) -> BagOfConcepts:
    """The bag of a plain caption by rules: articles begin things, counts repeat them, the first relation is between the first two.

    Raises:
        DataError: If it names nothing.

    Example:
        >>> bag = read_plain("a noto blue owl left_of a noto bear on a striped red background")
        >>> [item.name for item in bag.objects], bag.objects[0].colour, bag.background
        (['owl 1', 'bear 1'], ('blue',), ('striped red background',))
    """
    said = text.split()
    ends = [place for place, each in enumerate(said) if each == "on"]
    things, ground = (said[: ends[-1]], said[ends[-1] + 1 :]) if ends else (said, [])
    counts = {each: number for number, each in NUMBER_WORDS.items()}
    objects: list[ConceptObject] = []
    style = colour = ""
    number, relation = 1, None
    for each in things:
        if each in _names():
            name = _names()[each]
            for _ in range(number):
                index = 1 + sum(item.concept == name for item in objects)
                described = (f"{STYLE_WORDS[style]} style",) if style else ()
                objects.append(
                    ConceptObject(f"{name} {index}", is_living(name), "foreground", described, (colour,) * bool(colour))
                )
            style, colour, number = "", "", 1
        elif each in STYLE_WORDS:
            style = each
        elif each in COLOURS:
            colour = each
        elif each in counts:
            number = counts[each]
        elif each.replace("_", " ") in RELATIONS and len(objects) == 1:
            relation = each.replace("_", " ")
    if not objects:
        raise DataError(f"caption: expected things, found none in {text[:60]!r}")
    related = (Relation(objects[0].name, relation, objects[1].name),) if relation and len(objects) > 1 else ()
    return BagOfConcepts(background=_ground(ground), objects=tuple(objects), relations=related)


def _ground(said: list[str]) -> tuple[str, ...]:
    colours = [each for each in said if each in COLOURS]
    kind = next((each for each in said if each in ("gradient", *TEXTURES)), "flat")
    if not colours or (kind == "gradient" and len(colours) < 2):
        return ()
    return (Background(colours[0], kind, colours[1] if kind == "gradient" else None).phrase,)


@cache
def _names() -> dict[str, str]:
    return {word(name): name for name in renderings.classes()}
