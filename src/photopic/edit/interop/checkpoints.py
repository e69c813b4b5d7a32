"""Dense fine-tuned checkpoints as edits: what they change against the base, all of it or only the largest changes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from photopic.core.edits import DenseDelta, Edit, SparseWeights
from photopic.core.errors import EditError
from photopic.core.files import what_is_there
from photopic.core.fingerprint import named_tensors
from photopic.core.results import provenance
from photopic.edit.interop._changes import check_bare, read_tensors
from photopic.models.text_to_image.handle import TextToImage

_STEMS = ("diffusion_pytorch_model", "model")
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_OLD_VAE = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
_DENSE = 0.5  # from this share of changed entries on a difference is cheaper than positions
_SHOWN = 5


def import_checkpoint(path: str | Path, model: TextToImage, *, keep: float | None = None) -> Edit:
    """Read a fine-tuned checkpoint of the same architecture as an edit of its base.

    Applied, the whole import gives the fine-tuned model's bytes (at the model's precision): entries that differ become new values;
    where more than half of a tensor differs and base + difference gives every entry exactly, the difference is kept instead.

    Args:
        path: A diffusers pipeline folder, a folder of a UNet alone, or one safetensors file of a UNet in diffusers' names.
        model: The base, with no edits applied. Components that the folder lacks stay as they are.
        keep: Share of all entries of the checkpoint to keep, above 0 and up to 1: those with the largest change relative to the
            root mean square of their base tensor. None keeps every change.

    Returns:
        The edit, bound to the model.

    Raises:
        EditError: If there is no safetensors file, a key is unknown, missing or of another shape, a value is not finite, or
        nothing differs.

    Example:
        >>> import_checkpoint("fine-tuned/", model, keep=0.01)  # doctest: +SKIP
    """
    path = Path(path)
    if keep is not None and not 0 < keep <= 1:
        raise EditError(f"{path.name}: keep: expected a share above 0 and up to 1, found {keep}")
    check_bare(model)
    base = named_tensors(model.components)
    names: list[str] = []
    changed: dict[str, Tensor] = {}
    for component, files in _files(path, model).items():
        for name, tensor in _component(component, files, base):
            names.append(name)
            if not torch.equal(_bits(tensor), _bits(_plain(base[name]))):
                changed[name] = tensor
    if not changed:
        raise EditError(
            f"{path.name}: is the same as {model.name} in all {len(names)} tensors; expected a fine-tuned one"
        )
    if keep is None:
        parts = _exact(base, changed)
    else:
        total = sum(base[name].numel() for name in names)
        parts = (_largest(path.name, base, changed, max(1, round(keep * total))),)
    touched = {name for part in parts for name in part.names()}
    facts = {"file": path.name, "config": {"keep": keep}}
    return Edit(parts, model.edits.fingerprint(*touched), provenance("interop.import_checkpoint", **facts))


def _files(path: Path, model: TextToImage) -> dict[str, list[Path]]:
    """The safetensors files of each component."""
    found = what_is_there(path)
    if not found:
        return {"unet": [path]}
    if found != "a folder":
        raise EditError(f"{path}: expected a fine-tuned checkpoint, found {found}; check the path")
    folders = {component: path / component for component in model.components if (path / component).is_dir()}
    return {component: _weights(folder) for component, folder in (folders or {"unet": path}).items()}


def _weights(folder: Path) -> list[Path]:
    for stem in _STEMS:
        for whole in (folder / f"{stem}.safetensors", folder / f"{stem}.fp16.safetensors"):
            if whole.is_file():
                return [whole]
        for index in (folder / f"{stem}.safetensors.index{variant}.json" for variant in ("", ".fp16")):
            if index.is_file():
                return _shards(index)
    raise EditError(
        f"{folder}: expected {' or '.join(f'{stem}.safetensors' for stem in _STEMS)}, found none; save it as safetensors"
    )


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EditError(f"{index}: expected a weight_map, found something else ({error})") from None
    if not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise EditError(f"{index}: weight_map: expected names of files beside it, found others")
    return [index.parent / name for name in names]


def _component(component: str, files: list[Path], base: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a component, at the precision of the base."""
    wanted = {name for name, each in base.items() if name.startswith(f"{component}.") and each.is_floating_point()}
    missing = set(wanted)
    for file in files:
        for key, tensor in read_tensors(file):
            name = _name(component, key, wanted)
            if name is None and (not tensor.is_floating_point() or key.endswith("position_ids")):
                continue  # counters that older versions saved
            if name is None:
                raise EditError(
                    f"{file.name}: {key}: unknown in {component} of the base; expected a checkpoint of its architecture"
                )
            if name not in missing:
                raise EditError(f"{file.name}: {key}: there twice; expected each tensor once")
            if tensor.shape != base[name].shape:
                raise EditError(
                    f"{file.name}: {key}: expected shape {tuple(base[name].shape)}, found {tuple(tensor.shape)}"
                )
            missing.remove(name)
            cast = tensor.to(base[name].dtype)
            if cast.is_floating_point() and not bool(torch.isfinite(cast).all()):
                raise EditError(f"{file.name}: {key}: expected finite values as {cast.dtype}, found NaN or infinity")
            yield name, cast
    if missing:
        some = ", ".join(sorted(missing)[:_SHOWN])
        raise EditError(
            f"{files[0].name}: lacks {len(missing)} tensors of {component}: {some}; expected a whole checkpoint"
        )


