"""Several subjects in one picture: edits composed, with and without a layout, against the same subjects' LoRAs merged by peft."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.harness.code import code_of
from benchmarks.harness.subjects import unrelated_prompts
from benchmarks.tune.race import applying, presence
from benchmarks.tune.race.making import Way, digest_of
from benchmarks.tune.race.measuring import Race
from benchmarks.tune.race.own_methods import EDIT
from benchmarks.tune.race.plan import MERGE_GRID, MERGES, boxes, group_prompts, token
from benchmarks.tune.race.presence import Judged, judge
from benchmarks.tune.race.subject_case import Given
from photopic.core.edits import Edit, OverlapPolicy, compose
from photopic.core.edits import file as edit_file
from photopic.data.layout import Layout, Region
from photopic.data.splits import SUBJECTS
from photopic.generate.guidance.layout_guidance import LayoutGuidance, subject_positions
from photopic.generate.guidance.regional_edits import by_region, regional_edits
from photopic.models.text_to_image.handle import TextToImage

SEED = 8_000_000  # of the samples of groups; of the tuning pair 1,000,000 more
OVERLAP: OverlapPolicy = (
    "ties"  # of tuned values: both start from zero, where the sum of two changes would turn a weight's sign
)
LORAS = (*(f"lora_{merge}" for merge in MERGES), "lora_cat_layout", "lora_company_layout")
KINDS = ("rows", "edits", "edits_layout", "alone_layout", *LORAS)
LAYOUTS = (
    "composed",
    "regions",
)  # edits composed and guided, or each edit in its region and guided; tuned like a merge
ENDS = (
    "real",
    "autoencoded",
    "nouns",
)  # real scenes, the same as the autoencoder shows them, and so of the class nouns
LAYOUT_CODE = "photopic.generate.guidance.layout_guidance", "photopic.generate.guidance.regional_edits"


@dataclass(frozen=True)
class Grouped:
    """One group drawn one way: what the oracle found, and drift on unrelated prompts."""

    judged: Judged
    drift: np.ndarray


def way_of(race: Race, kind: str) -> Way:
    """What is composed: located and tuned edits, 16 bits at the density of the settings, or LoRAs.

    Edits are taught in company, but for ``alone``; LoRAs as single ones are, but for ``lora_company``.
    """
    if kind.startswith("lora"):
        return Way("lora4", "lora4", company=kind.startswith("lora_company"))
    return Way("ours", "neurons", race.config.composed, 16, company=not kind.startswith("alone"))


def layout_of(group: Sequence[str]) -> Layout:
    """Each subject's words in its box."""
    regions = [
        Region(f"{token(name)} {SUBJECTS[name]}", box) for name, box in zip(group, boxes(len(group)), strict=True)
    ]
    return Layout(tuple(regions))


@contextmanager
def in_force(race: Race, kind: str, group: Sequence[str], setting: Any) -> Iterator[TextToImage]:
    """The model that draws a group."""
    ours = race.judge
    with ExitStack() as stack:
        if kind.startswith("lora"):
            folders = [race.folder(way_of(race, kind), name) for name in group]
            merge = ("cat" if "company" in kind else kind.split("_")[1], *setting)
            rows = [race.row_file(name) for name in group]
            context = applying.applied(race.peer, race.base_state, folders, rows, race.base_file, merge=merge)
            stack.enter_context(context)
            yield race.peer
            return
        edits: list[Edit]
        if kind == "rows":
            edits = [Given.of(name).row_edit(ours.model, ours.base) for name in group]
        else:
            edits = [edit_file.load(race.folder(way_of(race, kind), name) / EDIT) for name in group]
        if setting == "regions":
            layout = layout_of(group)
            stack.enter_context(regional_edits(ours.model, layout, by_region(layout, edits)))
        else:
            overlap: OverlapPolicy = "error" if kind == "rows" else OVERLAP
            whole = compose(*edits, overlap=overlap, base=ours.model.components)
            stack.enter_context(ours.model.edits.applied(whole))
        yield ours.model


def key_of(race: Race, kind: str, group: Sequence[str], setting: Any) -> dict[str, Any]:
    """All that decides what is in force."""
    files = [digest_of(race.folder(way_of(race, kind), name)) for name in group] if kind != "rows" else list(group)
    whole = hashlib.sha256(repr((kind, files, setting)).encode()).hexdigest()
    return {"group": list(group), "kind": kind, "of": whole, "composing": code_of(*LAYOUT_CODE, in_force, draw)}


