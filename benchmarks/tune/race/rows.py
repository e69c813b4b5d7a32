"""The claims of the race, from what the workers kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.harness.ledger import Row
from benchmarks.tune.race import composing
from benchmarks.tune.race.composing import KINDS, Grouped
from benchmarks.tune.race.measuring import Measured, Race, Way, if_kept, ways_of
from benchmarks.tune.race.plan import DRIFT_BOUND, MERGES, PEERS, VALUES
from photopic.metrics.intervals import bootstrap, paired_bootstrap, ratio_bootstrap

SIZES = {2: "two", 3: "three", 4: "four"}
TARGETS = {2: ">= 0.8", 3: ">= 0.6", 4: None}
EQUAL = 0.02  # of similarity: how much lower still counts as equal


def rows_of(race: Race) -> list[Row]:
    """Every claim; with an ``OnlyKept``, every one for which all is kept."""
    every = {way: if_kept(_subjects, race, way) for way in [None, *ways_of(race.settings)]}
    found = {way.name if way else "base": each for way, each in every.items() if each}
    ways = [way for way in every if way and way.name in found]
    return [*_single(race, ways, found), *_against_lora(race, ways, found), *_choices(race), *_composed(race)]


def _subjects(race: Race, way: Way | None) -> list[Measured]:
    return [race.measured(way, name) for name in race.settings.test]


def _single(race: Race, ways: Sequence[Way], found: dict[str, list[Measured]]) -> list[Row]:
    settings = race.settings
    names = [name for name in settings.test for _ in range(settings.samples)]
    others = [name for name in settings.test for _ in range(settings.others)]
    rows = []
    for way in [*([None] if "base" in found else []), *ways]:
        label = way.name if way else "base"
        measured = found[label]
        note = "the token's first row alone" if way is None else ""
        rows.append(_row(f"race.similarity.{label}", _mean(measured, "similarity", names), n=len(names), note=note))
        rows.append(_row(f"race.alignment.{label}", _mean(measured, "alignment", names), n=len(names), note=note))
        if way is None:
            continue
        count = len(measured)
        rows += [
            _row(f"race.drift.{label}", _mean(measured, "drift", others), n=len(others)),
            Row(f"race.bytes.{label}", round(float(np.mean([e.size_bytes for e in measured]))), unit="bytes", n=count),
            Row(f"race.seconds.{label}", round(float(np.mean([e.seconds for e in measured])), 2), unit="s", n=count,
                note="CPU seconds of one thread, preservation pictures and encoding included; the grid's are not"),
        ]  # fmt: skip
        if used := if_kept(race.applying, way, settings.test[0]):
            rows += [
                Row(f"race.apply_s.{label}", round(used["apply_s"], 4), unit="s", n=5, note="CPU seconds from file to model"),
                Row(f"race.revert_s.{label}", round(used["revert_s"], 4), unit="s", n=5, note="CPU seconds"),
                Row(f"race.exact_revert.{label}", used["exact"], target="== 1" if way.method in OURS else None, n=5,
                    note="share of the weights with the base's bits after applying and reverting"),
            ]  # fmt: skip
        if (peak := race.peak(way)) is not None:
            rows.append(Row(f"race.peak_mb.{label}", round(peak / 1e6, 1), unit="MB", n=1,
                            note="resident memory of the training beyond the loaded model, encoding left out"))  # fmt: skip
    return rows


OURS = ("neurons", "token_residual")


def _against_lora(race: Race, ways: Sequence[Way], found: dict[str, list[Measured]]) -> list[Row]:
    """The smallest and the quickest of ours whose similarity is not below LoRA r=4's by more than ``EQUAL``."""
    if "lora4" not in found or not any(way.method in OURS for way in ways):
        return []
    lora = found["lora4"]
    theirs = np.concatenate([each.similarity for each in lora])
    names = [name for name in race.settings.test for _ in range(race.settings.samples)]
    equal: list[Way] = []
    gaps: dict[str, float] = {}
    for way in (way for way in ways if way.method in OURS):
        gaps[way.name] = float(np.concatenate([each.similarity for each in found[way.name]]).mean() - theirs.mean())
        if gaps[way.name] >= -EQUAL:
            equal.append(way)
    best = max(gaps, key=lambda name: gaps[name])
    none = (
        f"no way of ours is within {EQUAL} of LoRA's similarity {theirs.mean():.3f}; nearest {best} {gaps[best]:+.3f}"
    )
    rows = []
    for claim, field, target in (("bytes", "size_bytes", "<= 0.1"), ("seconds", "seconds", "<= 1")):

        def mean(way: str, field: str = field) -> float:
            return float(np.mean([getattr(each, field) for each in found[way]]))

        if not equal:
            rows.append(Row(f"race.{claim}_vs_lora4", None, target=target, note=none))
            continue
        way = min(equal, key=lambda each: mean(each.name))
        note = f"{way.name}, of {len(gaps)} ways of ours, similarity {gaps[way.name]:+.3f}"
        note += f"; {mean(way.name):.0f} against {mean('lora4'):.0f}"
        rows.append(Row(f"race.{claim}_vs_lora4", round(mean(way.name) / mean("lora4"), 4), target=target,
                        n=len(race.settings.test), note=note))  # fmt: skip
    for way in ways:
        if way.name in gaps:
            both = (np.concatenate([each.similarity for each in found[way.name]]), theirs)
            rows.append(
                _row(f"race.similarity_vs_lora4.{way.name}", paired_bootstrap(*both, groups=names), n=len(names))
            )
    return rows


