"""Asking a graph: which of its sentences answers a question, of the whole picture or of a region, and which box is meant.

Paper: Improving Clarity of Image Captions via Bag-of-Concept Graphs (arXiv:2407.03314), its region questions and pointing. Changed:
the answer is the sentence of the bag that is most like the question, where the paper hands the text to a language model; nothing is
said that the bag does not say.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge
from jaxtyping import Float

from photopic.core.config import Existing, Flags
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.results import Report
from photopic.core.view import Section, Table, View
from photopic.knowledge._answers import Similarity, by_words, pointed, sentences_of
from photopic.knowledge.bag_file import read_bags
from photopic.knowledge.bag_of_concepts import Box
from photopic.knowledge.bag_record import BagRecord
from photopic.models.dual_encoder import DualEncoder

WORDS = "words"  # the similarity that needs no model


def ask_view(report: Report) -> View:
    """The answers, best first."""
    rows = [[row["answer"], row["about"], round(row["similarity"], 3), row["picture"]] for row in report.rows]
    return View(report.values["question"], [Section("", [Table(("answer", "about", "similarity", "picture"), rows)])])


@method(
    paper="arXiv:2407.03314",
    command="knowledge ask",
    examples=(
        "Example: photopic knowledge ask scenes.jsonl 'what is left of the owl?'",
        "Of a region: photopic knowledge ask photos.jsonl 'what colour is it?' --picture a.png --region 0,0,30,40",
        "Which box: photopic knowledge ask photos.jsonl 'the owl' --picture a.png --box 0,0,30,40 --box 30,0,60,40",
    ),
    view=ask_view,
    page=False,
)
def ask(
    graph: Annotated[str, Flags("GRAPH"), Existing()],
    question: Annotated[str, Flags("QUESTION")],
    *,
    picture: str = "",
    region: str = "",
    boxes: Annotated[Sequence[str], Flags("--box")] = (),
    similarity: str = WORDS,
    answers: Annotated[int, Ge(1)] = 5,
) -> Steps[Report]:
    """Answer a question from graphs of pictures: the sentences that are most like it, best first.

    Args:
        graph: JSON Lines of bags of concepts.
        question: What is asked, in words.
        picture: Name of the picture that is asked about; by default every one is.
        region: Left, top, right and bottom in pixels with commas between; only what overlaps it is told.
        boxes: Left, top, right and bottom of a box to choose from; several times, then the answer is a box.
        similarity: How alike two texts are: words that they share, or a dual encoder's name or folder.
        answers: How many are told.

    Returns:
        One row an answer: ``answer``, ``about`` which objects, ``similarity`` and ``picture``.

    Raises:
        DataError: If no record is of the picture, or a box is no box.

    Example:
        >>> ask("scenes.jsonl", "what is left of the owl?").rows[0]["answer"]  # doctest: +SKIP
        'cat 1 left of owl 1'
    """
    yield Event("reading")
    records = [record for record in read_bags(graph) if not picture or (record.image and record.image.name == picture)]
    if not records:
        raise DataError(
            f"{graph}: expected a record of {picture or 'a picture'}, found none; its names are those of knowledge describe"
        )
    alike = by_words if similarity == WORDS else encoder_similarity(DualEncoder.load(similarity))
    candidates = [_box(each) for each in boxes]
    asked = _box(region) if region else None
    rows: list[dict[str, Any]] = []
    for record in records:
        name = record.image.name if record.image else ""
        if candidates:
            found = pointed(record.bag, candidates, question, alike)
            told = [(boxes[place], "", float(found[place])) for place in range(len(candidates))]
        else:
            sentences = sentences_of(record.bag, asked)
            scores = alike(question, [each.text for each in sentences]) if sentences else ()
            told = [
                (each.text, ", ".join(each.about), float(score)) for each, score in zip(sentences, scores, strict=True)
            ]
        rows += [{"answer": text, "about": about, "similarity": score, "picture": name} for text, about, score in told]
    best = sorted(rows, key=lambda row: -row["similarity"])[:answers]  # stable: of equals the first that is told
    return Report("answers", {"question": question, "records": len(records)}, tuple(best), {"graph": Path(graph).name})


def encoder_similarity(model: DualEncoder) -> Similarity:
    """Cosine of texts by a dual encoder; the bundled ones know words of concepts and little else.

    Args:
        model: The encoder.
    """

    def similarity(question: str, texts: Sequence[str]) -> Float[np.ndarray, " texts"]:
        features = model.text_features([question, *texts])  # (1 + texts, d), of length 1
        return np.asarray((features[1:] @ features[0]).double().cpu())

    return similarity


def answers_to(
    record: BagRecord, question: str, *, region: Box | None = None, similarity: Similarity = by_words
) -> list[str]:
    """The sentences of one record, most like the question first.

    Args:
        record: Of one picture.
        question: What is asked, in words.
        region: Left, top, right, bottom in pixels; None for the whole picture.
        similarity: Of a question to texts.
    """
    texts = [each.text for each in sentences_of(record.bag, region)]
    return [texts[place] for place in np.argsort(-similarity(question, texts), kind="stable")] if texts else []


def _box(words: str) -> Box:
    try:
        left, top, right, bottom = (int(each) for each in words.split(","))
    except ValueError:
        raise DataError(f"expected a box as left,top,right,bottom in whole pixels, found {words!r}") from None
    if left >= right or top >= bottom:
        raise DataError(f"expected a box with left < right and top < bottom, found {words!r}")
    return left, top, right, bottom
