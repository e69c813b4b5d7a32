"""Configs: frozen dataclasses whose annotations are their contract, checked when one is made.

Every option of a method is a field with a range and a comment; the comment is the help text of the command line and the docs::

    @dataclass(frozen=True, kw_only=True)
    class DescentConfig(Config):
        steps: Annotated[int, Ge(1)] = 300  # steps of learning; more chooses better and takes longer
"""

from __future__ import annotations

import io
import math
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import cache
from inspect import getsource
from textwrap import dedent
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from photopic.core.errors import FieldError

BOUNDS = {Ge: "{} or more", Gt: "more than {}", Le: "{} or less", Lt: "less than {}"}


@dataclass(frozen=True, init=False)
class Flags:
    """How the command line calls a field or parameter where ``--its-name`` would not do; old words are kept as further ones.

    Names with dashes are options, one name without is a positional argument, and without any it is no option at all. ``default``
    is the word a command takes where a model, edit or data set is not named.

    Example:
        >>> Flags("--class", "--classes").names
        ('--class', '--classes')
    """

    names: tuple[str, ...]
    default: str = ""

    def __init__(self, *names: str, default: str = ""):
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "default", default)


@dataclass(frozen=True)
class Existing:
    """Beside a text that names a file or folder to read: a command refuses what is not there before it imports the method."""


@dataclass(frozen=True)
class Sentence:
    """The range of a text with one ``{}`` where a word goes; other braces would be taken for places as well.

    Example:
        >>> check_value("template", "a photo of {name}", Annotated[str, Sentence()])
        Traceback (most recent call last):
        photopic.core.errors.FieldError: template: expected a sentence with one {} where the name goes, found 'a photo of {name}'
    """

    def holds(self, text: str) -> bool:
        """Whether a word can be put into it."""
        return text.count("{}") == 1 and not set("{}") & set(text.replace("{}", ""))


class Config:
    """The base of all configs: refuses a value that its annotation rules out.

    Raises:
        FieldError: Names the field, what was expected and what was found.

    Example:
        >>> @dataclass(frozen=True)
        ... class Descent(Config):
        ...     steps: Annotated[int, Ge(1)] = 300  # steps of learning
        >>> Descent(steps=0)
        Traceback (most recent call last):
        photopic.core.errors.FieldError: steps: expected 1 or more, found 0
    """

    def __post_init__(self) -> None:
        hints = hints_of(type(self))  # type: ignore[arg-type]  # a class is hashable
        for each in fields(self):  # type: ignore[arg-type]
            check_value(each.name, getattr(self, each.name), hints[each.name])


@cache
def hints_of(owner: Any) -> Mapping[str, Any]:
    """The annotations of a class or function, evaluated, with their ranges."""
    return get_type_hints(owner, include_extras=True)


