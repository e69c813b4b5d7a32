"""What a picture is taken apart into, to be put together again: typed conditions, each with a picture of itself.

Global ones say what the whole picture is like (caption, embedding, palette), local ones have a value a pixel. After Composer
(arXiv:2302.09778). A set may hold any of them, from any pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageDraw

from photopic.core.errors import DataError
from photopic.data.overlays import labelled
from photopic.data.palette import BINS, colours


@dataclass(frozen=True)
class Kind:
    """One kind of condition.

    Attributes:
        channels: Of a local one, a byte a pixel each; 0 of a global one.
        what: In words, for tables and messages.
    """

    channels: int
    what: str


KINDS: dict[str, Kind] = {
    "caption": Kind(0, "words that say what is there"),
    "embedding": Kind(0, "features of a dual encoder: what is there and in which style"),
    "palette": Kind(0, "smoothed histogram over 156 colours in CIELab"),
    "sketch": Kind(1, "lines, 255 where one is"),
    "instances": Kind(2, "number of the object in drawing order times 255 / 4, and contours"),
    "depth": Kind(1, "255 / 4 times the place in drawing order of the topmost object, 0 for the background"),
    "intensity": Kind(1, "grey values"),
    "masked": Kind(4, "the picture where it is kept, and 255 where it is"),
    "skeleton": Kind(1, "medial lines of the objects, 255 where one is"),
}
EIGHT = tuple(KINDS)[:8]  # those of the paper
GLOBAL = tuple(name for name, kind in KINDS.items() if not kind.channels)
LOCAL = tuple(name for name, kind in KINDS.items() if kind.channels)
INSTANCE_COLOURS = ((0, 0, 0), (230, 90, 70), (70, 150, 230), (250, 200, 60), (120, 200, 110))


@dataclass(frozen=True, eq=False)
class Conditions:
    """Conditions of one picture, or of several.

    Attributes:
        size: Side in pixels of the local ones.
        values: By name: the caption's text, the embedding as float16, the palette as float32 (156,), local ones as uint8
            (channels, size, size).
        sources: By name, what each was made by, such as ``exact`` or ``scikit-image 0.26.0: Sobel``.
        encoder: Digest of the weights of the encoder that made the embedding; empty without one.

    Raises:
        DataError: If a condition is unknown, of another shape or type, or not finite.

    Example:
        >>> found = Conditions(8, {"caption": "a bear", "intensity": np.zeros((1, 8, 8), np.uint8)})
        >>> found.names, found.channels("intensity").shape
        (('caption', 'intensity'), (1, 8, 8))
    """

    size: int
    values: Mapping[str, Any]
    sources: Mapping[str, str] = field(default_factory=dict)
    encoder: str = ""

    def __post_init__(self) -> None:
        for name, value in self.values.items():
            check_known(name)
            _check(name, value, self.size)
        if ("embedding" in self.values) != bool(self.encoder):
            raise DataError("embedding: expected it with the digest of its encoder, found one of the two; give both")

    @property
    def names(self) -> tuple[str, ...]:
        """Of those that are there, in the order of ``KINDS``."""
        return tuple(name for name in KINDS if name in self.values)

    def channels(self, name: str) -> Float32[np.ndarray, "..."]:
        """A condition as numbers for a network: local ones 0 to 1, the kept picture -1 to 1 and 0 where it is hidden.

        Example:
            >>> hidden = Conditions(1, {"masked": np.uint8([200, 9, 7, 0]).reshape(4, 1, 1)})
            >>> hidden.channels("masked").ravel().tolist()
            [0.0, 0.0, 0.0, 0.0]
        """
        value = self.values[name]
        if name in ("embedding", "palette"):
            return np.asarray(value, np.float32)
        if name == "masked":  # x (1 - m), and 1 - m
            kept = value[3:].astype(np.float32) / 255
            picture = np.where(kept > 0, (value[:3].astype(np.float32) / 127.5 - 1) * kept, 0)
            return np.concatenate([picture, kept]).astype(np.float32)
        found: np.ndarray = value.astype(np.float32) / 255
        return found

    def only(self, names: Iterable[str]) -> Conditions:
        """Some of these, those that are there.

        Example:
            >>> Conditions(8, {"caption": "a bear"}).only(["palette"]).names
            ()
        """
        kept = {name: self.values[name] for name in names if name in self.values}
        sources = {name: word for name, word in self.sources.items() if name in kept}
        return replace(self, values=kept, sources=sources, encoder=self.encoder if "embedding" in kept else "")

    def joined(self, other: Conditions) -> Conditions:
        """These and those of another; what both have is the other's.

        Raises:
            DataError: If their local conditions differ in size.
        """
        if self.size != other.size:
            raise DataError(
                f"conditions: expected sides of {self.size} pixels, found {other.size}; make them of one size"
            )
        return Conditions(
            self.size,
            {**self.values, **other.values},
            {**self.sources, **other.sources},
            other.encoder or self.encoder,
        )

    def picture(self, name: str, side: int = 128) -> UInt8[np.ndarray, "side side 3"]:
        """A condition as people see it, ``side`` pixels large."""
        value = self.values[name]
        if name == "caption":
            return _text(value, side)
        if name == "palette":
            return _bands(value, side)
        if name == "embedding":
            return _cells(np.asarray(value, np.float32), side)
        if name == "instances":
            number = np.round(value[0].astype(float) * 4 / 255).astype(int)  # (h, w)
            drawn = np.array(INSTANCE_COLOURS, np.uint8)[number]
            drawn[value[1] > 127] = 255
        elif name == "masked":
            rows, columns = np.mgrid[: self.size, : self.size]
            board = np.where((rows // 4 + columns // 4) % 2, 200, 235)[..., None].astype(np.uint8)
            drawn = np.where(value[3][..., None] > 127, value[:3].transpose(1, 2, 0), board)
        else:
            shown = 255 - value[0] if name in ("sketch", "skeleton") else value[0]
            drawn = np.repeat(shown[..., None], 3, 2)
        return _square(np.ascontiguousarray(drawn, np.uint8), side)

    def sheet(
        self, image: UInt8[np.ndarray, "h w 3"] | None = None, side: int = 128
    ) -> list[UInt8[np.ndarray, "_ _ 3"]]:
        """The picture, if given, and one of each condition, named below."""
        shown = {} if image is None else {"picture": _square(image, side)}
        shown |= {name: self.picture(name, side) for name in self.names}
        return [labelled(each, name) for name, each in shown.items()]


def check_known(name: str) -> None:
    """Refuse what is no condition.

    Raises:
        DataError: Lists those there are.
    """
    if name not in KINDS:
        raise DataError(f"condition {name!r}: expected one of {', '.join(KINDS)}; correct the name")


def _check(name: str, value: Any, size: int) -> None:
    channels = KINDS[name].channels
    if name == "caption":
        if not isinstance(value, str) or not value.strip():
            raise DataError(f"caption: expected words, found {value!r}; leave it out")
        return
    expected: tuple[Any, ...] = (channels, size, size) if channels else (BINS,)
    kinds = ("uint8",) if channels else ("float32",)
    if name == "embedding":
        expected, kinds = np.shape(value)[:1], ("float16",)
    found = (np.shape(value), str(getattr(value, "dtype", type(value).__name__)))
    if found[0] != expected or found[1] not in kinds or not np.isfinite(value).all():
        raise DataError(f"{name}: expected {kinds[0]} of {expected}, all finite, found {found[1]} of {found[0]}")
    if name == "palette" and (value.min() < 0 or not 0.5 < value.sum() < 2):
        raise DataError(
            f"palette: expected shares of about 1 together, found {value.min():.3g} to a sum of {value.sum():.3g}"
        )


def _square(image: UInt8[np.ndarray, "h w 3"], side: int) -> UInt8[np.ndarray, "side side 3"]:
    """A picture at another size, without new colours."""
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST))


def _text(text: str, side: int) -> UInt8[np.ndarray, "side side 3"]:
    image = Image.new("RGB", (side, side), "white")
    draw, line, top = ImageDraw.Draw(image), "", 6
    for word in [*text.split(), None]:
        longer = f"{line} {word}".strip()
        if word is None or draw.textlength(longer) > side - 10:
            draw.text((5, top), line, fill="black")
            line, top = str(word), top + 13
        else:
            line = longer
    return np.asarray(image)


def _bands(histogram: Float32[np.ndarray, " 156"], side: int) -> UInt8[np.ndarray, "side side 3"]:
    """The colours in their order, as wide as they count."""
    ends = np.cumsum(histogram) / histogram.sum()
    place = np.searchsorted(ends, (np.arange(side) + 0.5) / side).clip(max=BINS - 1)
    return np.repeat((colours()[place] * 255).round().astype(np.uint8)[None], side, 0)


def _cells(vector: Float32[np.ndarray, " dim"], side: int) -> UInt8[np.ndarray, "side side 3"]:
    """Numbers as squares, orange above 0 and blue below."""
    columns = int(np.ceil(len(vector) ** 0.5))
    padded = np.zeros(columns * columns, np.float32)
    padded[: len(vector)] = vector / max(1e-9, float(np.abs(vector).max()))
    share = np.abs(padded).reshape(columns, columns, 1)
    target = np.where(padded.reshape(columns, columns, 1) > 0, (230, 120, 30), (40, 90, 200))
    return _square((255 + share * (target - 255)).astype(np.uint8), side)
