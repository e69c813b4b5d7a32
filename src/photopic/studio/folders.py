"""Uploaded pictures as the folders that methods read: what the page chose, written into a job's own folder."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from photopic.data.picture_file import decode
from photopic.data.pixels import as_rgb
from photopic.studio.forms import SubjectPicture
from photopic.studio.pictures import Pictures, crop
from photopic.studio.refusals import Refused

LABEL = re.compile(r"[^\W_][\w .,'()-]{0,79}")  # of a class: letters and digits of any language, no separators
ENDINGS = {
    "PNG": ".png",
    "JPEG": ".jpg",
    "WEBP": ".webp",
    "GIF": ".gif",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "AVIF": ".avif",
}


def subject_folder(folder: Path, chosen: Sequence[SubjectPicture], pictures: Pictures) -> Path:
    """A folder of pictures with captions beside them, cropped as was drawn; written anew.

    Args:
        folder: Where to; what is there goes.
        chosen: The pictures in their order.
        pictures: Where they are.
    """
    _empty(folder)
    for number, each in enumerate(chosen, 1):
        about, source = pictures.about(each.id), pictures.path(each.id)
        if each.crop is None:
            shutil.copyfile(source, folder / f"{number:04d}{_ending(about)}")
        else:
            part = crop(as_rgb(decode(source.read_bytes(), about["name"]), about["name"]), each.crop)
            buffer = io.BytesIO()
            part.save(buffer, "PNG")
            (folder / f"{number:04d}.png").write_bytes(buffer.getvalue())
        if each.caption.strip():
            (folder / f"{number:04d}.txt").write_text(" ".join(each.caption.split()), encoding="utf-8")
    return folder


def picture_folder(folder: Path, chosen: Sequence[Any], pictures: Pictures, *, field: str) -> Path:
    """A folder of pictures, those with a label in a sub-folder called like it.

    Args:
        folder: Where to; what is there goes.
        chosen: Ids, or ``{"id", "label", "caption"}`` each.
        pictures: Where they are.
        field: Of the form, for refusals.

    Raises:
        Refused: If an id or a label is none.
    """
    _empty(folder)
    for number, said in enumerate(chosen, 1):
        each = {"id": said} if isinstance(said, str) else said
        if not isinstance(each, dict) or not isinstance(each.get("id"), str):
            raise Refused(422, f"{field}: expected uploaded pictures by their ids, found {said!r}"[:200], field=field)
        label, caption = each.get("label") or "", each.get("caption") or ""
        if label and not LABEL.fullmatch(label):
            raise Refused(
                422, f"{field}: expected a class named in letters and digits, found {label[:80]!r}", field=field
            )
        place = folder / label if label else folder
        place.mkdir(exist_ok=True)
        shutil.copyfile(pictures.path(each["id"]), place / f"{number:05d}{_ending(pictures.about(each['id']))}")
        if caption:
            (place / f"{number:05d}.txt").write_text(" ".join(str(caption).split()), encoding="utf-8")
    return folder


def _ending(about: dict[str, Any]) -> str:
    return ENDINGS.get(about["kind"]) or Path(about["name"]).suffix.lower()


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
