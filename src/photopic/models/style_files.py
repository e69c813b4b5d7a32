"""Reading and writing style-based generators: photopic's own folders, and StyleGAN2 state dicts under two sets of names.

The names are those of rosinality's PyTorch port (``conv1.conv.weight``) and of NVIDIA's PyTorch releases
(``synthesis.b4.conv1.weight``); a prefix such as ``g_ema.`` is left out. The weights are not included.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from photopic.core.errors import FieldError, ModelError
from photopic.core.files import finite, share_as_usual, write_atomically
from photopic.models.files import GENERATOR_CONFIG, first_line, read_json, style_file
from photopic.models.style_critics import Discriminator, Encoder
from photopic.models.style_networks import GeneratorConfig, Synthesis
from photopic.models.style_networks import Mapping as StyleMapping

WEIGHTS = "model.safetensors"
BESIDE = {"discriminator": Discriminator, "encoder": Encoder}  # each in a file of its own, where there is one
PREFIXES = ("g_ema.", "G_ema.", "generator.", "module.", "ema.")


class Loaded(NamedTuple):
    """What a folder holds."""

    mapping: StyleMapping
    synthesis: Synthesis
    config: GeneratorConfig
    provenance: Mapping[str, Any]
    discriminator: Discriminator | None = None
    encoder: Encoder | None = None


def networks(config: GeneratorConfig) -> tuple[StyleMapping, Synthesis]:
    """Fresh networks; the same seed makes the same weights, and the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return StyleMapping(config), Synthesis(config)


def read(name: str, source: Path | str) -> Loaded:
    """Read a generator.

    Args:
        name: What was asked for, for messages.
        source: The folder with ``generator.json`` and ``model.safetensors``, or a folder or file with a StyleGAN2 state dict.

    Raises:
        ModelError: If a file is missing or damaged, or its tensors are not those of such a generator.
    """
    if not isinstance(source, Path):
        raise ModelError(f"{name}: generators are read from a folder; download it first")
    known = read_json(source, GENERATOR_CONFIG) if source.is_dir() else None
    path = source / WEIGHTS if known is not None else style_file(source)
    if path is None or not path.is_file():
        raise ModelError(f"{name}: is not the folder of a whole generator: it has no {WEIGHTS}; copy the whole model")
    found = _tensors(path)
    if known is None:
        config, tensors = of_stylegan2(found, name)
        provenance: Mapping[str, Any] = {}
    else:
        provenance = known.pop("provenance", {})
        try:
            given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in known.items()}
            config = GeneratorConfig(**given)
        except (FieldError, TypeError) as error:
            raise ModelError(f"{source / GENERATOR_CONFIG}: {first_line(error)}; copy the model again") from error
        tensors = found
    mapping, synthesis = networks(config)
    for part, network in (("mapping", mapping), ("synthesis", synthesis)):
        own = {key.removeprefix(f"{part}."): value for key, value in tensors.items() if key.startswith(f"{part}.")}
        wanted = network.state_dict()
        for key, value in wanted.items():
            if key not in own and not key.endswith(".noise"):  # noise that was not kept is drawn from the seed
                raise ModelError(
                    f"{name}: is not a whole generator: its weights lack {part}.{key}; copy the whole model"
                )
            if key in own and own[key].shape != value.shape:
                raise ModelError(
                    f"{name}: {part}.{key}: expected shape {tuple(value.shape)}, found {tuple(own[key].shape)}; the "
                    "weights and their configuration are of two models"
                )
        if unknown := sorted(own.keys() - wanted.keys()):
            raise ModelError(f"{name}: has a tensor {part}.{unknown[0]}, which no generator of its configuration has")
        network.load_state_dict(own, strict=False)
    beside: dict[str, Any] = {}
    for part, kind in BESIDE.items() if source.is_dir() else ():
        if (file := source / f"{part}.safetensors").is_file():
            beside[part] = kind(config)
            try:
                beside[part].load_state_dict(_tensors(file))
            except RuntimeError as error:  # torch lists what is missing and what has another shape
                raise ModelError(
                    f"{file}: is of another generator ({first_line(error)}); copy the whole model"
                ) from error
    return Loaded(mapping, synthesis, config, provenance, **beside)


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: cannot be read: {first_line(error)}; copy it again") from error


def write(
    folder: Path, parts: Mapping[str, Mapping[str, Tensor]], config: GeneratorConfig, provenance: Mapping[str, Any]
) -> None:
    """Write a folder that ``read`` reads.

    Args:
        folder: Made if missing.
        parts: Weights and stored noise of mapping and synthesis; perhaps of a discriminator and an encoder, kept in files
            of their own.
        config: What the networks are made of.
        provenance: How they were made, as JSON values.
    """
    folder.mkdir(parents=True, exist_ok=True)
    whole = {f"{name}.{key}": value for name in ("mapping", "synthesis") for key, value in parts[name].items()}
    for file, tensors in {
        WEIGHTS: whole,
        **{f"{name}.safetensors": parts[name] for name in BESIDE if name in parts},
    }.items():
        write_atomically(folder / file, save({key: value.contiguous().cpu() for key, value in tensors.items()}))
        share_as_usual(folder / file)
    about = asdict(config) | ({"provenance": finite(provenance)} if provenance else {})
    write_atomically(folder / GENERATOR_CONFIG, (json.dumps(about, indent=1, sort_keys=True) + "\n").encode())


