"""LoRA files of diffusers, peft, the kohya scripts, LyCORIS and ComfyUI as edits."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from photopic.core.edits import DenseDelta, Edit, LowRankDelta, Part, SparseWeights
from photopic.core.edits.positions import is_finite
from photopic.core.errors import EditError
from photopic.core.fingerprint import named_tensors
from photopic.core.results import provenance
from photopic.edit.interop._changes import check_bare, read_metadata, read_tensors
from photopic.edit.interop._lora_keys import Names, other_kind, parsed
from photopic.edit.interop._lora_products import (
    DORA,
    LOHA,
    LOKR,
    ROWS,
    fitted,
    hadamard,
    kronecker,
    rank_of,
    rescaled,
)
from photopic.edit.interop._lora_scales import CONFIG_FILE, commonest, read_scales
from photopic.edit.interop._names import ADAPTED
from photopic.edit.interop._rotations import OF_OUTPUTS, ROTATIONS, rotation
from photopic.edit.interop._saved_modules import as_differences
from photopic.edit.interop._transformer_names import Fused
from photopic.edit.interop.textual_inversion import BUNDLED, bundled_words
from photopic.models.text_to_image.handle import TextToImage

_SHOWN = 5
_LOOKS = (  # parts of names, and whose they are
    (r"joint_blocks", "Stable Diffusion 3"),
    (r"double_blocks|single_blocks|single_transformer_blocks", "Flux or a relative of it"),
    (r"(?:down|up|input|output)_blocks|mid_block|middle_block", "a UNet, as Stable Diffusion 1.x, 2.x and XL have"),
    (r"(?:context|noise)_refiner", "Lumina 2 or Z-Image"),
    (r"transformer_blocks", "a transformer"),
)
_KEPT = (torch.float32, torch.float16, torch.bfloat16)  # as an edit keeps factors


@dataclass
class _Layer:
    """What a file holds for one weight, with the keys it came under."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)


def import_lora(path: str | Path, model: TextToImage) -> Edit:
    """Read a LoRA file as an edit, most of it one `LowRankDelta` part.

    Reads the namings of diffusers (``unet.….lora_A.weight``, the older ``.lora.down.weight`` and ``to_q_lora.down.weight``), of
    peft (without a component's name, with an adapter's), of the kohya scripts and LyCORIS (``lora_unet_….lora_down.weight``,
    ``lora_te_``, ``lora_te1_``, ``lora_te2_``, with diffusers' block names or the original ones) and of ComfyUI
    (``diffusion_model.…``, differences), for linear layers and convolutions. Of transformers also those of musubi and ai-toolkit,
    with diffusers' names or the original ones, of which a fused matrix is shared out by its rows.

    LoHa (two factors of the rank of both multiplied), LoKr, DoRA, OFT and BOFT (whole changes; those of the last three belong to
    the very base) come in too.

    A product is scaled by alpha / rank of its own layer. The alpha is that of the file, else of peft's settings in its metadata or
    in ``adapter_config.json`` beside it, else the commonest in the file, as diffusers has it; without any the scale is 1. Biases
    of factors, whole differences (``.diff``, norms), layers that peft trained in full, SHiRA's entries and bundled embeddings come
    along as further parts.

    Args:
        path: A safetensors file, or a folder as peft writes it, of one component or with a folder for each.
        model: What it was trained for, with no edits applied.

    Returns:
        The edit, bound to the model.

    Raises:
        EditError: If a key is unknown or lacks its other factor, a shape does not fit, or nothing in the file fits the model; for
            GLoRA, IA3, CP-decomposed convolutions and others by name.

    Example:
        >>> edit = import_lora("style.safetensors", model)  # doctest: +SKIP
        >>> with model.edits.applied(edit):  # doctest: +SKIP
        ...     model.generate("a bear", seeds=[0])
    """
    path = Path(path)
    check_bare(model, transformers=True)
    parts = [part for file, component in _files(path, model) for part in _parts(file, model, component)]
    names = {name for part in parts for name in part.names()}
    hashed = hashlib.sha256()
    for file, _ in _files(path, model):
        with file.open("rb") as opened:
            hashed.update(hashlib.file_digest(opened, "sha256").digest())
    facts = {"file": path.name, "data": hashed.hexdigest()}
    return Edit(tuple(parts), model.edits.fingerprint(*names), provenance("interop.import_lora", **facts))


