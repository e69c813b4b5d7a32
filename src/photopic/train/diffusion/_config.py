"""What decides the weights of a training run, apart from the network, the process and the pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt

from photopic.core.config import Config


@dataclass(frozen=True)
class TrainingConfig(Config):
    """Everything that determines the weights, apart from the network, the process and the pictures."""

    steps: Annotated[int, Ge(1)] = 20_000
    batch: Annotated[int, Ge(1)] = 64  # of all processes together
    learning_rate: Annotated[float, Ge(0)] = 3e-4  # AdamW; linear warm-up, then cosine to zero
    warmup: Annotated[int, Ge(0)] = 200
    weight_decay: Annotated[float, Ge(0)] = 0.0
    ema: Annotated[float, Ge(0), Lt(1)] = (
        0.999  # of the averaged weights, which are the result; less in the first steps
    )
    clip_norm: Annotated[float, Gt(0)] = 1.0  # largest length of the gradient
    accumulation: Annotated[int, Ge(1)] = 1  # parts a batch is computed in, one after the other
    precision: Literal["no", "bf16", "fp16"] = "no"
    timesteps: tuple[int, int] | None = None  # train only from the first up to the second; None: all
    start: str = ""  # digest of the weights it goes on from, if not from random ones: tells runs apart, changes nothing
    seed: Annotated[int, Ge(0)] = 0
