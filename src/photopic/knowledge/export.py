"""A knowledge graph for other programs: GraphML, which Gephi, yEd, igraph and networkx read.

Part of the protocol of UKnow (arXiv:2302.06891); tests/knowledge/graph/test_export.py reads every node and edge back.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

from photopic.core.config import Existing, Flags
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.results import Report
from photopic.core.view import Section, Text, View
from photopic.knowledge.graph.graph import Graph
from photopic.knowledge.graph.networks import as_network

FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # what XML has no way to write


def export_view(report: Report) -> View:
    """What was written."""
    values = report.values
    said = f"{values['file']}: {values['nodes']:,} nodes, {values['edges']:,} edges, {values['bytes']:,} bytes."
    return View("Export", [Section("", [Text(said)])])


@method(
    paper="arXiv:2302.06891",
    command="knowledge export",
    page=False,
    view=export_view,
    examples=("Example: photopic knowledge export my.graph -o my.graphml",),
)
def export(
    graph: Annotated[str, Flags("GRAPH"), Existing()],
    *,
    output: Annotated[str, Flags("--output", "-o", "--out")],
) -> Steps[Report]:
    """Write a knowledge graph as GraphML, which Gephi, yEd, igraph and networkx read.

    In Python ``as_network`` gives the same as a ``networkx.MultiDiGraph``.

    Args:
        graph: Folder of the graph, as knowledge build writes it.
        output: The .graphml file to write.

    Returns:
        How many nodes and edges were written.

    Raises:
        DataError: If there is no graph, it is too large for networkx, or the file is not called .graphml.

    Example:
        >>> export("my.graph", output="my.graphml").values["nodes"]  # doctest: +SKIP
        214
    """
    path = Path(output)
    if path.suffix != ".graphml":
        raise DataError(
            f"{output}: expected a file that ends in .graphml, found {path.suffix or 'no ending'}; rename it"
        )
    yield Event("reading")
    network = as_network(Graph(graph))
    yield Event("writing")
    import networkx

    for _, attributes in network.nodes(data=True):  # GraphML has plain values alone
        attributes.update({name: _plain(value) for name, value in attributes.items()})
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        networkx.write_graphml(network, temporary, named_key_ids=True)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    size = path.stat().st_size
    return Report("export", {"file": output, "nodes": len(network), "edges": network.number_of_edges(), "bytes": size})


def _plain(value: Any) -> Any:
    text = value if isinstance(value, str | int | float) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    return FORBIDDEN.sub("\ufffd", text) if isinstance(text, str) else text
