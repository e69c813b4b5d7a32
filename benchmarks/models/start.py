"""How long a command that draws is busy importing before it does anything: CPU seconds of a fresh process, medians.

    python -m benchmarks start      # writes benchmarks/results/start.json

Counted is the Python process up to the classes of a Stable Diffusion pipeline, with the settings of ``photopic generate``; loading
weights is left out. Beside it, in turns: the same with Python's own garbage collection, and what is under it: torch alone, torch
with the compiler that ``diffusers.utils`` imports, and the classes of the pipeline from their own modules without this library.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from photopic.core.config import Config

CLAIMS = (
    Claim("start.generate_imports", "<= 3", "CPU seconds of imports before the first step of a generate", "s"),
    Claim("start.imports.*", "", "CPU seconds of a process that imports this alone", "s"),
)
DRAWING = "import photopic.models.text_to_image.handle; from diffusers import AutoencoderKL, StableDiffusionPipeline"
COLLECT_LATE = "import gc; from photopic.cli.main import COLLECT_AFTER; gc.set_threshold(COLLECT_AFTER)"
PIPELINE = (
    "from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline; "
    "from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel; "
    "from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL; "
    "from transformers.models.clip.modeling_clip import CLIPTextModel"
)
PROCESSES = {
    "generate": f"{COLLECT_LATE}; {DRAWING}",
    "usual_garbage": DRAWING,
    "torch": "import torch",
    "compiler": "import torch._dynamo",
    "pipeline": f"{COLLECT_LATE}; {PIPELINE}",
}
CLOCK = "; import time; print(time.process_time())"


@dataclass(frozen=True)
class StartConfig(Config):
    """How much is measured."""

    rounds: Annotated[int, Ge(1)] = 3  # processes of each kind


def seconds_of(code: str) -> float:
    """CPU seconds of a process from its start to the end of the code, on one thread."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", code + CLOCK]
    return float(
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()[-1]
    )


def rows(bench: Bench[StartConfig, Any]) -> Iterator[Row]:
    """Medians; the kinds in turns, so that all meet the same state of the machine."""
    rounds = [{name: seconds_of(code) for name, code in PROCESSES.items()} for _ in range(bench.config.rounds)]
    found = {name: statistics.median(each[name] for each in rounds) for name in PROCESSES}
    note = ", ".join(f"{name} {seconds:.2f}" for name, seconds in found.items())
    yield row("start.generate_imports", found["generate"], baseline=found["usual_garbage"], n=len(rounds), note=note)
    for name in ("torch", "compiler", "pipeline"):
        yield row(f"start.imports.{name}", found[name], n=len(rounds))


BENCHMARKS = (Benchmark("start", __doc__, StartConfig(), StartConfig(rounds=1), CLAIMS, rows),)
