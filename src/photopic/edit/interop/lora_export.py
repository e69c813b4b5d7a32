"""Edits as LoRA files: every changed matrix approximated by one of low rank, with the error of each reported."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from photopic.core.edits import Edit, LowRankDelta, Part
from photopic.core.errors import EditError
from photopic.core.results import Report, provenance
from photopic.edit.interop._changes import (
    base_tensors,
    change,
    left_out_parts,
    parts_by_weight,
    write_tensors,
)
from photopic.edit.interop._names import NETWORKS, kohya_name, layers, sd_scripts_reads, with_text_model
from photopic.edit.interop._transformer_names import fused_layers
from photopic.models.text_to_image.handle import TextToImage

Naming = Literal["diffusers", "kohya", "original"]


def export_lora(
    edit: Edit,
    path: str | Path,
    model: TextToImage,
    *,
    rank: int,
    naming: Naming = "diffusers",
) -> Report:
    """Write an edit as a LoRA file, by truncated singular value decomposition of what it changes.

    A `LowRankDelta` part of at most this rank goes in as it is. Biases, norms, embeddings, the VAE and new tokens have no place in
    a LoRA file and are left out; the report names them. In kohya's naming all layers get the same rank and alpha, padded with zeros
    where they need less: diffusers gives the layers of attention one alpha for all, whatever the file says.

    Args:
        edit: Made for the model.
        path: A ``.safetensors`` file, replaced if it exists.
        model: Its base, with no edits applied.
        rank: The largest rank of a layer, at least 1.
        naming: ``diffusers`` (peft keys, which ai-toolkit writes too), or ``kohya`` for A1111, Forge, ComfyUI, musubi and the kohya
            scripts; diffusers reads both. ``original``, of transformers alone: ``diffusion_model.`` and the original names, for
            ComfyUI and ai-toolkit. What is one matrix in an original layout gets the sum of the ranks of its parts.

    Returns:
        One row a layer with its ``rank`` and ``relative_error`` (Frobenius norm of what is lost over that of the change), and in
        the values the largest and the overall error, what was ``left_out``, and of kohya's naming what the kohya scripts pass over,
        which adapt attention blocks, resnets and samplers of the UNet and attention and MLP of text encoders alone.

    Raises:
        EditError: If the model is not the edit's base, edits are applied to it, or nothing of the edit fits into a LoRA.

    Example:
        >>> report = export_lora(edit, "bear.safetensors", model, rank=16, naming="kohya")  # doctest: +SKIP
        >>> report.values["largest_relative_error"]  # doctest: +SKIP
    """
    path = Path(path)
    if rank < 1:
        raise EditError(f"{path.name}: rank: expected at least 1, found {rank}")
    if naming not in get_args(Naming):
        raise EditError(f"{path.name}: naming: expected {', '.join(get_args(Naming))}, found {naming!r}")
    if naming == "original" and model.network_name == "unet":
        raise EditError(f"{path.name}: naming: original is for transformers, {model.name} has a UNet; use kohya")
    tensors, known = base_tensors(edit, model, transformers=True), layers(model)
    parts = parts_by_weight(edit)
    pairs: dict[str, Pair] = {}
    rows: list[dict[str, Any]] = []
    lost = whole = 0.0
    for name in sorted(parts.keys() & known.keys()):
        wanted = change(name, parts[name], tensors[name]).flatten(1)  # (out, in) or (out, in x height x width)
        size = float(wanted.norm())
        if size == 0:
            continue
        pairs[name] = _factors(name, parts[name], wanted, rank)
        error = float((wanted - _product(*pairs[name])).norm()) if not _passes(parts[name], name, rank) else 0.0
        lost, whole = lost + error**2, whole + size**2
        rows.append({"tensor": name, "rank": pairs[name][1].shape[0], "relative_error": error / size})
    left_out = [*sorted(parts.keys() - known.keys()), *left_out_parts(edit)]
    if not pairs:
        raise EditError(
            f"{path.name}: nothing in this edit fits into a LoRA file: {', '.join(left_out) or 'no change'}"
        )
    pairs |= _marks(pairs, known)
    if model.network_name != "unet" and naming != "diffusers":
        content = _original(pairs, known, model, naming)
    else:
        content = _kohya(pairs, known, model) if naming == "kohya" else dict(_diffusers(pairs, known))
    write_tensors(path, content, {"format": "pt"})
    values = {
        "naming": naming,
        "tensors": len(rows),
        "largest_relative_error": max(row["relative_error"] for row in rows),
        "overall_relative_error": (lost / whole) ** 0.5,
        "left_out": left_out,
        "not_read_by_sd_scripts": [name for name in sorted(pairs) if naming == "kohya" and not sd_scripts_reads(name)],
    }
    facts = {"config": {"rank": rank, "naming": naming}, "edit": dict(edit.provenance)}
    return Report("export_lora", values, tuple(rows), provenance("interop.export_lora", **facts))


Pair = tuple[Tensor, Tensor, float]  # up (out, rank), down (rank, inner), scale


def _passes(parts: list[Part], name: str, rank: int) -> bool:
    """Whether a change is a product of low enough rank already."""
    return len(parts) == 1 and isinstance(parts[0], LowRankDelta) and parts[0].down[name].shape[0] <= rank


def _factors(name: str, parts: list[Part], wanted: Float[Tensor, "out inner"], rank: int) -> Pair:
    part = parts[0]
    if isinstance(part, LowRankDelta) and _passes(parts, name, rank):
        return part.up[name], part.down[name], part.scales[name]
    left, singular, right = torch.linalg.svd(wanted, full_matrices=False)
    kept = min(rank, int((singular > 0).sum()))
    root = singular[:kept].sqrt()  # (rank,)
    return left[:, :kept] * root, root[:, None] * right[:kept], 1.0  # the factors share the size of the change


def _marks(pairs: dict[str, Pair], known: dict[str, nn.Linear | nn.Conv2d]) -> dict[str, Pair]:
    """A zero output projection for each text encoder without one: diffusers tells the naming of its layers by that."""
    found = {}
    for component in {name.split(".", 1)[0] for name in pairs} - set(NETWORKS):
        marks = [name for name in known if name.startswith(component + ".") and name.endswith(".out_proj.weight")]
        if marks and not pairs.keys() & set(marks):
            out, inner = known[marks[0]].weight.shape
            _, down, scale = next(iter(pairs.values()))  # of the same rank as another, so that alike layers stay alike
            found[marks[0]] = torch.zeros(out, len(down)), torch.zeros(len(down), inner), scale
    return found


def _product(up: Tensor, down: Tensor, scale: float) -> Float[Tensor, "out inner"]:
    return scale * (up.float() @ down.float())


def _scaled(pair: Pair) -> tuple[Tensor, Tensor]:
    """The same product with scale 1."""
    up, down, scale = pair
    return (up, down) if scale == 1 else (up.float() * scale, down.float())


def _diffusers(pairs: dict[str, Pair], known: dict[str, nn.Linear | nn.Conv2d]) -> Iterator[tuple[str, Tensor]]:
    """peft's keys; without alphas every product counts once."""
    for name, pair in pairs.items():
        component, layer = name.rsplit(".", 1)[0].split(".", 1)
        stem = f"{component}.{layer if component in NETWORKS else with_text_model(layer)}"
        up, down = _scaled(pair)
        yield f"{stem}.lora_A.weight", _down_shape(down, known[name])
        yield f"{stem}.lora_B.weight", _up_shape(up, known[name])


