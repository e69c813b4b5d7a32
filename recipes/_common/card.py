"""How the cards of the models say what was trained and what was measured."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from photopic.core.provenance import machine, versions
from photopic.core.runs import Run, read_log, write_atomically
from photopic.metrics.intervals import wilson

from _common.training import trained


def share(hits: Tensor) -> list[float]:
    """A proportion with its Wilson interval and its number of pictures."""
    interval = wilson(int(hits.sum()), len(hits))
    return [round(value, 4) for value in interval] + [len(hits)]


def hits_of(scores: Tensor, names: Sequence[str], asked: Sequence[str]) -> Tensor:
    """Whether each of the five best of ``names`` is the one asked for, (n, 5), from scores (n, names)."""
    number = {name: i for i, name in enumerate(names)}
    right = torch.tensor([number[name] for name in asked])
    return scores.topk(5).indices == right[:, None]


def top_shares(title: str, hits: Tensor) -> dict[str, list[float]]:
    """How often the best and any of the five best is right."""
    return {f"{title}.top1": share(hits[:, 0]), f"{title}.top5": share(hits.any(1))}


def trained_facts(run: Run, steps: int) -> dict[str, Any]:
    """The state of a run that came to its end, and the last line of its log.

    Raises:
        SystemExit: If it did not.
    """
    _, state = trained(run, "model.")
    if state["step"] != steps:
        raise SystemExit(f"{run.folder}: expected {steps} steps, found {state['step']}; train to the end first")
    return {"state": state, "last_line": read_log(run.folder)[-1]}


def file_facts(folder: Path) -> dict[str, Any]:
    """Hash of a model's weights, and the bytes of all its files."""
    content = (folder / "model.safetensors").read_bytes()
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": sum(each.stat().st_size for each in folder.iterdir()),
    }


def table(models: Mapping[str, Any], columns: Mapping[str, str]) -> str:
    """A table of the docs: a row a model, its weights, and shares in per cent; ``columns`` are headings by measure."""
    lines = [f"| model | weights | {' | '.join(columns.values())} |", "|---" * (2 + len(columns)) + "|"]
    for name, each in sorted(models.items()):
        shares = [[100 * value for value in each["reached"][column][:3]] for column in columns]
        cells = [f"{value:.1f} ({low:.1f} to {high:.1f})" for value, low, high in shares]
        lines.append(f"| `{name}` | {each['parameters']:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_card(path: Path, card: Mapping[str, Any]) -> None:
    """Write a card, with the machine and the versions."""
    write_json(path, {**card, "machine": machine(), "versions": versions()}, ensure_ascii=False)


def write_json(path: Path, content: Any, *, indent: int = 1, ensure_ascii: bool = True) -> None:
    """Write JSON with sorted keys, whole or not at all."""
    text = json.dumps(content, indent=indent, sort_keys=True, ensure_ascii=ensure_ascii)
    write_atomically(path, (text + "\n").encode())
