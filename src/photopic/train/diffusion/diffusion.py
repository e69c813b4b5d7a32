"""Train a diffusion model on pictures: any noise schedule and prediction, dimensions that vary, timesteps that share.

photopic train diffusion pictures/ --size 64 --turning 300 --turning 600 -o mine
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from accelerate import Accelerator
from annotated_types import Ge, Gt, Le
from jaxtyping import UInt8
from torch import Tensor

from photopic.core.config import Config, Flags
from photopic.core.errors import DataError, FieldError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.runs import Run
from photopic.data.picture_set import PictureSet
from photopic.data.pixels import from_pixels
from photopic.models.diffusion import Diffusion, Pyramid, Schedule
from photopic.models.diffusion.dimensionality import (
    DimensionalityConfig,
    detail_norms,
    dimensionality_varying,
    turning_points,
)
from photopic.models.diffusion.model import DiffusionModel
from photopic.models.diffusion.networks import check_size, unet
from photopic.models.diffusion.shared_timesteps import SharedTimestepsConfig, shared
from photopic.train.diffusion._config import TrainingConfig
from photopic.train.diffusion._samples import Samples
from photopic.train.diffusion.training import check_training, training_steps

PROBED = 512  # pictures whose details say where turning points cost little
OF_A_START = ("channels", "schedule", "prediction")  # what a model to go on from has already


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig(Config):
    """What to train and how."""

    size: Annotated[int | None, Ge(8), Le(4096)] = None  # side of the pictures in pixels; 64, or that of --start
    steps: Annotated[int, Ge(1)] = 20_000  # steps of training
    batch: Annotated[int, Ge(1)] = 64  # pictures a step, of all processes together
    accumulation: Annotated[int, Ge(1)] = 1  # compute a batch in so many parts, for less memory
    lr: Annotated[float, Ge(0)] = 3e-4  # learning rate at its peak
    # schedule of the noise; linear, or that of --start
    schedule: Literal["linear", "scaled-linear", "quadratic", "cosine"] | None = None
    # what the network puts out; epsilon, or that of --start
    prediction: Literal["epsilon", "velocity", "sample"] | None = None
    turning: Annotated[tuple[int, ...], Ge(1)] = ()  # timestep after which pictures are half as large; once a halving
    # choose two turning points instead, the earliest that cost at most this total variation each
    budget: Annotated[float | None, Ge(0), Le(1)] = None
    # what is left of a detail when it is dropped, 0.01 by default; at 1 nothing fades
    lowest: Annotated[float | None, Gt(0), Le(1)] = None
    # how pictures are halved at turning points; pool by default
    decomposition: Literal["pool", "wavelet", "dct"] | None = None
    share: Annotated[int, Ge(0)] = 0  # timesteps below this one tell the network the time of their interval; 0: none
    intervals: Annotated[int | None, Ge(1)] = None  # how many intervals --share has; 5 by default
    # channels of each resolution of the network, once a resolution; 48, 96 and 128 by default
    channels: Annotated[tuple[int, ...], Ge(1)] = ()
    only_below: Annotated[int | None, Ge(1)] = None  # train the timesteps below this one alone, for a short retrofit
    precision: Literal["no", "bf16", "fp16"] = "no"  # mixed precision: no, bf16 or fp16
    seed: Annotated[int, Ge(0)] = 0  # seed of the weights, the order and the noise
    save_every: Annotated[int, Ge(1)] = 500  # steps between checkpoints, each with a sheet of samples in the run folder
    samples: Annotated[int, Ge(1), Le(1024)] = 16  # pictures on the sheet
    # pictures drawn with every checkpoint for the Fréchet distance to as many given ones, in features of emoji-clip-vit;
    # 0 for none
    measured: Annotated[int, Ge(0)] = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.turning and self.budget is not None:
            raise DataError("expected --turning or --budget, found both; leave one out")
        for name in ("lowest", "decomposition"):
            if getattr(self, name) is not None and not self.turning and self.budget is None:
                raise FieldError(name, "says how dimensions go; add --turning or --budget")
        if self.intervals is not None and not self.share:
            raise FieldError("intervals", "says how early timesteps share; add --share")

    def training(self, start: DiffusionModel | None) -> TrainingConfig:
        """What decides the weights."""
        return TrainingConfig(
            steps=self.steps,
            batch=self.batch,
            accumulation=self.accumulation,
            learning_rate=self.lr,
            precision=self.precision,
            timesteps=None if self.only_below is None else (0, self.only_below),
            start="" if start is None else start.digest(),
            seed=self.seed,
        )


@method(
    command="train diffusion",
    examples=(
        "Example: photopic train diffusion emoji-scenes -o plain",
        "Fewer pixels in the noisy half: add --turning 300 --turning 600",
        "Shared early timesteps: add --share 100 --intervals 5",
        "Several GPUs: accelerate launch -m photopic train diffusion ...",
    ),
    after=("{output}: trained on {pictures} pictures; {found}",),
)
def diffusion(
    data: PictureSet,
    *,
    start: Annotated[DiffusionModel | None, Flags("--start")] = None,
    config: DiffusionConfig = DiffusionConfig(),
    run: Run | None = None,
) -> Steps[DiffusionModel]:
    """Train a diffusion model on pictures: any noise schedule and prediction, on one device or several.

    Two changes can be had alone or together: --turning drops the pixels of the noisy half, --share gives early timesteps one
    time input. With --run the folder keeps the log and a sheet of samples for every checkpoint.

    Args:
        data: Pictures; the emoji world's scenes to try it.
        start: A trained model to go on from, its network and process: a folder of this command, or of an unconditional diffusers
            pipeline. Add --share to retrofit it.
        config: What to train and how.
        run: Folder for the log, checkpoints and samples.

    Returns:
        The model of the averaged weights.

    Raises:
        DataError: If options exclude each other, or there are no pictures.
        ModelError: If sizes, turning points or batches do not go together.
        TrainingError: If the loss or its gradient is no longer finite.

    Example:
        >>> config = DiffusionConfig(size=16, channels=(8, 16), steps=1, batch=2, measured=0)
        >>> diffusion(PictureSet("emoji-scenes:2"), config=config).size
        16
    """
    for name in OF_A_START if start is not None else ():
        if getattr(config, name):
            raise DataError(f"expected --{name} or --start, found both; {start.name} has its own")  # type: ignore[union-attr]
    accelerator = Accelerator(mixed_precision=config.precision)
    size = config.size or (64 if start is None else start.size)
    yield Event("reading pictures")
    images = data.read(size)  # (n, size, size, 3)
    process = yield from _process(images, start, config)
    network: Any
    if start is None:
        network = unet(size, config.channels or (48, 96, 128), levels=process.pyramid.levels, seed=config.seed)
    else:
        network = deepcopy(start.network).requires_grad_(True)  # the given one stays as it is
        check_size(size, network.config.block_out_channels, process.pyramid.levels)
    training = config.training(start)
    check_training(process, images, training, accelerator)
    watched = Samples(images, config.samples, config.measured, run) if accelerator.is_main_process else None
    numbers: dict[str, float] = {}
    for event in training_steps(network, process, images, training, accelerator, run=run, save_every=config.save_every):
        numbers |= event.numbers
        if event.result is not None:
            model = event.result
            numbers |= {} if watched is None else watched.look(model, event.done)
        yield Event("training", event.done, event.total, dict(numbers))
    found = [f"loss {numbers['loss']:.4f}"]
    if "distance" in numbers:
        found.append(f"Fréchet distance {numbers['distance']:.4f} from {len(images[: config.measured])} pictures")
    return replace(model, provenance={"pictures": len(images), "found": ", ".join(found)} | numbers)


def _process(
    images: UInt8[Tensor, "n h w 3"], start: DiffusionModel | None, config: DiffusionConfig
) -> Steps[Diffusion]:
    """The process that is trained: that of the start or a plain one, with turning points and shared timesteps as asked for."""
    schedule = Schedule.of_kind(config.schedule or "linear")
    process = Diffusion(schedule, config.prediction or "epsilon") if start is None else start.process
    if config.turning or config.budget is not None:
        lowest = DimensionalityConfig.lowest if config.lowest is None else config.lowest
        varying = DimensionalityConfig(config.turning, lowest, kind=config.decomposition or "pool")
        if config.budget is not None:
            norms = detail_norms(from_pixels(images[:PROBED]), Pyramid(2, varying.kind))
            varying = replace(
                varying, turning=turning_points(process.schedule, norms, config.budget, lowest=varying.lowest)
            )
            yield Event("reading pictures", warning=f"turning points {', '.join(map(str, varying.turning))}")
        process = dimensionality_varying(
            process.schedule, varying, prediction=process.prediction, time_map=process.time_map
        )
    return shared(process, SharedTimestepsConfig(config.share, config.intervals or 5)) if config.share else process
