"""Pictures as files: PNG bytes that carry their settings, and contact sheets."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from photopic.core.errors import DataError
from photopic.core.files import read_file, write_atomically

SETTINGS_KEY = "photopic"  # the PNG text chunk that holds the settings as JSON


def png_bytes(image: UInt8[np.ndarray, "height width 3"], settings: Mapping[str, Any] | None = None) -> bytes:
    """A picture as PNG; the same arguments give the same bytes.

    Args:
        image: RGB, 0 to 255.
        settings: JSON values kept in the file's text chunk ``photopic``; ``read_settings`` is the inverse.

    Example:
        >>> import numpy as np
        >>> png_bytes(np.zeros((2, 2, 3), np.uint8))[1:4]
        b'PNG'
    """
    text = PngInfo()
    if settings is not None:
        text.add_text(SETTINGS_KEY, json.dumps(settings, sort_keys=True))
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


def text_of(picture: UInt8[np.ndarray, "h w 3"]) -> str:
    """A picture as text, for reports: a base64 PNG, which ``picture_of`` reads.

    Example:
        >>> import numpy as np
        >>> picture_of(text_of(np.zeros((2, 3, 3), np.uint8))).shape
        (2, 3, 3)
    """
    return base64.b64encode(png_bytes(picture)).decode()


def picture_of(text: str) -> UInt8[np.ndarray, "h w 3"]:
    """What ``text_of`` made a picture of."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))


def read_settings(path: str | Path) -> dict[str, Any]:
    """The settings a picture was made with.

    Raises:
        DataError: If the file is not a PNG made by photopic.
    """
    content = read_file(Path(path), DataError)
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            return json.loads(image.info[SETTINGS_KEY])
    except (OSError, KeyError, ValueError, SyntaxError) as error:
        raise DataError(f"{path}: expected a PNG made by photopic, found no settings in it") from error


def contact_sheet(
    images: Sequence[UInt8[np.ndarray, "height width 3"]], *, columns: int | None = None, scale: int = 1, gap: int = 2
) -> UInt8[np.ndarray, "sheet_height sheet_width 3"]:
    """Lay pictures of one size out in rows on white.

    Args:
        images: At least one.
        columns: Pictures a row; as square as possible by default.
        scale: Each pixel becomes a square of this side.
        gap: White pixels between pictures and around the sheet.

    Example:
        >>> import numpy as np
        >>> contact_sheet([np.zeros((8, 8, 3), np.uint8)] * 6, columns=3).shape
        (22, 32, 3)
    """
    columns = columns or max(1, round(len(images) ** 0.5 + 0.3))
    height, width = (side * scale for side in images[0].shape[:2])
    rows = -(-len(images) // columns)
    columns = min(columns, len(images))
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for index, image in enumerate(images):
        top, left = (
            gap + place * (side + gap) for place, side in zip(divmod(index, columns), (height, width), strict=True)
        )
        sheet[top : top + height, left : left + width] = image.repeat(scale, 0).repeat(scale, 1)
    return sheet


def write_next(folder: Path, content: bytes, ending: str = ".png") -> int:
    """Write a file under the next free number of a folder, as ``0012.png``; other processes may write there too.

    Returns:
        Its number.
    """
    number = next_number(folder)
    while True:
        try:
            write_atomically(folder / f"{number:04d}{ending}", content, new=True)
            return number
        except FileExistsError:  # another process took it meanwhile
            number += 1


def next_number(folder: Path) -> int:
    """One more than the highest number among names such as ``0012.png``, so that nothing is ever overwritten."""
    numbers = [int(found[1]) for entry in folder.iterdir() if (found := re.match(r"(\d{4,9})\D", entry.name))]
    return max(numbers, default=0) + 1
