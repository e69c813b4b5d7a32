"""Locate on a model of Stable Diffusion 1.5's shape, random weights, no download: how much memory, in which phase.

    python -m benchmarks.locate.sd15_shape            # 512 px, batch 1, 3 steps; writes benchmarks/results/sd15-shape.json
    python -m benchmarks.locate.sd15_shape --tiny     # the same path on a model of a few hundred thousand weights; prints only

The phases: build the model, draw one preservation picture, encode five references, every step of the search, the guard's
evaluation, one prediction and one whole picture with the edit. The peak is of the process' resident memory, counted anew for
every phase; what earlier phases left behind is part of it, as it is for a user.
"""

from __future__ import annotations

import argparse
import gc
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
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from benchmarks.harness.ledger import Row, write_result
from photopic.core.edits import Edit, ZeroedWeights
from photopic.data.captioned import CaptionedImages
from photopic.learning.losses.denoising import ConceptLoss, encode_examples
from photopic.locate.concept_neurons import ConceptNeuronsConfig, concept_neurons
from photopic.models.text_to_image.attention_weights import attention_weights, with_zeros
from photopic.models.text_to_image.handle import TextToImage

LIMIT_GIB = 16
REFERENCES = 5  # pictures a user gives; the library encodes four of 512 px together
DRAWING_STEPS = 5  # of a picture: as many as fill the history of the scheduler
CHUNK = 32  # problems the guard's evaluation looks at together
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


@dataclass
class Phases:
    """Highest resident memory in GiB, and seconds, by phase."""

    peaks: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measured(self, name: str) -> Iterator[None]:
        """Measure the block."""
        gc.collect()
        if CLEAR.exists():
            CLEAR.write_text("5")  # Linux: begin a new high-water mark
        began = time.monotonic()
        yield
        self.peaks[name], self.seconds[name] = peak_gib(), time.monotonic() - began

    def rename(self, old: str, new: str) -> None:
        """Give a phase the name that is known only afterwards."""
        self.peaks[new], self.seconds[new] = self.peaks.pop(old), self.seconds.pop(old)


def peak_gib() -> float:
    """Highest resident memory since the mark; since the process began where there is no mark."""
    if STATUS.exists():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def measure(shape: Shape, steps: int) -> Phases:
    """Go through all phases in the order a user does."""
    phases = Phases()
    with phases.measured("build"):
        model = build(shape, "bear")
    with phases.measured("draw"):
        model.generate("a bear", seeds=[0], steps=DRAWING_STEPS)
    images, kept = noise_pictures(model, 1, seed=0), noise_pictures(model, 2, seed=1)
    with phases.measured("encode"):
        encode_examples(model, noise_pictures(model, REFERENCES, seed=2), ["a bear"] * REFERENCES)
    edit = search(model, images, kept, steps, phases)
    with phases.measured("evaluate"):
        evaluate(model, images, kept, edit)
    with phases.measured("apply"), model.edits.applied(edit), torch.no_grad():
        noisy = torch.zeros(1, 4, model.image_size // 8, model.image_size // 8)
        model.predict(noisy, torch.tensor([1]), model.encode_prompts("a <mine> bear"))
    with phases.measured("generate"), model.edits.applied(edit):
        model.generate("a <mine> bear", seeds=[0], steps=DRAWING_STEPS)
    return phases


def search(model: TextToImage, images: torch.Tensor, kept: torch.Tensor, steps: int, phases: Phases) -> Edit:
    """Locate without the guard, each event a phase of its own."""
    config = ConceptNeuronsConfig(steps=steps, batch=1, evaluation=0, density=0.01)  # few steps reach no threshold
    preserved = CaptionedImages(kept, ["a bear"] * len(kept))
    events = concept_neurons.events(model, CaptionedImages(images), noun="bear", preserved=preserved, config=config)
    edit = None
    while edit is None:
        with phases.measured("next"):
            event = next(events)
            while event.stage == "evaluating":  # part of the end
                event = next(events)
        name = f"step {event.done}" if event.done else "preparing"  # until the loop says that it begins
        phases.rename("next", name if event.stage == "locating" else event.stage)
        edit = event.result
    return edit


def evaluate(model: TextToImage, images: torch.Tensor, kept: torch.Tensor, edit: Edit) -> float:
    """One full chunk of what the guard evaluates with the located weights shut; more chunks follow one by one."""
    concept, prior = encode_examples(model, images, ["a bear"]), encode_examples(model, kept, ["a bear"] * len(kept))
    shut = next(part for part in edit.parts if isinstance(part, ZeroedWeights)).indices
    weights = with_zeros(attention_weights(model), shut)
    return ConceptLoss(model, concept, concept, prior).evaluate_concept(weights, CHUNK)


def noise_pictures(model: TextToImage, count: int, seed: int) -> torch.Tensor:
    """Pictures of nothing, as large as the model's."""
    size = model.image_size
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def rows_of(phases: Phases, steps: int) -> list[Row]:
    """The peak of all phases, then each."""
    peak, largest = max((peak, name) for name, peak in phases.peaks.items())
    note = (
        f"float32, 512 px, random weights; resident memory of the process, largest in phase {largest!r}; "
        f"one picture drawn, {REFERENCES} encoded, one a step of the search, {CHUNK} problems a look of the guard"
    )
    rows = [Row("sd15_shape.peak", peak, unit="GiB", target=f"<= {LIMIT_GIB}", n=steps, note=note)]
    for name, peak in phases.peaks.items():
        claim = f"sd15_shape.peak_{name.replace(' ', '_')}"
        rows.append(Row(claim, peak, unit="GiB", note=f"{phases.seconds[name]:.1f} s"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Locate on a model of Stable Diffusion 1.5's shape.")
    parser.add_argument("--tiny", "--quick", action="store_true", help="a tiny model; prints and writes nothing")
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    started = time.monotonic()
    rows = rows_of(measure(TINY if options.tiny else Shape(), options.steps), options.steps)
    for row in rows:
        print(f"{row.claim:28} {row.value:.2f} GiB  {row.note}")
    if options.tiny:
        return
    command = f"python -m benchmarks.locate.sd15_shape --steps {options.steps}"
    write_result("sd15-shape", rows, command=command, seeds=[0], elapsed_s=time.monotonic() - started)


if __name__ == "__main__":
    main()
