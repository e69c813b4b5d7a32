"""Where each subject of a picture shall be: one region a subject, a box or a painted mask, and the cells it covers on any grid.

A region that is smaller than a cell keeps the cell that holds most of it, so no grid is so coarse that a subject has no place.
Files are read by ``photopic.data.layout_file.read_layout``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from photopic.core.errors import DataError

Outside = Literal["shut", "neutral"]
Box = tuple[float, float, float, float]
PALETTE = ((230, 60, 60), (50, 120, 230), (40, 160, 80), (240, 170, 30), (150, 70, 190), (20, 170, 180))
HALF = 0.5 - 1e-9  # of a cell; box edges are not exact in binary


@dataclass(frozen=True, eq=False)
class Region:
    """Where one subject shall be.

    Attributes:
        words: The subject as the prompt calls it, such as ``<mine> cat``.
        box: (left, top, right, bottom) as fractions of the picture, 0 to 1 from the top left; or
        mask: True where the subject shall be, of any size; it is stretched over the picture.
        strength: How strongly its words are raised inside; None: as the guidance says.
        prompt: A sentence of its own that is read inside, such as ``a <mine> cat on a red background``; None: the whole prompt.
        guidance: How strongly the prompt is followed inside, 1 and more; None: as everywhere.

    Raises:
        DataError: If it has no words, is empty, leaves the picture, or is not one of box and mask.

    Example:
        >>> Region("cat", (0.0, 0.0, 0.5, 0.5)).coverage(2, 2)
        array([[1., 0.],
               [0., 0.]])
    """

    words: str
    box: Box | None = None
    mask: Bool[np.ndarray, "height width"] | None = None
    strength: float | None = None
    prompt: str | None = None
    guidance: float | None = None

    def __post_init__(self) -> None:
        if not self.words.strip():
            raise DataError("layout: a region without words; write the subject as the prompt calls it")
        if (self.box is None) == (self.mask is None):
            raise DataError(f"layout: region {self.words!r}: expected a box or a mask, found both or none")
        if self.box is not None:
            _check_box(self.words, self.box)
        if self.mask is not None and not self.mask.any():
            raise DataError(f"layout: region {self.words!r}: its mask is empty; paint where the subject shall be")
        if self.strength is not None and not (math.isfinite(self.strength) and self.strength >= 0):
            raise DataError(
                f"layout: region {self.words!r}: expected a strength of 0 or more, found {self.strength}; 2.5 is usual"
            )
        if self.prompt is not None and not self.prompt.strip():
            raise DataError(
                f"layout: region {self.words!r}: its own prompt is empty; write a sentence, or leave it out"
            )
        if self.guidance is not None and not (math.isfinite(self.guidance) and self.guidance >= 1):
            raise DataError(
                f"layout: region {self.words!r}: expected a guidance of 1 or more, found {self.guidance}; 5 is usual"
            )

    @property
    def bounds(self) -> Box:
        """The box, or the smallest one around the mask."""
        if self.box is not None:
            return self.box
        assert self.mask is not None
        rows, columns = np.flatnonzero(self.mask.any(1)), np.flatnonzero(self.mask.any(0))
        height, width = self.mask.shape
        left, right = columns[0] / width, (columns[-1] + 1) / width
        return (float(left), float(rows[0] / height), float(right), float((rows[-1] + 1) / height))

    def coverage(self, height: int, width: int) -> Float[np.ndarray, "{height} {width}"]:
        """The share of each cell of a grid that the region covers, 0 to 1: exact areas, no sampling."""
        if self.box is not None:
            left, top, right, bottom = self.box
            down, across = _overlaps([top], [bottom], height), _overlaps([left], [right], width)
            return down @ across.T  # (height, 1) (1, width) -> (height, width)
        assert self.mask is not None
        rows, columns = (np.arange(side + 1) / side for side in self.mask.shape)
        down, across = _overlaps(rows[:-1], rows[1:], height), _overlaps(columns[:-1], columns[1:], width)
        return down @ self.mask @ across.T  # (height, rows) (rows, columns) (columns, width) -> (height, width)


@dataclass(frozen=True, eq=False)
class Layout:
    """Regions of one picture.

    Attributes:
        regions: At least one, each with other words.
        outside: What becomes of a subject's words outside its region: ``shut`` (nowhere but in its region), or ``neutral`` (shut in
            the regions of others only; what lies in no region is left alone).
        may_overlap: Whether regions may share ground; then their subjects share it too.

    Raises:
        DataError: If there is no region, words occur twice, or regions overlap that may not.

    Example:
        >>> pair = Layout((Region("cat", (0.0, 0.0, 0.5, 1.0)), Region("dog", (0.5, 0.0, 1.0, 1.0))))
        >>> pair.cells(1, 4)[0]
        array([[ True,  True, False, False]])
    """

    regions: tuple[Region, ...]
    outside: Outside = "shut"
    may_overlap: bool = False

    def __post_init__(self) -> None:
        if not self.regions:
            raise DataError("layout: no region; give at least one, a subject's words with its box or mask")
        words = [region.words for region in self.regions]
        for index, each in enumerate(words):
            if each in words[:index]:
                raise DataError(f"layout: {each!r} has two regions; draw one mask for both, or name the subjects apart")
        if not self.may_overlap:
            for index, second in enumerate(self.regions):
                for first in self.regions[:index]:
                    _check_apart(first, second)

    def cells(self, height: int, width: int) -> Bool[np.ndarray, "regions {height} {width}"]:
        """Which cells of a grid belong to each region: those it covers by half, and never none.

        A region that covers no cell by half gets the one it covers most, even from a larger region that has others.

        Raises:
            DataError: If two regions would have to share their only cell.
        """
        # (regions, height, width), 0 to 1
        coverage = np.stack([region.coverage(height, width) for region in self.regions])
        owned = coverage >= HALF
        if self.may_overlap:
            for region, cover in zip(owned, coverage, strict=True):
                if not region.any():
                    region.flat[cover.argmax()] = True
            return owned
        flat = owned.reshape(len(owned), -1)  # (regions, height, width) -> (regions, cells), a view
        shares = coverage.reshape(len(owned), -1)
        flat &= np.arange(len(flat))[:, None] == shares.argmax(0)  # a cell that two halves fill goes to the first
        homeless = sorted(np.flatnonzero(~flat.any(1)), key=lambda index: (shares[index] > 0).sum())
        for index in homeless:  # those with the least choice first
            self._settle(int(index), flat, shares[index], (height, width))
        return owned

    def place_of(self, tokens: Sequence[str]) -> list[int]:
        """For the new word of each subject the number of the region whose words contain it.

        Args:
            tokens: Such as ``<mine>``, one a subject.

        Raises:
            DataError: If a subject has no region or two, or two subjects have one region.

        Example:
            >>> Layout((Region("<mine> cat", (0.0, 0.0, 0.5, 1.0)),)).place_of(["<mine>"])
            [0]
        """
        taken: dict[int, str] = {}
        for token in tokens:
            places = [index for index, region in enumerate(self.regions) if token in region.words.split()]
            named = ", ".join(repr(region.words) for region in self.regions)
            if len(places) != 1:
                raise DataError(
                    f"layout: {token} has {len(places) or 'no'} region{'s' if places else ''}; expected one region for each "
                    f"of {len(tokens)} subjects, found regions for {named}"
                )
            if places[0] in taken:
                raise DataError(
                    f"layout: {taken[places[0]]} and {token} are both subjects of the region "
                    f"{self.regions[places[0]].words!r}; draw one region for each"
                )
            taken[places[0]] = token
        return list(taken)

    def preview(
        self, image: UInt8[np.ndarray, "height width 3"], *, scale: int = 1
    ) -> UInt8[np.ndarray, "big_height big_width 3"]:
        """The regions drawn over a picture: an outline each, with its words.

        Args:
            image: RGB, 0 to 255.
            scale: Each pixel becomes a square of this side before anything is drawn.
        """
        canvas = image.repeat(scale, 0).repeat(scale, 1)
        height, width = canvas.shape[:2]
        thickness = max(1, min(height, width) // 128)
        for region, colour in zip(self.regions, self._colours(), strict=True):
            inside = region.coverage(height, width) > 0
            canvas[inside & ~_shrunk(inside, thickness)] = colour
        drawn = Image.fromarray(canvas)
        pen, font = ImageDraw.Draw(drawn), ImageFont.load_default(max(8, height // 24))
        for region, colour in zip(self.regions, self._colours(), strict=True):
            left, top = region.bounds[0] * width + 2 * thickness, region.bounds[1] * height + 2 * thickness
            pen.rectangle(pen.textbbox((left, top), region.words, font), fill=colour)
            pen.text((left, top), region.words, (255, 255, 255), font)
        return np.array(drawn)

    def _colours(self) -> Sequence[tuple[int, int, int]]:
        return [PALETTE[index % len(PALETTE)] for index in range(len(self.regions))]

    def _settle(
        self,
        index: int,
        flat: Bool[np.ndarray, "regions cells"],
        share: Float[np.ndarray, "cells"],
        grid: Sequence[int],
    ) -> None:
        """Give a region without a cell the best one it touches that nobody needs, in place."""
        touched = [int(cell) for cell in np.argsort(-share, kind="stable") if share[cell] > 0]
        for cell in touched:
            owners = np.flatnonzero(flat[:, cell])
            if all(flat[owner].sum() > 1 for owner in owners):
                flat[owners, cell] = False
                flat[index, cell] = True
                return
        other = self.regions[int(np.flatnonzero(flat[:, touched[0]])[0])].words
        raise DataError(
            f"layout: {self.regions[index].words!r} and {other!r} would share their only cell of an attention grid of "
            f"{grid[0]}x{grid[1]}; make them larger or move them apart"
        )


def _overlaps(
    begin: Sequence[float] | np.ndarray, end: Sequence[float] | np.ndarray, cells: int
) -> Float[np.ndarray, "cells spans"]:
    """The share of each of ``cells`` equal parts of 0..1 that lies in each span."""
    edges = np.arange(cells + 1)[:, None] / cells  # (cells + 1, 1), against spans of (spans,)
    return (np.minimum(end, edges[1:]) - np.maximum(begin, edges[:-1])).clip(0) * cells


def _check_box(words: str, box: Box) -> None:
    left, top, right, bottom = box
    if not all(math.isfinite(edge) and 0 <= edge <= 1 for edge in box):
        raise DataError(
            f"layout: region {words!r}: expected a box inside 0 to 1, found {list(box)}; divide by the side"
        )
    if left >= right or top >= bottom:
        raise DataError(
            f"layout: region {words!r}: the box {list(box)} is empty; write left, top, right, bottom with left < right "
            "and top < bottom"
        )


def _check_apart(first: Region, second: Region) -> None:
    sizes = [region.mask.shape for region in (first, second) if region.mask is not None]
    if sizes:  # at the resolution of the finer mask; a pixel that both fill by half is shared
        height, width = (max(sides) for sides in zip(*sizes, strict=True))
        shared = float(np.mean((first.coverage(height, width) > 0.5) & (second.coverage(height, width) > 0.5)))
    else:
        (left, top, right, bottom), other = first.bounds, second.bounds
        across, down = min(right, other[2]) - max(left, other[0]), min(bottom, other[3]) - max(top, other[1])
        shared = across * down if across > 1e-9 and down > 1e-9 else 0.0
    if shared:
        raise DataError(
            f"layout: regions {first.words!r} and {second.words!r} overlap in {shared:.1%} of the picture; move them "
            'apart, or say "may_overlap": true'
        )


def _shrunk(inside: Bool[np.ndarray, "height width"], by: int) -> Bool[np.ndarray, "height width"]:
    """What is at least ``by`` pixels from the edge of an area; the picture's border is an edge."""
    for _ in range(by):
        padded = np.pad(inside, 1)  # with False: the border is an edge
        inside = inside & padded[2:, 1:-1] & padded[:-2, 1:-1] & padded[1:-1, 2:] & padded[1:-1, :-2]
    return inside
