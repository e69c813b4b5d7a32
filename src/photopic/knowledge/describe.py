"""Describing pictures without a model: scenes of the emoji world exactly, pictures of a folder by the texts that lie beside them.

Paper: Improving Clarity of Image Captions via Bag-of-Concept Graphs (arXiv:2407.03314). A model that writes the texts itself is
``photopic.knowledge.caption``. Claims ``knowledge_text.*`` of benchmarks/knowledge/knowledge_text.py.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le
from PIL import Image

from photopic.core.config import Config, Flags
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.files import read_file, write_atomically
from photopic.core.method import method
from photopic.core.results import Report
from photopic.core.view import Note, Section, Table, View
from photopic.data import renderings
from photopic.data.captions import read_captions
from photopic.data.folder import contents
from photopic.data.picture_file import read_picture
from photopic.data.picture_set import SCENES, SEED, PictureSet
from photopic.data.scenes import Scene, SceneOptions, sample_scene
from photopic.knowledge.bag_file import write_bags
from photopic.knowledge.bag_of_concepts import resized
from photopic.knowledge.bag_record import BagRecord, ImageFile, RunLengths
from photopic.knowledge.caption_text import parse
from photopic.knowledge.scene_bags import bag_of_scene

CANVAS = (512, 512)  # width and height of the canvas on which the published text places objects
SHOWN = 20  # rows on the terminal
Described = tuple[str, BagRecord | DataError]  # name of the picture, and its record or why there is none


@dataclass(frozen=True, kw_only=True)
class DescribeConfig(Config):
    """Which scenes are drawn; of a folder nothing."""

    size: Annotated[int, Ge(16), Le(1024)] = 64  # side of a scene in pixels
    tinted: Annotated[float, Ge(0), Le(1)] = 0.3  # share of a scene's objects that are tinted and so have a colour
    repeated: Annotated[float, Ge(0), Le(1)] = 0.2  # share of scenes that show one concept several times
    seed: Annotated[int, Ge(0)] = SEED  # seed of the scenes; the same seed draws the same


def describe_view(report: Report) -> View:
    """Totals, and the first pictures."""
    values = report.values
    lead = (
        f"{values['described']} of {values['pictures']} pictures are described: {values['objects']} objects and "
        f"{values['relations']} relations, {values['external']} of them to something outside the list."
    )
    blocks: list[Any] = [
        Table(
            ("picture", "objects", "relations", "repairs", "not read because"),
            [list(row.values()) for row in report.rows[:SHOWN]],
        )
    ]
    if len(report.rows) > SHOWN:
        blocks.append(Note(f"{len(report.rows) - SHOWN} pictures more are in {values['file']}.", "Shortened"))
    if values["repairs"]:
        blocks.append(Table(("repair", "times"), list(values["repairs"].items())))
    return View("What pictures show", [Section("", blocks)], lead)


@method(
    paper="arXiv:2407.03314",
    claims="knowledge_text.",
    command="knowledge describe",
    examples=(
        "Example: photopic knowledge describe emoji-scenes:100 --pictures-to scenes/ -o scenes.jsonl",
        "Texts beside pictures, photo.txt of photo.jpg: photopic knowledge describe photos/ -o photos.jsonl",
    ),
    view=describe_view,
    after=("next: photopic knowledge show {bags}",),
    page=False,
)
def describe(
    pictures: PictureSet,
    *,
    output: Annotated[str, Flags("--output", "-o", "--out")],
    pictures_to: str = "",
    overwrite: bool = False,
    config: DescribeConfig = DescribeConfig(),
) -> Steps[Report]:
    """Write what pictures show as bags of concepts, one line of JSON a picture: exactly of scenes, by its texts of a folder.

    Args:
        pictures: A folder with a text beside each picture, or scenes of the emoji world.
        output: The file to write, .jsonl by habit.
        pictures_to: Folder for the pictures of scenes, which are on no disk; by default they are not written.
        overwrite: Replace the output if it exists.
        config: Which scenes are drawn.

    Returns:
        One row a picture: its objects, relations and repairs, or why its text could not be read.

    Raises:
        DataError: If there is no picture, or not one text could be read.
        FileExistsError: If the output is there and ``overwrite`` is false.

    Example:
        >>> describe(PictureSet("emoji-scenes:8"), output="scenes.jsonl").values["described"]  # doctest: +SKIP
        8
    """
    word, _, count = pictures.word.partition(":")
    is_scenes = word == SCENES
    found = scene_records(int(count or 100), config, pictures_to) if is_scenes else folder_records(Path(pictures.word))
    records: list[BagRecord] = []
    rows: list[dict[str, Any]] = []
    repairs: Counter[str] = Counter()
    for name, record in found:
        yield Event("describing", len(rows))
        read = None if isinstance(record, DataError) else record
        rows.append({
            "picture": name, "objects": len(read.bag.objects) if read else 0, "relations": len(read.bag.relations) if read else 0,
            "repairs": len(read.repairs) if read else 0, "problem": "" if read else str(record),
        })  # fmt: skip
        if read:
            records.append(read)
            repairs.update(each.split(": ")[1] for each in read.repairs)
    if not records:
        raise DataError(
            f"{pictures.word}: expected texts of bags of concepts beside the pictures, found none; {rows[0]['problem']}"
        )
    write_bags(output, records, overwrite=overwrite)
    values = {
        "pictures": len(rows), "described": len(records), "file": output, "repairs": dict(repairs.most_common()),
        "objects": sum(row["objects"] for row in rows), "relations": sum(row["relations"] for row in rows),
        "external": sum(each.external for record in records for each in record.bag.relations),
    }  # fmt: skip
    return Report("bags of concepts", values, tuple(rows), {"bags": output})


def scene_records(count: int, config: DescribeConfig = DescribeConfig(), folder: str = "") -> Iterator[Described]:
    """Scenes of one to four objects with their exact bags.

    Args:
        count: How many.
        config: Which are drawn.
        folder: Where their pictures are written as PNG; nowhere by default.

    Example:
        >>> name, record = next(scene_records(1))
        >>> name, record.source, len(record.masks) == len(record.bag.objects)
        ('scene-00000.png', 'exact', True)
    """
    options = SceneOptions(
        renderings.classes(), size=config.size, objects=(0.25,) * 4, tinted=config.tinted, repeated=config.repeated
    )
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        scene, name = sample_scene(options, (config.seed, number)), f"scene-{number:05d}.png"
        content = _png(scene)
        if folder:
            write_atomically(Path(folder) / name, content)
        bag = bag_of_scene(scene)
        masks = {item.name: RunLengths.of(mask) for item, mask in zip(bag.objects, scene.masks, strict=True)}
        image = ImageFile(name, hashlib.sha256(content).hexdigest(), config.size, config.size)
        yield name, BagRecord(bag, image, "exact", (), masks)


def folder_records(folder: Path) -> Iterator[Described]:
    """The pictures of a folder with the bags that the texts beside them tell; boxes are in pixels of the pictures.

    Args:
        folder: With ``photo.txt`` beside ``photo.jpg``, or captions in ``metadata.jsonl``.

    Raises:
        DataError: If it is no folder, holds no picture, or a caption cannot be read.
    """
    files, others = contents(folder)
    texts, _ = read_captions(files, others)
    for file in files:
        try:
            yield file.name, _described(file, texts.get(file, (None, b""))[1].decode())
        except DataError as error:
            yield file.name, error


def _described(file: Path, text: str) -> BagRecord:
    if not text.strip():
        raise DataError("no text lies beside the picture")
    width, height = read_picture(file).size
    parsed = parse(text)
    image = ImageFile(file.name, hashlib.sha256(read_file(file, DataError)).hexdigest(), width, height)
    bag = resized(parsed.bag, CANVAS, (width, height))  # the published text places objects on a canvas
    return BagRecord(bag, image, "text", tuple(map(str, parsed.repairs)))


def _png(scene: Scene) -> bytes:
    content = io.BytesIO()
    Image.fromarray(scene.image).save(content, "PNG")
    return content.getvalue()
