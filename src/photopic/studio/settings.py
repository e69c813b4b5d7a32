"""From the settings that a picture carries back to the form that draws it, whether ``photopic generate`` wrote them or a studio."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from photopic.studio.forms import DrawForm
from photopic.studio.library import Library
from photopic.studio.pictures import Pictures
from photopic.studio.refusals import Refused

PLAIN = (
    "prompt",
    "negative",
    "steps",
    "guidance",
    "scheduler",
    "width",
    "height",
    "overlap",
    "controls",
)  # called the same in both


def restored(text: str, library: Library, pictures: Pictures) -> dict[str, Any] | None:
    """What a page needs to draw a picture again.

    Args:
        text: Of the picture's chunk ``photopic``; anybody may have written it.
        library: Where its edits may be, by their content if they are called otherwise here.
        pictures: Where the picture it started from may be.

    Returns:
        ``form``, ``seed``, ``model``, the digest of each edit, and ``missing``: what the workspace has not; None where the text is
        of something else.
    """
    try:
        said = json.loads(text)
        return None if not isinstance(said, dict) or "prompt" not in said else _restored(said, library, pictures)
    except (ValueError, ValidationError, TypeError, KeyError, AttributeError, RecursionError):
        return None  # what does not say enough for a form is no setting


def _restored(said: Mapping[str, Any], library: Library, pictures: Pictures) -> dict[str, Any]:
    missing: list[str] = []
    edits = []
    for each in said.get("edits", []):
        name = library.named(each["file"], each["sha256"])
        missing += [] if name else [each["file"]]
        edits.append({"name": name or each["file"], "weight": each["weight"]})
    form: dict[str, Any] = {name: said[name] for name in PLAIN if said.get(name) is not None}
    form |= {"edits": edits, "seed": said.get("seed", 0), "count": 1}
    form |= _layout(said, missing) | _start(said, pictures, missing)
    return {
        "kind": "draw",
        "form": DrawForm.model_validate(form).model_dump(mode="json"),
        "seed": form["seed"],
        "model": said.get("model"),
        "edits": {edit["name"]: each["sha256"] for edit, each in zip(edits, said.get("edits", []), strict=True)},
        "version": said.get("photopic"),
        "missing": missing,
    }


def _layout(said: Mapping[str, Any], missing: list[str]) -> dict[str, Any]:
    layout = said.get("layout")
    if not layout:
        return {}
    regions = layout.get("regions", [])
    if not regions or not all(region.get("box") for region in regions):  # painted, or written before boxes were kept
        missing.append(layout["file"])
        return {}
    names = ("words", "box", "strength", "prompt", "guidance")
    kept = [{name: region.get(name) for name in names} for region in regions]
    repeats = layout.get("repeats")
    found = {"layout": kept, "layout_strength": layout.get("strength"), "in_region": bool(layout.get("in_region"))}
    return found | ({"repeats": repeats} if repeats and repeats > 1 else {})


def _start(said: Mapping[str, Any], pictures: Pictures, missing: list[str]) -> dict[str, Any]:
    if "image" not in said:
        return {}
    found: dict[str, str] = {}
    for name in ("image", "mask"):
        if name not in said:
            continue
        key = said[name]["sha256"][:32]
        try:
            pictures.about(key)
        except Refused:
            missing.append(said[name]["file"])
            continue
        found[name] = key
    if "image" not in found:
        return {}
    return {"start": {"picture": found["image"], "mask": found.get("mask"), "strength": said.get("strength")}}
