"""Conditions taken from pictures: exact ones from scenes, and what scikit-image finds in any picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float16, UInt8
from PIL import Image, ImageDraw
from skimage.color import rgb2lab
from skimage.filters import sobel
from skimage.measure import label
from skimage.segmentation import find_boundaries

from photopic.core.errors import DataError
from photopic.data.conditions import Conditions
from photopic.data.palette import palette
from photopic.data.scenes import Scene, render_object

LUMA = (0.299, 0.587, 0.114)
WEIGHTS = (  # of intensity, one drawn for each training picture so that no colour can be read off it
    LUMA, (1 / 3, 1 / 3, 1 / 3), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0),
    (0.5, 0.5, 0.0), (0.0, 0.5, 0.5), (0.5, 0.0, 0.5),
)  # fmt: skip
LINES_OF = {
    "openmoji": "openmoji-black",
    "fluent-flat": "fluent-high-contrast",
}  # line art that lies on a style's edges
MOST = 4  # objects that instances and depth tell apart
STEP = 20.0  # CIELab units across a pixel that make a full line
APART = 12.0  # CIELab units by which an object differs from the border of its picture
SMALLEST = 0.01  # share of a picture that counts as an object
LIBRARY = f"scikit-image {version('scikit-image')}"


@dataclass(frozen=True, eq=False)
class Embedded:
    """Features of a picture, and whose they are.

    Attributes:
        vector: Of an encoder, of length 1.
        encoder: Digest of the encoder's weights.
    """

    vector: Float16[np.ndarray, " dim"]
    encoder: str


def from_picture(
    image: UInt8[np.ndarray, "h w 3"],
    *,
    caption: str | None = None,
    embedded: Embedded | None = None,
    hidden: Bool[np.ndarray, "mask_h mask_w"] | None = None,
    objects: Sequence[Bool[np.ndarray, "size size"]] | None = None,
    weights: tuple[float, float, float] = LUMA,
) -> Conditions:
    """What a picture is taken apart into.

    Args:
        image: RGB, square.
        caption: Its words, if known.
        embedded: Its features, if there is an encoder.
        hidden: True where the picture is to be hidden; None leaves ``masked`` out.
        objects: Visible pixels of each object in drawing order; None: the parts that differ from the picture's border, largest
            first, without an order and so without depth.
        weights: Of the channels in ``intensity``.

    Returns:
        All conditions but those that nothing is known of.

    Raises:
        DataError: If the picture is not square, or a mask is of another size, empty or full.

    Example:
        >>> image = np.full((16, 16, 3), 255, np.uint8)
        >>> image[4:12, 4:12] = 0
        >>> from_picture(image).names
        ('palette', 'sketch', 'instances', 'intensity')
    """
    if image.ndim != 3 or image.shape[0] != image.shape[1]:
        raise DataError(
            f"conditions: expected a square picture, found {image.shape}; crop it, as photopic measure conditions does"
        )
    found: dict[str, Any] = {} if caption is None else {"caption": caption}
    sources = dict.fromkeys(found, "given")
    if embedded is not None:
        found["embedding"], sources["embedding"] = embedded.vector, "encoder"
    lab = rgb2lab(image)
    found |= {"palette": palette(image), "sketch": edges(lab), "intensity": intensity(image, weights)}
    sources |= {"palette": f"{LIBRARY}: CIELab, nearest then smoothed", "sketch": f"{LIBRARY}: Sobel in CIELab"}
    sources["intensity"] = "weights " + ", ".join(f"{each:.3g}" for each in weights)
    if objects is None:
        found["instances"], sources["instances"] = instances(parts(lab)), f"{LIBRARY}: parts unlike the border"
    else:
        found |= {"instances": instances(objects), "depth": depth(objects)}
        sources |= {"instances": "exact", "depth": "exact"}
    if hidden is not None:
        found["masked"], sources["masked"] = masked(image, hidden), "given"
    return Conditions(len(image), found, sources, "" if embedded is None else embedded.encoder)


def from_scene(
    scene: Scene,
    *,
    embedded: Embedded | None = None,
    hidden: Bool[np.ndarray, "size size"] | None = None,
    weights: tuple[float, float, float] = LUMA,
    drawn: bool = False,
) -> Conditions:
    """The conditions of a scene of the emoji world; masks and drawing order are exact.

    Args:
        scene: Of at most four objects.
        embedded: As of ``from_picture``, as the next two.
        hidden: Where it is hidden.
        weights: Of the channels.
        drawn: Take line art for the sketch where every object's style has some that lies on its edges.

    Example:
        >>> from photopic.data.scenes import SceneOptions, sample_scene
        >>> from_scene(sample_scene(SceneOptions(("cat",)), seed=1)).names
        ('caption', 'palette', 'sketch', 'instances', 'depth', 'intensity')
    """
    found = from_picture(
        scene.image, caption=scene.caption, embedded=embedded, hidden=hidden, objects=list(scene.masks), weights=weights
    )
    lines = line_art(scene) if drawn else None
    if lines is None:
        return found
    return found.joined(Conditions(found.size, {"sketch": lines}, {"sketch": "line art"}))


def edges(lab: Float[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "1 h w"]:
    """Where colours change: the largest Sobel gradient of the three channels, full at ``STEP`` units a pixel.

    Example:
        >>> edges(np.zeros((4, 4, 3))).max()
        np.uint8(0)
    """
    strength = np.max([sobel(lab[..., channel]) for channel in range(3)], axis=0)
    return _bytes(strength / STEP)[None]


def intensity(
    image: UInt8[np.ndarray, "h w 3"], weights: tuple[float, float, float] = LUMA
) -> UInt8[np.ndarray, "1 h w"]:
    """Grey values, by weights of red, green and blue that sum to 1."""
    return _bytes(image @ np.array(weights) / 255)[None]


def instances(objects: Sequence[Bool[np.ndarray, "h w"]]) -> UInt8[np.ndarray, "2 h w"]:
    """Which object a pixel shows, and the inner contours of what is visible of each.

    Args:
        objects: In drawing order; of more than four the last four, which are on top.

    Raises:
        DataError: If there is none.
    """
    number = _numbers(objects)
    return np.stack([_bytes(number / MOST), _bytes(find_boundaries(number, mode="inner", background=0))])


def depth(objects: Sequence[Bool[np.ndarray, "h w"]]) -> UInt8[np.ndarray, "1 h w"]:
    """How late what a pixel shows was drawn: later lies nearer, the background is 0."""
    return _bytes(_numbers(objects) / MOST)[None]


def masked(image: UInt8[np.ndarray, "h w 3"], hidden: Bool[np.ndarray, "mask_h mask_w"]) -> UInt8[np.ndarray, "4 h w"]:
    """The picture with grey where it is hidden, and 255 where it is not.

    Raises:
        DataError: If the mask is of another size, hides nothing or everything.
    """
    if hidden.shape != image.shape[:2] or hidden.all() or not hidden.any():
        found = f"{hidden.shape}" if hidden.shape != image.shape[:2] else "all of it" if hidden.all() else "none of it"
        raise DataError(
            f"mask: expected {image.shape[:2]} with a part that is hidden and one that is kept, found {found}"
        )
    grey = np.where(hidden[..., None], np.uint8(128), image)
    return np.concatenate([grey.transpose(2, 0, 1), np.where(hidden, 0, 255).astype(np.uint8)[None]])


def parts(lab: Float[np.ndarray, "size size 3"]) -> list[Bool[np.ndarray, "size size"]]:
    """The largest connected parts, at most four, that differ from the median colour of the picture's border.

    A picture that is of one colour is one part.
    """
    border = np.concatenate([lab[0], lab[-1], lab[:, 0], lab[:, -1]])
    apart = np.linalg.norm(lab - np.median(border, axis=0), axis=-1) > APART
    numbers, count = label(apart, connectivity=2, return_num=True)
    areas = np.bincount(numbers.ravel(), minlength=count + 1)[1:]
    chosen = [
        number + 1 for number in np.argsort(-areas, kind="stable")[:MOST] if areas[number] >= SMALLEST * apart.size
    ]
    return [numbers == number for number in chosen] or [np.ones_like(apart)]


def line_art(scene: Scene) -> UInt8[np.ndarray, "1 size size"] | None:
    """Line art of a scene's objects, the hidden lines left out; None where an object has none that lies on its edges."""
    size = len(scene.image)
    ink = np.zeros((size, size))
    for item, mask in zip(scene.placements, _solid(scene), strict=True):
        lines = LINES_OF.get(item.style)
        if lines is None or item.tint is not None:
            return None
        try:
            colour, alpha, (top, left) = render_object(type(item)(item.concept, lines, item.centre, item.side), size)
        except KeyError:  # not every concept is drawn in every style
            return None
        window = np.s_[top : top + alpha.shape[0], left : left + alpha.shape[1]]
        ink[mask] = 0
        ink[window] = np.maximum(ink[window], alpha - colour.mean(-1))  # dark and opaque
    return _bytes(ink)[None]


