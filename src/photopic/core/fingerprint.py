"""Which base model is this, and at which precision?

The digest is a Merkle root: one SHA-256 leaf a tensor over name, dtype, shape and bytes, and one SHA-256 over the leaves in name
order. It tells any two contents apart, also the float16 copy of a float32 model. To recognise that copy, a fingerprint also
carries a few sampled weights: some of the whole model, and some of every tensor an edit touches. A copy rounds each weight to the
nearest number of the coarser format; a fine-tuned model moves weights further than that. What is not floating-point (quantised
weights, counters) no cast rounds, so of these the type and the sampled entries must be equal.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from photopic.core.errors import ModelError
from photopic.core.frozen import frozen_weights, plain_weight
from photopic.core.identity import Fingerprint, sketch_text

_MODEL_SAMPLES = 20
_TENSOR_SAMPLES = 4
_CHUNK = 1 << 24  # entries brought from an accelerator at a time


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
    # of quantised weights the digest covers what they are made of, and the samples are of what they stand for
    touched = found | {wanted: plain_weight(layer) for wanted, layer in frozen_weights(modules, names).items()}
    for wanted in names:
        if wanted not in touched:
            raise ModelError(f"{name}: has no tensor {wanted}")
    return Fingerprint(
        name=name,
        digest=_root(found) if digest is None else digest,
        sketches={n: sketch_text(_sample(touched[n], _draws(n, touched[n].numel(), _TENSOR_SAMPLES))) for n in names},
        shapes={n: tuple(touched[n].shape) for n in names},
        sketch=_model_sketch(found),
    )


def named_tensors(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """All parameters and persistent buffers by ``<component>.<name>``; a shared one under each of its names.

    Of a tensor that is made of others, as torchao's quantised weights are, those others: ``<component>.<name>.<part>``. Of a
    parameter that accelerate offloaded to memory what it keeps there, which is what the next forward pass computes with.
    """
    return {
        plain_name: plain
        for component, module in modules.items()
        for name, value in _state(module).items()
        for plain_name, plain in _plain(
            f"{component}.{name}".replace("_orig_mod.", ""), value
        )  # torch.compile's prefix
    }


def modules_in(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """A module and all inside it with their paths, in the order of a state dict; one that stands in two places comes twice.

    Example:
        >>> [path for path, _ in modules_in(nn.Sequential(nn.Linear(1, 1)))]
        ['', '0']
    """
    found, left = [], [("", module)]
    while left:  # torch's own generator passes every module through all levels above it
        path, part = left.pop()
        found.append((path, part))
        inner = [(f"{path}.{name}" if path else name, each) for name, each in part._modules.items() if each is not None]
        left += reversed(inner)
    return found


def module_at(module: nn.Module, path: str) -> nn.Module:
    """The module at a path of ``modules_in``, in a fifth of the time of ``get_submodule``.

    Example:
        >>> module_at(nn.Sequential(nn.Linear(1, 1)), "0")
        Linear(in_features=1, out_features=1, bias=True)
    """
    for name in filter(None, path.split(".")):
        module = module._modules[name]  # type: ignore[assignment]  # none is None on a path to a module
    return module


def _state(module: nn.Module) -> dict[str, Any]:
    parts, found = modules_in(module), {}
    if any(map(_writes_its_own_state, (part for _, part in parts))):
        found = module.state_dict(keep_vars=True)
    else:
        for path, part in parts:
            part._save_to_state_dict(found, f"{path}." if path else "", True)
    if fused := tuple(  # what diffusers' fuse_qkv_projections made of the weights is no weight of its own
        f"{path}.{made}."
        for path, part in parts
        if part.__dict__.get("fused_projections")
        for made in ("to_qkv", "to_kv", "to_added_qkv")
    ):
        found = {name: value for name, value in found.items() if not name.startswith(fused)}
    found |= _on_disk(parts, found)
    return found | _offloaded(module) if any(getattr(each, "is_meta", False) for each in found.values()) else found


def _on_disk(parts: Sequence[tuple[str, nn.Module]], found: Mapping[str, Any]) -> dict[str, Tensor]:
    """Without data what diffusers keeps on a disk by groups: between two calls it leaves there whatever memory holds."""
    registries = [getattr(part, "_diffusers_hook", None) for _, part in parts]
    hooks = [each.get_hook("group_offloading") for each in registries if each is not None]
    groups = [hook.group for hook in hooks if hook is not None and hook.group.offload_to_disk_path is not None]
    away = {id(tensor) for group in groups for tensor in group.tensor_to_key}
    return {name: each.to("meta") for name, each in found.items() if id(each) in away}


def _writes_its_own_state(part: nn.Module) -> bool:
    return (
        bool(part._state_dict_hooks or part._state_dict_pre_hooks) or type(part).state_dict is not nn.Module.state_dict
    )


def _offloaded(module: nn.Module) -> dict[str, Tensor]:
    """What the hooks of accelerate's offloading keep in memory; what they read anew from a disk each time is left out."""
    found: dict[str, Tensor] = {}
    kept: Any
    for path, part in module.named_modules():
        hook = getattr(part, "_hf_hook", None)
        for kept in (getattr(each, "weights_map", None) for each in getattr(hook, "hooks", [hook])):
            for name, empty in part.state_dict(keep_vars=True).items() if kept is not None else ():
                if empty.is_meta and name in kept and isinstance(kept[name], Tensor) and kept[name] is kept[name]:
                    found[f"{path}.{name}" if path else name] = kept[name]
    return found


