"""Captioning by bags of concepts: a model writes what each picture shows, and what it writes is read, repaired and kept as graphs.

Paper: Improving Clarity of Image Captions via Bag-of-Concept Graphs (arXiv:2407.03314), its captioner. Changed: the bundled model
writes a short form of 1,372 words from 64 pixels and takes no prompt; any vision-language model of transformers is asked for the
published text with its marks, and its answer is repaired. Claims ``bacon.object_*``, ``bacon.relation_*``,
``bacon.attribute_*`` and ``bacon.captioner_*`` of benchmarks/knowledge/bacon_captions.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge
from jaxtyping import UInt8

from photopic.core.config import Config, Existing, Flags
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.files import what_is_there
from photopic.core.method import method
from photopic.core.results import Report
from photopic.core.view import Section, Table, View
from photopic.data.folder import picture_files
from photopic.data.picture_file import read_picture
from photopic.knowledge.bag_file import write_bags
from photopic.knowledge.bag_of_concepts import resized
from photopic.knowledge.bag_record import BagRecord, ImageFile
from photopic.knowledge.caption_damage import Parsed
from photopic.knowledge.caption_text import parse
from photopic.knowledge.compact_reading import read_compact
from photopic.models.captioner import Captioner

CANVAS = (512, 512)  # on which the published text gives positions
INSTRUCTION = (
    "Describe the picture in exactly this form, with these marks.\n"
    "%%Part1: Overall description%%\n&&Part1.1: Style&& one sentence. &&Part1.2: Theme&& one sentence. "
    "&&Part1.3: Global description of background&& some sentences. &&Part1.4: Global description of foreground&& some sentences.\n"
    "%%Part2: List of objects%%\nOne line an object, the important ones first, several of a kind numbered: "
    "<owl 1> (Living; foreground; what it looks like and does; Color information: its colours)\n"
    "%%Part3: Relationships%%\nOne line a pair, in one direction: <owl 1> [sits on] <branch 1>."
)


@dataclass(frozen=True, kw_only=True)
class CaptionConfig(Config):
    """How the model is asked."""

    longest: Annotated[int | None, Ge(1)] = None  # tokens of a text at most; as the model's own configuration says
    batch: Annotated[int, Ge(1)] = 32  # pictures read together


def caption_view(report: Report) -> View:
    """What was written of each picture."""
    values = report.values
    lead = (
        f"{values['read']} of {values['pictures']} pictures have a graph, with {values['objects']:.1f} objects and "
        f"{values['repairs']:.1f} repairs each."
    )
    rows = [tuple(row.values()) for row in report.rows]
    table = Table(("picture", "objects", "relations", "repairs", "not read because"), rows)
    return View("Captions as graphs", [Section("", [table])], lead)


@method(
    paper="arXiv:2407.03314",
    claims="bacon.captioner",
    command="knowledge caption",
    examples=(
        "Example: photopic knowledge caption scenes/ -o scenes.jsonl",
        "Your model: photopic knowledge caption photos/ --model llava/ -o photos.jsonl",
    ),
    view=caption_view,
    page=False,
)
def caption(
    model: Captioner,
    pictures: Annotated[str, Flags("PICTURES"), Existing()],
    *,
    output: Annotated[str, Flags("--output", "-o", "--out")],
    prompt: str = INSTRUCTION,
    config: CaptionConfig = CaptionConfig(),
) -> Steps[Report]:
    """Write what pictures show as bags of concepts, one line of JSON a picture.

    Args:
        model: A bundled captioner, or a folder with a vision-language model of transformers.
        pictures: A picture, or a folder of pictures.
        output: The file to write, .jsonl by habit.
        prompt: What a model that takes prompts is asked; by default for the text with its marks. The bundled one takes none.
        config: How it is asked.

    Returns:
        One row a picture: its objects, relations and repairs, or why its text could not be read.

    Raises:
        DataError: If there is no picture, or not one text could be read.

    Example:
        >>> caption(Captioner.load("emoji-captioner"), "scenes/", output="scenes.jsonl").values["read"]  # doctest: +SKIP
        8
    """
    files = picture_files(Path(pictures)) if what_is_there(Path(pictures)) == "a folder" else [Path(pictures)]
    records: list[BagRecord] = []
    rows: list[dict[str, Any]] = []
    for done in range(0, len(files), config.batch):
        yield Event("writing", done, len(files))
        chunk = files[done : done + config.batch]
        images = [np.asarray(read_picture(file)) for file in chunk]
        for file, found in zip(chunk, bags_of(model, images, prompt, config), strict=True):
            if isinstance(found, DataError):
                rows.append(_row(file, None, str(found)))
                continue
            height, width = images[chunk.index(file)].shape[:2]
            image = ImageFile(file.name, hashlib.sha256(file.read_bytes()).hexdigest(), width, height)
            records.append(BagRecord(found.bag, image, model.name, tuple(map(str, found.repairs))))
            rows.append(_row(file, found, ""))
    if not records:
        raise DataError(f"{pictures}: expected texts of bags of concepts, found none; {rows[0]['not read because']}")
    write_bags(output, records, overwrite=True)  # the command has refused what is there
    counts = [len(each.bag.objects) for each in records], [len(each.repairs) for each in records]
    objects, repairs = (float(np.mean(each)) for each in counts)
    values = {"pictures": len(files), "read": len(records), "objects": objects, "repairs": repairs, "file": output}
    return Report("captions", values, tuple(rows))


def bags_of(
    model: Captioner,
    images: Sequence[UInt8[np.ndarray, "..."]],
    prompt: str = INSTRUCTION,
    config: CaptionConfig = CaptionConfig(),
) -> Iterator[Parsed | DataError]:
    """The bag of each picture with its repairs, in the pixels of the picture; why there is none as a ``DataError``, not raised.

    Args:
        model: The captioner.
        images: RGB, of any sizes.
        prompt: For a model that takes prompts.
        config: How it is asked.

    Example:
        >>> next(bags_of(Captioner.load("emoji-captioner"), [image])).bag.objects[0].name  # doctest: +SKIP
        'owl 1'
    """
    asked = prompt if model.takes_prompts else ""
    texts = model.write(list(images), asked, longest=config.longest, batch=config.batch)
    for text, image in zip(texts, images, strict=True):
        size = image.shape[1], image.shape[0]
        try:
            if model.takes_prompts:  # it was asked for the published text, the bundled one learnt the short form
                parsed = parse(text)
                yield Parsed(resized(parsed.bag, CANVAS, size), parsed.repairs)
            else:
                yield read_compact(text, size)
        except DataError as error:
            yield error


def _row(file: Path, found: Parsed | None, reason: str) -> dict[str, Any]:
    bag = found.bag if found else None
    counts = (len(bag.objects), len(bag.relations), len(found.repairs)) if bag and found else (0, 0, 0)
    return dict(
        zip(
            ("picture", "objects", "relations", "repairs", "not read because"),
            (file.name, *counts, reason),
            strict=True,
        )
    )
