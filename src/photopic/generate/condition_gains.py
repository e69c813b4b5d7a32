"""What a conditional model makes of each condition: how much nearer pictures come to it, and what else it moves; a k x k table.

Pictures are taken apart. From the same noise one is drawn for each without conditions, under each condition alone, and under the
same condition of the next picture, which must not help. A condition's gain is by how much its error falls; its leak on another
condition the share by which that one's error falls.

Paper: *Composer: Creative and Controllable Image Synthesis with Composable Conditions* (arXiv:2302.09778). The paper shows
pictures; the table is ours. Claims ``composer.*`` of benchmarks/generate/composer.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge
from jaxtyping import Float, UInt8

from photopic.core.config import Config, Flags
from photopic.core.errors import DataError, ModelError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.results import Report
from photopic.core.view import Interval, Intervals, PictureRows, Section, Table, View
from photopic.data.conditioned_pictures import ConditionedPictures
from photopic.data.conditions import EIGHT, Conditions
from photopic.data.extraction import from_picture, masked, random_hidden
from photopic.generate.conditions import ComposedConditions
from photopic.metrics.conditions import condition_errors
from photopic.metrics.intervals import paired_bootstrap
from photopic.models.depth_network import with_depth
from photopic.models.dual_encoder import DualEncoder
from photopic.models.text_to_image.conditional import ConditionalTextToImage, embedded
from photopic.models.text_to_image.handle import TextToImage

SHOWN = 5  # pictures in the grid
NOTHING, EVERYTHING = "nothing", "everything"
Errors = dict[str, Float[np.ndarray, " pictures"]]


@dataclass(frozen=True, kw_only=True)
class ConditionGainsConfig(Config):
    """How pictures are drawn."""

    steps: Annotated[int, Ge(1)] = 10  # denoising steps of a picture
    guidance: Annotated[float, Ge(0)] = 1.0  # weight of the conditions; 1 is what the model learnt
    batch: Annotated[int, Ge(1)] = 16  # pictures drawn together
    seed: Annotated[int, Ge(0)] = 0  # of the first picture's noise, and of what the masked pictures hide


@dataclass(frozen=True)
class Gains(Report):
    """A report with its pictures.

    Attributes:
        grid: The first sources, and by what was kept of them what was drawn.
    """

    grid: Mapping[str, UInt8[np.ndarray, "n size size 3"]] = field(default_factory=dict)


def gains_view(report: Report) -> View:
    """The gains with their intervals, the table of leaks, and the grid."""
    names = [row["condition"] for row in report.rows]
    items = [Interval(row["condition"], row["gain"], row["low"], row["high"], row["low"] > 0) for row in report.rows]
    header = ["kept", "error without", "with", "gain", "gain by the next picture's"]
    columns = ("condition", "error_without", "error_with", "gain", "shuffled_gain")
    numbers = [[row[name] if name == "condition" else f"{row[name]:.3f}" for name in columns] for row in report.rows]
    shares = [[row["condition"], *(f"{row[f'on_{name}']:+.0%}" for name in names)] for row in report.rows]
    blocks: list[Any] = [
        Intervals(items, "By how much the error of a condition falls where it is given; 95 % of the mean"),
        Table(header, numbers, "Beside it the same with the condition of the next picture, which should not help"),
        Table(["kept", *names], shares, "Share by which the error of each column falls; on the diagonal its own"),
    ]
    grid = getattr(report, "grid", {})
    if grid:
        count = len(grid[NOTHING])
        rows = [(name, list(pictures)) for name, pictures in grid.items()]
        said = f"{count} sources, and what is drawn where this is kept of each; the noise of a column is the same"
        blocks.append(PictureRows(rows, said))
    values = report.values
    lead = (
        f"{values['pictures']} pictures, {values['steps']} steps; errors of embedding and caption by {values['judge']}."
    )
    return View("Gains and leaks of conditions", [Section("", blocks)], lead)


@method(
    paper="arXiv:2302.09778",
    claims="composer.",
    command="measure condition-gains",
    examples=(
        "Example: photopic measure condition-gains pictures/ --model mine -o gains.html",
        "Without pictures: photopic measure condition-gains emoji-scenes:32",
    ),
    view=gains_view,
    allow_edits=True,
)
def condition_gains(
    model: Annotated[TextToImage, Flags("--model", default="emoji-composer")],
    pictures: ConditionedPictures,
    encoder: Annotated[DualEncoder, Flags("--encoder", default="emoji-clip-vit")],
    judge: Annotated[DualEncoder, Flags("--judge", default="emoji-clip-cnn")],
    *,
    config: ConditionGainsConfig = ConditionGainsConfig(),
) -> Steps[Report]:
    """Measure which conditions a conditional model obeys, and what each one moves besides.

    Args:
        model: A model that reads conditions.
        pictures: A folder of pictures, or scenes; two or more, thirty-two for narrow intervals.
        encoder: The dual encoder that the model's embeddings are of.
        judge: Another one, which says how near embedding and caption are met.
        config: How pictures are drawn.

    Returns:
        A row a condition: ``error_without`` and ``error_with``, their difference ``gain`` with the 95 % interval ``low`` to
        ``high`` over pictures, ``shuffled_gain`` with the condition of the next picture, and ``on_<other>``, the share by which
        another's error falls. Units are those of ``photopic.metrics.conditions.condition_errors``; a caption's error is 1 less
        its cosine with the picture.

    Raises:
        DataError: If there are fewer than two pictures.
        ModelError: If the model reads no conditions, or other embeddings.

    Example:
        >>> condition_gains(model, ConditionedPictures("pictures/"), encoder, judge).rows[0]["gain"]  # doctest: +SKIP
        0.69
    """
    if not isinstance(model, ConditionalTextToImage):
        raise ModelError(
            f"{model.name}: reads no conditions; load emoji-composer, or what photopic train conditions has written"
        )
    if len(pictures) < 2:
        raise DataError(f"{pictures.word}: expected two pictures or more, found 1; the next one's are the control")
    images, sets = _taken_apart(model, pictures, encoder, config)
    readable = ("caption", *model.condition_encoder.shape.names)
    names = [name for name in EIGHT if name in readable and all(name in each.values for each in sets)]
    following = sets[1:] + sets[:1]
    settings: dict[tuple[str, bool], list[Conditions]] = {(NOTHING, False): [each.only(()) for each in sets]}
    settings |= {(name, False): [each.only((name,)) for each in sets] for name in names}
    settings |= {(name, True): [each.only((name,)) for each in following] for name in names}
    found: dict[tuple[str, bool], Errors] = {}
    grid = {"source": np.stack(images[:SHOWN])}
    for done, (setting, given) in enumerate(settings.items()):
        yield Event("drawing", done, len(settings))
        drawn = _drawn(model, given, config)
        found[setting] = _errors(drawn, images, sets, judge)
        if not setting[1]:
            grid[setting[0]] = drawn[:SHOWN]
    whole = [each.only(names) for each in sets[:SHOWN]]
    grid[EVERYTHING] = _drawn(model, whole, config)
    yield Event("drawing", len(settings), len(settings))
    values = {"pictures": len(sets), "steps": config.steps, "judge": judge.name}
    return Gains("condition gains", values, tuple(_row(name, names, found) for name in names), grid=grid)


def _taken_apart(
    model: ConditionalTextToImage, pictures: ConditionedPictures, encoder: DualEncoder, config: ConditionGainsConfig
) -> tuple[list[np.ndarray], list[Conditions]]:
    """Pictures and all their conditions, a masked picture with something hidden among them."""
    images, sets = [], []
    for place, (_, image, found) in enumerate(pictures.read(model.image_size)):
        rng, numbers = np.random.default_rng((config.seed, place)), found.values["instances"][0]
        objects = [numbers == number for number in np.unique(numbers) if number]
        hidden = random_hidden(rng, found.size, [each for each in objects if not each.all()])
        (vector,) = embedded(encoder, [image])
        own = {"masked": masked(image, hidden), "embedding": vector.vector}
        sets.append(with_depth(found.joined(Conditions(found.size, own, {}, vector.encoder)), image))
        images.append(image)
    return images, sets


def _drawn(
    model: ConditionalTextToImage, given: Sequence[Conditions], config: ConditionGainsConfig
) -> UInt8[np.ndarray, "n size size 3"]:
    """One picture a set; the noise is that of its place."""
    parts = []
    for start in range(0, len(given), config.batch):
        chunk = list(given[start : start + config.batch])
        prompts = [str(each.values.get("caption", "")) for each in chunk]
        seeds = range(config.seed + start, config.seed + start + len(chunk))
        parts.append(
            model.generate(
                prompts,
                seeds=seeds,
                steps=config.steps,
                guidance=config.guidance,
                batch=config.batch,
                controls=[ComposedConditions(chunk)],
            )
        )
    return np.concatenate(parts)


def _errors(
    drawn: UInt8[np.ndarray, "n size size 3"],
    images: Sequence[UInt8[np.ndarray, "size size 3"]],
    sets: Sequence[Conditions],
    judge: DualEncoder,
) -> Errors:
    """Of each picture how far it is from each condition of its source."""
    rows = [condition_errors(from_picture(image), own, image) for image, own in zip(drawn, sets, strict=True)]
    errors = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    shown, meant = (judge.image_features(list(each)) for each in (drawn, images))
    errors["embedding"] = (1 - (shown * meant).sum(1)).numpy()
    if all("caption" in each.values for each in sets):
        told = judge.text_features([str(each.values["caption"]) for each in sets])
        errors["caption"] = (1 - (shown * told).sum(1)).numpy()
    return errors


def _row(name: str, names: Sequence[str], found: Mapping[tuple[str, bool], Errors]) -> dict[str, Any]:
    without, given, other = found[NOTHING, False], found[name, False], found[name, True]
    gain = paired_bootstrap(without[name], given[name])
    row = {"condition": name, "error_without": float(without[name].mean()), "error_with": float(given[name].mean())}
    row |= {"gain": gain.value, "low": gain.low, "high": gain.high}
    row["shuffled_gain"] = float((without[name] - other[name]).mean())
    for each in names:
        row[f"on_{each}"] = float((without[each] - given[each]).sum() / max(1e-9, without[each].sum()))
    return row
