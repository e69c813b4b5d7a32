"""What a transformer is told about prompts: one row each, which may differ in length and be joined all the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SHARED = ("txt_ids", "img_ids", "position_ids")  # of rank 2: places of tokens, the same for all rows


@dataclass(frozen=True, eq=False)
class TransformerConditioning:
    """Encoded prompts of a transformer pipeline; index it like a tensor to select or repeat rows.

    Attributes:
        rows: For each prompt the arguments of a transformer call with one row; lists hold one item.
        half: ``unconditional`` in front where two halves are joined that the pipeline calls apart, a word a row.
    """

    rows: tuple[Mapping[str, Any], ...]
    half: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: slice | Sequence[int] | Tensor) -> TransformerConditioning:
        chosen = torch.arange(len(self))[index.cpu() if isinstance(index, Tensor) else index].tolist()
        halves = tuple(self.half[i] for i in chosen) if self.half else ()
        return TransformerConditioning(tuple(self.rows[i] for i in chosen), halves)

    def joined(self, other: TransformerConditioning) -> TransformerConditioning:
        """These rows and then those of another."""
        return TransformerConditioning(self.rows + other.rows, self.half + other.half)

    def unet_kwargs(self) -> dict[str, Any]:
        """Keyword arguments for ``Denoiser.forward``."""
        return {"conditioning": self}

    def batches(self, *, alone: bool = False) -> Iterator[tuple[list[int], dict[str, Any]]]:
        """Rows that go through the network together, as few calls as their shapes allow: their numbers, and their arguments.

        Args:
            alone: Whether each goes alone.
        """
        groups: dict[Any, list[int]] = {}
        for number, row in enumerate(self.rows):
            half = self.half[number] if self.half else ""
            groups.setdefault((half, number if alone else _shapes(row)), []).append(number)
        for numbers in groups.values():
            yield numbers, _together([self.rows[number] for number in numbers])


def rows_of(arguments: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """The arguments of a call with ``count`` rows as those of as many calls with one."""
    return [{name: _row(name, value, row, count) for name, value in arguments.items()} for row in range(count)]


def _row(name: str, value: Any, row: int, count: int) -> Any:
    if isinstance(value, Tensor) and value.ndim and len(value) == count and not _is_shared(name, value):
        return value[row : row + 1]
    if isinstance(value, list) and len(value) == count:
        return value[row : row + 1]
    return {key: _row(key, each, row, count) for key, each in value.items()} if isinstance(value, dict) else value


def _is_shared(name: str, value: Tensor) -> bool:
    return name in SHARED and value.ndim == 2  # (tokens, 3)


def _shapes(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What must agree for rows to be stacked; items of a list may differ."""
    return tuple((name, _shape(value)) for name, value in sorted(row.items()))


def _shape(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype
    if isinstance(value, dict):
        return _shapes(value)
    return type(value).__name__


def _together(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: _stack(name, [row[name] for row in rows]) for name in rows[0]}


def _stack(name: str, values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        return first if _is_shared(name, first) or not first.ndim else torch.cat(values)  # n of (1, ...) -> (n, ...)
    if isinstance(first, list):
        return [item for value in values for item in value]
    return _together(values) if isinstance(first, dict) else first
