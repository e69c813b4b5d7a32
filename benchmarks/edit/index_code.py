"""What a set of positions costs, against its entropy, int32 positions and a plain Rice code, and how fast it is read.

    python -m benchmarks index-code            # about a minute; writes benchmarks/results/index-code.json

Sets are drawn uniformly. The files are of edits of the 32 cross-attention key and value matrices of Stable Diffusion 1.5's
shapes with random weights: no download, and nothing but the shapes matters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.sd15_matrices import key_value_matrices
from benchmarks.harness.timing import side_by_side
from photopic.core.config import Config
from photopic.core.editfile.indices import decode, encode, entropy_bytes
from photopic.core.edits import Edit, TokenResidual, ZeroedWeights
from photopic.core.edits import file as edit_file
from photopic.core.fingerprint import fingerprint
from photopic.core.identity import Fingerprint

SEED = 7_300_001
DENSITIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.38, 0.5)
ROW = 768
INT32_BYTES = 4
WITHOUT_ROWS = "baseline: without rows"
CLAIMS = (
    Claim("index.bits_over_entropy.*", "<= 1.03", "baseline: plain Rice or bitmap"),
    Claim("index.worst_over_entropy", "<= 1.03"),
    Claim("index.clustered_over_entropy.dense_rows", "< 1", f"one row in 100 full, the others empty; {WITHOUT_ROWS}"),
    Claim("index.clustered_over_entropy.empty_rows", "< 1", f"half the rows empty, the others at 2 %; {WITHOUT_ROWS}"),
    Claim(
        "index.clustered_over_entropy.gamma_rows",
        "< 1",
        f"row densities gamma distributed, shape 0.5, mean 1 %; {WITHOUT_ROWS}",
    ),
    Claim("index.sd1_1pct_bytes", "<= 205000", "baseline: int32 positions alone", "bytes"),
    Claim("index.sd1_5pct_bytes", "<= 720000", "baseline: int32 positions alone", "bytes"),
    Claim(
        "index.token_residual_bytes", "<= 2300", "one token, 1,024 half floats; baseline: the numbers alone", "bytes"
    ),
    Claim("index.decode_rate", ">= 100", "baseline: np.flatnonzero of bools", "million/s"),
    Claim("index.decode_rate_*", "", "baseline: np.flatnonzero of bools", "million/s"),
)


@dataclass(frozen=True)
class IndexConfig(Config):
    """How much is measured."""

    positions: Annotated[int, Ge(10_000)] = 4_000_000  # of each set that is drawn from
    sweep: Annotated[int, Ge(2)] = 100  # densities between the first and the last, for the worst one
    repeats: Annotated[int, Ge(1)] = 31  # of the timing


def uniform(density: float, size: int, salt: int = 0) -> np.ndarray:
    """Each position alone, with probability ``density``."""
    rng = np.random.default_rng([SEED, salt, round(density * 1e6)])
    return np.flatnonzero(rng.random(size, np.float32) < density)


def plain_rice_bytes(positions: np.ndarray, size: int) -> int:
    """The smaller of a bitmap and gaps with the best power of two, with nothing before them."""
    gaps = np.diff(positions, prepend=-1) - 1
    rice = min(int((gaps >> k).sum()) + len(gaps) * (k + 1) for k in range(size.bit_length()))
    return -(-min(rice, size) // 8)


def entropy_rows(size: int, sweep: int) -> Iterator[Row]:
    """Bytes over the entropy of the same count, at fixed densities and at the worst of many."""
    for density in DENSITIES:
        positions = uniform(density, size)
        ours, rice, bound = over_entropy(positions, size)
        note = f"int32 positions: {INT32_BYTES * len(positions) / bound:.2f}"
        yield row(f"index.bits_over_entropy.{density:g}", ours, baseline=rice, n=len(positions), note=note)
    swept = [float(density) for density in np.geomspace(DENSITIES[0], DENSITIES[-1], sweep)]
    found = [(*over_entropy(uniform(density, size, salt=1), size)[:2], density) for density in swept]
    worst, worst_rice = max(found), max(found, key=lambda each: each[1])
    note = (
        f"worst of {sweep} densities from 0.001 to 0.5, at {worst[2]:.3f}; baseline: plain Rice, at {worst_rice[2]:.3f}"
    )
    yield row("index.worst_over_entropy", worst[0], baseline=worst_rice[1], note=note)


def over_entropy(positions: np.ndarray, size: int) -> tuple[float, float, float]:
    """Bytes of our code and of plain Rice over the entropy, and the entropy in bytes."""
    bound = entropy_bytes(len(positions), size)
    return len(encode(positions, size)) / bound, plain_rice_bytes(positions, size) / bound, bound


def clustered_rows(size: int) -> Iterator[Row]:
    """Sets whose rows differ, coded by rows, over the entropy of the whole."""
    count = size // ROW
    rng = np.random.default_rng([SEED, 2])
    kinds = {
        "dense_rows": np.where(np.arange(count) % 100 == 0, 1, 0),
        "empty_rows": np.where(np.arange(count) % 2 == 0, 0.02, 0),
        "gamma_rows": rng.gamma(0.5, 0.02, count).clip(0, 1),
    }
    for name, densities in kinds.items():
        positions = np.flatnonzero(rng.random((count, ROW), np.float32) < densities[:, None])
        bound = entropy_bytes(len(positions), count * ROW)
        by_rows, whole = (len(encode(positions, count * ROW, row=each)) / bound for each in (ROW, None))
        yield row(f"index.clustered_over_entropy.{name}", by_rows, baseline=whole, n=len(positions))


def file_rows(base: Fingerprint) -> Iterator[Row]:
    """Whole files, with everything that stands before the positions; at last one of a token residual."""
    for claim, density in (("index.sd1_1pct_bytes", 0.01), ("index.sd1_5pct_bytes", 0.05)):
        sizes = {name: int(np.prod(shape)) for name, shape in base.shapes.items()}
        sets = {name: uniform(density, size, salt=3 + salt) for salt, (name, size) in enumerate(sizes.items())}
        shut = ZeroedWeights({name: torch.from_numpy(positions) for name, positions in sets.items()})
        content = edit_file.to_bytes(Edit((shut,), base, {"method": "uniform"}))
        count = sum(map(len, sets.values()))
        coded = sum(len(encode(positions, sizes[name], row=ROW)) for name, positions in sets.items())
        rice = sum(plain_rice_bytes(positions, sizes[name]) for name, positions in sets.items())
        bound = entropy_bytes(count, sum(sizes.values()))
        note = f"{coded:,} for the positions (entropy {bound:,.0f}, plain Rice {rice:,})"
        yield row(claim, len(content), baseline=INT32_BYTES * count, n=count, note=note)
    residual = torch.randn(1, 1024, generator=torch.Generator().manual_seed(SEED)).half()
    part = TokenResidual("bear", {"text_encoder": (7,)}, {"text_encoder": residual})
    plain = replace(base, sketches={}, shapes={})  # it touches no weight
    content = edit_file.to_bytes(Edit((part,), plain, {"method": "uniform"}))
    yield row("index.token_residual_bytes", len(content), baseline=2048)


def rate_rows(size: int, repeats: int) -> Iterator[Row]:
    """Positions read in a second on one thread, beside a scan of one bool for each position of the tensor."""
    for suffix, density in (("", 0.1), ("_1pct", 0.01), ("_11pct", 0.11), ("_38pct", 0.38)):
        positions = uniform(density, size)
        code, flags = encode(positions, size, row=ROW), np.zeros(size, np.bool_)
        flags[positions] = True
        calls = (
            partial(decode, code, size, row=ROW),
            partial(np.flatnonzero, flags),
            partial(encode, positions, size, row=ROW),
        )
        rates = [[len(positions) / s / 1e6 for s in seconds] for seconds in side_by_side(calls, repeats, warm_up=1)]
        read, scan, write = (median(each) for each in rates)
        note = (
            f"median of {repeats}, {min(rates[0]):.0f} to {max(rates[0]):.0f}; encode: {write:.0f}; tensor of {size:,} with rows "
            f"of {ROW}"
        )
        yield row(f"index.decode_rate{suffix}", read, baseline=scan, n=repeats, note=note)


def rows(bench: Bench[IndexConfig, Any]) -> Iterator[Row]:
    """All claims."""
    config, unet = bench.config, key_value_matrices()
    base = fingerprint({"unet": unet}, "stable-diffusion-v1-5", [f"unet.{name}" for name in unet.state_dict()])
    yield from entropy_rows(config.positions, config.sweep)
    yield from clustered_rows(config.positions)
    yield from file_rows(base)
    yield from rate_rows(1280 * ROW, config.repeats)


BENCHMARKS = (
    Benchmark("index-code", __doc__, IndexConfig(), IndexConfig(400_000, 10, 3), CLAIMS, rows, seeds=(SEED,)),
)
