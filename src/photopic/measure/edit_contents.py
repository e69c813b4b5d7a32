"""What an edit holds: entries per layer and block, and the bytes of its positions against int32 and the entropy bound.

The bound is that of independent entries, ``sum over tensors of size * H(share) / 8`` bytes with the binary entropy H.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from typing import Any

import numpy as np

from photopic.core.edits import Edit, Shut, TokenRows
from photopic.core.indices import encode
from photopic.core.results import Report

INT32_BYTES = 4


def edit_contents(edit: Edit) -> Report:
    """Count an edit's entries and bytes.

    Args:
        edit: Any edit.

    Returns:
        A report with totals in ``values`` and one row a tensor: block, layer, projection, shape, entries, changed,
        share, index_bytes, entropy_bytes.

    Example:
        >>> edit_contents(edit).values["changed"]  # doctest: +SKIP
        53012
    """
    rows = []
    for part in edit.parts:
        if not isinstance(part, TokenRows):
            kind = "shut" if isinstance(part, Shut) else f"{part.bits}-bit values"
            rows += [_row(name, edit.shapes[name], positions.numpy(), kind) for name, positions in part.indices.items()]
    changed, entries = (sum(row[key] for row in rows) for key in ("changed", "entries"))
    values = {
        "kinds": sorted({row["kind"] for row in rows}),
        "tokens": list(edit.tokens),
        "tensors": len(rows),
        "entries": entries,
        "changed": changed,
        "share": changed / entries if entries else 0.0,
        "index_bytes": sum(row["index_bytes"] for row in rows),
        "int32_bytes": INT32_BYTES * changed,
        "entropy_bytes": math.ceil(sum(row["entropy_bytes"] for row in rows)),
        "value_bytes": sum(math.ceil(part.bits * part.count / 8) for part in edit.parts if hasattr(part, "bits")),
        "token_bytes": sum(
            row.numel() * row.element_size()
            for part in edit.parts
            if isinstance(part, TokenRows)
            for row in part.rows.values()
        ),
    }
    return Report("edit_contents", values, tuple(rows), dict(edit.provenance))


def by_block(report: Report) -> dict[str, tuple[int, int]]:
    """(changed, entries) of every block, in the order the network runs them."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for row in report.rows:
        sums[row["block"]][0] += row["changed"]
        sums[row["block"]][1] += row["entries"]
    order = {"down": 0, "mid": 1, "up": 2}
    return {
        block: (changed, entries)
        for block, (changed, entries) in sorted(
            sums.items(), key=lambda item: (order.get(item[0].split()[0], 3), item[0])
        )
    }


def _row(name: str, shape: tuple[int, ...], positions: np.ndarray, kind: str) -> dict[str, Any]:
    entries = math.prod(shape)
    share = len(positions) / entries
    block, layer, projection = _place(name)
    return {
        "tensor": name,
        "block": block,
        "layer": layer,
        "projection": projection,
        "kind": kind,
        "shape": list(shape),
        "entries": entries,
        "changed": len(positions),
        "share": share,
        "index_bytes": len(encode(positions, entries)),
        "entropy_bytes": entries * _binary_entropy(share) / 8,
    }


def _place(name: str) -> tuple[str, str, str]:
    """Block, layer and projection of a UNet weight in words; the plain name where it is something else."""
    found = re.match(r"unet\.(down|mid|up)_blocks?\.?(\d*)\.(.*)\.(attn[12])\.to_(\w+)", name)
    if not found:
        return name.split(".")[0], name, ""
    side, number, inside, attention, projection = found.groups()
    numbers = re.findall(r"attentions\.(\d+)\.transformer_blocks\.(\d+)", inside)
    layer = "/".join(numbers[0]) if numbers else inside
    return f"{side} {number}".strip(), f"{'cross' if attention == 'attn2' else 'self'} {layer}", projection


def _binary_entropy(share: float) -> float:
    """H(p) in bits."""
    return 0.0 if share in (0.0, 1.0) else -share * math.log2(share) - (1 - share) * math.log2(1 - share)
