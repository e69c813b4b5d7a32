"""One model in training: weights, optimizers, moving average and step, kept so that a killed run goes on exactly."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from photopic.core.numerics.muon import Muon
from photopic.core.runs import Run, load_optimizer, optimizer_tensors

BFLOAT16 = "products in bfloat16, weights in float32: about twice as fast on a processor that has avx512_bf16"


class Training:
    """A model that learns in a run folder; goes on from the folder's checkpoint where there is one.

    Args:
        run: Where checkpoints and the log go; of several processes the first writes.
        model: What learns; moved and laid out by the caller before.
        optimizers: Stepped together, each at a share of the rate of its first group.
        average: Decay of the moving average of the weights (shorter at first), or 0 for no average.
        clip: Largest norm of the gradients, or None for any.
    """

    def __init__(
        self,
        run: Run,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        average: float = 0.0,
        clip: float | None = 1.0,
    ) -> None:
        self.run, self.model, self.optimizers, self.decay, self.clip = run, model, optimizers, average, clip
        self.peaks = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
        self.average = {name: value.clone() for name, value in model.state_dict().items()} if average else {}
        self.step = 0
        self.spent = {"elapsed_s": 0.0, "processor_s": 0.0}  # over every start of the run, up to the checkpoint
        self.is_first = not dist.is_initialized() or dist.get_rank() == 0
        self._since_log: list[dict[str, float]] = []
        self._logged = time.monotonic()
        if found := run.load():
            tensors, state = found
            model.load_state_dict(under(tensors, "model."))
            for name, value in self.average.items():
                value.copy_(tensors[f"ema.{name}"])
            for index, optimizer in enumerate(optimizers):
                load_optimizer(optimizer, tensors, f"optimizer{index}.")
            self.step, self.spent = state["step"], {name: state.get(name, 0.0) for name in self.spent}

    def steps(self, until: int, *, every: int | None = None, seconds: float | None = None) -> Iterator[int]:
        """The steps still to do; saves after every so many steps or seconds, at the end, and when SIGTERM ends it early.

        One of several processes dies of SIGTERM as usual: the others would wait for its gradients.
        """
        stopped: list[int] = []
        before = signal.getsignal(signal.SIGTERM)
        if not dist.is_initialized():
            signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
        saved = time.monotonic()
        try:
            while self.step < until and not stopped:
                began = time.monotonic(), time.process_time()
                yield self.step
                self.step += 1
                now = time.monotonic()
                self.spent["elapsed_s"] += now - began[0]
                self.spent["processor_s"] += time.process_time() - began[1]
                due = (every and self.step % every == 0) or (seconds and now - saved >= seconds)
                if self.is_first and (due or stopped or self.step >= until):
                    self.save()
                    saved = now
        finally:
            signal.signal(signal.SIGTERM, before)

    def update(self, loss: Tensor, share: float, which: slice = slice(None), *, averaged: bool = True) -> None:
        """One step of all optimizers, or some, down the loss at a share of its rate; gradients are averaged over the processes."""
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [parameter for parameter in self.model.parameters() if parameter.grad is not None]
        if dist.is_initialized():
            average_gradients(parameters)
        if self.clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters, self.clip)
        for optimizer, peak in zip(self.optimizers[which], self.peaks[which], strict=True):
            optimizer.param_groups[0]["lr"] = peak * share
            optimizer.step()
        if self.decay and averaged:
            decay = min(self.decay, (2 + self.step) / (11 + self.step))
            with torch.no_grad():
                torch._foreach_lerp_(list(self.average.values()), list(self.model.state_dict().values()), 1 - decay)

    def log(self, every: int, **values: float) -> None:
        """Keep the numbers of this step; every so many steps write and print their means and the seconds a step took."""
        self._since_log.append(values)
        if self.is_first and (self.step + 1) % every == 0:
            kept, self._since_log = self._since_log, []
            line = {name: round(sum(each[name] for each in kept) / len(kept), 5) for name in values}
            self.note(**line, step_s=round((time.monotonic() - self._logged) / len(kept), 3))
            self._logged = time.monotonic()

    def note(self, **values: float) -> None:
        """Write and print one line about this step."""
        self.run.log(step=self.step + 1, **values)
        print(json.dumps({"step": self.step + 1, **values}), flush=True)

    def save(self) -> None:
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"ema.{name}": value for name, value in self.average.items()}
        for index, optimizer in enumerate(self.optimizers):
            tensors |= optimizer_tensors(optimizer, f"optimizer{index}.")
        self.run.save(tensors, {"step": self.step} | {name: round(value, 1) for name, value in self.spent.items()})


def kernels_and_rest(
    model: nn.Module, is_kernel: Callable[[str, nn.Parameter], bool], *, kernel_rate: float, decay: float, rate: float,
    betas: tuple[float, float] = (0.9, 0.999),
) -> list[torch.optim.Optimizer]:  # fmt: skip
    """Muon with weight decay for the kernels of a network, AdamW without for everything else."""
    kernels = [p for name, p in model.named_parameters() if is_kernel(name, p)]
    others = [p for name, p in model.named_parameters() if not is_kernel(name, p)]
    return [
        Muon(kernels, lr=kernel_rate, weight_decay=decay, scale="spectral"),
        torch.optim.AdamW(others, lr=rate, betas=betas, weight_decay=0.0),
    ]


def warm_then_linear(step: int, steps: int, warmup: int) -> float:
    """Share of the rate: linear warm-up, then linear to zero."""
    return (step + 1) / warmup if step < warmup else (steps - step) / (steps - warmup)


def under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def trained(run: Run, prefix: str = "ema.") -> tuple[dict[str, Tensor], dict[str, float]]:
    """The moving average (``model.``: the weights) of a run's last checkpoint, and its step and seconds."""
    if (found := run.load()) is None:
        raise SystemExit(f"{run.folder}: no checkpoint to export; train first")
    return under(found[0], prefix), found[1]


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace the gradients by their means over the processes."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, part in zip(gradients, flat.split([each.numel() for each in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
