"""Take pictures apart into conditions: caption, embedding, palette, sketch, instances, depth, intensity, what is kept, skeleton.

Each becomes a picture of itself, and all of a picture one ``.conditions`` file that ``photopic generate --condition`` and
``photopic train conditions`` read.

Paper: *Composer: Creative and Controllable Image Synthesis with Composable Conditions* (arXiv:2302.09778). Changed: the paper's
extractors are networks; here masks and drawing order are exact for scenes, and of any picture scikit-image finds edges, colours and
the parts that differ from its border. Depth is exact, given, or predicted by a network that learnt from drawings. Claims
``conditions.*`` of benchmarks/measure/conditions.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Le
from jaxtyping import UInt8

from photopic.core.config import Config, Existing, Flags
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.files import write_atomically
from photopic.core.method import method
from photopic.core.results import Report
from photopic.core.view import Figure, Gallery, Section, Table, View
from photopic.data.condition_file import SUFFIX, save_conditions
from photopic.data.conditioned_pictures import ConditionedPictures
from photopic.data.conditions import Conditions
from photopic.data.extraction import depth, instances, masked
from photopic.data.folder import load_mask
from photopic.data.own_conditions import is_grey, read_depth, read_objects, read_sketch
from photopic.data.palette import colours
from photopic.data.picture_file import open_picture
from photopic.data.pictures import contact_sheet, png_bytes
from photopic.data.skeletons import prune, thin
from photopic.models.depth_network import with_depth
from photopic.models.dual_encoder import DualEncoder
from photopic.models.text_to_image.conditional import embedded

SHOWN = 8  # pictures on the page


@dataclass(frozen=True, kw_only=True)
class ConditionsConfig(Config):
    """How pictures are taken apart."""

    size: Annotated[int, Ge(8), Le(4096)] = 64  # side in pixels of the central square that is taken apart
    invert_sketch: bool = False  # the drawing of --sketch has light lines on dark ground


@dataclass(frozen=True)
class Decomposition(Report):
    """A report with its pictures.

    Attributes:
        sheets: Of the first pictures the name, and the picture with all its conditions.
    """

    sheets: Sequence[tuple[str, UInt8[np.ndarray, "h w 3"]]] = ()


def conditions_view(report: Report) -> View:
    """The first pictures with each of their conditions, and a row a picture."""
    figures = [Figure(sheet, name) for name, sheet in getattr(report, "sheets", ())]
    header = list(report.rows[0])
    table = Table(header, [[row[name] for name in header] for row in report.rows[:100]])
    values = report.values
    lead = (
        f"{values['pictures']} pictures of {values['size']} pixels. In {values['folder']}: a .conditions file of each, and a "
        "picture of each condition."
    )
    return View("Conditions", [Section("", [Gallery(figures), table])], lead)


@method(
    paper="arXiv:2302.09778",
    claims="conditions.",
    command="measure conditions",
    examples=(
        "Example: photopic measure conditions photo.png -o photo.parts/",
        "Without pictures: photopic measure conditions emoji-scenes:4 -o parts/",
    ),
    view=conditions_view,
    page=False,
)
def conditions(
    pictures: ConditionedPictures,
    encoder: Annotated[DualEncoder, Flags("--encoder", default="emoji-clip-vit")],
    *,
    output: Annotated[str, Flags("--output", "-o", "--out")],
    mask: Annotated[str | None, Existing()] = None,
    sketch: Annotated[str | None, Existing()] = None,
    instances_map: Annotated[str | None, Flags("--instances"), Existing()] = None,
    depth_map: Annotated[str | None, Flags("--depth"), Existing()] = None,
    overwrite: bool = False,
    config: ConditionsConfig = ConditionsConfig(),
) -> Steps[Report]:
    """Take pictures apart into palette, sketch, objects, depth, grey values, embedding and caption, each with a picture of itself.

    Args:
        pictures: A picture, a folder, or scenes.
        encoder: A dual encoder that makes the embedding.
        output: Folder for a .conditions file of each picture and its pictures; made if missing.
        mask: A black and white picture of the size of the one picture: white is hidden, which makes the condition masked.
        sketch: A drawing of the one picture, dark lines on light ground, in place of its edges.
        instances_map: Objects of the one picture painted in flat greys on black, the first drawn the darkest; gives depth too.
        depth_map: A map of the one picture, light where it is near, in place of a predicted one.
        overwrite: Replace files of the same names in the folder.
        config: How pictures are taken apart.

    Returns:
        A row a picture: its caption, leading colours, number of objects, shares of lines, and mean grey.

    Raises:
        DataError: If there is no picture, a map does not fit, a sketch is a photo, or a file is there already.

    Example:
        >>> conditions(ConditionedPictures("photo.png"), encoder, output="parts").values["pictures"]  # doctest: +SKIP
        1
    """
    folder, size, total = Path(output), config.size, len(pictures)
    own = {"--mask": mask, "--sketch": sketch, "--instances": instances_map, "--depth": depth_map}
    if total > 1 and (given := [name for name, each in own.items() if each]):
        raise DataError(f"{given[0]}: is for one picture, found {total}; take that one apart alone")
    if config.invert_sketch and sketch is None:
        raise DataError("--invert-sketch: says how the drawing of --sketch is, found none; add it")
    sheets: list[tuple[str, np.ndarray]] = []
    rows: list[dict[str, Any]] = []
    for name, image, found in pictures.read(size):
        for said in _notes(pictures.word, name, image, total):
            yield Event("taking apart", len(rows), total, warning=said)
        (vector,) = embedded(encoder, [image])
        parts = {"embedding": vector.vector} | _own(
            image, pictures.word, size, config, mask, sketch, instances_map, depth_map
        )
        parts["skeleton"] = skeletons(parts.get("instances", found.values["instances"]))
        sources = dict.fromkeys(parts, "given") | {"embedding": encoder.name, "skeleton": "thinning, pruned"}
        found = with_depth(found.joined(Conditions(size, parts, sources, vector.encoder)), image)
        sheet = _written(folder, name, image, found, overwrite=overwrite)
        sheets += [(name, sheet)] if len(sheets) < SHOWN else []
        rows.append(_row(name, found))
        yield Event("taking apart", len(rows), total)
    values = {"pictures": total, "size": size, "folder": output}
    return Decomposition("conditions", values, tuple(rows), sheets=sheets)


def _own(
    image: UInt8[np.ndarray, "size size 3"],
    picture: str,
    size: int,
    config: ConditionsConfig,
    mask: str | None,
    sketch: str | None,
    objects: str | None,
    depth_map: str | None,
) -> dict[str, Any]:
    """What the user gave, in place of what is found."""
    found: dict[str, Any] = {}
    if mask is not None:
        found["masked"] = masked(image, load_mask(mask, size, of=picture))
    if sketch is not None:
        found["sketch"] = read_sketch(sketch, size, inverted=config.invert_sketch)
    if objects is not None:
        each = read_objects(objects, size)
        found |= {"instances": instances(each), "depth": depth(each)}
    if depth_map is not None:
        found["depth"] = read_depth(depth_map, size)
    return found


def skeletons(of: UInt8[np.ndarray, "2 h w"]) -> UInt8[np.ndarray, "1 h w"]:
    """Medial lines of the objects that ``instances`` tells apart, by thinning and pruning.

    Example:
        >>> bar = np.zeros((2, 9, 9), np.uint8)
        >>> bar[0, 3:6] = 64
        >>> bool(skeletons(bar)[0, 4].any())
        True
    """
    masks = [of[0] == number for number in np.unique(of[0]) if number]
    lines = [prune(thin(each), each) for each in masks]
    return (np.any(lines, axis=0) * 255).astype(np.uint8)[None]


def _notes(word: str, name: str, image: UInt8[np.ndarray, "h w 3"], total: int) -> list[str]:
    """What a user should know of a picture."""
    found = [f"{name}: has no colours, so its palette is 13 greys"] if is_grey(image) else []
    if total == 1 and Path(word).is_file():
        width, height = (opened := open_picture(Path(word))).size
        if width != height:
            found.append(f"{name}: is {width} x {height}; its central square is taken, made {len(image)} pixels")
        if "A" in opened.getbands() or "transparency" in opened.info:
            found.append(f"{name}: has transparent parts, which are laid on white")
    return found


def _written(
    folder: Path, name: str, image: UInt8[np.ndarray, "h w 3"], found: Conditions, *, overwrite: bool
) -> UInt8[np.ndarray, "sheet_h sheet_w 3"]:
    """Write the file and the pictures of one picture, and return the sheet of all."""
    place = folder / f"{name}{SUFFIX}"
    if place.exists() and not overwrite:
        raise DataError(f"{place}: expected a new file, found one; choose another folder or add --overwrite")
    folder.mkdir(parents=True, exist_ok=True)
    save_conditions(found, place)
    for each in found.names:
        write_atomically(folder / f"{name}-{each}.png", png_bytes(found.picture(each, 256)))
    sheet = contact_sheet(found.sheet(image), columns=len(found.names) + 1, gap=6)
    write_atomically(folder / f"{name}.png", png_bytes(sheet))
    return sheet


def _row(name: str, found: Conditions) -> dict[str, Any]:
    values = found.values
    leading = np.argsort(-values["palette"])[:3]
    hexes = ["#" + "".join(f"{round(channel * 255):02x}" for channel in colours()[place]) for place in leading]
    return {
        "picture": name,
        "caption": values.get("caption", ""),
        "colours": ", ".join(hexes),
        "objects": len(np.unique(values["instances"][0])) - 1,
        "lines": round(float((values["sketch"] > 127).mean()), 4),
        "grey": round(float(values["intensity"].mean() / 255), 4),
    }
