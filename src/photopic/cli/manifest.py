"""The manifest ``methods.json``: every method with its arguments, options, defaults, ranges and help, taken from its types.

Commands, their help and the tables of the docs are made from it, so that none of them imports a method. Write it again with
``python -m photopic.cli.manifest`` after a method changed; a test fails while it is stale.
"""

from __future__ import annotations

import inspect
import json
import pkgutil
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module, resources
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt

from photopic.core.about import About
from photopic.core.config import Existing, Flags, comments, hints_of, unpacked
from photopic.core.method import Method
from photopic.core.results import Report
from photopic.data.sources import SOURCES

VERBS = ("locate", "edit", "tune", "train", "generate", "measure", "guard", "knowledge")  # the rooms that hold methods

PLAIN = {str: "text", int: "integer", float: "number", bool: "flag"}


def methods() -> dict[str, Any]:
    """Every method by its command, found by importing the verbs."""
    found = {}
    for module in _modules():
        for each in vars(module).values():
            about = (
                each.about if isinstance(each, Method) else vars(each).get("about") if inspect.isclass(each) else None
            )
            # what a module only imports stands in the module that defines it
            if isinstance(about, About) and each.__module__ == module.__name__:
                found[about.command] = each
    return dict(sorted(found.items()))


def manifest() -> dict[str, Any]:
    """What ``methods.json`` should hold."""
    return {command: _entry(each) for command, each in methods().items()}


def _modules() -> Iterator[Any]:
    for verb in VERBS:
        try:
            package = import_module(f"photopic.{verb}")
        except ModuleNotFoundError as error:
            if error.name != f"photopic.{verb}":
                raise
            continue  # an empty room
        for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            yield import_module(found.name)


def _entry(each: Any) -> dict[str, Any]:
    about: About = each.about
    body = each.body if isinstance(each, Method) else each.__init__
    module, name = each.__module__, each.__name__
    text = inspect.cleandoc(each.__doc__ or "")
    entry = {
        "method": about.name,
        "function": f"{module}:{name}",
        "help": _lead(text),
        "paper": about.paper,
        "claims": about.claims.split(),
        "presets": sorted(about.presets),
        "examples": list(about.examples),
        "after": list(about.after),
        "trains": isinstance(each, Method) and each.trains,
        "page": about.page,
        "names_edits": "names" in inspect.signature(body).parameters,  # a method that calls edits by their files' names
    }
    hints = hints_of(body)  # evaluated: annotations are strings in the source
    entry["result"] = _result(hints.get("return")) if isinstance(each, Method) else "Control"
    described = _described(text) | _described(inspect.cleandoc(inspect.getdoc(body) or ""))
    entry["parameters"] = [
        _parameter(each, hints[each.name], described.get(each.name, ""))
        for each in inspect.signature(body).parameters.values()
        if each.name not in ("self", "run") and _flags(each.name, unpacked(hints[each.name])[1])
    ]
    return entry


def _result(annotation: Any) -> str:
    """``Steps[Edit]`` is a generator whose third argument is the result; a handle is a Model, what saves one file a File."""
    kind = get_args(annotation)[2]
    if getattr(kind, "saves_file", False):
        return "File"
    if inspect.isclass(kind) and issubclass(kind, Report):  # one with fields of its own is asked for as any other
        return "Report"
    return "Model" if hasattr(kind, "save") else str(kind.__name__)


