"""What ``photopic inspect`` shows: layers, blocks, values, bytes, what a composition was made of, how it was found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from photopic.core.editfile.rows import WEIGHTS
from photopic.core.editfile.views import Subject
from photopic.core.nn.layer_names import place
from photopic.core.results import Report
from photopic.core.view import Bars, Block, Code, Section, Table, Text, View

FOUND = (  # of the provenance, in this order; the rest is in --json
    "method noun token prompt images seed steps config losses overlap weights forced warning data versions device dtype "
    "elapsed_s peak_bytes"
).split()
LABEL = "noun token seed overlap weights".split()  # of a parent, on its line of the tree
EIGHTHS = " ▁▂▃▄▅▆▇█"


def inspect_view(report: Report) -> View:
    """Everything on one page, the largest table first."""
    values = report.values
    weights = [row for row in report.rows if row["kind"] in WEIGHTS]
    added = [row for row in report.rows if row["kind"] not in WEIGHTS]
    sections = [Section("", [Text(line) for line in _lines(values)])]
    if weights:
        sections += [Section("Layers", [_layers(weights)]), Section("Blocks", [_blocks(values["blocks"])])]
    if added:
        rows = [[row["kind"], row["name"], _shape(row), f"{row['value_bytes']:,}"] for row in added]
        sections.append(Section("Added", [Table(["kind", "where", "shape", "bytes"], rows)]))
    if any(part["values"] for part in values["parts"]):
        sections.append(Section("Values", [_values(values["parts"])]))
    sections.append(Section("Bytes", [_sizes(values, report.rows)]))
    if values["provenance"].get("parents"):
        sections.append(Section("Made of", [Code("\n".join(_tree(values["provenance"])))]))
    found = [[key, values["provenance"][key]] for key in FOUND if values["provenance"].get(key) not in (None, "", {})]
    sections.append(Section("How it was found", [Table(["", ""], found)]))
    return View(values["file"]["name"], sections, lead=_lead(values))


def _lead(values: Mapping[str, Any]) -> str:
    file = values["file"]
    return f"{file['name']}  {file['bytes']:,} bytes, for {values['base_name']} ({values['base_digest'][:12]})"


def _lines(values: Mapping[str, Any]) -> Iterator[str]:
    if values["count"]:
        kinds = {part["kind"].replace("_", "-") for part in values["parts"] if part["kind"] in WEIGHTS}
        share = f"{values['count']:,} of {values['size']:,} weights ({values['density']:.2%})"
        yield f"{share}: {', '.join(sorted(kinds))}"
    subject = Subject.of(values["provenance"])
    for token in values["tokens"]:
        noun = subject.noun_of(token) if subject else ""
        if any(part["kind"] == "residual" for part in values["parts"]):
            yield f"new word {token}; say it in the place of {noun or 'the noun'}"
        else:
            yield f"new word {token}; say it before the noun: {f'{token} {noun}'.strip()}"


def _layers(rows: Sequence[Mapping[str, Any]]) -> Table:
    adds = any(row["norm"] is not None for row in rows)
    header = ["block", "layer", "weights", "kind", "changed", "share", *(["norm"] if adds else []), "bytes"]
    shown = []
    for row in rows:
        block, layer, projection = place(row["name"])
        size, norm = f"{row['index_bytes'] + row['value_bytes']:,}", [row["norm"]] if adds else []
        counts = [f"{row['count']:,}", f"{row['density']:.2%}"]
        shown.append([block, layer, f"{projection} {_shape(row)}".strip(), _kind(row["kind"]), *counts, *norm, size])
    return Table(header, shown)


def _blocks(blocks: Sequence[Mapping[str, Any]]) -> Bars:
    """Bars of what is added where every part adds, because then the share is often all of it; else of the share changed."""
    norms = [block["norm"] for block in blocks if block["norm"] is not None]
    is_added = len(norms) == len(blocks)
    sizes = norms if is_added else [block["count"] / block["size"] for block in blocks]
    most, shown = max(sizes) or 1.0, "{:.5g}" if is_added else "{:.2%}"
    bars = [(block["name"], size / most, shown.format(size)) for block, size in zip(blocks, sizes, strict=True)]
    return Bars(bars, "Blocks, norm added" if is_added else "Blocks, share changed")


def _values(parts: Sequence[Mapping[str, Any]]) -> Block:
    """One row a part; its distribution from minus the largest magnitude to plus it, zero in the middle."""
    rows = []
    for part in parts:
        held = part["values"]
        if held:
            kind = ", ".join(filter(None, (_kind(part["kind"]), part["detail"])))
            ends = f"{held['minimum']:.3g} to {held['maximum']:.3g}"
            numbers = [f"{held['count']:,}", f"{held['mean']:.3g}", f"{held['std']:.3g}", ends, f"{held['zeros']:,}"]
            rows.append([kind, *numbers, _spark(held["counts"])])
    return Table(["part", "count", "mean", "std", "range", "zero", ""], rows)


def _spark(counts: Sequence[int]) -> str:
    """A histogram in one line, half of it on each side of zero, two bins a letter; what is above nothing is seen."""
    pairs = [one + two for one, two in zip(counts[::2], counts[1::2], strict=True)]
    most = max(pairs) or 1
    line = "".join(EIGHTHS[max(1, round(8 * count / most)) if count else 0] for count in pairs)
    return f"{line[: len(line) // 2]}┼{line[len(line) // 2 :]}"


def _sizes(values: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Table:
    shown = [["file", f"{values['file']['bytes']:,}", ""]]
    if values["index_bytes"]:
        times = f"{values['naive_bytes'] / values['index_bytes']:.1f} x the coded ones"
        bound = (
            f"coded is {values['index_bytes'] / values['entropy_bytes']:.3f} x it" if values["entropy_bytes"] else ""
        )
        shown += [
            ["positions", f"{values['index_bytes']:,}", "as coded in the file"],
            ["  as int32", f"{values['naive_bytes']:,}", times],
            ["  entropy bound", f"{values['entropy_bytes']:,.0f}", bound],
        ]
    for kind in dict.fromkeys(row["kind"] for row in rows):
        held = sum(row["value_bytes"] for row in rows if row["kind"] == kind)
        if held:
            label = ("new words", "embedding rows") if kind == "token" else (_kind(kind), "")
            shown.append([label[0], f"{held:,}", label[1]])
    return Table(["", "bytes", ""], shown)


def _tree(provenance: Mapping[str, Any], lead: str = "", below: str = "") -> Iterator[str]:
    """A composition as a tree of what it was made of, a line each."""
    named = [f"{key} {provenance[key]}" for key in LABEL if provenance.get(key) not in (None, "")]
    yield lead + ", ".join([str(provenance.get("method", "unknown method")), *named])
    parents = provenance.get("parents")
    parents = [each if isinstance(each, dict) else {} for each in parents] if isinstance(parents, list) else []
    for number, parent in enumerate(parents, 1):
        is_last = number == len(parents)
        yield from _tree(parent, below + ("└── " if is_last else "├── "), below + ("    " if is_last else "│   "))


def _kind(kind: str) -> str:
    return kind.replace("_", "-")


def _shape(row: Mapping[str, Any]) -> str:
    return "x".join(map(str, row["shape"]))
