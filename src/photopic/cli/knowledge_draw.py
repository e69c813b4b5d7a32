"""``photopic knowledge draw``: ``photopic generate --graph`` with the graph in the place of the prompt.

photopic knowledge draw scene.jsonl -n 8 -o out/
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from photopic.calls.inputs import files
from photopic.cli.generate import generate

EPILOG = (
    "Example: photopic knowledge draw scene.jsonl -n 8 -o out/    "
    "With an edit for an object named '<mine> bear': photopic knowledge draw scene.jsonl --with bear.edit --in-region -o out/"
)
REPLACED = ("prompt", "layout", "graph")  # what the graph says


def draw(**given: Any) -> None:
    """Draw a bag of concepts: its sentence, and the words of each object in the object's box."""
    generate(**given)


def _signature() -> inspect.Signature:
    """Options of ``generate``, and the graph as an argument."""
    graph = Annotated[
        Path,
        typer.Argument(
            metavar="GRAPH",
            help="JSON Lines with one bag of concepts; see docs/methods/drawing_graphs.md.",
            callback=files,
        ),
    ]
    hints = get_type_hints(generate, include_extras=True)
    options = [
        each.replace(annotation=hints[name])
        for name, each in inspect.signature(generate).parameters.items()
        if name not in REPLACED
    ]
    first = inspect.Parameter("graph", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=graph)
    return inspect.Signature([first, *(each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in options)])


draw.__signature__ = _signature()  # type: ignore[attr-defined]
draw.__annotations__ = {name: each.annotation for name, each in inspect.signature(draw).parameters.items()}
