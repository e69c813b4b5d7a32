"""Does a CLIP-like model read a sentence, or a bag of its words? Attribution, relation and order of ARO, made from scenes.

A picture and captions of the same words: the true one has to be the nearest. A model that reads bags of words guesses: 1/2 in
attribution and relation, 1/5 among the caption and four shuffles of it. Beside it stands the share that is right with the picture
of another case, which tells what the captions give away without any picture.

Paper: *When and why vision-language models behave like bags-of-words, and what to do about it?* (ICLR 2023, arXiv:2210.01936).
Changed: pictures and captions are scenes of the emoji world, so that false captions are false by construction; two captions of
one score count as wrong. Claims ``aro.*`` of benchmarks/measure/aro.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from jaxtyping import Bool, Float

from photopic.core.config import Config
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.results import Report
from photopic.core.view import Interval, Intervals, Note, Section, Table, View
from photopic.data.aro import PARTS, Part, aro_case, chance
from photopic.metrics.intervals import wilson
from photopic.models.dual_encoder import DualEncoder

BATCH = 250  # cases that are drawn and read at a time


@dataclass(frozen=True, kw_only=True)
class AroConfig(Config):
    """What is asked."""

    pairs: Annotated[int, Ge(2)] = 1000  # pictures of each part; more makes the intervals narrower
    parts: tuple[Part, ...] = PARTS  # what is asked: attribution, relation, order
    size: Annotated[int, Ge(16)] = 64  # side of the pictures in pixels, before the model's own resizing
    seed: Annotated[int, Ge(0)] = 0  # seed of the scenes


def aro_view(report: Report) -> View:
    """Shares with intervals beside guessing, then by relation and shuffle."""
    whole = [row for row in report.rows if row["kind"] == "all"]
    items = [
        Interval(f"{row['part']} (guessing {row['chance']:.0%})", row["share"], row["low"], row["high"])
        for row in whole
    ]
    header = ["part", "", "right", "95 % interval", "guessing", "another picture", "cases"]
    table = [
        [row["part"], "" if row["kind"] == "all" else row["kind"], f"{row['share']:.1%}",
         f"{row['low']:.1%} to {row['high']:.1%}", f"{row['chance']:.0%}", f"{row['other_picture']:.1%}", f"{row['cases']:,}"]
        for row in report.rows
    ]  # fmt: skip
    note = Note(
        "Another picture: the share that is right with the picture of another case. Where it is above guessing, the captions give "
        "themselves away, and only what lies above it is reading."
    )
    lead = "; ".join(f"{row['part']} {row['share']:.1%} (guessing {row['chance']:.0%})" for row in whole)
    sections = [
        Section("", [Intervals(items, "share of captions that are found")]),
        Section("In detail", [Table(header, table), note]),
    ]
    return View(f"Does {report.provenance['model']} read sentences?", sections, lead=lead)


@method(
    paper="arXiv:2210.01936",
    claims="aro.",
    presets={"ten-thousand": AroConfig(pairs=10_000)},
    command="measure aro",
    examples=("Example: photopic measure aro --model emoji-clip-cnn --json",),
    view=aro_view,
    allow_edits=True,
)
def aro(model: DualEncoder, *, config: AroConfig = AroConfig()) -> Steps[Report]:
    """Does a CLIP-like model read a sentence, or a bag of its words?

    Args:
        model: A bundled dual encoder, a folder with one of transformers, or a hub id.
        config: What is asked.

    Returns:
        ``values``: the share right of each part. ``rows``: the same with intervals, what guessing gives and what the captions give
        away without the picture; then by relation, and by shuffle, where each stands alone against the caption.

    Raises:
        DataError: If the model has no token for a caption.

    Example:
        >>> aro(model).values["relation"]  # doctest: +SKIP
        0.53
    """
    rows: list[dict[str, Any]] = []
    for part in config.parts:
        scores, others, kinds = yield from _scores(model, part, config)
        # the true caption is the first; one that the model reads as it reads a false one is not found
        right, elsewhere = (
            np.asarray(each[:, :1] > each[:, 1:]) for each in (scores, others)
        )  # (cases, false captions)
        rows.append(_row(part, "all", chance(part), np.asarray(right.all(1)), np.asarray(elsewhere.all(1))))
        for kind in sorted(set(kinds.ravel().tolist())) if part != "attribution" else ():
            rows.append(_row(part, kind, 0.5, right[kinds == kind], elsewhere[kinds == kind]))
    values = {row["part"]: row["share"] for row in rows if row["kind"] == "all"}
    return Report("aro", values, tuple(rows), {"digest": model.digest(), "model": model.name})


def _scores(
    model: DualEncoder, part: Part, config: AroConfig
) -> Steps[tuple[Float[np.ndarray, "cases captions"], Float[np.ndarray, "cases captions"], np.ndarray]]:
    """Cosines of each picture and its captions, of the picture before it and the same captions, and what the false ones are."""
    images, texts, kinds = [], [], []
    for start in range(0, config.pairs, BATCH):
        yield Event(part, start, config.pairs)
        numbers = range(start, min(start + BATCH, config.pairs))
        cases = [aro_case(part, (config.seed, number), size=config.size) for number in numbers]
        images.append(model.image_features([case.image for case in cases]))  # (n, dim)
        read = model.text_features([caption for case in cases for caption in case.captions])
        texts.append(read.unflatten(0, (len(cases), -1)))  # (n, captions, dim)
        kinds += [case.kinds for case in cases]
    pictures, captions = torch.cat(images), torch.cat(texts)
    own, other = (torch.einsum("nd,ncd->nc", each, captions).numpy() for each in (pictures, pictures.roll(1, 0)))
    return own, other, np.array(kinds)


def _row(
    part: Part, kind: str, guessing: float, right: Bool[np.ndarray, " cases"], elsewhere: Bool[np.ndarray, " cases"]
) -> dict[str, Any]:
    share, low, high = wilson(int(right.sum()), len(right))
    found = {"share": share, "low": low, "high": high, "chance": guessing}
    return {"part": part, "kind": kind, **found, "other_picture": float(elsewhere.mean()), "cases": len(right)}
