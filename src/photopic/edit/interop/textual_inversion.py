"""The new tokens of edits as textual-inversion embeddings."""

from __future__ import annotations

from pathlib import Path

from photopic.core.edits import Edit, TokenEmbedding
from photopic.core.errors import EditError
from photopic.core.results import Report, provenance
from photopic.edit.interop._changes import left_out_parts, write_tensors

_SDXL_KEYS = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}


def export_textual_inversion(edit: Edit, path: str | Path, *, token: str | None = None) -> Report:
    """Write a token of an edit as a textual-inversion embedding.

    With one text encoder the file holds the row under the token, as diffusers saves it: ``pipeline.load_textual_inversion(path)``.
    With two it holds ``clip_l`` and ``clip_g``, as embeddings for SDXL do; diffusers takes those one by one.

    Args:
        edit: With a new token.
        path: A ``.safetensors`` file, replaced if it exists.
        token: Which one, if the edit has several.

    Returns:
        One row a text encoder with its ``key``; in the values the ``token`` and what was ``left_out``.

    Raises:
        EditError: If the edit has no token, not this one, or several and none is named.

    Example:
        >>> export_textual_inversion(edit, "mine.safetensors").values["token"]  # doctest: +SKIP
        '<mine>'
        >>> pipeline.load_textual_inversion("mine.safetensors")  # doctest: +SKIP
    """
    path = Path(path)
    found = {part.token: part for part in edit.of(TokenEmbedding)}
    if not found:
        raise EditError(f"{path.name}: expected an edit with a new token, found none in it")
    if token is None and len(found) > 1:
        raise EditError(f"{path.name}: this edit has the tokens {', '.join(found)}; say which one with token=")
    part = next(iter(found.values())) if token is None else found.get(token)
    if part is None:
        raise EditError(f"{path.name}: this edit has no token {token!r}; found {', '.join(found)}")
    if len(part.rows) == 1:
        keys = dict.fromkeys(part.rows, part.token)
    else:
        keys = {component: _SDXL_KEYS.get(component, component) for component in part.rows}
    write_tensors(path, {key: part.rows[component][None] for component, key in keys.items()}, {"format": "pt"})
    weights = sorted({name for each in edit.weight_parts for name in each.names()})
    left_out = [*weights, *(words for words in left_out_parts(edit) if words != f"token {part.token}")]
    rows = tuple(
        {"component": component, "key": key, "dim": len(part.rows[component])} for component, key in keys.items()
    )
    facts = {"edit": dict(edit.provenance)}
    values = {"token": part.token, "left_out": left_out}
    return Report("export_textual_inversion", values, rows, provenance("interop.export_textual_inversion", **facts))
