"""The manifest, the method of one of its entries, and its config from what was asked for."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from photopic.core.method import Method


def read_manifest() -> dict[str, Any]:
    """The manifest ``methods.json``: the words of each command, and what is known of its method."""
    path = Path(__file__).parents[1] / "methods.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def method_of(entry: Mapping[str, Any]) -> Method[Any, Any]:
    """The method of an entry, imported now."""
    module, _, name = entry["function"].partition(":")
    found: Method[Any, Any] = getattr(import_module(module), name)
    return found


def read_config(
    entry: Mapping[str, Any], parameter: inspect.Parameter | None, presets: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """The config: the preset or the defaults, with the options that were given; nothing where a method has none.

    Args:
        entry: What the manifest says of the method.
        parameter: Its parameter ``config``.
        presets: Its presets.
        given: What was typed, by option.

    Raises:
        FieldError: Named as the command line calls the option.
    """
    own = next((each for each in entry["parameters"] if each["role"] == "config"), None)
    if own is None or parameter is None:
        return {}
    from photopic.calls.arguments import called_by_flags
    from photopic.core.config import check_value, hints_of

    base = presets[given["preset"]] if given.get("preset") else parameter.default
    changed = {
        option["name"]: _typed(option, given[option["name"]]) for option in own["options"] if option["name"] in given
    }
    with called_by_flags(own["options"]):
        for name, value in changed.items():
            check_value(name, value, hints_of(type(base))[name])  # type: ignore[arg-type]  # a class is hashable
        return {"config": replace(base, **changed)}


def _typed(option: Mapping[str, Any], value: Any) -> Any:
    """What Typer gave as what the field holds: choices that are numbers, lists that are tuples."""
    if "choices" in option:
        back = {str(each): each for each in option["choices"]}
        value = [back.get(str(each), each) for each in value] if option["many"] else back[str(value)]
    return tuple(value) if option["many"] else value