def _name(component: str, key: str, wanted: set[str]) -> str | None:
    """The base's name of a key, also of one that older versions of diffusers and transformers wrote."""
    plain, old = key.removeprefix("text_model."), key
    for before, after in _OLD_VAE.items():
        old = old.replace(before, after)
    spellings = [key, plain, f"text_model.{plain}", old if component == "vae" else key]
    return next((name for each in spellings if (name := f"{component}.{each}") in wanted), None)


def _exact(base: Mapping[str, Tensor], changed: Mapping[str, Tensor]) -> tuple[DenseDelta | SparseWeights, ...]:
    deltas: dict[str, Tensor] = {}
    by_bits: dict[int, tuple[dict[str, Tensor], dict[str, Tensor]]] = {}
    for name, tensor in changed.items():
        before = _plain(base[name])
        positions = (_bits(tensor) != _bits(before)).reshape(-1).nonzero().flatten()
        if len(positions) > _DENSE * tensor.numel() and (delta := _exact_delta(before, tensor)) is not None:
            deltas[name] = delta
            continue
        values = tensor.reshape(-1)[positions]
        bits = 16 if torch.equal(_bits(values.half().to(values.dtype)), _bits(values)) else 32
        indices_of, values_of = by_bits.setdefault(bits, ({}, {}))
        indices_of[name], values_of[name] = positions, values
    parts = [SparseWeights(*by_bits[bits], bits=bits) for bits in sorted(by_bits)]
    return (*parts, DenseDelta(deltas)) if deltas else tuple(parts)


def _exact_delta(before: Tensor, after: Tensor) -> Tensor | None:
    """The difference, if adding it to the base rounds to every new entry."""
    delta = (after.double() - before.double()).float()  # exact in double; the rounding to float is what is checked
    rounded = (before.to(torch.promote_types(before.dtype, torch.float32)) + delta).to(before.dtype)
    return delta if torch.equal(_bits(rounded), _bits(after)) else None


def _largest(file: str, base: Mapping[str, Tensor], changed: Mapping[str, Tensor], count: int) -> SparseWeights:
    """The ``count`` entries with the largest relative change; of equal ones the first in name and position order."""
    best = torch.zeros(0)  # the largest scores so far: no more than two tensors' worth at a time
    for name in sorted(changed):
        scores = torch.cat([best, _scores(base[name], changed[name])])
        best = scores[scores > 0].topk(min(count, int((scores > 0).sum()))).values
    if not len(best):
        raise EditError(f"{file}: differs from its base only in signs of zero; expected changed values")
    threshold = best.min()
    ties = len(best) - int((best > threshold).sum())  # how many entries at the threshold itself are kept
    indices, values = {}, {}
    for name in sorted(changed):
        scores = _scores(base[name], changed[name])
        equal = (scores == threshold).nonzero().flatten()[:ties]
        ties -= len(equal)
        positions: Int64[Tensor, " kept"] = torch.cat([(scores > threshold).nonzero().flatten(), equal]).sort().values
        if len(positions):
            indices[name], values[name] = positions, changed[name].reshape(-1)[positions].float()
    return SparseWeights(indices, values)


def _scores(before: Tensor, after: Tensor) -> Float[Tensor, " size"]:
    """|change| over the root mean square of the base tensor, or of the new one where the base is zero."""
    before, after = _plain(before).float().reshape(-1), after.float().reshape(-1)
    size = before.square().mean().sqrt()
    return (after - before).abs() / (size if size > 0 else after.square().mean().sqrt().clamp_min(1e-30))


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu()


def _bits(tensor: Tensor) -> Tensor:
    """The bytes as whole numbers, which tell apart the two zeros."""
    return tensor.contiguous().view(_BITS[tensor.element_size()])
