"""Layout files: JSON with a box or a painted mask for each subject.

    {"regions": [{"words": "<mine> cat", "box": [0.0, 0.2, 0.5, 1.0], "strength": 2.5, "guidance": 7.5,
                  "prompt": "a <mine> cat on a red background"},
                 {"words": "guitar", "mask": "guitar.png"},
                 {"words": "mug", "alpha": "mug-cut-out.png"}],
     "outside": "shut", "may_overlap": false}

or one picture in which each subject has its colour, painted without soft edges:

    {"image": "layout.png", "colours": {"#ff0000": "<mine> cat", "#0000ff": {"words": "guitar", "strength": 2.5}}}

A mask is inside where it is light and opaque, a cut-out (``alpha``) where it is opaque; pictures are named relative to the file.
``outside`` and ``may_overlap`` are as in ``Layout``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from photopic.core.errors import DataError
from photopic.core.files import read_file
from photopic.data.layout import Layout, Outside, Region
from photopic.data.picture_file import open_picture
from photopic.data.pixels import as_mask, as_rgb, opaque

OPTIONS = ("outside", "may_overlap")
OF_A_SUBJECT = ("words", "strength", "prompt", "guidance")  # beside its place


def read_layout(path: str | Path) -> Layout:
    """Read and check a layout.

    Args:
        path: A JSON file, see the module.

    Raises:
        DataError: Names the file, what was expected, what was found, and the fix.

    Example:
        >>> read_layout("layout.json").regions[0].words  # doctest: +SKIP
        '<mine> cat'
    """
    return read_stated(Path(path))[1]


def as_json(layout: Layout) -> str | None:
    """A layout of boxes as ``read_layout`` reads it; None where a region is painted, which needs a picture besides.

    Example:
        >>> as_json(Layout((Region("cat", (0.0, 0.0, 0.5, 1.0)),)))
        '{"regions": [\\n  {"words": "cat", "box": [0.0, 0.0, 0.5, 1.0]}\\n], "outside": "shut", "may_overlap": false}\\n'
    """
    if any(region.box is None for region in layout.regions):
        return None
    lines = []
    for region in layout.regions:
        said = {name: getattr(region, name) for name in OF_A_SUBJECT if getattr(region, name) is not None}
        box = [round(edge, 4) for edge in region.box or ()]
        lines.append(json.dumps({"words": said.pop("words"), "box": box} | said, ensure_ascii=False))
    more = "".join(f', "{name}": {json.dumps(getattr(layout, name))}' for name in OPTIONS)
    return '{"regions": [\n  ' + ",\n  ".join(lines) + f"\n]{more}}}\n"


def described(layout: Layout) -> str:
    """Where the regions are, in a line.

    Example:
        >>> described(Layout((Region("cat", (0.0, 0.25, 0.5, 1.0)),)))
        'cat 0.00 0.25 to 0.50 1.00'
    """
    return "; ".join(
        f"{r.words} {r.bounds[0]:.2f} {r.bounds[1]:.2f} to {r.bounds[2]:.2f} {r.bounds[3]:.2f}" for r in layout.regions
    )


def read_stated(path: Path, *, picture: bool = False) -> tuple[Path | None, Layout]:
    """The layout of a file and, where one is asked for, the picture that the file says it is of.

    Args:
        path: The file.
        picture: Whether it must name its picture, as ``"picture"``; otherwise it may not.

    Raises:
        DataError: As ``read_layout``.
    """
    content = read_file(path, DataError)
    try:
        stated = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected a layout as JSON, found something else ({error})") from None
    try:
        named = None
        if picture and isinstance(stated, Mapping):
            if not isinstance(stated.get("picture"), str):
                raise DataError(
                    f'expected "picture", the name of the picture it is of, found {stated.get("picture")!r}'
                )
            named = path.parent / stated["picture"]
            stated = {key: value for key, value in stated.items() if key != "picture"}
        return named, _layout(stated, path.parent)
    except DataError as error:
        raise DataError(f"{path}: {str(error).removeprefix('layout: ')}") from None


def _layout(stated: Any, folder: Path) -> Layout:
    if not isinstance(stated, Mapping) or ("regions" in stated) == ("image" in stated):
        raise DataError('expected an object with "regions", or with "image" and "colours"')
    options = {name: stated[name] for name in OPTIONS if name in stated}
    if not isinstance(options.get("may_overlap", False), bool):
        raise DataError(f"may_overlap: expected true or false, found {options['may_overlap']!r}")
    if options.get("outside", "shut") not in get_args(Outside):
        raise DataError(f"outside: expected 'shut' or 'neutral', found {options['outside']!r}")
    if "regions" in stated:
        _check_keys("the layout", stated, ("regions", *OPTIONS))
        if not isinstance(stated["regions"], Sequence) or isinstance(stated["regions"], str):
            raise DataError(f"regions: expected a list, found {stated['regions']!r}")
        regions = [_region(each, folder) for each in stated["regions"]]
    else:
        _check_keys("the layout", stated, ("image", "colours", *OPTIONS))
        regions = _painted(stated, folder)
    return Layout(tuple(regions), **options)


def _region(stated: Any, folder: Path) -> Region:
    if not isinstance(stated, Mapping):
        raise DataError(f'a region: expected an object with "words" and "box", "mask" or "alpha", found {stated!r}')
    _check_keys(f"region {stated.get('words', '?')!r}", stated, ("words", "box", "mask", "alpha", *OF_A_SUBJECT[1:]))
    words, more = _words(stated), _more(stated)
    mask = None if "mask" not in stated else as_mask(_picture(stated["mask"], folder))
    if "alpha" in stated:
        if mask is not None:
            raise DataError(f"region {words!r}: expected a mask or a cut-out (alpha), found both; leave one out")
        mask = opaque(_picture(stated["alpha"], folder))
        if mask.all():
            raise DataError(
                f"region {words!r}: {stated['alpha']} is opaque everywhere; cut the thing out, or paint a mask"
            )
    return Region(words, _box(words, stated["box"]) if "box" in stated else None, mask, **more)


def _painted(stated: Mapping[str, Any], folder: Path) -> list[Region]:
    """One region a colour."""
    colours = stated.get("colours")
    if not isinstance(colours, Mapping) or not colours:
        raise DataError(f'colours: expected an object such as {{"#ff0000": "cat"}}, found {colours!r}')
    picture = _picture(stated["image"], folder)
    pixels, painted = np.asarray(as_rgb(picture)), opaque(picture)  # (h, w, 3), (h, w)
    regions = []
    for colour, said in colours.items():
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", colour):
            raise DataError(f"colours: expected a colour such as '#ff0000', found {colour!r}")
        each = {"words": said} if isinstance(said, str) else said
        if not isinstance(each, Mapping):
            raise DataError(f"colours: {colour}: expected the subject's words, found {said!r}")
        _check_keys(f"colour {colour}", each, OF_A_SUBJECT)
        mask = (pixels == np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)])).all(-1) & painted
        if not mask.any():
            raise DataError(
                f"{stated['image']}: {colour} of {_words(each)!r} is not in the picture; its colours are "
                f"{_most_common(pixels)}; paint without soft edges"
            )
        regions.append(Region(_words(each), mask=mask, **_more(each)))
    return regions


def _check_keys(what: str, stated: Mapping[str, Any], known: Sequence[str]) -> None:
    if unknown := sorted(set(stated) - set(known)):
        raise DataError(f"{what}: unknown {unknown[0]!r}; it may have {', '.join(known)}")


def _words(stated: Mapping[str, Any]) -> str:
    words = stated.get("words")
    if not isinstance(words, str) or not words.strip():
        raise DataError(f"a region: expected the subject's words as in the prompt, found {words!r}")
    return words.strip()


def _more(stated: Mapping[str, Any]) -> dict[str, Any]:
    """Strength, guidance and own prompt of a region, where they are said."""
    found: dict[str, Any] = {}
    for name, usual in (("strength", "2.5"), ("guidance", "5")):
        if (value := stated.get(name)) is not None:
            if not _is_number(value):
                raise DataError(f"region {stated.get('words')!r}: expected a {name} such as {usual}, found {value!r}")
            found[name] = float(value)
    if (prompt := stated.get("prompt")) is not None:
        if not isinstance(prompt, str):
            raise DataError(f"region {stated.get('words')!r}: expected a sentence as its prompt, found {prompt!r}")
        found["prompt"] = prompt
    return found


def _box(words: str, stated: Any) -> tuple[float, float, float, float]:
    if not isinstance(stated, list) or len(stated) != 4 or not all(map(_is_number, stated)):
        raise DataError(f"region {words!r}: expected a box of four numbers, left, top, right, bottom, found {stated!r}")
    left, top, right, bottom = map(float, stated)
    return left, top, right, bottom


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (type(value) is int and value.bit_length() < 64)  # JSON has larger ones


def _picture(name: Any, folder: Path) -> Image.Image:
    if not isinstance(name, str):
        raise DataError(f"expected the name of a picture, found {name!r}")
    try:
        return open_picture(folder / name)
    except DataError as error:
        raise DataError(f"{name}: {str(error).removeprefix(f'{folder / name}: ')}") from None


def _most_common(pixels: UInt8[np.ndarray, "height width 3"], count: int = 4) -> str:
    colours, numbers = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    chosen = colours[np.argsort(-numbers)[:count]]
    return ", ".join("#" + "".join(f"{channel:02x}" for channel in colour) for colour in chosen)
