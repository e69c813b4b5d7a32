"""The claims of the race, from what the workers kept; what is not kept has no row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.harness.claims import Claim, row
from benchmarks.harness.ledger import Row
from benchmarks.tune.race import composing
from benchmarks.tune.race.composing import KINDS, Grouped
from benchmarks.tune.race.making import Way, ways_of
from benchmarks.tune.race.measuring import Measured, Race, if_kept
from benchmarks.tune.race.plan import DRIFT_BOUND, MERGES, PEERS, VALUES
from photopic.metrics.intervals import bootstrap, paired_bootstrap, ratio_bootstrap

SIZES = {2: "two", 3: "three", 4: "four"}
OURS = ("neurons", "token_residual")
EQUAL = 0.02  # of similarity: how much lower still counts as equal
LAYOUT = "located and tuned, layout guidance; baseline: no layout; control: class nouns as the autoencoder shows them"
SHARE = "share with every subject present, ours with layout minus LoRA r=4 merged"
COMPANY = "edits taught in company, and longer, minus taught alone; both have the layout"
SECONDS = "CPU seconds of one thread, preservation pictures and encoding included; the grid's are not"
CLAIMS = (
    Claim("race.similarity.*"),
    Claim("race.alignment.*"),
    Claim("race.drift.*"),
    Claim("race.bytes.*", unit="bytes"),
    Claim("race.seconds.*", "", SECONDS, "s"),
    Claim("race.apply_s.*", "", "CPU seconds from file to model", "s"),
    Claim("race.revert_s.*", "", "CPU seconds", "s"),
    Claim("race.exact_revert.*", "", "share of the weights with the base's bits after applying and reverting"),
    Claim("race.peak_mb.*", "", "resident memory of the training beyond the loaded model, encoding left out", "MB"),
    Claim("race.bytes_vs_lora4", "<= 0.1"),
    Claim("race.seconds_vs_lora4", "<= 1"),
    Claim("race.similarity_vs_lora4.*"),
    Claim("race.chosen_rate.*"),
    Claim("compose.two_present", ">= 0.8", LAYOUT),
    Claim("compose.three_present", ">= 0.6", LAYOUT),
    Claim("compose.four_present", "", LAYOUT),
    *(Claim(f"compose.*_vs_lora_{merge}", "low > 0", SHARE) for merge in MERGES),
    Claim("compose.*_vs_lora_no_layout", "", "neither has a layout; LoRA: cat"),
    Claim("compose.*_vs_lora_with_layout", "", "both have the layout; LoRA: cat"),
    Claim("compose.*_vs_lora_in_company", "", "both have company, steps and layout; LoRA: cat"),
    Claim("compose.*_vs_alone", "", COMPANY),
    *(Claim(f"compose.*.{what}.*") for what in ("present", "leaked", "obeyed", "similarity", "drift")),
    Claim("compose.drift_vs_lora", "<= 0", "ours with layout minus the merge of LoRA that drifts least"),
    Claim("compose.drift_ratio_vs_lora", "", "ours with layout over the merge of LoRA that drifts least"),
    Claim("compose.leaked_real", "", "the leakage judged in real scenes of the pairs"),
)
PAIRS = {  # claim: ours, theirs
    **{f"vs_lora_{merge}": ("edits_layout", f"lora_{merge}") for merge in MERGES},
    "vs_lora_no_layout": ("edits", "lora_cat"),
    "vs_lora_with_layout": ("edits_layout", "lora_cat_layout"),
    "vs_lora_in_company": ("edits_layout", "lora_company_layout"),
    "vs_alone": ("edits_layout", "alone_layout"),
}


def rows_of(race: Race) -> Iterator[Row]:
    """Every claim for which all is kept or can be measured."""
    every = {way: if_kept(_subjects, race, way) for way in [None, *ways_of(race.config)]}
    found = {way: each for way, each in every.items() if each}
    for way, each in found.items():
        yield from _single(race, way, each)
    yield from _against_lora(race, {way: each for way, each in found.items() if way})
    yield from _choices(race)
    for size in race.config.groups:
        sets = race.config.sets(size)
        grouped = {kind: if_kept(_groups, race, kind, sets) for kind in KINDS} if sets else {}
        if composed := {kind: each for kind, each in grouped.items() if each}:
            yield from _of_size(SIZES[size], composed, race, size)


def _subjects(race: Race, way: Way | None) -> list[Measured]:
    return [race.measured(way, name) for name in race.config.test]


def _groups(race: Race, kind: str, sets: Sequence[Sequence[str]]) -> list[Grouped]:
    return [composing.grouped(race, kind, group) for group in sets]


def _column(found: Sequence[Measured], what: str) -> np.ndarray:
    return np.concatenate([getattr(each, what) for each in found])


def _labels(columns: Sequence[np.ndarray]) -> list[int]:
    """The subject or group that each number belongs to; those of one are resampled together."""
    return [number for number, each in enumerate(columns) for _ in each]


def _single(race: Race, way: Way | None, found: Sequence[Measured]) -> Iterator[Row]:
    """What one way gives and costs, of single subjects; of none, the token's first row alone."""
    label, count = way.name if way else "base", len(found)
    for what in ("similarity", "alignment", *(["drift"] if way else [])):
        groups = _labels([getattr(each, what) for each in found])
        note = "" if way else "the token's first row alone"
        yield row(f"race.{what}.{label}", bootstrap(_column(found, what), groups=groups), n=len(groups), note=note)
    if way is None:
        return
    yield row(f"race.bytes.{label}", round(float(np.mean([each.size_bytes for each in found]))), n=count)
    yield row(f"race.seconds.{label}", float(np.mean([each.seconds for each in found])), n=count)
    if used := if_kept(race.applying, way, race.config.test[0]):
        for what in ("apply_s", "revert_s"):
            yield row(f"race.{what}.{label}", used[what], n=5)
        target = "== 1" if way.method in OURS else None
        yield row(f"race.exact_revert.{label}", used["exact"], target=target, n=5)
    if (peak := race.peak(way)) is not None:
        yield row(f"race.peak_mb.{label}", peak / 1e6, n=1)


