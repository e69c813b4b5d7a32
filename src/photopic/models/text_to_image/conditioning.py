"""What a UNet is told about the prompt: hidden states and, for SDXL-shaped models, pooled text and sizes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from photopic.core.errors import ModelError
from photopic.models.text_to_image.words import spans_of


class TruncatedPromptWarning(UserWarning):
    """A prompt is longer than the text encoder reads; its end was dropped."""


@dataclass(frozen=True)
class Conditioning:
    """Encoded prompts, one row each; index it like a tensor to select or repeat rows.

    Attributes:
        hidden: Hidden state of every token; two encoders are concatenated along ``dim``.
        pooled: One vector per prompt (SDXL-shaped models), else None.
        time_ids: Original size, crop and target size in pixels (SDXL-shaped models), else None.

    Example:
        >>> import torch
        >>> Conditioning(torch.zeros(2, 7, 8))[[0, 0, 1]].hidden.shape
        torch.Size([3, 7, 8])
    """

    hidden: Float[Tensor, "batch tokens dim"]
    pooled: Float[Tensor, "batch pooled_dim"] | None = None
    time_ids: Float[Tensor, "batch ids"] | None = None

    def __len__(self) -> int:
        return self.hidden.shape[0]

    def __getitem__(self, rows: slice | Sequence[int] | Tensor) -> Conditioning:
        pooled = None if self.pooled is None else self.pooled[rows]
        time_ids = None if self.time_ids is None else self.time_ids[rows]
        return Conditioning(self.hidden[rows], pooled, time_ids)

    def joined(self, other: Conditioning) -> Conditioning:
        """These rows and then those of another."""
        present = [each.name for each in fields(self) if getattr(self, each.name) is not None]
        return replace(self, **{name: torch.cat([getattr(self, name), getattr(other, name)]) for name in present})

    def unet_kwargs(self) -> dict[str, Any]:
        """Keyword arguments for ``UNet2DConditionModel.forward``."""
        if self.pooled is None:
            return {"encoder_hidden_states": self.hidden}
        added = {"text_embeds": self.pooled, "time_ids": self.time_ids}
        return {"encoder_hidden_states": self.hidden, "added_cond_kwargs": added}


def warn_if_truncated(prompts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> None:
    """Warn with ``TruncatedPromptWarning`` about every prompt that is too long, naming what is dropped."""
    limit = tokenizer.model_max_length
    for prompt in dict.fromkeys(prompts):
        ids = tokenizer(prompt, truncation=False, verbose=False).input_ids
        if len(ids) > limit:
            dropped = tokenizer.decode(ids[limit - 1 : -1])
            warnings.warn(
                f"prompt {prompt!r} has {len(ids)} tokens, the text encoder reads {limit}: {dropped!r} is dropped",
                TruncatedPromptWarning,
                stacklevel=3,
            )


def token_positions(prompt: str, word: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Positions of a word's tokens in the tokenised prompt, all occurrences, counted from the start token at 0.

    Args:
        prompt: The whole prompt.
        word: A word, several words or a token such as ``<mine>``, as in ``spans_of``.
        tokenizer: The tokenizer that will encode the prompt.

    Raises:
        ModelError: If the word is not in the prompt as a whole word, or lies beyond the tokenizer's length.
    """
    spans = spans_of(prompt, word)
    if not spans:
        raise ModelError(f"{word!r} is not a word of the prompt {prompt!r}; name a word as it is written there")
    offsets = tokenizer(prompt, truncation=True, max_length=tokenizer.model_max_length, return_offsets_mapping=True)[
        "offset_mapping"
    ]
    positions = [
        index
        for index, (begin, end) in enumerate(offsets)
        if begin < end and any(begin < last and first < end for first, last in spans)  # special tokens span nothing
    ]
    if not positions:
        raise ModelError(
            f"{word!r} lies beyond the {tokenizer.model_max_length} tokens the text encoder reads of {prompt!r}; "
            "shorten the prompt"
        )
    return positions
