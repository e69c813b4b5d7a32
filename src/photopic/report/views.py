"""The view of a result that brings none of its own: its numbers, its tables, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from photopic.core.results import Report, Verdict
from photopic.core.view import Block, Section, Table, Text, View
from photopic.report.terminal import words


def view_of(result: Report | Verdict) -> View:
    """Numbers first, then the tables; the foot says how it was made.

    Example:
        >>> view_of(Report("similarity", {"mean": 0.5})).title
        'similarity'
    """
    if isinstance(result, Verdict):
        blocks: list[Block] = [Text(result.reason), *_numbers(result.evidence)]
        title = "accepted" if result.accepted else "rejected"
        return View(title, [Section("", blocks)], facts=provenance_facts(result.provenance))
    blocks = _numbers({name: value for name, value in result.values.items() if not isinstance(value, list | dict)})
    if result.rows:
        header = list(result.rows[0])
        blocks.append(Table(header, [[words(row.get(name)) for name in header] for row in result.rows]))
    return View(result.name, [Section("", blocks)], facts=provenance_facts(result.provenance))


def provenance_facts(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a reader wants to know of where a result comes from, as (name, value) pairs."""
    wanted = ("method", "paper", "model", "seed", "config", "device", "elapsed_s")
    found = [(name, words(provenance[name])) for name in wanted if provenance.get(name) not in (None, "", {})]
    versions = provenance.get("versions", {})
    return [*found, *((name, versions[name]) for name in ("photopic", "torch") if name in versions)]


def _numbers(values: Mapping[str, Any]) -> list[Block]:
    rows = [[name.replace("_", " "), words(value)] for name, value in values.items()]
    return [Table(["", ""], rows)] if rows else []
