"""Write the generated parts of the docs: option tables, rows of the ledger, and the index of the API. ``make docs`` runs it.

A page holds ``<!-- options: tune mask -->`` or ``<!-- claims: mask_tuning. -->``, what is generated, and ``<!-- end -->``.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
MARKED = re.compile(r"<!-- (options|claims|families): (.+?) -->\n.*?<!-- end -->", re.DOTALL)


def generated(text: str) -> str:
    """A page with its generated parts written anew."""
    manifest = json.loads((SOURCE / "photopic/methods.json").read_text())

    def part(found: re.Match[str]) -> str:
        kind, what = found.groups()
        if kind == "families":
            sys.path[:0] = [str(SOURCE), str(ROOT / "docs")]
            import families  # reads the library itself

            lines = families.TABLES[what]()
        else:
            lines = option_table(manifest[what]) if kind == "options" else claim_table(what.split())
        return "\n".join([f"<!-- {kind}: {what} -->", *lines, "<!-- end -->"])

    return MARKED.sub(part, text)


def option_table(entry: Mapping[str, Any]) -> Iterator[str]:
    """One row an option: words, default, range, what it does; those of a control are keys of ``--control name:key=value``."""
    is_control = entry["result"] == "Control"
    yield "| option | default | range | what it does |"
    yield "|---|---|---|---|"
    for parameter in entry["parameters"]:
        options = list(parameter.get("options", ()))
        if parameter["role"] == "option":
            options = [parameter]
        for option in options:
            default = "" if option["default"] is None else f"`{spoken(option['default'])}`"
            words = f"`{option['name'] if is_control else option['flags'][0]}`" if option["flags"] else ""
            yield f"| {words} | {default} | {reach(option)} | {option['help'].replace('|', '/')} |"


def spoken(value: Any) -> str:
    """A default as one types it."""
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def reach(option: Mapping[str, Any]) -> str:
    """The range of an option in words."""
    if "choices" in option:
        return ", ".join(f"`{word}`" for word in option["choices"])
    signs = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
    return ", ".join(f"{sign} {option[key]}" for key, sign in signs if key in option)


def claim_table(prefixes: Sequence[str]) -> Iterator[str]:
    """One row a claim whose id begins with a prefix, from the stored results."""
    yield "| claim | value | 95 % interval | target | baseline | control | n |"
    yield "|---|---|---|---|---|---|---|"
    for path in sorted((ROOT / "benchmarks/results").glob("*.json")):
        for row in json.loads(path.read_text())["rows"]:
            if row["claim"].startswith(tuple(prefixes)):
                interval = "" if row["low"] is None else f"{number(row['low'])} to {number(row['high'])}"
                cells = [f"`{row['claim']}`", f"{number(row['value'])} {row['unit'] or ''}".strip(), interval]
                cells += [
                    str(row["target"] or ""),
                    number(row["baseline"]),
                    number(row["control"]),
                    str(row["n"] or ""),
                ]
                yield f"| {' | '.join(cells)} |"


def number(value: Any) -> str:
    """A number with three digits that count; nothing for none."""
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def api_index() -> str:
    """Every public function and class with the first sentence of its docstring, module by module."""
    lines = [
        "# Index of the API",
        "",
        "Generated from the docstrings by `make docs`; `help(name)` shows the whole.",
        "",
    ]
    room = ""
    for path in sorted(SOURCE.glob("photopic/**/*.py")):
        module = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        if any(part.startswith("_") for part in module.split(".")) or ".cli" in module:
            continue
        names = [f"`{name}`: {said}" for name, said in public(ast.parse(path.read_text(encoding="utf-8")))]
        if names:
            if module.split(".")[1:2] != [room]:
                room = (module.split(".")[1:2] or [""])[0]
                lines += [f"## photopic.{room}", ""]
            lines += [f"- **{module}**: " + " ".join(names)]
    return "\n".join(lines) + "\n"


def public(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Names and first sentences of what a module defines for others."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            said = " ".join((ast.get_docstring(node) or "").split())
            yield node.name, re.split(r"(?<=[.:])\s", said, maxsplit=1)[0]


def main() -> int:
    """Write all pages, or with ``--check`` only say which are stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; leave with status 1 if a page is stale")
    check = parser.parse_args().check
    wanted = {path: generated(path.read_text(encoding="utf-8")) for path in sorted(ROOT.glob("docs/**/*.md"))}
    wanted[ROOT / "docs/api.md"] = api_index()
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        print(f"{path.relative_to(ROOT)}: {'is stale; run make docs' if check else 'written'}")
        if not check:
            path.write_text(wanted[path], encoding="utf-8")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
