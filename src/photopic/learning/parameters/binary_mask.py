"""A trainable 0/1 mask over weights of an image encoder: which weights, the real numbers behind the bits, one training step.

Each masked weight W has a real number M; its bit is 1 where M is above a threshold, the encoder computes with bit x W, and the
gradient passes straight through the threshold to M (arXiv:2307.15049). W itself is never written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from photopic.core.errors import EditError, ModelError
from photopic.models.dual_encoder import COMPONENT, DualEncoder

Variant = Literal["attention", "mlp", "all"]
GateForm = Literal["code", "figure"]
KERNELS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
ATTENTION = ("attention", "attn")  # in the name of a module, in every tower of transformers
SMALLEST = 1e-8  # what the published code adds to |a| + |b|


def maskable(model: DualEncoder, variant: Variant = "attention") -> dict[str, Tensor]:
    """The weights of the image tower that are masked, by the names edits use.

    Kernels of convolutions always: all of a convolutional tower, the patch embedding of a transformer. Of matrices, for
    ``attention`` those inside attention modules (query, key, value and output; one fused matrix where there is one), for
    ``mlp`` all others, for ``all`` both; a tower without attention has all of them masked. Never biases, normalisations, the
    embeddings of class and position, or the projection behind the tower.

    Args:
        model: Any dual encoder.
        variant: Which matrices.

    Raises:
        ModelError: If the tower has none.

    Example:
        >>> len(maskable(model))  # doctest: +SKIP
        17
    """
    tower, prefix = model.image_tower, _name_of(model.network, model.image_tower)
    matrices: dict[str, tuple[Tensor, bool, bool]] = {}
    for path, module in tower.named_modules():
        inside = any(word in path.lower() for word in ATTENTION)
        if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
            matrices[f"{path}.in_proj_weight"] = (module.in_proj_weight, True, False)
        elif isinstance(module, KERNELS):
            matrices[f"{path}.weight"] = (module.weight, inside, not isinstance(module, nn.Linear))
    has_attention = any(inside for _, inside, _ in matrices.values())
    found, seen = {}, set()
    for name, (weight, inside, is_kernel) in matrices.items():
        wanted = is_kernel or variant == "all" or not has_attention or inside == (variant == "attention")
        if wanted and id(weight) not in seen:
            seen.add(id(weight))
            found[f"{COMPONENT}.{prefix}.{name}"] = weight.detach()
    if not found:
        raise ModelError(f"{model.name}: expected weights to mask in its image tower, found none for {variant}")
    return found


class Masked:
    """The image encoder with other weights in place of its own, for the time of a call.

    Args:
        model: Whose; it is left as it is.

    Example:
        >>> Masked(model)(pixels, {}).shape == model.encode_pixels(pixels).shape  # doctest: +SKIP
        True
    """

    def __init__(self, model: DualEncoder):
        self._encoder = _Encoder(model)

    def __call__(
        self, pixels: Float[Tensor, "n 3 height width"], weights: Mapping[str, Tensor]
    ) -> Float[Tensor, "n dim"]:
        """Features of length 1; gradients flow to the weights given."""
        return F.normalize(functional_call(self._encoder, dict(weights), (pixels,)), dim=-1)


class BinaryMask:
    """The real numbers M behind a mask, and their optimizer.

    Args:
        weights: W by name.
        init: M at the start, everywhere.
        threshold: Bits are 1 where M is above it.
        norm_weight: Of the sum of the L2 norms of M, one a tensor, in the loss.

    Attributes:
        real: M by name, float32.

    Example:
        >>> mask = BinaryMask({"w": torch.ones(2)})
        >>> mask.share
        0.0
    """

    def __init__(
        self, weights: Mapping[str, Tensor], *, init: float = 0.01, threshold: float = 0.005, norm_weight: float = 1e-4
    ):
        self.weights, self.threshold, self.norm_weight = weights, threshold, norm_weight
        self.real = {
            name: torch.full_like(weight, init, dtype=torch.float32, memory_format=torch.contiguous_format)
            for name, weight in weights.items()
        }
        self.adam = torch.optim.Adam(self.real.values(), lr=1.0)  # no weight decay; the rate is set in each step

    def bits(self) -> dict[str, Tensor]:
        """True where a weight stays."""
        return {name: real > self.threshold for name, real in self.real.items()}

    @property
    def share(self) -> float:
        """Share of the masked tensors' entries whose bit is 0."""
        zeros = sum(int((real <= self.threshold).sum()) for real in self.real.values())
        return zeros / sum(real.numel() for real in self.real.values())

    def effective(self) -> dict[str, Tensor]:
        """W' = bit x W by name: W to the bit where the bit is 1, else 0; leaves that require gradients."""
        return {name: torch.where(bits, self.weights[name], 0.0).requires_grad_() for name, bits in self.bits().items()}

    def straight_through(self, gradients: Sequence[Tensor | None]) -> dict[str, Tensor | None]:
        """dL/dM = dL/dW' x W by name, from dL/dW' in the order of ``weights``; None where nothing of a tensor reaches the loss."""
        found: dict[str, Tensor | None] = {}
        left = list(reversed(gradients))  # taken one by one, so that both gradients of a tensor are never kept for all
        del gradients
        for name, weight in self.weights.items():
            gradient = left.pop()
            found[name] = (
                None if gradient is None else gradient * weight
            )  # bits are a step function: its slope is taken as 1
        return found

    def step(
        self,
        forward: Callable[[dict[str, Tensor]], Tensor],
        main: Callable[[Tensor], Tensor],
        guide: Callable[[Tensor], Tensor] | None,
        *,
        lr: float,
        strength: float = 1.0,
        form: GateForm = "code",
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """One step of Adam.

        Both losses share one forward pass; their gradients are two backward passes through it.

        Args:
            forward: From W' to logits.
            main: From logits to the loss to minimise.
            guide: From logits to the loss that only gates the gradient of ``main``; None leaves it as it is.
            lr: Of Adam, in this step.
            strength: l of gradient dropout, as ``dropped`` takes it.
            form: As ``keep_probability`` takes it.
            generator: Of the draws of gradient dropout.

        Returns:
            The logits and the loss, detached; the loss without the norms.
        """
        tried = self.effective()
        leaves = list(tried.values())
        logits = forward(tried)  # (n, classes), one pass for both losses
        second: dict[str, Tensor | None] = {}
        if guide is not None:
            second = self.straight_through(
                torch.autograd.grad(guide(logits), leaves, retain_graph=True, allow_unused=True)
            )
        loss = main(logits)
        first = self.straight_through(torch.autograd.grad(loss, leaves, allow_unused=True))
        del leaves, tried  # from here on only M, a and b are needed
        for name, real in self.real.items():
            a, b = first.pop(name), second.pop(name, None)
            if a is not None:
                a.add_(real, alpha=self.norm_weight / max(float(real.norm()), SMALLEST))  # d||M||/dM = M / ||M||
                a = a if b is None else dropped(a, b, strength, form=form, generator=generator)
            real.grad = a  # in the shape of W
        self.adam.param_groups[0]["lr"] = lr
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        return logits.detach(), loss.detach()


def keep_probability(a: Tensor, b: Tensor, *, form: GateForm = "code") -> Tensor:
    """P = (1 + sign(a) (a + b) / (|a| + |b|)) / 2: 1 where both gradients agree, else |a| / (|a| + |b|).

    Args:
        a: Gradient of the loss that is minimised.
        b: Of the one that guides it, in the same shape.
        form: ``figure``: as the published figure says it, which is |b| / (|a| + |b|) where they disagree.

    Example:
        >>> keep_probability(torch.tensor([0.7, 0.2]), torch.tensor([0.3, -0.6]))
        tensor([1.0000, 0.2500])
    """
    # in place throughout: of a large tower every temporary is as large as all its weights
    kept = (a + b).mul_(a.sign()).div_(a.abs().add_(b.abs()).add_(SMALLEST)).add_(1).mul_(0.5)
    return kept if form == "code" else torch.where(a * b < 0, 1 - kept, kept)


def dropped(
    a: Tensor, b: Tensor, strength: float, *, form: GateForm = "code", generator: torch.Generator | None = None
) -> Tensor:
    """Gradient dropout: g = ((1 - l) + l x 1[P > U]) a with U uniform, drawn for every entry.

    Args:
        a: Gradient of the loss that is minimised.
        b: Of the one that guides it.
        strength: l: 1 drops, less scales what would drop by 1 - l, 0 leaves ``a``.
        form: As ``keep_probability`` takes it.
        generator: Of the draws.

    Example:
        >>> dropped(torch.tensor([0.2]), torch.tensor([-0.6]), 0.0)
        tensor([0.2000])
    """
    if strength == 0:
        return a
    draws = torch.rand(a.shape, generator=generator, device=a.device, dtype=a.dtype)
    keep = keep_probability(a, b, form=form) > draws  # 1[P > U]
    return torch.where(keep, a, (1 - strength) * a)


def packed_bits(masks: Mapping[str, Tensor]) -> dict[str, bytes]:
    """Masks as the published checkpoints hold them: bits row by row, the highest of a byte first; `unpacked_bits` is the inverse.

    Example:
        >>> packed_bits({"w": torch.tensor([True, False, True])})
        {'w': b'\\xa0'}
    """
    return {name: np.packbits(mask.reshape(-1).cpu().numpy().astype(bool)).tobytes() for name, mask in masks.items()}


def unpacked_bits(packed: Mapping[str, bytes], shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """The masks again.

    Args:
        packed: What ``packed_bits`` gave.
        shapes: Of each mask.

    Raises:
        EditError: If a mask has another number of bytes than its shape needs.

    Example:
        >>> unpacked_bits({"w": bytes([160])}, {"w": (3,)})
        {'w': tensor([ True, False,  True])}
    """
    found = {}
    for name, data in packed.items():
        count = torch.Size(shapes[name]).numel()
        if len(data) != -(-count // 8):
            raise EditError(f"{name}: expected {-(-count // 8)} bytes for a mask of {count} bits, found {len(data)}")
        # the last byte is padded with zeros, so the count says where the mask ends
        bits = np.unpackbits(np.frombuffer(data, np.uint8), count=count).astype(bool)
        found[name] = torch.from_numpy(bits).view(*shapes[name])
    return found


class _Encoder(nn.Module):
    """A module whose parameters are called as edits call them, and whose forward is the whole image encoder."""

    def __init__(self, model: DualEncoder):
        super().__init__()
        self.network = model.network
        self._encode = model.encode_pixels

    def forward(self, pixels: Tensor) -> Tensor:
        return self._encode(pixels)


def _name_of(network: nn.Module, part: nn.Module) -> str:
    return next(name for name, module in network.named_modules() if module is part)