def _against_lora(race: Race, found: dict[Way, list[Measured]]) -> Iterator[Row]:
    """The smallest and the quickest of ours whose similarity is not below LoRA r=4's by more than ``EQUAL``."""
    lora = next((each for way, each in found.items() if way.method == "lora4"), None)
    ours = {way: each for way, each in found.items() if way.method in OURS}
    if lora is None or not ours:
        return
    theirs, groups = _column(lora, "similarity"), _labels([each.similarity for each in lora])
    gaps = {way: float(_column(each, "similarity").mean() - theirs.mean()) for way, each in ours.items()}
    for claim, what in (("bytes", "size_bytes"), ("seconds", "seconds")):
        costs = {
            way: float(np.mean([getattr(e, what) for e in ours[way]])) for way, gap in gaps.items() if gap >= -EQUAL
        }
        if not costs:
            best = max(gaps, key=lambda way: gaps[way])
            none = f"no way of ours is within {EQUAL} of LoRA's similarity {theirs.mean():.3f}"
            yield row(f"race.{claim}_vs_lora4", None, note=f"{none}; nearest {best.name} {gaps[best]:+.3f}")
            continue
        way = min(costs, key=lambda each: costs[each])
        cost = float(np.mean([getattr(each, what) for each in lora]))
        note = (
            f"{way.name}, of {len(gaps)} ways of ours, similarity {gaps[way]:+.3f}; {costs[way]:.0f} against {cost:.0f}"
        )
        yield row(f"race.{claim}_vs_lora4", costs[way] / cost, n=len(lora), note=note)
    for way, each in ours.items():
        gap = paired_bootstrap(_column(each, "similarity"), theirs, groups=groups)
        yield row(f"race.similarity_vs_lora4.{way.name}", gap, n=len(groups))


