"""What a set of positions costs, against its entropy, int32 positions and a plain Rice code, and how fast it is read.

    python -m benchmarks.edit.index_code            # about a minute; writes benchmarks/results/index-code.json
    python -m benchmarks.edit.index_code --quick    # a tenth of the positions, three repeats; prints only

Sets are drawn uniformly. The files are of edits of the 32 cross-attention key and value matrices of Stable Diffusion 1.5's
shapes with random weights: no download, and nothing but the shapes matters.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from statistics import median

import numpy as np
import torch

from benchmarks.harness.ledger import Row, write_result
from benchmarks.harness.sd15_matrices import key_value_matrices
from benchmarks.harness.timing import side_by_side
from photopic.core.edits import Edit, TokenResidual, ZeroedWeights
from photopic.core.edits import file as edit_file
from photopic.core.edits.file.indices import decode, encode, entropy_bytes
from photopic.core.fingerprint import Fingerprint, fingerprint

SEED = 7_300_001
DENSITIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.38, 0.5)
SWEEP = 100  # densities between the first and the last, for the worst one
POSITIONS = 4_000_000
ROW = 768
INT32_BYTES = 4


def uniform(density: float, size: int, salt: int = 0) -> np.ndarray:
    """Each position alone, with probability ``density``."""
    rng = np.random.default_rng([SEED, salt, round(density * 1e6)])
    return np.flatnonzero(rng.random(size, np.float32) < density)


def plain_rice_bytes(positions: np.ndarray, size: int) -> int:
    """The smaller of a bitmap and gaps with the best power of two, with nothing before them."""
    gaps = np.diff(positions, prepend=-1) - 1
    rice = min(int((gaps >> k).sum()) + len(gaps) * (k + 1) for k in range(size.bit_length()))
    return -(-min(rice, size) // 8)


def entropy_rows(size: int, sweep: int) -> list[Row]:
    """Bytes over the entropy of the same count, at fixed densities and at the worst of many."""
    rows = []
    for density in DENSITIES:
        positions = uniform(density, size)
        bound = entropy_bytes(len(positions), size)
        rows.append(
            Row(
                f"index.bits_over_entropy.{density:g}",
                round(len(encode(positions, size)) / bound, 4),
                target="<= 1.03",
                baseline=round(plain_rice_bytes(positions, size) / bound, 4),
                n=len(positions),
                note=f"baseline: plain Rice or bitmap; int32 positions: {INT32_BYTES * len(positions) / bound:.2f}",
            )
        )
    found = []
    for density in np.geomspace(DENSITIES[0], DENSITIES[-1], sweep):
        positions = uniform(float(density), size, salt=1)
        bound = entropy_bytes(len(positions), size)
        rice = plain_rice_bytes(positions, size) / bound
        found.append((len(encode(positions, size)) / bound, rice, float(density)))
    worst, worst_rice = max(found), max(found, key=lambda each: each[1])
    note = (
        f"worst of {sweep} densities from 0.001 to 0.5, at {worst[2]:.3f}; baseline: plain Rice, at {worst_rice[2]:.3f}"
    )
    return [
        *rows,
        Row(
            "index.worst_over_entropy",
            round(worst[0], 4),
            target="<= 1.03",
            baseline=round(worst_rice[1], 4),
            note=note,
        ),
    ]


def clustered_rows(size: int) -> list[Row]:
    """Sets whose rows differ, coded by rows, over the entropy of the whole."""
    count = size // ROW
    rng = np.random.default_rng([SEED, 2])
    kinds = {
        "dense_rows": ("one row in 100 full, the others empty", np.where(np.arange(count) % 100 == 0, 1, 0)),
        "empty_rows": ("half the rows empty, the others at 2 %", np.where(np.arange(count) % 2 == 0, 0.02, 0)),
        "gamma_rows": ("row densities gamma distributed, shape 0.5, mean 1 %", rng.gamma(0.5, 0.02, count).clip(0, 1)),
    }
    rows = []
    for name, (note, densities) in kinds.items():
        positions = np.flatnonzero(rng.random((count, ROW), np.float32) < densities[:, None])
        bound = entropy_bytes(len(positions), count * ROW)
        by_rows, whole = (len(encode(positions, count * ROW, row=row)) / bound for row in (ROW, None))
        claim, what = f"index.clustered_over_entropy.{name}", f"{note}; baseline: without rows"
        rows.append(Row(claim, round(by_rows, 4), target="< 1", baseline=round(whole, 4), n=len(positions), note=what))
    return rows


def cross_attention() -> Fingerprint:
    """A base with the 32 key and value matrices of Stable Diffusion 1.5."""
    unet = key_value_matrices()
    names = [f"unet.{name}" for name in unet.state_dict()]
    return fingerprint({"unet": unet}, "stable-diffusion-v1-5", names)


def file_rows(base: Fingerprint) -> list[Row]:
    """Whole files, with everything that stands before the positions."""
    rows = []
    for claim, density, limit in (("index.sd1_1pct_bytes", 0.01, 205_000), ("index.sd1_5pct_bytes", 0.05, 720_000)):
        sizes = {name: int(np.prod(shape)) for name, shape in base.shapes.items()}
        sets = {name: uniform(density, size, salt=3 + salt) for salt, (name, size) in enumerate(sizes.items())}
        shut = ZeroedWeights({name: torch.from_numpy(positions) for name, positions in sets.items()})
        content = edit_file.to_bytes(Edit((shut,), base, {"method": "uniform"}))
        count = sum(map(len, sets.values()))
        coded = sum(len(encode(positions, sizes[name], row=ROW)) for name, positions in sets.items())
        rice = sum(plain_rice_bytes(positions, sizes[name]) for name, positions in sets.items())
        bound = entropy_bytes(count, sum(sizes.values()))
        note = (
            f"{coded:,} for the positions (entropy {bound:,.0f}, plain Rice {rice:,}); baseline: int32 positions alone"
        )
        target = f"<= {limit}"
        rows.append(
            Row(claim, len(content), unit="bytes", target=target, baseline=INT32_BYTES * count, n=count, note=note)
        )
    return rows


def residual_row(base: Fingerprint) -> Row:
    """The whole file of a token residual of 1,024 half floats."""
    residual = torch.randn(1, 1024, generator=torch.Generator().manual_seed(SEED)).half()
    part = TokenResidual("bear", {"text_encoder": (7,)}, {"text_encoder": residual})
    plain = replace(base, sketches={}, shapes={})  # it touches no weight
    content = edit_file.to_bytes(Edit((part,), plain, {"method": "uniform"}))
    note = "one token, 1,024 half floats; baseline: the numbers alone"
    return Row("index.token_residual_bytes", len(content), unit="bytes", target="<= 2300", baseline=2048, note=note)


def rate_rows(size: int, repeats: int) -> list[Row]:
    """Positions read in a second on one thread, beside a scan of one bool for each position of the tensor."""
    rows = []
    for claim, density, target in (
        ("index.decode_rate", 0.1, ">= 100"),
        ("index.decode_rate_1pct", 0.01, None),
        ("index.decode_rate_11pct", 0.11, None),
        ("index.decode_rate_38pct", 0.38, None),
    ):
        positions = uniform(density, size)
        code, flags = encode(positions, size, row=ROW), np.zeros(size, np.bool_)
        flags[positions] = True
        calls = (
            lambda code=code: decode(code, size, row=ROW),
            lambda flags=flags: np.flatnonzero(flags),
            lambda positions=positions: encode(positions, size, row=ROW),
        )
        rates = [[len(positions) / s / 1e6 for s in seconds] for seconds in side_by_side(calls, repeats, warm_up=1)]
        read, scan, write = (median(each) for each in rates)
        note = (
            f"median of {repeats}, {min(rates[0]):.0f} to {max(rates[0]):.0f}; baseline: np.flatnonzero of bools; "
            f"encode: {write:.0f}; tensor of {size:,} with rows of {ROW}"
        )
        unit = "million/s"
        rows.append(Row(claim, round(read, 1), unit=unit, target=target, baseline=round(scan, 1), n=repeats, note=note))
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the positions, three repeats; print only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    started = time.monotonic()
    size = POSITIONS // (10 if options.quick else 1)
    base = cross_attention()
    rows = [
        *entropy_rows(size, SWEEP // (10 if options.quick else 1)),
        *clustered_rows(size),
        *file_rows(base),
        residual_row(base),
        *rate_rows(1280 * ROW, 3 if options.quick else 31),
    ]
    for row in rows:
        print(
            f"{row.claim:42} {row.value:>12,} {row.unit:10} {row.target or '':12} {row.verdict:4} {row.baseline:>12,}"
        )
        print(f"    {row.note}")
    if not options.quick:
        elapsed = time.monotonic() - started
        write_result(
            "index-code", rows, command="python -m benchmarks.edit.index_code", seeds=[SEED], elapsed_s=elapsed
        )


if __name__ == "__main__":
    main()
