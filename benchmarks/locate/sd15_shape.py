"""Locate on a model of Stable Diffusion 1.5's shape under a memory budget, random weights, no download; a LoRA beside it.

    python -m benchmarks sd15-shape            # 512 px, batch 1, 2 steps; writes benchmarks/results/sd15-shape.json
    python -m benchmarks sd15-shape --quick    # the same path on a model of a few hundred thousand weights; prints only

The phases: build the model, encode the references and choose what fits, every step of the search, the guard's evaluation, and
one whole picture with the edit. The peak is of the process' resident memory, counted anew for every phase; what earlier phases
left behind is part of it, as it is for a user. LoRA r=4 takes steps on as many pictures of the same size in a process of its
own, as diffusers' script does by default: encoders kept, nothing computed twice.
"""

from __future__ import annotations

import gc
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from photopic.core.config import Config
from photopic.core.edits import Edit
from photopic.data.captioned import CaptionedImages
from photopic.learning.losses.denoising import ConceptLoss, Limits, encode_examples
from photopic.locate.concept_neurons import ConceptNeuronsConfig, concept_neurons
from photopic.models.text_to_image.handle import TextToImage

CLAIMS = (
    Claim(
        "sd15_shape.peak",
        "<= 6",
        "--memory 6GiB; float32, 512 px, random weights; resident memory of the process",
        "GiB",
    ),
    Claim("sd15_shape.peak_vs_lora", "<= 0.8", "over LoRA r=4 on as many pictures a step, without a budget"),
    Claim("sd15_shape.peak_*", unit="GiB"),
)
REFERENCES = 2  # pictures a user gives: more are encoded one after the other and take no more memory
PROBLEMS = 1  # of each part of the guard's evaluation, for the same reason
DRAWING_STEPS = 2  # of a picture; the VAE afterwards takes more
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
        """Give a phase the name that is known only afterwards; to one of several parts belong its highest peak and all seconds."""
        self.peaks[new] = max(self.peaks.pop(old), self.peaks.get(new, 0.0))
        self.seconds[new] = self.seconds.pop(old) + self.seconds.get(new, 0.0)


def peak_gib() -> float:
    """Highest resident memory since the mark; since the process began where there is no mark."""
    if STATUS.exists():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def measure(shape: Shape, steps: int, budget: str) -> Phases:
    """Go through all phases in the order a user does."""
    phases = Phases()
    with phases.measured("build"):
        model = build(shape, "bear")
    edit = search(model, steps, budget, phases)
    with phases.measured("generate"), model.edits.applied(edit):
        model.generate("a <mine> bear", seeds=[0], steps=DRAWING_STEPS)
    return phases


def search(model: TextToImage, steps: int, budget: str, phases: Phases) -> Edit:
    """Locate under the budget, each event a phase of its own."""
    config = ConceptNeuronsConfig(
        steps=steps, batch=1, evaluation=PROBLEMS, controls=1, density=0.01, memory=budget  # few steps reach no threshold
    )  # fmt: skip
    preserved = CaptionedImages(noise_pictures(model, 1, seed=1), ["a bear"])
    images = CaptionedImages(noise_pictures(model, REFERENCES, seed=0))
    events = concept_neurons.events(model, images, noun="bear", preserved=preserved, config=config)
    edit = None
    while edit is None:
        with phases.measured("next"):
            event = next(events)
        name = f"step {event.done}" if event.done else "preparing"  # until the loop says that it begins
        phases.rename("next", name if event.stage == "locating" else event.stage)
        edit = event.result
    return edit


def lora_peak(shape: Shape, steps: int) -> float:
    """Peak in GiB of LoRA r=4 on as many pictures a step as the search takes; to be called in a process of its own."""
    from peft import LoraConfig, get_peft_model

    phases = Phases()
    with phases.measured("lora"):
        model = build(shape, "bear")
        concept, prior = (
            encode_examples(model, noise_pictures(model, count, seed), ["a bear"] * count, Limits(pixels=1))
            for count, seed in ((REFERENCES, 0), (1, 1))
        )
        loss = ConceptLoss(model, concept, concept, prior, batch=1)
        config = LoraConfig(r=4, lora_alpha=4, target_modules=["to_k", "to_q", "to_v", "to_out.0"])
        adapted = get_peft_model(model.unet, config)
        optimizer = torch.optim.AdamW([each for each in adapted.parameters() if each.requires_grad], lr=1e-4)
        for step in range(steps):
            optimizer.zero_grad(set_to_none=True)
            loss.step(step, {}).total.backward()
            optimizer.step()
    return phases.peaks["lora"]


def apart(call: Callable[..., float], *arguments: object) -> float:
    """What a call gives in a fresh process, so that its peak is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(call, *arguments).result()


def noise_pictures(model: TextToImage, count: int, seed: int) -> torch.Tensor:
    """Pictures of nothing, as large as the model's."""
    size = model.image_size
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@dataclass(frozen=True)
class MemoryConfig(Config):
    """How much is measured."""

    steps: Annotated[int, Ge(1)] = 2  # of the search and of the LoRA
    memory: str = "6GiB"  # budget of the search
    tiny: bool = False  # whether the model is a tiny one


def rows(bench: Bench[MemoryConfig, Any]) -> Iterator[Row]:
    """The peak of all phases, beside LoRA's, then each."""
    steps, shape = bench.config.steps, shape_of(tiny=bench.config.tiny)
    lora = apart(lora_peak, shape, steps)
    phases = measure(shape, steps, bench.config.memory)
    peak, largest = max((peak, name) for name, peak in phases.peaks.items())
    note = f"largest in phase {largest!r}; {REFERENCES} pictures, one and one to preserve a step of the search"
    yield row("sd15_shape.peak", peak, baseline=lora, n=steps, note=note)
    yield row("sd15_shape.peak_vs_lora", peak / lora, n=steps, note=f"LoRA {lora:.2f} GiB")
    for name, peak in phases.peaks.items():
        yield row(f"sd15_shape.peak_{name.replace(' ', '_')}", peak, note=f"{phases.seconds[name]:.1f} s")


QUICK = MemoryConfig(steps=2, memory="64GiB", tiny=True)
BENCHMARKS = (Benchmark("sd15-shape", __doc__, MemoryConfig(), QUICK, CLAIMS, rows, threads=0),)
