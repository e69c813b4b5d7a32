"""How local an edit of a generator is: what it changes inside a region and outside, at several step sizes, and what drifts beside
it.

The one report that makes local directions, linked latents, extrapolations and projections comparable; pictures before and after
share latents and the stored noise. Metric: masked mean squares, as LowRankGAN (arXiv:2106.04488) and LinkGAN (arXiv:2301.04604)
print them; by area for ratios, by total as their tables probably are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float
from torch import Tensor

from photopic.core.config import Config, Flags
from photopic.core.edits import Edit
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.results import Report
from photopic.core.view import PictureRows, Section, Table, View
from photopic.data.picture_region import region_mask
from photopic.data.pictures import picture_of, text_of
from photopic.data.pixels import to_pixels
from photopic.metrics.locality import change_within, check_frozen
from photopic.metrics.measurements import NAMES, measurement
from photopic.models.generator import Generator

BATCH = 32


@dataclass(frozen=True, kw_only=True)
class LocalityConfig(Config):
    """At which steps, on which pictures."""

    weights: tuple[float, ...] = (
        0.25,
        0.5,
        1.0,
    )  # weights of the edit, commas between: the ratio falls as the step grows
    samples: Annotated[int, Ge(2)] = 64  # pictures that are measured
    strips: Annotated[int, Ge(0)] = 4  # pictures shown as strips, from the last weight below 0 to that above
    truncation: Annotated[float, Gt(0), Le(1)] = 1.0  # how far pictures lie from the mean one
    seed: Annotated[int, Ge(0)] = 0  # seed of the pictures


def locality_view(report: Report) -> View:
    """The table of step sizes, the drift, and strips of pictures as a slider would draw them."""
    changes = Table(
        ["weight", "inside", "outside", "ratio", "inside, by total", "outside, by total"],
        [
            [row["weight"], *(f"{row[name]:.5f}" for name in ("inside", "outside")), f"{row['ratio']:.2f}",
             *(f"{row[name]:.5f}" for name in ("inside_total", "outside_total"))]
            for row in report.rows
        ],
        "Mean squared change of pictures of -1 to 1",
    )  # fmt: skip
    drift = Table(
        ["weight", *NAMES],
        [[row["weight"], *(f"{row['drift_' + name]:.3f}" for name in NAMES)] for row in report.rows],
        "Mean change of measurements outside the region, in standard deviations over pictures",
    )
    strips = [(each["picture"], [picture_of(one) for one in each["strip"]]) for each in report.values["strips"]]
    shown = [PictureRows(strips, f"Weights {', '.join(map(str, report.values['strip_weights']))}")] if strips else []
    return View("Locality", [Section("", [*shown, changes, drift])], f"Region: {report.values['region']}")


@method(
    paper="arXiv:2106.04488 arXiv:2301.04604",
    claims="gan.low_rank. gan.linked.",
    command="measure locality",
    examples=("Example: photopic measure locality eyes.edit --region 0.2,0.3,0.8,0.5 -o locality.html",),
    view=locality_view,
)
def locality(
    edit: Edit,
    model: Generator,
    *,
    region: Annotated[str, Flags("--region")],
    config: LocalityConfig = LocalityConfig(),
) -> Steps[Report]:
    """Measure what an edit of a generator changes inside a region and outside.

    Args:
        edit: Any edit of the generator: a direction, styles, or learnt weights.
        model: The generator it is of. Its noise is the stored one.
        region: left,top,right,bottom as fractions of the picture, or a mask picture that is light inside.
        config: At which steps, on which pictures.

    Returns:
        A row a weight: mean squared change ``inside`` and ``outside`` by area, ``inside_total`` and ``outside_total`` by the
        whole picture, ``ratio`` of those by area (None where nothing changes outside), and ``drift_`` of each measurement outside
        the region.

    Raises:
        DataError: If the region is empty or the whole picture.
        EditError: If the edit is of another model.
        ModelError: If random noise is on.

    Example:
        >>> locality(edit, model, region="0,0,0.5,0.5").rows[0]["ratio"]  # doctest: +SKIP
        49.2
    """
    mask = torch.from_numpy(region_mask(region, model.resolution)).to(model.device)
    z = model.sample_z(config.samples, config.seed)
    with torch.no_grad():
        check_frozen(model, model.map(z[:1]))
    before, rows = pictures_of(model, z, config.truncation), []
    watched = {name: measurement(name, ~mask) for name in NAMES}
    for index, weight in enumerate(config.weights):
        yield Event("measuring", index, len(config.weights))
        after = edited(model, edit, weight, z, config.truncation)
        change = change_within(before, after, mask)
        drift = {
            f"drift_{name}": float((each(after) - each(before)).abs().mean() / each(before).std().clamp(min=1e-12))
            for name, each in watched.items()
        }
        ratio = change.ratio if np.isfinite(change.ratio) else None
        rows.append({"weight": weight, **change._asdict(), "ratio": ratio, **drift})
    top = max(map(abs, config.weights))
    steps = [round(top * share, 4) for share in (-1, -0.5, 0, 0.5, 1)] if config.strips else []
    drawn = [edited(model, edit, each, z[: config.strips], config.truncation) for each in steps]
    strips = [
        {
            "picture": f"seed {config.seed}, {index + 1}",
            "strip": [text_of(to_pixels(each[index][None])[0]) for each in drawn],
        }
        for index in range(min(config.strips, config.samples))
    ]
    return Report("measure locality", {"region": region, "strip_weights": steps, "strips": strips}, tuple(rows))


def edited(model: Generator, edit: Edit, weight: float, z: Tensor, truncation: float) -> Float[Tensor, "n 3 h w"]:
    """The pictures of latents under an edit at a weight; at 0 those of the base."""
    if not weight:
        return pictures_of(model, z, truncation)
    with model.edits.applied(edit, weight=weight):
        return pictures_of(model, z, truncation)


@torch.no_grad()
def pictures_of(model: Generator, z: Tensor, truncation: float) -> Float[Tensor, "n 3 h w"]:
    """The pictures of latents under what is in force."""
    return torch.cat([model.synthesize(model.map(each, truncation)) for each in z.split(BATCH)])
