"""The gradient of one batch: what is drawn for a step, the loss of every picture at its size, the sum over processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from photopic.data.pixels import from_pixels
from photopic.models.diffusion.process import Diffusion
from photopic.train.diffusion._config import TrainingConfig


@contextmanager
def own_randomness(seed: int, step: int, accelerator: Any) -> Iterator[None]:
    """What a network draws for itself, such as dropout, follows from seed, step and process; the caller's state stays."""
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed((((seed + 1) * 1_000_000_007 + step) * 1_009 + accelerator.process_index) % 2**64)
        yield


def gradients(
    network: nn.Module,
    process: Diffusion,
    images: Tensor,
    config: TrainingConfig,
    step: int,
    span: tuple[int, int],
    accelerator: Any,
) -> tuple[float, list[int]]:
    """Leave the gradient of the whole batch's mean loss in the parameters; that loss, and timesteps of this process's losses
    that are not finite."""
    # every process draws the whole batch and takes its share, so the number of processes changes no picture
    chosen, timesteps, seeds = _drawn(len(images), config, step, span)
    own = config.batch // accelerator.num_processes
    length = own // config.accumulation
    first = own * accelerator.process_index
    total = torch.zeros((), device=accelerator.device)
    wrong: list[int] = []
    for begin in range(first, first + own, length):
        part = slice(begin, begin + length)
        # (length, 3, size, size) in -1..1
        clean = from_pixels(images[chosen[part]]).to(accelerator.device)
        losses = _losses(network, process, clean, timesteps[part], seeds[part], accelerator)
        loss = losses.mean() / config.accumulation
        accelerator.backward(loss)
        total += loss.detach().float()
        wrong += timesteps[part][~losses.detach().isfinite().cpu()].tolist()
    if accelerator.num_processes > 1:
        held = [each for each in network.parameters() if each.requires_grad]
        for each in held:
            if each.grad is None:
                each.grad = torch.zeros_like(each)  # a size that this share did not hold; the others sum theirs
        # one transfer for all gradients; the mean over processes is that of the whole batch, since shares are equal
        flat = accelerator.reduce(torch.cat([each.grad.flatten() for each in held if each.grad is not None]), "mean")
        for each, new in zip(held, flat.split([each.numel() for each in held]), strict=True):
            each.grad = new.view_as(each).clone()
        total = accelerator.reduce(total, "mean")
    return float(total), wrong


def _losses(
    network: nn.Module,
    process: Diffusion,
    clean: Float[Tensor, "n c h w"],
    timesteps: Int[Tensor, " n"],
    seeds: Sequence[int],
    accelerator: Any,
) -> Float[Tensor, " n"]:
    """Mean squared error a pixel of every picture, each at the size of its timestep; the network alone at mixed precision."""
    levels = process.levels(timesteps)
    found, order = [], []
    for level in levels.unique().tolist():
        rows = (levels == level).nonzero()[:, 0]
        small = process.pyramid.down(clean[rows.to(clean.device)], level)
        # a generator a picture: its noise depends on neither batch nor device, (n, c, h, w)
        noise = torch.stack(
            [torch.randn(small.shape[1:], generator=torch.Generator().manual_seed(seeds[row])) for row in rows.tolist()]
        ).to(small)
        at = timesteps[rows].to(clean.device)
        noisy = process.noised(small, noise, at, level)
        with accelerator.autocast():
            said = network(noisy, process.input_time(at))
        prediction = said if isinstance(said, Tensor) else said.sample
        found.append((prediction.float() - process.target(small, noise, at)).square().flatten(1).mean(1))
        order.append(rows)
    # back into the order of the batch: the parts came by size
    return torch.cat(found)[torch.cat(order).argsort().to(clean.device)]


def _drawn(count: int, config: TrainingConfig, step: int, span: tuple[int, int]) -> tuple[Tensor, Tensor, list[int]]:
    """Which pictures, timesteps and seeds of the noise make the batch of a step."""
    # from the step alone, with nothing carried from step to step: that is what makes a resumed run exact
    generator = torch.Generator().manual_seed((config.seed + 1) * 1_000_000_007 + step)
    chosen = torch.randint(count, (config.batch,), generator=generator)
    timesteps = torch.randint(*span, (config.batch,), generator=generator)
    seeds = torch.randint(2**62, (config.batch,), generator=generator)
    return chosen, timesteps, seeds.tolist()
