"""Which base model is this, and at which precision?

The digest is a Merkle root: one SHA-256 leaf a tensor over name, dtype, shape and bytes, and one SHA-256 over the leaves in name
order. It tells any two contents apart, also the float16 copy of a float32 model. To recognise that copy, a fingerprint also
carries a few sampled weights: some of the whole model, and some of every tensor an edit touches. A copy rounds each weight to the
nearest number of the coarser format; a fine-tuned model moves weights further than that.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from photopic.core.errors import ModelError

_MODEL_SAMPLES = 48
_TENSOR_SAMPLES = 4
_CHUNK = 1 << 24  # entries brought from an accelerator at a time
_HALF_SUBNORMAL = 2.0**-24


@dataclass(frozen=True)
class Fingerprint:
    """The identity of a base model, as far as an edit needs it.

    Attributes:
        name: What its user calls the model; for messages only.
        digest: Hex SHA-256 Merkle root over (name, dtype, shape, bytes) of all its tensors.
        sketches: For each touched tensor a few sampled values, by which a copy at another precision is recognised.
        shapes: For each touched tensor its shape.
        sketch: Structure, dtypes and a few sampled values of the whole model.
    """

    name: str
    digest: str
    sketches: Mapping[str, str] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    sketch: str = ""


def fingerprint(
    modules: Mapping[str, nn.Module], name: str, tensors: Iterable[str] = (), *, digest: str | None = None
) -> Fingerprint:
    """Identify a model by the content of its tensors.

    Args:
        modules: Component name to module, for example ``{"unet": unet, "text_encoder": text_encoder}``.
        name: What to call the model in messages.
        tensors: Names ``<component>.<parameter>`` of the tensors an edit touches; they get sketches and shapes.
        digest: The digest, if the caller knows that it still holds; hashing is the only part whose cost grows with the model.

    Returns:
        The fingerprint of the tensors as they are now, so with any edits that are applied.

    Raises:
        ModelError: If a name in ``tensors`` is not a tensor of the model, or a tensor has no data to read.

    Example:
        >>> first = fingerprint({"m": nn.Linear(2, 2)}, "first", ["m.weight"])
        >>> first.shapes
        {'m.weight': (2, 2)}
    """
    found = named_tensors(modules)
    names = sorted(set(tensors))
    for wanted in names:
        if wanted not in found:
            raise ModelError(f"{name}: has no tensor {wanted}")
    return Fingerprint(
        name=name,
        digest=_root(found) if digest is None else digest,
        sketches={n: _text(_sample(found[n], _draws(n, found[n].numel(), _TENSOR_SAMPLES))) for n in names},
        shapes={n: tuple(found[n].shape) for n in names},
        sketch=_model_sketch(found),
    )


def difference(recorded: Fingerprint, found: Fingerprint) -> str:
    """Why two fingerprints are not of the same weights, or the empty string if they are.

    The same digest is the same model. Otherwise every sample both have must agree up to the rounding of one to the other's
    precision, and the models must differ in precision at all: one changed weight at an unchanged precision is another model.

    Example:
        >>> model = fingerprint({"m": nn.Linear(2, 2)}, "a")
        >>> difference(model, model)
        ''
    """
    if recorded.digest == found.digest:
        return ""
    if not recorded.sketch or not found.sketch:
        return "its content differs"
    structure, dtypes, samples = recorded.sketch.split(".")
    found_structure, found_dtypes, found_samples = found.sketch.split(".")
    if structure != found_structure:
        return "it has other tensors or shapes"
    pairs = [("sampled weights", samples, found_samples)]
    pairs += [(n, recorded.sketches[n], found.sketches[n]) for n in recorded.sketches if n in found.sketches]
    rounded = False
    for what, a, b in pairs:
        agrees, differs_in_precision = _agree(_values(a), _values(b))
        if not agrees:
            return f"{what} differ" if what == "sampled weights" else f"{what} differs"
        rounded |= differs_in_precision
    return "" if rounded or dtypes != found_dtypes else "its content differs at the same precision"


def named_tensors(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """All floating-point parameters and persistent buffers by ``<component>.<name>``; a shared one under each of its names."""
    return {
        f"{component}.{name.replace('_orig_mod.', '')}": tensor  # the prefix torch.compile puts in
        for component, module in modules.items()
        for name, tensor in module.state_dict(keep_vars=True).items()
        if isinstance(tensor, Tensor) and tensor.is_floating_point()
    }


def _root(tensors: Mapping[str, Tensor]) -> str:
    names = sorted(tensors)
    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:  # hashing releases the interpreter lock
        leaves = pool.map(lambda name: _leaf(name, tensors[name]), names)
        return hashlib.sha256(b"photopic-fingerprint-1" + b"".join(leaves)).hexdigest()


def _leaf(name: str, tensor: Tensor) -> bytes:
    hashed = hashlib.sha256(json.dumps([name, _dtype(tensor), list(tensor.shape)]).encode())
    for chunk in _chunks(name, tensor):
        hashed.update(chunk)
    return hashed.digest()


def _chunks(name: str, tensor: Tensor) -> Iterator[memoryview]:
    if tensor.is_meta:
        raise ModelError(f"{name}: has no data here (offloaded or meta); load the model without offloading")
    flat = tensor.detach().reshape(-1)
    for start in range(0, flat.numel(), _CHUNK):
        chunk = flat[start : start + _CHUNK].cpu().contiguous()
        yield chunk.view(torch.uint8).numpy().data


def _model_sketch(tensors: Mapping[str, Tensor]) -> str:
    names = sorted(tensors)
    structure = _short_hash([[name, list(tensors[name].shape)] for name in names])
    dtypes = _short_hash([_dtype(tensors[name]) for name in names])
    ends = np.cumsum([tensors[name].numel() for name in names])
    values = []
    for at in _draws(structure, int(ends[-1]) if names else 0, _MODEL_SAMPLES):
        number = int(np.searchsorted(ends, at, side="right"))
        tensor = tensors[names[number]]
        values.append(_sample(tensor, [at - int(ends[number]) + tensor.numel()]))
    return f"{structure}.{dtypes}.{_text(np.concatenate([*values, np.zeros(0, np.float32)]))}"


def _draws(seed: str, size: int, count: int) -> list[int]:
    """Positions that depend on the seed alone, on every machine and version."""
    if not size:
        return []
    digests = (hashlib.sha256(f"{seed}:{number}".encode()).digest() for number in range(count))
    return [int.from_bytes(digest[:8], "little") % size for digest in digests]


def _sample(tensor: Tensor, positions: list[int]) -> np.ndarray:
    where = np.unravel_index(np.array(positions, np.int64), tuple(tensor.shape)) if tensor.ndim else ()
    index = tuple(torch.from_numpy(axis).to(tensor.device) for axis in where)
    return tensor.detach()[index].reshape(-1).float().cpu().numpy().astype("<f4")


def _agree(a: np.ndarray, b: np.ndarray) -> tuple[bool, bool]:
    """Whether each pair may be one weight at two precisions, and whether any pair shows two precisions."""
    if len(a) != len(b):
        return False, False
    level_a, level_b = _precision(a), _precision(b)
    unit = np.array([2.0**-8, 2.0**-11, 0.0])  # rounding error of bfloat16, float16, float32, relative to the value
    tolerance = (unit[level_a] + unit[level_b]) * np.maximum(np.abs(a), np.abs(b)) + _HALF_SUBNORMAL
    unequal = a != b
    within = np.where(level_a == level_b, False, np.abs(a.astype(np.float64) - b) <= tolerance)
    return bool((~unequal | within).all()), bool((unequal & within).any())


def _precision(values: np.ndarray) -> np.ndarray:
    """0 where bfloat16 holds the value exactly, 1 where float16 does, else 2."""
    tensor = torch.from_numpy(values.copy())
    holds: Callable[[torch.dtype], np.ndarray] = lambda dtype: (tensor.to(dtype).float() == tensor).numpy()  # noqa: E731
    return np.where(holds(torch.bfloat16), 0, np.where(holds(torch.float16), 1, 2))


def _text(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode().rstrip("=")


def _values(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text + "=" * (-len(text) % 4)), "<f4")


def _short_hash(value: list) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
