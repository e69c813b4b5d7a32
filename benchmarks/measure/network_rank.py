"""How long the rank of every block of a ViT-B/16 takes, and the rank curve of a small network on digits.

    python -m benchmarks.measure.network_rank            # writes benchmarks/results/network-rank.json
    python -m benchmarks.measure.network_rank --quick    # two blocks of the ViT, one seed; prints only

The ViT has transformers' default configuration and random weights; the patch is the published one, 16 x 16 x 3 numbers in the
middle of a picture of 224 on a background of zeros, and all of its 768 directions go through all twelve blocks. A plain matrix
product of the same float32 arithmetic is timed between the chunks, so that the time can be told from what else the machine did.
"""

from __future__ import annotations

import argparse
import os
import time
from itertools import pairwise
from statistics import mean
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification

from benchmarks.harness.ledger import Row, write_result
from photopic.core.events import Event, finished
from photopic.measure.network_rank import (
    NetworkRankConfig,
    classification_dimension,
    jacobian_ranks,
    perturbation_ranks,
)

SEED = 7_600_001
TARGET_S = 300
TOKENS, WIDTH, HIDDEN, BLOCKS, FREE = 197, 768, 3072, 12, 768
DIGITS_SEEDS = tuple(range(SEED, SEED + 3))
JACOBIANS, NOISY = 10, 3  # pictures of digits
SPECIFIED = {  # what the specification of this method saw: mean rank of the six layers and the logits
    "jacobian_trained": (64, 51.6, 18.7, 7.4, 5.7, 5.2, 4.8),
    "jacobian_untrained": (64, 64, 63.9, 60.5, 56.2, 51.6, 10),
    "jacobian_trained_exact": (64, 64, 64, 64, 63.8, 58.4, 10),
    "perturbation_trained": (64, 62, 34, 11, 7, 7, 7),
    "perturbation_untrained": (64, 64, 64, 64, 63, 60, 10),
}
CENTRED, UNCENTRED = 7, 9  # classification dimension, likewise


def least_operations(blocks: int) -> float:
    """Multiplications and additions that no way through the layers avoids: one linear pass for every direction."""
    projections = 2 * TOKENS * (4 * WIDTH * WIDTH + 2 * WIDTH * HIDDEN)
    attention = 2 * 2 * 2 * TOKENS * TOKENS * WIDTH  # two products, each with two factors that vary
    return float(FREE * blocks * (projections + attention))


def vit_rows(blocks: int, limit_s: float) -> list[Row]:
    """Wall time of all blocks on one patch, less that of the products timed in between."""
    torch.manual_seed(SEED)
    network = ViTForImageClassification(ViTConfig(num_hidden_layers=blocks)).eval().requires_grad_(False)
    image = torch.randn(1, 3, 224, 224)
    layers = [f"vit.layers.{number}" for number in range(blocks)]
    left, right = torch.randn(12 * TOKENS, WIDTH), torch.randn(WIDTH, HIDDEN)
    rates, aside, seconds, load = [], 0.0, 0.0, os.getloadavg()[0]
    started = time.perf_counter()
    steps = jacobian_ranks(network, image, layers, NetworkRankConfig())
    found: tuple[dict[str, Any], ...] = ()
    event: Event[Any] = Event("jacobian", 0, 1)
    while not found and seconds <= limit_s:
        try:
            event = next(steps)
        except StopIteration as stop:
            found = stop.value.rows
        before = time.perf_counter()
        left @ right
        elapsed = time.perf_counter() - before
        rates.append(2 * left.shape[0] * WIDTH * HIDDEN / elapsed)
        aside += elapsed
        seconds = time.perf_counter() - started - aside
        print(f"{event.done} of {event.total} directions, {seconds:.0f} s", flush=True)
    rate = mean(rates)
    done = event.done / event.total
    ratio = Row(
        "rank.vit_b16_vs_products",
        round(seconds / (done * least_operations(blocks) / rate), 2),
        n=1,
        note="time over that of the matrix products alone that every exact way needs, at the rate these ran at meanwhile"
        + ("" if found else f"; the first {done:.0%} of the directions, without the decomposition"),
    )
    speed = f"float32 products ran at {rate / 1e9:.0f} GFLOP per second meanwhile, at best at {max(rates) / 1e9:.0f}"
    threads = f"{torch.get_num_threads()} threads, load {load:.1f} before and {os.getloadavg()[0]:.1f} after"
    claim, target = "rank.vit_b16_seconds", f"<= {TARGET_S}"
    if not found:
        note = f"stopped after {done:.0%} of the directions and {seconds:.0f} s; {threads}; {speed}"
        return [Row(claim, None, unit="s", target=target, note=note), ratio]
    ranks = [row for row in found if row["rule"] == "published" and row["layer"] != "logits"]
    said = ", ".join(f"{row['rank']:.0f}" for row in ranks)
    return [
        Row(claim, round(seconds, 1), unit="s", target=target, n=1, note=f"{threads}; {speed}"),
        ratio,
        Row(
            "rank.vit_b16_least_rank",
            min(row["rank"] for row in ranks),
            n=len(ranks),
            note=f"random weights, published threshold, of {FREE}; by block: {said}",
        ),
    ]


