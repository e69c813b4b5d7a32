"""How two edits differ, entry by entry: the numbers behind ``photopic diff``. No model is needed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from photopic.core.config import Flags
from photopic.core.editfile.content import AnyEdit, EditContent, PartContent
from photopic.core.editfile.rows import detail_of, held_by, names_of, touched, union
from photopic.core.events import Event, Steps
from photopic.core.identity import difference
from photopic.core.method import method
from photopic.core.nn.layer_names import place
from photopic.core.results import Report
from photopic.core.view import Section, Table, Text, View
from photopic.edit._common import as_content, labels

_SUMMED = ("only_a", "only_b", "equal", "different", "sign_conflicts")
_SHOWN = ("only_a", "only_b", "equal", "different", "jaccard", "jaccard_by_chance", "sign_conflicts")
_LEGEND = (
    "equal, not: what entries in both become; signs: those with opposite signs; "
    "chance: the Jaccard index of two sets of these sizes drawn at random"
)


@dataclass(frozen=True, eq=False)
class Effect:
    """What an edit makes of entries of one parameter: entry x keeps + adds.

    Attributes:
        positions: Which, strictly increasing.
        keeps: Whether the entry stays and is added to; where it does not, it becomes what is added.
        adds: What is added.
        size: Entries of the parameter.
    """

    positions: Int64[np.ndarray, " count"]
    keeps: Bool[np.ndarray, " count"]
    adds: Float32[np.ndarray, " count"]
    size: int

    @classmethod
    def of(cls, edit: EditContent, name: str) -> Effect:
        """All parts of an edit together on one parameter; nothing where it does not touch it."""
        size = math.prod(edit.base.shapes[name]) if name in edit.base.shapes else 0
        writes = [_write(part, name, size) for part in edit.parts if name in names_of(part)]
        positions = union([at for at, _, _ in writes])
        keeps, adds = np.ones(len(positions), bool), np.zeros(len(positions), np.float32)
        for at, values, is_added in writes:  # what is set comes before what is added
            slots = np.searchsorted(positions, at)
            if is_added:
                adds[slots] += values
            else:
                keeps[slots], adds[slots] = False, values
        return cls(positions, keeps, adds, size)


def _write(part: PartContent, name: str, size: int) -> tuple[np.ndarray, Any, bool]:
    """Positions, what is set or added there, and whether it is added."""
    given = part.fields
    if part.kind == "low_rank":
        return np.arange(size), _product(part, name), True
    if part.kind == "delta":
        return np.arange(size), given["deltas"][name].array().reshape(-1).astype(np.float32), True
    values = given["values"][name].astype(np.float32) if part.kind == "values" else np.float32(0)
    return given["indices"][name], values, given.get("delta", False)


def _product(part: PartContent, name: str) -> Float32[np.ndarray, " count"]:
    """As it is added to a model: numpy sums the products in another order, and diff compares to the last bit."""
    from photopic.core.edits.file.parts import made_part

    write = made_part(part).change(name)
    assert callable(write.values)
    flat: np.ndarray = write.values().numpy()
    return flat


def diff_view(report: Report) -> View:
    """What is the same and what is not, then the entries of every tensor."""
    values = report.values
    (a, b), bases = values["files"], values["bases"]
    found = "" if values["same_provenance"] else ", and were found in different ways"
    lead = f"{a} (a) and {b} (b) {'do the same' if values['identical'] else 'differ'}{found}"
    about = f"both for {bases[0]}"
    if not values["same_base"]:
        about = f"for different bases: {bases[0]} and {bases[1]}: {values['base_difference']}"
    blocks: list[Any] = [Text(about)]
    if values["tokens"] != [[], []]:
        words = [" ".join(tokens) or "none" for tokens in values["tokens"]]
        blocks.append(Text(f"words: {words[0]} (a), {words[1]} (b)"))
    where = [place(row["name"]) if row["kind"] == "weights" else (row["kind"], row["name"]) for row in report.rows]
    rows = [
        [" ".join(at).strip(), *(_cell(row[key]) for key in _SHOWN)] for at, row in zip(where, report.rows, strict=True)
    ]
    if len(rows) > 1:
        rows.append(["all", *(_cell(values[key]) for key in _SHOWN)])
    header = ["where", "only a", "only b", "equal", "not", "Jaccard", "chance", "signs"]
    blocks += [Table(header, rows, "Entries"), Text(_LEGEND)]
    return View("Differences of two edits", [Section("", blocks)], lead=lead)


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "-" if value is None else f"{value:,}"


@method(
    examples=("Example: photopic diff bear.edit bear-tuned.edit", "For a program: photopic diff a.edit b.edit --json"),
    view=diff_view,
    page=False,
    failed=lambda report: not report.values["identical"],
)
def diff(a: AnyEdit, b: AnyEdit, *, names: Annotated[Sequence[str] | None, Flags()] = None) -> Steps[Report]:
    """Show how two edit files differ: base, words, and entries of every tensor.

    Of the entries in both it says how many come out equal, and how many have opposite signs. The Jaccard index (entries in both,
    of those in either) stands beside what chance would give. Leaves with status 0 if both do the same, 1 if not, 2 on trouble.
    No model is loaded.

    Args:
        a: An edit file.
        b: The edit file to compare it with.
        names: What to call the two; their words by default.

    Returns:
        A row a tensor (and a word, module, direction or start noise): entries only in ``a``, only in ``b``, and in both with an
        ``equal`` or ``different`` outcome; the Jaccard index of the positions beside what sets of these sizes drawn by chance
        would have; and ``sign_conflicts``: entries that both set, or both add to, with opposite signs. The values hold the sums,
        ``same_base``, and ``identical``: whether both make the same of the same base. How they were found is not compared.

    Example:
        >>> diff(edit, edit).values["identical"]  # doctest: +SKIP
        True
    """
    yield Event("comparing")
    reason = difference(a.base, b.base)
    one, two = as_content(a), as_content(b)
    weights = [_weights_row(one, two, name) for name in sorted(touched(one).keys() | touched(two).keys())]
    rows = (*weights, *_added_rows(one, two))
    sums = {key: sum(row[key] for row in rows) for key in _SUMMED}
    common = sum(row["equal"] + row["different"] for row in weights)
    union = common + sum(row["only_a"] + row["only_b"] for row in weights)
    values: dict[str, Any] = {
        "files": labels([a, b], names),
        "identical": not reason and sums["only_a"] == sums["only_b"] == sums["different"] == 0,
        "same_base": not reason,
        "bases": [f"{edit.base.name} ({edit.base.digest[:12]})" for edit in (a, b)],
        "base_difference": reason,
        "tokens": [list(one.tokens), list(two.tokens)],
        **sums,
        "jaccard": common / union if union else None,
        "jaccard_by_chance": _chance(math.fsum(row["expected"] for row in weights), common + union),
        "same_provenance": a.provenance == b.provenance,
    }
    plain = tuple({key: value for key, value in row.items() if key != "expected"} for row in rows)
    return Report("diff", values, plain)


def _weights_row(a: EditContent, b: EditContent, name: str) -> dict[str, Any]:
    one, two = Effect.of(a, name), Effect.of(b, name)
    if one.size != two.size and len(one.positions) and len(two.positions):  # another tensor of the same name
        in_both = np.zeros(0, np.int64)
    else:
        in_both = one.positions[np.isin(one.positions, two.positions, assume_unique=True)]
    first, second = np.searchsorted(one.positions, in_both), np.searchsorted(two.positions, in_both)
    alike = one.keeps[first] == two.keeps[second]
    equal = int((alike & (one.adds[first] == two.adds[second])).sum())
    opposed = alike & (np.sign(one.adds[first]) * np.sign(two.adds[second]) == -1)
    expected = len(one.positions) * len(two.positions) / max(one.size, two.size)
    total, touched_by_both = len(one.positions) + len(two.positions), len(one.positions) and len(two.positions)
    return {
        "name": name,
        "kind": "weights",
        "only_a": len(one.positions) - len(in_both),
        "only_b": len(two.positions) - len(in_both),
        "equal": equal,
        "different": len(in_both) - equal,
        "jaccard": len(in_both) / (total - len(in_both)) if touched_by_both else None,
        "jaccard_by_chance": _chance(expected, total) if touched_by_both else None,
        "sign_conflicts": int(opposed.sum()),
        "expected": expected,
    }


def _chance(expected: float, total: int) -> float | None:
    """The Jaccard index of two sets with ``total`` entries together, of which as many are in both as chance would have."""
    return expected / (total - expected) if total else None


def _added_rows(a: EditContent, b: EditContent) -> Iterator[dict[str, Any]]:
    """Words, modules, directions and noise: in one edit, or in both with equal or different numbers."""
    one, two = _added(a), _added(b)
    for key in sorted(one.keys() | two.keys()):
        kind, name, _ = key
        counts = dict.fromkeys(_SUMMED, 0)
        if key not in two or key not in one:
            numbers, _ = one[key] if key in one else two[key]
            counts["only_a" if key in one else "only_b"] = len(numbers)
        else:
            (first, facts), (second, other_facts) = one[key], two[key]
            comparable = facts == other_facts and len(first) == len(second)
            counts["equal"] = int((first == second).sum()) if comparable else 0
            counts["different"] = max(len(first), len(second)) - counts["equal"]
        yield {"name": name, "kind": kind, **counts, "jaccard": None, "jaccard_by_chance": None, "expected": 0.0}


def _added(edit: EditContent) -> dict[tuple[str, str, int], tuple[np.ndarray, str]]:
    """Numbers and other facts of what an edit adds beside weights, by kind, place and which of several there."""
    found: dict[tuple[str, str, int], tuple[np.ndarray, str]] = {}
    for part in edit.parts:
        for name, held in held_by(part).items() if not names_of(part) else ():
            number = sum(key[:2] == (part.kind, name) for key in found)
            ids = sorted(part.fields["ids"].items()) if part.kind == "residual" else []
            facts = json.dumps([[list(each.shape) for each in held], detail_of(part), ids])
            numbers = np.concatenate([each.array().reshape(-1).astype(np.float32) for each in held])
            found[part.kind, name, number] = (numbers, facts)
    return found
