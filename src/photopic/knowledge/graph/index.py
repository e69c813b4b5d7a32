"""The index of a graph: what a query asks for, as arrays that are mapped into memory and never read whole.

Edges lie in the order of their heads, so those that leave a node are a range of rows; for those that reach it the rows are
listed by tail. Everything in the index follows from the tables.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from photopic.core.errors import DataError
from photopic.data.knowledge_graph import KINDS, PARTS
from photopic.knowledge.graph.records import normalised
from photopic.knowledge.graph.tables import Construction

DTYPES = {"I64": np.int64, "I16": np.int16, "F32": np.float32, "U8": np.uint8, "F16": np.float16}  # of safetensors


def write_index(made: Construction, path: Path) -> None:
    """Write the index of tables that are closed and split.

    Args:
        made: The tables.
        path: The safetensors file to write.
    """
    from safetensors.numpy import save_file

    nodes = made.arrays("""
        SELECT kind, text, uris, to_json({'key': key, 'text': text, 'uris': uris, 'attributes': attributes})::VARCHAR AS line
        FROM nodes ORDER BY id
    """)
    edges = made.arrays(
        "SELECT e.head, e.relation, e.tail, e.weight, e.source, s.split FROM edges e POSITIONAL JOIN splits s"
    )
    lines = [str(line).encode() for line in nodes["line"]]
    names = _names(nodes["text"], nodes["uris"])
    sources, codes = np.unique(np.asarray(edges["source"], str), return_inverse=True)  # few names, one a row
    count = len(lines)
    tensors = {
        "kind_starts": _starts(np.searchsorted(KINDS, np.asarray(nodes["kind"], str)), len(KINDS)),  # (kinds + 1,)
        "line_starts": np.cumsum([0, *map(len, lines)], dtype=np.int64),  # (nodes + 1,)
        "lines": np.frombuffer(b"".join(lines), np.uint8),
        "name_starts": np.cumsum([0, *(len(name) for name, _ in names)], dtype=np.int64),  # (names + 1,)
        "names": np.frombuffer(b"".join(name for name, _ in names), np.uint8),
        "name_ids": np.array([number for _, number in names], np.int64),
        "out_starts": _starts(edges["head"], count),  # (nodes + 1,)
        "in_starts": _starts(edges["tail"], count),
        "in_rows": np.argsort(edges["tail"], kind="stable").astype(np.int64),  # (edges,)
        "source": codes.astype(np.int16),
        "split": np.select([np.asarray(edges["split"], str) == name for name in PARTS], range(len(PARTS))).astype(
            np.uint8
        ),
        **{name: np.ascontiguousarray(edges[name]) for name in ("head", "relation", "tail", "weight")},
    }
    save_file(tensors, path, metadata={"sources": json.dumps(sources.tolist())})


def _names(texts: Any, uris: Any) -> list[tuple[bytes, int]]:
    """All that a node may be asked for by, with its id: its text and where it lies, sorted."""
    found = {(normalised(str(text)).encode(), number) for number, text in enumerate(texts)}
    found |= {(normalised(str(uri)).encode(), number) for number, several in enumerate(uris) for uri in several}
    return sorted(found)


def mapped(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The tensors of a safetensors file as arrays over the file, and its metadata; nothing is read before it is asked for.

    Args:
        path: The file.

    Raises:
        DataError: If it is no such file, or shorter than its header says.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length >= path.stat().st_size:
                raise ValueError("shorter than its header")
            header = json.loads(file.read(length))
        # the data follow the header; as a plain array, whose parts cost a tenth of a memmap's
        whole = np.asarray(np.memmap(path, np.uint8, "r", offset=8 + length)).view(np.ndarray)
        metadata = header.pop("__metadata__", {})
        found = {}
        for name, each in header.items():
            start, stop = each["data_offsets"]
            found[name] = whole[start:stop].view(DTYPES[each["dtype"]]).reshape(each["shape"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: expected an index of a graph, found a damaged file ({error}); build the graph again"
        ) from error
    return found, metadata


def ranges(starts: Int64[np.ndarray, " nodes_1"], nodes: Int64[np.ndarray, " some"]) -> Int64[np.ndarray, " rows"]:
    """The rows of several nodes one after the other, without a loop over them.

    Args:
        starts: The first row of every node, and one past the last.
        nodes: Whose rows.

    Example:
        >>> ranges(np.array([0, 2, 2, 5]), np.array([2, 0]))
        array([2, 3, 4, 0, 1])
    """
    first, count = starts[nodes], starts[nodes + 1] - starts[nodes]
    before = np.cumsum(count) - count  # rows of the nodes before
    return np.arange(int(count.sum())) + np.repeat(first - before, count)


def among(values: Int64[np.ndarray, " values"], several: Int64[np.ndarray, " several"]) -> Bool[np.ndarray, " values"]:
    """Which values are among some sorted ones.

    Example:
        >>> among(np.array([3, 1, 4]), np.array([1, 3]))
        array([ True,  True, False])
    """
    if not len(several):
        return np.zeros(len(values), bool)
    return several[np.minimum(np.searchsorted(several, values), len(several) - 1)] == values


def _starts(values: Any, count: int) -> Int64[np.ndarray, " count_1"]:
    """Where each of 0 to count - 1 begins among its sorted values."""
    return np.concatenate([[0], np.cumsum(np.bincount(values, minlength=count))]).astype(np.int64)
