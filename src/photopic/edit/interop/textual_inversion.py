"""Textual-inversion embeddings: the new tokens of edits as such files, and such files, or those bundled with a LoRA, as edits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from photopic.core.edits import Edit, TokenEmbedding
from photopic.core.edits.runtime_tokens import input_embedding
from photopic.core.errors import EditError
from photopic.core.results import Report, provenance
from photopic.edit.interop._changes import check_bare, left_out_parts, read_tensors, write_tensors
from photopic.models.text_to_image.handle import TextToImage

_SDXL_KEYS = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}
_NAMELESS = ("emb_params", "string_to_param.*", "*")  # under which A1111 keeps vectors; the file's name is the word
T5_DIM = 2048  # of T5-XL; XXL has 4096, the largest CLIP 1280
BUNDLED = "bundle_emb."  # before the embeddings that come with a LoRA


def _key_of(component: str, dim: int) -> str:
    """The key of an encoder's vectors: no CLIP has vectors as long as those of a T5."""
    return "t5xxl" if dim >= T5_DIM else _SDXL_KEYS.get(component, component)


def import_textual_inversion(path: str | Path, model: TextToImage, *, token: str | None = None) -> Edit:
    """Read a textual-inversion embedding as an edit with its new words.

    Several vectors become several words, ``<mine>``, ``<mine>_1`` ...; a prompt says the first, as with diffusers.

    Args:
        path: A safetensors file of diffusers, of A1111 (``emb_params``), or for several text encoders: of SDXL (``clip_l`` and
            ``clip_g``), of Flux (``clip_l`` and ``t5``), or by the names of the encoders (``text_encoder_3``).
        model: What it was trained for, with no edits applied.
        token: The word; that of the file, or ``<name of the file>``, if left out.

    Returns:
        The edit, bound to the model.

    Raises:
        EditError: If the file holds something else, or vectors of another length than the model's.

    Example:
        >>> import_textual_inversion("mine.safetensors", model).tokens  # doctest: +SKIP
        ('<mine>', '<mine>_1')
    """
    path = Path(path)
    check_bare(model, transformers=True)
    parts = tuple(_words(path.name, dict(read_tensors(path)), token, path.stem, model))
    facts = {"file": path.name, "data": hashlib.sha256(path.read_bytes()).hexdigest()}
    return Edit(parts, model.edits.fingerprint(), provenance("interop.import_textual_inversion", **facts))


def bundled_words(file: str, tensors: Mapping[str, Tensor], model: TextToImage) -> Iterator[TokenEmbedding]:
    """The words of the embeddings bundled with a LoRA: ``bundle_emb.<name>.<key>``, called ``<name>``."""
    words: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, rest = key.removeprefix(BUNDLED).partition(".")
        words.setdefault(name, {})[rest] = tensor
    for name, found in words.items():
        yield from _words(f"{file}: {BUNDLED}{name}", found, None, name, model)


def _words(
    file: str, tensors: Mapping[str, Tensor], token: str | None, name: str, model: TextToImage
) -> Iterator[TokenEmbedding]:
    """One word a vector; with several text encoders each has its own vectors, of which there are as many."""
    encoders = _encoders(model)
    if tensors and tensors.keys() <= encoders.keys():
        vectors = {encoders[key]: tensor for key, tensor in tensors.items()}
    elif len(tensors) == 1:
        (key, tensor), *_ = tensors.items()
        vectors, name = {_fitting(tensor, model): tensor}, name if key in _NAMELESS else key
    else:
        raise EditError(
            f"{file}: expected one tensor, or those of {', '.join(encoders)}, found {', '.join(sorted(tensors)[:5]) or 'none'}"
        )
    rows = {component: _rows(file, component, tensor, model) for component, tensor in vectors.items()}
    counts = {component: len(each) for component, each in rows.items()}
    if len(set(counts.values())) > 1:
        raise EditError(f"{file}: expected as many vectors for each text encoder, found {counts}")
    token = token or (name if name.startswith("<") else f"<{name}>")
    for number in range(next(iter(counts.values()))):
        word = f"{token}_{number}" if number else token
        yield TokenEmbedding(word, {component: each[number] for component, each in rows.items()})


def _encoders(model: TextToImage) -> dict[str, str]:
    """The text encoders of a model by the keys of files: their own names, and those of their kinds in the order they come in."""
    found = {each: each for each in model.tokenizers}
    kinds = {"CLIP": iter(("clip_l", "clip_g")), "T5": iter(("t5",))}
    for each in model.tokenizers:
        kind = next((kind for kind in kinds if kind in type(model.components[each]).__name__), None)
        if key := next(kinds[kind], None) if kind else None:
            found[key] = each
    if "t5" in found:
        found["t5xxl"] = found["t5"]
    return {key: each for each, key in _SDXL_KEYS.items() if each in model.tokenizers} | found


def _fitting(tensor: Tensor, model: TextToImage) -> str:
    """The text encoder that a file's only vectors are for: the first whose rows are as long, else the first."""
    dims = {each: input_embedding(model.components[each]).embedding_dim for each in model.tokenizers}
    return next((each for each, dim in dims.items() if dim == tensor.shape[-1]), next(iter(dims)))


def _rows(file: str, component: str, tensor: Tensor, model: TextToImage) -> Float[Tensor, "vectors dim"]:
    rows = tensor.reshape(1, -1) if tensor.ndim == 1 else tensor  # (dim,) -> (1, dim)
    dim = input_embedding(model.components[component]).embedding_dim
    if not rows.is_floating_point() or rows.ndim != 2 or rows.shape[1] != dim:
        raise EditError(f"{file}: expected vectors of length {dim} for {component}, found shape {tuple(tensor.shape)}")
    return rows.float()


def export_textual_inversion(edit: Edit, path: str | Path, *, token: str | None = None) -> Report:
    """Write a token of an edit as a textual-inversion embedding.

    With one text encoder the file holds the row under the token, as diffusers saves it: ``pipeline.load_textual_inversion(path)``.
    With several it holds ``clip_l``, ``clip_g`` and ``t5xxl``, as embeddings for SDXL, Stable Diffusion 3 and Flux do; diffusers
    takes those of SDXL one by one.

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
        keys = {component: _key_of(component, len(row)) for component, row in part.rows.items()}
    write_tensors(path, {key: part.rows[component][None] for component, key in keys.items()}, {"format": "pt"})
    weights = sorted({name for each in edit.weight_parts for name in each.names()})
    left_out = [*weights, *(words for words in left_out_parts(edit) if words != f"token {part.token}")]
    rows = tuple(
        {"component": component, "key": key, "dim": len(part.rows[component])} for component, key in keys.items()
    )
    facts = {"edit": dict(edit.provenance)}
    values = {"token": part.token, "left_out": left_out}
    return Report("export_textual_inversion", values, rows, provenance("interop.export_textual_inversion", **facts))
