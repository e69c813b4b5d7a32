"""New words whose embedding rows learn: gradients flow through the text encoders, whose own weights are never written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from photopic.core.edits import Edit, TokenEmbedding
from photopic.core.edits.runtime_tokens import input_embedding

if TYPE_CHECKING:
    from photopic.models.text_to_image.handle import TextToImage


class TrainedTokens:
    """Rows of new words, trainable.

    Args:
        model: Whose text encoders read them.
        rows: The words and their first rows.

    Attributes:
        values: ``<component>/<token>`` to its row, float32, requires gradients.

    Example:
        >>> tokens = TrainedTokens(model, [new_rows(model, "<one>", "bear", start="noun")])  # doctest: +SKIP
        >>> with tokens.applied():  # doctest: +SKIP
        ...     model.encode_prompts(["a <one> bear"]).hidden.requires_grad
        True
    """

    def __init__(self, model: TextToImage, rows: Sequence[TokenEmbedding]):
        self._model, self._first = model, tuple(rows)
        self.values = {
            f"{component}/{each.token}": row.to(model.device).float().clone().requires_grad_()
            for each in rows
            for component, row in each.rows.items()
        }

    @contextmanager
    def applied(self) -> Iterator[None]:
        """A block in which the tokenizers know the words and the encoders read the rows as they are now."""
        model = self._model
        with ExitStack() as stack:
            # the words come as an edit does; the hook puts the rows that learn in the place of the edit's
            stack.enter_context(model.edits.applied(Edit(self._first, model.fingerprint())))
            for component, tokenizer in model.tokenizers.items():
                ids = {tokenizer.convert_tokens_to_ids(each.token): f"{component}/{each.token}" for each in self._first}
                rows = {number: self.values[name] for number, name in ids.items() if name in self.values}
                embedding = input_embedding(model.components[component])
                stack.callback(embedding.register_forward_hook(_answer(rows)).remove)
            yield

    def parts(self) -> tuple[TokenEmbedding, ...]:
        """The words with their rows as they are now, in half precision."""
        return tuple(
            TokenEmbedding(
                each.token, {name: self.values[f"{name}/{each.token}"].detach().half() for name in each.rows}
            )
            for each in self._first
        )


def _answer(rows: dict[int, Tensor]) -> Any:
    def hook(module: Any, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        for number, row in rows.items():
            output = torch.where(
                (arguments[0] == number)[..., None], row.to(output.dtype), output
            )  # (batch, tokens, dim)
        return output

    return hook
