"""Applying and reverting an edit beside fusing and unfusing a LoRA, and what either leaves behind.

    python -m benchmarks.edit.edit_costs            # two minutes; writes benchmarks/results/edit-costs.json
    python -m benchmarks.edit.edit_costs --quick    # three repeats, two cycles; prints only

On the key and value matrices of the shapes of Stable Diffusion 1.5 and XL with random weights, in CPU seconds of one thread. The
peer is peft's ``merge_adapter`` and ``unmerge_adapter``, which diffusers' ``fuse_lora`` and ``unfuse_lora`` call.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import peft
import torch
from torch import nn

from benchmarks.harness.ledger import Row, write_result
from benchmarks.harness.sd15_matrices import SD15, SDXL, Shapes, key_value_matrices
from benchmarks.harness.timing import side_by_side
from photopic.core.edits import Edit, EditStack, SparseWeights, ZeroedWeights
from photopic.core.fingerprint import fingerprint

SEED = 7_400_001
DENSITY = 0.01
RANK = 4
CYCLES = (1, 5, 20)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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


def cost_rows(repeats: int, shapes: Shapes = SD15, ending: str = "") -> list[Row]:
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
    count = sum(map(len, positions.values()))
    total = sum(weight.numel() for weight in weights.values()) / 1e6
    ours, theirs, once = (round(1000 * median(each), 2) for each in (shut, lora, plain))
    note = f"{DENSITY:.0%} of {total:.1f} million shut: {ours} ms; LoRA of rank {RANK} fused and unfused by peft: {theirs} ms"
    said = f"gather and scatter of the same entries once: {once} ms; low and high are quartiles"
    rows = [
        (f"apply_revert_vs_lora{ending}", shut, lora, "<= 0.1", repeats, f"{note}; low and high are quartiles"),
        (f"apply_revert_vs_gather_scatter{ending}", shut, plain, "<= 3", count, said),
        (f"apply_revert_values_vs_gather_scatter{ending}", values, plain, "<= 3", count, "values in place of shutting"),
    ]
    return [
        Row(
            f"edit.{claim}", *quartiles([a / b for a, b in zip(one, other, strict=True)]), target=target, n=n, note=text
        )
        for claim, one, other, target, n, text in rows
    ]


def drift_rows(cycles: tuple[int, ...]) -> list[Row]:
    """Share of weights whose bits are not the base's after whole cycles: fusing and unfusing, and applying and reverting."""
    rows = []
    for label, dtype in DTYPES.items():
        torch.manual_seed(SEED)
        unet = key_value_matrices(dtype)
        kept = {name: weight.detach().clone() for name, weight in unet.named_parameters()}
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
            ours = changed_share(dict(unet.named_parameters()), kept)
            note = f"after {target} cycle{'s' * (target > 1)} in {label}; baseline: LoRA of rank {RANK}, peft {peft.__version__}"
            peer_share = round(changed_share(bases, theirs), 4)
            rows.append(
                Row(f"peers.drift.{label}_{target}", ours, target="== 0", baseline=peer_share, n=19_169_280, note=note)
            )
    return rows


def changed_share(now: dict[str, nn.Parameter], before: dict[str, torch.Tensor]) -> float:
    """Share of entries that differ in their bits."""
    whole = sum(weight.numel() for weight in before.values())
    bits = {torch.float32: torch.int32}
    changed = sum(
        int(
            (
                now[name].detach().view(bits.get(each.dtype, torch.int16))
                != each.view(bits.get(each.dtype, torch.int16))
            ).sum()
        )
        for name, each in before.items()
    )
    return changed / whole


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Median, lower and upper quartile."""
    low, middle, high = torch.tensor(values).quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
    return round(middle, 3), round(low, 3), round(high, 3)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three repeats, two cycles; print only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    with torch.no_grad():
        rows = [*cost_rows(3 if options.quick else 21), *drift_rows((1, 2) if options.quick else CYCLES)]
        rows += [] if options.quick else cost_rows(7, SDXL, "_sdxl")
    for row in rows:
        print(f"{row.claim:42} {row.value!s:>12} {row.target or '':8} {row.verdict:4} {row.baseline!s:>8}  {row.note}")
    if not options.quick:
        elapsed = time.monotonic() - started
        write_result(
            "edit-costs", rows, command="python -m benchmarks.edit.edit_costs", seeds=[SEED], elapsed_s=elapsed
        )


if __name__ == "__main__":
    main()