def check_value(name: str, value: Any, annotation: Any) -> None:
    """Refuse a value that an annotation rules out: its kind, its range, its choices; numbers have to be finite.

    Args:
        name: What to call the value in the message.
        value: What was given.
        annotation: Such as ``Annotated[int, Ge(1)]``, ``Literal["k", "v"]``, ``tuple[float, ...]``, or one of these or None.

    Raises:
        FieldError: Names the value, what was expected and what was found.

    Example:
        >>> check_value("rate", 0.5, Annotated[float | None, Gt(0), Le(1)])
        >>> check_value("layers", "crss", Literal["cross", "self"])
        Traceback (most recent call last):
        photopic.core.errors.FieldError: layers: expected cross or self, found 'crss'; did you mean cross?
    """
    kind, bounds = unpacked(annotation)
    choices = [each for each in (get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,))]
    if value is None and NoneType in choices:
        return
    if not any(_is_kind(value, each) for each in choices if each is not NoneType):
        raise FieldError(name, f"expected {_words(choices)}, found {shown(value)}{_nearest(value, choices)}")
    if isinstance(value, list | tuple):
        item = next((get_args(each)[0] for each in choices if get_origin(each) in (tuple, list, Sequence)), Any)
        for each in value:
            check_value(name, each, Annotated[item, *bounds] if bounds else item)
    elif isinstance(value, str) and Sentence() in bounds and not Sentence().holds(value):
        raise FieldError(name, f"expected a sentence with one {{}} where the name goes, found {value!r}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise FieldError(name, f"expected a finite number, found {value}")
        if isinstance(value, int) and abs(value) >= 2**63:  # what generators of random numbers and tensors can hold
            raise FieldError(name, f"expected a whole number of 63 bits, found {value}")
        for bound in bounds:
            _check_bound(name, value, bound)


def shown(value: Any) -> str:
    """A value as a message names it: what is long, or would tell an address in memory, by its type.

    Example:
        >>> shown("crss"), shown(object())
        ("'crss'", 'a value of type object')
    """
    text = repr(value)
    return text if len(text) <= 200 and " at 0x" not in text else f"a value of type {type(value).__name__}"


def unpacked(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """The type inside ``Annotated`` and what stands beside it.

    Example:
        >>> unpacked(Annotated[int, Ge(1)])
        (<class 'int'>, (Ge(ge=1),))
    """
    if get_origin(annotation) is Annotated:
        kind, *beside = get_args(annotation)
        return kind, tuple(beside)
    return annotation, ()


def comments(owner: type) -> dict[str, str]:
    """The comment of every field of a config, from the source: behind the field, or in the lines above it.

    Example:
        >>> comments(_Documented)
        {'steps': 'steps of learning', 'rate': 'size of a step; about a hundredth'}
    """
    found: dict[str, str] = {}
    for each in reversed(owner.__mro__):
        if each not in (object, Config) and hasattr(each, "__dataclass_fields__"):
            found |= _comments(dedent(getsource(each)))
    return {name: found.get(name, "") for name in (each.name for each in fields(owner))}


def _comments(source: str) -> dict[str, str]:
    """Field names are the names at the start of a line of the class, ``name: ...``; a comment belongs to its logical line."""
    found: dict[str, str] = {}
    above: list[str] = []
    behind: list[str] = []
    name, depth = "", 0
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    for place, token in enumerate(tokens):
        depth += (token.type == tokenize.INDENT) - (token.type == tokenize.DEDENT)
        if token.type == tokenize.COMMENT:
            (behind if name else above).append(token.string.lstrip("# "))
        elif token.type == tokenize.NEWLINE:
            if name:
                found[name] = " ".join(behind or above)
            name, behind, above = "", [], []
        elif not name and token.type == tokenize.NAME and depth == 1 and tokens[place + 1].string == ":":
            name = token.string  # the first name of a logical line at the level of the class
    return found


def _is_kind(value: Any, kind: Any) -> bool:
    if kind is Any:
        return True
    origin = get_origin(kind)
    if origin is Literal:
        return value in get_args(kind)
    if origin in (tuple, list, Sequence):
        return isinstance(value, list | tuple)
    if origin is not None:
        return isinstance(value, origin)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return not isinstance(kind, type) or isinstance(value, kind)


def _check_bound(name: str, value: int | float, bound: Any) -> None:
    for kind, words in BOUNDS.items():
        if isinstance(bound, kind):
            limit = getattr(bound, kind.__name__.lower())
            inside = {Ge: value >= limit, Gt: value > limit, Le: value <= limit, Lt: value < limit}[kind]
            if not inside:
                raise FieldError(name, f"expected {words.format(limit)}, found {value}")


def _nearest(value: Any, choices: Sequence[Any]) -> str:
    """``; did you mean cross?``, where a word is close to one of the choices."""
    words = [str(word) for each in choices if get_origin(each) is Literal for word in get_args(each)]
    # only where a choice is close by: a wrong guess would mislead more than none
    near = get_close_matches(str(value), words, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _words(choices: Sequence[Any]) -> str:
    """``cross or self``, ``a whole number or nothing``."""
    names = {int: "a whole number", float: "a number", str: "a word", bool: "True or False", NoneType: "nothing"}
    words: list[str] = []
    for each in choices:
        literal = get_origin(each) is Literal
        words += map(str, get_args(each)) if literal else [names.get(each, getattr(each, "__name__", str(each)))]
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]


@dataclass(frozen=True)
class _Documented(Config):
    """What the example of ``comments`` shows."""

    steps: Annotated[int, Ge(1)] = 300  # steps of learning
    # size of a step;
    # about a hundredth
    rate: Annotated[float, Gt(0)] = 0.01
