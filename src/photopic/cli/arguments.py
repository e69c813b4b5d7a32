"""Words of the command line as arguments of a method: models, edits and data sets, by the type the method asks for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from inspect import isabstract
from pathlib import Path
from typing import Any


def read_arguments(entry: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a method but for its config: models first, since data is read to their size.

    Args:
        entry: What the manifest says of the method.
        given: What was typed, by parameter and option.

    Raises:
        PhotopicError: If a model, an edit or data cannot be read; the message says which.
    """
    read: dict[str, Any] = {}
    asked = [each for each in entry["parameters"] if each["role"] != "config"]
    for each in sorted(asked, key=lambda each: ("edit", "model", "data", "option").index(each["role"])):
        word = given.get(each["name"], each.get("default") if each["role"] == "model" else None)
        if (not word and each["role"] != "option") or word is None:
            continue
        if each["role"] == "option":
            read[each["name"]] = tuple(word) if each["many"] else word
        else:
            words = word if each["many"] else [word]
            found = [_read(each, one, given, read) for one in words]
            read[each["name"]] = found if each["many"] else found[0]
            if each["role"] == "edit" and entry["names_edits"]:
                read["names"] = [*read.get("names", ()), *(Path(one).name for one in words)]
    return read


def _read(each: Mapping[str, Any], word: str, given: Mapping[str, Any], read: Mapping[str, Any]) -> Any:
    if each["role"] == "edit":
        from photopic.core.edits.file import load

        return load(Path(word))
    kind = _type(each["type"])
    if each["role"] == "model":
        return _model(kind, word, given.get("device"))
    from photopic.data.sources import SOURCES

    source = SOURCES[kind]
    options = None
    if source.options is not None:
        names = [option["name"] for option in each["options"]]
        typed = {name: given[name] for name in names if given.get(name) is not None}
        options = source.options(**{k: tuple(v) if isinstance(v, list) else v for k, v in typed.items()})
    model = next((value for value in read.values() if hasattr(value, "edits")), None)  # pictures are read to its size
    return source.read(word, options, model)


def _model(kind: Any, word: str, device: str | None) -> Any:
    from photopic.report.progress import waiting

    with waiting(f"loading {word}"):
        if isabstract(kind):  # any kind of model
            from photopic.models.loading import load

            return load(word, device)
        return kind.load(word, device)


def _type(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)
