"""What controls share that read what a command measured before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from photopic.core.errors import DataError


def read_rows(path: str | Path, command: str) -> list[dict[str, Any]]:
    """The rows of a report, as a command with ``--json`` printed it.

    Args:
        path: The file.
        command: What made it, such as ``measure seeds``.

    Raises:
        DataError: If there is no such report with rows.

    Example:
        >>> read_rows("seeds.json", "measure seeds")[0]["seed"]  # doctest: +SKIP
        17
    """
    try:
        said = json.loads(Path(path).read_text(encoding="utf-8"))
        rows = [dict(row) for row in said["rows"]]
        if said["name"] != command or not rows:
            raise ValueError(f"a report of {said['name']!r} with {len(rows)} rows")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{Path(path).name}: expected what photopic {command} --json prints, found something else ({error!r})"
        ) from None
    return rows


def read_ranking(path: str) -> list[int]:
    """The seeds of a ranking, best first.

    Raises:
        DataError: Names the file and what is wrong with it.
    """
    seeds = [row.get("seed") for row in read_rows(path, "measure seeds")]
    if any(type(seed) is not int or not 0 <= seed < 2**63 for seed in seeds):
        raise DataError(f"{Path(path).name}: expected whole numbers from 0 as seeds, found others; measure them again")
    return [int(seed) for seed in seeds if seed is not None]
