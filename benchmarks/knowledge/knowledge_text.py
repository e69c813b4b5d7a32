"""Texts of bags of concepts: how many survive print and parse, what becomes of damaged ones, and how time grows with length.

    python -m benchmarks knowledge-text             # about half an hour; writes benchmarks/results/knowledge-text.json

Protocol, fixed before the run. 10^5 bags are drawn from seeds 0 to 10^5 - 1, every second of odd letters and marks, every second
of ordinary words. A bag survives if ``parse(write(bag))`` is equal to it, needs no repair, and the strict grammar reads the same.
Each text is then damaged by one to three accidents (``random_bags.ACCIDENTS``). The reading of a damaged text is *told* if it gives
a bag that lacks no word of the text but those that a repair points at, or one ``DataError`` in one line; anything else, exceptions
of other kinds above all, is a failure. Baseline: a reader that splits at marks and counts parts, as the published one does; it
survives if the names of all objects and all relations come back. Time: the slope of log seconds over log letters between texts of
10 and of 640 objects, processor time, the least of five.
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

from annotated_types import Ge

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.knowledge.random_bags import damaged, lost_words, odd_text, plain_text, random_bag
from benchmarks.knowledge.split_reader import split_read
from photopic.core.config import Config
from photopic.core.errors import DataError
from photopic.knowledge.bag_of_concepts import BagOfConcepts, ConceptObject, Relation
from photopic.knowledge.caption_text import parse, write

BATCH = 500  # bags of one case
SIZES = (10, 40, 160, 640)  # objects of the texts that are timed
CLAIMS = (
    Claim(
        "knowledge_text.round_trip",
        "== 1",
        "share of bags equal after print and parse, strict and not; baseline: splitting at marks",
    ),
    Claim(
        "knowledge_text.damage_told",
        "== 1",
        "share of damaged texts whose reading loses no word silently and raises nothing else",
    ),
    Claim(
        "knowledge_text.damage_read",
        "",
        "share of damaged texts that give a bag rather than an error; baseline: splitting at marks",
    ),
    Claim("knowledge_text.repairs", "", "mean number of repairs of a damaged text that gave a bag"),
    Claim("knowledge_text.time_exponent", "<= 1.2", "1 is linear"),
    Claim("knowledge_text.objects_per_second", "", "of a whole text of 160 objects, one thread", "1/s"),
)


@dataclass(frozen=True)
class TextConfig(Config):
    """How much is measured."""

    bags: Annotated[int, Ge(BATCH)] = 100_000  # drawn, printed, parsed and damaged


def cases(config: TextConfig) -> Sequence[int]:
    """The first seed of each batch."""
    return range(0, config.bags, BATCH)


def measure(bench: Bench[TextConfig, Any], first: int) -> dict[str, Any]:
    """Counts over one batch, with the seeds of what failed."""
    found: Counter[str] = Counter()
    failed: list[int] = []
    for seed in range(first, first + BATCH):
        draw = random.Random(seed)
        bag = random_bag(draw, plain_text if seed % 2 else odd_text)
        text = write(bag)
        parsed = parse(text)
        survived = parsed.bag == bag and not parsed.repairs and parse(text, strict=True).bag == bag
        broken = damaged(text, draw)
        outcome, repairs = _read(broken)
        found.update(
            {
                "survived": survived,
                outcome: 1,
                "repairs": repairs,
                "split": _splits(bag, text),
                "split_read": _splits(None, broken),
            }
        )
        failed += [] if survived and outcome in ("read", "refused") else [seed]
    return dict(found) | {"failed": failed}


def _read(text: str) -> tuple[str, int]:
    """What becomes of a text, and how many repairs it took."""
    try:
        parsed = parse(text)
    except DataError as error:
        return ("refused" if "\n" not in str(error) else "long error"), 0
    except Exception as error:  # the failure that is looked for
        return type(error).__name__, 0
    return ("lost" if lost_words(text, parsed) else "read"), len(parsed.repairs)


def _splits(bag: BagOfConcepts | None, text: str) -> bool:
    """Whether the baseline reads a text: all names and relations of a bag, or without one anything but an exception."""
    try:
        objects, relations = split_read(text)
    except (IndexError, ValueError):
        return False
    told = [(each.subject, each.predicate, each.object) for each in bag.relations] if bag else relations
    return relations == told and (
        bag is None or [item.name.strip() for item in objects] == [item.name for item in bag.objects]
    )


def text_of(objects: int) -> str:
    """A text of so many objects of ordinary words, each related to the one before."""
    draw = random.Random(objects)
    listed = tuple(
        ConceptObject(
            f"{draw.choice(('owl', 'tree', 'lamp'))} {k}x",
            True,
            "both",
            (plain_text(draw),),
            (plain_text(draw),),
            (k, k, k + 9, k + 9),
        )
        for k in range(objects)
    )
    related = tuple(Relation(first.name, "is near", second.name) for first, second in pairwise(listed))
    return write(BagOfConcepts("photo", "night", objects=listed, relations=related))


def seconds_of(text: str) -> float:
    """Processor time of reading a text, the least of five."""
    times = []
    for _ in range(5):
        began = time.process_time()
        parse(text)
        times.append(time.process_time() - began)
    return min(times)


def rows(bench: Bench[TextConfig, Any]) -> Iterator[Row]:
    """All claims."""
    total: Counter[str] = Counter()
    failed: list[int] = []
    for case in bench.cases:
        found = dict(bench.found(case))
        failed += found.pop("failed")
        total.update(found)
    n = bench.config.bags
    told = total["read"] + total["refused"]
    note = f"failing seeds: {failed[:5]}" if failed else "no seed fails"
    yield row("knowledge_text.round_trip", total["survived"] / n, baseline=total["split"] / n, n=n, note=note)
    yield row("knowledge_text.damage_told", told / n, n=n, note=f"{total['refused']:,} refused in one line; {note}")
    yield row("knowledge_text.damage_read", total["read"] / n, baseline=total["split_read"] / n, n=n)
    yield row("knowledge_text.repairs", total["repairs"] / max(total["read"], 1), n=total["read"])
    texts = [text_of(size) for size in SIZES]
    times = [seconds_of(text) for text in texts]
    slope = math.log(times[-1] / times[0]) / math.log(len(texts[-1]) / len(texts[0]))
    said = ", ".join(f"{len(text):,} letters {1000 * each:.1f} ms" for text, each in zip(texts, times, strict=True))
    yield row("knowledge_text.time_exponent", slope, n=len(SIZES), note=said)
    yield row("knowledge_text.objects_per_second", SIZES[2] / times[2], n=5)


BENCHMARKS = (
    Benchmark(
        "knowledge-text", __doc__, TextConfig(), TextConfig(BATCH), CLAIMS, rows, cases=cases, measure=measure, seeds=(0,)
    ),
)  # fmt: skip
