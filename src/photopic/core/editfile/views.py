"""What the provenance of an edit says of its subject and of its search, as checked values; the rest is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Subject:
    """The thing that an edit was made of.

    Attributes:
        noun: What it is, such as ``bear``; empty if nothing says so.
        token: The new word it got; empty for none.
        prompt: What to write to see it; empty if nothing says so.
        replaces_noun: Whether the token stands in the place of the noun rather than before it.
        nouns: Of an edit made of several, the noun of each parent's token.

    Example:
        >>> Subject.of({"noun": "bear", "token": "<mine>"}).said("<mine>")
        '<mine> bear'
    """

    noun: str = ""
    token: str = ""
    prompt: str = ""
    replaces_noun: bool = False
    nouns: tuple[tuple[str, str], ...] = ()  # (token, noun)

    @classmethod
    def of(cls, provenance: Mapping[str, Any], *, replaces_noun: bool = False) -> Subject | None:
        """As a provenance says, its parents' included; None if it speaks of none."""
        noun, token, prompt = (_text(provenance.get(key)) for key in ("noun", "token", "prompt"))
        own = cls(noun, token, prompt)
        parents = [cls.of(each) for each in _parents(provenance)]
        nouns = tuple(pair for parent in parents if parent for pair in parent.nouns)
        if own.noun:
            nouns = ((own.token, own.noun), *nouns)
        return replace(own, replaces_noun=replaces_noun, nouns=nouns) if own != cls() or nouns else None

    def said(self, token: str) -> str:
        """What a prompt says for a token: it, and the noun where that follows it."""
        return f"{token} {'' if self.replaces_noun else self.noun_of(token)}".strip()

    def noun_of(self, token: str) -> str:
        """The noun of a token, said here or by the parent that brought it; empty if nothing says so."""
        return dict(reversed(self.nouns)).get(token) or dict(reversed(self.nouns)).get("", "")


@dataclass(frozen=True)
class Searched:
    """Where the entries of an edit were searched for.

    Attributes:
        layers: Of which attention: ``cross``, ``self`` or ``all``.
        which: The projections: ``k``, ``v``, ``q``, ``out``.

    Example:
        >>> Searched.of({"config": {"layers": "cross", "which": ["k", "v"]}}).which
        ('k', 'v')
    """

    layers: str
    which: tuple[str, ...]

    @classmethod
    def of(cls, provenance: Mapping[str, Any]) -> Searched | None:
        """As a provenance says, or the first of its parents that does; None if none was searched."""
        config = provenance.get("config")
        layers, which = (config.get("layers"), config.get("which")) if isinstance(config, dict) else (None, None)
        if isinstance(layers, str) and isinstance(which, list) and all(isinstance(each, str) for each in which):
            return cls(layers, tuple(which))
        return next(filter(None, map(cls.of, _parents(provenance))), None)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _parents(provenance: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = provenance.get("parents")
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