def random_hidden(rng: np.random.Generator, size: int, objects: Sequence[Any] = ()) -> Bool[np.ndarray, "size size"]:
    """A part to hide: strokes, rectangles, half the picture, or an object; never all or nothing.

    Args:
        rng: Draws it.
        size: Side in pixels.
        objects: Masks that one may be taken from.

    Example:
        >>> random_hidden(np.random.default_rng(0), 16).shape
        (16, 16)
    """
    while True:
        found = _drawn(rng, size, int(rng.integers(4 if len(objects) else 3)), objects)
        if 0 < found.mean() < 1:
            return found


def _drawn(rng: np.random.Generator, size: int, kind: int, objects: Sequence[Any]) -> Bool[np.ndarray, "size size"]:
    if kind == 3:
        return np.asarray(objects[int(rng.integers(len(objects)))], bool)
    canvas = Image.new("1", (size, size))
    draw = ImageDraw.Draw(canvas)
    if kind == 0:  # 1 to 5 strokes of 1 to 5 segments
        for _ in range(int(rng.integers(1, 6))):
            points = rng.integers(0, size, (int(rng.integers(2, 7)), 2))
            draw.line(
                [tuple(point) for point in points.tolist()], fill=1, width=int(rng.integers(1, max(2, size // 6)))
            )
    elif kind == 1:  # 1 to 4 rectangles
        for _ in range(int(rng.integers(1, 5))):
            (left, right), (top, bottom) = (np.sort(rng.integers(0, size, 2)).tolist() for _ in range(2))
            draw.rectangle((left, top, right, bottom), fill=1)
    else:
        half = [
            (0, 0, size // 2 - 1, size),
            (size // 2, 0, size, size),
            (0, 0, size, size // 2 - 1),
            (0, size // 2, size, size),
        ]
        draw.rectangle(half[int(rng.integers(4))], fill=1)
    return np.array(canvas, bool)


def _solid(scene: Scene) -> list[Bool[np.ndarray, "size size"]]:
    """All that each object covers, what later ones hide included."""
    found = []
    for item in scene.placements:
        mask = np.zeros(scene.image.shape[:2], bool)
        _, alpha, (top, left) = render_object(item, len(scene.image))
        mask[top : top + alpha.shape[0], left : left + alpha.shape[1]] = alpha > 0.5
        found.append(mask)
    return found


def _numbers(objects: Sequence[Bool[np.ndarray, "h w"]]) -> np.ndarray:
    """1 to 4 by drawing order, 0 for the background, (h, w)."""
    if not len(objects):
        raise DataError("instances: expected one object or more, found none")
    number = np.zeros(objects[0].shape, np.int64)
    for place, mask in enumerate(objects[-MOST:]):
        number[mask] = place + 1
    return number


def _bytes(share: Any) -> UInt8[np.ndarray, "h w"]:
    """0 to 1 as 0 to 255."""
    return (np.clip(share, 0, 1) * 255 + 0.5).astype(np.uint8)
