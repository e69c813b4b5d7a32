"""Low-rank products beside matrices, trained without touching the model (LoRA, arXiv:2106.09685)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from photopic.core.edits import LowRankDelta


class LowRankFactors:
    """Two thin matrices for each weight; their product is added to it and is zero at first.

    Args:
        weights: Matrices by the names of edits, shape (out, in); they stay as they are.
        rank: Width of every product.
        seed: Of the first right factors.

    Attributes:
        factors: ``up.<name>`` (out, rank) and ``down.<name>`` (rank, in), require gradients.

    Example:
        >>> held = LowRankFactors({"w": torch.eye(3)}, rank=1, seed=0)
        >>> torch.equal(held.weights()["w"], torch.eye(3))
        True
    """

    def __init__(self, weights: Mapping[str, Tensor], *, rank: int, seed: int):
        self.base, generator = dict(weights), torch.Generator().manual_seed(seed)
        self.factors: dict[str, Tensor] = {}
        for name, weight in self.base.items():
            out, inner = weight.shape
            down = torch.randn(rank, inner, generator=generator) / rank  # as diffusers starts its adapters
            like: dict[str, Any] = {"device": weight.device, "dtype": torch.promote_types(weight.dtype, torch.float32)}
            self.factors[f"up.{name}"], self.factors[f"down.{name}"] = torch.zeros(out, rank, **like), down.to(**like)
        for each in self.factors.values():
            each.requires_grad_()

    def weights(self) -> dict[str, Tensor]:
        """The weights with their products, differentiable in the factors."""
        return {
            name: weight + (self.factors[f"up.{name}"] @ self.factors[f"down.{name}"]).to(weight.dtype)
            for name, weight in self.base.items()
        }

    def part(self) -> LowRankDelta:
        """As a part of an edit, in half precision."""
        up, down = ({name: self.factors[f"{side}.{name}"].half() for name in self.base} for side in ("up", "down"))
        return LowRankDelta(up, down)
