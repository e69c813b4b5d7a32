"""Locate on a model of Stable Diffusion 1.5's shape, random weights, no download: how much memory, in which phase.

    python benchmarks/sd15_shape.py            # 512 px, batch 1, 3 steps; writes benchmarks/results/sd15-shape.json
    python benchmarks/sd15_shape.py --quick    # the same path on a model of a few hundred thousand weights; prints only

The peak is of the process' resident memory, counted anew for every phase.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from ledger import Row, write_result
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from photopic.locate.concept_neurons import ConceptNeuronsConfig, locate
from photopic.models.text_to_image import TextToImage

LIMIT_GIB = 16
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Shape:
    """Sizes of the three networks; the defaults are those of Stable Diffusion 1.5's configuration files."""

    unet: dict[str, Any] = field(
        default_factory=lambda: {
            "sample_size": 64,
            "block_out_channels": (320, 640, 1280, 1280),
            "layers_per_block": 2,
            "cross_attention_dim": 768,
            "attention_head_dim": 8,
        }
    )
    vae: dict[str, Any] = field(
        default_factory=lambda: {
            "sample_size": 512,
            "block_out_channels": (128, 256, 512, 512),
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
            "layers_per_block": 2,
            "latent_channels": 4,
            "scaling_factor": 0.18215,
        }
    )
    text: dict[str, Any] = field(  # CLIP ViT-L/14
        default_factory=lambda: {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "max_position_embeddings": 77,
            "projection_dim": 768,
        }
    )
    vocabulary: int = 49408


TINY = Shape(
    unet={
        "sample_size": 16,
        "block_out_channels": (32, 32, 32, 32),
        "layers_per_block": 1,
        "cross_attention_dim": 32,
        "attention_head_dim": 8,
    },
    vae={
        "sample_size": 128,
        "block_out_channels": (8, 8, 8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 4,
    },
    text={
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 77,
        "projection_dim": 32,
    },
    vocabulary=1000,
)


def tokenizer(size: int, word: str) -> CLIPTokenizer:
    """A CLIP tokenizer of that many entries in which ``word`` is one; the rest is the alphabet and filler."""
    alphabet = sorted(ByteLevel.alphabet())
    pieces = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    merges = []
    head = word[0]
    for letter in [*word[1:-1], word[-1] + "</w>"]:
        merges.append((head, letter))
        head += letter
        pieces.append(head)
    pieces += [f"filler{index}</w>" for index in range(size - len(pieces) - 2)]
    ids = {piece: index for index, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=ids, merges=merges, model_max_length=77)


def build(shape: Shape, word: str) -> TextToImage:
    """A pipeline of that shape with random weights."""
    torch.manual_seed(0)
    words = tokenizer(shape.vocabulary, word)
    ids = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(**shape.vae),
        text_encoder=CLIPTextModel(CLIPTextConfig(vocab_size=len(words), **shape.text, **ids)),
        tokenizer=words,
        unet=UNet2DConditionModel(**shape.unet),
        scheduler=PNDMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return TextToImage(pipeline, "sd15-shape")


@contextmanager
def phase(name: str, peaks: dict[str, float]) -> Iterator[None]:
    """Put the peak of resident memory inside the block, in GiB, into ``peaks``."""
    if CLEAR.exists():
        CLEAR.write_text("5")  # Linux: begin a new high-water mark
    yield
    peaks[name] = max(peaks.get(name, 0.0), peak_gib())


def peak_gib() -> float:
    """Highest resident memory since the mark; since the process began where there is no mark."""
    if STATUS.exists():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def measure(shape: Shape, steps: int) -> tuple[dict[str, float], dict[str, float]]:
    """Peaks and durations by phase: build, prepare, every step of the search, the edit, applying it."""
    peaks: dict[str, float] = {}
    seconds: dict[str, float] = {}
    with phase("build", peaks):
        model = build(shape, "bear")
    size = model.image_size
    images = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    kept = (torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1, ["a bear", "a bear"])
    config = ConceptNeuronsConfig(steps=steps, batch=1, evaluation=0, density=0.01)  # few steps reach no threshold
    events = locate(model, images, noun="bear", config=config, preservation=kept)
    edit = None
    while edit is None:
        started = time.monotonic()
        with phase("next", peaks):
            event = next(events)
        name = f"step {event.step}" if event.stage == "locating" else event.stage
        peaks[name], seconds[name] = peaks.pop("next"), time.monotonic() - started
        print(f"{name}: peak {peaks[name]:.2f} GiB, {seconds[name]:.1f} s", flush=True)
        edit = event.edit
    print(f"build: peak {peaks['build']:.2f} GiB", flush=True)
    with phase("apply", peaks), model.edits.applied(edit), torch.no_grad():
        noisy = torch.zeros(1, 4, size // 8, size // 8)
        model.predict(noisy, torch.tensor([1]), model.encode_prompts("a <mine> bear"))
    return peaks, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description="Locate on a model of Stable Diffusion 1.5's shape.")
    parser.add_argument("--quick", action="store_true", help="a tiny model; prints and writes nothing")
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    started = time.monotonic()
    peaks, seconds = measure(TINY if options.quick else Shape(), options.steps)
    if options.quick:
        return
    note = (
        "float32, 512 px, batch 1, random weights; resident memory of the process; two preservation pictures given, "
        "not drawn; no evaluation of the guard"
    )
    target = f"<= {LIMIT_GIB}"
    rows = [Row("sd15_shape.peak", max(peaks.values()), unit="GiB", target=target, n=options.steps, note=note)]
    for name, peak in peaks.items():
        took = f"{seconds[name]:.1f} s" if name in seconds else ""
        rows.append(Row(f"sd15_shape.peak_{name.replace(' ', '_')}", peak, unit="GiB", note=took))
    command = f"python benchmarks/sd15_shape.py --steps {options.steps}"
    write_result("sd15-shape", rows, command=command, seeds=[0], elapsed_s=time.monotonic() - started)


if __name__ == "__main__":
    main()
