"""Features of a diffusion model: how well classes can be read off its UNet, block by block and timestep by timestep.

Pictures are noised to a timestep, the frozen UNet looks at them once, each block's output is averaged over a coarse grid, and a
linear probe is fitted on the training pictures and judged on others.

Paper: Diffusion Models Beat GANs on Image Classification (arXiv:2307.08702). Changed: a text-to-image UNet told an empty prompt;
the probe is ridge regression on classes, in closed form. Claims: ``diffusion_features.*`` of benchmarks/measure/perception.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from photopic.core.config import Config
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.nn.hooks import tap
from photopic.core.results import Report
from photopic.core.view import Lines, Section, Table, Text, View
from photopic.data.few_shot import FewShotTask, LabelledImages
from photopic.measure._common import preprocessing_of
from photopic.metrics.intervals import wilson
from photopic.models.preprocessing import arrays
from photopic.models.text_to_image.handle import TextToImage

BATCH = 32  # pictures at a time
Features = Float[Tensor, "n width"]


@dataclass(frozen=True, kw_only=True)
class DiffusionFeaturesConfig(Config):
    """Where to look, and how."""

    timesteps: Annotated[tuple[int, ...], Ge(0)] = (
        10,
        50,
        100,
        250,
        500,
        900,
    )  # how far pictures are noised, commas between
    grid: Annotated[int, Ge(1)] = 2  # cells along a side that a block's output is averaged over
    ridge: Annotated[float, Gt(0)] = 100.0  # pull of the probe's weights to 0
    seed: Annotated[int, Ge(0)] = 0  # seed of everything random; the same seed measures the same


def features_view(report: Report) -> View:
    """The best place, a curve over timesteps for each block, and all numbers."""
    values = report.values
    best = f"best: {values['block']} at timestep {values['timestep']}, {values['best']:.1%}; pixels {values['pixels']:.1%}, "
    lead = best + f"latents {values['latents']:.1%}, chance {values['chance']:.1%}"
    blocks = list(dict.fromkeys(row["block"] for row in report.rows))
    curves = [
        (block, [(float(row["timestep"]), row["accuracy"]) for row in report.rows if row["block"] == block])
        for block in blocks
    ]
    rows = [
        [row["block"], row["timestep"], f"{row['accuracy']:.1%}", f"{row['low']:.1%} to {row['high']:.1%}"]
        for row in report.rows
    ]
    sections = [
        Section("By block and timestep", [Text(lead), Lines(curves, "timestep", "accuracy")]),
        Section("Numbers", [Table(["block", "timestep", "accuracy", "95 % interval"], rows)]),
    ]
    return View("What the UNet knows of classes", sections, lead=lead)


@method(
    paper="arXiv:2307.08702",
    claims="diffusion_features.",
    command="measure features",
    examples=("Example: photopic measure features emoji:groups --shots 16 --timesteps 10,100 -o features.html",),
    view=features_view,
    allow_edits=True,
)
def diffusion_features(
    model: TextToImage, data: FewShotTask, *, config: DiffusionFeaturesConfig = DiffusionFeaturesConfig()
) -> Steps[Report]:
    """Measure what the blocks of a diffusion model know of your classes, by linear probes over blocks and timesteps.

    Args:
        model: A text-to-image model, with or without edits in force.
        data: Pictures of each class to fit on, and others to judge on.
        config: Where to look, and how.

    Returns:
        A row a block and timestep with its ``accuracy`` and interval; ``values`` name the best, and hold the accuracy of the same
        probe on pixels and on the latents of the picture.

    Raises:
        DataError: If no picture is kept apart to judge on, or a timestep is beyond the process.
        ModelError: If the model has a transformer in the place of a UNet.

    Example:
        >>> diffusion_features(model, task).values["block"]  # doctest: +SKIP
        'mid_block'
    """
    if data.test is None or not len(data.test):
        raise DataError("pictures: expected some to judge on, found none; lower --shots to keep some apart")
    if (far := max(config.timesteps)) >= model.timesteps:
        raise DataError(f"--timesteps: expected less than {model.timesteps}, found {far}")
    model.check_unet("features are read from the blocks of a UNet")
    parts = (data.train, data.test)
    truth = [torch.from_numpy(each.labels) for each in parts]
    pixels = [pixels_of(model, each) for each in parts]
    latents = [torch.cat([model.encode_images(batch) for batch in each.split(BATCH)]) for each in pixels]
    found: dict[tuple[str, int], list[Features]] = {}
    for done, timestep in enumerate(config.timesteps, 1):
        for part, each in enumerate(latents):
            for block, features in block_features(model, each, timestep, config, part).items():
                found.setdefault((block, timestep), []).append(features)
        yield Event("looking", done, len(config.timesteps))
    rows: list[dict[str, Any]] = []
    for (block, timestep), (train, test) in found.items():
        share = wilson(int((probed(train, truth[0], test, config.ridge) == truth[1]).sum()), len(truth[1]))
        rows.append(
            {"block": block, "timestep": timestep, "accuracy": share.value, "low": share.low, "high": share.high}
        )
    best = max(rows, key=lambda row: row["accuracy"])
    values = {
        "best": best["accuracy"],
        "block": best["block"],
        "timestep": best["timestep"],
        "chance": 1 / len(data.train.names),
    }
    for name, (train, test) in {"pixels": pixels, "latents": latents}.items():
        flat = [each.flatten(1).float().cpu() for each in (train, test)]
        values[name] = float((probed(flat[0], truth[0], flat[1], config.ridge) == truth[1]).float().mean())
    return Report("diffusion features", values, tuple(rows), {"images": len(data.train), "judged": len(data.test)})


def pixels_of(model: TextToImage, data: LabelledImages) -> Float[Tensor, "n 3 side side"]:
    """Pictures in the model's size, -1 to 1."""
    prepare = preprocessing_of(model)
    return prepare(arrays([data.images[number] for number in range(len(data))])).to(model.device, model.dtype)


