"""Small valid edits and their files, every kind of part among them."""

from __future__ import annotations

from typing import Any

import torch

from photopic.core.edits import (
    AdapterPlacement,
    Adapters,
    ClassifierHead,
    DenseDelta,
    Edit,
    InitialNoise,
    LowRankDelta,
    ParallelAdapter,
    SparseWeights,
    SteeringVector,
    TokenEmbedding,
    TokenResidual,
    ZeroedWeights,
)
from photopic.core.edits.file import to_bytes
from photopic.core.identity import Fingerprint

SKETCH = "AAAAAAAAAAAA"  # three numbers
BASE = Fingerprint(
    "tiny-base",
    "0" * 64,
    {"m.bias": SKETCH, "m.conv": SKETCH, "m.weight": SKETCH},
    {"m.bias": (20,), "m.conv": (4, 3, 2, 2), "m.weight": (20, 30)},
    f"{'0' * 8}.{'1' * 8}.{SKETCH}",
)


def parts() -> dict[str, Any]:
    """One part of every kind, and of every way its numbers are kept."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    some = {"m.bias": torch.tensor([1, 5, 7, 19]), "m.weight": torch.arange(100, 300, 3)}
    dense = {"m.conv": torch.arange(48), "m.weight": torch.cat([torch.arange(90), torch.tensor([599])])}
    values = {name: normal(len(found)) for name, found in some.items()}
    found: dict[str, Any] = {"shut": ZeroedWeights(some), "shut-clustered": ZeroedWeights(dense)}
    for bits in (32, 16, 8, 2):
        found[f"values-{bits}"] = SparseWeights.rounded(some, values, bits)
        found[f"added-{bits}"] = SparseWeights.rounded(some, values, bits, delta=True)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        kind = str(dtype).removeprefix("torch.")
        token = {"text_encoder": normal(6).to(dtype), "text_encoder_2": normal(3).to(dtype)}
        found |= {
            f"token-{kind}": TokenEmbedding("<mine>", token),
            f"low_rank-{kind}": LowRankDelta(
                {"m.weight": normal(20, 2).to(dtype), "m.conv": normal(4, 1).to(dtype)},
                {"m.weight": normal(2, 30).to(dtype), "m.conv": normal(1, 12).to(dtype)},
                {"m.weight": 0.5},
            ),
            f"delta-{kind}": DenseDelta({"m.bias": normal(20).to(dtype), "m.conv": normal(4, 3, 2, 2).to(dtype)}),
            f"residual-{kind}": TokenResidual(
                "red bear",
                {"text_encoder": (3, 9), "text_encoder_2": (4,)},
                {"text_encoder": normal(2, 4).to(dtype), "text_encoder_2": normal(1, 3).to(dtype)},
            ),
            f"insertion-{kind}": ParallelAdapter(
                {"m": normal(2, 4).to(dtype)}, {"m": normal(5, 2).to(dtype)}, 0.5, "gelu"
            ),
            f"tuner-{kind}": Adapters(
                {
                    "m.mlp": AdapterPlacement("adapter", reads="m.norm"),
                    "m.attn": AdapterPlacement(
                        "prompt", "input", norm="m.norm", query="m.q", key="m.k", value="m.v", heads=2
                    ),
                },
                {
                    f"m.{name}": tensor.to(dtype)
                    for name, tensor in {
                        "mlp/down": torch.ones(2, 4),
                        "mlp/up": torch.linspace(-1, 1, 8).view(4, 2),
                        "mlp/scale": torch.arange(4.0),
                        "attn/tokens": torch.linspace(0, 3, 12).view(3, 4),
                        "attn/gate": torch.ones(4),
                        "attn/gate_bias": torch.zeros(1),
                    }.items()
                },
                0.5,
            ),
            f"head-{kind}": ClassifierHead(
                ("mug", "red bear"), torch.linspace(-1, 1, 8).view(2, 4).to(dtype), torch.zeros(2).to(dtype)
            ),
            f"direction-{kind}": SteeringVector({"m": normal(4).to(dtype), "m.mid": normal(2, 1, 1).to(dtype)}),
            f"noise-{kind}": InitialNoise(normal(2, 3, 3).to(dtype)),
        }
    return found


def edits() -> dict[str, Edit]:
    """One edit a kind, and one that has several."""
    each = {name: Edit((part,), BASE, {"method": name, "seed": 3}) for name, part in parts().items()}
    several = tuple(each[name].parts[0] for name in ("shut", "low_rank-float16", "token-float32", "noise-float32"))
    return each | {"several": Edit(several, BASE, {"method": "several", "config": {"lr": 0.02, "layers": ["a", None]}})}


def files() -> dict[str, bytes]:
    """Their files."""
    return {name: to_bytes(edit) for name, edit in edits().items()}
