"""A ``Map`` as pictures: each picture, one PNG a label with its map over it, a sheet of all, and the numbers as safetensors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from photopic.core.files import write_atomically
from photopic.core.mapfile import save
from photopic.core.results import Map
from photopic.data.overlays import enlarged, labelled, overlays
from photopic.data.pictures import contact_sheet, next_number, png_bytes

SHOWN = 256  # pixels of a picture's side, or the nearest whole multiple of its own


def write_map(found: Map, folder: Path, page: str = "") -> list[str]:
    """Write a map under the next free numbers of a folder, one a picture; nothing there is overwritten.

    Args:
        found: The map, with or without pictures.
        folder: Made if missing.
        page: HTML that shows it in the way of its method; "" writes none.

    Returns:
        What to tell the user: the files, then each label's mean and highest value.

    Example:
        >>> import tempfile
        >>> write_map(Map(np.ones((1, 1, 2, 2)), ("bear",)), Path(tempfile.mkdtemp()))[1]
        '  bear: 1 on average, 1 at its brightest'
    """
    folder.mkdir(parents=True, exist_ok=True)
    first, sheet, about = next_number(folder), [], dict(found.provenance)
    for index, pictures in enumerate(_pictures(found)):
        for place, label, picture in pictures:
            settings = about | ({"word": label} if label else {})
            write_atomically(folder / f"{first + index:04d}-{place}.png", png_bytes(picture, settings), new=True)
            sheet.append(labelled(picture, label or "picture"))
    columns = len(sheet) // len(found.values) if len(found.values) > 1 else None  # a row a picture
    together = png_bytes(contact_sheet(sheet, columns=columns, gap=6), about | {"words": list(found.labels)})
    write_atomically(folder / f"{first:04d}-sheet.png", together, new=True)
    save(found, folder / f"{first:04d}-{str(about.get('method', 'map')).rpartition('.')[2]}.safetensors")
    if page:
        write_atomically(folder / f"{first:04d}.html", page.encode(), new=True)
    maps = "one map" if len(found.labels) == 1 else f"{len(found.labels)} maps"
    lines = [
        f"  {label}: {values.mean():.3g} on average, {values.max():.3g} at its brightest"
        for label, values in zip(found.labels, found.values.swapaxes(0, 1), strict=True)  # (pictures, h, w) each
    ]
    return [
        f"{folder}: {first:04d}-sheet.png with all pictures and {maps} of each, one PNG each"
        + (f"; {first:04d}.html, to open in a browser" if page else ""),
        *lines,
    ]


def _pictures(found: Map) -> Iterator[list[tuple[str, str, UInt8[np.ndarray, "h w 3"]]]]:
    """Of each picture what is written, as (part of the name, label, picture): itself, if there, and under each label's map."""
    for index, over in enumerate(overlays(found, SHOWN)):
        own = [] if found.images is None else [("picture", "", enlarged(found.images[index], SHOWN))]
        yield own + [
            (f"{number + 1:02d}-{_plain(label)}", label, over[label]) for number, label in enumerate(found.labels)
        ]


def _plain(label: str) -> str:
    """A label as part of a file name."""
    return re.sub(r"\W+", "-", label).strip("-")[:40] or "label"
