"""A bag of concepts with its picture as JSON values, in pixels of the picture: what is written is read back equal, and checked.

{"format": "photopic scene graph 1", "image": {"name": "a.png", "sha256": "...", "width": 64, "height": 64},
 "style": "...", "theme": "...", "background": [...], "foreground": [...],
 "objects": [{"name": "owl 1", "class": "owl", "index": 1, "living": true, "place": "foreground", "description": [...],
              "colour": [...], "box": [0, 0, 5, 9], "mask": {"size": [64, 64], "counts": [...]}}],
 "relations": [{"subject": "owl 1", "predicate": "sits on", "object": "branch 1", "external": false}],
 "source": "exact", "repairs": ["line 3: plural: ..."]}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

import numpy as np
from jaxtyping import Bool

from photopic.core.errors import DataError, printable
from photopic.knowledge.bag_of_concepts import BagOfConcepts, Box, ConceptObject, Place, Relation, in_order

FORMAT = "photopic scene graph 1"


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
        Relation(_text(each, "subject"), _text(each, "predicate"), _text(each, "object"))
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


def _object_json(item: ConceptObject, mask: RunLengths | None) -> dict[str, Any]:
    return {
        "name": item.name, "class": item.concept, "index": item.index, "living": item.living, "place": item.place,
        "description": list(item.description), "colour": list(item.colour), "box": item.box and list(item.box),
        "mask": mask and {"size": list(mask.size), "counts": list(mask.counts)},
    }  # fmt: skip


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
