"""The manifest as forms: every method with its fields, and what was filled in as the words that a command line would have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from photopic.calls.methods import read_manifest
from photopic.studio.folders import picture_folder
from photopic.studio.models import Models
from photopic.studio.pictures import Pictures
from photopic.studio.refusals import Refused
from photopic.studio.workspace import Workspace

ALWAYS_SHOWN = ("steps", "seed", "shots", "density")  # options of a config that most people look for
SUBJECT = "locate neurons"  # the command of the room Subject
STORED_EDIT = "StoredEdit"  # data that is a file of an edit
LABELLED = ("ClassFolder", "FewShotTask", "ShotPool", "ActionTask")  # data with one sub-folder a class
WRITES = "output"  # parameter of a method that writes its file itself
WRITTEN = {"Edit": "edit", "File": "guard"}  # results that the workspace keeps under a name, and what these end in


def commands() -> dict[str, dict[str, Any]]:
    """What the manifest says of each method that is a command."""
    return {command: entry for command, entry in read_manifest().items() if entry["result"] != "Control"}


def rows(models: Models) -> list[dict[str, Any]]:
    """What ``GET /api/methods`` answers."""
    return [
        {
            "command": command,
            "group": command.partition(" ")[0],
            "help": entry["help"],
            "paper": entry["paper"],
            "result": entry["result"],
            "examples": entry["examples"],
            "fields": list(_fields(entry, models)),
        }
        for command, entry in commands().items()
    ]


def _fields(entry: Mapping[str, Any], models: Models) -> Iterator[dict[str, Any]]:
    seen = set()
    for each, is_own in _asked(entry):
        if each["name"] in seen or each["name"] == WRITES:
            continue
        seen.add(each["name"])
        yield _field(each, models, advanced=not is_own and each["name"] not in ALWAYS_SHOWN)
    if entry["presets"]:
        yield _plain(
            "preset", "choice", "Begin from these settings; what is filled in counts more.", choices=entry["presets"]
        )
    if kind := WRITTEN.get(entry["result"]):
        yield _plain("output", "text", f"Name of the file, such as bear.{kind}; found by itself where it is empty.")


def _asked(entry: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], bool]]:
    """Every parameter and option, and whether it is the method's own rather than one of its config or data."""
    for each in entry["parameters"]:
        if each["role"] != "config":
            yield each, True
    for each in entry["parameters"]:
        for option in each.get("options", ()):
            yield option, False


def _plain(name: str, kind: str, text: str, **more: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("default", "choices", "min", "max", "above", "below"))
    about = {
        "name": name,
        "flag": "--" + name.replace("_", "-"),
        "label": name.replace("_", " "),
        "help": text,
        "kind": kind,
    }
    return {
        **about,
        "required": False,
        **empty,
        "many": False,
        "advanced": False,
        "labelled": False,
        "words": [],
        **more,
    }


def _field(each: Mapping[str, Any], models: Models, *, advanced: bool) -> dict[str, Any]:
    role = each.get("role", "option")
    found = _plain(each["name"], "text", each["help"], advanced=advanced, many=bool(each.get("many")))
    found |= {"flag": each["flags"][0], "required": bool(each.get("required")), "default": each.get("default")}
    if role == "model":
        names = models.names(each["type"])
        return found | {"kind": "model", "choices": names, "default": _default(each, names, models)}
    if role == "edit" or (role == "data" and each["type"].endswith(STORED_EDIT)):
        return found | {"kind": "edits" if each["many"] else "edit"}
    if role == "data":
        labelled = each["type"].rpartition(":")[2] in LABELLED
        return found | {"kind": "pictures", "labelled": labelled, "words": each["words"]}
    if "choices" in each:
        return found | {"kind": "choice", "choices": each["choices"]}
    bounds = {"min": each.get("ge"), "max": each.get("le"), "above": each.get("gt"), "below": each.get("lt")}
    return found | bounds | {"kind": "file" if each.get("exists") else each["kind"]}


def _default(each: Mapping[str, Any], names: list[str], models: Models) -> str | None:
    """The model that is loaded where it fits, else what the command takes."""
    current = models.state["name"]
    if not each.get("required") and not each.get("default"):
        return None
    return current if current in names else each["default"] if each.get("default") in names else next(iter(names), None)


