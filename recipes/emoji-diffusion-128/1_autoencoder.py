"""Stage 1: an AutoencoderKL from 128x128 pixels to 16x16x16 latents.

    python recipes/emoji-diffusion-128/1_autoencoder.py --steps 20000     # resumes from runs/emoji-diffusion-128/autoencoder
    python recipes/emoji-diffusion-128/1_autoencoder.py --start landed    # a new run from the committed checkpoint
    python recipes/emoji-diffusion-128/1_autoencoder.py --land            # write that checkpoint: the moving average, halved

The rate is constant and falls to zero over the last --cooldown steps before --steps; until then --steps may be changed.
Loss: mean absolute and squared error and the absolute error of finite differences, pixels of objects weighing more, and a small
KL term.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import LANDED, RUNS, all_scenes, known_scenes, scenes_of_four
from diffusers import AutoencoderKL
from torch import Tensor

from photopic.core.numerics.muon import muon_and_adamw
from photopic.core.runs import Run, write_atomically
from photopic.data.scenes import Scene, SceneOptions, sample_scene

from _common import autoencoder
from _common.pictures import pixels, save_sheet
from _common.training import BFLOAT16, Training, trained


@dataclass(frozen=True)
class Config:
    batch: int = 16  # scenes of one thing at 64 px a step: half of everything, half of what the denoiser will draw
    large: int = 4  # every so many steps see a quarter as many scenes of 128 px instead
    lr: float = 2e-3
    warmup: int = 50
    kl: float = 5e-4  # weight of the KL term per latent entry
    edges: float = 0.5  # weight of the finite-difference term
    objects: float = 2.0  # weight of a pixel of an object; of the background 1
    ema: float = 0.999
    channels: tuple[int, ...] = (16, 32, 96, 160)
    latent_channels: int = 16
    start: str = "random"  # first weights: random, or landed (the committed checkpoint)
    seed: int = 0


def build(config: Config) -> AutoencoderKL:
    if config.start == "random":
        return autoencoder.build(config.channels, config.latent_channels, 128, config.seed)
    model = AutoencoderKL.from_pretrained(LANDED / "vae")
    return model.to(memory_format=torch.channels_last)


def scenes_of(config: Config, step: int) -> list[Scene]:
    """The scenes of a step: the same whenever it is asked."""
    drawn: dict[str, Any] = {"size": 64, "objects": (1.0, 0.0, 0.0, 0.0)}
    batch = config.batch
    if step % config.large == config.large - 1:
        drawn, batch = {}, config.batch // 4
    half = batch // 2
    scenes = [sample_scene(all_scenes(**drawn), (config.seed, 1, step, item)) for item in range(half)]
    return scenes + [sample_scene(known_scenes(**drawn), (config.seed, 2, step, item)) for item in range(batch - half)]


def object_pixels(scenes: list[Scene]) -> Tensor:
    """Where any object is: (scenes, 1, size, size)."""
    return torch.from_numpy(np.stack([scene.masks.any(0) for scene in scenes]))[:, None]


def share_of_rate(config: Config, step: int, until: int, cooldown: int) -> float:
    return min(1.0, (step + 1) / config.warmup, (until - step) / cooldown)


@torch.no_grad()
def rebuilt(model: AutoencoderKL, images: Tensor) -> Tensor:
    """Pictures through the mean of their latents and back."""
    parts = [model.decode(model.encode(part).latent_dist.mean).sample for part in images.split(8)]
    return torch.cat(parts).clamp(-1, 1)


def psnr(model: AutoencoderKL, options: SceneOptions, scenes: int) -> tuple[float, float]:
    """Decibels over all pixels of unseen scenes, and over those of their objects."""
    drawn = [sample_scene(options, (99, index)) for index in range(scenes)]
    images = pixels(drawn).to(model.device)
    squared = ((rebuilt(model, images) - images) / 2).square().mean(1, keepdim=True)  # pixels in 0 to 1
    inside = squared[object_pixels(drawn).to(model.device)].mean()
    return -10 * math.log10(squared.mean()), -10 * math.log10(inside)


def evaluate(model: AutoencoderKL, scenes: int = 32) -> dict[str, float]:
    """PSNR on scenes of four known and of four held-out concepts, and on scenes of one known thing at 64 px."""
    known, known_objects = psnr(model, scenes_of_four(), scenes)
    _, held_out_objects = psnr(model, scenes_of_four("held_out"), scenes // 2)
    one = replace(scenes_of_four(size=64), objects=(1.0, 0.0, 0.0, 0.0))
    _, small_objects = psnr(model, one, scenes)
    found = {"psnr": known, "objects": known_objects, "held_out_objects": held_out_objects}
    return {name: round(value, 2) for name, value in (found | {"small_objects": small_objects}).items()}


def train(
    config: Config, run: Run, device: str, until: int, cooldown: int, bfloat16: bool = False, seconds: float = 300
) -> None:
    """Go on until a number of steps; saves every so many seconds and judges the moving average half as often."""
    model = build(config).to(device)
    optimizers = muon_and_adamw(model, config.lr, autoencoder.ENDS, bfloat16=bfloat16)
    training = Training(run, model, optimizers, config.ema)
    averaged, judged = build(config).to(device), time.monotonic()
    for step in training.steps(until, seconds=seconds):
        scenes = scenes_of(config, step)
        images = pixels(scenes).to(device, memory_format=torch.channels_last)
        weight = 1 + (config.objects - 1) * object_pixels(scenes).float().to(device)
        seed = config.seed * 1_000_003 + step
        with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            loss, kl, _ = autoencoder.losses(model, images, weight, edges=config.edges, seed=seed)
        training.update(loss + config.kl * kl, share_of_rate(config, step, until, cooldown))
        training.log(20, loss=loss.item(), kl=kl.item())
        if time.monotonic() - judged > 2 * seconds or step + 1 == until:
            averaged.load_state_dict(training.average)
            training.note(**evaluate(averaged))
            judged = time.monotonic()


@torch.no_grad()
def land(config: Config, run: Run, folder: Path) -> None:
    """Write the moving average for diffusers, in half precision, what it reaches, and a sheet to look at."""
    weights, state = trained(run)
    model = build(config)
    model.load_state_dict(weights)
    known = pixels([sample_scene(known_scenes(), (98, index)) for index in range(128)])
    state["scaling_factor"] = autoencoder.write(model, known, folder / "vae")  # the weights are rounded from here on
    report = state | {"config": asdict(config), "reached": evaluate(model)}
    write_atomically(folder / "autoencoder.json", (json.dumps(report, indent=1, sort_keys=True) + "\n").encode())
    rows = []
    for split in ("known", "held_out"):
        images = pixels([sample_scene(scenes_of_four(split), (99, index)) for index in range(5)])
        rows += [images, rebuilt(model, images)]
    save_sheet(rows, folder / "autoencoder.png")
    print(json.dumps(report))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000, help="steps in all")
    parser.add_argument("--cooldown", type=int, default=1_000, help="last steps, over which the rate falls to zero")
    parser.add_argument(
        "--start", choices=("random", "landed"), default=Config.start, help="first weights of a new run"
    )
    parser.add_argument("--seed", type=int, default=Config.seed)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bfloat16", action="store_true", help=BFLOAT16)
    parser.add_argument("--run", type=Path, default=RUNS / "autoencoder", help="run folder")
    parser.add_argument("--land", action="store_true", help="write the run's moving average to checkpoint/ and stop")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = replace(Config(), start=arguments.start, seed=arguments.seed)
    run = Run(arguments.run, asdict(config))
    if arguments.land:
        land(config, run, LANDED)
    else:
        train(config, run, arguments.device, arguments.steps, arguments.cooldown, arguments.bfloat16)


if __name__ == "__main__":
    main()
