"""Stage 1: an AutoencoderKL from 64x64 pixels to 16x16x4 latents.

    python recipes/emoji-diffusion/1_autoencoder.py            # resumes from runs/emoji-diffusion/autoencoder

Loss: mean absolute and squared error, plus the absolute error of finite differences for sharp edges, plus a small KL term.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import torch
from common import ALL_TRAINING_SCENES, KNOWN_SCENES, MODEL, RUNS, batches, pixels
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F

from photopic.core.runs import Run, load_optimizer, optimizer_tensors


@dataclass(frozen=True)
class Config:
    steps: int = 1500
    crops: int = 24  # 32x32 crops a step: half from scenes of everything, half from what the diffusion model will draw
    full_steps: int = 250  # the last steps see whole 64x64 scenes, so that group statistics fit
    full: int = 12  # whole scenes a step
    lr: float = 2e-3  # peak; linear warm-up of 100 steps, then cosine to zero
    kl: float = 2e-5  # weight of the KL term per latent entry
    edges: float = 0.5  # weight of the finite-difference term
    channels: tuple[int, ...] = (16, 32, 96)
    latent_channels: int = 4
    seed: int = 0
    save_every: int = 200


def build(config: Config) -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=config.channels,
        layers_per_block=1,
        latent_channels=config.latent_channels,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    )


def reconstruction_loss(output: Tensor, target: Tensor, edges: float) -> Tensor:
    error = (output - target).abs().mean() + (output - target).square().mean()
    for dim in (-1, -2):
        error = error + edges * (output.diff(dim=dim) - target.diff(dim=dim)).abs().mean()
    return error


def crops(images: Tensor, count: int, *, seed: int, side: int = 32) -> Tensor:
    """``count`` random square crops, the images taken in turn."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(images.shape[-1] - side + 1, (count, 2), generator=generator).tolist()
    return torch.stack(
        [images[k % len(images), :, top : top + side, left : left + side] for k, (top, left) in enumerate(corners)]
    )


def main(config: Config = Config()) -> None:
    torch.manual_seed(config.seed)
    run = Run(RUNS / "autoencoder", config)
    model = build(config).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, betas=(0.9, 0.99), weight_decay=1e-4)
    step = 0
    if found := run.load():
        tensors, state = found
        model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
        load_optimizer(optimizer, tensors)
        step = state["step"]
    everything = batches(ALL_TRAINING_SCENES, batch=config.full // 2, seed=10, start=step)
    known = batches(KNOWN_SCENES, batch=config.full - config.full // 2, seed=11, start=step)
    clock = time.time()
    while step < config.steps:
        images = pixels(next(everything) + next(known))
        if step < config.steps - config.full_steps:
            images = crops(images, config.crops, seed=config.seed * 1_000_003 + step)
        images = images.contiguous(memory_format=torch.channels_last)
        posterior = model.encode(images).latent_dist
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        output = model.decode(posterior.sample(generator)).sample
        rebuilt = reconstruction_loss(output, images, config.edges)
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        loss = rebuilt + config.kl * kl * 100
        optimizer.param_groups[0]["lr"] = config.lr * min(
            (step + 1) / 100, 0.5 + 0.5 * torch.cos(torch.tensor(torch.pi * step / config.steps)).item()
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 20 == 0:
            error = (output - images).abs().mean().item()
            run.log(step=step, loss=rebuilt.item(), kl=kl.item(), absolute_error=error, step_s=(time.time() - clock) / 20)
            clock = time.time()
        if step % config.save_every == 0 or step == config.steps:
            weights = {f"model.{k}": v for k, v in model.state_dict().items()}
            run.save(weights | optimizer_tensors(optimizer), {"step": step})
    finish(model)


@torch.no_grad()
def finish(model: AutoencoderKL) -> None:
    """Set the scaling factor to one over the latents' standard deviation and save in diffusers' layout."""
    latents = torch.cat([model.encode(pixels(next(batches(KNOWN_SCENES, batch=64, seed=12, start=k)))).latent_dist.mean for k in range(4)])
    model.register_to_config(scaling_factor=round(1 / latents.std().item(), 5), shift_factor=None)
    model.half().save_pretrained(MODEL / "vae")
    print(f"saved {MODEL / 'vae'}; scaling_factor {model.config.scaling_factor}")


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
    main()