def _kohya(pairs: dict[str, Pair], known: dict[str, nn.Linear | nn.Conv2d], model: TextToImage) -> dict[str, Tensor]:
    ranks = {down.shape[0] for _, down, _ in pairs.values()}
    scales = {scale for _, _, scale in pairs.values()}
    alike = len(ranks) == len(scales) == 1
    rank, content = max(ranks), {}
    for name, pair in pairs.items():
        up, down = pair[:2] if alike else _scaled(pair)
        missing = rank - down.shape[0]
        stem = kohya_name(name, model)
        content[f"{stem}.lora_down.weight"] = _down_shape(nn.functional.pad(down, (0, 0, 0, missing)), known[name])
        content[f"{stem}.lora_up.weight"] = _up_shape(nn.functional.pad(up, (0, missing)), known[name])
        content[f"{stem}.alpha"] = torch.tensor(rank * pair[2] if alike else float(rank), dtype=torch.float32)
    return content


def _original(
    pairs: dict[str, Pair], known: dict[str, nn.Linear | nn.Conv2d], model: TextToImage, naming: Naming
) -> dict[str, Tensor]:
    """A transformer's layers under their original names, several of which may be one matrix; text encoders as in kohya's files."""
    content: dict[str, Tensor] = {}
    left = dict(pairs)
    for whole in fused_layers(type(model.pipeline).__name__, known).values():
        if left.keys() & set(whole.weights):
            own = [left.pop(name, None) for name in whole.weights]
            up, down = _stacked(
                [None if pair is None else _scaled(pair) for pair in own], [len(known[n].weight) for n in whole.weights]
            )
            up = torch.cat(up.chunk(2)[::-1]) if whole.exchanged else up
            shaped = _up_shape(up, known[whole.weights[0]]), _down_shape(down, known[whole.weights[0]])
            content |= dict(_named(f"transformer.{whole.name}", *shaped, model, naming))
    for name, pair in left.items():
        up, down = _scaled(pair)
        shaped = _up_shape(up, known[name]), _down_shape(down, known[name])
        content |= dict(_named(name.rsplit(".", 1)[0], *shaped, model, naming))
    return content


def _stacked(pairs: list[tuple[Tensor, Tensor] | None], rows: list[int]) -> tuple[Tensor, Tensor]:
    """Products of several matrices as one of the matrix that has the rows of all: factors of the outputs stand on a diagonal."""
    there = [pair for pair in pairs if pair is not None]
    down = torch.cat([pair[1].float() for pair in there])  # (sum of ranks, inner)
    up, first, column = torch.zeros(sum(rows), len(down)), 0, 0
    for pair, count in zip(pairs, rows, strict=True):
        if pair is not None:
            rank = pair[0].shape[1]
            up[first : first + count, column : column + rank] = pair[0].float()
            column += rank
        first += count
    return up, down


def _named(layer: str, up: Tensor, down: Tensor, model: TextToImage, naming: Naming) -> Iterator[tuple[str, Tensor]]:
    component, path = layer.split(".", 1)
    if component == "transformer" and naming == "original":
        yield f"diffusion_model.{path}.lora_A.weight", down
        yield f"diffusion_model.{path}.lora_B.weight", up
        return
    stem = kohya_name(f"{layer}.weight", model)
    yield f"{stem}.lora_down.weight", down
    yield f"{stem}.lora_up.weight", up
    yield f"{stem}.alpha", torch.tensor(float(len(down)))


def _down_shape(down: Float[Tensor, "rank inner"], module: nn.Linear | nn.Conv2d) -> Tensor:
    return down.view(len(down), *module.weight.shape[1:]) if isinstance(module, nn.Conv2d) else down  # (rank, in, h, w)


def _up_shape(up: Float[Tensor, "out rank"], module: nn.Linear | nn.Conv2d) -> Tensor:
    # (out, rank, 1, 1): a point convolution follows
    return up[..., None, None] if isinstance(module, nn.Conv2d) else up