def adapter_folders(folder: Path) -> list[Path]:
    """The folders of peft's adapters in a folder: itself, or those inside it that are named as components."""
    return [each for each in (folder, *(folder / name for name in ADAPTED)) if (each / CONFIG_FILE).is_file()]


def _files(path: Path, model: TextToImage) -> list[tuple[Path, str | None]]:
    """The files to read, each with its component where its folder says so."""
    if not path.is_dir():
        return [(path, None)]
    found = adapter_folders(path)
    if not found:
        raise EditError(f"{path}: expected an adapter of peft, found no {CONFIG_FILE} in it or in {', '.join(ADAPTED)}")
    return [
        (folder / "adapter_model.safetensors", folder.name if folder.name in model.components else None)
        for folder in found
    ]


def _parts(file: Path, model: TextToImage, component: str | None) -> Iterator[Part]:
    """All that one file holds, as parts of an edit."""
    tensors = dict(read_tensors(file))
    yield from bundled_words(file.name, {key: each for key, each in tensors.items() if key.startswith(BUNDLED)}, model)
    known = {name: each for name, each in named_tensors(model.components).items() if name.partition(".")[0] in ADAPTED}
    tensors = {key: each for key, each in tensors.items() if not key.startswith(BUNDLED)}
    weights = [name for name in known if name.endswith(".weight")]
    shapes = {name: tuple(known[name].shape) for name in weights}
    metadata = read_metadata(file)
    scales = read_scales(file, metadata)
    names = Names(model, weights, component)
    tensors = as_differences(file.name, tensors, scales.settings, names, known)
    layers = _gather(file.name, tensors, names, model.name, shapes)
    alphas = {name: _alpha(file.name, layer) for name, layer in layers.items() if "alpha" in layer.tensors}
    scales = replace(scales, common=commonest(alphas))
    up, down, factors = {}, {}, {}
    dense: dict[str, Tensor] = {}
    for name, layer in sorted(layers.items()):
        shape, roles = tuple(known[name].shape), layer.tensors.keys()
        if roles & {*LOHA, *LOKR}:
            factors[name] = scales.of(name, rank_of(layer.tensors), alphas.get(name))
            found = _product(file.name, layer, name, shape)
            if isinstance(found, Tensor):
                dense[name] = factors[name] * found
            else:
                up[name], down[name] = found
        elif roles & {*ROTATIONS}:
            rotated = {role: _kept(file.name, layer, role) for role in roles & {*ROTATIONS}}
            dense[name] = rotation(file.name, known[name], rotated, alphas.get(name, 0.0), scales.settings, name)
        elif roles & {"up", "down", "alpha", "up_bias"}:
            up[name], down[name] = _factors(file.name, layer, name, shape)
            factors[name] = scales.of(name, len(down[name]), alphas.get(name))
        if norms := roles & {*DORA}:  # of what the factors come to together with the base
            delta = dense[name] if name in dense else _multiplied(up, down, factors, name, shape)
            parts = {role: _kept(file.name, layer, role) for role in norms}
            dense[name] = rescaled(file.name, known[name], delta, parts, name)
        _add_dense(dense, file.name, layer, name, known, factors.get(name, 1.0))
    if up:
        yield LowRankDelta(up, down, {name: factors[name] for name in up})
    if dense:
        yield DenseDelta(dense)
    yield from _shira(file.name, layers, known)


def _gather(
    file: str, tensors: Mapping[str, Tensor], names: Names, model: str, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, _Layer]:
    """The tensors of each layer by the name of its weight."""
    found: dict[str, _Layer] = {}
    unknown, adapters = [], set()
    for key, tensor in tensors.items():
        if kind := other_kind(key):
            raise EditError(f"{file}: {key}: expected a plain LoRA, found {kind}, which photopic cannot import")
        read = parsed(key)
        if read is not None and (whole := names.fused(read.stem)):
            adapters |= {read.adapter} - {None}
            for name, part in _shares(file, key, read.role, tensor, whole, shapes):
                _keep(file, found.setdefault(name, _Layer()), read.role, part, key)
            if read.role in LOKR:  # whose rows no factor has: each weight takes its own of the product
                ends = torch.tensor([shapes[name][0] for name in whole.weights]).cumsum(0)
                for name, end in zip(whole.weights, ends.tolist(), strict=True):
                    found[name].tensors[ROWS] = torch.tensor([end - shapes[name][0], end])
            continue
        meant = [] if read is None else names.find(read.stem)
        if read is None or not meant:
            unknown.append(key)
            continue
        if len(meant) > 1:
            raise EditError(f"{file}: {key}: may be {' or '.join(meant)}; put it into a folder named as its component")
        adapters |= {read.adapter} - {None}
        _keep(file, found.setdefault(meant[0], _Layer()), read.role, tensor, key)
    if tensors and not found:
        raise EditError(
            f"{file}: none of its {len(tensors)} tensors fits a layer of {model} ({_some(unknown)}); "
            f"expected a LoRA for this model{_looks_like(unknown)}"
        )
    if unknown:
        raise EditError(
            f"{file}: {len(unknown)} of its {len(tensors)} tensors fit no layer of {model}: {_some(unknown)}; "
            f"it is for another model{_looks_like(unknown)}"
        )
    if len(adapters) > 1:
        raise EditError(f"{file}: holds the adapters {', '.join(sorted(map(str, adapters)))}; save one at a time")
    return found


