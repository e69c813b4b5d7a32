"""A reader of bags of concepts that only splits at marks, with the faults that the published one is known for: the baseline.

Written from a description of what the released parser does (arXiv:2407.03314, its code was not copied): parts are found by counting
``%%``, positions are expected always, an object ends at the first ``)``, and what has no position is deleted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class SplitObject:
    """An object as splitting finds it; blanks stay where they are."""

    name: str
    living: str
    place: str
    description: str
    colour: str


def split_read(text: str) -> tuple[list[SplitObject], list[tuple[str, str, str]]]:
    """The objects and relations that splitting finds.

    Raises:
        IndexError: If a part or a field is missing, the positions among them.
    """
    parts = text.split("%%")
    listed, related, placed = parts[4], parts[6], parts[8]
    positions = {piece.split("{")[0].strip(' \n,<>"') for piece in placed.split("}") if "{" in piece}
    objects = []
    for piece in listed.split(")"):
        if "(" not in piece:
            continue
        head, body = piece.split("(")[:2]
        fields = body.split(";")
        if len(fields) < 4:
            fields += [""] * (4 - len(fields))
        name = head.strip("\n <").replace(">", "")
        if name.strip() in positions:
            objects.append(SplitObject(name + " ", fields[0], fields[1], fields[2], fields[3]))
    relations = []
    for sentence in related.split("."):
        ends, predicates = re.findall(r"<(.*?)>", sentence), re.findall(r"\[(.*?)\]", sentence)
        if predicates:
            relations.append((ends[0], predicates[0], ends[1]))
    return objects, relations
