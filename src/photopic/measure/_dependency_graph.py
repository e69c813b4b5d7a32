"""The dependencies of a report as a directed graph: an edge from a class to every class whose logit it helps to make."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import networkx as nx
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from photopic.core.errors import DataError
from photopic.core.results import Report
from photopic.core.runs import write_atomically

FORMATS = (".graphml", ".csv", ".png")
SIDE, MARGIN, LARGEST_NAMED = 1400, 90, 80  # pixels of the picture; nodes up to which every one is named


def dependency_graph(report: Report, *, all_classes: bool = False) -> nx.DiGraph:
    """Edges from predictors to the classes that reached the error.

    Args:
        report: Of ``dependencies``.
        all_classes: Also the edges of classes that did not reach it.

    Returns:
        Nodes are class names, between networks a predictor is ``other: <name>``; each edge has ``theta``, each class
        ``held_out_error`` and ``dependent``.

    Example:
        >>> rows = ({"class": "bear", "dependent": True, "held_out_error": 0.01, "support": ["cat"], "theta": [0.9]},)
        >>> list(dependency_graph(Report("dependencies", {"between": False}, rows)).edges(data="theta"))
        [('cat', 'bear', 0.9)]
    """
    graph, prefix = nx.DiGraph(), "other: " if report.values.get("between") else ""
    for row in report.rows:
        error = row["held_out_error"]
        graph.add_node(
            row["class"], dependent=bool(row["dependent"]), **({} if error is None else {"held_out_error": error})
        )
    for row in report.rows:
        if row["dependent"] or all_classes:
            for name, theta in zip(row["support"], row["theta"], strict=True):
                graph.add_edge(prefix + name, row["class"], theta=float(theta))
    return graph


def save_graph(graph: nx.DiGraph, path: str | Path) -> Path:
    """Write a graph as GraphML, as a table of edges or as a picture, by the file's suffix.

    Raises:
        DataError: If the suffix is none of ``.graphml``, ``.csv``, ``.png``.

    Example:
        >>> save_graph(graph, "dependencies.graphml")  # doctest: +SKIP
    """
    path, content = Path(path), io.BytesIO()
    if path.suffix == ".graphml":
        nx.write_graphml_xml(graph, content)
    elif path.suffix == ".csv":
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["predictor", "class", "theta", "held_out_error"])
        for source, target, theta in graph.edges(data="theta"):
            writer.writerow([source, target, theta, graph.nodes[target].get("held_out_error", "")])
        content.write(text.getvalue().encode())
    elif path.suffix == ".png":
        draw_graph(graph).save(content, "PNG")
    else:
        raise DataError(f"{path.name}: expected a file that ends in {', '.join(FORMATS)}")
    write_atomically(path, content.getvalue())
    return path


def draw_graph(graph: nx.DiGraph, *, nodes: int = 60, seed: int = 0) -> Image.Image:
    """A picture: blue edges add, red ones subtract; of a large graph the classes with the strongest edges.

    Args:
        graph: Of ``dependency_graph``.
        nodes: At most so many are drawn.
        seed: Of the layout.

    Example:
        >>> draw_graph(nx.DiGraph([("cat", "bear", {"theta": 1.0})])).size
        (1400, 1400)
    """
    strongest: dict[str, float] = {}
    for source, target, theta in graph.edges(data="theta"):
        for name in (source, target):
            strongest[name] = max(strongest.get(name, 0.0), abs(theta))
    shown = graph.subgraph(sorted(strongest, key=lambda name: -strongest[name])[:nodes])
    image = Image.new("RGB", (SIDE, SIDE), "white")
    pen = ImageDraw.Draw(image)
    places = nx.spring_layout(shown, seed=seed, weight=None) if len(shown) else {}
    at = {name: tuple(SIDE / 2 + (SIDE / 2 - MARGIN) * np.asarray(place)) for name, place in places.items()}
    largest = max(strongest.values(), default=1.0)
    for source, target, theta in shown.edges(data="theta"):
        width = max(1, round(5 * abs(theta) / largest))
        pen.line([at[source], at[target]], fill=(60, 110, 190) if theta > 0 else (200, 70, 60), width=width)
    font = ImageFont.load_default(18)
    for name, (x, y) in at.items():
        pen.ellipse([x - 5, y - 5, x + 5, y + 5], fill="black" if graph.nodes[name].get("dependent") else "gray")
        if len(shown) <= LARGEST_NAMED:
            pen.text((x + 7, y - 9), name, fill="black", font=font)
    return image
