"""Training a diffusion model on any process: accelerate's devices, precisions and processes, and a run that goes on exactly.

Everything random in a step follows from the seed and the number of the step, and the batch is that of all processes together: each
takes its share. So a run that was killed ends with the weights of one that was not, and several processes compute what one does, up
to the order of sums. A batch is split by the size of the state, once a level, and each part goes through the one network.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from photopic.core.errors import ModelError, PhotopicError
from photopic.core.runs import Run, load_optimizer, optimizer_tensors
from photopic.generate.diffusion.model import DiffusionModel, from_pixels, process_bytes
from photopic.generate.diffusion.process import Diffusion

PRECISIONS = ("no", "bf16", "fp16")


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that determines the weights, apart from the network, the process and the pictures."""

    steps: int = 20_000
    batch: int = 64  # of all processes together
    learning_rate: float = 3e-4  # AdamW; linear warm-up, then cosine to zero
    warmup: int = 200
    weight_decay: float = 0.0
    ema: float = 0.999  # of the averaged weights, which are the result; less in the first steps
    clip_norm: float = 1.0  # largest length of the gradient
    accumulation: int = 1  # parts a batch is computed in, one after the other
    precision: str = "no"  # no, bf16 or fp16
    timesteps: tuple[int, int] | None = None  # train only from the first up to the second; None: all
    start: str = ""  # digest of the weights it goes on from, if not from random ones: tells runs apart, changes nothing
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulation"):
            if getattr(self, name) < 1:
                raise ModelError(f"{name}: expected 1 or more, found {getattr(self, name)}")
        if self.precision not in PRECISIONS:
            raise ModelError(f"precision: expected one of {', '.join(PRECISIONS)}, found {self.precision!r}")
        if not 0 <= self.ema < 1:
            raise ModelError(f"ema: expected 0 to below 1, found {self.ema}")


class TrainingError(PhotopicError):
    """Training cannot go on; the last checkpoint is as it was."""


@dataclass(frozen=True, eq=False)
class TrainingStep:
    """One event.

    Attributes:
        step: Steps done.
        steps: Steps in all.
        loss: Of the step, over all processes.
        elapsed_s: Seconds since this process began.
        eta_s: Seconds to go by the pace so far.
        stage: ``training``, or ``done`` with the last event.
        warning: One line the user should see, or empty.
        model: The averaged weights: with the last event, and with those that were saved.
    """

    step: int
    steps: int
    loss: float
    elapsed_s: float
    eta_s: float
    stage: str = "training"
    warning: str = ""
    model: DiffusionModel | None = field(default=None, repr=False)


