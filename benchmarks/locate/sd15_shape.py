"""Locate on a model of Stable Diffusion 1.5's shape, random weights, no download: how much memory, in which phase.

    python -m benchmarks sd15-shape            # 512 px, batch 1, 3 steps; writes benchmarks/results/sd15-shape.json

The phases: build the model, draw one preservation picture, encode five references, every step of the search, the guard's
evaluation, one prediction and one whole picture with the edit. The peak is of the process' resident memory, counted anew for
every phase; what earlier phases left behind is part of it, as it is for a user.
"""

from __future__ import annotations

import gc
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from photopic.core.config import Config
from photopic.core.edits import Edit, ZeroedWeights
from photopic.data.captioned import CaptionedImages
from photopic.learning.losses.denoising import ConceptLoss, encode_examples
from photopic.locate.concept_neurons import ConceptNeuronsConfig, concept_neurons
from photopic.models.text_to_image.attention_weights import attention_weights, with_zeros
from photopic.models.text_to_image.handle import TextToImage

CLAIMS = (
    Claim("sd15_shape.peak", "<= 16", "float32, 512 px, random weights; resident memory of the process", "GiB"),
    Claim("sd15_shape.peak_*", unit="GiB"),
)
REFERENCES = 5  # pictures a user gives; the library encodes four of 512 px together
DRAWING_STEPS = 5  # of a picture: as many as fill the history of the scheduler
CHUNK = 32  # problems the guard's evaluation looks at together
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Shape:
    """Sizes of the three networks, as their configuration files say them."""

    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    text: Mapping[str, Any]
    vocabulary: int


def shape_of(*, tiny: bool) -> Shape:
    """That of Stable Diffusion 1.5, whose text encoder is that of CLIP ViT-L/14, or the same path of few weights."""
    unet = {"sample_size": 64, "block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2}
    vae = {"sample_size": 512, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4}
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    if tiny:
        unet |= {"sample_size": 16, "block_out_channels": (32,) * 4, "layers_per_block": 1}
        vae |= {"sample_size": 128, "block_out_channels": (8,) * 4, "layers_per_block": 1, "norm_num_groups": 4}
        text |= {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    width = text["hidden_size"]
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    return Shape(
        unet | {"cross_attention_dim": width, "attention_head_dim": 8},
        vae | blocks | {"scaling_factor": 0.18215},
        text | {"max_position_embeddings": 77, "projection_dim": width},
        1000 if tiny else 49408,
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


@dataclass(frozen=True)
class MemoryConfig(Config):
    """How much is measured."""

    steps: Annotated[int, Ge(1)] = 3  # of the search
    tiny: bool = False  # whether the model is a tiny one


def rows(bench: Bench[MemoryConfig, Any]) -> Iterator[Row]:
    """The peak of all phases, then each."""
    phases = measure(shape_of(tiny=bench.config.tiny), bench.config.steps)
    peak, largest = max((peak, name) for name, peak in phases.peaks.items())
    note = (
        f"largest in phase {largest!r}; one picture drawn, {REFERENCES} encoded, one a step of the search, {CHUNK} problems a look "
        "of the guard"
    )
    yield row("sd15_shape.peak", peak, n=bench.config.steps, note=note)
    for name, peak in phases.peaks.items():
        yield row(f"sd15_shape.peak_{name.replace(' ', '_')}", peak, note=f"{phases.seconds[name]:.1f} s")


BENCHMARKS = (Benchmark("sd15-shape", __doc__, MemoryConfig(), MemoryConfig(2, True), CLAIMS, rows, threads=0),)