def given(
    entry: Mapping[str, Any],
    said: Mapping[str, Any],
    *,
    workspace: Workspace,
    pictures: Pictures,
    models: Models,
    folder: Path,
) -> dict[str, Any]:
    """What was filled in, by parameter and option, as ``calls`` reads it: files by paths inside the workspace.

    Args:
        entry: What the manifest says of the method.
        said: The fields of the form.
        workspace: Where edits and uploads are.
        pictures: What was uploaded.
        models: Which there are.
        folder: Of the job; folders of pictures are written into it.

    Raises:
        Refused: Names the field, what was expected and what was found.
    """
    known = {each["name"]: each for each, _ in reversed(list(_asked(entry)))} | {
        "preset": {"name": "preset"},
        WRITES: {},
    }
    found: dict[str, Any] = {}
    for name, value in said.items():
        if name not in known:
            raise Refused(422, f"{name}: expected one of {', '.join(known)}; leave it out", field=name)
        if value is None or value == "" or value == [] or name == WRITES:
            continue
        each = known[name]
        role = each.get("role", "option")
        if name == "preset":
            found[name] = _choice(name, value, entry["presets"])
        elif role == "model":
            found[name] = models.check(value, each["type"])
        elif role == "edit" or (role == "data" and each["type"].endswith(STORED_EDIT)):
            found[name] = _edits(each, value, workspace)
        elif role == "data":
            found[name] = _data(each, value, pictures, folder)
        else:
            found[name] = _option(each, value, workspace)
    for each in entry["parameters"]:
        if each["name"] in (*found, WRITES) or each["role"] == "config":
            continue
        if each["role"] == "model" and (usual := _default(each, models.names(each["type"]), models)):
            found[each["name"]] = usual
        elif each.get("required"):
            raise Refused(422, f"{each['name']}: expected something, found nothing; fill it in", field=each["name"])
    return found


def _edits(each: Mapping[str, Any], value: Any, workspace: Workspace) -> Any:
    names = value if isinstance(value, list) else [value]
    paths = [str(workspace.edit(name, exists=True)) for name in names]
    return paths if each["many"] else paths[0]


def _data(each: Mapping[str, Any], value: Any, pictures: Pictures, folder: Path) -> Any:
    """A word such as ``emoji:groups``, or a folder made of the chosen pictures; of several data sets a list of either."""
    name = each["name"]
    if isinstance(value, str):
        if not each["words"] or not value.startswith(tuple(each["words"])):
            words = f", or a word that begins with {' or '.join(each['words'])}" if each["words"] else ""
            raise Refused(422, f"{name}: expected uploaded pictures{words}, found {value[:80]!r}", field=name)
        return [value] if each["many"] else value
    if not isinstance(value, list):
        raise Refused(422, f"{name}: expected uploaded pictures, found {value!r}"[:200], field=name)
    sets = value if each["many"] and all(isinstance(one, list) for one in value) else [value]
    paths = [
        str(picture_folder(folder / "data" / f"{name}-{number}", one, pictures, field=name))
        for number, one in enumerate(sets, 1)
    ]
    return paths if each["many"] else paths[0]


def _option(each: Mapping[str, Any], value: Any, workspace: Workspace) -> Any:
    name = each["name"]
    if each.get("exists"):
        path = workspace.uploaded("uploads", value)
        if not (found := sorted(path.parent.glob(f"{path.name}.*"))):
            raise Refused(422, f"{name}: expected the id of an uploaded file, found {value!r}", field=name)
        return str(found[0])
    if not each.get("many"):
        return _scalar(each, value)
    values = value if isinstance(value, list) else [value]
    if isinstance(value, str) and (each["kind"] != "text" or "choices" in each):  # which have no commas themselves
        values = [part.strip() for part in value.split(",") if part.strip()]
    return [_scalar(each, one) for one in values]


def _scalar(each: Mapping[str, Any], value: Any) -> Any:
    """A value of the option's kind; inputs of a page may hold numbers as text."""
    name, kind = each["name"], each["kind"]
    if "choices" in each:
        return _choice(name, value, each["choices"])
    if kind == "flag" and isinstance(value, bool):
        return value
    try:
        if kind == "integer" and not isinstance(value, bool) and float(value) == int(float(value)):
            return int(value)
        if kind == "number" and not isinstance(value, bool):
            return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    if kind == "text" and isinstance(value, str):
        return value
    words = {"flag": "true or false", "integer": "a whole number", "number": "a number", "text": "text"}
    raise Refused(422, f"{name}: expected {words[kind]}, found {value!r}"[:200], field=name)


def _choice(name: str, value: Any, choices: list[Any]) -> str:
    if str(value) not in map(str, choices):
        raise Refused(422, f"{name}: expected one of {', '.join(map(str, choices))}, found {value!r}"[:300], field=name)
    return str(value)


def output_name(entry: Mapping[str, Any], said: Mapping[str, Any], workspace: Workspace) -> str:
    """The name an edit or guard gets: the one that was given, else one of its noun or method; it has to be free.

    Raises:
        Refused: If it is taken or no name.
    """
    kind = WRITTEN[entry["result"]]
    if said.get(WRITES):
        word = str(said[WRITES])
        return workspace.free(kind, word if word.endswith(f".{kind}") else f"{word}.{kind}").name
    word = str(said.get("noun") or entry["method"].rpartition(".")[2])
    plain = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in word).strip("-") or kind
    taken = {path.name for path in (workspace.folder / f"{kind}s").iterdir()}
    names = (f"{plain}{'' if number == 1 else f'-{number}'}.{kind}" for number in count(1))
    return next(name for name in names if name not in taken)


def named_by(entry: Mapping[str, Any], flag: str) -> str:
    """The field that a message of the command line calls by its option."""
    names = [each["name"] for each, _ in _asked(entry) if flag in each["flags"]]
    return names[0] if names else flag