def _plain(name: str, value: object) -> Iterator[tuple[str, Tensor]]:
    if is_traceable_wrapper_subclass(value):
        for part in value.__tensor_flatten__()[0]:
            yield from _plain(f"{name}.{part}", getattr(value, part))
    elif isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, tuple | list):  # torch's own quantised layers keep weight and bias as a pair
        for number, part in enumerate(value):
            yield from _plain(f"{name}.{number}", part)


def _root(tensors: Mapping[str, Tensor]) -> str:
    workers = max(1, torch.get_num_threads())
    by_size = sorted(tensors, key=lambda name: -tensors[name].numel())  # largest first
    hands = [
        by_size[start::workers] for start in range(workers)
    ]  # dealt out by size, so about the same number of bytes each
    with ThreadPoolExecutor(workers) as pool:  # hashing releases the interpreter lock
        dealt = pool.map(lambda names: [(name, _leaf(name, tensors[name])) for name in names], hands)
        leaves = dict(chain.from_iterable(dealt))
    return hashlib.sha256(b"photopic-fingerprint-1" + b"".join(leaves[name] for name in sorted(leaves))).hexdigest()


def _leaf(name: str, tensor: Tensor) -> bytes:
    hashed = hashlib.sha256(json.dumps([name, _dtype(tensor), list(tensor.shape)]).encode())
    for chunk in _chunks(name, tensor):
        hashed.update(chunk)
    return hashed.digest()


def _chunks(name: str, tensor: Tensor) -> Iterator[memoryview]:
    if tensor.is_meta:
        raise ModelError(f"{name}: has no data here (meta, or offloaded to a disk); load the model into memory")
    if tensor.is_quantized or tensor.layout != torch.strided:
        found = _dtype(tensor) if tensor.is_quantized else str(tensor.layout).removeprefix("torch.")
        raise ModelError(f"{name}: expected a plain tensor, found {found}; load the model unquantised and dense")
    flat = tensor.detach().reshape(-1)
    for start in range(0, flat.numel(), _CHUNK):
        chunk = flat[start : start + _CHUNK].cpu().contiguous()
        yield chunk.view(torch.uint8).numpy().data


def _model_sketch(tensors: Mapping[str, Tensor]) -> str:
    structure = _short_hash([_structure(name, tensors[name]) for name in sorted(tensors)])
    names = [name for name in sorted(tensors) if tensors[name].is_floating_point()]
    dtypes = _short_hash([_dtype(tensors[name]) for name in names])
    ends = np.cumsum([tensors[name].numel() for name in names])  # of each tensor among all entries in order of names
    values = []
    for at in _draws(structure, int(ends[-1]) if names else 0, _MODEL_SAMPLES):
        number = int(np.searchsorted(ends, at, side="right"))  # the tensor in which the drawn entry lies
        tensor = tensors[names[number]]
        values.append(_sample(tensor, [at - int(ends[number]) + tensor.numel()]))
    return f"{structure}.{dtypes}.{sketch_text(np.concatenate([*values, np.zeros(0, np.float32)]))}"


def _structure(name: str, tensor: Tensor) -> list:
    """What no cast to another precision changes."""
    shape = list(tensor.shape)
    if tensor.is_floating_point():
        return [name, shape]
    entries = _entries(tensor, _draws(name, tensor.numel(), _TENSOR_SAMPLES))
    return [name, shape, _dtype(tensor), entries.view(torch.uint8).numpy().tobytes().hex()]


def _draws(seed: str, size: int, count: int) -> list[int]:
    """Positions that depend on the seed alone, on every machine and version."""
    if not size:
        return []
    digests = (hashlib.sha256(f"{seed}:{number}".encode()).digest() for number in range(count))
    return [int.from_bytes(digest[:8], "little") % size for digest in digests]  # uniform but for size / 2^64


def _sample(tensor: Tensor, positions: list[int]) -> np.ndarray:
    return _entries(tensor, positions).real.float().numpy().astype("<f4")


def _entries(tensor: Tensor, positions: list[int]) -> Tensor:
    # an index an axis
    where = np.unravel_index(np.array(positions, np.int64), tuple(tensor.shape)) if tensor.ndim else ()
    index = tuple(torch.from_numpy(axis).to(tensor.device) for axis in where)
    return tensor.detach()[index].reshape(-1).cpu()


def _short_hash(value: list) -> str:
    return base64.b64encode(hashlib.sha256(json.dumps(value).encode()).digest()[:6]).decode()


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
