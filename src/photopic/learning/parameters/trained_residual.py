"""Vectors that learn, added to what text encoders say where some words stand; the encoders themselves are never written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from photopic.core.edits import Part
from photopic.core.errors import DataError
from photopic.learning.parameters.text_encoder_copy import starts_of, word_ids, word_parts

if TYPE_CHECKING:
    from photopic.models.text_to_image.handle import TextToImage


class TrainedResidual:
    """One vector for each token of some words, zero at first (the token residual of Cones 2, arXiv:2305.19327).

    Args:
        model: Whose text encoders read the words.
        words: As they stand in prompts.

    Attributes:
        values: Text encoder to its vectors (tokens, dim), float32 or finer, require gradients.

    Raises:
        DataError: If there are no words.

    Example:
        >>> residual = TrainedResidual(model, "bear")  # doctest: +SKIP
        >>> residual.added(["a bear", "a cat"]).shape  # doctest: +SKIP
        torch.Size([2, 77, 192])
    """

    def __init__(self, model: TextToImage, words: str):
        if not words.strip():
            raise DataError(
                "words: expected those whose residual is learnt, such as 'background', found none; name them"
            )
        self._model, self._words, self._ids = model, words, word_ids(model, words)
        encoders: dict[str, Any] = {component: model.components[component] for component in self._ids}
        like: Any = {"device": model.device, "dtype": torch.promote_types(model.dtype, torch.float32)}
        self.values = {
            component: torch.zeros(len(ids), encoders[component].config.hidden_size, **like).requires_grad_()
            for component, ids in self._ids.items()
        }

    def added(self, prompts: Sequence[str]) -> Float[Tensor, "prompts tokens dim"]:
        """What is added to the hidden states of all encoders side by side; differentiable in ``values``.

        Raises:
            DataError: Names a prompt that lacks the words.
        """
        found = []
        for component, ids in self._ids.items():
            starts = starts_of(self._model.tokenizers[component], prompts, ids)  # (prompts, tokens)
            for prompt, are_there in zip(prompts, starts.any(1).tolist(), strict=True):
                if not are_there:
                    raise DataError(f"prompt {prompt!r}: expected the words {self._words!r}, whose residual is learnt")
            rows = self.values[component]
            # a run that begins at t has its row number k at t + k: starts moved on by k, times the row
            moved = [starts.roll(offset, 1).to(rows.device)[..., None] * row for offset, row in enumerate(rows)]
            found.append(torch.stack(moved).sum(0))
        return torch.cat(found, -1)

    def part(self) -> Part:
        """As a part of an edit, in half precision."""
        return word_parts(
            self._model, self._words, None, {name: each.detach().cpu() for name, each in self.values.items()}
        )[0]
