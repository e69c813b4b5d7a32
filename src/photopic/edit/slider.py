"""Pictures of a generator at several weights of one edit, as a slider would draw them; afterwards it is taken off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le

from photopic.core.config import Config
from photopic.core.edits import Edit
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.results import Report
from photopic.core.view import PictureRows, Section, Table, View
from photopic.data.pictures import picture_of, text_of
from photopic.data.pixels import to_pixels
from photopic.metrics.locality import check_frozen
from photopic.models.generator import Generator


@dataclass(frozen=True, kw_only=True)
class SliderConfig(Config):
    """What is drawn."""

    weights: tuple[float, ...] = (-1.0, -0.5, 0.0, 0.5, 1.0)  # of the edit, commas between: one a column
    pictures: Annotated[int, Ge(1)] = 4  # pictures, one a row
    truncation: Annotated[float, Gt(0), Le(1)] = 1.0  # how far pictures lie from the mean one
    seed: Annotated[int, Ge(0)] = 0  # seed of all pictures


def slider_view(report: Report) -> View:
    """A row a picture, a column a weight, and how much each weight changes."""
    weights = report.values["weights"]
    rows = [(row["picture"], [picture_of(each) for each in row["drawn"]]) for row in report.rows]
    changes = [
        [f"{weight:g}", f"{change:.5f}"] for weight, change in zip(weights, report.values["change"], strict=True)
    ]
    table = Table(["weight", "mean squared change"], changes, "Of pictures in -1 to 1, against the base")
    return View(
        "Slider", [Section("", [PictureRows(rows, f"Weights {', '.join(f'{each:g}' for each in weights)}"), table])]
    )


@method(
    paper="arXiv:2106.04488",
    claims="gan.low_rank.",
    command="edit slider",
    examples=("Example: photopic edit slider eyes.edit --weights -1,0,1 -o slider.html",),
    view=slider_view,
)
def slider(
    edit: Edit,
    model: Generator,
    *,
    config: SliderConfig = SliderConfig(),
) -> Steps[Report]:
    """Draw the same pictures of a generator at several weights of an edit.

    Args:
        edit: Any edit of the generator: a direction of w, styles, or learnt weights.
        model: The generator it is of.
        config: Which weights, on which pictures.

    Returns:
        A row a picture with it at each weight; ``values`` hold the ``weights``, each one's mean squared ``change``, and whether
        with the edit taken off pictures are the base's to the bit (``restored``).

    Raises:
        EditError: If the edit is of another model.
        ModelError: If random noise is on.

    Example:
        >>> slider(edit, model).values["change"][2]  # of weight 0  # doctest: +SKIP
        0.0
    """
    z = model.sample_z(config.pictures, config.seed)
    with torch.no_grad():
        check_frozen(model, model.map(z[:1]))

    @torch.no_grad()
    def drawn() -> torch.Tensor:
        return torch.cat([model.synthesize(model.map(each, config.truncation)) for each in z.split(16)])

    base, columns = drawn(), []
    for index, weight in enumerate(config.weights):
        yield Event("drawing", index, len(config.weights))
        with model.edits.applied(edit, weight=weight):
            columns.append(drawn())
    changes = [float((each - base).square().mean()) for each in columns]
    rows = tuple(
        {"picture": f"{config.seed}/{index}", "drawn": [text_of(to_pixels(each[index][None])[0]) for each in columns]}
        for index in range(config.pictures)
    )
    restored = torch.equal(base, drawn())
    return Report("edit slider", {"weights": list(config.weights), "change": changes, "restored": restored}, rows)
