"""How long the rank of every block of a ViT-B/16 takes, and the rank curve of a small network on digits.

    python -m benchmarks network-rank            # writes benchmarks/results/network-rank.json

The ViT has transformers' default configuration and random weights; the patch is the published one, 16 x 16 x 3 numbers in the
middle of a picture of 224 on a background of zeros, and all of its 768 directions go through all twelve blocks. A plain matrix
product of the same float32 arithmetic is timed between the chunks, so that the time can be told from what else the machine did.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import mean
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt
from sklearn.datasets import load_digits
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from photopic.core.config import Config
from photopic.core.events import finished
from photopic.measure.network_rank import (
    NetworkRankConfig,
    classification_dimension,
    jacobian_ranks,
    perturbation_ranks,
)

SEED = 7_600_001
TOKENS, WIDTH, HIDDEN, FREE = 197, 768, 3072, 768
JACOBIANS, NOISY = 10, 3  # pictures of digits
SPECIFIED = {  # what the specification of this method saw: mean rank of the six layers and the logits
    "jacobian_trained": (64, 51.6, 18.7, 7.4, 5.7, 5.2, 4.8),
    "jacobian_untrained": (64, 64, 63.9, 60.5, 56.2, 51.6, 10),
    "jacobian_trained_exact": (64, 64, 64, 64, 63.8, 58.4, 10),
    "perturbation_trained": (64, 62, 34, 11, 7, 7, 7),
    "perturbation_untrained": (64, 64, 64, 64, 63, 60, 10),
}
DIMENSION = {"centred": 7, "uncentred": 9}  # classification dimension, likewise
CLAIMS = (
    Claim("rank.digits_*_difference", "<= 1", "largest difference in a layer from what the specification saw"),
    Claim("rank.digits_dimension_*", "", "of 96; baseline: what the specification saw"),
    Claim("rank.vit_b16_seconds", "<= 300", unit="s"),
    Claim(
        "rank.vit_b16_vs_products",
        "",
        "time over that of the matrix products alone that every exact way needs, at the rate these ran at meanwhile",
    ),
    Claim("rank.vit_b16_least_rank", "", f"random weights, published threshold, of {FREE}"),
)


@dataclass(frozen=True)
class RankConfig(Config):
    """How much is measured."""

    seeds: tuple[int, ...] = tuple(range(SEED, SEED + 3))  # of networks on digits
    samples: Annotated[int, Ge(1)] = 5000  # noisy copies of a picture
    blocks: Annotated[int, Ge(1)] = 12  # of the ViT
    limit_s: Annotated[float, Gt(0)] = 3600  # seconds after which the ViT is given up


def least_operations(blocks: int) -> float:
    """Multiplications and additions that no way through the layers avoids: one linear pass for every direction."""
    projections = 2 * TOKENS * (4 * WIDTH * WIDTH + 2 * WIDTH * HIDDEN)
    attention = 2 * 2 * 2 * TOKENS * TOKENS * WIDTH  # two products, each with two factors that vary
    return float(FREE * blocks * (projections + attention))


@dataclass
class Timed:
    """How far the ViT came: seconds less those of the products between, their rates, and the ranks if it came to the end."""

    seconds: float = 0.0
    done: float = 0.0  # share of the directions
    rates: list[float] = field(default_factory=list)  # operations a second
    ranks: tuple[dict[str, Any], ...] = ()


def timed_vit(blocks: int, limit_s: float) -> Timed:
    """Wall time of all blocks on one patch, less that of the products timed in between."""
    torch.manual_seed(SEED)
    network = ViTForImageClassification(ViTConfig(num_hidden_layers=blocks)).eval().requires_grad_(False)
    image = torch.randn(1, 3, 224, 224)
    left, right = torch.randn(12 * TOKENS, WIDTH), torch.randn(WIDTH, HIDDEN)
    steps = jacobian_ranks(network, image, [f"vit.layers.{number}" for number in range(blocks)], NetworkRankConfig())
    found, aside, started = Timed(), 0.0, time.perf_counter()
    while not found.ranks and found.seconds <= limit_s:
        try:
            event = next(steps)
            found.done = event.done / max(1, event.total)
            print(f"{event.done} of {event.total} directions, {found.seconds:.0f} s", flush=True)
        except StopIteration as stop:
            found.ranks, found.done = stop.value.rows, 1.0
        before = time.perf_counter()
        left @ right
        elapsed = time.perf_counter() - before
        found.rates.append(2 * left.shape[0] * WIDTH * HIDDEN / elapsed)
        aside += elapsed
        found.seconds = time.perf_counter() - started - aside
    return found


def vit_rows(blocks: int, limit_s: float) -> Iterator[Row]:
    """The time, that over the products', and the least rank."""
    load = os.getloadavg()[0]
    found = timed_vit(blocks, limit_s)
    rate = mean(found.rates)
    note = (
        f"{torch.get_num_threads()} threads, load {load:.1f} before and {os.getloadavg()[0]:.1f} after; float32 products ran at "
        f"{rate / 1e9:.0f} GFLOP per second meanwhile, at best at {max(found.rates) / 1e9:.0f}"
    )
    if not found.ranks:
        note = f"stopped after {found.done:.0%} of the directions and {found.seconds:.0f} s; {note}"
    yield row("rank.vit_b16_seconds", found.seconds if found.ranks else None, n=1 if found.ranks else None, note=note)
    part = "" if found.ranks else f"the first {found.done:.0%} of the directions, without the decomposition"
    ratio = found.seconds / (found.done * least_operations(blocks) / rate)
    yield row("rank.vit_b16_vs_products", ratio, n=1, note=part)
    ranks = [each["rank"] for each in found.ranks if each["rule"] == "published" and each["layer"] != "logits"]
    if ranks:
        by_block = ", ".join(f"{rank:.0f}" for rank in ranks)
        yield row("rank.vit_b16_least_rank", min(ranks), n=len(ranks), note=f"by block: {by_block}")


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


