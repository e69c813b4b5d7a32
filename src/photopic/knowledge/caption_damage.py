"""What had to be repaired in the text of a bag of concepts: each repair with its kind, its place and what was done."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Literal

from photopic.core.errors import printable
from photopic.knowledge.bag_of_concepts import BagOfConcepts

Kind = Literal[
    "heading",  # translated, in other words, or with half of its marks
    "missing section",
    "repeated section",
    "half mark",  # one of the two brackets around a name or predicate
    "unclosed bracket",
    "missing field",  # of an object, or a word there that says nothing of life or depth
    "extra field",  # a semicolon inside a description
    "truncated",  # the text ends within an object or a relation, which is left out
    "duplicate name",
    "other spelling",  # an end of a relation in other capitals, or with an article
    "plural",  # an end that stands for all objects of a concept
    "incomplete relation",
    "chained relation",
    "position",  # without an object, without a number, or empty
    "letter",  # that no text may hold
    "unread",  # words that belong to no part
]


@dataclass(frozen=True)
class Repair:
    """One thing that was not as the grammar has it.

    Attributes:
        kind: What sort of damage.
        start: Where it begins in the text.
        end: Where it ends, exclusive.
        line: The line it begins on, from 1.
        what: What was found and what was made of it, for a person.
    """

    kind: Kind
    start: int
    end: int
    line: int
    what: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.kind}: {self.what}"


@dataclass(frozen=True)
class Parsed:
    """A bag read from a text, and what had to be repaired."""

    bag: BagOfConcepts
    repairs: tuple[Repair, ...] = ()


@dataclass
class Damage:
    """The repairs of one text, as they are found.

    Args:
        text: The whole text.
    """

    text: str
    repairs: list[Repair] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lines = [0] + [place + 1 for place, letter in enumerate(self.text) if letter == "\n"]

    def note(self, kind: Kind, start: int, end: int, what: str) -> None:
        """Tell one repair; the words found there are quoted after ``what``."""
        quoted = " ".join(self.text[start : min(end, start + 60)].split())
        more = " ..." if end - start > 60 else ""
        said = f"{what}: {printable(quoted)}{more}" if quoted else what
        self.repairs.append(Repair(kind, start, end, bisect_right(self._lines, start), said))

    def in_order(self) -> tuple[Repair, ...]:
        """All of them as they stand in the text."""
        return tuple(sorted(self.repairs, key=lambda repair: (repair.start, repair.end)))