def train_events(
    network: nn.Module,
    process: Diffusion,
    images: UInt8[Tensor, "n h w 3"],
    folder: str | Path,
    config: TrainingConfig = TrainingConfig(),
    *,
    save_every: int = 500,
    accelerator: Any = None,
) -> Iterator[TrainingStep]:
    """Train, or go on from the last checkpoint of the folder.

    Args:
        network: Called as ``network(x, t)``; its weights are where a new run starts.
        process: Any.
        images: Square pictures.
        folder: Of the run: configuration, ``log.jsonl``, checkpoint.
        config: How to train.
        save_every: Steps between checkpoints.
        accelerator: accelerate's; None makes one.

    Yields:
        One event a step.

    Raises:
        RunMismatchError: If the folder holds a run of another configuration, process, network or other pictures.
        ModelError: If the pictures cannot be halved as often as the process asks, or a number is out of range.
        TrainingError: If the loss is not finite: it says when and where, and the last checkpoint stays.
    """
    from accelerate import Accelerator

    size = images.shape[1]
    process.pyramid.check(*images.shape[1:3])
    accelerator = accelerator or Accelerator(mixed_precision=config.precision)
    shares = accelerator.num_processes * config.accumulation
    if config.batch % shares:
        raise ModelError(
            f"batch: expected a multiple of {shares} ({accelerator.num_processes} processes x {config.accumulation} parts), "
            f"found {config.batch}"
        )
    low, high = config.timesteps or (0, process.timesteps)
    if not 0 <= low < high <= process.timesteps:
        raise ModelError(f"timesteps: expected a range within 0 to {process.timesteps}, found {low} to {high}")
    run = Run(folder, _identity(network, process, images, config)) if accelerator.is_main_process else None
    accelerator.wait_for_everyone()
    network = network.to(accelerator.device).train()
    average = deepcopy(network).requires_grad_(False)
    plain = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=config.weight_decay
    )
    optimizer = accelerator.prepare_optimizer(plain)
    start = _resume(Path(folder), network, average, plain, accelerator)
    if run is not None:
        _forget_after(run, start)
    began = time.monotonic()
    for step in range(start, config.steps):
        for group in plain.param_groups:
            group["lr"] = config.learning_rate * _rate(step, config)
        loss = _gradients(network, process, images, config, step, (low, high), accelerator)
        if not math.isfinite(loss):
            raise TrainingError(
                f"{folder}: the loss is {loss} at step {step + 1} ({_where(process, config, step, (low, high))}); the "
                f"checkpoint of step {_saved_step(Path(folder))} is kept; lower the learning rate or use another precision"
            )
        accelerator.clip_grad_norm_(network.parameters(), config.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _follow(average, network, min(config.ema, (1 + step) / (10 + step)))
        last = step + 1 == config.steps
        saved = last or (step + 1) % save_every == 0
        if saved and run is not None:
            run.save(_tensors(network, average, plain), {"step": step + 1, "scaler": _scaler(accelerator)})
        elapsed = time.monotonic() - began
        if run is not None:
            run.log(step=step + 1, loss=loss, learning_rate=plain.param_groups[0]["lr"])
        yield TrainingStep(
            step + 1,
            config.steps,
            loss,
            elapsed,
            elapsed / (step + 1 - start) * (config.steps - step - 1),
            "done" if last else "training",
            model=DiffusionModel(average, process, size) if saved else None,
        )
    if start >= config.steps:
        yield TrainingStep(
            config.steps, config.steps, 0.0, 0.0, 0.0, "done", model=DiffusionModel(average, process, size)
        )


def _gradients(network, process, images, config, step, span, accelerator) -> float:  # type: ignore[no-untyped-def]
    """Leave the gradient of the whole batch's mean loss in the parameters; that loss."""
    chosen, timesteps, seeds = _drawn(len(images), config, step, span)
    own = config.batch // accelerator.num_processes
    parts = [
        slice(start, start + own // config.accumulation)
        for start in range(
            own * accelerator.process_index, own * (accelerator.process_index + 1), own // config.accumulation
        )
    ]
    total = torch.zeros((), device=accelerator.device)
    for part in parts:
        clean = from_pixels(images[chosen[part]]).to(accelerator.device)
        with accelerator.autocast():
            loss = _loss(network, process, clean, timesteps[part], seeds[part]) / len(parts)
        accelerator.backward(loss)
        total += loss.detach().float()
    if accelerator.num_processes > 1:
        held = [each for each in network.parameters() if each.grad is not None]
        flat = accelerator.reduce(torch.cat([each.grad.flatten() for each in held]), "mean")
        for each, new in zip(held, flat.split([each.numel() for each in held]), strict=True):
            each.grad.copy_(new.view_as(each))
        total = accelerator.reduce(total, "mean")
    return float(total)


def _loss(
    network: nn.Module,
    process: Diffusion,
    clean: Float[Tensor, "n c h w"],
    timesteps: Int[Tensor, " n"],
    seeds: Sequence[int],
) -> Float[Tensor, ""]:
    """Mean over pictures of the mean squared error a pixel, each picture at the size of its timestep."""
    levels = process.levels(timesteps)
    total = clean.new_zeros(())
    for level in levels.unique().tolist():
        rows = (levels == level).nonzero()[:, 0]
        small = process.pyramid.down(clean[rows.to(clean.device)], level)
        noise = torch.stack(
            [torch.randn(small.shape[1:], generator=torch.Generator().manual_seed(seeds[row])) for row in rows.tolist()]
        ).to(small)
        at = timesteps[rows].to(clean.device)
        found = network(process.noised(small, noise, at, level), process.input_time(at))
        prediction = found if isinstance(found, Tensor) else found.sample
        total = total + F.mse_loss(prediction.float(), process.target(small, noise, at)) * len(rows)
    return total / len(clean)


def _drawn(count: int, config: TrainingConfig, step: int, span: tuple[int, int]) -> tuple[Tensor, Tensor, list[int]]:
    """Which pictures, timesteps and seeds of the noise make the batch of a step."""
    generator = torch.Generator().manual_seed((config.seed + 1) * 1_000_000_007 + step)
    chosen = torch.randint(count, (config.batch,), generator=generator)
    timesteps = torch.randint(*span, (config.batch,), generator=generator)
    seeds = torch.randint(2**62, (config.batch,), generator=generator)
    return chosen, timesteps, seeds.tolist()


def _rate(step: int, config: TrainingConfig) -> float:
    if step < config.warmup:
        return (step + 1) / config.warmup
    return 0.5 + 0.5 * math.cos(math.pi * (step - config.warmup) / max(1, config.steps - config.warmup))


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    for held, now in zip(average.parameters(), network.parameters(), strict=True):
        held.lerp_(now, 1 - decay)
    for kept, read in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(read)


# -- checkpoints


def _tensors(network: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    found = {f"net.{name}": value for name, value in network.state_dict().items()}
    found |= {f"ema.{name}": value for name, value in average.state_dict().items()}
    return found | optimizer_tensors(optimizer)


def _resume(
    folder: Path, network: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, accelerator: Any
) -> int:
    found = Run(folder).load()
    if found is None:
        return 0
    tensors, state = found
    for prefix, module in (("net.", network), ("ema.", average)):
        module.load_state_dict({name[4:]: value for name, value in tensors.items() if name.startswith(prefix)})
    load_optimizer(optimizer, tensors)
    if accelerator.scaler is not None and state["scaler"]:
        accelerator.scaler.load_state_dict(state["scaler"])
    return int(state["step"])


def _scaler(accelerator: Any) -> dict[str, Any] | None:
    return None if accelerator.scaler is None else accelerator.scaler.state_dict()


def _saved_step(folder: Path) -> int:
    found = Run(folder).load()
    return 0 if found is None else int(found[1]["step"])


def _forget_after(run: Run, step: int) -> None:
    """Drop the log lines of steps that are done again."""
    path = run.folder / "log.jsonl"
    if path.is_file():
        lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
        kept = [line for line in lines if json.loads(line).get("step", 0) <= step]
        path.write_text("".join(kept))


def _identity(network: nn.Module, process: Diffusion, images: Tensor, config: TrainingConfig) -> dict[str, Any]:
    shapes = {name: list(value.shape) for name, value in network.state_dict().items()}
    return {
        **asdict(config),
        "network": hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest()[:16],
        "process": hashlib.sha256(process_bytes(process, images.shape[1])).hexdigest()[:16],
        "pictures": hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest()[:16],
    }


def _where(process: Diffusion, config: TrainingConfig, step: int, span: tuple[int, int]) -> str:
    timesteps = _drawn(1, config, step, span)[1]
    levels = sorted(set(process.levels(timesteps).tolist()))
    sizes = f", sizes halved {' or '.join(map(str, levels))} times" if process.turning else ""
    return f"timesteps {int(timesteps.min())} to {int(timesteps.max())}{sizes}"
