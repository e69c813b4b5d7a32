"""``--control name:key=value[,key=value]``: a control of the sampler by its words, from what the manifest says of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from photopic.calls.arguments import read_arguments
from photopic.calls.inputs import check_inputs
from photopic.calls.methods import read_config, read_manifest
from photopic.core.errors import FieldError, PhotopicError

if TYPE_CHECKING:
    from photopic.core.sampling import Control

WORDS = {"integer": "a whole number", "number": "a number", "flag": "yes or no"}


def known_controls() -> dict[str, dict[str, Any]]:
    """What the manifest says of each control, by its name."""
    return {
        entry["method"].rpartition(".")[2]: entry for entry in read_manifest().values() if entry["result"] == "Control"
    }


def read_control(word: str, model: Any, path_of: Callable[[Mapping[str, Any], str], str] | None = None) -> Control:
    """Make a control.

    Args:
        word: Such as ``adaptive_guidance:threshold=0.99``; of an option that takes several each gets its own ``key=value``.
        model: That will draw.
        path_of: From what the manifest says of a parameter and its word to the path of a file; None takes words as they are.

    Raises:
        PhotopicError: Names the control, the option, and what was expected.
    """
    name, _, said = word.partition(":")
    known = known_controls()
    if name.replace("-", "_") not in known:
        raise PhotopicError(f"--control: expected one of {', '.join(known)}, found {name!r}")
    entry = known[name.replace("-", "_")]
    given = _given(name, entry, said)
    if path_of is not None:
        given |= {name: path_of(each, given[name]) for name, each in _files(entry).items() if name in given}
    check_inputs(entry, given)
    module, _, made = entry["function"].partition(":")
    kind = getattr(import_module(module), made)
    try:
        config = read_config(entry, inspect.signature(kind).parameters.get("config"), kind.about.presets, given)
    except FieldError as error:
        raise PhotopicError(f"--control {name}: {error.field.removeprefix('--')}: {error.problem}") from None
    control: Control = kind(**read_arguments(entry, given) | config)
    return control


def _files(entry: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The parameters and options of a control that name something to read."""
    options = [option for each in entry["parameters"] for option in (each, *each.get("options", ()))]
    return {each["name"]: each for each in options if each.get("role") in ("edit", "data", "model") or "exists" in each}


def _given(name: str, entry: Mapping[str, Any], said: str) -> dict[str, Any]:
    """What was typed, by parameter and option."""
    options = {each["name"]: each for each in entry["parameters"] if each["role"] != "config"}
    options |= {option["name"]: option for each in entry["parameters"] for option in each.get("options", ())}
    given: dict[str, Any] = {}
    for item in filter(None, said.split(",")):
        key, equals, value = item.partition("=")
        option = options.get(key.strip().replace("-", "_"))
        if option is None or not equals:
            raise PhotopicError(
                f"--control {name}: expected {' or '.join(f'{key}=...' for key in options)}, found {item!r}"
            )
        read = _value(f"--control {name}: {option['name']}", option, value.strip())
        given[option["name"]] = [*given.get(option["name"], []), read] if option.get("many") else read
    missing = [key for key, option in options.items() if option.get("required") and key not in given]
    if missing:
        raise PhotopicError(f"--control {name}: expected {missing[0]}, found none; write {name}:{missing[0]}=...")
    return given


def _value(what: str, option: Mapping[str, Any], value: str) -> Any:
    """A word as the option's type holds it; models, edits and data stay words."""
    kind = option.get("kind", "text")
    try:
        if "choices" in option or kind == "text":
            return value
        return {"yes": True, "no": False}[value] if kind == "flag" else {"integer": int, "number": float}[kind](value)
    except (KeyError, ValueError):
        raise PhotopicError(f"{what}: expected {WORDS[kind]}, found {value!r}") from None
