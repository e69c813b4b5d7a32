"""Training a diffusion model on any process: accelerate's devices, precisions and processes, and a run that goes on exactly.

Everything random in a step follows from the seed and the number of the step, and the batch is that of all processes together: each
takes its share. So a run that was killed ends with the weights of one that was not (bit for bit on the CPU; a GPU's kernels may add
in another order), and several processes compute what one does, up to the order of sums. A batch is split by the size of the
state, once a level, and each part goes through the one network.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from photopic.core.errors import DivergedError, ModelError
from photopic.core.events import Event
from photopic.core.runs import Run, load_optimizer, optimizer_tensors
from photopic.models.diffusion.loading import process_bytes
from photopic.models.diffusion.model import DiffusionModel
from photopic.models.diffusion.process import Diffusion
from photopic.train.diffusion._batches import gradients, own_randomness
from photopic.train.diffusion._config import TrainingConfig

__all__ = ["TrainingConfig", "TrainingError", "train_events", "training_steps"]


RECOMMENDED = TrainingConfig()


class TrainingError(DivergedError):
    """Training cannot go on; the last checkpoint is as it was."""


def train_events(
    network: nn.Module,
    process: Diffusion,
    images: UInt8[Tensor, "n h w 3"],
    folder: str | Path,
    config: TrainingConfig = RECOMMENDED,
    *,
    save_every: int = 500,
    accelerator: Any = None,
) -> Iterator[Event[DiffusionModel]]:
    """Train, or go on from the last checkpoint of the folder.

    Args:
        network: Called as ``network(x, t)``; its weights are where a new run starts, and all of them are trained.
        process: Any.
        images: Square pictures.
        folder: Of the run: configuration, ``log.jsonl``, checkpoint.
        config: How to train.
        save_every: Steps between checkpoints.
        accelerator: accelerate's, of the configuration's precision; None makes one.

    Yields:
        One event a step; with the last, and with those that were saved, the model of the averaged weights.

    Raises:
        RunMismatchError: If the folder holds a run of another configuration, process, network or other pictures.
        ModelError: If the pictures cannot be halved as often as the process asks, or a number is out of range.
        TrainingError: If the loss or its gradient is not finite: it says when and where, and the last checkpoint stays.
    """
    from accelerate import Accelerator

    accelerator = accelerator or Accelerator(mixed_precision=config.precision)
    check_training(process, images, config, accelerator)
    with accelerator.main_process_first():  # it writes the configuration, the others compare theirs
        run = Run(folder, _identity(network, process, images, config))
    with run.computing():
        yield from training_steps(network, process, images, config, accelerator, run=run, save_every=save_every)


def check_training(process: Diffusion, images: Tensor, config: TrainingConfig, accelerator: Any) -> None:
    """Refuse numbers that do not go together before anything takes time.

    Raises:
        ModelError: Names the number, what was expected and what was found.
    """
    process.pyramid.check(*images.shape[1:3])
    _check_accelerator(accelerator, config)
    low, high = config.timesteps or (0, process.timesteps)
    if not 0 <= low < high <= process.timesteps:
        raise ModelError(f"timesteps: expected a range within 0 to {process.timesteps}, found {low} to {high}")


def training_steps(
    network: nn.Module,
    process: Diffusion,
    images: UInt8[Tensor, "n h w 3"],
    config: TrainingConfig,
    accelerator: Any,
    *,
    run: Run | None,
    save_every: int,
) -> Iterator[Event[DiffusionModel]]:
    """The loop of ``train_events``, in a run folder that is the caller's, or in none."""
    span = config.timesteps or (0, process.timesteps)
    where = "" if run is None else f"{run.folder}: "  # of messages
    network = network.to(accelerator.device).train().requires_grad_(True)
    # the averaged weights, which are the result: far less noisy than those of the last step
    average = deepcopy(network).eval().requires_grad_(False)
    plain = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=config.weight_decay
    )
    optimizer = accelerator.prepare_optimizer(plain)
    kept = run if accelerator.is_main_process else None  # what is written is written once
    start, loss = (0, math.nan) if run is None else _resume(run, network, average, plain, accelerator)
    if kept is not None:
        kept.forget_after(start)
    for step in range(start, config.steps):
        for group in plain.param_groups:
            group["lr"] = config.learning_rate * _rate(step, config)
        with own_randomness(config.seed, step, accelerator):
            loss, wrong = gradients(network, process, images, config, step, span, accelerator)
        # unscales the gradient first where fp16 scaled the loss
        length = float(accelerator.clip_grad_norm_(network.parameters(), config.clip_norm))
        if not math.isfinite(loss) or (accelerator.scaler is None and not math.isfinite(length)):
            raise TrainingError(
                f"{where}at step {step + 1} the loss is {loss} and its gradient has length {length} "
                f"({_where(process, wrong)}); {_last_checkpoint(run)}; lower the learning rate or use another precision"
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        # (1 + n) / (10 + n): early on the average would else be mostly the random start
        _follow(average, network, min(config.ema, (1 + step) / (10 + step)))
        last = step + 1 == config.steps
        saved = last or (step + 1) % save_every == 0
        if kept is not None:
            if saved:
                state = {"step": step + 1, "loss": loss, "scaler": _scaler(accelerator), "identity": kept.identity}
                kept.save(_tensors(network, average, plain), state)
            kept.log(step=step + 1, loss=loss, learning_rate=plain.param_groups[0]["lr"])
        model = DiffusionModel(average, process, images.shape[1]) if saved else None
        yield Event("done" if last else "training", step + 1, config.steps, {"loss": loss}, result=model)
    if start >= config.steps:
        model = DiffusionModel(average, process, images.shape[1])
        yield Event("done", config.steps, config.steps, {"loss": loss}, result=model)


def _check_accelerator(accelerator: Any, config: TrainingConfig) -> None:
    shares = accelerator.num_processes * config.accumulation
    if config.batch % shares:
        raise ModelError(
            f"batch: expected a multiple of {shares} ({accelerator.num_processes} processes x {config.accumulation} parts), "
            f"found {config.batch}"
        )
    if accelerator.mixed_precision != config.precision:
        raise ModelError(
            f"precision: expected {config.precision}, found an accelerator of {accelerator.mixed_precision}"
        )
    if config.precision == "fp16" and accelerator.scaler is None:
        raise ModelError("precision: fp16 needs a GPU, whose losses are scaled; use bf16 or no on this device")
    if accelerator.gradient_accumulation_steps != 1:
        raise ModelError(
            "accumulation: expected that of the configuration alone, found an accelerator (or "
            f"ACCELERATE_GRADIENT_ACCUMULATION_STEPS) with {accelerator.gradient_accumulation_steps} steps"
        )


def _rate(step: int, config: TrainingConfig) -> float:
    if step < config.warmup:
        return (step + 1) / config.warmup  # linear, from the first step on above 0
    return 0.5 + 0.5 * math.cos(math.pi * (step - config.warmup) / max(1, config.steps - config.warmup))


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    for held, now in zip(average.parameters(), network.parameters(), strict=True):
        held.lerp_(now, 1 - decay)
    # running statistics are averages already
    for kept, read in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(read)


# -- checkpoints


def _tensors(network: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    found = {f"net.{name}": value for name, value in network.state_dict().items()}
    found |= {f"ema.{name}": value for name, value in average.state_dict().items()}
    return found | optimizer_tensors(optimizer)


def _resume(
    run: Run, network: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, accelerator: Any
) -> tuple[int, float]:
    """Steps that are done and the last one's loss."""
    found = run.load()
    if found is None:
        return 0, math.nan
    tensors, state = found
    run.check(state)
    for prefix, module in (("net.", network), ("ema.", average)):
        module.load_state_dict({name[4:]: value for name, value in tensors.items() if name.startswith(prefix)})
    load_optimizer(optimizer, tensors)
    if accelerator.scaler is not None and state["scaler"]:
        accelerator.scaler.load_state_dict(state["scaler"])
    return int(state["step"]), float(state["loss"])


def _scaler(accelerator: Any) -> dict[str, Any] | None:
    return None if accelerator.scaler is None else accelerator.scaler.state_dict()


def _last_checkpoint(run: Run | None) -> str:
    found = None if run is None else run.load()
    return "there is no checkpoint yet" if found is None else f"the checkpoint of step {found[1]['step']} is kept"


def _identity(network: nn.Module, process: Diffusion, images: Tensor, config: TrainingConfig) -> dict[str, Any]:
    shapes = {name: list(value.shape) for name, value in network.state_dict().items()}
    return {
        **asdict(config),
        "network": hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest()[:16],
        "process": f"{process} ({hashlib.sha256(process_bytes(process, images.shape[1])).hexdigest()[:16]})",
        "pictures": hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest()[:16],
    }


def _where(process: Diffusion, wrong: Sequence[int]) -> str:
    """The timesteps of losses that are not finite, and how often their pictures are halved."""
    if not wrong:
        return "every picture's loss of this process was finite"
    named = ", ".join(map(str, sorted(set(wrong))[:8]))
    levels = sorted({process.level(each) for each in wrong})
    sizes = f", pictures halved {' or '.join(map(str, levels))} times" if process.turning else ""
    return f"{len(wrong)} pictures, at timesteps {named}{sizes}"