def _keep(file: str, layer: _Layer, role: str, tensor: Tensor, key: str) -> None:
    if role in layer.tensors:
        raise EditError(f"{file}: {key}: means the same as {layer.keys[role]}; expected one {role} a layer")
    layer.tensors[role], layer.keys[role] = tensor, key


def _shares(
    file: str, key: str, role: str, tensor: Tensor, whole: Fused, shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[str, Tensor]]:
    """A tensor of an original matrix as those of the weights that have its rows: outputs are shared out, inputs are the same."""
    counts = [shapes[name][0] for name in whole.weights]
    if role in OF_OUTPUTS and (len(counts) > 1 or whole.exchanged):
        raise EditError(
            f"{file}: {key}: turns the outputs of an original matrix that is {len(counts)} weights here "
            f"({', '.join(whole.weights)}); save it with diffusers' names"
        )
    is_output = role in ("up", "up_bias", "diff", "diff_b", "hada_w1_a", "hada_w2_a", *DORA)
    if is_output and (not tensor.ndim or len(tensor) != sum(counts)):
        raise EditError(
            f"{file}: {key}: expected {sum(counts)} rows, of {', '.join(whole.weights)}, found {tuple(tensor.shape)}"
        )
    if whole.exchanged and role in LOKR:
        raise EditError(
            f"{file}: {key}: a LoKr of {whole.weights[0]}, whose halves diffusers exchanges, is not read; take it out"
        )
    if whole.exchanged and is_output:
        tensor = torch.cat(tensor.chunk(2)[::-1])
    parts = tensor.split(counts) if is_output else [tensor] * len(counts)  # (rows of all, ...) -> (rows of one, ...)
    yield from zip(whole.weights, parts, strict=True)


def _some(keys: Iterable[str]) -> str:
    keys = sorted(keys)
    return ", ".join(keys[:_SHOWN]) + (", ..." if len(keys) > _SHOWN else "") if keys else "it is empty"


def _looks_like(keys: Iterable[str]) -> str:
    """Whose names the layers have, for a message; nothing where they are nobody's alone."""
    for pattern, family in _LOOKS:
        if any(re.search(pattern, key) for key in keys):
            return f", its names are those of {family}"
    return ""


