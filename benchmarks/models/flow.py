"""What photopic costs beside diffusers on a transformer pipeline: drawing without controls, and a branch beside 8-bit weights.

    python -m benchmarks flow-costs          # writes benchmarks/results/flow-costs.json
    python -m benchmarks flow-costs --quick  # the same path on a network of a few thousand weights; prints only

The transformer is Flux's with random weights, a double and a single block; text encoders and VAE are tiny. Drawing: photopic's loop
and the stock pipeline's call in turns, after one of each. The branch: each matrix of text keys and values kept in 8-bit floats and
cast as it is used, a forward pass without an edit and with one that shuts the given share of their entries, in turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from photopic.core.config import Config
from photopic.core.edits import Edit, ZeroedWeights
from photopic.models.text_to_image.attention_weights import attention_weights, random_positions
from photopic.models.text_to_image.latents import latent_shape
from photopic.models.text_to_image.transformer_drawing import call_arguments
from photopic.models.text_to_image.transformer_handle import TransformerTextToImage
from tests.tiny_transformers import PROMPTS, TINY, tiny_transformer_pipeline

CLAIMS = (
    Claim(
        "generate.time_vs_stock",
        "<= 1.03",
        "processor time of generate over the stock pipeline's call, medians of turns",
    ),
    Claim(
        "quantised.branch_cost",
        "<= 0.1",
        "extra processor time of a forward pass with a branch at the given density, as a share",
    ),
)


@dataclass(frozen=True)
class FlowCostsConfig(Config):
    """The network and how often it is timed."""

    heads: Annotated[int, Ge(1)] = 8  # of 128 channels each
    size: Annotated[int, Ge(16)] = 64  # side of the pictures in pixels; a token is 4x4 of them
    steps: Annotated[int, Ge(2)] = 4  # of drawing
    rounds: Annotated[int, Ge(1)] = 7  # turns of each kind
    density: Annotated[float, Gt(0), Le(1)] = 0.01  # share of the entries that are shut


def model_of(config: FlowCostsConfig) -> TransformerTextToImage:
    """A Flux pipeline with a transformer of that width."""
    from diffusers import FluxTransformer2DModel

    pipeline = tiny_transformer_pipeline("FluxPipeline")
    wide = {"attention_head_dim": 128, "num_attention_heads": config.heads, "axes_dims_rope": (16, 56, 56)}
    torch.manual_seed(0)
    pipeline.register_modules(transformer=FluxTransformer2DModel(**dict(TINY["FluxPipeline"].config) | wide).eval())
    model = TransformerTextToImage(pipeline, "flux-shaped")
    model.image_size = config.size
    return model


def in_turns(first: Callable[[], Any], second: Callable[[], Any], rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of each, one after the other, so that both meet the same state of the machine; the first of each is thrown away."""
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 1):
        for seconds, what in zip(found, (first, second), strict=True):
            started = time.process_time()
            what()
            seconds.append(time.process_time() - started)
    return found[0][1:], found[1][1:]


def drawing(model: TransformerTextToImage, config: FlowCostsConfig) -> tuple[list[float], list[float]]:
    """Seconds of a picture by photopic, and by the stock pipeline."""
    arguments = call_arguments(
        model.pipeline, model.family, PROMPTS[:1], (config.size,) * 2, guidance=3.5, steps=config.steps
    )

    def stock() -> None:
        model.pipeline(**arguments | {"generator": [torch.Generator().manual_seed(0)], "output_type": "np"})

    return in_turns(
        lambda: model.generate(PROMPTS[:1], seeds=[0], steps=config.steps, guidance=3.5), stock, config.rounds
    )


@torch.no_grad()
def branch(model: TransformerTextToImage, config: FlowCostsConfig) -> tuple[list[float], list[float]]:
    """Seconds of a forward pass with a branch beside 8-bit weights, and without."""
    model.network.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    weights = attention_weights(model)
    counts = {name: torch.arange(int(config.density * weight.numel())) for name, weight in weights.items()}
    edit = Edit((ZeroedWeights(random_positions(counts, weights, seed=0)),), model.fingerprint(*weights), {})
    said = model.encode_prompts(PROMPTS[:1])
    latents = torch.randn(1, *latent_shape(model.pipeline, model.family, config.size, config.size))

    def call() -> float:
        started = time.process_time()
        model.predict(latents, torch.tensor([500]), said)
        return time.process_time() - started

    plain, beside = [], []
    for _ in range(config.rounds + 1):
        plain.append(call())
        with model.edits.applied(edit):  # putting it there is no part of the pass
            beside.append(call())
    return beside[1:], plain[1:]


def rows(bench: Bench[FlowCostsConfig, Any]) -> Iterator[Row]:
    """Medians of ratios within a turn."""
    model, config = model_of(bench.config), bench.config
    for claim, measured, offset in (("generate.time_vs_stock", drawing, 0.0), ("quantised.branch_cost", branch, 1.0)):
        ours, theirs = measured(model, config)
        ratios = sorted(a / b - offset for a, b in zip(ours, theirs, strict=True))
        note = f"{statistics.median(ours):.3f} s beside {statistics.median(theirs):.3f} s"
        note += f", lowest {ratios[0]:.3f}, highest {ratios[-1]:.3f}"
        yield row(claim, statistics.median(ratios), n=len(ratios), note=note)


BENCHMARKS = (
    Benchmark(
        "flow-costs", __doc__, FlowCostsConfig(), FlowCostsConfig(heads=1, size=16, steps=2, rounds=2), CLAIMS, rows
    ),
)
