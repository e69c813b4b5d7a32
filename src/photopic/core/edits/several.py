"""Several edits as one result, each with a name for its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from photopic.core.edits.edit import Edit


@dataclass(frozen=True)
class Edits:
    """Edits that belong together.

    Attributes:
        edits: By name, such as ``1-mine``; the name of a file without its suffix.
        provenance: Where all of them come from; each has its own beside it.

    Example:
        >>> Edits({}).to_dict()["edits"]
        {}
    """

    edits: Mapping[str, Edit]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON values: the parts of each edit by their content."""
        contents = {name: [part.digest() for part in edit.parts] for name, edit in self.edits.items()}
        return {"type": "edits", "edits": contents, "provenance": dict(self.provenance)}
