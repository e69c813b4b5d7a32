"""How fast is the base check: a fingerprint against plain SHA-256 over the same bytes.

    python -m benchmarks.edit.fingerprint_rate            # writes benchmarks/results/fingerprint-rate.json
    python -m benchmarks.edit.fingerprint_rate --quick    # two rounds on small tensors, prints only

The tensors are the cross-attention keys and values of Stable Diffusion 1.x (19.2 million weights in 32 tensors), and a whole UNet
of that model at a fifth of its width, so with as many tensors of a 25th of the size: what is done for each counts for more. Both
are timed in turn, round after round, after one round of warming up. A rate is the median over the rounds; the interval of a ratio
is that of its median, from the order of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist, median

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from benchmarks.harness.ledger import Row, write_result
from photopic.core.fingerprint import fingerprint

SEED = 0
LAYERS = {320: 5, 640: 5, 1280: 6}  # cross-attentions of a Stable Diffusion 1.x UNet by width
TEXT_WIDTH = 768
TARGET = 0.70


@dataclass(frozen=True)
class Rates:
    """Bytes a second in each round."""

    fingerprint: list[float]
    sha256: list[float]

    @property
    def ratios(self) -> list[float]:
        """Fingerprint over SHA-256, round by round."""
        return [a / b for a, b in zip(self.fingerprint, self.sha256, strict=True)]


def keys_and_values(dtype: torch.dtype, share: int = 1) -> dict[str, nn.Module]:
    """The to_k and to_v matrices, random, with a ``share``-th of the rows."""
    shapes = [(width // share, TEXT_WIDTH) for width, count in LAYERS.items() for _ in range(2 * count)]
    generator = torch.Generator().manual_seed(SEED)
    weights = [nn.Parameter(torch.randn(shape, generator=generator).to(dtype), requires_grad=False) for shape in shapes]
    return {"unet": nn.ParameterList(weights)}


def narrow_unet(dtype: torch.dtype) -> dict[str, nn.Module]:
    """The layers of Stable Diffusion 1.x at a fifth of the width."""
    torch.manual_seed(SEED)
    widths = tuple(width // 5 for width in (*LAYERS, max(LAYERS)))
    return {"unet": UNet2DConditionModel(block_out_channels=widths, cross_attention_dim=TEXT_WIDTH).to(dtype)}


def compare(modules: dict[str, nn.Module], rounds: int, threads: int) -> Rates:
    """Time both in turn; SHA-256 reads the same memory, tensor after tensor, in one hash."""
    torch.set_num_threads(threads)
    tensors = list(modules["unet"].parameters())
    views = [tensor.view(-1).view(torch.uint8).numpy().data for tensor in tensors]
    size = sum(view.nbytes for view in views)

    def plain() -> None:
        hashed = hashlib.sha256()
        for view in views:
            hashed.update(view)
        hashed.digest()

    def ours() -> None:
        fingerprint(modules, "model")

    measured: dict[Callable[[], None], list[float]] = {ours: [], plain: []}
    for number in range(rounds + 1):
        for task in (ours, plain) if number % 2 else (plain, ours):
            started = time.perf_counter()
            task()
            if number:
                measured[task].append(size / (time.perf_counter() - started))
    return Rates(measured[ours], measured[plain])


def median_interval(values: list[float]) -> tuple[float | None, float | None]:
    """Bounds of the 95 % interval of the median, from order statistics; none below six values."""
    count = len(values)
    if count < 6:
        return None, None
    below = max(0, int((count - NormalDist().inv_cdf(0.975) * count**0.5) / 2))
    return sorted(values)[below], sorted(values)[count - 1 - below]


def row(claim: str, rates: Rates, threads: int, what: str, target: str | None) -> Row:
    """The ratio, with both rates in the note."""
    low, high = median_interval(rates.ratios)
    ours, plain = (median(each) / 1e6 for each in (rates.fingerprint, rates.sha256))
    note = (
        f"{what}; {threads} thread{'s' * (threads > 1)}; fingerprint {ours:.0f} MB/s, hashlib.sha256 {plain:.0f} MB/s"
    )
    return Row(claim, median(rates.ratios), low, high, target=target, n=len(rates.ratios), note=note)


def measure(rounds: int, quick: bool) -> list[Row]:
    """Every row: one thread for the claim, all threads beside it."""
    share = 16 if quick else 1
    threads = torch.get_num_threads()
    claim, target = "fingerprint.rate_vs_sha256", f">= {TARGET:.2f}"
    rows = []
    for suffix, dtype in (("", torch.float32), ("_fp16", torch.float16)):
        modules, what = keys_and_values(dtype, share), f"SD 1.x K/V, {str(dtype).removeprefix('torch.')}"
        rows.append(row(claim + suffix, compare(modules, rounds, 1), 1, what, target))
        if threads > 1:
            rates = compare(modules, rounds, threads)
            rows.append(row(f"{claim}{suffix}_threads", rates, threads, f"{what}; sha256 has one thread", None))
    modules = narrow_unet(torch.float16)
    what = f"UNet of SD 1.x at a fifth of its width, {len(list(modules['unet'].parameters()))} tensors, float16"
    rows.append(row(f"{claim}_narrow_unet", compare(modules, rounds, 1), 1, what, None))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Fingerprint against plain SHA-256 over the same bytes.")
    parser.add_argument("--quick", action="store_true", help="two rounds on small tensors; prints and writes nothing")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    started = time.monotonic()
    rows = measure(2 if options.quick else options.rounds, options.quick)
    for each in rows:
        ends = "" if each.low is None else f"  [{each.low:.3f}, {each.high:.3f}]"
        print(f"{each.claim:45} {each.value:.3f}{ends}  {each.note}")
    if options.quick:
        return
    command = f"python -m benchmarks.edit.fingerprint_rate --rounds {options.rounds}"
    write_result("fingerprint-rate", rows, command=command, seeds=[SEED], elapsed_s=time.monotonic() - started)


if __name__ == "__main__":
    main()
