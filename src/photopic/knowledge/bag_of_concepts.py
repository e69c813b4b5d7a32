"""A bag of concepts: what one picture shows, as an overall description, a list of numbered objects and their relations.

Paper: Improving Clarity of Image Captions via Bag-of-Concept Graphs (arXiv:2407.03314). The text of a bag is written and read by
``photopic.knowledge.caption_text``, files of bags by ``photopic.knowledge.bag_file``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from photopic.core.errors import DataError, printable
from photopic.data.scenes import plural

Place = Literal["foreground", "background", "both"]
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels; right and bottom exclusive
LAST_INDEX = 200  # a larger number belongs to the name: "Boeing 747"
_IRREGULAR = {  # endings of nouns and of their plurals
    "man": "men", "child": "children", "person": "people", "foot": "feet", "tooth": "teeth", "goose": "geese", "mouse": "mice",
    "leaf": "leaves", "loaf": "loaves", "shelf": "shelves", "wolf": "wolves", "knife": "knives",
}  # fmt: skip
_NUMBERED = re.compile(r"(?P<concept>.*\S) (?P<index>[1-9][0-9]{0,2})")
# what no text holds: controls, halves of surrogate pairs, and the noncharacters that the reader of texts works with
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef]")


@dataclass(frozen=True)
class ConceptObject:
    """One object of a picture.

    Attributes:
        name: Its numbered name, such as ``owl 2``; no other object of the picture has it.
        living: Whether it is alive; None where that is not said.
        place: Where it stands in depth; None where that is not said.
        description: Sentences without their full stops.
        colour: Sentences or words on its colours.
        box: (left, top, right, bottom) in whole pixels, right and bottom exclusive; None where it is not known.

    Raises:
        DataError: If a text is not in order (see ``in_order``), or the box is empty or not in whole pixels.

    Example:
        >>> owl = ConceptObject("snowy owl 2", True, "foreground", ("it sleeps",), ("white",), (0, 0, 5, 9))
        >>> owl.concept, owl.index
        ('snowy owl', 2)
    """

    name: str
    living: bool | None = None
    place: Place | None = None
    description: tuple[str, ...] = ()
    colour: tuple[str, ...] = ()
    box: Box | None = None

    def __post_init__(self) -> None:
        _check_texts("the name of an object", (self.name,))
        _check_texts(f"the description of {self.name!r}", self.description)
        _check_texts(f"the colour of {self.name!r}", self.colour)
        if self.box is not None:
            _check_box(self.name, self.box)

    @property
    def concept(self) -> str:
        """The name without its number."""
        found = _number(self.name)
        return found["concept"] if found else self.name

    @property
    def index(self) -> int | None:
        """The number at the end of the name, 1 to 200; None where there is none."""
        found = _number(self.name)
        return int(found["index"]) if found else None


@dataclass(frozen=True)
class Relation:
    """How one object stands to another.

    Attributes:
        subject: Name of an object, or of something outside the list.
        predicate: Such as ``left of``.
        object: As the subject.
        external: Whether an end is no listed object; the bag that the relation lies in sets it.

    Example:
        >>> Relation("owl 1", "sits on", "branch 1").predicate
        'sits on'
    """

    subject: str
    predicate: str
    object: str
    external: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        _check_texts("a relation", (self.subject, self.predicate, self.object))


@dataclass(frozen=True)
class BagOfConcepts:
    """What one picture shows.

    Attributes:
        style: How it is made, one sentence without its full stop; empty where that is not said.
        theme: What it is about, likewise.
        background: Sentences on the background.
        foreground: Sentences on the foreground.
        objects: In order of importance; names differ, capitals aside.
        relations: Each pair is related in one direction only.

    Raises:
        DataError: If two objects have one name, or the end of a relation is no listed name and yet stands for one ("owls").

    Example:
        >>> bag = BagOfConcepts("photo", "night", (), (), (ConceptObject("owl 1"),), (Relation("owl 1", "looks at", "camera"),))
        >>> bag.relations[0].external
        True
    """

    style: str = ""
    theme: str = ""
    background: tuple[str, ...] = ()
    foreground: tuple[str, ...] = ()
    objects: tuple[ConceptObject, ...] = ()
    relations: tuple[Relation, ...] = ()

    def __post_init__(self) -> None:
        _check_texts("the style", (self.style,) if self.style else ())
        _check_texts("the theme", (self.theme,) if self.theme else ())
        _check_texts("the background", self.background)
        _check_texts("the foreground", self.foreground)
        seen: set[str] = set()
        for item in self.objects:
            if folded(item.name) in seen:
                raise DataError(f"two objects are called {item.name!r}; number them apart")
            seen.add(folded(item.name))
        for relation in self.relations:
            for end in (relation.subject, relation.object):
                if end not in self.by_name and (meant := self.names.resolve(end)):
                    raise DataError(
                        f"a relation ends at {end!r}, which stands for {', '.join(meant)}; write one of these"
                    )
        marked = tuple(
            replace(each, external=not {each.subject, each.object} <= self.by_name.keys()) for each in self.relations
        )
        object.__setattr__(self, "relations", marked)

    @cached_property
    def by_name(self) -> Mapping[str, ConceptObject]:
        """The objects by their names."""
        return {item.name: item for item in self.objects}

    @cached_property
    def names(self) -> Names:
        """The names, to look up what a phrase stands for."""
        return Names([item.name for item in self.objects])


class Names:
    """The names of one picture's objects, by what a phrase may call them.

    Args:
        names: Numbered names.

    Example:
        >>> Names(["owl 1", "owl 2", "tree 1"]).resolve("Owls")
        ('owl 1', 'owl 2')
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.exact = set(names)
        self._by_fold: dict[str, list[str]] = {}
        self._by_concept: dict[str, list[str]] = {}  # under the concept and its plural
        for name in names:
            self._by_fold.setdefault(folded(name), []).append(name)
            concept = folded(ConceptObject(name).concept)
            for word in {concept, plural(concept), _irregular_plural(concept)}:
                self._by_concept.setdefault(word, []).append(name)

    def resolve(self, phrase: str) -> tuple[str, ...]:
        """What a phrase stands for: one name, else the name in other capitals, else all of a concept or plural; () for nothing."""
        if phrase in self.exact:
            return (phrase,)
        key = folded(phrase)
        for word in (key, key.removeprefix("the ")):
            if found := self._by_fold.get(word) or self._by_concept.get(word):
                return tuple(found)
        return ()


