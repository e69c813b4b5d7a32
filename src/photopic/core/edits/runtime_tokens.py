"""New tokens at run time: a copy of the tokenizer that knows them, and an embedding that answers for them.

The embedding's weight is left alone, so that a token costs one row and not a second vocabulary: only the module's ``forward`` is
replaced, by one that looks up ids beyond the vocabulary in the added rows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AddedToken, PreTrainedTokenizerBase

from photopic.core.errors import EditError


def check_new_token(tokenizer: PreTrainedTokenizerBase, token: str) -> None:
    """Refuse a token that the tokenizer already has.

    Args:
        tokenizer: Of the model.
        token: The new word.

    Raises:
        EditError: If the token, or the same letters as a whole word, is in the vocabulary.

    Example:
        >>> check_new_token(tokenizer, "<mine>")  # doctest: +SKIP
    """
    vocabulary = tokenizer.get_vocab()
    for known in (token, token.lower(), f"{token.lower()}</w>"):
        if known in vocabulary:
            raise EditError(
                f"token {token!r} is already in the vocabulary as {known!r}; choose another, such as '<{token}>'"
            )


class AddedTokens:
    """Tokens added to one text encoder and its tokenizer, until `undo`.

    Args:
        encoder: A text encoder with ``get_input_embeddings``.
        tokenizer: Its tokenizer; it is copied, not changed.
        tokens: Each new token with its embedding row, shape (dim,).
    """

    def __init__(self, encoder: nn.Module, tokenizer: PreTrainedTokenizerBase, tokens: Sequence[tuple[str, Tensor]]):
        self.tokenizer = copy.deepcopy(tokenizer)
        self._embedding = input_embedding(encoder)
        self._previous = self._embedding.__dict__.get("forward")
        added = [AddedToken(token, normalized=False, special=False) for token, _ in tokens]
        self.tokenizer.add_tokens(added)
        ids = torch.tensor([self.tokenizer.convert_tokens_to_ids(token) for token, _ in tokens])
        rows = torch.stack([row for _, row in tokens]).to(self._embedding.weight.dtype)
        self._embedding.forward = partial(_look_up, self._embedding.forward, ids, rows)  # type: ignore[method-assign]

    def undo(self) -> None:
        """Let the embedding be as it was."""
        if self._previous is None:
            del self._embedding.forward
        else:
            self._embedding.forward = self._previous  # type: ignore[method-assign]


def input_embedding(encoder: nn.Module) -> nn.Embedding:
    """The input embedding of a text encoder.

    Raises:
        EditError: If it has none.
    """
    getter = getattr(encoder, "get_input_embeddings", None)
    embedding = getter() if getter else None
    if not isinstance(embedding, nn.Embedding):
        raise EditError(f"{type(encoder).__name__}: expected a text encoder with an input embedding, found none")
    return embedding


def _look_up(original: Callable[..., Any], ids: Tensor, rows: Tensor, input_ids: Tensor) -> Tensor:
    match = input_ids.unsqueeze(-1) == ids.to(input_ids.device)  # (batch, tokens) -> (batch, tokens, added)
    added = match.any(-1)
    found = original(input_ids.masked_fill(added, 0))  # (batch, tokens, dim)
    chosen = rows.to(found)[match.int().argmax(-1)]
    return torch.where(added.unsqueeze(-1), chosen, found)