def _factors(file: str, layer: _Layer, name: str, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """up as (out, rank) and down as (rank, in x height x width)."""
    for role in ("down", "up"):
        if role not in layer.tensors:
            key = next(layer.keys[each] for each in ("down", "up", *layer.keys) if each in layer.keys)
            raise EditError(f"{file}: {key}: expected both factors of {name}, found no {role}")
    down, up = _kept(file, layer, "down"), _kept(file, layer, "up")
    rank, inner = len(down) if down.ndim else 0, prod(shape[1:])  # inner: inputs, times the kernel of a convolution
    fits = (
        rank and len(shape) > 1 and up.ndim >= 2 and up.shape[:2] == (shape[0], rank) and up.numel() == shape[0] * rank
    )
    if not fits or down.numel() != rank * inner or (down.ndim == 4 and tuple(down.shape[1:]) != _as_conv(shape)):
        raise EditError(
            f"{file}: {layer.keys['down']}: expected factors of {name} with shape {shape}, "
            f"found {tuple(up.shape)} and {tuple(down.shape)}"
        )
    dtype = torch.promote_types(up.dtype, down.dtype)  # an edit keeps both factors in one
    return up.reshape(shape[0], rank).to(dtype), down.reshape(rank, inner).to(dtype)


def _kept(file: str, layer: _Layer, role: str) -> Tensor:
    """A tensor as an edit keeps it: 8-bit floats as float16, which holds all of them, and float64 as float32."""
    tensor = layer.tensors[role]
    if tensor.is_floating_point() and tensor.dtype not in _KEPT:
        tensor = tensor.to(torch.float16 if tensor.element_size() == 1 else torch.float32)
    if not tensor.is_floating_point() or not is_finite(tensor):
        raise EditError(f"{file}: {layer.keys[role]}: expected finite floating-point values, found others")
    return tensor


def _product(
    file: str, layer: _Layer, name: str, shape: tuple[int, ...]
) -> Float[Tensor, "..."] | tuple[Tensor, Tensor]:
    """What a LoHa or LoKr comes to: two factors where they hold fewer numbers than the weight, else the whole change."""
    parts = {role: _kept(file, layer, role) for role in layer.tensors.keys() & {*LOHA, *LOKR}}
    rows = layer.tensors.get(ROWS)
    if parts.keys() & {*LOKR}:
        return fitted(file, kronecker(file, parts, name), shape, name, rows)
    up, down = hadamard(file, parts, name)
    whole = fitted(file, up @ down, shape, name, None)
    return (up, down) if up.numel() + down.numel() < whole.numel() else whole


def _multiplied(
    up: dict[str, Tensor], down: dict[str, Tensor], factors: Mapping[str, float], name: str, shape: tuple[int, ...]
) -> Tensor:
    """The product of a layer's two factors, which are taken out; zero where it has none."""
    if name not in up:
        return torch.zeros(shape)
    return (factors[name] * up.pop(name).float() @ down.pop(name).float()).reshape(shape)


def _as_conv(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[1:] if len(shape) == 4 else (shape[1], 1, 1)  # a linear layer may be sent as a point convolution


def _alpha(file: str, layer: _Layer) -> float:
    alpha = layer.tensors["alpha"]
    if alpha.numel() != 1 or not bool(torch.isfinite(alpha.float()).all()):
        raise EditError(f"{file}: {layer.keys['alpha']}: expected one finite number, found shape {tuple(alpha.shape)}")
    return float(alpha)


def _add_dense(
    dense: dict[str, Tensor], file: str, layer: _Layer, name: str, known: Mapping[str, Tensor], scale: float
) -> None:
    """Differences of a weight and its bias; the bias of a factor is scaled with the product."""
    bias = f"{name.removesuffix('.weight')}.bias"
    for role, target, factor in (("diff", name, 1.0), ("diff_b", bias, 1.0), ("up_bias", bias, scale)):
        if role not in layer.tensors:
            continue
        if target not in known:
            raise EditError(f"{file}: {layer.keys[role]}: expected a layer with a bias, found {name} without one")
        delta, shape = _kept(file, layer, role), tuple(known[target].shape)
        if delta.numel() != prod(shape):
            raise EditError(
                f"{file}: {layer.keys[role]}: expected {target} with shape {shape}, found {tuple(delta.shape)}"
            )
        delta = delta.reshape(shape) if factor == 1.0 else factor * delta.reshape(shape).float()
        dense[target] = dense[target].float() + delta.float() if target in dense else delta


def _shira(file: str, layers: Mapping[str, _Layer], known: Mapping[str, Tensor]) -> Iterator[SparseWeights]:
    """The entries that a SHiRA adapter adds to; zeros, with which layers are filled up, are left out."""
    indices, values = {}, {}
    for name, layer in sorted(layers.items()):
        if not layer.tensors.keys() & {"shira_values", "shira_positions"}:
            continue
        if not {"shira_values", "shira_positions"} <= layer.tensors.keys() or known[name].ndim != 2:
            raise EditError(
                f"{file}: {next(iter(layer.keys.values()))}: expected values and positions of a linear layer"
            )
        added, at = _kept(file, layer, "shira_values").float(), layer.tensors["shira_positions"].long()
        limits = torch.tensor(known[name].shape)[:, None]  # (2, 1), against at of (2, entries)
        if at.shape != (2, added.numel()) or bool((at < 0).any()) or bool((at >= limits).any()):
            raise EditError(
                f"{file}: {layer.keys['shira_positions']}: expected rows and columns of {name}, found others"
            )
        flat, order = (at[0] * known[name].shape[1] + at[1]).sort()  # row x inner + column
        kept = added[order] != 0
        if bool((flat.diff() == 0).any()):
            raise EditError(f"{file}: {layer.keys['shira_positions']}: names an entry of {name} twice")
        if bool(kept.any()):
            indices[name], values[name] = flat[kept], added[order][kept]
    if indices:
        yield SparseWeights(indices, values, delta=True)