@torch.no_grad()
def block_features(
    model: TextToImage,
    latents: Float[Tensor, "n c h w"],
    timestep: int,
    config: DiffusionFeaturesConfig,
    part: int,
) -> Mapping[str, Features]:
    """The output of every block, averaged over a coarse grid, at one timestep; a picture's noise depends on its place alone."""
    blocks = [*(f"down_blocks.{n}" for n in range(len(model.unet.down_blocks))), "mid_block"]
    blocks += [f"up_blocks.{n}" for n in range(len(model.unet.up_blocks))]
    said = model.encode_prompts("")
    generator = torch.Generator().manual_seed(2 * config.seed + part)
    found: dict[str, list[Tensor]] = {block: [] for block in blocks}
    for batch in latents.split(BATCH):
        noise = torch.randn(batch.shape, generator=generator).to(batch)
        time = torch.full((len(batch),), timestep, device=batch.device)
        with tap(model.unet, *blocks) as seen:
            model.predict(model.schedule.add_noise(batch, noise, time), time, said[[0] * len(batch)])
        for block in blocks:
            value = seen[block][0]
            value = value[0] if isinstance(value, tuple) else value  # (n, channels, rows, columns)
            found[block].append(F.adaptive_avg_pool2d(value.float(), config.grid).flatten(1).cpu())
    return {block: torch.cat(each) for block, each in found.items()}


def probed(
    train: Features, labels: Int64[Tensor, " n"], test: Float[Tensor, "m width"], ridge: float
) -> Int64[Tensor, " m"]:
    """The class of each test row by ridge regression on classes: W = (X'X + r I)^-1 X'Y of standardised X, in its dual form.

    Example:
        >>> rows = torch.tensor([[0.0, 1.0], [0.1, 0.9], [1.0, 0.0], [0.9, 0.1]])
        >>> probed(rows, torch.tensor([0, 0, 1, 1]), torch.tensor([[0.2, 1.0], [1.0, 0.3]]), 0.1)
        tensor([0, 1])
    """
    mean, spread = train.mean(0), train.std(0).clamp(min=1e-6)
    x, z = ((each - mean) / spread for each in (train.double(), test.double()))
    y = F.one_hot(labels).double()
    y = y - y.mean(0)
    gram = x @ x.T + ridge * torch.eye(len(x), dtype=x.dtype)  # (n, n): fewer pictures than numbers
    return (z @ (x.T @ torch.linalg.solve(gram, y))).argmax(1)
