"""The rank of each layer's Jacobian, and the dimension of its response to noise: two tools of ``network_rank``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from photopic.core.config import Config, Flags
from photopic.core.errors import DataError, ModelError
from photopic.core.events import Event, Steps
from photopic.core.nn.evaluating import evaluating
from photopic.core.nn.jacobians import Mode, cheaper_mode, jacobian_columns, widths_of
from photopic.core.nn.layer_outputs import OUTPUT, chunk_size, gather, layer_outputs
from photopic.core.numerics.spectra import Spectrum, numerical_rank

Tool = Literal["jacobian", "perturbation", "classification"]
TOOLS: tuple[Tool, ...] = ("jacobian", "perturbation", "classification")
EPS32 = float(torch.finfo(torch.float32).eps)


@dataclass(frozen=True, kw_only=True)
class NetworkRankConfig(Config):
    """How to measure; every field is written into the report."""

    # what to measure; may be given several times. jacobian: directions of the input that reach a layer. perturbation: directions
    # in which a layer answers to small noise. classification: principal components of the features that keep the accuracy
    tools: Annotated[tuple[Tool, ...], Flags("--tool")] = TOOLS
    # name pattern of layers, such as '*.layers.?'; several times; every block by default
    layers: Annotated[tuple[str, ...] | None, Flags("--layer")] = None
    # count singular values above this share of the largest; several times; the published one is always there too
    thresholds: Annotated[tuple[float, ...], Flags("--threshold"), Ge(0), Le(1)] = (1e-2, 1e-3, 1e-8)
    # arithmetic while measuring; thresholds below about 1e-4 need float64, which is slower
    dtype: Annotated[Literal["float32", "float64"], Flags("--precision")] = "float32"
    patch: Annotated[int | None, Ge(0)] = (
        16  # side in pixels of the square that varies, at the centre; 0 frees the whole input
    )
    background: Literal["zero", "image"] = "zero"  # what is around the square: zeros, as published, or the picture
    jacobian_images: Annotated[int, Ge(1), Flags("--pictures")] = (
        3  # pictures the Jacobian is averaged over; published: 10
    )
    # pictures the noise is averaged over; published: 100
    perturbed_images: Annotated[int, Ge(1), Flags("--perturbed")] = 3
    samples: Annotated[int, Ge(2)] = 1000  # noisy copies of each, the most dimensions noise can show; published: 5000
    noise: Annotated[float, Gt(0)] = 1e-3  # standard deviation of the noise, in normalised pixels
    keep: Annotated[float, Ge(0), Le(1)] = 0.95  # share of the accuracy that the classification dimension keeps
    mode: Annotated[Mode | None, Flags()] = None  # of the Jacobian; None: the cheaper one
    chunk: Annotated[int | None, Flags()] = None  # directions or copies at a time; None: by the widest layer
    memory: Annotated[int | None, Flags()] = (
        None  # bytes of layer outputs held at a time; None: a third of the machine's
    )
    seed: Annotated[int, Ge(0)] = 0  # seed of the noise


@dataclass(frozen=True)
class LayerRanks:
    """What ``jacobian_ranks`` and ``perturbation_ranks`` find: a row a layer and threshold, and ``spectra`` where kept."""

    rows: tuple[dict[str, Any], ...]
    values: Mapping[str, Any] = field(default_factory=dict)


def jacobian_ranks(
    network: nn.Module, pixels: Float[Tensor, "n ..."], layers: Sequence[str], config: NetworkRankConfig
) -> Steps[LayerRanks]:
    """The rank of each layer's Jacobian with respect to a patch of the input, over several inputs.

    Args:
        network: Any module of one tensor.
        pixels: Its inputs, (n, channels, height, width), or of any shape if ``config.patch`` is None.
        layers: Names of submodules; the network's own output comes last, as ``logits``.
        config: How to measure.

    Raises: as ``network_rank``.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
        >>> config = NetworkRankConfig(patch=None, dtype="float64")
        >>> from photopic.core.events import finished
        >>> found = finished(jacobian_ranks(net, torch.rand(2, 4), ["0"], config))
        >>> [row["rank"] for row in found.rows if row["layer"] == "0" and row["threshold"] == 1e-8]
        [3.0]
    """
    network, pixels = _at_precision(network, pixels, config.dtype)
    found: dict[str, list[Tensor]] = {}
    for number, image in enumerate(pixels.split(1)):
        place, at = free_patch(image, config.patch, config.background)
        if number == 0:
            with evaluating(network):
                widths = widths_of(network, image, layers)
            mode = config.mode or cheaper_mode(len(at), widths)
        spectra = {name: Spectrum(len(at), width, exact=config.dtype == "float64") for name, width in widths.items()}
        columns = jacobian_columns(
            network, place, at, layers, widths, mode=mode, chunk=config.chunk, memory=config.memory
        )
        for event in columns:
            if event.matrix is not None:
                spectra[event.name].add(_finite(event.matrix, event.name))
            yield Event("jacobian", number * event.total + event.done, len(pixels) * event.total)
        for name, spectrum in spectra.items():
            found.setdefault(name, []).append(spectrum.singular_values())
    eps = torch.finfo(pixels.dtype).eps
    rows = []
    for name, each in found.items():
        # rounding of a product of this size: no singular value below it means anything
        floor = eps * max(len(at), widths[name]) ** 0.5
        rows += _rows("jacobian", name, widths[name], len(at), each, floor, config.thresholds)
    relative = {
        _said(name): torch.stack([v / v[0].clamp(min=1e-300) for v in each]).mean(0) for name, each in found.items()
    }
    values = {"mode": mode, "free": len(at), "spectra": {name: each.tolist() for name, each in relative.items()}}
    return LayerRanks(tuple(rows), values)


def perturbation_ranks(
    network: nn.Module, pixels: Float[Tensor, "n ..."], layers: Sequence[str], config: NetworkRankConfig
) -> Steps[LayerRanks]:
    """The number of directions in which each layer answers to small noise on the input: its PCA dimension.

    Args, raises: as ``jacobian_ranks``. Each copy has a random generator of its own, so ``config.chunk`` changes nothing.

    Example:
        >>> net = nn.Linear(4, 3)
        >>> from photopic.core.events import finished
        >>> found = finished(perturbation_ranks(net, torch.rand(1, 4), [], NetworkRankConfig(samples=50)))
        >>> [row["rank"] for row in found.rows if row["rule"] == "published"]
        [3.0]
    """
    network, pixels = _at_precision(network, pixels, config.dtype)
    count, eps = config.samples, torch.finfo(pixels.dtype).eps
    rows: list[dict[str, Any]] = []
    found: dict[str, list[Tensor]] = {}
    floors: dict[str, float] = {}
    with evaluating(network), torch.no_grad():
        for number, image in enumerate(pixels.split(1)):
            clean = layer_outputs(network, image, layers)
            widths = {name: value.shape[1] for name, value in clean.items()}
            read = _noisy(network, image, layers, clean, config, number)
            spectra = {name: Spectrum(count, width, exact=config.dtype == "float64") for name, width in widths.items()}
            chunk = config.chunk or chunk_size(max(widths.values()), image.element_size())
            for event in gather(read, widths, count, chunk=chunk, memory=config.memory, itemsize=image.element_size()):
                if event.matrix is not None:
                    matrix = _finite(event.matrix, event.name)
                    spectra[event.name].add(matrix - matrix.mean(0))  # the PCA is of deviations from the mean response
                yield Event("perturbation", number * event.total + event.done, len(pixels) * event.total)
            for name, spectrum in spectra.items():
                values = spectrum.singular_values()
                found.setdefault(name, []).append(values)
                rounding = eps * float(clean[name].square().mean().sqrt()) * (count**0.5 + widths[name] ** 0.5)
                floors[name] = max(config.noise, floors.get(name, 0.0), rounding / max(float(values[0]), 1e-300))
    for name, each in found.items():
        rows += _rows("perturbation", name, widths[name], count, each, floors[name], config.thresholds)
    return LayerRanks(tuple(rows))


def free_patch(
    image: Float[Tensor, "1 ..."], patch: int | None, background: Literal["zero", "image"]
) -> tuple[Callable[[Tensor], Tensor], Float[Tensor, "free"]]:
    """The network's input as a function of the pixels of its central square, and those pixels.

    Args:
        image: One input.
        patch: Side of the square; 0 or None frees the whole input.
        background: What stands around the square: zeros, as published, or the rest of the image.

    Raises:
        DataError: If the square is larger than the input, or the input has no height and width.

    Example:
        >>> place, at = free_patch(torch.ones(1, 3, 4, 4), 2, "zero")
        >>> len(at), place(at).sum()
        (12, tensor(12.))
    """
    if not patch:
        return lambda free: free.reshape(image.shape), image.reshape(-1)
    if image.dim() != 4 or patch > min(image.shape[2:]):
        size = " x ".join(map(str, image.shape[2:]))
        raise DataError(f"patch of {patch} pixels: larger than the network's input of {size}; choose a smaller one")
    height, width = image.shape[2:]
    top, left = (height - patch) // 2, (width - patch) // 2  # 104 of 224, as published
    inside = image[:, :, top : top + patch, left : left + patch]
    rim = (left, width - patch - left, top, height - patch - top)
    around = torch.zeros_like(image) if background == "zero" else image - functional.pad(inside, rim)
    return lambda free: functional.pad(free.reshape(inside.shape), rim) + around, inside.reshape(-1)


def _noisy(
    network: nn.Module,
    image: Tensor,
    layers: Sequence[str],
    clean: Mapping[str, Tensor],
    config: NetworkRankConfig,
    number: int,
) -> Callable[[slice, str], dict[str, Tensor]]:
    """Reads what noisy copies of an image change at the layers."""

    def read(span: slice, last: str) -> dict[str, Tensor]:
        generator = torch.Generator()
        first = (config.seed * len(image) + number) * config.samples  # copies of different pictures never share a seed
        noise = [
            torch.randn(image.shape, generator=generator.manual_seed(first + copy), dtype=image.dtype)
            for copy in range(span.start, span.stop)
        ]
        copies = image + config.noise * torch.cat(noise).to(image.device)
        outputs = layer_outputs(network, copies, layers, last=last)
        return {name: value - clean[name] for name, value in outputs.items()}

    return read


def _at_precision(network: nn.Module, pixels: Tensor, dtype: str) -> tuple[nn.Module, Tensor]:
    """The network itself, or a copy of it in float64."""
    if dtype == "float64":
        return copy.deepcopy(network).double(), pixels.double()
    return network, pixels


def _finite(matrix: Tensor, layer: str) -> Tensor:
    if not bool(matrix.isfinite().all()):
        raise ModelError(
            f"layer {_said(layer)}: its outputs or derivatives hold NaN or infinity; measure layers before it"
        )
    return matrix


def _rows(
    tool: Tool, layer: str, outputs: int, inputs: int, spectra: Sequence[Tensor], floor: float, given: Sequence[float]
) -> list[dict[str, Any]]:
    # tolerance of matrix_rank(J'J) in float32, on J itself: its square root
    rules = {"published": ((min(outputs, inputs) * EPS32) ** 0.5,), "given": given}
    rows = []
    for rule, threshold in ((rule, each) for rule, thresholds in rules.items() for each in thresholds):
        ranks = torch.tensor([numerical_rank(values, threshold) for values in spectra], dtype=torch.float64)
        resolved = rule == "published" or threshold >= floor
        rows.append(
            {
                "layer": _said(layer),
                "tool": tool,
                "outputs": outputs,
                "inputs": inputs,
                "threshold": threshold,
                "rule": rule,
                "rank": float(ranks.mean()) if resolved else None,
                "std": float(ranks.std(correction=0)) if resolved else None,
                "images": len(spectra),
                "floor": floor,
            }
        )
    return rows


def _said(layer: str) -> str:
    return "logits" if layer == OUTPUT else layer
