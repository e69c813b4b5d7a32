"""A new token for a subject: checks of the noun and the captions, and the first embedding row.

The row is drawn at random with the statistics of the embedding table, or starts from the class noun's row; the text
encoder itself stays as it is.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from photopic.core.edits import TokenEmbedding, check_new_token
from photopic.core.errors import DataError
from photopic.data.scenes import with_article, with_prefix
from photopic.data.splits import KNOWN

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from photopic.models.text_to_image.handle import TextToImage

TokenStart = Literal["random", "noun"]
TOKEN_PLACE = "\x00"


def check_noun(model: TextToImage, noun: str) -> None:
    """Refuse a class noun that the model's tokenizers do not know.

    A word is unknown if it becomes the unknown token or nothing, or falls apart into pieces of fewer than 2.5 letters
    on average. Tokenizers of bytes know every word.

    Raises:
        DataError: If the noun is empty or one of its words is unknown.
    """
    if not noun.strip():
        raise DataError("noun is empty: expected the class of the subject, such as 'bear'")
    for tokenizer in model.tokenizers.values():
        for word in [] if _reads_bytes(tokenizer) else noun.split():
            ids = tokenizer(word, add_special_tokens=False).input_ids
            # CLIP's unknown token is its end token, so a word may also fall apart into letters instead
            unknown = tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids
            shattered = len(ids) > 1 and len(word) < 2.5 * len(ids)
            if not ids or unknown or shattered:
                near = f", such as {nearest_nouns(word)}" if model.knows_emoji else ""
                raise DataError(
                    f"noun {noun!r}: {model.name} does not know the word {word!r}; use a commoner noun{near}"
                )


def _reads_bytes(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether it is one of bytes, written in Python: as many tokens as bytes."""
    return not tokenizer.is_fast and len(_ids(tokenizer, "bär")) == len("bär".encode())


def nearest_nouns(word: str) -> str:
    """Of what the bundled model learnt to draw the three that are spelt most like a word.

    Example:
        >>> nearest_nouns("baer")
        'badger, boar or bear'
    """
    *others, last = get_close_matches(word, sorted(KNOWN), cutoff=0.0)
    return f"{', '.join(others)} or {last}"


def check_token(model: TextToImage, token: str) -> None:
    """Refuse a new word that is no single word, or that a tokenizer of the model has already.

    Raises:
        EditError: Names the word and what is wrong with it.
    """
    for tokenizer in model.tokenizers.values():
        check_new_token(tokenizer, token)


def default_caption(noun: str, token: str = "") -> str:
    """The caption of a picture that has none, with the right article.

    Example:
        >>> default_caption("owl"), default_caption("owl", "<mine>")
        ('an owl', 'a <mine> owl')
    """
    return with_article(f"{token} {noun}".strip())


def subject_captions(
    count: int, noun: str, token: str, captions: Sequence[str | None] | None
) -> tuple[list[str], list[str]]:
    """Captions with the token and without it.

    Args:
        count: Number of pictures.
        noun: The class noun.
        token: The new token.
        captions: One a picture, with ``<token> noun`` or only the noun; None means ``a <token> noun``, for one or
            for all.

    Raises:
        DataError: If a caption holds neither, or their number is wrong.

    Example:
        >>> subject_captions(1, "bear", "<mine>", ["a bear on a red background"])
        (['a <mine> bear on a red background'], ['a bear on a red background'])
    """
    captions = [None] * count if captions is None else captions
    if len(captions) != count:
        raise DataError(f"{len(captions)} captions for {count} images: expected one an image")
    with_token = []
    for caption in [each or default_caption(noun, token) for each in captions]:
        if token not in caption and noun.lower() not in caption.lower():
            raise DataError(
                f"caption {caption!r}: expected the noun {noun!r}, found none; name the subject by its noun"
            )
        with_token.append(caption if token in caption else with_prefix(caption, noun, token))
    return with_token, [_without(caption, token) for caption in with_token]


def new_rows(model: TextToImage, token: str, noun: str, *, start: TokenStart) -> TokenEmbedding:
    """A first embedding row of the token in every text encoder; a pure function of its arguments.

    Args:
        model: Whose embedding tables set the scale.
        token: The new token; two tokens have unrelated rows.
        noun: The class noun; used where ``start`` is ``noun``.
        start: ``random``: normal with the table's mean and deviation per dimension; ``noun``: halfway from there to the
            noun's mean row.
    """
    rows: dict[str, Float[Tensor, " dim"]] = {}
    for component, tokenizer in model.tokenizers.items():
        encoder: Any = model.components[component]
        table = encoder.get_input_embeddings().weight.detach().float().cpu()  # (vocabulary, dim)
        # seeded by the word, so that two subjects learnt apart never start from one row
        digest = hashlib.sha256(repr((token, component)).encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        row = table.mean(0) + table.std(0) * torch.randn(table.shape[1], generator=generator)
        if start == "noun":
            row = (row + table[_ids(tokenizer, noun)].mean(0)) / 2  # (pieces of the noun, dim) -> (dim,)
        rows[component] = row
    return TokenEmbedding(token=token, rows=rows)


def _without(caption: str, token: str) -> str:
    """``a <mine> elephant`` -> ``an elephant``."""
    words = " ".join(caption.replace(token, TOKEN_PLACE).split())
    words = re.sub(rf"\b([Aa])n? {TOKEN_PLACE} (?!uni|one )(?=[aeiouAEIOU])", r"\1n ", words)
    words = re.sub(rf"\b([Aa])n {TOKEN_PLACE} (?=[^aeiouAEIOU])", r"\1 ", words)
    return " ".join(words.replace(TOKEN_PLACE, "").split())


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)
