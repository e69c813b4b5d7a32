"""The command line of a benchmark, from the fields of its config; their comments are the help."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from photopic.core.config import comments, hints_of, unpacked


@dataclass(frozen=True)
class Options:
    """What the command line says.

    Attributes:
        config: How much is measured.
        workers: Processes that share the slow part.
        part: Of a worker its share, such as ``0/2``; else empty.
        rows_only: Whether nothing is to be measured.
    """

    config: Any
    workers: int
    part: str
    rows_only: bool


def options_of(name: str, about: str, full: Any, quick: Any, arguments: Sequence[str]) -> Options:
    """Read the command line of a benchmark."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {name}", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a small part of it; prints only, as other settings do")
    parser.add_argument("--rows-only", action="store_true", help="from what earlier runs kept; measures nothing")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each; 0: this one alone")
    parser.add_argument("--part", default="", help=argparse.SUPPRESS)
    said = comments(type(full))
    names = []
    hints = hints_of(type(full))  # type: ignore[arg-type]  # a class is hashable
    for each in fields(full):
        how = _how(unpacked(hints[each.name])[0])
        if how:
            flag = f"--{each.name.replace('_', '-')}"
            parser.add_argument(flag, default=argparse.SUPPRESS, help=said[each.name].replace("%", "%%"), **how)
            names.append(each.name)
    given = vars(parser.parse_args(arguments))
    changed = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items() if key in names}
    config = replace(quick if given["quick"] else full, **changed)
    return Options(config, given["workers"], given["part"], given["rows_only"])


def _how(kind: Any) -> dict[str, Any]:
    """How argparse reads a field of a type; nothing for a type that words do not say."""
    if get_origin(kind) in (Union, UnionType):
        kind = next(each for each in get_args(kind) if each is not type(None))
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind)}
    if get_origin(kind) is tuple and get_args(kind)[0] in (int, float, str):
        return {"type": get_args(kind)[0], "nargs": "+"}
    return {"type": kind} if kind in (int, float, str) else {}
