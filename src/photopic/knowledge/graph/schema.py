"""What a knowledge graph of pictures and texts holds: five kinds of nodes, twelve relations in families.

After UKnow (arXiv 2302.06891): every relation belongs to one family and joins fixed kinds of nodes. The ids of the relations are
written into tables, so they never change.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from photopic.core.errors import DataError
from photopic.data.knowledge_graph import RelationType

FAMILIES = ("I_in", "T_in", "I_cross", "T_cross", "IT_cross", "fact")

RELATIONS = (  # the id of a relation is its place
    RelationType("contains", "I_in", ("image",), "object"),
    RelationType("left of", "I_in", ("object",), "object", inverse="right of"),
    RelationType("right of", "I_in", ("object",), "object", inverse="left of"),
    RelationType("above", "I_in", ("object",), "object", inverse="below"),
    RelationType("below", "I_in", ("object",), "object", inverse="above"),
    RelationType("mentions", "T_in", ("text",), "entity"),
    RelationType("similar", "I_cross", ("image",), "image", symmetric=True),
    RelationType("same thing", "I_cross", ("image",), "image", symmetric=True),
    RelationType("continues", "T_cross", ("text",), "text"),
    RelationType("similar text", "T_cross", ("text",), "text", symmetric=True),
    RelationType("describes", "IT_cross", ("text",), "image"),
    RelationType("of event", "fact", ("image", "text"), "fact"),
)
STORED_AS = {"right of": "left of", "below": "above"}  # of two that say the same only one is stored
MODEL_MADE = (
    "similar",
    "similar text",
)  # an encoder that made them knows them already: leave them out where it is judged


def relation_id(name: str) -> int:
    """The number that stands for a relation in tables.

    Args:
        name: Of the relation.

    Raises:
        DataError: If there is no such relation.

    Example:
        >>> relation_id("describes")
        10
    """
    for place, relation in enumerate(RELATIONS):
        if relation.name == name:
            return place
    raise DataError(f"no relation is named {name!r}; the relations are {', '.join(each.name for each in RELATIONS)}")


def relation_table() -> list[dict[str, Any]]:
    """The relations as ``relations.json`` holds them.

    Example:
        >>> relation_table()[7]["family"]
        'I_cross'
    """
    return [{"id": place, **asdict(each)} for place, each in enumerate(RELATIONS)]