def digits_network(seed: int) -> nn.Sequential:
    """64 inputs, six layers of 96 with GELU, ten logits."""
    torch.manual_seed(seed)
    widths = [64, *[96] * 6]
    layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.GELU())]
    return nn.Sequential(*layers, nn.Linear(96, 10))


def trained(network: nn.Sequential, images: Tensor, labels: Tensor, seed: int) -> nn.Sequential:
    """Adam at 1e-3, 60 epochs of batches of 64."""
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(60):
        for batch in torch.randperm(len(images), generator=generator).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
            optimizer.step()
    return network.requires_grad_(False)


def digits_curves(seed: int, samples: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Ranks by layer of one network before and after training, and numbers of the trained one."""
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(seed))
    images, labels = torch.tensor(digits.data / 16).float()[order], torch.tensor(digits.target)[order]
    test, train = slice(0, 450), slice(450, None)
    layers = [str(number) for number in range(1, 12, 2)]
    config = NetworkRankConfig(patch=None, dtype="float64", samples=samples)
    curves: dict[str, list[float]] = {}
    network = digits_network(seed).requires_grad_(True)
    for state in ("untrained", "trained"):
        if state == "trained":
            network = trained(network, images[train], labels[train], seed)
        jacobian = finished(jacobian_ranks(network, images[:JACOBIANS], layers, config))
        free = NetworkRankConfig(patch=0, samples=samples)
        noise = finished(perturbation_ranks(network, images[:NOISY], layers, free))
        curves[f"jacobian_{state}"] = [row["rank"] for row in jacobian.rows if row["threshold"] == 1e-2]
        curves[f"jacobian_{state}_exact"] = [row["rank"] for row in jacobian.rows if row["threshold"] == 1e-8]
        curves[f"perturbation_{state}"] = [row["rank"] for row in noise.rows if row["rule"] == "published"]
    features, head = network[:-1](images[test]), network[-1]
    assert isinstance(head, nn.Linear)
    found = classification_dimension(features, head.weight, head.bias, labels[test].tolist())
    return curves, {key: float(found[key]) for key in ("accuracy", "centred", "uncentred")}


def digits_rows(seeds: tuple[int, ...], samples: int) -> list[Row]:
    """Each specified curve beside the mean over seeds; the value is the largest difference in a layer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # matrices of 96 columns gain nothing from more
    found = [digits_curves(seed, samples) for seed in seeds]
    torch.set_num_threads(threads)
    numbers = {key: [one[1][key] for one in found] for key in found[0][1]}
    accuracy = f"{len(seeds)} seeds, accuracy {mean(numbers['accuracy']):.3f}"
    rows = []
    for name, specified in SPECIFIED.items():
        by_layer = list(zip(*(one[0][name] for one in found), strict=True))
        means = [mean(each) for each in by_layer]
        said = ", ".join(f"{m:.1f} ({min(v):.1f} to {max(v):.1f})" for m, v in zip(means, by_layer, strict=True))
        worst = max(abs(ours - theirs) for ours, theirs in zip(means, specified, strict=True))
        note = f"largest difference in a layer from {', '.join(map(str, specified))}; here {said}; {accuracy}"
        rows.append(Row(f"rank.digits_{name}_difference", round(worst, 2), target="<= 1", n=len(seeds), note=note))
    for name, dimension in (("centred", CENTRED), ("uncentred", UNCENTRED)):
        each = numbers[name]
        note = f"of 96; the specification saw {dimension}; seeds {min(each):.0f} to {max(each):.0f}"
        rows.append(Row(f"rank.digits_dimension_{name}", mean(each), baseline=dimension, n=len(seeds), note=note))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Network rank: a ViT-B/16's time, a small network's curve.")
    parser.add_argument("--quick", action="store_true", help="two blocks, one seed, 500 noisy copies; prints only")
    parser.add_argument("--limit", type=float, default=3600, help="seconds after which the ViT is given up")
    options = parser.parse_args()
    started = time.monotonic()
    rows: list[Row] = []
    for measured in (
        lambda: digits_rows(DIGITS_SEEDS[:1] if options.quick else DIGITS_SEEDS, 500 if options.quick else 5000),
        lambda: vit_rows(2 if options.quick else BLOCKS, options.limit),
    ):
        rows += measured()
        for row in rows:
            print(f"{row.claim:44} {row.value}  {row.note}", flush=True)
    if not options.quick:
        elapsed = time.monotonic() - started
        command = "python -m benchmarks.measure.network_rank"
        write_result("network-rank", rows, command=command, seeds=DIGITS_SEEDS, elapsed_s=elapsed)


if __name__ == "__main__":
    main()
