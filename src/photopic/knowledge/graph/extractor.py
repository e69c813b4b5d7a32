"""What an extractor is, and which there are: a name, a version, what it reads of a thing, and what it finds in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from photopic.core.errors import DataError
from photopic.knowledge.graph.records import Found

if TYPE_CHECKING:
    from photopic.knowledge.graph.thing import Thing

OWN = ("bags", "captions", "class_folders", "emoji_concepts", "pictures", "scenes")  # one file of ``extractors`` each


@dataclass(frozen=True)
class Extractor:
    """One way to find nodes and edges in a thing.

    Attributes:
        name: What edges call it.
        version: A larger one finds something else in the same thing; what an older one found is then found anew.
        reads: SHA-256 of what it reads of a thing, or None where it finds nothing in such a thing.
        extract: What it finds; a DataError of it is listed and ends nothing.
        fingerprint: Of the model that it asks, or empty.
    """

    name: str
    version: int
    reads: Callable[[Thing], str | None]
    extract: Callable[[Thing], Found]
    fingerprint: str = ""

    @property
    def source(self) -> str:
        """Name, version and model, as edges and the card name them.

        Example:
            >>> Extractor("captions", 1, lambda thing: None, lambda thing: Found()).source
            'captions/1'
        """
        return f"{self.name}/{self.version}" + (f":{self.fingerprint[:12]}" if self.fingerprint else "")


def extractors_named(names: Sequence[str]) -> list[Extractor]:
    """Extractors by name, each once, in order.

    Args:
        names: Of ``OWN``, or ``module:function`` for one's own, which returns an ``Extractor``.

    Raises:
        DataError: If there is no such extractor, or a function returns something else.

    Example:
        >>> [each.source for each in extractors_named(["captions", "pictures"])]
        ['captions/1', 'pictures/1']
    """
    return [_one(name) for name in dict.fromkeys(names)]


def _one(name: str) -> Extractor:
    if name in OWN:
        found = import_module(f"photopic.knowledge.graph.extractors.{name}").EXTRACTOR
    else:
        from photopic.models.factories import is_factory, made  # torch with it

        if not is_factory(name):
            raise DataError(f"extractor {name!r}: expected {', '.join(OWN)} or module:function, found none of these")
        found = made(name)
    if not isinstance(found, Extractor):
        raise DataError(f"extractor {name!r}: expected an Extractor, found {type(found).__name__}; return one of those")
    return found
