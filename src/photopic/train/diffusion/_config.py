"""What decides the weights of a training run, apart from the network, the process and the pictures."""

from __future__ import annotations

from dataclasses import dataclass

from photopic.core.errors import ModelError

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
