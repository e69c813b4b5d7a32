"""The files of an adapter that reads conditions, beside a pipeline: ``conditions.json`` and ``conditions.safetensors``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from photopic.core.errors import ModelError
from photopic.core.files import finite, read_file, share_as_usual, write_atomically
from photopic.data.conditions import KINDS
from photopic.data.palette import colours_lab
from photopic.models.text_to_image.condition_encoder import ConditionEncoder, Shape

FORMAT = "photopic conditional model 1"
INDEX, WEIGHTS = "conditions.json", "conditions.safetensors"
LISTS = ("names", "blocks", "trunk")


@dataclass(frozen=True)
class About:
    """What a conditional model says of itself.

    Attributes:
        base: The bundled model whose weights it stands beside; empty where they lie in the same folder.
        encoder: Name of the dual encoder whose embeddings it reads.
        encoder_digest: Of that encoder's weights.
        drop: Probabilities of the dropout it was trained with, by name.
        provenance: How it was made, as JSON values.
    """

    base: str
    encoder: str
    encoder_digest: str
    drop: Mapping[str, float]
    provenance: Mapping[str, Any] = field(default_factory=dict)


def palette_digest() -> str:
    """Hex sha256 of the colours that palettes are over, in hundredths of CIELab units."""
    return hashlib.sha256((colours_lab() * 100).round().astype("<i4").tobytes()).hexdigest()


def write_encoder(folder: Path, encoder: ConditionEncoder, about: About) -> None:
    """Write both files; weights in half precision."""
    stated = {"format": FORMAT, "palette": palette_digest(), "shape": asdict(encoder.shape), **asdict(about)}
    write_atomically(folder / INDEX, (json.dumps(finite(stated), indent=1, sort_keys=True) + "\n").encode())
    tensors = {name: value.detach().cpu().half().contiguous() for name, value in encoder.state_dict().items()}
    save_file(tensors, folder / WEIGHTS)
    share_as_usual(folder / WEIGHTS)


def read_about(folder: Path) -> tuple[About, Shape]:
    """What ``conditions.json`` states.

    Raises:
        ModelError: If it states something else.
    """
    path = folder / INDEX
    try:
        stated: dict[str, Any] = json.loads(read_file(path, ModelError))
        read: dict[str, Any] = {name: tuple(each) if name in LISTS else each for name, each in stated["shape"].items()}
        shape = Shape(**read)
        about = About(**{name: stated[name] for name in ("base", "encoder", "encoder_digest", "drop", "provenance")})
        known = stated["format"] == FORMAT and set(shape.names) <= set(KINDS) and isinstance(about.base, str)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(
            f"{path}: expected what photopic train conditions writes, found another file ({error})"
        ) from None
    sizes = (shape.embedding, shape.time, shape.text, shape.latent, shape.width, *shape.blocks, *shape.trunk)
    if not known or not all(type(each) is int and 1 <= each <= 16384 for each in sizes):
        raise ModelError(f"{path}: expected what photopic train conditions writes, found other values")
    if stated["palette"] != palette_digest():
        raise ModelError(f"{path}: was trained with other palette colours than these; train it again")
    return about, shape


def read_encoder(folder: Path) -> ConditionEncoder:
    """The adapter of a folder, in float32.

    Raises:
        ModelError: If the weights are not those that ``conditions.json`` states.
    """
    _, shape = read_about(folder)
    encoder = ConditionEncoder(shape)
    try:
        encoder.load_state_dict({name: value.float() for name, value in load_file(folder / WEIGHTS).items()})
    except (RuntimeError, SafetensorError, OSError) as error:
        raise ModelError(
            f"{folder / WEIGHTS}: does not fit {INDEX} ({str(error).splitlines()[0]}); copy the model again"
        ) from None
    lost = [name for name, value in encoder.named_parameters() if not torch.isfinite(value).all()]
    if lost:
        raise ModelError(f"{folder / WEIGHTS}: {lost[0]} is not finite; train the model again")
    return encoder.eval().requires_grad_(False)
