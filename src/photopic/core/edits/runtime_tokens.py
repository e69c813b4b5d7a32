"""New tokens at run time: words that the live tokenizer knows, and an embedding that answers for them.

The embedding's weight is left alone, so that a token costs one row and not a second vocabulary: only the module's ``forward`` is
replaced, by one that looks up ids beyond the vocabulary in the added rows.
"""

from __future__ import annotations

import json
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
    """Tokens added to one text encoder and its tokenizer. Both stay the same objects: others may add words in between.

    Args:
        encoder: A text encoder with ``get_input_embeddings``.
        tokenizer: Its tokenizer.
    """

    def __init__(self, encoder: nn.Module, tokenizer: PreTrainedTokenizerBase):
        self._encoder, self._tokenizer = encoder, tokenizer
        self._words: list[str] = []
        self._ids, self._rows = torch.zeros(0, dtype=torch.int64), torch.zeros(0)
        self._embeddings: list[nn.Embedding] = []
        self._previous: list[Callable[..., Any] | None] = []

    def set(self, tokens: Sequence[tuple[str, Tensor]]) -> None:
        """Make these the added tokens, each with its embedding row, shape (dim,); those that stay keep their ids."""
        self._follow([])
        wanted = [token for token, _ in tokens]
        leaving = [word for word in self._words if word not in wanted]
        known = self._words
        self._words = [*known, *(token for token in wanted if token not in known)]  # an interrupt finds them all
        if leaving:
            remove_words(self._tokenizer, leaving)
        if not tokens:
            self._tokenizer.__dict__.pop("save_pretrained", None)
            self._encoder._forward_pre_hooks.pop(_KEY, None)
            self._words = []
            return
        self._tokenizer.add_tokens([_added_token(token) for token in wanted if token not in known])
        self._ids = torch.tensor([self._tokenizer.convert_tokens_to_ids(token) for token in wanted])
        self._rows = torch.stack([row for _, row in tokens])
        self._words = wanted
        self._tokenizer.save_pretrained = partial(_refuse_saving, wanted)
        # whoever resizes the vocabulary replaces the embedding: it is followed at every call of the encoder
        self._encoder._forward_pre_hooks[_KEY] = self._at_call
        self._follow(input_embeddings(self._encoder))

    def _at_call(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if input_embedding(module) is not self._embeddings[0]:
            self._follow(input_embeddings(module))

    def _follow(self, embeddings: list[nn.Embedding]) -> None:
        """Let other embeddings answer for the tokens, and those before be as they were."""
        for embedding, previous in zip(self._embeddings, self._previous, strict=True):
            if previous is None:
                embedding.__dict__.pop("forward", None)
            else:
                embedding.forward = previous  # type: ignore[method-assign]
        self._previous = [embedding.__dict__.get("forward") for embedding in embeddings]
        self._embeddings = embeddings
        for embedding in embeddings:
            rows = self._rows.to(embedding.weight.dtype)
            embedding.forward = partial(_look_up, embedding.forward, self._ids, rows)  # type: ignore[method-assign]


_KEY = -1_000_003  # of the hook among those of torch, which count up from 0
_GONE = "<|\ue000photopic\ue000{}|>"  # stands for a word that left before others that were added after it


def remove_words(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> None:
    """Take added words away from a live tokenizer; all others keep their ids, also those that were added later.

    Raises:
        EditError: If the tokenizer is neither of the ``tokenizers`` library nor written in Python, as that of bytes is.
    """
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        _forget_words(tokenizer, words)
        return
    state = json.loads(backend.to_str())
    for entry in state["added_tokens"]:
        if entry["content"] in words:
            entry["content"] = _GONE.format(entry["id"])
    while state["added_tokens"] and state["added_tokens"][-1]["content"].startswith(_GONE.partition("{")[0]):
        state["added_tokens"].pop()  # the ids after the last word that is left are free again
    backend.__setstate__(json.dumps(state).encode())


def _forget_words(tokenizer: Any, words: Sequence[str]) -> None:
    """The same of a tokenizer written in Python."""
    if not hasattr(tokenizer, "tokens_trie"):
        raise EditError(f"{type(tokenizer).__name__}: expected a tokenizer whose words can be taken away again")
    known, gone = tokenizer._added_tokens_decoder, _GONE.partition("{")[0]
    for word in words:
        known[tokenizer._added_tokens_encoder.pop(word)] = _added_token(_GONE.format(word))
    while known and known[max(known)].content.startswith(gone):
        del known[max(known)]  # the ids after the last word that is left are free again
    tokenizer._added_tokens_encoder.clear()
    tokenizer._added_tokens_encoder.update({token.content: index for index, token in known.items()})
    tokenizer.tokens_trie = type(tokenizer.tokens_trie)()  # what splits texts at added words
    tokenizer._update_trie()
    tokenizer._update_total_vocab_size()


def _added_token(token: str) -> AddedToken:
    """A word is only read as a whole: 'sks' not in 'desks'; brackets tell where '<mine>' ends by themselves."""
    is_bare = token[0].isalnum() or token[-1].isalnum()
    return AddedToken(token, normalized=False, special=False, single_word=is_bare)


def _refuse_saving(words: Sequence[str], *_: Any, **__: Any) -> None:
    raise EditError(
        f"tokenizer: knows {' '.join(words)} of edits in force, whose rows no text encoder saves; unload them first"
    )


def input_embeddings(encoder: nn.Module) -> list[nn.Embedding]:
    """The input embedding of a text encoder, and other layers that share its weight: T5 looks words up in another than it names.

    Raises:
        EditError: If it has none.
    """
    first = input_embedding(encoder)
    tied = [part for part in encoder.modules() if isinstance(part, nn.Embedding) and part.weight is first.weight]
    return [first, *(part for part in tied if part is not first)]


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