def _choices(race: Race) -> list[Row]:
    """What the rule chose for each method, so that the table can say it."""
    rows = []
    for method in (*PEERS, VALUES):
        one = if_kept(race.setting, method)
        if one is None:
            continue
        tried = race.tried(method)
        highest = one.rate == max(each.rate for each in tried) and len({each.rate for each in tried}) > 1
        note = f"{one.steps} steps; on the tuning subject similarity {one.similarity:.3f}, drift {one.drift:.3f}"
        over = f"; no setting kept the drift within {DRIFT_BOUND}" if one.drift > DRIFT_BOUND else ""
        note += over + ("; the higher of the rates tried" if highest else "")
        rows.append(Row(f"race.chosen_rate.{method.name}", one.rate, n=len(tried), note=note))
    return rows


def _composed(race: Race) -> list[Row]:
    settings = race.settings
    rows: list[Row] = []
    for size in settings.groups:
        sets = [group for group in composing.all_groups(race) if len(group) == size]
        if not sets:
            continue
        every = {kind: if_kept(_groups, race, kind, sets) for kind in KINDS}
        found = {kind: each for kind, each in every.items() if each}
        if found:
            rows += _of_size(SIZES[size], found, race, size, TARGETS[size])
    return rows


def _groups(race: Race, kind: str, sets: Sequence[Sequence[str]]) -> list[Grouped]:
    return [composing.grouped(race, kind, group) for group in sets]