def _choices(race: Race) -> Iterator[Row]:
    """What the rule chose for each method, so that the table can say it."""
    for method in (*PEERS, VALUES):
        if one := if_kept(race.setting, method):
            tried = race.tried(method)
            rates = {each.rate for each in tried}
            note = f"{one.steps} steps; on the tuning subject similarity {one.similarity:.3f}, drift {one.drift:.3f}"
            note += f"; no setting kept the drift within {DRIFT_BOUND}" if one.drift > DRIFT_BOUND else ""
            note += "; the higher of the rates tried" if one.rate == max(rates) and len(rates) > 1 else ""
            yield row(f"race.chosen_rate.{method.name}", one.rate, n=len(tried), note=note)


def _judged(found: Sequence[Grouped], what: str) -> np.ndarray:
    columns = [each.drift if what == "drift" else getattr(each.judged, what) for each in found]
    return np.concatenate(columns).astype(float)


def _of_size(word: str, found: dict[str, list[Grouped]], race: Race, size: int) -> Iterator[Row]:
    """The claims of pairs, triples or fours."""
    first = next(iter(found.values()))
    labels = _labels([each.judged.present for each in first])
    ends = {end: if_kept(composing.real, race, size, end) for end in composing.ENDS}
    yield from _present(word, found, race, ends, labels)
    for kind, each in found.items():
        for what in ("present", "leaked", "obeyed", "similarity"):
            yield row(f"compose.{word}.{what}.{kind}", bootstrap(_judged(each, what), groups=labels), n=len(labels))
        if kind != "rows":
            of_others = _labels([one.drift for one in each])
            drift = bootstrap(_judged(each, "drift"), groups=of_others)
            yield row(f"compose.{word}.drift.{kind}", drift, n=len(of_others))
    if size == 2:
        yield from _drift_of_pairs(found)
        if real := ends["real"]:
            yield row("compose.leaked_real", real[1], n=len(first) * race.config.real)


def _present(
    word: str,
    found: dict[str, list[Grouped]],
    race: Race,
    ends: dict[str, tuple[float, float] | None],
    labels: list[int],
) -> Iterator[Row]:
    """How often every subject is present, ours and ours against LoRA's."""
    present = {kind: _judged(each, "present") for kind, each in found.items()}
    if "edits_layout" in found:
        note = f"{composing.setting_of(race, 'edits_layout')}; {len(found['edits_layout'])} groups"
        real, shown, floor = ends.values()
        if real and shown:
            note += f"; real scenes reach {real[0]:.2f}, as the autoencoder shows them {shown[0]:.2f}"
        beside: dict[str, Any] = {
            "baseline": present["edits"].mean() if "edits" in present else None,
            "control": floor[0] if floor else None,
        }
        interval = bootstrap(present["edits_layout"], groups=labels)
        yield row(f"compose.{word}_present", interval, n=len(labels), note=note, **beside)
    for claim, (one, other) in PAIRS.items():
        if one in present and other in present:
            gap = paired_bootstrap(present[one], present[other], groups=labels)
            merged = claim.removeprefix("vs_lora_") in MERGES
            note = f"weight and density {composing.setting_of(race, other)}" if merged else ""
            baseline = present[other].mean()
            yield row(f"compose.{word}_{claim}", gap, n=len(labels), baseline=baseline, note=note)


def _drift_of_pairs(found: dict[str, list[Grouped]]) -> Iterator[Row]:
    """Ours with layout against the merge of LoRA that drifts least; only where all merges were drawn."""
    merges = [f"lora_{merge}" for merge in MERGES]
    if {"edits_layout", *merges} <= found.keys():
        best = min(merges, key=lambda kind: float(_judged(found[kind], "drift").mean()))
        pair, note = (
            (_judged(found["edits_layout"], "drift"), _judged(found[best], "drift")),
            best.removeprefix("lora_"),
        )
        groups = _labels([each.drift for each in found[best]])
        note += "; unrelated prompts have no layout"
        yield row("compose.drift_vs_lora", paired_bootstrap(*pair, groups=groups), n=len(groups), note=note)
        yield row("compose.drift_ratio_vs_lora", ratio_bootstrap(*pair, groups=groups), n=len(groups), note=note)
