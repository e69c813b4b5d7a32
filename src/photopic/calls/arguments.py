"""Words as arguments of a method: models, edits and data sets, by the type the method asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from inspect import isabstract
from pathlib import Path
from typing import TYPE_CHECKING, Any

from photopic.core.errors import FieldError

if TYPE_CHECKING:
    from photopic.core.method import Method
    from photopic.data.sources import Source

EDIT_READERS = {  # by what the method asks for; what is only looked into is read without torch
    "Edit": "photopic.core.edits.file:load",
    "AnyEdit": "photopic.core.editfile.content:load_content",
}


def read_arguments(
    entry: Mapping[str, Any], given: Mapping[str, Any], *, load_model: Callable[[Any, str], Any] | None = None
) -> dict[str, Any]:
    """The arguments of a method but for its config: models first, since data is read to their size.

    Args:
        entry: What the manifest says of the method.
        given: What was typed, by parameter and option.
        load_model: Gives the model of a class and a name; None loads it onto the device that was asked for.

    Raises:
        PhotopicError: If a model, an edit or data cannot be read; the message says which.
    """
    asked = [each for each in entry["parameters"] if each["role"] != "config"]
    options = {each["name"]: _options(each, given) for each in asked if each["role"] == "data"}
    words = {each["name"]: _words(each, given) for each in asked}
    read: dict[str, Any] = {}
    model_of = load_model or partial(_model, device=given.get("device"))
    for each in sorted(asked, key=lambda each: ("option", "edit", "model", "data").index(each["role"])):
        if not words[each["name"]]:
            continue
        if each["role"] == "option":
            found = words[each["name"]]
            read[each["name"]] = tuple(found) if each["many"] else found[0]
        else:
            found = [_read(each, one, options, model_of, read) for one in words[each["name"]]]
            read[each["name"]] = found if each["many"] else found[0]
            if each["role"] == "edit" and entry["names_edits"]:
                read["names"] = [*read.get("names", ()), *(Path(one).name for one in words[each["name"]])]
    return read


def check_options(entry: Mapping[str, Any], method: Method[Any, Any], given: Mapping[str, Any]) -> None:
    """Refuse a plain option out of its range, before a model is loaded.

    Raises:
        FieldError: Named as the command line calls the option.
    """
    from photopic.core.config import check_value, hints_of

    options = [each for each in entry["parameters"] if each["role"] == "option" and each["name"] in given]
    with called_by_flags(options):
        for each in options:
            check_value(each["name"], given[each["name"]], hints_of(method.body)[each["name"]])


def _words(each: Mapping[str, Any], given: Mapping[str, Any]) -> list[Any]:
    """What was typed for a parameter, or the model it takes by default."""
    word = given.get(each["name"], each.get("default") if each["role"] == "model" else None)
    return list(word) if each.get("many") and word is not None else [] if word in (None, "") else [word]


def _options(each: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """How data is to be read, as its config.

    Raises:
        FieldError: Named as the command line calls the option.
    """
    kind = _source(each).options
    if kind is None:
        return None
    typed = {
        option["name"]: given[option["name"]] for option in each["options"] if given.get(option["name"]) is not None
    }
    with called_by_flags(each["options"]):
        return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in typed.items()})


@contextmanager
def called_by_flags(options: Sequence[Mapping[str, Any]]) -> Iterator[None]:
    """A block whose refusals name an option of the command line in place of the field of a config."""
    try:
        yield
    except FieldError as error:
        flags = {option["name"]: option["flags"][0] for option in options}
        raise FieldError(flags.get(error.field, error.field), error.problem) from None


def _source(each: Mapping[str, Any]) -> Source[Any]:
    from photopic.data.sources import SOURCES

    return SOURCES[_type(each["type"])]


def _read(
    each: Mapping[str, Any],
    word: str,
    options: Mapping[str, Any],
    model_of: Callable[[Any, str], Any],
    read: Mapping[str, Any],
) -> Any:
    if each["role"] == "edit":
        return _type(EDIT_READERS[each["type"].partition(":")[2]])(Path(word))
    if each["role"] == "model":
        return model_of(_type(each["type"]), word)
    model = next((value for value in read.values() if hasattr(value, "edits")), None)  # pictures are read to its size
    return _source(each).read(word, options[each["name"]], model)


def _model(kind: Any, word: str, *, device: str | None) -> Any:
    from photopic.report.progress import waiting

    with waiting(f"loading {word}"):
        if isabstract(kind):  # any kind of model
            from photopic.models.loading import load

            return load(word, device)
        return kind.load(word, device)


def _type(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)