def resized(bag: BagOfConcepts, old: tuple[int, int], new: tuple[int, int]) -> BagOfConcepts:
    """The same bag for a picture of another size: boxes are stretched and rounded, and stay at least one pixel wide.

    Args:
        bag: With boxes in the pixels of the old size.
        old: (width, height).
        new: (width, height).

    Example:
        >>> resized(BagOfConcepts(objects=(ConceptObject("owl 1", box=(0, 0, 5, 9)),)), (10, 10), (512, 512)).objects[0].box
        (0, 0, 256, 461)
    """
    across, down = new[0] / old[0], new[1] / old[1]

    def stretched(box: Box) -> Box:
        left, top, right, bottom = (round(edge * by) for edge, by in zip(box, (across, down) * 2, strict=True))
        return left, top, max(right, left + 1), max(bottom, top + 1)

    objects = (replace(item, box=item.box and stretched(item.box)) for item in bag.objects)
    return replace(bag, objects=tuple(objects))


def in_order(text: str) -> str:
    """A text as bags hold them: single blanks between words, none at the ends, nothing that only steers a terminal.

    Example:
        >>> in_order(" a  snowy\\nowl ")
        'a snowy owl'
    """
    return " ".join(_FORBIDDEN.sub(" ", text).split())


_STRAIGHT = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "‐": "-", "‑": "-", "–": "-", "—": "-"})


def folded(name: str) -> str:
    """A name as two are compared: capitals, kinds of quotes and of dashes do not count.

    Example:
        >>> folded("Owl’s nest 1")
        "owl's nest 1"
    """
    return " ".join(name.translate(_STRAIGHT).casefold().split())


def _irregular_plural(noun: str) -> str:
    """``snowy owl`` -> itself, ``old fisherman`` -> ``old fishermen``."""
    ending = next((each for each in _IRREGULAR if noun.endswith(each)), "")
    return noun.removesuffix(ending) + _IRREGULAR.get(ending, "")


def _number(name: str) -> re.Match[str] | None:
    found = _NUMBERED.fullmatch(name)
    return found if found and int(found["index"]) <= LAST_INDEX else None


def _check_texts(what: str, texts: tuple[str, ...]) -> None:
    for text in texts:
        if not text or text != in_order(text):
            raise DataError(
                f"{what}: expected words with single blanks between and no control characters, found "
                f"{printable(repr(text[:80]))}; pass it through in_order"
            )


def _check_box(name: str, box: Box) -> None:
    if not all(isinstance(edge, int) for edge in box):
        raise DataError(f"{name!r}: expected a box in whole pixels, found {list(box)}; round it")
    left, top, right, bottom = box
    if left >= right or top >= bottom:
        raise DataError(
            f"{name!r}: the box {list(box)} is empty or reversed; write left, top, right, bottom with left < right and top < bottom"
        )
