"""Vectors that learn, added where a word stands in what a transformer is told; its text encoders run once and never learn.

Pipelines move, repeat, cut and pad what text encoders put out, and compute nothing with it. Where each number goes is found by
following it (``text_positions.traced``), so that a residual reaches the transformer as its edit will, and gradients come back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from photopic.core.edits.runtime_tokens import input_embedding
from photopic.core.errors import DataError
from photopic.learning.parameters.text_encoder_copy import word_ids
from photopic.models.text_to_image.transformer_conditioning import TransformerConditioning
from photopic.models.text_to_image.transformer_handle import TransformerTextToImage

# for one argument of the transformer: text encoder, flat positions in it, and which flat entry of the vectors each gets
Places = list[tuple[str, Int[Tensor, " n"], Int[Tensor, " n"]]]


class ToldResidual:
    """One vector for each token of a word, zero at first (the token residual of Cones 2, arXiv:2305.19327).

    Args:
        model: Whose text encoders read the word.
        word: As it stands in prompts.
        prompts: That the word stands in.

    Attributes:
        values: Text encoder to its vectors (tokens, dim), float32, require gradients, in units of ``scales``; encoders that add
            nothing to what the transformer is told of these prompts are left out.
        scales: Text encoder to the root mean square of what it says at the word.
        asked: Every text encoder that the pipeline asks.

    Raises:
        DataError: Names a prompt of whose words no text encoder's reach the transformer.

    Example:
        >>> residual = ToldResidual(model, "bear", ["a bear", "a red bear"])  # doctest: +SKIP
        >>> len(residual.encoded([1, 0, 1]))  # doctest: +SKIP
        3
    """

    def __init__(self, model: TransformerTextToImage, word: str, prompts: Sequence[str]):
        ids = word_ids(model, word)
        encoders: dict[str, Any] = {name: model.components[name] for name in ids}
        widths = {name: input_embedding(encoder).embedding_dim for name, encoder in encoders.items()}
        self._rows: list[Mapping[str, Any]] = []
        self._places: list[dict[str, Places]] = []
        self.asked: set[str] = set()
        squares: dict[str, list[Tensor]] = {}
        for prompt in prompts:
            row, found = model.encode_prompts(prompt).rows[0], dict[str, Places]()
            for encoder in ids:
                if (seen := model.traced(prompt, encoder)) is None:
                    continue
                self.asked.add(encoder)
                number = _numbers(seen.ids, ids[encoder])  # of the word's tokens, -1 elsewhere
                for argument, tokens in seen.tokens.items():
                    which = torch.where(tokens >= 0, number[tokens], -1)  # of the argument's shape
                    at = (which >= 0).flatten().nonzero().flatten()
                    if len(at):
                        source = (which * widths[encoder] + seen.channels[argument]).flatten()[at]
                        found.setdefault(argument, []).append((encoder, at, source))
                        squares.setdefault(encoder, []).append(_one(row[argument]).flatten()[at].float().square())
            if not found:
                raise DataError(
                    f"caption {prompt!r}: expected {word!r} as a word of its own where {model.name} reads it, found none; "
                    "change the caption"
                )
            self._rows.append(row)
            self._places.append(found)
        self.scales = {name: float(torch.cat(each).mean().sqrt()) for name, each in sorted(squares.items())}
        self.values = {
            name: torch.zeros(len(ids[name]), widths[name], device=model.device).requires_grad_()
            for name in self.scales
        }

    def encoded(self, index: Sequence[int]) -> TransformerConditioning:
        """What the transformer is told of some of the prompts, by number; differentiable in ``values``."""
        return TransformerConditioning(tuple(map(self._row, index)), ("",) * len(index))

    def residuals(self) -> dict[str, Float[Tensor, "tokens dim"]]:
        """Text encoder to what is added to its output."""
        return {name: (self.scales[name] * each).detach().cpu() for name, each in self.values.items()}

    def _row(self, number: int) -> dict[str, Any]:
        row = dict(self._rows[number])
        for argument, places in self._places[number].items():
            first = _one(row[argument])
            added = torch.zeros(first.numel(), device=first.device)
            for encoder, at, source in places:
                vectors = self.scales[encoder] * self.values[encoder].flatten()
                added = added.index_add(0, at.to(first.device), vectors[source.to(vectors.device)].to(first.device))
            changed = first + added.view_as(first).to(first.dtype)
            row[argument] = [changed] if isinstance(row[argument], list) else changed
        return row


def _one(told: Any) -> Tensor:
    """A row's text as one tensor, whether it is in a list."""
    return told[0] if isinstance(told, list) else told


def _numbers(given: Sequence[int], ids: Sequence[int]) -> Int[Tensor, " tokens"]:
    """For each token given to an encoder which one of the word's it is, wherever the whole word stands; else -1."""
    found = torch.full((len(given),), -1)
    for start in range(len(given) - len(ids) + 1):
        if tuple(given[start : start + len(ids)]) == tuple(ids):
            found[start : start + len(ids)] = torch.arange(len(ids))
    return found