def _of_size(word: str, found: dict[str, list[Grouped]], race: Race, size: int, target: str | None) -> list[Row]:
    """The claims of pairs, triples or fours."""
    first = next(iter(found.values()))
    labels = [number for number, each in enumerate(first) for _ in each.judged.present]
    other_labels = [number for number, each in enumerate(first) for _ in each.drift]
    n, groups, ours = len(labels), len(first), "edits_layout"
    ends = {end: if_kept(composing.real, race, size, end) for end in composing.ENDS}
    floor, note = None, f"{groups} groups"
    if all(ends.values()):
        ceiling, best, floor = (each[0] for each in ends.values() if each)
        note += (
            f"; real scenes reach {ceiling:.2f}, as the autoencoder shows them {best:.2f}; "
            f"control: their class nouns, so shown"
        )
    rows = []
    if ours in found:
        baseline = float(_column(found["edits"], "present").mean()) if "edits" in found else None
        note = f"located and tuned, layout guidance ({composing.setting_of(race, ours)}); baseline: no layout; {note}"
        interval = bootstrap(_column(found[ours], "present"), groups=labels)
        rows.append(_row(f"compose.{word}_present", interval, target, n=n, control=floor, baseline=baseline, note=note))
    merges = {merge: composing.setting_of(race, f"lora_{merge}") for merge in MERGES if f"lora_{merge}" in found}
    pairs: list[tuple[str, str, str, str | None, str]] = [
        (f"vs_lora_{merge}", ours, f"lora_{merge}", "low > 0",
         f"share with every subject present, ours with layout minus LoRA r=4 merged at weight {weight}"
         + (f", density {density}" if density else ""))
        for merge, (weight, density) in merges.items()
    ]  # fmt: skip
    pairs.append(("vs_lora_no_layout", "edits", "lora_cat", None, "neither has a layout; LoRA: cat"))
    pairs += [
        ("vs_lora_with_layout", ours, "lora_cat_layout", None, "both have the layout; LoRA: cat"),
        ("vs_lora_in_company", ours, "lora_company_layout", None, "both have company, steps and layout; LoRA: cat"),
        (
            "vs_alone",
            ours,
            "alone_layout",
            None,
            "edits taught in company, and longer, minus taught alone; both have the layout",
        ),
    ]
    for claim, one, other, asked, text in pairs:
        if one in found and other in found:
            columns = _column(found[one], "present"), _column(found[other], "present")
            baseline = float(columns[1].mean())
            interval = paired_bootstrap(*columns, groups=labels)
            rows.append(_row(f"compose.{word}_{claim}", interval, asked, n=n, baseline=baseline, note=text))
    for kind in found:
        for field in ("present", "leaked", "obeyed", "similarity"):
            interval = bootstrap(_column(found[kind], field), groups=labels)
            rows.append(_row(f"compose.{word}.{field}.{kind}", interval, n=n))
        if kind != "rows":
            drift = bootstrap(_column(found[kind], "drift"), groups=other_labels)
            rows.append(_row(f"compose.{word}.drift.{kind}", drift, n=len(other_labels)))
    if size == 2:
        rows += _drift_of_pairs(found, other_labels)
        if real := ends["real"]:
            text, count = "the leakage judged in real scenes of the pairs", groups * race.settings.real
            rows.append(Row("compose.leaked_real", round(real[1], 5), n=count, note=text))
    return rows


def _drift_of_pairs(found: dict[str, list[Grouped]], labels: Sequence[int]) -> list[Row]:
    """Ours with layout against the merge of LoRA that drifts least; only where all merges were drawn."""
    if not {"edits_layout", *(f"lora_{merge}" for merge in MERGES)} <= found.keys():
        return []
    best = min(MERGES, key=lambda merge: float(_column(found[f"lora_{merge}"], "drift").mean()))
    pair = _column(found["edits_layout"], "drift"), _column(found[f"lora_{best}"], "drift")
    note = f"ours with layout minus the merge of LoRA that drifts least, {best}; unrelated prompts have no layout"
    gap, ratio = paired_bootstrap(*pair, groups=labels), ratio_bootstrap(*pair, groups=labels)
    return [
        _row("compose.drift_vs_lora", gap, "<= 0", n=len(labels), note=note),
        _row("compose.drift_ratio_vs_lora", ratio, n=len(labels), note=note.replace("minus", "over")),
    ]


def _column(found: Sequence[Grouped], field: str) -> np.ndarray:
    if field == "drift":
        return np.concatenate([each.drift for each in found])
    return np.concatenate([getattr(each.judged, field) for each in found]).astype(float)


def _mean(measured: Sequence[Measured], field: str, groups: Sequence[str]) -> Sequence[float]:
    return bootstrap(np.concatenate([getattr(each, field) for each in measured]), groups=groups)


def _row(
    claim: str, interval: Sequence[float], target: str | None = None, *, n: int, note: str = "",
    baseline: float | None = None, control: float | None = None,
) -> Row:  # fmt: skip
    value, low, high = (round(float(number), 5) for number in interval)
    low, high = min(low, value), max(high, value)
    rounded = [None if number is None else round(number, 5) for number in (baseline, control)]
    return Row(claim, value, low, high, target=target, baseline=rounded[0], control=rounded[1], n=n, note=note)
