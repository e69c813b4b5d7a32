"""How fast is the base check: a fingerprint against plain SHA-256 over the same bytes.

    python -m benchmarks fingerprint-rate            # writes benchmarks/results/fingerprint-rate.json

The tensors are the cross-attention keys and values of Stable Diffusion 1.x (19.2 million weights in 32 tensors), and a whole UNet
of that model at a fifth of its width, so with as many tensors of a 25th of the size: what is done for each counts for more. Both
are timed in turn, round after round, after one round of warming up; a ratio is the median over the rounds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Annotated, Any

import torch
from annotated_types import Ge
from diffusers import UNet2DConditionModel
from torch import nn

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.timing import median_ratio, side_by_side
from photopic.core.config import Config
from photopic.core.fingerprint import fingerprint

TEXT_WIDTH = 768
LAYERS = {320: 5, 640: 5, 1280: 6}  # cross-attentions of a Stable Diffusion 1.x UNet by width
CLAIMS = (
    Claim("fingerprint.rate_vs_sha256", ">= 0.70"),
    Claim("fingerprint.rate_vs_sha256_fp16", ">= 0.70"),
    Claim("fingerprint.rate_vs_sha256*_threads", "", "sha256 has one thread"),
    Claim("fingerprint.rate_vs_sha256_narrow_unet"),
)


@dataclass(frozen=True)
class FingerprintConfig(Config):
    """How much is measured."""

    rounds: Annotated[int, Ge(1)] = 15  # of both in turn
    share: Annotated[int, Ge(1)] = 1  # one in so many rows of every tensor


def keys_and_values(dtype: torch.dtype, share: int) -> dict[str, nn.Module]:
    """The to_k and to_v matrices, random, with a ``share``-th of the rows."""
    shapes = [(width // share, TEXT_WIDTH) for width, count in LAYERS.items() for _ in range(2 * count)]
    generator = torch.Generator().manual_seed(0)
    weights = [nn.Parameter(torch.randn(shape, generator=generator).to(dtype), requires_grad=False) for shape in shapes]
    return {"unet": nn.ParameterList(weights)}


def narrow_unet(dtype: torch.dtype) -> dict[str, nn.Module]:
    """The layers of Stable Diffusion 1.x at a fifth of the width."""
    torch.manual_seed(0)
    widths = tuple(width // 5 for width in (*LAYERS, max(LAYERS)))
    return {"unet": UNet2DConditionModel(block_out_channels=widths, cross_attention_dim=TEXT_WIDTH).to(dtype)}


def compared(claim: str, modules: dict[str, nn.Module], rounds: int, threads: int, what: str) -> Row:
    """Time both in turn; SHA-256 reads the same memory, tensor after tensor, in one hash."""
    torch.set_num_threads(threads)
    views = [tensor.view(-1).view(torch.uint8).numpy().data for tensor in modules["unet"].parameters()]

    def plain() -> None:
        hashed = hashlib.sha256()
        for view in views:
            hashed.update(view)
        hashed.digest()

    ours, theirs = side_by_side([lambda: fingerprint(modules, "model"), plain], rounds, warm_up=1)
    size = sum(view.nbytes for view in views) / 1e6
    note = (
        f"{what}; {threads} thread{'s' * (threads > 1)}; fingerprint {size / median(ours):.0f} MB/s, hashlib.sha256 "
        f"{size / median(theirs):.0f} MB/s"
    )
    return row(claim, median_ratio(theirs, ours), n=rounds, note=note)  # of rates, so of times the other way round


def rows(bench: Bench[FingerprintConfig, Any]) -> Iterator[Row]:
    """Every row: one thread for the claim, all threads beside it."""
    rounds, threads = bench.config.rounds, torch.get_num_threads()
    for suffix, dtype in (("", torch.float32), ("_fp16", torch.float16)):
        claim = f"fingerprint.rate_vs_sha256{suffix}"
        modules = keys_and_values(dtype, bench.config.share)
        what = f"SD 1.x K/V, {str(dtype).removeprefix('torch.')}"
        yield compared(claim, modules, rounds, 1, what)
        if threads > 1:
            yield compared(f"{claim}_threads", modules, rounds, threads, what)
    modules = narrow_unet(torch.float16)
    what = f"UNet of SD 1.x at a fifth of its width, {len(list(modules['unet'].parameters()))} tensors, float16"
    yield compared("fingerprint.rate_vs_sha256_narrow_unet", modules, rounds, 1, what)


BENCHMARKS = (
    Benchmark("fingerprint-rate", __doc__, FingerprintConfig(), FingerprintConfig(2, 16), CLAIMS, rows, threads=0),
)
