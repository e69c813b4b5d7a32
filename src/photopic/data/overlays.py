"""Maps laid over pictures, and pictures with a line of text under them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from photopic.core.results import Map

LABEL_SHARE = 9  # a label's height is the picture's width over this


def overlay(image: UInt8[np.ndarray, "h w 3"], heat: Float[np.ndarray, "rows columns"]) -> UInt8[np.ndarray, "h w 3"]:
    """A picture in grey under a map: dark where the map is 0, orange to yellow where it is 1, its lines visible throughout.

    Args:
        image: RGB.
        heat: 0 to 1, at any resolution; enlarged smoothly. Values outside are cut off.

    Example:
        >>> overlay(np.full((8, 8, 3), 255, np.uint8), np.ones((2, 2)))[0, 0].tolist()
        [255, 220, 84]
    """
    large = Image.fromarray((heat.clip(0, 1) * 255).astype(np.uint8)).resize(
        image.shape[1::-1], Image.Resampling.BICUBIC
    )
    share = np.asarray(large, np.float64)[..., None] / 255  # (h, w, 1)
    lines = image.mean(-1, keepdims=True) / 255  # (h, w, 1)
    glow = np.clip(np.array([400, 300, 204]) * share - np.array([0, 80, 120]), 0, 255)
    return ((1 - share) * (12 + 100 * lines) + share * glow * (0.55 + 0.45 * lines)).clip(0, 255).astype(np.uint8)


def stretched(heat: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    """A map from its own lowest value at 0 to its highest at 1; a flat map is 0 everywhere.

    Example:
        >>> stretched(np.array([[0.2, 0.4]])).tolist()
        [[0.0, 1.0]]
    """
    low, high = float(heat.min()), float(heat.max())
    return (heat - low) / (high - low) if high - low > 1e-9 else np.zeros_like(heat)


def overlays(found: Map, side: int = 256) -> list[dict[str, UInt8[np.ndarray, "h w 3"]]]:
    """For each picture of a map the picture in grey under each label's map, from its lowest value to its highest.

    Args:
        found: The map; where it has no pictures its values are laid over white.
        side: About so many pixels of the shorter side.

    Example:
        >>> [sorted(each) for each in overlays(Map(np.eye(2)[None, None], ("bear",)))]
        [['bear']]
    """
    blank = np.full((len(found.values), *found.values.shape[2:], 3), 255, np.uint8)  # (n, rows, columns, 3)
    images = [enlarged(image, side) for image in (blank if found.images is None else found.images)]
    return [
        {label: overlay(image, stretched(heat)) for label, heat in zip(found.labels, maps, strict=True)}
        for image, maps in zip(images, found.values, strict=True)
    ]


def enlarged(image: UInt8[np.ndarray, "h w 3"], side: int) -> UInt8[np.ndarray, "large_h large_w 3"]:
    """A picture with every pixel a square of the same whole size, so that its shorter side is about ``side``."""
    scale = max(1, round(side / min(image.shape[:2])))
    return image.repeat(scale, 0).repeat(scale, 1)  # (h, w, 3) -> (h * scale, w * scale, 3)


def labelled(image: UInt8[np.ndarray, "h w 3"], label: str) -> UInt8[np.ndarray, "tall w 3"]:
    """A picture with a line of text on white under it; text that is too wide ends in an ellipsis."""
    height, width = image.shape[:2]
    band = max(12, width // LABEL_SHARE)
    sheet = Image.new("RGB", (width, height + band), "white")
    sheet.paste(Image.fromarray(image), (0, 0))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(round(band * 0.66))
    text = label
    while len(text) > 1 and draw.textlength(text, font) > width - 4:
        text = text[:-2] + "…"
    draw.text((width / 2, height + band / 2), text, fill=(34, 37, 43), font=font, anchor="mm")
    return np.asarray(sheet)
