"""What a benchmark keeps of its slow work: each result with the seconds it took, under the hash of all that decides it.

All that decides it is its key (settings, data, seeds) and the code that makes it, as ``code_of`` reads it: a changed
method never meets an old result, a changed comment or import line keeps it.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import re
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness.ledger import ROOT
from photopic.core.edits import Edit, Part
from photopic.core.edits import file as edit_file
from photopic.core.errors import EditFileError
from photopic.core.provenance import versions
from photopic.core.runs import write_atomically

SOURCE = ROOT / "src"
# Exact by their own tests, so no number depends on how they do it.
NO_NUMBERS = re.compile(
    r"photopic\.core\.(edits(\.(?!adapter_hooks|attached_adapters)\w+)*|numerics\.lasso_kernel|fingerprint_cache|errors|"
    r"fingerprint|runs|provenance|events|method|config|view)"
)


class Kept:
    """A folder of results.

    Args:
        folder: Created if missing.

    Attributes:
        used: Own seconds of every result asked for, and of those that it was made from, by the name of its file.
        made_s: Seconds this process itself spent making results.

    Example:
        >>> kept = Kept(tmp_path)
        >>> kept.value({"square of": 3}, lambda: 3 * 3), kept.value({"square of": 3}, lambda: None)
        (9, 9)
    """

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.used: dict[str, float] = {}
        self.made_s = 0.0

    def value(self, key: Mapping[str, Any], make: Callable[[], Any]) -> Any:
        """A JSON value, made if it is not there."""
        return self._entry(key, make)["value"]

    def file(self, key: Mapping[str, Any], suffix: str, make: Callable[[Path], object]) -> Path:
        """A file that ``make`` writes to the path it is given, whole or not at all."""
        path = self.folder / f"{key_hash(key)}{suffix}"

        def write() -> None:
            make(path)

        self._entry(key, write)
        return path

    def edit(self, key: Mapping[str, Any], make: Callable[[], Edit]) -> Edit:
        """An edit; made again where the form of edit files has changed since it was kept."""

        def write(path: Path) -> None:
            edit_file.save(make(), path)

        path = self.file(key, ".edit", write)
        try:
            return edit_file.load(path)
        except EditFileError as error:
            print(f"made again: {error}", flush=True)
            path.with_suffix(".json").unlink()
            return edit_file.load(self.file(key, ".edit", write))

    @property
    def seconds(self) -> float:
        """What everything used cost to make, whenever and by whichever process it was made."""
        return sum(self.used.values())

    def _entry(self, key: Mapping[str, Any], make: Callable[[], Any]) -> dict[str, Any]:
        name = key_hash(key)
        path = self.folder / f"{name}.json"
        if not path.exists():
            outer, self.used = self.used, {}
            began, made_before = time.monotonic(), self.made_s
            value = make()
            own = time.monotonic() - began - (self.made_s - made_before)  # what was made inside counts for itself
            self.made_s += own
            entry = {"key": plain(key), "seconds": round(own, 3), "uses": self.used, "value": value}
            self.used = outer
            write_atomically(path, json.dumps(entry).encode())
        found: dict[str, Any] = json.loads(path.read_text())
        self.used |= found["uses"] | {name: found["seconds"]}
        return found


def key_hash(key: Mapping[str, Any]) -> str:
    """The name a key is kept under."""
    return hashlib.sha256(json.dumps(plain(key), sort_keys=True).encode()).hexdigest()[:24]


def plain(value: Any) -> Any:
    """Dataclasses and mappings as JSON objects, sequences as lists."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def content_of(parts: Sequence[Part]) -> str:
    """Hex sha256 of what the parts of an edit do."""
    digest = hashlib.sha256()
    for part in parts:
        for field in fields(part):  # type: ignore[arg-type]  # every kind of part is a dataclass
            value = getattr(part, field.name)
            digest.update(f"{type(part).__name__}.{field.name} ".encode())
            for name, item in sorted(value.items()) if isinstance(value, Mapping) else [("", value)]:
                digest.update(f"{name} ".encode() + _bytes(item))
    return digest.hexdigest()


@cache
def code_of(*what: str | Callable[..., Any]) -> str:
    """Hex sha256 of code: of modules with the photopic modules they import, of functions, and of the installed versions.

    Comments, docstrings, import lines and layout do not count, nor does what ``NO_NUMBERS`` names.

    Args:
        what: Names of photopic modules, and functions.

    Example:
        >>> code_of("photopic.locate.concept_neurons") == code_of("photopic.tune.subject.located_weights")
        False
    """
    modules = modules_under(tuple(item for item in what if isinstance(item, str)))
    trees = [ast.parse(_file(name).read_text()) for name in modules]
    trees += [ast.parse(textwrap.dedent(inspect.getsource(item))) for item in what if not isinstance(item, str)]
    digest = hashlib.sha256(json.dumps(versions(), sort_keys=True).encode())
    for tree in trees:
        digest.update(ast.dump(_what_it_does(tree)).encode())
    return digest.hexdigest()


def modules_under(names: tuple[str, ...]) -> list[str]:
    """The modules, and every photopic module they import directly or through others; sorted."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found or NO_NUMBERS.fullmatch(name):
            continue
        found.add(name)
        for node in ast.walk(ast.parse(_file(name).read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "photopic":
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                waiting += [each for each in inner if _file(each).exists()] or [node.module]
    return sorted(found)


def _file(module: str) -> Path:
    path = SOURCE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _what_it_does(tree: ast.Module) -> ast.Module:
    """Without docstrings and import lines, which say where a thing stands and not what it does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.If | ast.Try | ast.With):
            rest = [each for each in node.body if not isinstance(each, ast.Import | ast.ImportFrom)]
            node.body = rest or [ast.Pass()]
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return tree


def _bytes(item: Any) -> bytes:
    if isinstance(item, torch.Tensor):
        raw = item.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        return f"{item.dtype} {tuple(item.shape)} ".encode() + raw
    return repr(item).encode()
