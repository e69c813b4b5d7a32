"""Draw one region of generated pictures again and leave the rest: the linked numbers of w are taken from other samples.

Paper: *LinkGAN* (arXiv:2301.04604), whose training is ``tune.latent.linked_latents``. Claims ``gan.linked.*``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le

from photopic.core.config import Config
from photopic.core.edits import Edit
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.results import Report
from photopic.core.view import PictureRows, Section, Table, View
from photopic.data.picture_region import region_mask
from photopic.data.pictures import picture_of, text_of
from photopic.data.pixels import to_pixels
from photopic.metrics.locality import change_within
from photopic.models.generator import Generator


@dataclass(frozen=True, kw_only=True)
class RerollConfig(Config):
    """What is drawn."""

    link: Annotated[int, Ge(1)] = 1  # which of the linked regions, in the order they were given
    pictures: Annotated[int, Ge(1)] = 4  # pictures, one a row
    count: Annotated[int, Ge(1)] = 6  # how often the region of each is drawn again
    truncation: Annotated[float, Gt(0), Le(1)] = 1.0  # how far pictures lie from the mean one
    seed: Annotated[int, Ge(0)] = 0  # seed of all pictures


def reroll_view(report: Report) -> View:
    """Each picture, then itself with its region drawn again."""
    rows = [(row["picture"], [picture_of(each) for each in row["drawn"]]) for row in report.rows]
    names = ("inside", "outside", "inside_total", "outside_total")
    table = Table(
        ["mean squared change", ""], [[name.replace("_", ", by "), f"{report.values[name]:.5f}"] for name in names]
    )
    return View(
        f"{report.values['region']}, drawn again",
        [Section("", [PictureRows(rows, "First as it was, then with other samples' numbers of the region"), table])],
    )


@method(
    paper="arXiv:2301.04604",
    claims="gan.linked.",
    command="edit reroll",
    examples=("Example: photopic edit reroll linked.edit -o rerolled.html",),
    view=reroll_view,
)
def reroll(
    edit: Edit,
    model: Generator,
    *,
    config: RerollConfig = RerollConfig(),
) -> Steps[Report]:
    """Draw one region of pictures again, the rest as it was, with a generator whose latents were linked.

    Args:
        edit: What ``photopic tune linked`` learnt.
        model: The generator it was learnt of.
        config: What is drawn.

    Returns:
        A row a picture, with the pictures themselves; ``values`` hold the mean squared change inside and outside the region.

    Raises:
        DataError: If the edit links nothing, or not so many regions.
        EditError: If it is of another model.

    Example:
        >>> reroll(edit, model).values["outside"]  # doctest: +SKIP
        0.004
    """
    links = edit.provenance.get("links", ())
    if len(links) < config.link:
        raise DataError(f"link: expected an edit of tune linked with {config.link} regions or more, found {len(links)}")
    link, total = links[config.link - 1], config.pictures * (1 + config.count)
    mask = torch.from_numpy(region_mask(link["region"], model.resolution)).to(model.device)
    yield Event("drawing")
    with torch.no_grad(), model.edits.applied(edit):
        w = model.map(model.sample_z(total, config.seed), config.truncation)
        one = w[: config.pictures].repeat_interleave(config.count, 0)
        after = model.synthesize(rerolled(one, w[config.pictures :], link["first"], link["count"]))
        before = model.synthesize(w[: config.pictures])
    change = change_within(before.repeat_interleave(config.count, 0), after, mask)
    drawn = torch.cat([before[:, None], after.unflatten(0, (-1, config.count))], 1)  # (pictures, 1 + count, 3, h, w)
    rows = tuple(
        {"picture": f"{config.seed}/{index}", "drawn": [text_of(each) for each in to_pixels(row)]}
        for index, row in enumerate(drawn)
    )
    return Report("edit reroll", {"region": link["region"], **change._asdict()}, rows)


def rerolled(w: torch.Tensor, other: torch.Tensor, first: int, count: int) -> torch.Tensor:
    """w with some of its numbers from another; every other number is the same to the bit.

    Example:
        >>> rerolled(torch.zeros(1, 4), torch.ones(1, 4), 1, 2)
        tensor([[0., 1., 1., 0.]])
    """
    return torch.cat([w[:, :first], other[:, first : first + count], w[:, first + count :]], 1)
