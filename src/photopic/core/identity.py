"""The identity of a base model as an edit keeps it, and whether two are of the same weights at one precision or at two.

Two models are compared by a few sampled weights, so that the float16 copy of a float32 model is recognised: a copy rounds each
weight to the nearest number of the coarser format, and a fine-tuned model moves weights further than that. Without torch, so that
the file of an edit can be looked at without it; `photopic.core.fingerprint` takes the samples.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

SKETCH_BITS = 16  # significant ones of a sampled weight
_COARSE = (("BF16", -126, 8), ("F16", -14, 11))  # format, smallest exponent, significant bits


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


def difference(recorded: Fingerprint, found: Fingerprint) -> str:
    """Why two fingerprints are not of the same weights, or the empty string if they are.

    The same digest is the same model. Otherwise every sample both have must agree up to the rounding of one to the other's
    precision, and the models must differ in precision at all, in their dtypes or, as half weights loaded as float32 do, in the
    numbers they hold: one changed weight at an unchanged precision is another model.

    Example:
        >>> difference(Fingerprint("a", "0" * 64), Fingerprint("b", "1" * 64))
        'its content differs'
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
    for what, a, b in pairs:
        if not _agree(sketch_values(a), sketch_values(b)):
            return f"{what} differ" if what == "sampled weights" else f"{what} differs"
    if dtypes == found_dtypes and not _one_is_coarser(sketch_values(samples), sketch_values(found_samples)):
        return "its content differs at the same precision"
    return ""


def _agree(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether each pair may be one weight, at one precision or at two."""
    if len(a) != len(b):
        return False
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    return bool((same | _may_round_to(a, b) | _may_round_to(b, a)).all())


def _may_round_to(fine: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """Where a coarser format, which does not hold the first number, could have made the second of it.

    The two may also be roundings of a third: of a float32 weight to float16 and to bfloat16, or through float16 to bfloat16.
    """
    spacing = {kind: _half_spacing(fine, least, bits) for kind, least, bits in _COARSE}
    further = {"BF16": spacing["F16"], "F16": np.where(_holds(fine, "BF16"), spacing["BF16"], 0.0)}
    found = np.zeros(len(fine), bool)
    for kind, least, bits in _COARSE:
        with np.errstate(invalid="ignore"):  # infinity minus infinity
            apart = np.abs(fine.astype(np.float64) - coarse)
        within = apart <= _half_spacing(coarse, least, bits) + further[kind] + _half_spacing(fine, -126, SKETCH_BITS)
        overflow = np.isinf(coarse) & (_rounded(fine, kind) == coarse)  # float16 ends at 65504
        found |= _holds(coarse, kind) & ~_holds(fine, kind) & (np.isfinite(coarse) & within | overflow)
    return found


def _one_is_coarser(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether a coarser format holds all of one and not all of the other."""
    return any(bool(_holds(a, kind).all() != _holds(b, kind).all()) for kind, _, _ in _COARSE)


def _holds(values: np.ndarray, kind: str) -> np.ndarray:
    return (_rounded(values, kind) == values) | np.isnan(values)


def _rounded(values: np.ndarray, kind: str) -> np.ndarray:
    """The nearest numbers of a format, half-way to even, as float32."""
    if kind == "F16":
        with np.errstate(over="ignore"):  # to infinity
            return values.astype(np.float16).astype(np.float32)
    bits = values.astype("<f4").view("<u4")
    upper = bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))  # bfloat16 is the upper half of float32
    return np.where(np.isnan(values), values, (upper & np.uint32(0xFFFF0000)).view("<f4"))


def _half_spacing(values: np.ndarray, least: int, bits: int) -> np.ndarray:
    """Half the distance of neighbouring numbers in a format: by how much rounding moves a weight at most."""
    _, exponent = np.frexp(values.astype(np.float64))  # values = m * 2**exponent with 1/2 <= |m| < 1
    return np.ldexp(1.0, np.where(values == 0, least, np.maximum(exponent - 1, least)) - bits)


def sketch_text(values: np.ndarray) -> str:
    """The upper 24 bits of float32 values, rounded: 16 significant ones, five more than float16 has."""
    upper = (values.astype("<f4").view("<u4") + np.uint32(0x80)) & np.uint32(0xFFFFFF00)
    upper = np.where(np.isfinite(values), upper, values.view("<u4"))  # infinity and NaN are not rounded
    return base64.b64encode(upper.astype("<u4").view(np.uint8).reshape(-1, 4)[:, 1:].tobytes()).decode()


def sketch_values(text: str) -> np.ndarray:
    """The numbers of `sketch_text`."""
    upper = np.frombuffer(base64.b64decode(text), np.uint8).reshape(-1, 3)  # (samples, 3): the lowest byte was dropped
    return np.pad(upper, ((0, 0), (1, 0))).reshape(-1).view("<f4")
