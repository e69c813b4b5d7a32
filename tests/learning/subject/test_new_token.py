"""A new token: its first row, its captions with and without it, and the nouns it may stand before."""

from __future__ import annotations

import pytest
import torch

from photopic.core.errors import DataError
from photopic.learning.subject.new_token import check_noun, new_rows, subject_captions
from photopic.models.text_to_image.handle import TextToImage


def test_a_token_decides_its_row(model: TextToImage) -> None:
    table = model.components["text_encoder"].get_input_embeddings().weight
    first, again, other, near = (
        new_rows(model, token, "bear", start=start).rows["text_encoder"]
        for token, start in (("<a>", "random"), ("<a>", "random"), ("<b>", "random"), ("<a>", "noun"))
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert 0.5 < first.std() / table.std() < 2
    noun = table[model.tokenizers["text_encoder"]("bear", add_special_tokens=False).input_ids[0]]
    assert (near - noun).norm() < (first - noun).norm()


def test_class_captions_lose_the_token_and_mend_the_article() -> None:
    captions = ["a <mine> apple on a red background", "an apple", "a green apple", "two of an <mine> apple"]
    with_token, without = subject_captions(4, "apple", "<mine>", captions)
    assert with_token[1:3] == ["an <mine> apple", "a green <mine> apple"]
    assert without == ["an apple on a red background", "an apple", "a green apple", "two of an apple"]
    assert subject_captions(2, "owl", "<mine>", ["an owl at night", None])[0] == [
        "an <mine> owl at night",
        "a <mine> owl",
    ]
    assert subject_captions(1, "owl", "<mine>", None) == (["a <mine> owl"], ["an owl"])
    assert subject_captions(1, "bear", "<mine>", None) == (["a <mine> bear"], ["a bear"])


def test_nouns_the_tokenizer_does_not_know_are_refused_by_the_word(model: TextToImage) -> None:
    check_noun(model, "bear")
    for noun, found in (("red zyzzyva", "zyzzyva"), (" ", "empty")):
        with pytest.raises(DataError, match=found):
            check_noun(model, noun)
    bundled = TextToImage(model.pipeline, "emoji", knows_emoji=True)
    with pytest.raises(DataError, match="use a commoner noun, such as bear, pear or boar"):
        check_noun(bundled, "beaar")
