"""The training loop of everything that is trained on one device: steps, checkpoints, resume, events.

A ``Learner`` says what a step does and what its state is; ``fit`` does the rest. A step has to follow from its number and the
learner's state alone, so that a run that was interrupted goes on to the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer

from photopic.core.errors import DivergedError
from photopic.core.events import Event, Steps
from photopic.core.runs import Run, is_first_process, load_optimizer, optimizer_tensors

SAVE_EVERY = 25  # steps between checkpoints


@runtime_checkable
class Learner(Protocol):
    """Something that is learnt in steps."""

    def step(self, step: int) -> Mapping[str, float]:
        """Do step number ``step``, from 0, and return what it measured, ``loss`` among it."""

    def state(self) -> dict[str, Tensor]:
        """Everything the next step depends on."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put back what ``state`` gave."""


class OptimizedTensors:
    """A learner's tensors with their optimizer: state, restore and update, written once.

    Args:
        tensors: What is learnt, by name; requires gradients.
        optimizer: Over these tensors.
        rate: Learning rate at a step.

    Example:
        >>> weight = torch.ones(1, requires_grad=True)
        >>> held = OptimizedTensors({"weight": weight}, torch.optim.SGD([weight], lr=1.0), lambda step: 0.5)
        >>> held.update((2 * weight).sum(), step=0)
        >>> weight.item()
        0.0
    """

    def __init__(self, tensors: Mapping[str, Tensor], optimizer: Optimizer, rate: Callable[[int], float]):
        self.tensors, self.optimizer, self.rate = dict(tensors), optimizer, rate

    def update(self, loss: Float[Tensor, ""], *, step: int) -> None:
        """One step of the optimizer down the gradient of a loss.

        Raises:
            DivergedError: If the loss is not a finite number; the tensors stay as they were.
        """
        if not torch.isfinite(loss):
            raise DivergedError(f"step {step + 1}: the loss is {loss.item()}; lower the learning rate")
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """The tensors and what the optimizer remembers of them."""
        return dict(self.tensors) | optimizer_tensors(self.optimizer)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put back what ``state`` gave."""
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                tensor.copy_(state[name])
        load_optimizer(self.optimizer, state)


def fit(
    learner: Learner, steps: int, *, run: Run | None = None, save_every: int | None = None, stage: str = "learning"
) -> Steps[None]:
    """Do the steps of a learner, from the last checkpoint of the run on; of several processes that accelerate started one writes.

    Args:
        learner: What is learnt.
        steps: Of learning, in all.
        run: Where to checkpoint and to resume from; None keeps nothing.
        save_every: Steps between checkpoints; None: ``SAVE_EVERY``.
        stage: What to call it while it goes on.

    Yields:
        An event a step, with what the step measured.

    Raises:
        RunMismatchError: If the run folder holds another computation.

    Example:
        >>> class Sum:
        ...     total = torch.zeros(())
        ...     def step(self, step): self.total = self.total + step; return {"loss": float(self.total)}
        ...     def state(self): return {"total": self.total}
        ...     def restore(self, state): self.total = state["total"]
        >>> [event.numbers["loss"] for event in fit(Sum(), 3) if event.done]
        [0.0, 1.0, 3.0]
    """
    every, done = save_every or SAVE_EVERY, 0
    if run is not None and (found := run.resume()) is not None:
        tensors, done = found
        learner.restore(tensors)
        if is_first_process():
            run.forget_after(done)
    yield Event(stage, done, steps)
    for step in range(done, steps):
        numbers = dict(learner.step(step))
        if run is not None and is_first_process():
            run.log(step=step + 1, **numbers)
            if (step + 1) % every == 0 or step + 1 == steps:
                run.checkpoint(learner.state(), step + 1)
        yield Event(stage, step + 1, steps, numbers)
