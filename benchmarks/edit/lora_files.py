"""A LoRA file of another library read and put in force, against diffusers loading and fusing it.

    python -m benchmarks.edit.lora_files            # writes benchmarks/results/lora-files.json
    python -m benchmarks.edit.lora_files --quick    # one round on a UNet of a tenth of the width, prints only

The UNet has the shape of Stable Diffusion 1.x and weights of one value, which no time depends on; the files have factors of rank
96 and 200 in float16 for all layers of attention and its feed-forwards. Both sides have a pipeline of their own and are timed in
turn, in CPU seconds of one thread, after one round of warming up. diffusers: ``load_lora_weights`` and ``fuse_lora``, then
``unfuse_lora`` and ``unload_lora_weights``. Ours: ``import_lora`` and ``edits.load``, then ``edits.unload``, which gives the bytes
of the base again. Memory is how far the most resident memory while putting on lies above that before it.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.harness.ledger import Row, write_result
from photopic.edit.interop import import_lora
from photopic.models.text_to_image.handle import TextToImage
from tests.tiny import tiny_pipeline

SEED, TEXT_WIDTH, MIB = 0, 768, 1 << 20
RANKS = {"": 96, "_150mb": 200}  # by the ending of the claim; 72 MB have none
WIDTHS = (320, 640, 1280, 1280)
LAYERS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")
TARGETS = {"import": "<= 1.1", "unload": None, "memory": "<= 1.5"}
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


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


def seconds(task: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of this thread, and what came of it."""
    started = time.thread_time()
    found = task()
    return time.thread_time() - started, found


def grown(task: Callable[[], Any]) -> tuple[float, Any]:
    """By how many bytes the most resident memory of this process grew meanwhile; needs Linux."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before would otherwise be used again unseen
    CLEAR.write_text("5")  # the most resident memory begins anew
    before = _status("VmRSS")
    found = task()
    return _status("VmHWM") - before, found


def _status(field: str) -> float:
    line = next(each for each in STATUS.read_text().splitlines() if each.startswith(field))
    return 1024.0 * int(line.split()[1])


def compare(path: Path, ours: TextToImage, theirs: Any, rounds: int) -> dict[str, list[float]]:
    """Seconds of each side in each round, putting on and taking off."""
    measured: dict[str, list[float]] = {
        name: [] for name in ("on", "off", "their on", "their off", "bytes", "their bytes")
    }

    def put_on() -> str:
        return ours.edits.load(import_lora(path, ours))

    def fuse() -> None:
        theirs.load_lora_weights(path)
        theirs.fuse_lora()

    def unfuse() -> None:
        theirs.unfuse_lora()
        theirs.unload_lora_weights()

    ours.edits.fingerprint()  # known for a model that was loaded from its files
    for number in range(rounds + 1):
        on, name = seconds(put_on)
        off, _ = seconds(partial(ours.edits.unload, name))
        found = {"on": on, "off": off, "their on": seconds(fuse)[0], "their off": seconds(unfuse)[0]}
        for key, value in found.items() if number else ():
            measured[key].append(value)
    if CLEAR.exists():
        measured["bytes"], name = map(list, zip(grown(put_on), strict=True))
        ours.edits.unload(*name)
        measured["their bytes"] = [grown(fuse)[0]]
        unfuse()
    return measured


def rows_of(measured: dict[str, list[float]], size: int, ending: str) -> list[Row]:
    """The ratios, with the seconds and bytes in the notes."""
    found = []
    for claim, mine, other in (
        ("import", "on", "their on"),
        ("unload", "off", "their off"),
        ("memory", "bytes", "their bytes"),
    ):
        if not measured[mine]:
            continue
        ratios = [a / b for a, b in zip(measured[mine], measured[other], strict=True)]
        unit, scale = ("MiB", MIB) if claim == "memory" else ("s", 1)
        values = f"{median(measured[mine]) / scale:.2f} {unit}, diffusers {median(measured[other]) / scale:.2f} {unit}"
        single = len(ratios) == 1
        row = Row(
            f"interop.{claim}_vs_diffusers{ending}",
            median(ratios),
            None if single else min(ratios),
            None if single else max(ratios),
            target=TARGETS[claim],
            n=len(ratios),
            note=f"LoRA of {size / MIB:.0f} MiB, SD 1.x in float32; one thread; {values}; the interval is the range",
        )
        found.append(row)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="LoRA files read and put in force, against diffusers.")
    parser.add_argument("--quick", action="store_true", help="one round on a narrow UNet; prints and writes nothing")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    started = time.monotonic()
    torch.set_num_threads(1)
    share = 10 if options.quick else 1
    rows, theirs, ours = [], pipeline(share), TextToImage(pipeline(share), "sd15-shape")
    with tempfile.TemporaryDirectory() as folder:
        for ending, rank in RANKS.items():
            path = Path(folder) / f"{rank}.safetensors"
            write_lora(path, theirs.unet, rank)
            measured = compare(path, ours, theirs, 1 if options.quick else options.rounds)
            rows += rows_of(measured, path.stat().st_size, ending)
    for each in rows:
        print(f"{each.claim:32} {each.value:.2f}  {each.note}")
    if not options.quick:
        command = f"python -m benchmarks.edit.lora_files --rounds {options.rounds}"
        write_result("lora-files", rows, command=command, seeds=[SEED], elapsed_s=time.monotonic() - started)


if __name__ == "__main__":
    main()