def of_stylegan2(found: Mapping[str, Tensor], name: str) -> tuple[GeneratorConfig, dict[str, Tensor]]:
    """Configuration and tensors of a StyleGAN2 state dict under either set of names.

    Args:
        found: The state dict; buffers of filters and the mean of w are left out.
        name: What messages call the model.

    Raises:
        ModelError: If a tensor is missing, or the generator draws classes or is of another architecture.
    """
    for prefix in PREFIXES:
        if all(key.startswith(prefix) for key in found if "." in key):
            found = {key.removeprefix(prefix): value for key, value in found.items()}
    is_nvidia = "synthesis.b4.const" in found
    if "mapping.embed.weight" in found:
        raise ModelError(f"{name}: expected a generator without classes, found one with (mapping.embed.weight)")
    try:
        tensors = dict(_renamed_nvidia(found) if is_nvidia else _renamed_rosinality(found))
        sizes = len([key for key in tensors if re.fullmatch(r"synthesis\.to_rgb\.\d+\.weight", key)])
        channels = [tensors["synthesis.constant"].shape[1]]
        channels += [tensors[f"synthesis.convs.{2 * k}.weight"].shape[0] for k in range(1, sizes)]
        first = tensors["mapping.layers.0.weight"]
    except KeyError as error:
        raise ModelError(
            f"{name}: is not a whole StyleGAN2 generator with skip connections: it lacks {error.args[0]}"
        ) from error
    config = GeneratorConfig(
        resolution=4 << (sizes - 1), z_width=first.shape[1], w_width=first.shape[0],
        mapping_layers=len([key for key in tensors if re.fullmatch(r"mapping\.layers\.\d+\.weight", key)]),
        channels=tuple(channels),
    )  # fmt: skip
    return config, tensors


def _renamed_rosinality(found: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """``style.1.weight``, ``input.input``, ``conv1.*``, ``convs.3.*``, ``to_rgb1.*``, ``to_rgbs.2.*``, ``noises.noise_4``."""
    for k, layer in enumerate(sorted(int(m[1]) for key in found if (m := re.fullmatch(r"style\.(\d+)\.weight", key)))):
        yield f"mapping.layers.{k}.weight", found[f"style.{layer}.weight"]
        yield f"mapping.layers.{k}.bias", found[f"style.{layer}.bias"]
    yield "synthesis.constant", found["input.input"]
    convs = 1 + len({key.split(".")[1] for key in found if key.startswith("convs.")})
    for layer in range(convs):
        theirs, ours = "conv1" if layer == 0 else f"convs.{layer - 1}", f"synthesis.convs.{layer}"
        yield from _layer(found, theirs, ours)
        yield f"{ours}.bias", found[f"{theirs}.activate.bias"]
        yield f"{ours}.strength", found[f"{theirs}.noise.weight"].reshape(())
        if f"noises.noise_{layer}" in found:
            yield f"{ours}.noise", found[f"noises.noise_{layer}"]
    for k in range((convs + 1) // 2):
        theirs, ours = "to_rgb1" if k == 0 else f"to_rgbs.{k - 1}", f"synthesis.to_rgb.{k}"
        yield from _layer(found, theirs, ours)
        yield f"{ours}.bias", found[f"{theirs}.bias"].reshape(3)


def _layer(found: Mapping[str, Tensor], theirs: str, ours: str) -> Iterator[tuple[str, Tensor]]:
    yield f"{ours}.weight", found[f"{theirs}.conv.weight"][0]  # (1, out, in, k, k)
    for each in ("weight", "bias"):
        yield f"{ours}.affine.{each}", found[f"{theirs}.conv.modulation.{each}"]


def _renamed_nvidia(found: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """``mapping.fc0.weight``, ``synthesis.b4.const``, ``synthesis.b8.conv0.*``, ``synthesis.b8.torgb.*``."""
    for key in found:
        if m := re.fullmatch(r"mapping\.fc(\d+)\.(weight|bias)", key):
            yield f"mapping.layers.{m[1]}.{m[2]}", found[key]
    yield "synthesis.constant", found["synthesis.b4.const"][None]
    sides = sorted({int(m[1]) for key in found if (m := re.match(r"synthesis\.b(\d+)\.", key))})
    for k, side in enumerate(sides):
        for conv in (0, 1) if k else (1,):
            theirs, ours = f"synthesis.b{side}.conv{conv}", f"synthesis.convs.{2 * k - 1 + conv}"
            for each in ("weight", "bias", "affine.weight", "affine.bias"):
                yield f"{ours}.{each}", found[f"{theirs}.{each}"]
            yield f"{ours}.strength", found[f"{theirs}.noise_strength"].reshape(())
            if f"{theirs}.noise_const" in found:
                yield f"{ours}.noise", found[f"{theirs}.noise_const"][None, None]
        for each in ("weight", "bias", "affine.weight", "affine.bias"):
            yield f"synthesis.to_rgb.{k}.{each}", found[f"synthesis.b{side}.torgb.{each}"]


def seeded_normal(width: int, seed: int, count: int, start: int = 0) -> Tensor:
    """Standard normal rows, each from a generator of its own: row i is the same whatever the count; (count, width) float32."""
    rows = [np.random.default_rng((seed, start + i)).standard_normal(width) for i in range(count)]
    return torch.from_numpy(np.stack(rows)).float()
