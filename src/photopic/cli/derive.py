"""Commands made from the manifest: ``photopic <verb> <method>`` with its arguments, options, help, progress and resume.

Nothing here knows a method. A parameter's type says how a word becomes it (``calls/arguments.py``), the result's type how it is
written (``cli/outputs.py``), a config's fields are the options.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import typer

from photopic.calls.methods import method_of, read_config
from photopic.cli.careful import DEVICE, between, checked_device
from photopic.core.errors import FieldError

KINDS = {"text": str, "integer": int, "number": float, "flag": bool}
OUTPUTS = {  # result: what --output names, and what it is by default
    "Edit": ("The edit file to write.", None),
    "Edits": ("Folder for the edit files; made if missing.", None),
    "Report": ("The page to write, or all numbers if it ends in .json.", "MODEL-COMMAND.html"),
    "Map": ("Folder for the pictures; made if missing, nothing in it is overwritten.", "out"),
    "Model": ("The folder to write, for what was trained.", None),
    "File": ("The file to write: safetensors, no pickle.", "guard.safetensors"),
    "Verdict": ("A page to write as well, or all numbers if it ends in .json.", "none"),
}
PRESET = "Begin from these settings; options given count more."
JSON = "Also print all numbers as JSON on stdout, and nothing else there."
RUN = "Folder for the log and checkpoints, kept afterwards."


def epilog(entry: Mapping[str, Any]) -> str:
    """The last lines of a command's help: examples, one after the other, and the paper."""
    return "    ".join([*entry["examples"], *([f"Paper: {entry['paper']}"] if entry["paper"] else [])])


def callback(command: str, entry: Mapping[str, Any]) -> Any:
    """A function with the signature that Typer reads; it hands on what was typed, so that presets and defaults count."""
    parameters, options = _signature(entry), _options(entry)

    def run(context: Any, **values: Any) -> None:
        typed = {name: values[name] for name in values if context.get_parameter_source(name).name != "DEFAULT"}
        lists = {name: _listed(options[name], typed[name]) for name in typed if _has_commas(options.get(name, {}))}
        run_method(command, entry, typed | lists)

    run.__name__ = command.rpartition(" ")[2].replace("-", "_")
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    run.__signature__ = inspect.Signature([context, *parameters])  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in (context, *parameters)}
    return run


def _signature(entry: Mapping[str, Any]) -> list[inspect.Parameter]:
    """The parameters of a command: those of the method, then output and what every command has."""
    found: dict[str, inspect.Parameter] = {}
    for each in entry["parameters"]:
        if each["role"] in ("model", "edit", "data"):
            found[each["name"]] = _handed(each)
        elif each["role"] == "option":
            found[each["name"]] = _option(each, required=each["required"])
        for option in each.get("options", ()):  # of a config, or of how data is read; a name they share is one option
            found.setdefault(option["name"], _option(option))
    for each in _common(entry):
        found.setdefault(each.name, each)
    return sorted(found.values(), key=lambda each: each.default is not inspect.Parameter.empty)