def _parameter(given: inspect.Parameter, annotation: Any, text: str) -> dict[str, Any]:
    kind, beside = unpacked(annotation)
    options = [each for each in get_args(kind) if each is not NoneType] if _is_union(kind) else [kind]
    plural = get_origin(options[0]) in (Sequence, tuple, list)
    item = unpacked(get_args(options[0])[0])[0] if plural else options[0]
    found: dict[str, Any] = {"name": given.name, "help": text, "required": given.default is inspect.Parameter.empty}
    if is_dataclass(item) and given.name == "config":
        return found | {"role": "config", "type": _path(item), "options": option_list(item)}  # type: ignore[arg-type]
    if item in PLAIN or get_origin(item) is Literal:
        default = None if given.default is inspect.Parameter.empty else given.default
        return found | {"role": "option"} | _option(given.name, annotation, default, text)
    role = (
        "model"
        if hasattr(item, "edits")
        else "edit"
        if getattr(item, "__name__", "") in ("Edit", "AnyEdit")
        else "data"
    )
    found |= {"role": role, "type": _path(item), "many": plural, "flags": _flags(given.name, beside)}
    if role == "model":
        own = next((each.default for each in beside if isinstance(each, Flags)), "")
        # one that may be left out is left out where none is named
        found["default"] = own or (getattr(item, "default_name", "") if found["required"] else "")
        found["help"] = re.split(r"(?<=\.)\s", text)[0] or f"{item.described}: a bundled name, a folder or a hub id."
    elif role == "data":
        source = SOURCES[item]
        found["help"] = source.help
        found["options"] = option_list(source.options) if source.options else []
        found["words"] = list(source.words)
    return found


def option_list(config: type) -> list[dict[str, Any]]:
    """The options that the fields of a config make, with the comments as their help."""
    help_of, hints = comments(config), hints_of(config)
    found = []
    for each in fields(config):
        default = each.default if each.default is not MISSING else None
        if _flags(each.name, unpacked(hints[each.name])[1]):
            found.append(_option(each.name, hints[each.name], default, help_of[each.name]))
    return found


def _option(name: str, annotation: Any, default: Any, text: str) -> dict[str, Any]:
    kind, beside = unpacked(annotation)
    choices = [each for each in get_args(kind) if each is not NoneType] if _is_union(kind) else [kind]
    many = any(get_origin(each) in (tuple, list, Sequence) for each in choices)
    items = [
        unpacked(get_args(each)[0])[0] if get_origin(each) in (tuple, list, Sequence) else each for each in choices
    ]
    words = [word for each in items if get_origin(each) is Literal for word in get_args(each)]
    plain = [PLAIN[each] for each in items if each in PLAIN] or [PLAIN[type(word)] for word in words[:1]]
    found: dict[str, Any] = {"name": name, "flags": _flags(name, beside), "kind": plain[0], "many": many, "help": text}
    found["default"] = list(default) if isinstance(default, tuple) else default
    if words:
        found["choices"] = words
    if Existing() in beside:
        found["exists"] = True
    for bound in beside:
        for each in (Ge, Gt, Le, Lt):
            if isinstance(bound, each):
                found[each.__name__.lower()] = getattr(bound, each.__name__.lower())
    return found


def _flags(name: str, beside: Sequence[Any]) -> list[str]:
    own = next((each for each in beside if isinstance(each, Flags)), None)
    return ["--" + name.replace("_", "-")] if own is None else list(own.names)


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType)


def _path(item: Any) -> str:
    return f"{item.__module__}:{getattr(item, '__qualname__', item)}"


def _lead(text: str) -> str:
    """The docstring up to its first heading such as ``Args:``."""
    return re.split(r"\n\s*(?:Args|Returns|Raises|Yields|Example|Attributes):\n", text)[0].strip()


def _described(text: str) -> dict[str, str]:
    """What the Args section says of each argument."""
    block = re.search(r"^(?:Args):\n((?:[ ]{4}.*\n?|\n)+)", text, re.MULTILINE)
    if block is None:
        return {}
    entries = re.findall(r"^ {4}(\w+): ((?:.*)(?:\n {8}.*)*)", block[1], re.MULTILINE)
    return {name: " ".join(words.split()) for name, words in entries}


def text_of(found: Mapping[str, Any]) -> str:
    """The manifest as it stands in the file."""
    return json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> None:
    """Write ``methods.json`` beside the package, or only say whether it is stale with ``--check``."""
    path = Path(str(resources.files("photopic").joinpath("methods.json")))
    text = text_of(manifest())
    if "--check" in sys.argv:
        sys.exit(int(path.read_text(encoding="utf-8") != text))
    path.write_text(text, encoding="utf-8")
    print(f"{path.name}: {len(json.loads(text))} methods")


if __name__ == "__main__":
    main()
