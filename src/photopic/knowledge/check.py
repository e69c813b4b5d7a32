"""Checking texts and files of bags of concepts: which records can be read, what had to be repaired and where.

Paper: Improving Clarity of Image Captions via Bag-of-Concept Graphs (arXiv:2407.03314); its shared data sets are read unchanged.
Claims ``knowledge_text.*`` of benchmarks/knowledge/knowledge_text.py.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from photopic.core.config import Existing, Flags
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.files import read_file, what_is_there
from photopic.core.method import method
from photopic.core.results import Verdict
from photopic.core.view import Note, Section, Table, View
from photopic.knowledge.bag_file import check_picture, lines_of, record_of
from photopic.knowledge.bag_of_concepts import BagOfConcepts
from photopic.knowledge.bag_record import BagRecord
from photopic.knowledge.caption_text import parse

MANY = 200  # objects of one picture from which on what follows is slow
SHOWN = 20  # records on the terminal and the page
_RECORD = re.compile(r"^(?=[ \t]*%%[ \t]*Part[ \t]*1\b)", re.MULTILINE | re.IGNORECASE)


def check_view(verdict: Verdict) -> View:
    """Totals, repairs by kind, and the records that had any."""
    found = verdict.evidence
    totals = [(name, found[name]) for name in ("records", "readable", "whole", "objects", "relations", "external")]
    sections = [Section("", [Table(("what", "how many"), totals)])]
    if found["repairs"]:
        sections.append(Section("Repairs", [Table(("repair", "times"), list(found["repairs"].items()))]))
    told = [(each["record"], line) for each in found["told"] for line in each["lines"]]
    if told:
        rest = [Note(f"{len(told) - SHOWN} lines more: --json has them all.", "Shortened")] if len(told) > SHOWN else []
        sections.append(Section("Where", [Table(("record", "what"), told[:SHOWN]), *rest]))
    return View("Bags of concepts, checked", sections, verdict.reason)


@method(
    paper="arXiv:2407.03314",
    claims="knowledge_text.",
    command="knowledge check",
    examples=(
        "Example: photopic knowledge check captions.txt",
        "The authors' data: photopic knowledge check test_dataset.jsonl -o checked.html",
        "That pictures are those described: photopic knowledge check photos.jsonl --pictures photos/",
    ),
    view=check_view,
)
def check(
    file: Annotated[str, Flags("FILE"), Existing()],
    *,
    pictures: str = "",
    strict: bool = False,
) -> Steps[Verdict]:
    """Say which records of a file are bags of concepts, what had to be repaired, and where.

    Args:
        file: A text with one bag or several, JSON Lines of bags, or a folder of texts.
        pictures: Folder of the pictures, to check that each is the one that was described; not looked at by default.
        strict: Whether a record that needs any repair counts as wrong.

    Returns:
        Accepted if every record can be read; the evidence counts records, objects, relations and repairs, and tells each
        problem with its record.

    Raises:
        DataError: If there is no file, or nothing in it.

    Example:
        >>> check("captions.txt").evidence["repairs"]  # doctest: +SKIP
        {'plural': 2}
    """
    totals: Counter[str] = Counter()
    repairs: Counter[str] = Counter()
    told: list[dict[str, Any]] = []
    for name, stated in records_of(Path(file)):
        yield Event("checking", totals["records"])
        verdict = check_record(stated, pictures=pictures, strict=strict)
        found = verdict.evidence
        totals.update({key: found[key] for key in ("objects", "relations", "external")})
        totals.update({"records": 1, "readable": verdict.accepted, "whole": verdict.accepted and not found["repairs"]})
        repairs.update(each.split(": ")[1] for each in found["repairs"])
        lines = [*([] if verdict.accepted else [verdict.reason]), *found["repairs"], *found["notes"]]
        told += [{"record": name, "accepted": verdict.accepted, "lines": lines}] if lines else []
    if not totals["records"]:
        raise DataError(f"{file}: expected texts of bags of concepts, found nothing in it")
    evidence: dict[str, Any] = {
        name: totals[name] for name in ("records", "readable", "whole", "objects", "relations", "external")
    }
    evidence |= {"repairs": dict(repairs.most_common()), "told": told}
    wrong = totals["records"] - totals["readable"]
    first = next((f"; the first is {each['record']}: {each['lines'][0]}" for each in told if not each["accepted"]), "")
    reason = f"{totals['readable']:,} of {totals['records']:,} records are bags of concepts, {totals['whole']:,} without repair"
    return Verdict(not wrong, reason + first, evidence)


def check_record(stated: Any, *, pictures: str = "", strict: bool = False) -> Verdict:
    """The verdict on one record: a text, a value of JSON Lines, or a ``DataError`` in the place of one.

    Args:
        stated: See ``bag_file.record_of``; or a text.
        pictures: Folder of the pictures; empty for no check of them.
        strict: Whether repairs count as wrong.

    Example:
        >>> check_record("An owl.").accepted
        False
    """
    try:
        record = _read(stated)
        if pictures and record.image:
            check_picture(record, pictures)
    except DataError as error:
        return Verdict(False, str(error), {"objects": 0, "relations": 0, "external": 0, "repairs": (), "notes": ()})
    bag = record.bag
    evidence = {
        "objects": len(bag.objects), "relations": len(bag.relations), "external": sum(each.external for each in bag.relations),
        "repairs": record.repairs, "notes": tuple(notes(bag)),
    }  # fmt: skip
    if strict and record.repairs:
        return Verdict(False, f"needs repair: {record.repairs[0]}", evidence)
    return Verdict(
        True, f"{len(bag.objects)} objects, {len(bag.relations)} relations, {len(record.repairs)} repairs", evidence
    )


def records_of(path: Path) -> Iterator[tuple[str, Any]]:
    """The records of a file or folder by their names: lines of JSON Lines, texts of a text file, files of a folder.

    Raises:
        DataError: If there is no file, or it is no UTF-8.
    """
    if what_is_there(path) == "a folder":
        for file in sorted(path.glob("*.txt")):
            yield file.name, _text(file)
    elif path.suffix.lower() in (".jsonl", ".ndjson"):
        for number, stated in lines_of(path):
            yield f"line {number}", stated
    else:
        text = _text(path)
        starts = [found.start() for found in _RECORD.finditer(text)] or [0]
        starts[0] = 0  # words before the first heading belong to the first record, which tells them
        for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(text)], strict=True), start=1):
            if text[start:end].strip():
                yield f"text {number}", text[start:end]


def notes(bag: BagOfConcepts) -> Iterator[str]:
    """What is odd about a bag and yet no damage."""
    if len(bag.objects) >= MANY:
        yield f"{len(bag.objects)} objects: grounding and drawing take long"
    pairs: Counter[frozenset[str]] = Counter()
    for each in bag.relations:
        if each.subject == each.object:
            yield f"a relation of {each.subject!r} to itself"
        pairs[frozenset((each.subject, each.object))] += 1
    yield from (f"{' and '.join(sorted(pair))} are related {count} times" for pair, count in pairs.items() if count > 1)


def _read(stated: Any) -> BagRecord:
    if isinstance(stated, str):
        parsed = parse(stated)
        return BagRecord(parsed.bag, source="text", repairs=tuple(map(str, parsed.repairs)))
    return record_of(stated)


def _text(file: Path) -> str:
    try:
        return read_file(file, DataError).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file}: expected a text in UTF-8, found other bytes at position {error.start}; save it as UTF-8"
        ) from error
