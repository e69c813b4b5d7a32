"""Several edits at once: what is said before drawing, what becomes of entries that several set, and words that must be said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from photopic.core.edits import Edit, SparseWeights, TokenResidual, ZeroedWeights
from photopic.core.errors import PhotopicError
from photopic.edit.applying import check_words, in_force, notes
from photopic.models.text_to_image.handle import TextToImage
from tests.tiny import tiny_pipeline

NAME = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"  # 32 x 32


@pytest.fixture(scope="module")
def handle() -> TextToImage:
    return TextToImage(tiny_pipeline(), "tiny")


def edit_of(handle: TextToImage, positions: Any, value: float | None = None) -> Edit:
    at = torch.as_tensor(positions)
    part: Any = (
        ZeroedWeights({NAME: at}) if value is None else SparseWeights({NAME: at}, {NAME: torch.full((len(at),), value)})
    )
    return Edit((part,), handle.edits.fingerprint(NAME))


def residual(handle: TextToImage, words: str) -> Edit:
    ids = tuple(handle.tokenizers["text_encoder"](words, add_special_tokens=False).input_ids)
    part = TokenResidual(words, {"text_encoder": ids}, {"text_encoder": torch.ones(len(ids), 32)})
    return Edit((part,), handle.edits.fingerprint())


def test_sharing_more_than_chance_is_said_and_chance_is_not(handle: TextToImage) -> None:
    first = edit_of(handle, range(100))
    near, far = edit_of(handle, range(50, 150)), edit_of(handle, range(0, 1000, 10))
    assert notes([first, near], ["a", "b"]) == ["a and b share 50 entries, 5.1 x chance; their things may mix"]
    assert notes([first, far], ["a", "c"]) == []
    assert len(notes([first, near, far], ["a", "b", "c"])) == 1


def test_entries_set_twice_are_said_with_their_signs(handle: TextToImage) -> None:
    up, down = edit_of(handle, range(8), 10.0), edit_of(handle, range(4, 12), -10.0)
    assert notes([up, down], ["a", "b"], handle.components) == [
        "a and b both set 4 entries, 100% with opposite signs; --overlap says what they become"
    ]
    assert "opposite" not in notes([up, edit_of(handle, range(4, 12), 9.0)], ["a", "b"], handle.components)[0]


def test_two_residuals_of_one_word_are_said(handle: TextToImage) -> None:
    found = notes([residual(handle, "bear"), residual(handle, "bear")], ["a", "b"])
    assert found == ["a and b both change the word bear, and their changes add up; learn one again with --token"]
    assert notes([residual(handle, "bear"), residual(handle, "cat")], ["a", "b"]) == []


def test_a_clash_is_refused_by_default_and_composed_on_demand(handle: TextToImage) -> None:
    paths, edits = (
        [Path("a.edit"), Path("b.edit")],
        [edit_of(handle, range(8), 1.0), edit_of(handle, range(4, 12), 3.0)],
    )
    before = handle.digest()
    with (
        pytest.raises(PhotopicError, match="add --overlap"),
        in_force(handle, paths, edits, [1.0, 1.0], force=False, overlap="error"),
    ):
        pass
    assert handle.edits.names() == () and handle.digest() == before
    entries = handle.unet.get_parameter(NAME.removeprefix("unet.")).view(-1)
    base = entries[4:6].tolist()
    with in_force(handle, paths, edits, [1.0, 1.0], force=False, overlap="first"):
        assert entries[4:6].tolist() == [1.0, 1.0] and entries[8:10].tolist() == [3.0, 3.0]
    with in_force(handle, paths, edits, [1.0, 1.0], force=False, overlap="sum"):
        assert entries[4].item() == pytest.approx(4 - base[0], abs=1e-5)
    assert handle.digest() == before
    with (
        pytest.raises(PhotopicError, match="--force"),
        in_force(handle, paths, edits, [1.0, 1.0], force=True, overlap="sum"),
    ):
        pass


def test_edits_that_get_on_are_put_in_force(handle: TextToImage) -> None:
    paths, edits = [Path("a.edit"), Path("b.edit")], [edit_of(handle, range(8)), edit_of(handle, range(500, 600))]
    with in_force(handle, paths, edits, [1.0, 0.5], force=False, overlap="error"):
        assert handle.edits.names() == ("a.edit", "b.edit")
    assert notes(edits, ["a.edit", "b.edit"]) == [] and handle.edits.names() == ()


def test_a_word_with_another_meaning_must_be_said(handle: TextToImage) -> None:
    edits = [residual(handle, "red bear")]
    check_words("a Red bear on a house", [Path("x.edit")], edits)
    with pytest.raises(PhotopicError, match="expected its word red bear in the prompt, found 'two red bears'"):
        check_words("two red bears", [Path("x.edit")], edits)
