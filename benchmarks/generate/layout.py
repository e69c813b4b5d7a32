"""Is a layout obeyed? Two known concepts with a box each, drawn with and without layout guidance, judged by the oracle.

    python -m benchmarks.generate.layout                    # writes benchmarks/results/layout.json
    python -m benchmarks.generate.layout --quick            # few cases; prints only

Prompts such as "a rose left of a penguin on a teal background"; each box lies on its side of the picture, so that prompt and layout
agree, but where on that side and how large is drawn at random. The baseline is the same prompt and seed without layout, the control
the same with the layout of another case of the same relation, both compared with the case's own boxes. Interrupted, it goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float

from benchmarks.harness.cache import code_of
from benchmarks.harness.ledger import Row
from benchmarks.harness.runner import Benchmark, mine, run
from benchmarks.harness.subjects import COLOURS, Bench
from photopic.core.nn.attention import capture_attention
from photopic.data import scenes, splits
from photopic.data.layout import Layout, Region
from photopic.generate.guidance.layout_guidance import LayoutGuidance, LayoutGuidanceConfig, subject_positions
from photopic.metrics.intervals import bootstrap, paired_bootstrap
from photopic.metrics.layout import attention_mass, box_iou, subject_boxes

SEED = 8_000_000  # of the samples
MODULES = (
    "photopic.generate.guidance.layout_guidance",
    "photopic.metrics.layout",
    "photopic.models.text_to_image.handle",
)
WAYS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "guided": {},
    "shuffled": {},  # guided by the layout of another case
    "neutral": {},  # guided with outside="neutral"
    "paper": {"weight": 0.08},
    "repeated": {"repeats": 2},
}
TINY = 1 / 32  # side of a region: half a latent cell, a quarter of a cell of the finest attention


@dataclass(frozen=True)
class Settings:
    """How much is measured."""

    cases: int = 32  # of a prompt with its layout
    seeds: int = 4  # pictures a case


@dataclass(frozen=True)
class Case:
    """A prompt, what it names, and where that shall be."""

    number: int
    names: tuple[str, str]
    relation: str
    colour: str
    boxes: tuple[tuple[float, float, float, float], ...]

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


def _box(rng: np.random.Generator, relation: str, is_low: bool) -> tuple[float, float, float, float]:
    """A square in the left or upper half (``is_low``), or in the other one; anywhere along the border between them."""
    side = rng.uniform(0.375, 0.5)
    across, along = rng.uniform(0, 0.5 - side) + (0 if is_low else 0.5), rng.uniform(0, 1 - side)
    left, top = (across, along) if relation in ("left of", "right of") else (along, across)
    return (float(left), float(top), float(left + side), float(top + side))


@cache
def _code() -> str:
    return code_of(*MODULES, measure, cases, _box, Case.layout)


def measure(bench: Bench, case: Case, layout: Layout | None, seeds: int, config: dict[str, Any]) -> dict[str, Any]:
    """Draw one case under a layout, or none, and compare with its own boxes.

    Returns:
        ``mass`` and ``by_area``: share of each subject's attention in its own box, mean over grids; ``least``: mean attention of
        its words in its own cells, on the grid where it is least; for each picture ``iou``, mean over the two, and ``present``.
    """

    def make() -> dict[str, Any]:
        own = case.layout()
        positions = subject_positions(bench.model, case.prompt, own)
        guide = [] if layout is None else [LayoutGuidance(layout, positions, LayoutGuidanceConfig(**config))]
        numbers = range(SEED + 100 * case.number, SEED + 100 * case.number + seeds)
        with capture_attention(bench.model.unet, positions) as maps:
            images = bench.model.generate(
                case.prompt, seeds=numbers, steps=bench.steps, guidance=bench.guidance, controls=guide
            )
        grids = [maps.mean(height) for height in {size[0] for size in maps.resolutions.values()}]
        boxes = subject_boxes(images, case.names, bench.oracle)
        wanted: Float[np.ndarray, "2 4"] = np.array(case.boxes)
        least = [[float(m.numpy()[c].mean()) for m, c in zip(g, own.cells(*g.shape[1:]), strict=True)] for g in grids]
        return {
            "mass": np.mean([attention_mass(grid, own) for grid in grids], 0).tolist(),
            "by_area": np.mean([attention_mass(grid, own, by_area=True) for grid in grids], 0).tolist(),
            "least": np.min(least, 0).tolist(),
            "iou": box_iou(boxes, np.broadcast_to(wanted, boxes.shape)).mean(1).tolist(),
            "present": (bench.oracle.presence(images, case.names) > 0.5).tolist(),
        }

    regions = layout and [(region.words, region.box) for region in layout.regions] + [layout.outside]
    key = {"layout": case, "regions": regions, "seeds": seeds, "config": config, "code": _code()}
    return bench.kept.value(key | {"steps": bench.steps, "guidance": bench.guidance}, make)


def measured(bench: Bench, settings: Settings, way: str) -> list[dict[str, Any]]:
    """What ``measure`` says of every case in one way."""
    return [_in_way(bench, settings, case, way) for case in cases(settings.cases)]


def _in_way(bench: Bench, settings: Settings, case: Case, way: str) -> dict[str, Any]:
    config = WAYS[way]
    boxes_of = cases(settings.cases)[(case.number + 4) % settings.cases] if way == "shuffled" else case  # same relation
    layout = Case(case.number, case.names, case.relation, case.colour, boxes_of.boxes).layout(
        outside="neutral" if way == "neutral" else "shut"
    )
    return measure(bench, case, None if config is None else layout, settings.seeds, config or {})


def shrunk(case: Case) -> Case:
    """The same case with the second box made smaller than a latent cell, about its middle."""
    left, top, right, bottom = case.boxes[1]
    x, y = (left + right - TINY) / 2, (top + bottom - TINY) / 2
    return Case(case.number, case.names, case.relation, case.colour, (case.boxes[0], (x, y, x + TINY, y + TINY)))


def small(bench: Bench, settings: Settings, is_guided: bool) -> list[dict[str, Any]]:
    """What ``measure`` says of every case with its second box shrunk."""
    chosen = [shrunk(case) for case in cases(settings.cases)]
    return [measure(bench, case, case.layout() if is_guided else None, settings.seeds, {}) for case in chosen]


def rows_of(bench: Bench, settings: Settings) -> list[Row]:
    """All claims, from what the workers kept."""
    found = {way: measured(bench, settings, way) for way in WAYS}
    groups = [case.number for case in cases(settings.cases) for _ in range(settings.seeds)]

    def column(way: str, field: str) -> np.ndarray:
        return np.concatenate([each[field] for each in found[way]])

    def both(way: str) -> np.ndarray:
        return np.concatenate([np.all(each["present"], axis=1) for each in found[way]]).astype(float)

    iou = {way: column(way, "iou") for way in WAYS}
    subjects = [case.number for case in cases(settings.cases) for _ in case.names]  # mass has one number a subject
    rows = []
    for claim, way, field, target, note in (
        ("layout.attention_mass", "guided", "mass", ">= 0.90", "share in the cells of its region, mean over grids and steps"),
        ("layout.attention_mass_by_area", "guided", "by_area", None, "a cell counts by the share of it in the region"),
        ("layout.attention_mass_neutral", "neutral", "mass", None, 'with outside="neutral"'),
    ):  # fmt: skip
        baseline, control = (_mean(column(other, field)) for other in ("none", "shuffled"))
        rows.append(
            _row(claim, bootstrap(column(way, field), groups=subjects), target, settings, note, baseline, control)
        )
    means = {way: _mean(values) for way, values in iou.items()}
    rows.append(_row("layout.iou_gain", paired_bootstrap(iou["guided"], iou["none"], groups=groups), "low > 0", settings,
                     f"box IoU of the objects with their boxes, {means['guided']} with the layout, minus without",
                     means["none"], means["shuffled"]))  # fmt: skip
    for claim, way, other, target, note in (
        ("layout.iou_gain_vs_shuffled", "guided", "shuffled", "low > 0", "minus guided by the layout of another case"),
        ("layout.iou_gain_paper", "paper", "none", None, "the paper's weight 0.08 minus none"),
        ("layout.iou_gain_neutral", "neutral", "none", None, 'with outside="neutral" minus none'),
        ("layout.iou_gain_repeats", "repeated", "guided", None, "each step done twice minus once, for twice the time"),
    ):
        gain = paired_bootstrap(iou[way], iou[other], groups=groups)
        rows.append(_row(claim, gain, target, settings, note, means[other]))
    lost = paired_bootstrap(both("guided"), both("none"), groups=groups)
    rows.append(_row("layout.both_present_change", lost, None, settings, "share of pictures with both objects, with minus "
                     "without layout", _mean(both("none"))))  # fmt: skip
    return rows + _small_rows(bench, settings, groups)


def _small_rows(bench: Bench, settings: Settings, groups: Sequence[int]) -> list[Row]:
    guided, none = small(bench, settings, True), small(bench, settings, False)
    least, before = ([each["least"][1] for each in way] for way in (guided, none))
    there, without = (np.concatenate([np.array(each["present"])[:, 1] for each in way]) for way in (guided, none))
    note = "a region of half a latent cell: attention of its subject's words in its cell, least of all grids, with minus without"
    present = paired_bootstrap(there.astype(float), without.astype(float), groups=groups)
    mass = min(each["mass"][1] for each in guided)
    return [
        _row("layout.small_region_attention", paired_bootstrap(least, before), "low > 0", settings, note, _mean(before)),
        Row("layout.small_region_mass", round(mass, 5), target=">= 0.90", n=len(guided), note="least of all cases"),
        _row("layout.small_region_present", present, None, settings, "its subject seen in the picture, with minus without",
             _mean(without)),
    ]  # fmt: skip


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return round(float(np.mean(values)), 4)


def _row(claim: str, interval: Sequence[float], target: str | None, settings: Settings, note: str,
         baseline: float | None = None, control: float | None = None) -> Row:  # fmt: skip
    value, low, high = (round(float(number), 5) for number in interval)
    n = settings.cases * settings.seeds
    return Row(claim, value, low, high, target=target, baseline=baseline, control=control, n=n, note=note)


def work(bench: Bench, settings: Settings, part: str) -> None:
    """A worker's share of everything slow."""
    for case in mine(cases(settings.cases), part):
        for way in WAYS:
            _in_way(bench, settings, case, way)
        tiny = shrunk(case)
        for layout in (None, tiny.layout()):
            measure(bench, tiny, layout, settings.seeds, {})
        print(case.prompt, flush=True)


if __name__ == "__main__":
    run(
        Benchmark(
            "layout", __file__, __doc__ or "", Settings(), Settings(cases=8, seeds=2), work, rows_of, [8, SEED], _code
        )
    )
