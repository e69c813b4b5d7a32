"""A LoRA file of another library read and put in force, against diffusers loading and fusing it.

    python -m benchmarks lora-files            # writes benchmarks/results/lora-files.json

The UNet has the shape of Stable Diffusion 1.x and weights of one value, which no time depends on; the files have factors of rank
96 and 200 in float16 for all layers of attention and its feed-forwards. Both sides have a pipeline of their own and are timed in
turn, in CPU seconds of one thread, after one round of warming up. diffusers: ``load_lora_weights`` and ``fuse_lora``, then
``unfuse_lora`` and ``unload_lora_weights``. Ours: ``import_lora`` and ``edits.load``, then ``edits.unload``, which gives the bytes
of the base again. Memory is how far the most resident memory while putting on lies above that before it: once as it is here, where
the base's bytes are kept in memory (diffusers keeps none and does not give them back), once as where memory is short.
"""

from __future__ import annotations

import ctypes
import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any
from unittest.mock import patch

import torch
from annotated_types import Ge
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.timing import median_ratio, side_by_side
from photopic.core.config import Config
from photopic.core.edits import overwritten
from photopic.edit.interop import import_lora
from photopic.models.text_to_image.handle import TextToImage
from tests.tiny import tiny_pipeline

SEED, TEXT_WIDTH, MIB = 0, 768, 1 << 20
RANKS = {"": 96, "_150mb": 200}  # by the ending of the claim; 72 MB have none
WIDTHS = (320, 640, 1280, 1280)
LAYERS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")
CLAIMS = (
    Claim("interop.import_vs_diffusers*", "<= 1.1", "SD 1.x in float32; one thread"),
    Claim("interop.unload_vs_diffusers*", "", "SD 1.x in float32; one thread"),
    Claim("interop.memory_vs_diffusers", "<= 1.5", "SD 1.x in float32; one thread"),
    Claim("interop.memory_vs_diffusers_150mb", "<= 1.5", "SD 1.x in float32; one thread"),
    Claim("interop.short_memory_vs_diffusers*", "<= 1.5", "the base's bytes in a file, as where memory is short"),
)
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class LoraFilesConfig(Config):
    """How much is measured."""

    rounds: Annotated[int, Ge(1)] = 5  # of both sides in turn
    share: Annotated[int, Ge(1)] = 1  # how many times narrower the UNet is


def pipeline(share: int) -> Any:
    """A tiny pipeline around a UNet of the shape of Stable Diffusion 1.x, a ``share``-th as wide."""
    widths, groups = tuple(width // share for width in WIDTHS), 32 if share == 1 else 16
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=widths, cross_attention_dim=TEXT_WIDTH // share, norm_num_groups=groups
        )
    unet.to_empty(device="cpu")
    for parameter in unet.parameters():
        parameter.detach().fill_(0.01)
    made = tiny_pipeline()
    made.register_modules(unet=unet.eval())
    return made


def write_lora(path: Path, unet: UNet2DConditionModel, rank: int) -> None:
    """Random factors for every layer of attention and feed-forward, in the naming of diffusers."""
    draw = torch.Generator().manual_seed(SEED)
    tensors: dict[str, Tensor] = {}
    for name, module in unet.named_modules():
        if name.endswith(LAYERS) and isinstance(module, torch.nn.Linear):
            out, inner = module.weight.shape
            tensors[f"unet.{name}.lora_A.weight"] = torch.randn(rank, inner, generator=draw).half()
            tensors[f"unet.{name}.lora_B.weight"] = torch.randn(out, rank, generator=draw).half()
    save_file(tensors, path)


def grown(task: Callable[[], object]) -> float:
    """By how many bytes the most resident memory of this process grew meanwhile; needs Linux."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before would otherwise be used again unseen
    CLEAR.write_text("5")  # the most resident memory begins anew
    before = _status("VmRSS")
    task()
    return _status("VmHWM") - before


def _status(field: str) -> float:
    line = next(each for each in STATUS.read_text().splitlines() if each.startswith(field))
    return 1024.0 * int(line.split()[1])


class Sides:
    """A file put on and taken off by this library and by diffusers, each with a pipeline of its own."""

    def __init__(self, path: Path, ours: TextToImage, theirs: Any):
        self.path, self.ours, self.theirs, self.names = path, ours, theirs, list[str]()
        ours.edits.fingerprint()  # known for a model that was loaded from its files

    def put_on(self) -> None:
        self.names.append(self.ours.edits.load(import_lora(self.path, self.ours)))

    def take_off(self) -> None:
        self.ours.edits.unload(self.names.pop())

    def fuse(self) -> None:
        self.theirs.load_lora_weights(self.path)
        self.theirs.fuse_lora()

    def unfuse(self) -> None:
        self.theirs.unfuse_lora()
        self.theirs.unload_lora_weights()

    def seconds(self, rounds: int) -> list[list[float]]:
        """CPU seconds of each round of the four."""
        calls = (self.put_on, self.take_off, self.fuse, self.unfuse)
        return side_by_side(calls, rounds, warm_up=1, clock=time.thread_time)

    def memory(self) -> tuple[float, float]:
        """Bytes that putting on needs beside what was resident, ours and theirs."""
        ours = grown(self.put_on)
        self.take_off()
        theirs = grown(self.fuse)
        self.unfuse()
        return ours, theirs


def rows(bench: Bench[LoraFilesConfig, Any]) -> Iterator[Row]:
    """The ratios, with the seconds and bytes in the notes."""
    share, rounds = bench.config.share, bench.config.rounds
    theirs, ours = pipeline(share), TextToImage(pipeline(share), "sd15-shape")
    with tempfile.TemporaryDirectory() as folder:
        for ending, rank in RANKS.items():
            path = Path(folder) / f"{rank}.safetensors"
            write_lora(path, theirs.unet, rank)
            sides, size = Sides(path, ours, theirs), path.stat().st_size / MIB
            on, off, fused, unfused = sides.seconds(rounds)
            for claim, mine, other in (("import", on, fused), ("unload", off, unfused)):
                note = f"LoRA of {size:.0f} MiB; {median(mine):.2f} s, diffusers {median(other):.2f} s"
                yield row(f"interop.{claim}_vs_diffusers{ending}", median_ratio(mine, other), n=rounds, note=note)
            if CLEAR.exists():
                for claim, short in (("memory", False), ("short_memory", True)):
                    with patch.object(overwritten, "belongs_in_a_file", lambda size, short=short: short):
                        own, peer = sides.memory()
                    note = f"LoRA of {size:.0f} MiB; {own / MIB:.2f} MiB, diffusers {peer / MIB:.2f} MiB"
                    yield row(f"interop.{claim}_vs_diffusers{ending}", own / peer, n=1, note=note)


BENCHMARKS = (Benchmark("lora-files", __doc__, LoraFilesConfig(), LoraFilesConfig(1, 10), CLAIMS, rows, seeds=(SEED,)),)
