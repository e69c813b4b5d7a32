"""Hashes of the code that decides a measurement, so that a changed method never meets an old result.

Comments, docstrings, import lines and layout do not count, nor does what ``NO_NUMBERS`` names.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.harness.ledger import ROOT
from photopic.core.provenance import versions

SOURCE = ROOT / "src"
# Exact by their own tests, so no number depends on how they do it.
NO_NUMBERS = re.compile(
    r"photopic\.core\.(edits(\.(?!adapter_hooks|attached_adapters)\w+)*|numerics\.lasso_kernel|fingerprint_cache|errors|"
    r"fingerprint|runs|provenance|events|method|config|view)"
)

MACHINERY = re.compile(r"benchmarks\.harness\.(?!subjects|sd15_matrices)")  # likewise


@cache
def code_of(*what: str | Callable[..., Any]) -> str:
    """Hex sha256 of code and of the installed versions.

    Args:
        what: Names of photopic modules, which stand for all photopic modules they import; and functions, which stand for the
            benchmarks' functions, classes and numbers they use and for the photopic modules that what they use comes from.

    Example:
        >>> code_of("photopic.locate.concept_neurons") == code_of("photopic.tune.subject.located_weights")
        False
    """
    used = Used()
    for item in what:
        used.add(item)
    trees = [ast.parse(_file(name).read_text()) for name in modules_under(tuple(used.modules))]
    trees += [ast.parse(source) for source in used.sources.values()]
    digest = hashlib.sha256(json.dumps([versions(), sorted(used.constants.items())], sort_keys=True).encode())
    for tree in trees:
        digest.update(ast.dump(_what_it_does(tree)).encode())
    return digest.hexdigest()


class Used:
    """What a measurement uses: sources of functions and classes of benchmarks, their constants, and photopic modules."""

    def __init__(self) -> None:
        self.sources: dict[str, str] = {}
        self.constants: dict[str, str] = {}
        self.modules: list[str] = []

    def add(self, item: Any) -> None:
        """A module's name, or a function or class with all it uses."""
        if isinstance(item, str):
            self.modules.append(item)
            return
        name = f"{item.__module__}.{item.__qualname__}"
        if name in self.sources:
            return
        self.sources[name] = source = textwrap.dedent(inspect.getsource(item))
        for word, found in _globals_in(ast.parse(source), vars(sys.modules[item.__module__])):
            self._keep(f"{item.__module__}.{word}", found)

    def _keep(self, name: str, found: Any) -> None:
        """What a name stands for: code, numbers and words, or a collection of these."""
        module = getattr(found, "__module__", None) or ""
        if MACHINERY.match(module):
            return
        if module.startswith("benchmarks.") and hasattr(found, "__qualname__"):
            self.add(found)
        elif isinstance(found, int | float | str) or (is_dataclass(found) and not isinstance(found, type)):
            self.constants[name] = repr(found)
        elif module.startswith("photopic."):
            self.modules.append(module)
        elif isinstance(found, Mapping | tuple | list):
            for key, each in found.items() if isinstance(found, Mapping) else enumerate(found):
                self._keep(f"{name}.{key}", each)


def _globals_in(tree: ast.AST, known: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names in code that a module defines or imports, and attributes of modules among them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in known:
            yield node.id, known[node.id]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = known.get(node.value.id)
            if isinstance(owner, ModuleType) and owner.__name__.startswith(("benchmarks.", "photopic.")):
                yield f"{node.value.id}.{node.attr}", getattr(owner, node.attr)


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