def digits_rows(config: RankConfig) -> Iterator[Row]:
    """Each specified curve beside the mean over seeds; the value is the largest difference in a layer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # matrices of 96 columns gain nothing from more
    found = [digits_curves(seed, config.samples) for seed in config.seeds]
    torch.set_num_threads(threads)
    numbers = {key: [one[1][key] for one in found] for key in found[0][1]}
    count, accuracy = len(found), mean(numbers["accuracy"])
    for name, specified in SPECIFIED.items():
        by_layer = list(zip(*(one[0][name] for one in found), strict=True))
        means = [mean(each) for each in by_layer]
        said = ", ".join(f"{m:.1f} ({min(v):.1f} to {max(v):.1f})" for m, v in zip(means, by_layer, strict=True))
        worst = max(abs(ours - theirs) for ours, theirs in zip(means, specified, strict=True))
        note = f"{', '.join(map(str, specified))}; here {said}; {count} seeds, accuracy {accuracy:.3f}"
        yield row(f"rank.digits_{name}_difference", worst, n=count, note=note)
    for name, dimension in DIMENSION.items():
        each = numbers[name]
        note = f"seeds {min(each):.0f} to {max(each):.0f}"
        yield row(f"rank.digits_dimension_{name}", mean(each), baseline=dimension, n=count, note=note)


def rows(bench: Bench[RankConfig, Any]) -> Iterator[Row]:
    """All claims."""
    yield from digits_rows(bench.config)
    yield from vit_rows(bench.config.blocks, bench.config.limit_s)


QUICK = RankConfig((SEED,), 500, 2)
BENCHMARKS = (
    Benchmark("network-rank", __doc__, RankConfig(), QUICK, CLAIMS, rows, seeds=RankConfig().seeds, threads=0),
)
