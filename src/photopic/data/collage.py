"""A rough collage for a generator to repair: a piece laid on a picture by key points, and the masks of what to keep.

    {"picture": "person.png", "piece": "shirt.png",
     "keypoints": {"picture": {"left shoulder": [0.36, 0.42], "right shoulder": [0.64, 0.42], "hem": [0.5, 0.8]},
                   "piece": {"left shoulder": [0.2, 0.1], "right shoulder": [0.8, 0.1], "hem": [0.5, 0.95]}},
     "hidden": "old-shirt.png", "front": "arms.png"}

Points are shares of width and height, each under the same name in both. The piece is a cut-out: it counts where it is opaque.
``hidden`` is light where nothing of the picture may show, ``front`` where the picture lies before the piece; both may be left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from scipy.interpolate import RBFInterpolator
from scipy.ndimage import binary_dilation, binary_erosion, map_coordinates
from torch import Tensor
from torch.nn import functional as F

from photopic.core.errors import DataError
from photopic.core.files import read_file
from photopic.data.folder import load_mask, load_picture
from photopic.data.picture_file import open_picture
from photopic.data.pixels import from_pixels, upright

PUBLISHED = 512  # pixels that the published kernels are for
KEYS = ("picture", "piece", "keypoints", "hidden", "front")
Mask = Bool[np.ndarray, "side side"]
Points = Mapping[str, tuple[float, float]]


@dataclass(frozen=True, eq=False)
class Collage:
    """A picture with a piece on it, and what each pixel is for.

    Attributes:
        pasted: The collage in -1 to 1.
        inner: Inside the piece, away from its edge: the collage is what is wanted.
        front: Parts of the picture that lie before the piece.
        residual: Where neither picture nor piece says what is wanted; disjoint from ``inner``.

    Raises:
        DataError: If sizes differ, masks overlap, or no pixel lies inside the piece.

    Example:
        >>> piece = np.full((8, 8, 4), 255, np.uint8)
        >>> corners = {"a": (0.25, 0.25), "b": (0.75, 0.25), "c": (0.25, 0.75)}
        >>> whole = {"a": (0.0, 0.0), "b": (1.0, 0.0), "c": (0.0, 1.0)}
        >>> int(laid_on(torch.zeros(3, 32, 32), piece, whole, corners).inner.sum())  # of 16 x 16, less the edge
        144
    """

    pasted: Float[Tensor, "3 side side"]
    inner: Bool[Tensor, "_ _"]
    front: Bool[Tensor, "_ _"]
    residual: Bool[Tensor, "_ _"]

    def __post_init__(self) -> None:
        shapes = {tuple(each.shape[-2:]) for each in (self.pasted, self.inner, self.front, self.residual)}
        if len(shapes) > 1:
            raise DataError(f"collage: expected picture and masks of one size, found {sorted(shapes)}; resize them")
        if bool((self.inner & (self.front | self.residual)).any()):
            raise DataError(
                "collage: expected masks without overlap, found inner with front or residual; take them apart"
            )
        if not bool(self.inner.any()):
            raise DataError("collage: no pixel lies inside the piece; check its key points, or give a larger piece")

    @cached_property
    def digest(self) -> str:
        """Hex sha256 of picture and masks."""
        parts = (self.pasted.float(), self.inner, self.front, self.residual)
        return hashlib.sha256(b"".join(each.contiguous().numpy().tobytes() for each in parts)).hexdigest()


def laid_on(
    picture: Float[Tensor, "3 side side"],
    piece: UInt8[np.ndarray, "h w 4"],
    piece_points: Points,
    picture_points: Points,
    hidden: Mask | None = None,
    front: Mask | None = None,
) -> Collage:
    """Rough alignment: bend a piece by thin plates so that its key points fall on those of the picture, and lay it there.

    Args:
        picture: In -1 to 1.
        piece: A cut-out, RGBA with straight alpha.
        piece_points: Key points by name, shares of width and height.
        picture_points: The same names in the picture.
        hidden: Where nothing of the picture may show.
        front: Parts of the picture before the piece.

    Raises:
        DataError: If the piece has no key points, names differ, there are fewer than three, or all lie on one line.
    """
    bent = aligned(piece, piece_points, picture_points, picture.shape[-1])  # (side, side, 4), 0 to 1
    before = np.zeros(bent.shape[:2], bool) if front is None else front
    shown = np.where(before, 0.0, bent[..., 3])[..., None]
    colours = 2 * bent[..., :3] - 1
    pasted = picture.permute(1, 2, 0).numpy() * (1 - shown) + colours * shown
    covered = bent[..., 3] > 0.5
    masks = [torch.from_numpy(each) for each in masks_of(covered, hidden, before)]
    return Collage(torch.from_numpy(pasted).permute(2, 0, 1).float().contiguous(), *masks)


def aligned(
    piece: UInt8[np.ndarray, "h w 4"], piece_points: Points, picture_points: Points, side: int
) -> Float[np.ndarray, "side side 4"]:
    """A piece as thin plates bend it, 0 to 1 with straight alpha; a point that is named in both lies on itself.

    Raises:
        DataError: As ``laid_on``.
    """
    names = _names(piece_points, picture_points)
    source = np.array([piece_points[name] for name in names], float)  # (points, 2), x and y
    target = np.array([picture_points[name] for name in names], float)
    for what, points in (("piece", source), ("picture", target)):
        if np.linalg.matrix_rank(points - points.mean(0), tol=1e-6) < 2:
            raise DataError(
                f"keypoints: of the {what}: expected points that are not all on one line, found {points.tolist()}"
            )
    plate = RBFInterpolator(target, source, kernel="thin_plate_spline", degree=1)
    centres = (np.arange(side) + 0.5) / side
    where = plate(np.stack(np.meshgrid(centres, centres), -1).reshape(-1, 2))  # where each pixel lies in the piece
    height, width = piece.shape[:2]
    rows, columns = where[:, 1] * height - 0.5, where[:, 0] * width - 0.5
    alpha = piece[..., 3:] / 255.0
    premultiplied = np.concatenate([piece[..., :3] / 255.0 * alpha, alpha], -1)
    shrunk = (
        height * np.ptp(source[:, 1]) / (side * np.ptp(target[:, 1]))
    )  # of the piece's pixels fall on one; stripes would alias
    channels = np.moveaxis(_smoothed(premultiplied, shrunk), -1, 0)
    looked_up = [
        map_coordinates(each, [rows, columns], order=1, mode="constant").reshape(side, side) for each in channels
    ]
    found = np.stack(looked_up, -1)  # (side, side, 4)
    opaque = found[..., 3:]
    return np.concatenate([np.where(opaque > 0, found[..., :3] / np.maximum(opaque, 1e-6), 0.0), opaque], -1).clip(0, 1)


def masks_of(covered: Mask, hidden: Mask | None, front: Mask) -> tuple[Mask, Mask, Mask]:
    """Masks of the three stages, with the published kernels scaled from 512 pixels.

    Returns:
        ``inner``, ``front`` within the piece, and ``residual``.
    """
    side = len(covered)
    before = _dilated(_dilated(_eroded(front, 3, side), 11, side) & covered, 5, side)
    inner = _eroded(_dilated(covered, 5, side), 15, side, at_least=1) & ~before
    if hidden is None:
        residual = np.zeros_like(covered)
    else:
        residual = _dilated(hidden, 7, side) & _dilated(~covered, 7, side) & ~inner & ~before
    return inner, before, residual


def _reach(kernel: int, side: int) -> int:
    return round(kernel // 2 * side / PUBLISHED)


def _dilated(mask: Mask, kernel: int, side: int) -> Mask:
    size = 2 * _reach(kernel, side) + 1
    found: Mask = binary_dilation(mask, np.ones((size, size)))
    return found


def _eroded(mask: Mask, kernel: int, side: int, at_least: int = 0) -> Mask:
    size = 2 * max(at_least, _reach(kernel, side)) + 1
    found: Mask = binary_erosion(mask, np.ones((size, size)))
    return found


def _smoothed(values: Float[np.ndarray, "h w c"], shrunk: float) -> Float[np.ndarray, "h w c"]:
    """Meaned over as many pixels as fall on one."""
    size = max(1, round(shrunk))
    if size == 1:
        return values
    grid = torch.from_numpy(values).permute(2, 0, 1)[None]
    padded = F.pad(grid, ((size - 1) // 2, size // 2) * 2, mode="replicate")
    found: np.ndarray = F.avg_pool2d(padded, size, stride=1)[0].permute(1, 2, 0).numpy()
    return found


def _names(piece: Points, picture: Points) -> list[str]:
    if not piece:
        raise DataError("keypoints: the piece has none; name three or more of its points, and the same of the picture")
    if apart := sorted(set(piece) ^ set(picture)):
        raise DataError(
            f"keypoints: {apart[0]!r} is named in the {'piece' if apart[0] in piece else 'picture'} only; name both"
        )
    if len(piece) < 3:
        raise DataError(f"keypoints: expected three or more, found {len(piece)}: {', '.join(piece)}; name more")
    return list(piece)


def read_collage(path: str | Path, size: int) -> Collage:
    """Read a collage from its file; pictures are named relative to it, the picture becomes its central square.

    Args:
        path: A JSON file, see the module.
        size: Side in pixels that the collage gets.

    Raises:
        DataError: Names the file, what was expected, what was found and the fix.

    Example:
        >>> read_collage("collage.json", 64).pasted.shape  # doctest: +SKIP
        torch.Size([3, 64, 64])
    """
    path = Path(path)
    try:
        stated = json.loads(read_file(path, DataError))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected a collage as JSON, found something else ({error})") from None
    try:
        return _read(stated, path.parent, size)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _read(stated: Any, folder: Path, size: int) -> Collage:
    if not isinstance(stated, Mapping) or set(stated) - set(KEYS):
        unknown = sorted(set(stated) - set(KEYS))[:1] if isinstance(stated, Mapping) else [stated]
        raise DataError(f"expected an object with {', '.join(KEYS)}, found {unknown[0]!r}")
    for key in ("picture", "piece", "hidden", "front"):
        if not isinstance(stated.get(key, "" if key in ("hidden", "front") else None), str):
            raise DataError(f"{key}: expected the name of a picture, found {stated.get(key)!r}")
    named = stated.get("keypoints")
    if not isinstance(named, Mapping) or not isinstance(named.get("picture"), Mapping):
        raise DataError(f'keypoints: expected an object with "picture" and "piece", points by name, found {named!r}')
    points = {which: _points(which, named.get(which, {})) for which in ("piece", "picture")}
    masks = {
        key: load_mask(folder / stated[key], size, of=folder / stated["picture"]) if key in stated else None
        for key in ("hidden", "front")
    }
    piece = np.array(upright(open_picture(folder / stated["piece"])).convert("RGBA"))
    if piece[..., 3].all():
        raise DataError(f"{stated['piece']}: is opaque everywhere; cut the piece out")
    width, height = open_picture(folder / stated["picture"]).size
    if width != height:
        raise DataError(f"{stated['picture']}: expected a square picture, found {width} x {height}; crop it")
    picture = from_pixels(np.stack([load_picture(folder / stated["picture"], size)]))[0]
    return laid_on(picture, piece, points["piece"], points["picture"], **masks)


def _points(which: str, stated: Any) -> dict[str, tuple[float, float]]:
    found = {}
    for name, point in stated.items() if isinstance(stated, Mapping) else [("", stated)]:
        is_pair = isinstance(point, list) and len(point) == 2 and all(type(each) in (int, float) for each in point)
        if not is_pair or not all(0 <= each <= 1 for each in point):
            raise DataError(f"keypoints: {which}: {name!r}: expected [x, y] as shares of 0 to 1, found {point!r}")
        found[name] = (float(point[0]), float(point[1]))
    return found
