"""Applying and reverting an edit beside fusing and unfusing a LoRA, and what either leaves behind.

    python -m benchmarks edit-costs            # two minutes; writes benchmarks/results/edit-costs.json

On the key and value matrices of the shapes of Stable Diffusion 1.5 and XL with random weights, in CPU seconds of one thread. The
peer is peft's ``merge_adapter`` and ``unmerge_adapter``, which diffusers' ``fuse_lora`` and ``unfuse_lora`` call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Annotated, Any

import peft
import torch
from annotated_types import Ge
from torch import nn

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.sd15_matrices import SD15, SDXL, Shapes, key_value_matrices
from benchmarks.harness.timing import median_ratio, side_by_side
from photopic.core.config import Config
from photopic.core.edits import Edit, EditStack, SparseWeights, ZeroedWeights
from photopic.core.fingerprint import fingerprint

SEED = 7_400_001
DENSITY = 0.01
RANK = 4
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ONCE = "over a gather and scatter of the same entries"
CLAIMS = (
    Claim("edit.apply_revert_vs_lora*", "<= 0.1", f"{DENSITY:.0%} shut, over a LoRA of rank {RANK}"),
    Claim("edit.apply_revert_vs_gather_scatter*", "<= 3", ONCE),
    Claim("edit.apply_revert_values_vs_gather_scatter*", "<= 3", f"values in place of shutting, {ONCE}"),
    Claim("peers.drift.*", "== 0", f"share of changed bits; baseline: LoRA of rank {RANK}"),
)


@dataclass(frozen=True)
class CostsConfig(Config):
    """How much is measured."""

    repeats: Annotated[int, Ge(1)] = 21  # of the timing
    sdxl_repeats: Annotated[int, Ge(0)] = 7  # of the timing on the shapes of Stable Diffusion XL
    cycles: tuple[int, ...] = (1, 5, 20)  # after which the bits are looked at


def made_edit(unet: nn.Module, density: float, *, shut: bool) -> Edit:
    """A uniform random edit of a share of the entries."""
    generator = torch.Generator().manual_seed(SEED)
    base = fingerprint({"unet": unet}, "stable-diffusion-v1-5", [f"unet.{name}" for name in unet.state_dict()])
    sizes = {name: torch.Size(shape).numel() for name, shape in base.shapes.items()}
    indices = {
        name: (torch.rand(size, generator=generator) < density).nonzero().squeeze(1) for name, size in sizes.items()
    }
    if shut:
        return Edit((ZeroedWeights(indices),), base)
    values = {name: 0.02 * torch.randn(len(each), generator=generator) for name, each in indices.items()}
    return Edit((SparseWeights(indices, values),), base)


def with_lora(unet: nn.Module) -> peft.PeftModel:
    """The same matrices with a LoRA of rank 4 whose second factor is not zero."""
    config = peft.LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["to_k", "to_v"], init_lora_weights=False)
    return peft.inject_adapter_in_model(config, unet)


def lora_cycle(unet: nn.Module) -> Callable[[], None]:
    """Fuse and unfuse every layer, as ``merge_adapter`` and ``unmerge_adapter`` do."""
    layers = [module for module in unet.modules() if isinstance(module, peft.tuners.lora.LoraLayer)]

    def run() -> None:
        for layer in layers:
            layer.merge()
        for layer in layers:
            layer.unmerge()

    return run


def cost_rows(repeats: int, shapes: Shapes, ending: str = "") -> Iterator[Row]:
    """One cycle of an edit, of a LoRA and of reading and writing the same entries once, in turns."""
    torch.manual_seed(SEED)
    unet = key_value_matrices(shapes=shapes)
    stack = EditStack({"unet": unet})
    edit, tuned = made_edit(unet, DENSITY, shut=True), made_edit(unet, DENSITY, shut=False)
    positions = {name.removeprefix("unet."): each for name, each in edit.touched().items() if each is not None}
    weights = {
        name: weight.detach().flatten().clone() for name, weight in unet.named_parameters()
    }  # the stack's are its own
    peer = with_lora(key_value_matrices(shapes=shapes))

    def cycle(edit: Edit) -> None:
        stack.unload(stack.load(edit))

    def gather_and_scatter() -> None:
        for name, each in positions.items():
            weights[name].index_copy_(0, each, weights[name].index_select(0, each))

    calls = (lambda: cycle(edit), lambda: cycle(tuned), lora_cycle(peer), gather_and_scatter)
    before = stack.fingerprint().digest
    shut, values, lora, plain = side_by_side(calls, repeats, warm_up=2, clock=time.thread_time)
    assert fingerprint({"unet": unet}, "x").digest == before
    ours, theirs, once = (f"{1000 * median(each):.2f} ms" for each in (shut, lora, plain))
    count, total = sum(map(len, positions.values())), sum(weight.numel() for weight in weights.values()) / 1e6
    note = f"of {total:.1f} million: {ours}, fused and unfused by peft {theirs}"
    yield row(f"edit.apply_revert_vs_lora{ending}", median_ratio(shut, lora), n=repeats, note=note)
    for claim, seconds in (("apply_revert", shut), ("apply_revert_values", values)):
        yield row(
            f"edit.{claim}_vs_gather_scatter{ending}", median_ratio(seconds, plain), n=count, note=f"once: {once}"
        )


def drift_rows(cycles: tuple[int, ...]) -> Iterator[Row]:
    """Share of weights whose bits are not the base's after whole cycles: fusing and unfusing, and applying and reverting."""
    for label, dtype in DTYPES.items():
        torch.manual_seed(SEED)
        unet = key_value_matrices(dtype)
        before = {name: weight.detach().clone() for name, weight in unet.named_parameters()}
        stack, edit = EditStack({"unet": unet}), made_edit(unet, DENSITY, shut=False)
        peer = with_lora(key_value_matrices(dtype))
        bases = {n: p for n, p in peer.named_parameters() if "lora_" not in n}
        theirs = {name: weight.detach().clone() for name, weight in bases.items()}
        run, done = lora_cycle(peer), 0
        for target in cycles:
            for _ in range(target - done):
                stack.unload(stack.load(edit))
                run()
            done = target
            ours, peers = changed_share(dict(unet.named_parameters()), before), changed_share(bases, theirs)
            note = f"after {target} cycle{'s' * (target > 1)} in {label}; peft {peft.__version__}"
            yield row(f"peers.drift.{label}_{target}", ours, baseline=peers, n=19_169_280, note=note)


def changed_share(now: dict[str, nn.Parameter], before: dict[str, torch.Tensor]) -> float:
    """Share of entries that differ in their bits."""
    changed = 0
    for name, each in before.items():
        bits = torch.int32 if each.dtype == torch.float32 else torch.int16
        changed += int((now[name].detach().view(bits) != each.view(bits)).sum())
    return changed / sum(weight.numel() for weight in before.values())


def rows(bench: Bench[CostsConfig, Any]) -> Iterator[Row]:
    """All claims."""
    with torch.no_grad():
        yield from cost_rows(bench.config.repeats, SD15)
        yield from drift_rows(bench.config.cycles)
        if bench.config.sdxl_repeats:
            yield from cost_rows(bench.config.sdxl_repeats, SDXL, "_sdxl")


BENCHMARKS = (Benchmark("edit-costs", __doc__, CostsConfig(), CostsConfig(3, 0, (1, 2)), CLAIMS, rows, seeds=(SEED,)),)
