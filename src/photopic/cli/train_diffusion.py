"""``photopic train``: train a model of one's own.

photopic train diffusion pictures/ --size 64 --turning 300 --turning 600 -o runs/mine
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from photopic.cli.places import check_folder
from photopic.cli.says import say
from photopic.core.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from photopic.models.diffusion import Diffusion
    from photopic.models.diffusion.dimensionality import DimensionalityConfig
    from photopic.models.diffusion.model import DiffusionModel

EPILOG = (
    "Example: photopic train diffusion emoji-scenes -o runs/plain    "
    "Fewer pixels in the noisy half: add --turning 300 --turning 600    "
    "Shared early timesteps: add --share 100 --intervals 5    "
    "Several GPUs: accelerate launch -m photopic train diffusion ..."
)


def diffusion(
    data: Annotated[
        str,
        typer.Argument(
            help="A folder of pictures, or emoji-scenes: scenes of the emoji world, emoji-scenes:5000 for so many."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run: log, checkpoint, samples, model.")],
    size: Annotated[
        int | None,
        typer.Option(min=8, max=4096, help="Side of the pictures in pixels.", show_default="64, or that of --start"),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of training.")] = 20_000,
    batch: Annotated[int, typer.Option(min=1, help="Pictures a step, of all processes together.")] = 64,
    accumulation: Annotated[int, typer.Option(min=1, help="Compute a batch in so many parts, for less memory.")] = 1,
    lr: Annotated[float, typer.Option(min=0.0, help="Learning rate at its peak.")] = 3e-4,
    schedule: Annotated[
        Literal["linear", "scaled-linear", "quadratic", "cosine"] | None,
        typer.Option(help="Of the noise.", show_default="linear, or that of --start"),
    ] = None,
    prediction: Annotated[
        Literal["epsilon", "velocity", "sample"] | None,
        typer.Option(help="What the network puts out.", show_default="epsilon, or that of --start"),
    ] = None,
    turning: Annotated[
        list[int] | None,
        typer.Option(
            help="Timestep after which pictures are half as large; once a halving.",
            show_default="full size throughout, or as --start",
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Choose two turning points instead, the earliest that cost at most this total variation each.",
        ),
    ] = None,
    lowest: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="What is left of a detail when it is dropped; 1: nothing fades.", show_default="0.01"
        ),
    ] = None,
    decomposition: Annotated[
        Literal["pool", "wavelet", "dct"] | None,
        typer.Option(help="How pictures are halved at turning points.", show_default="pool"),
    ] = None,
    share: Annotated[
        int, typer.Option(min=0, help="Timesteps below this one tell the network the time of their interval; 0: none.")
    ] = 0,
    intervals: Annotated[
        int | None, typer.Option(min=1, help="How many intervals --share has.", show_default="5")
    ] = None,
    channels: Annotated[
        list[int] | None,
        typer.Option(help="Channels of each resolution of the network; once a resolution.", show_default="48 96 128"),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            help="Go on from a trained model, its network and its process: a folder of this command, or of an unconditional "
            "diffusers pipeline. Give --share to retrofit it."
        ),
    ] = None,
    only_below: Annotated[
        int | None, typer.Option(min=1, help="Train the timesteps below this one alone, for a short retrofit.")
    ] = None,
    precision: Annotated[Literal["no", "bf16", "fp16"], typer.Option(help="Mixed precision.")] = "no",
    seed: Annotated[int, typer.Option(min=0, help="Of the weights, the order and the noise.")] = 0,
    save_every: Annotated[
        int, typer.Option(min=1, help="Steps between checkpoints, each with a sheet of samples.")
    ] = 500,
    samples: Annotated[int, typer.Option(min=1, help="Pictures on the sheet.")] = 16,
    measured: Annotated[
        int,
        typer.Option(
            min=0,
            help="Pictures drawn with every checkpoint for the Fréchet distance to as many given ones, in features of "
            "emoji-clip-vit; 0: none.",
        ),
    ] = 256,
) -> None:
    """Train a diffusion model on pictures: any noise schedule and prediction, on one device or several.

    Two changes can be had alone or together: --turning drops the pixels of the noisy half, --share gives early timesteps
    one time input. The folder holds the model in the end: DiffusionModel.load("FOLDER/model").
    """
    check_folder(output)
    from accelerate import Accelerator

    from photopic.core.fingerprint import fingerprint
    from photopic.core.runs import Run, read_log
    from photopic.models.diffusion import Diffusion, Schedule
    from photopic.models.diffusion.dimensionality import DimensionalityConfig
    from photopic.models.diffusion.model import DiffusionModel
    from photopic.models.diffusion.networks import check_size, unet
    from photopic.models.diffusion.shared_timesteps import SharedTimestepsConfig, shared
    from photopic.report.progress import bars, waiting
    from photopic.train.diffusion.training import TrainingConfig, train_events

    for name, value in (("--channels", channels), ("--schedule", schedule), ("--prediction", prediction)):
        if start is not None and value:
            raise DataError(f"expected {name} or --start, found both; {start} has its own")
    for name, given_value in (("--lowest", lowest), ("--decomposition", decomposition)):
        if given_value is not None and not turning and budget is None:
            raise DataError(f"{name}: says how dimensions go; add --turning or --budget")
    if intervals is not None and not share:
        raise DataError("--intervals: says how early timesteps share; add --share")
    accelerator = Accelerator(mixed_precision=precision)
    given = None if start is None else DiffusionModel.load(start)
    size = size or (64 if given is None else given.size)
    with waiting(f"reading {data}"):
        from photopic.data.picture_set import PictureSet

        images = PictureSet(data).read(size)
    base = (
        Diffusion(Schedule.of_kind(schedule or "linear"), prediction or "epsilon") if given is None else given.process
    )
    process = base
    if turning or budget is not None:
        config = DimensionalityConfig(
            tuple(turning or ()), 0.01 if lowest is None else lowest, kind=decomposition or "pool"
        )
        process = _varying(images, base, config, budget, said=accelerator.is_main_process)
    if share:
        process = shared(process, SharedTimestepsConfig(share, intervals or 5))
    network: Any
    if given is None:
        network = unet(size, tuple(channels or (48, 96, 128)), levels=process.pyramid.levels, seed=seed)
    else:
        network = given.network.requires_grad_(True)
        check_size(size, network.config.block_out_channels, process.pyramid.levels)
    training = TrainingConfig(
        steps=steps,
        batch=batch,
        accumulation=accumulation,
        learning_rate=lr,
        precision=precision,
        timesteps=(0, only_below) if only_below else None,
        start="" if given is None else fingerprint({"network": network}, str(start)).digest,
        seed=seed,
    )
    model, distance = None, None
    judged = min(measured, len(images)) > 1 and accelerator.is_main_process
    judge = _Judge(images[:measured]) if judged else None
    measured_before = {line["step"]: line["distance"] for line in read_log(output) if "distance" in line}
    with bars(hidden=not accelerator.is_main_process) as shown:
        task = shown.add_task("training", total=steps, remark="")
        smooth = None
        for event in train_events(
            network, process, images, output, training, save_every=save_every, accelerator=accelerator
        ):
            smooth = event.loss if smooth is None else 0.98 * smooth + 0.02 * event.loss
            if event.model is not None and accelerator.is_main_process:
                shown.update(task, completed=event.step, remark=f"loss {smooth:.4f}, drawing samples")
                model = event.model
                _sheet(model, output / "samples" / f"{event.step:06d}.png", samples)
                if judge is not None and (distance := measured_before.get(event.step)) is None:
                    distance = judge.distance(model)
                    Run(output).log(step=event.step, distance=distance, elapsed_s=round(event.elapsed_s, 3))
            remark = f"loss {smooth:.4f}" + ("" if distance is None else f", last distance {distance:.4f}")
            shown.update(task, completed=event.step, remark=remark)
    if model is None or not accelerator.is_main_process:
        return
    model.save(output / "model")
    line = f"{output / 'model'}: trained for {steps} steps on {len(images)} pictures; samples in {output / 'samples'}"
    if distance is not None:
        line += f"; Fréchet distance {distance:.4f} from {len(images[:measured])} pictures"
    say(line)


def _varying(
    images: Tensor, base: Diffusion, config: DimensionalityConfig, budget: float | None, *, said: bool
) -> Diffusion:
    """The base with these turning points, or with two that keep a budget."""
    from photopic.models.diffusion import Pyramid
    from photopic.models.diffusion.dimensionality import detail_norms, dimensionality_varying, turning_points
    from photopic.models.diffusion.model import from_pixels

    if budget is not None:
        if config.turning:
            raise DataError("expected --turning or --budget, found both; leave one out")
        norms = detail_norms(from_pixels(images[:512]), Pyramid(2, config.kind))
        config = replace(config, turning=turning_points(base.schedule, norms, budget, lowest=config.lowest))
        if said:
            say(f"turning points {', '.join(map(str, config.turning))}", err=True)
    return dimensionality_varying(base.schedule, config, prediction=base.prediction, time_map=base.time_map)


def _sheet(model: DiffusionModel, path: Path, count: int) -> None:
    from photopic.core.runs import write_atomically
    from photopic.data.pictures import contact_sheet, png_bytes

    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = model.draw(range(count), solver="dpm++", steps=15)
    write_atomically(path, png_bytes(contact_sheet(list(drawn))))


class _Judge:
    """Fréchet distance of drawn pictures to given ones, as many, in features of the bundled dual encoder."""

    def __init__(self, real: Tensor) -> None:
        from photopic.models.dual_encoder import DualEncoder

        self.encoder = DualEncoder.load("emoji-clip-vit")
        self.count = len(real)
        self.real = self.encoder.image_features(real.numpy()).numpy()

    def distance(self, model: DiffusionModel) -> float:
        import numpy as np

        from photopic.metrics.frechet import frechet_distance

        drawn = [
            model.draw(range(first, min(first + 32, self.count)), solver="dpm++", steps=15)
            for first in range(0, self.count, 32)
        ]
        return frechet_distance(self.encoder.image_features(np.concatenate(drawn)).numpy(), self.real)
