"""A part of an edit that adds a new token: its input embedding in each text encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from photopic.core.edits.part import Part
from photopic.core.edits.positions import FLOATS, is_finite
from photopic.core.errors import EditError


@dataclass(frozen=True, eq=False)
class TokenEmbedding(Part):
    """A new token and its input embedding in each text encoder.

    Attributes:
        token: How it is written in a prompt, without spaces.
        rows: Component, such as ``text_encoder``, to the embedding of the token, shape (dim,), finite.

    Example:
        >>> TokenEmbedding("<mine>", {"text_encoder": torch.zeros(8)}).token
        '<mine>'
    """

    kind: ClassVar[str] = "token"
    token: str
    rows: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        if not self.token or any(letter.isspace() for letter in self.token):
            raise EditError(f"token {self.token!r}: expected a word without spaces, such as '<mine>'")
        rows = {name: row.detach().cpu().contiguous() for name, row in sorted(self.rows.items())}
        for name, row in rows.items():
            if row.ndim != 1 or not len(row) or row.dtype not in FLOATS or not is_finite(row):
                found = f"{row.dtype} of shape {tuple(row.shape)}"
                raise EditError(
                    f"token {self.token!r}: {name}: expected a finite float32 or half vector, found {found}"
                )
        if not rows:
            raise EditError(f"token {self.token!r}: expected a row for at least one text encoder, found none")
        object.__setattr__(self, "rows", rows)
