"""Is a layout obeyed? Two known concepts with a box each, drawn with and without layout guidance, judged by the oracle.

    python -m benchmarks layout             # writes benchmarks/results/layout.json

Prompts such as "a rose left of a penguin on a teal background"; each box lies on its side of the picture, so that prompt and layout
agree, but where on that side and how large is drawn at random. The baseline is the same prompt and seed without layout, the control
the same with the layout of another case of the same relation, both compared with the case's own boxes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge
from jaxtyping import Float

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.subjects import COLOURS, JudgedModel
from photopic.core.config import Config
from photopic.core.nn.attention import capture_attention
from photopic.data import scenes, splits
from photopic.data.layout import Layout, Region
from photopic.generate.guidance.layout_guidance import LayoutGuidance, LayoutGuidanceConfig, subject_positions
from photopic.metrics.intervals import bootstrap, paired_bootstrap
from photopic.metrics.layout import attention_mass, box_iou, subject_boxes

SEED = 8_000_000  # of the samples
WAYS: dict[str, dict[str, Any]] = {
    "guided": {},
    "shuffled": {},  # guided by the layout of another case
    "neutral": {},  # guided with outside="neutral"
    "paper": {"weight": 0.08},
    "repeated": {"repeats": 2},
}
Box = tuple[float, float, float, float]  # left, top, right, bottom as fractions of the side
TINY = 1 / 32  # side of a region: half a latent cell, a quarter of a cell of the finest attention
CLAIMS = (
    Claim("layout.attention_mass", ">= 0.90", "share in the cells of its region, mean over grids and steps"),
    Claim("layout.attention_mass_by_area", "", "a cell counts by the share of it in the region"),
    Claim("layout.attention_mass_neutral", "", 'with outside="neutral"'),
    Claim("layout.iou_gain", "low > 0", "box IoU of the objects with their boxes, with the layout minus without"),
    Claim("layout.iou_gain_vs_shuffled", "low > 0", "minus guided by the layout of another case"),
    Claim("layout.iou_gain_paper", "", "the paper's weight 0.08 minus none"),
    Claim("layout.iou_gain_neutral", "", 'with outside="neutral" minus none'),
    Claim("layout.iou_gain_repeats", "", "each step done twice minus once, for twice the time"),
    Claim("layout.both_present_change", "", "share of pictures with both objects, with minus without layout"),
    Claim(
        "layout.small_region_attention",
        "low > 0",
        "a region of half a latent cell: attention of its subject's words in its cell, least of all grids, with minus without",
    ),
    Claim("layout.small_region_mass", ">= 0.90", "least of all cases"),
    Claim("layout.small_region_present", "", "its subject seen in the picture, with minus without"),
)


@dataclass(frozen=True)
class LayoutConfig(Config):
    """How much is measured."""

    cases: Annotated[int, Ge(8)] = 32  # prompts with their layouts
    seeds: Annotated[int, Ge(1)] = 4  # pictures of each case
    model: str = "emoji-diffusion"  # a bundled name or a folder


@dataclass(frozen=True)
class Case:
    """A prompt, what it names, and where that shall be."""

    number: int
    names: tuple[str, str]
    relation: str
    colour: str
    boxes: tuple[Box, ...]

    @property
    def prompt(self) -> str:
        """One that the model understands: two objects and how they lie."""
        first, second = (scenes.with_article(name) for name in self.names)
        return f"{first} {self.relation} {second} on {scenes.with_article(self.colour + ' background')}"

    def layout(self, **options: Any) -> Layout:
        """The layout of its boxes."""
        regions = tuple(Region(name, box) for name, box in zip(self.names, self.boxes, strict=True))
        return Layout(regions, **options)


def cases(count: int) -> list[Case]:
    """Random pairs of known concepts with random boxes on the sides the relation says; the same for any count."""
    names = sorted(splits.KNOWN)
    made: list[Case] = []
    number = 0
    while len(made) < count:
        rng = np.random.default_rng((8, number))
        first, second = (str(name) for name in rng.choice(names, 2, replace=False))
        number += 1
        if set(first.split()) & set(second.split()):
            continue  # "hot dog" beside "dog"
        relation = scenes.RELATIONS[len(made) % 4]
        low, high = (_box(rng, relation, is_low) for is_low in (True, False))
        boxes = (low, high) if relation in ("left of", "above") else (high, low)
        made.append(Case(len(made), (first, second), relation, COLOURS[len(made) % 12], boxes))
    return made


def _box(rng: np.random.Generator, relation: str, is_low: bool) -> Box:
    """A square in the left or upper half (``is_low``), or in the other one; anywhere along the border between them."""
    side = rng.uniform(0.375, 0.5)
    across, along = rng.uniform(0, 0.5 - side) + (0 if is_low else 0.5), rng.uniform(0, 1 - side)
    left, top = (across, along) if relation in ("left of", "right of") else (along, across)
    return (float(left), float(top), float(left + side), float(top + side))


@dataclass(frozen=True)
class Drawing:
    """One case under the boxes of a case, or of none."""

    case: Case
    way: str  # of ``WAYS``, or ``none``
    boxes: tuple[Box, ...]  # that guide
    seeds: int

    @property
    def guides(self) -> Layout | None:
        """The layout it is drawn under."""
        if self.way == "none":
            return None
        return replace(self.case, boxes=self.boxes).layout(outside="neutral" if self.way == "neutral" else "shut")


def measure(bench: Bench[Any, JudgedModel], drawing: Drawing) -> dict[str, Any]:
    """Draw one case under a layout, or none, and compare with its own boxes.

    Returns:
        ``mass`` and ``by_area``: share of each subject's attention in its own box, mean over grids; ``least``: mean attention of
        its words in its own cells, on the grid where it is least; for each picture ``iou``, mean over the two, and ``present``.
    """
    judge, case, guides = bench.subject, drawing.case, drawing.guides
    own = case.layout()
    positions = subject_positions(judge.model, case.prompt, own)
    config = LayoutGuidanceConfig(**WAYS.get(drawing.way, {}))
    controls = [] if guides is None else [LayoutGuidance(guides, positions, config)]
    numbers = range(SEED + 100 * case.number, SEED + 100 * case.number + drawing.seeds)
    with capture_attention(judge.model.unet, positions) as maps:
        images = judge.drawn(case.prompt, numbers, controls=controls)
    grids = [maps.mean(height) for height in {size[0] for size in maps.resolutions.values()}]
    boxes = subject_boxes(images, case.names, judge.oracle)
    wanted: Float[np.ndarray, "2 4"] = np.array(case.boxes)
    least = [[float(m.numpy()[c].mean()) for m, c in zip(g, own.cells(*g.shape[1:]), strict=True)] for g in grids]
    return {
        "mass": np.mean([attention_mass(grid, own) for grid in grids], 0).tolist(),
        "by_area": np.mean([attention_mass(grid, own, by_area=True) for grid in grids], 0).tolist(),
        "least": np.min(least, 0).tolist(),
        "iou": box_iou(boxes, np.broadcast_to(wanted, boxes.shape)).mean(1).tolist(),
        "present": (judge.oracle.presence(images, case.names) > 0.5).tolist(),
    }


def drawings(config: LayoutConfig, way: str) -> list[Drawing]:
    """Every case in one way; the control has the boxes of another case of the same relation."""
    made = cases(config.cases)
    shift = 4 if way == "shuffled" else 0
    return [Drawing(each, way, made[(each.number + shift) % len(made)].boxes, config.seeds) for each in made]


def small_drawings(config: LayoutConfig, way: str) -> list[Drawing]:
    """Every case with its second box shrunk."""
    made = [shrunk(each) for each in cases(config.cases)]
    return [Drawing(each, way, each.boxes, config.seeds) for each in made]


def shrunk(case: Case) -> Case:
    """The same case with the second box made smaller than a latent cell, about its middle."""
    left, top, right, bottom = case.boxes[1]
    x, y = (left + right - TINY) / 2, (top + bottom - TINY) / 2
    return replace(case, boxes=(case.boxes[0], (x, y, x + TINY, y + TINY)))


def everything(config: LayoutConfig) -> list[Drawing]:
    """All drawings, case by case."""
    ways = [drawings(config, way) for way in ("none", *WAYS)] + [
        small_drawings(config, way) for way in ("none", "guided")
    ]
    return [each for together in zip(*ways, strict=True) for each in together]


def rows(bench: Bench[LayoutConfig, JudgedModel]) -> Iterator[Row]:
    """All claims, from what the workers kept."""
    config = bench.config
    found = {way: [bench.found(each) for each in drawings(config, way)] for way in ("none", *WAYS)}
    groups = [case for case in range(config.cases) for _ in range(config.seeds)]
    n = len(groups)

    def column(way: str, field: str) -> np.ndarray:
        return np.concatenate([each[field] for each in found[way]])

    def both(way: str) -> np.ndarray:
        return np.concatenate([np.all(each["present"], axis=1) for each in found[way]]).astype(float)

    subjects = [case for case in range(config.cases) for _ in range(2)]  # mass has one number a subject
    for claim, way, field in (
        ("", "guided", "mass"),
        ("_by_area", "guided", "by_area"),
        ("_neutral", "neutral", "mass"),
    ):
        baseline, control = (column(other, field).mean() for other in ("none", "shuffled"))
        mass = bootstrap(column(way, field), groups=subjects)
        yield row(f"layout.attention_mass{claim}", mass, n=n, baseline=baseline, control=control)
    for claim, way, other in (
        ("", "guided", "none"), ("_vs_shuffled", "guided", "shuffled"), ("_paper", "paper", "none"),
        ("_neutral", "neutral", "none"), ("_repeats", "repeated", "guided"),
    ):  # fmt: skip
        gain = paired_bootstrap(column(way, "iou"), column(other, "iou"), groups=groups)
        control = column("shuffled", "iou").mean() if not claim else None
        note = f"{column(way, 'iou').mean():.4f} with it"
        yield row(
            f"layout.iou_gain{claim}", gain, n=n, baseline=column(other, "iou").mean(), control=control, note=note
        )
    lost = paired_bootstrap(both("guided"), both("none"), groups=groups)
    yield row("layout.both_present_change", lost, n=n, baseline=both("none").mean())
    yield from small_rows(bench, groups)


def small_rows(bench: Bench[LayoutConfig, JudgedModel], groups: list[int]) -> Iterator[Row]:
    """What is left of a subject whose region is smaller than a latent cell."""
    guided, none = ([bench.found(each) for each in small_drawings(bench.config, way)] for way in ("guided", "none"))
    least, before = ([each["least"][1] for each in way] for way in (guided, none))
    yield row("layout.small_region_attention", paired_bootstrap(least, before), n=len(groups), baseline=np.mean(before))
    yield row("layout.small_region_mass", min(each["mass"][1] for each in guided), n=len(guided))
    there, without = (
        np.concatenate([np.array(each["present"])[:, 1] for each in way]).astype(float) for way in (guided, none)
    )
    present = paired_bootstrap(there, without, groups=groups)
    yield row("layout.small_region_present", present, n=len(groups), baseline=without.mean())


BENCHMARKS = (
    Benchmark(
        "layout", __doc__, LayoutConfig(), LayoutConfig(cases=8, seeds=2), CLAIMS, rows, everything, measure,
        open=lambda config, cache: JudgedModel(config.model, cache), seeds=(8, SEED),
    ),
)  # fmt: skip
