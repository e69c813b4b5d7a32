"""Stage 1: an AutoencoderKL from 64x64 pixels to 16x16x4 latents.

    python recipes/emoji-diffusion/1_autoencoder.py            # resumes from runs/emoji-diffusion/autoencoder

Loss: mean absolute and squared error, plus the absolute error of finite differences for sharp edges, plus a small KL term.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import torch
from common import ALL_TRAINING_SCENES, KNOWN_SCENES, MODEL, RUNS

from photopic.core.numerics.muon import muon_and_adamw
from photopic.core.runs import Run

from _common import autoencoder
from _common.pictures import batches, pixels
from _common.training import Training


@dataclass(frozen=True)
class Config:
    steps: int = 700
    batch: int = 12  # half scenes of everything, half of what the diffusion model will draw
    lr: float = 3e-3  # peak; linear warm-up of 50 steps, then cosine to zero
    kl: float = 2e-5  # weight of the KL term, times 100, per latent entry
    edges: float = 0.5  # weight of the finite-difference term
    channels: tuple[int, ...] = (16, 32, 96)
    latent_channels: int = 4
    seed: int = 0
    save_every: int = 50


def main(config: Config = Config()) -> None:
    model = autoencoder.build(config.channels, config.latent_channels, 64, config.seed)
    optimizers = muon_and_adamw(model, config.lr, autoencoder.ENDS)
    training = Training(Run(RUNS / "autoencoder", config), model, optimizers)
    everything = batches(ALL_TRAINING_SCENES, batch=config.batch // 2, seed=10, start=training.step)
    known = batches(KNOWN_SCENES, batch=config.batch - config.batch // 2, seed=11, start=training.step)
    for step in training.steps(config.steps, every=config.save_every):
        images = pixels(next(everything) + next(known)).contiguous(memory_format=torch.channels_last)
        seed = config.seed * 1_000_003 + step
        loss, kl, output = autoencoder.losses(model, images, torch.ones(1, 1, 64, 64), edges=config.edges, seed=seed)
        falling = min((step + 1) / 50, 0.5 + 0.5 * math.cos(math.pi * step / config.steps))
        training.update(loss + 100 * config.kl * kl, falling)
        training.log(20, loss=loss.item(), kl=kl.item(), absolute_error=(output - images).abs().mean().item())
    images = pixels([scene for k in range(4) for scene in next(batches(KNOWN_SCENES, batch=64, seed=12, start=k))])
    print(f"saved {MODEL / 'vae'}; scaling_factor {autoencoder.write(model, images, MODEL / 'vae')}")


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
    main()
