"""A view as JSON: the blocks of ``core.view`` by their kinds, pictures as data URIs."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from photopic.core.files import finite
from photopic.core.view import View
from photopic.data.pictures import png_bytes


def view_json(view: View) -> dict[str, Any]:
    """A view as the page renders it.

    Example:
        >>> from photopic.core.view import Section, Text
        >>> view_json(View("Found", [Section("", [Text("a bear")])]))["sections"][0]["blocks"]
        [{'text': 'a bear', 'kind': 'text'}]
    """
    found: dict[str, Any] = finite(_plain(view))
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return "data:image/png;base64," + base64.b64encode(png_bytes(value)).decode()
    if isinstance(value, np.generic):
        return value.item()
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