def _options(entry: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Every option of a command that is no model, edit or data set, by its name; of two that share one the first."""
    found: dict[str, Mapping[str, Any]] = {}
    for each in entry["parameters"]:
        for option in [*([each] if each["role"] == "option" else []), *each.get("options", ())]:
            found.setdefault(option["name"], option)
    return found


def _has_commas(option: Mapping[str, Any]) -> bool:
    """Whether several values may stand in one word with commas between: numbers and choices, which have none themselves."""
    return bool(option.get("many")) and (option["kind"] != "text" or "choices" in option)


def _listed(option: Mapping[str, Any], words: Sequence[str]) -> list[Any]:
    """``["1,4", "16"]`` as numbers; choices stay words."""
    parts = [part.strip() for word in words for part in word.split(",") if part.strip()]
    kind = KINDS[option["kind"]]
    try:
        return [kind(part) for part in parts]
    except ValueError:
        numbers = "whole numbers" if kind is int else "numbers"
        problem = f"expected {numbers} with commas between, such as 1,4,16, found {' '.join(words)!r}"
        raise FieldError(option["flags"][0], problem) from None


def _common(entry: Mapping[str, Any]) -> Iterator[inspect.Parameter]:
    yield _output("Verdict" if entry["result"] == "Report" and not entry["page"] else entry["result"])
    if entry["trains"]:
        yield _optional("run", Path, ["--run"], RUN, "OUTPUT.run, removed at the end")
    if entry["presets"]:
        yield _optional("preset", Literal[tuple(entry["presets"])], ["--preset"], PRESET, "recommended")
    if any(each["role"] == "model" for each in entry["parameters"]):
        yield _optional("device", str, ["--device"], DEVICE, "the fastest there is", callback=checked_device)
    if entry["result"] in ("Report", "Verdict"):
        yield _parameter("as_json", bool, typer.Option("--json", help=JSON), False)
    yield _parameter("overwrite", bool, typer.Option("--overwrite", help="Replace the output if it exists."), False)


def _option(option: Mapping[str, Any], *, required: bool = False) -> inspect.Parameter:
    """An option of a config or a plain parameter, or the positional argument that its only flag without dashes names."""
    kind: Any = Literal[tuple(map(str, option["choices"]))] if "choices" in option else KINDS[option["kind"]]
    kind = list[str] if _has_commas(option) else list[kind] if option["many"] else kind
    words = f": {', '.join(option['choices'])}" if _has_commas(option) and "choices" in option else ""
    text, flags = _sentence(option["help"] + words), list(option["flags"])
    if flags and not flags[0].startswith("-"):
        default = ... if option.get("required", True) else option["default"]
        return _parameter(option["name"], kind, typer.Argument(help=text, metavar=flags[0]), default)
    if kind is bool:  # --flip and --no-flip
        flags[0] = f"{flags[0]}/--no-{flags[0].removeprefix('--')}"
    bounded = kind in (int, float)
    bounds: dict[str, Any] = {"min": option.get("ge"), "max": option.get("le")} if bounded else {}
    if bounded and ("gt" in option or "lt" in option):  # typer has no words for these
        bounds["callback"] = between(option.get("gt"), option.get("lt"))
    if required:
        return _parameter(option["name"], kind, typer.Option(*flags, help=text, **bounds))
    default = option["default"]
    if default is None or option["many"]:
        return _optional(
            option["name"], kind, flags, text, _shown(default, "," if _has_commas(option) else " "), **bounds
        )
    default = str(default) if "choices" in option else default
    return _parameter(option["name"], kind, typer.Option(*flags, help=text, **bounds), default)


def _handed(each: Mapping[str, Any]) -> inspect.Parameter:
    """A model, edit or data set: a word that ``arguments`` turns into it."""
    kind: Any = list[str] if each["many"] else str
    flags, text, name = each["flags"], _sentence(each["help"]), each["name"]
    if not each["required"]:
        return _optional(name, kind, flags, text, "none")
    default = each.get("default") or ...
    if not flags[0].startswith("-"):
        return _parameter(name, kind, typer.Argument(help=text, metavar=flags[0]), default)
    if default is not ...:
        return _parameter(name, kind, typer.Option(*flags, help=text), default)
    if flags != ["--" + name.replace("_", "-")]:  # its words were chosen
        return _parameter(name, kind, typer.Option(*flags, help=text))
    return _parameter(name, kind, typer.Argument(help=text, metavar=name.upper()))


def _optional(name: str, kind: Any, flags: Sequence[str], text: str, shown: str, **checks: Any) -> inspect.Parameter:
    """An option without a default of its own; ``shown`` says in words what happens without it."""
    made = typer.Option(*flags, help=text, show_default=shown or False, **checks)
    return _parameter(name, Optional[kind], made, None)  # noqa: UP045 (a kind made at run time)


def _parameter(name: str, kind: Any, made: Any, default: Any = ...) -> inspect.Parameter:
    """A parameter as Typer reads it; one without a default is required."""
    given = inspect.Parameter.empty if default is ... else default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=given, annotation=Annotated[kind, made])


def _output(result: str) -> inspect.Parameter:
    text, shown = OUTPUTS[result]
    flags = ["--output", "-o", "--out"]
    if shown is None:
        return _parameter("output", Path, typer.Option(*flags, help=text))
    return _optional("output", Path, flags, text, shown)


def _sentence(text: str) -> str:
    """The comment of a field as a sentence."""
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "?")) else text + "."


def _shown(default: Any, between: str) -> str:
    if isinstance(default, list):
        return between.join(map(str, default))
    if isinstance(default, bool):
        return {True: "yes", False: "no"}[default]
    return "" if default is None else str(default)


def run_method(command: str, entry: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Read what was typed, drive the method and write what came of it.

    Args:
        command: Its words, such as ``tune mask``.
        entry: What the manifest says of it.
        given: What was typed, by parameter and option; nothing else.
    """
    from photopic.calls import inputs
    from photopic.calls.arguments import check_options, read_arguments
    from photopic.cli import outputs, places

    output = places.checked(entry, command, given)
    inputs.check_inputs(entry, given)  # all that follows imports torch
    from photopic.core.runs import is_first_process

    if any(each["name"] == "output" for each in entry["parameters"]):
        output = None  # the method writes it
    method = method_of(entry)
    parameter = method.signature.parameters.get("config")
    config = read_config(entry, parameter, method.about.presets, given)  # before anything takes time
    check_options(entry, method, given)
    with places.method_run(given.get("run"), output, wanted=entry["trains"]) as folder:
        arguments = read_arguments(entry, given) | config
        events = method.events(**arguments, **({"run": folder} if folder is not None else {}))
        from photopic.report.progress import bars, follow_events

        with bars(hidden=not is_first_process()) as shown:
            result = follow_events(events, shown)
        if not is_first_process():  # of those that accelerate started, one writes
            return
        asked = {name: given.get(name, False) for name in ("as_json", "overwrite")}
        outputs.write(result, outputs.Wanted(output, method.about, **asked))
