"""Copies of a model's text encoders that learn, where a word stands in what they say, and residuals for it as parts of an edit.

The copies are float32 tensors used functionally: the encoders themselves are never written. Positions come from the tokenizers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from photopic.core.edits import TokenEmbedding, TokenResidual
from photopic.core.errors import DataError
from photopic.models.text_to_image.text_positions import tokenized

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from photopic.models.text_to_image.handle import Conditioning, TextToImage


class TunedText(nn.Module):
    """The text encoders of a model with weights of their own.

    Args:
        model: Its encoders give the first weights and run with these; they are as before after every call.

    Attributes:
        weights: ``<component>.<parameter name>`` to a trainable float32 copy.

    Example:
        >>> tuned = TunedText(model)                        # doctest: +SKIP
        >>> tuned.encode(["a bear"]).hidden.requires_grad   # doctest: +SKIP
        True
    """

    def __init__(self, model: TextToImage):
        super().__init__()
        model.check_unet("text encoders are tuned for UNet pipelines alone")
        for component in model.tokenizers:
            self.add_module(component, model.components[component])
        self._model = [model]  # in a list: a handle is no submodule
        self.weights = {
            name: parameter.detach().float().clone().requires_grad_() for name, parameter in self.named_parameters()
        }

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """What the copies make of prompts; differentiable in ``weights``."""
        return torch.func.functional_call(self, self.weights, (list(prompts),))

    def forward(self, prompts: list[str]) -> Conditioning:
        return self._model[0].encode_prompts(prompts)


def word_ids(model: TextToImage, word: str) -> dict[str, tuple[int, ...]]:
    """Text encoder to the token ids of a word, or of several words, in its tokenizer, as they are behind another word."""
    before = "a "  # many vocabularies have other tokens for the same letters with and without a space before them
    found: dict[str, tuple[int, ...]] = {}
    for component, tokenizer in model.tokenizers.items():
        ids, offsets = tokenized(tokenizer, before + word)
        found[component] = tuple(each for each, (_, end) in zip(ids, offsets, strict=True) if end > len(before))
    return found


def starts_of(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], ids: Sequence[int]
) -> Bool[Tensor, "prompts tokens"]:
    """Where a run of token ids begins in each prompt, as the encoder reads it."""
    read = tokenizer(
        list(prompts), padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    ).input_ids  # (prompts, tokens)
    starts = torch.zeros(read.shape, dtype=torch.bool)
    runs = read.unfold(1, len(ids), 1) == torch.tensor(list(ids))  # (prompts, tokens - ids + 1, ids)
    starts[:, : runs.shape[1]] = runs.all(-1)
    return starts


def rows_of(starts: Bool[Tensor, "prompts tokens"], count: int) -> Bool[Tensor, "prompts tokens"]:
    """All ``count`` positions of every run that begins at ``starts``.

    Example:
        >>> rows_of(torch.tensor([[False, True, False, False]]), 2)
        tensor([[False,  True,  True, False]])
    """
    rows = torch.zeros_like(starts)
    for offset in range(count):
        rows[:, offset:] |= starts[:, : starts.shape[1] - offset]
    return rows


def per_encoder(model: TextToImage, hidden: Float[Tensor, "prompts tokens dim"]) -> dict[str, Tensor]:
    """The hidden states of each text encoder, which the UNet reads side by side; shape (prompts, tokens, its dim)."""
    encoders: dict[str, Any] = {component: model.components[component] for component in model.tokenizers}
    widths = [encoder.config.hidden_size for encoder in encoders.values()]
    return dict(zip(encoders, hidden.split(widths, dim=-1), strict=True))


def moved(model: TextToImage, text: TunedText, prompts: Sequence[str]) -> dict[str, Tensor]:
    """By encoder, what the copy says minus what the model says, float32; shape (prompts, tokens, its dim)."""
    with torch.no_grad():
        base = model.encode_prompts(prompts).hidden
    return per_encoder(model, text.encode(prompts).hidden.float() - base.float())


@torch.no_grad()
def mean_moved(
    model: TextToImage, text: TunedText, prompts: Sequence[str], ids: Mapping[str, Sequence[int]], together: int = 32
) -> dict[str, Float[Tensor, "words dim"]]:
    """By encoder, the mean of ``moved`` at each position of a word, over all its occurrences in all prompts.

    Args:
        model: Whose encoders were copied.
        text: The copy.
        prompts: At least one holds the word.
        ids: Text encoder to the token ids of the word.
        together: Prompts encoded at once.
    """
    found: dict[str, list[Tensor]] = {component: [] for component in ids}
    for start in range(0, len(prompts), together):
        chunk = prompts[start : start + together]
        for component, each in moved(model, text, chunk).items():
            count = len(ids[component])
            starts = starts_of(model.tokenizers[component], chunk, ids[component])[:, : each.shape[1] - count + 1]
            runs = each.unfold(1, count, 1)[starts.to(each.device)]  # (occurrences, dim, words)
            found[component].append(runs.mT.cpu())
    return {component: torch.cat(each).mean(0) for component, each in found.items()}


def word_parts(
    model: TextToImage, noun: str, token: str | None, residuals: Mapping[str, Float[Tensor, "words dim"]]
) -> tuple[TokenResidual | TokenEmbedding, ...]:
    """The parts of an edit that adds residuals where a noun stands, or where a new word for it stands.

    The new word has the noun's embedding, so that a prompt means the same with either until a residual is added. A noun of n tokens
    takes n new words, ``<mine> <mine>_1 ...``; pipelines put all of them where ``<mine>`` stands, as with a textual inversion.

    Args:
        model: Whose tokenizers read the noun.
        noun: One word or several.
        token: The new word, or None.
        residuals: Text encoder to one residual a token of the noun; encoders that are left out are given no new word.

    Example:
        >>> word_parts(model, "bear", "<mine>", {"text_encoder": torch.zeros(1, 192)})[1].words  # doctest: +SKIP
        '<mine>'
    """
    ids = {component: each for component, each in word_ids(model, noun).items() if component in residuals}
    halves = {component: each.half() for component, each in residuals.items()}
    if token is None:
        return (TokenResidual(noun, ids, halves),)
    count = max(map(len, ids.values()))
    words = [token, *(f"{token}_{number}" for number in range(1, count))]
    rows: list[dict[str, Tensor]] = [{} for _ in words]
    for component, each in ids.items():
        if len(each) < count:
            raise DataError(f"noun {noun!r}: the text encoders of {model.name} split it differently; use another noun")
        encoder: Any = model.components[component]
        table = encoder.get_input_embeddings().weight.detach()
        for row, place in zip(rows, each, strict=True):
            row[component] = _smallest(table[place])
    tokens = [TokenEmbedding(word, row) for word, row in zip(words, rows, strict=True)]
    first = {component: len(model.tokenizers[component]) for component in ids}
    # one a word: some tokenizers read the spaces between them as tokens of their own
    added = [
        TokenResidual(
            word,
            {component: (start + place,) for component, start in first.items()},
            {component: each[place : place + 1] for component, each in halves.items()},
        )
        for place, word in enumerate(words)
    ]
    return (*tokens, *added)


def _smallest(row: Tensor) -> Tensor:
    """A row as halves where these hold it exactly."""
    row = row.detach().float().cpu()
    return row.half() if torch.equal(row.half().float(), row) else row
