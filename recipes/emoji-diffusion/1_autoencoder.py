"""Stage 1: an AutoencoderKL from 64x64 pixels to 16x16x4 latents.

    python recipes/emoji-diffusion/1_autoencoder.py            # resumes from runs/emoji-diffusion/autoencoder

Loss: mean absolute and squared error, plus the absolute error of finite differences for sharp edges, plus a small KL term.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass

import torch
from common import ALL_TRAINING_SCENES, KNOWN_SCENES, MODEL, RUNS, batches, pixels
from diffusers import AutoencoderKL
from torch import Tensor

from photopic.core.numerics.muon import muon_and_adamw
from photopic.core.runs import Run, load_optimizer, optimizer_tensors

FIRST_AND_LAST = ("encoder.conv_in", "encoder.conv_out", "decoder.conv_in", "decoder.conv_out", "quant_conv")


@dataclass(frozen=True)
class Config:
    steps: int = 700
    batch: int = 12  # half scenes of everything, half of what the diffusion model will draw
    lr: float = 3e-3  # peak; linear warm-up of 50 steps, then cosine to zero
    kl: float = 2e-5  # weight of the KL term per latent entry
    edges: float = 0.5  # weight of the finite-difference term
    channels: tuple[int, ...] = (16, 32, 96)
    latent_channels: int = 4
    seed: int = 0
    save_every: int = 50


def build(config: Config) -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=config.channels,
        layers_per_block=1,
        latent_channels=config.latent_channels,
        norm_num_groups=2,  # more groups of so few channels would normalise the colour away
        sample_size=64,
        mid_block_add_attention=False,
    )


def reconstruction_loss(output: Tensor, target: Tensor, edges: float) -> Tensor:
    error = (output - target).abs().mean() + (output - target).square().mean()
    for dim in (-1, -2):
        error = error + edges * (output.diff(dim=dim) - target.diff(dim=dim)).abs().mean()
    return error


def main(config: Config = Config()) -> None:
    torch.manual_seed(config.seed)
    run = Run(RUNS / "autoencoder", config)
    model = build(config).to(memory_format=torch.channels_last)
    optimizers = muon_and_adamw(model, config.lr, FIRST_AND_LAST)
    step = 0
    if found := run.load():
        tensors, state = found
        model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
        for index, optimizer in enumerate(optimizers):
            load_optimizer(optimizer, tensors, f"optimizer{index}.")
        step = state["step"]
    everything = batches(ALL_TRAINING_SCENES, batch=config.batch // 2, seed=10, start=step)
    known = batches(KNOWN_SCENES, batch=config.batch - config.batch // 2, seed=11, start=step)
    clock = time.time()
    while step < config.steps:
        images = pixels(next(everything) + next(known))
        images = images.contiguous(memory_format=torch.channels_last)
        posterior = model.encode(images).latent_dist
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        output = model.decode(posterior.sample(generator)).sample
        rebuilt = reconstruction_loss(output, images, config.edges)
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        loss = rebuilt + config.kl * kl * 100
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = config.lr * min(
                (step + 1) / 50, 0.5 + 0.5 * math.cos(math.pi * step / config.steps)
            )
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        step += 1
        if step % 20 == 0:
            error = (output - images).abs().mean().item()
            run.log(
                step=step, loss=rebuilt.item(), kl=kl.item(), absolute_error=error, step_s=(time.time() - clock) / 20
            )
            clock = time.time()
        if step % config.save_every == 0 or step == config.steps:
            saved = {f"model.{k}": v for k, v in model.state_dict().items()}
            for index, optimizer in enumerate(optimizers):
                saved |= optimizer_tensors(optimizer, f"optimizer{index}.")
            run.save(saved, {"step": step})
    finish(model)


@torch.no_grad()
def finish(model: AutoencoderKL) -> None:
    """Set the scaling factor to one over the latents' standard deviation and save in diffusers' layout."""
    latents = torch.cat(
        [
            model.encode(pixels(next(batches(KNOWN_SCENES, batch=64, seed=12, start=k)))).latent_dist.mean
            for k in range(4)
        ]
    )
    model.register_to_config(scaling_factor=round(1 / latents.std().item(), 5), shift_factor=None)
    model.half().save_pretrained(MODEL / "vae")
    print(f"saved {MODEL / 'vae'}; scaling_factor {model.config.scaling_factor}")


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
    main()
