"""The words of ``--overlap`` in the commands written by hand."""

from __future__ import annotations

from enum import StrEnum


class Overlap(StrEnum):
    """What becomes of entries that several edits touch."""

    ERROR = "error"
    UNION = "union"
    FIRST = "first"
    SUM = "sum"
    TIES = "ties"
