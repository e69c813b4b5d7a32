"""A small real network with every kind of parameter an edit meets, and edits of every kind for it."""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from photopic.core.edits import (
    AdapterPlacement,
    Adapters,
    DenseDelta,
    Edit,
    LowRankDelta,
    ParallelAdapter,
    SparseWeights,
    SteeringVector,
    ZeroedWeights,
)
from photopic.core.fingerprint import fingerprint

SHAPES = {
    "m.one.weight": (7, 7),
    "m.two.weight": (5, 7),
    "m.two.bias": (5,),
    "m.conv.weight": (3, 2, 2, 2),
    "m.words.weight": (6, 7),
    "m.tied.weight": (7, 7),
}


class Net(nn.Module):
    """An embedding, linear layers of which two share a weight, and a channels-last convolution."""

    def __init__(self, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        self.words = nn.Embedding(6, 7)
        self.one, self.tied = nn.Linear(7, 7, bias=False), nn.Linear(7, 7, bias=False)
        self.tied.weight = self.one.weight
        self.two = nn.Linear(7, 5)
        self.conv = nn.Conv2d(2, 3, 2, bias=False).to(memory_format=torch.channels_last)
        with torch.no_grad():
            self.one.weight[0, :3] = torch.tensor([-0.0, 0.0, -1e-8])

    def forward(self, ids: Tensor) -> Tensor:
        return self.two(self.tied(self.one(self.words(ids))))


BASE = fingerprint({"m": Net()}, "net", SHAPES)
IDS = torch.tensor([[0, 3, 5, 1]])
WEIGHT_KINDS = ("shut", "values-32", "values-16", "values-8", "values-2", "added", "low_rank", "delta", "shut+low_rank")
HOOK_KINDS = ("insertion", "direction", "tuner")


def content(model: nn.Module) -> str:
    """A digest of the state's raw bytes, by other means than the code under test."""
    raw = b"".join(
        t.detach().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes() for t in model.state_dict().values()
    )
    return hashlib.sha256(raw).hexdigest()


def parts(kind: str, seed: int, names: list[str] | None = None) -> tuple[Any, ...]:
    """Parts of one kind; the seed says which entries and values."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    order = torch.randperm(len(SHAPES) - 1, generator=generator).tolist()
    chosen = names or sorted(list(SHAPES)[i] for i in order[: 1 + seed % 3])
    matrices = [name for name in chosen if len(SHAPES[name]) > 1] or ["m.two.weight"]
    density = (0.1, 0.5, 1.0)[seed % 3]
    found = {n: (torch.rand(torch.Size(SHAPES[n]).numel(), generator=generator) < density) for n in chosen}
    indices = {name: mask.nonzero().squeeze(1) if mask.any() else torch.tensor([0]) for name, mask in found.items()}
    values = {name: normal(len(positions)) for name, positions in indices.items()}
    low_rank = LowRankDelta(
        {n: normal(SHAPES[n][0], 2) for n in matrices},
        {n: normal(2, torch.Size(SHAPES[n][1:]).numel()) for n in matrices},
        {n: 0.5 for n in matrices},
    )
    if kind.startswith("values"):
        return (SparseWeights.rounded(indices, values, int(kind.split("-")[1])),)
    made: dict[str, Any] = {
        "shut": lambda: (ZeroedWeights(indices),),
        "added": lambda: (SparseWeights(indices, values, delta=True),),
        "low_rank": lambda: (low_rank,),
        "delta": lambda: (DenseDelta({name: normal(*SHAPES[name]) for name in chosen}),),
        "shut+low_rank": lambda: (ZeroedWeights(indices), low_rank),
        "insertion": lambda: (ParallelAdapter({"m.two": normal(2, 7)}, {"m.two": normal(5, 2)}, 0.5, "relu"),),
        "direction": lambda: (SteeringVector({"m.one": normal(7)}),),
        "tuner": lambda: (
            Adapters(
                {"m.two": AdapterPlacement("adapter", "channel", reads="m.tied")},
                {"m.two/down": normal(2, 7), "m.two/up": normal(5, 2), "m.two/scale": normal(5)},
            ),
        ),
    }
    return made[kind]()


def made(kind: str, seed: int = 0, names: list[str] | None = None) -> Edit:
    """An edit of one kind for the network."""
    return Edit(parts(kind, seed, names), BASE, {"method": kind, "seed": seed})


def state_after(edits: list[tuple[Edit, Any]], dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """What the parameters have to be, by the definition of each kind, one edit after the other."""
    net = Net().to(dtype)
    state = {f"m.{name}": tensor.detach().reshape(-1).clone() for name, tensor in net.state_dict().items()}
    state["m.tied.weight"] = state["m.one.weight"]  # one parameter
    for edit, weight_of in edits:
        for part in edit.weight_parts:
            for name in part.names():
                weight = weight_of(name) if callable(weight_of) else weight_of
                if weight:
                    _write(state[name], part, name, weight)
    return state


def _write(flat: Tensor, part: Any, name: str, weight: float) -> None:
    if isinstance(part, ZeroedWeights):
        at = part.indices[name]
        flat[at] = 0.0 if weight == 1 else (flat[at].float() * (1 - weight)).to(flat.dtype)
    elif isinstance(part, SparseWeights):
        at, values, old = part.indices[name], part.values[name].float(), flat[part.indices[name]].float()
        new = old + weight * values if part.delta else values if weight == 1 else old + weight * (values - old)
        flat[at] = new.to(flat.dtype)
    else:
        added = (
            part.deltas[name] if isinstance(part, DenseDelta) else part.scales[name] * (part.up[name] @ part.down[name])
        )
        flat.copy_((flat.float() + weight * added.reshape(-1).float()).to(flat.dtype))


def assert_state(model: nn.Module, expected: dict[str, Tensor], exact: bool = True) -> None:
    for name, tensor in model.state_dict().items():
        found, wanted = tensor.detach().reshape(-1), expected[f"m.{name}"]
        if exact:
            assert torch.equal(found.view(torch.uint8), wanted.view(torch.uint8)), name
        else:
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def interrupted(act: Callable[[], Any], at: int) -> int:
    """Run something with a KeyboardInterrupt at one traced line of this package; how many lines it came to."""
    seen = 0

    def local(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal seen
        if event == "line":
            seen += 1
            if seen == at:
                sys.settrace(None)  # what cleans up afterwards runs as fast as ever
                raise KeyboardInterrupt
        return local

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        return local if "/photopic/core/" in frame.f_code.co_filename else None

    sys.settrace(trace)
    try:
        act()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    return seen


def pickled(thing: Any) -> Any:
    """A copy as users make one by saving."""
    file = io.BytesIO()
    torch.save(thing, file)  # noqa: TID251  # what users do
    file.seek(0)
    return torch.load(file, weights_only=False)  # noqa: TID251  # written by this test