def draw(
    race: Race, kind: str, group: Sequence[str], setting: Any, seeds: Sequence[int], prompts: list[str]
) -> np.ndarray:
    """Pictures of a group, kept."""
    ours = race.judge
    key = key_of(race, kind, group, setting)

    def force() -> tuple[TextToImage, Any]:
        model = race.peer if kind.startswith("lora") else ours.model
        return model, in_force(race, kind, group, setting)

    layout = layout_of(group)
    if not kind.endswith("_layout") or not prompts[0].count(token(group[0])):
        return race.pictures(key, force, prompts, seeds)
    with ours.model.edits.applied(compose(*(Given.of(name).row_edit(ours.model, ours.base) for name in group))):
        positions = [subject_positions(ours.model, prompt, layout) for prompt in prompts]
    assert all(each == positions[0] for each in positions)  # one guidance serves all prompts of a group
    return race.pictures(key, force, prompts, seeds, controls=[LayoutGuidance(layout, positions[0])])


def judged(race: Race, images: np.ndarray, group: Sequence[str]) -> Judged:
    """What the oracle finds of a group in pictures."""
    return judge(presence.found(race.judge, race.judge.oracle.score(images), group), boxes(len(group)))


def setting_of(race: Race, kind: str) -> Any:
    """What a kind is drawn with: of its grid on the tuning pair, the setting with the highest mean similarity of the two."""
    kind = {"lora_cat_layout": "lora_cat", "lora_company_layout": "lora_cat", "alone_layout": "edits_layout"}.get(
        kind, kind
    )
    if kind in ("rows", "edits"):
        return None
    if kind not in race.merged:
        race.merged[kind] = _best(race, kind, LAYOUTS if kind == "edits_layout" else MERGE_GRID[kind.split("_")[1]])
    return race.merged[kind]


def _best(race: Race, kind: str, grid: Sequence[Any]) -> Any:
    pair, count = race.config.tuning, race.config.tuning_samples
    prompts, seeds = group_prompts(pair, count), list(range(SEED + 1_000_000, SEED + 1_000_000 + count))
    values = []
    for setting in grid:
        values.append(float(judged(race, draw(race, kind, pair, setting, seeds, prompts), pair).similarity.mean()))
    return grid[values.index(max(values))]


def drawn(race: Race, kind: str, group: Sequence[str]) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Pictures of a group, unrelated prompts, and what is drawn of these with the same in force but no layout to follow."""
    config, setting = race.config, setting_of(race, kind)
    count = config.groups[len(group)][1]
    seeds = list(range(SEED, SEED + count))
    images = draw(race, kind, group, setting, seeds, group_prompts(group, count))
    nouns = {SUBJECTS[name] for name in group}
    unrelated = unrelated_prompts(group[0], 3 * config.group_others)
    others = [prompt for prompt in unrelated if not nouns & set(prompt.split())][: config.group_others]
    unguided = {"edits_layout": "edits" if setting == "composed" else kind, "lora_cat_layout": "lora_cat"}.get(
        kind, kind
    )  # the same in force; other kinds have no layout in prompts that name no subject
    moved = draw(race, unguided, group, setting_of(race, unguided), seeds[:1] * len(others), others)
    return images, others, moved


def grouped(race: Race, kind: str, group: Sequence[str]) -> Grouped:
    """A group drawn one way, judged."""
    images, others, moved = drawn(race, kind, group)
    plain = race.judge.judged(None, others, [SEED] * len(others))
    drift = 1 - (plain.embedding * race.judge.oracle.score(moved).embedding.numpy()).sum(1)
    return Grouped(judged(race, images, group), drift)


def real(race: Race, size: int, end: str) -> tuple[float, float]:
    """(all present, leaked) of real scenes of all groups of a size; kept.

    Args:
        race: The race.
        size: Of the groups.
        end: One of ``ENDS``.
    """
    sets = race.config.sets(size)
    styles = presence.KNOWN_STYLES if end == "nouns" else presence.SUBJECT_STYLES
    count = race.config.real
    code = code_of(
        "photopic.metrics.oracle", "photopic.metrics.recognition",
        presence.real_scenes, presence.autoencoded, presence.found, presence.judge,
    )  # fmt: skip
    key = {"real": sets, "end": end, "styles": styles, "count": count, "code": code}

    def measure() -> list[float]:
        found = []
        for group in sets:
            names = [SUBJECTS[name] for name in group] if end == "nouns" else group
            images = presence.real_scenes(names, [styles] * size, count, seed=77)
            if end != "real":
                images = presence.autoencoded(race.judge.model, images)
            found.append(judged(race, images, group))
        present, leaked = (np.concatenate([getattr(each, f) for each in found]) for f in ("present", "leaked"))
        return [float(present.mean()), float(leaked.mean())]

    present, leaked = race.cache.value(key, measure)
    return present, leaked
