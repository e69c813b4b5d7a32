"""Files of bags of concepts: JSON Lines, one picture a line, in pixels of the picture; published data sets are read unchanged.

    {"format": "photopic scene graph 1", "image": {"name": "a.png", "sha256": "...", "width": 64, "height": 64},
     "style": "...", "theme": "...", "background": [...], "foreground": [...],
     "objects": [{"name": "owl 1", "class": "owl", "index": 1, "living": true, "place": "foreground", "description": [...],
                  "colour": [...], "box": [0, 0, 5, 9], "mask": {"size": [64, 64], "counts": [...]}}],
     "relations": [{"subject": "owl 1", "predicate": "sits on", "object": "branch 1", "external": false}],
     "source": "exact", "repairs": ["line 3: plural: ..."]}

A line ``{"path": "a.png", "caption": "%%Part1: ..."}``, as the authors of the paper share their data, is read as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
from jaxtyping import Bool

from photopic.core.errors import DataError, printable
from photopic.core.files import check_file, read_file, write_atomically
from photopic.knowledge.bag_of_concepts import BagOfConcepts, Box, ConceptObject, Place, Relation, in_order

FORMAT = "photopic scene graph 1"
MAX_LINE = 2**24  # bytes; a bag is a few thousand


@dataclass(frozen=True)
class RunLengths:
    """A mask as the lengths of its runs, as COCO counts them: down the columns, beginning with a run outside.

    Attributes:
        size: (height, width).
        counts: Lengths of runs outside, inside, outside ...

    Example:
        >>> RunLengths.of(np.array([[False, True], [False, True]])).counts
        (2, 2)
    """

    size: tuple[int, int]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        if sum(self.counts) != self.size[0] * self.size[1] or min(self.counts, default=0) < 0:
            raise DataError(
                f"mask: expected runs over {self.size[0]} x {self.size[1]} pixels, found {sum(self.counts)} pixels"
            )

    @staticmethod
    def of(mask: Bool[np.ndarray, "height width"]) -> RunLengths:
        """The runs of a mask."""
        flat = mask.T.reshape(-1)  # (height, width) -> (width * height,), column after column
        changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        ends = [0] * bool(flat.size and flat[0]) + [*changes.tolist(), flat.size]
        counts = np.diff([0, *ends]).tolist()
        height, width = mask.shape
        return RunLengths((height, width), tuple(counts))

    @property
    def mask(self) -> Bool[np.ndarray, "height width"]:
        """The mask itself."""
        inside = np.arange(len(self.counts)) % 2 == 1
        flat = np.repeat(inside, self.counts)  # (width * height,)
        return flat.reshape(self.size[::-1]).T


@dataclass(frozen=True)
class ImageFile:
    """Which picture a bag is of.

    Attributes:
        name: Of the file, relative to a folder that whoever reads it knows.
        sha256: Of its bytes, in hexadecimal; empty where it is not known, as the next two are 0.
        width: In pixels.
        height: In pixels.
    """

    name: str
    sha256: str = ""
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class BagRecord:
    """A bag of concepts with the picture it is of and where it comes from.

    Attributes:
        bag: Boxes in pixels of the picture.
        image: The picture; None where it is not known.
        source: Who says so, such as ``exact`` or the name of a model.
        repairs: What was repaired when it was read from a text, a line each.
        masks: Of objects, by name.

    Raises:
        DataError: If a box leaves the picture, or a mask has no object or another size.
    """

    bag: BagOfConcepts
    image: ImageFile | None = None
    source: str = ""
    repairs: tuple[str, ...] = ()
    masks: Mapping[str, RunLengths] = field(default_factory=dict)

    def __post_init__(self) -> None:
        width, height = (self.image.width, self.image.height) if self.image else (0, 0)
        for item in self.bag.objects:
            if (
                item.box
                and width
                and not (item.box[0] >= 0 and item.box[1] >= 0 and item.box[2] <= width and item.box[3] <= height)
            ):
                raise DataError(
                    f"{item.name!r}: the box {list(item.box)} leaves the picture of {width} x {height} pixels; cut it off"
                )
        for name, mask in self.masks.items():
            if name not in self.bag.by_name:
                raise DataError(f"mask of {name!r}: expected a listed object, found none of this name")
            if width and mask.size != (height, width):
                raise DataError(
                    f"mask of {name!r}: expected {height} x {width} pixels, found {mask.size[0]} x {mask.size[1]}"
                )


def to_json(record: BagRecord) -> dict[str, Any]:
    """A record as JSON values; see the module."""
    bag = record.bag
    return {
        "format": FORMAT,
        "image": asdict(record.image) if record.image else None,
        "style": bag.style,
        "theme": bag.theme,
        "background": list(bag.background),
        "foreground": list(bag.foreground),
        "objects": [_object_json(item, record.masks.get(item.name)) for item in bag.objects],
        "relations": [
            {"subject": each.subject, "predicate": each.predicate, "object": each.object, "external": each.external}
            for each in bag.relations
        ],
        "source": record.source,
        "repairs": list(record.repairs),
    }


def from_json(stated: Any) -> BagRecord:
    """A record from JSON values, checked.

    Raises:
        DataError: Names the first thing that is not as the format has it, what was expected and what was found.

    Example:
        >>> from_json(to_json(BagRecord(BagOfConcepts(theme="night")))).bag.theme
        'night'
    """
    if not isinstance(stated, Mapping) or stated.get("format") != FORMAT:
        found = stated.get("format") if isinstance(stated, Mapping) else stated
        raise DataError(f'expected "format": "{FORMAT}", found {printable(repr(found)[:60])}')
    objects = [_read_object(each) for each in _list(stated, "objects", Mapping)]
    relations = [
        Relation(*(_text(each, name) for name in ("subject", "predicate", "object")))
        for each in _list(stated, "relations", Mapping)
    ]
    bag = BagOfConcepts(
        in_order(_text(stated, "style", "")), in_order(_text(stated, "theme", "")),
        _texts(stated, "background"), _texts(stated, "foreground"), tuple(item for item, _ in objects), tuple(relations),
    )  # fmt: skip
    image = stated.get("image")
    masks = {item.name: mask for item, mask in objects if mask is not None}
    return BagRecord(
        bag,
        None if image is None else _read_image(image),
        _text(stated, "source", ""),
        _texts(stated, "repairs"),
        masks,
    )


def write_bags(path: str | Path, records: Iterable[BagRecord], *, overwrite: bool = False) -> None:
    """Write a file of bags.

    Args:
        path: The file, ``.jsonl`` by habit.
        records: One a picture.
        overwrite: Replace the file if it exists.

    Raises:
        FileExistsError: If it exists.
    """
    lines = [json.dumps(to_json(record), ensure_ascii=False) for record in records]
    write_atomically(Path(path), "".join(f"{line}\n" for line in lines).encode(), new=not overwrite)


def lines_of(path: str | Path) -> Iterator[tuple[int, Any]]:
    """Number and JSON value of each line of a file that is not empty; a line that is no JSON is a ``DataError`` value, not raised.

    Args:
        path: The file; read line by line, so it may be large.

    Raises:
        DataError: If there is no file.
    """
    check_file(Path(path), DataError)
    with Path(path).open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), b""), start=1):
            if line.strip():
                yield number, _decoded(line)


def read_bags(path: str | Path) -> Iterator[BagRecord]:
    """The records of a file of bags, one after the other.

    Args:
        path: Of JSON Lines; the published form is read as well, with whatever has to be repaired told in ``repairs``.

    Raises:
        DataError: Names the file and the line, what was expected and what was found.

    Example:
        >>> [record.image.name for record in read_bags("bags.jsonl")]  # doctest: +SKIP
        ['a.png']
    """
    for number, stated in lines_of(path):
        try:
            yield record_of(stated)
        except DataError as error:
            raise DataError(f"{path}: line {number}: {error}") from None


def record_of(stated: Any) -> BagRecord:
    """A record from one line's JSON value, in photopic's form or the published one.

    Raises:
        DataError: If it is neither, or not as it should be.
    """
    if isinstance(stated, DataError):
        raise stated
    if isinstance(stated, Mapping) and "caption" in stated and "format" not in stated:
        from photopic.knowledge.caption_text import parse

        parsed = parse(_text(stated, "caption"))
        name = _text(stated, "path", "")
        return BagRecord(
            parsed.bag, ImageFile(name) if name else None, "published text", tuple(map(str, parsed.repairs))
        )
    return from_json(stated)


def check_picture(record: BagRecord, folder: str | Path) -> bytes:
    """The bytes of a record's picture, if they are those that it was made of.

    Args:
        record: With an image.
        folder: Where its name is looked for.

    Raises:
        DataError: If there is no such picture in the folder, or its sha256 differs.
    """
    if record.image is None:
        raise DataError("expected a record that names its picture, found one without")
    name = Path(record.image.name)
    if name.is_absolute() or ".." in name.parts:  # a file from elsewhere must not choose what is read
        raise DataError(
            f"{printable(record.image.name)}: expected the name of a picture in {folder}, found a path out of it"
        )
    path = Path(folder) / name
    content = read_file(path, DataError)
    found = hashlib.sha256(content).hexdigest()
    if record.image.sha256 and found != record.image.sha256:
        raise DataError(
            f"{path}: expected the picture with sha256 {record.image.sha256[:12]}, found {found[:12]}; describe it again"
        )
    return content


def _object_json(item: ConceptObject, mask: RunLengths | None) -> dict[str, Any]:
    return {
        "name": item.name, "class": item.concept, "index": item.index, "living": item.living, "place": item.place,
        "description": list(item.description), "colour": list(item.colour), "box": item.box and list(item.box),
        "mask": mask and {"size": list(mask.size), "counts": list(mask.counts)},
    }  # fmt: skip


def _decoded(line: bytes) -> Any:
    if len(line) == MAX_LINE:
        return DataError(f"expected at most {MAX_LINE:,} bytes, found more; is it JSON Lines?")
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        return DataError(f"expected a JSON object, found something else ({printable(str(error))})")


def _read_object(stated: Mapping[str, Any]) -> tuple[ConceptObject, RunLengths | None]:
    name = in_order(_text(stated, "name"))
    living, place = stated.get("living"), stated.get("place")
    if living is not None and not isinstance(living, bool):
        raise DataError(f"{name!r}: living: expected true, false or null, found {living!r}")
    if place not in (None, *get_args(Place)):
        raise DataError(f"{name!r}: place: expected {', '.join(get_args(Place))} or null, found {place!r}")
    item = ConceptObject(
        name, living, place, _texts(stated, "description"), _texts(stated, "colour"), _box(name, stated.get("box"))
    )
    for key, true in (("class", item.concept), ("index", item.index)):
        if stated.get(key, true) != true:
            raise DataError(f"{name!r}: {key}: expected {true!r}, as the name has it, found {stated[key]!r}")
    mask = stated.get("mask")
    return item, None if mask is None else _mask(name, mask)


def _box(name: str, stated: Any) -> Box | None:
    if stated is None:
        return None
    if not isinstance(stated, list) or len(stated) != 4 or not all(type(edge) in (int, float) for edge in stated):
        raise DataError(
            f"{name!r}: box: expected left, top, right, bottom in pixels, found {printable(repr(stated)[:60])}"
        )
    if any(edge % 1 for edge in stated):
        raise DataError(f"{name!r}: box: expected whole pixels, found {stated}; round them")
    left, top, right, bottom = map(int, stated)
    return left, top, right, bottom


def _mask(name: str, stated: Any) -> RunLengths:
    size, counts = (_integers(stated.get(key)) if isinstance(stated, Mapping) else None for key in ("size", "counts"))
    if size is None or counts is None or len(size) != 2:
        raise DataError(
            f'{name!r}: mask: expected "size": [height, width] and "counts" of runs, found {printable(repr(stated)[:60])}'
        )
    return RunLengths((size[0], size[1]), counts)


def _integers(stated: Any) -> tuple[int, ...] | None:
    is_list = isinstance(stated, list) and all(type(each) is int for each in stated)
    return tuple(stated) if is_list else None


def _read_image(stated: Any) -> ImageFile:
    if not isinstance(stated, Mapping):
        raise DataError(f"image: expected an object, found {printable(repr(stated)[:60])}")
    width, height = (stated.get(side, 0) for side in ("width", "height"))
    if type(width) is not int or type(height) is not int or min(width, height) < 0:
        raise DataError(f"image: expected its width and height in pixels, found {width!r} and {height!r}")
    return ImageFile(_text(stated, "name"), _text(stated, "sha256", ""), width, height)


def _text(stated: Mapping[str, Any], name: str, default: str | None = None) -> str:
    found = stated.get(name, default)
    if not isinstance(found, str):
        raise DataError(f"{name}: expected text, found {printable(repr(found)[:60])}")
    return found


def _texts(stated: Mapping[str, Any], name: str) -> tuple[str, ...]:
    return tuple(filter(None, map(in_order, _list(stated, name, str))))


def _list(stated: Mapping[str, Any], name: str, kind: Any) -> Sequence[Any]:
    found = stated.get(name, [])
    if not isinstance(found, list) or not all(isinstance(each, kind) for each in found):
        what = "texts" if kind is str else "objects"
        raise DataError(f"{name}: expected a list of {what}, found {printable(repr(found)[:60])}")
    return found
