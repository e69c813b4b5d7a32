"""Tuning together on a tiny real pipeline: only the union moves, from the composed state; taking apart; exact resume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from photopic.core.edits import Edit, LowRankDelta, SparseWeights, TokenEmbedding, ZeroedWeights, compose, take_apart
from photopic.core.edits.file import load, save, to_bytes
from photopic.core.errors import DataError, EditError
from photopic.data.captioned import CaptionedImages
from photopic.learning.subject.new_token import new_rows
from photopic.models.text_to_image.attention_weights import attention_weights, random_positions
from photopic.models.text_to_image.handle import TextToImage
from photopic.tune.subject import joint_tuning as joint
from photopic.tune.subject.joint_tuning import JointTuningConfig, joint_tuning
from tests.tiny import noise_pictures

QUICK = JointTuningConfig(steps=4, batch=2, lr=0.01, evaluation=4)


IMAGES = [CaptionedImages(noise_pictures(2, 0)), CaptionedImages(noise_pictures(3, 1))]
KEPT = [
    CaptionedImages(noise_pictures(2, 2), ["a cat", "a tree"]),
    CaptionedImages(noise_pictures(1, 3), ["a dog on a red background"]),
]


@pytest.fixture(scope="module")
def apart(model: TextToImage) -> list[Edit]:
    """Two located subjects that share some entries."""
    return [located(model, "<one>", "bear", 1), located(model, "<two>", "cat", 2)]


def located(model: TextToImage, token: str, noun: str, seed: int) -> Edit:
    weights = attention_weights(model)
    sizes = {name: torch.arange(weight.numel() // 8) for name, weight in weights.items()}
    shut, row = ZeroedWeights(random_positions(sizes, weights, seed)), new_rows(model, token, noun, start="random")
    base = model.edits.fingerprint(*shut.indices)
    return Edit((shut, row), base, {"method": "concept_neurons", "noun": noun, "token": token})


def last(model: TextToImage, edits: list[Edit], config: JointTuningConfig = QUICK, **options: Any) -> Edit:
    return joint_tuning(model, edits, IMAGES, config=config, **({"preserved": KEPT} | options))


def as_sets(edit: Edit) -> dict[str, set[int]]:
    return {name: set(where.tolist()) for name, where in edit.touched().items() if where is not None}


def values_in(edit: Edit) -> dict[tuple[str, int], float]:
    found = {}
    for part in edit.parts:
        if isinstance(part, SparseWeights):
            for name, at in part.indices.items():
                found |= {(name, int(i)): float(v) for i, v in zip(at, part.values[name], strict=True)}
        elif isinstance(part, ZeroedWeights):
            found |= {(name, int(i)): 0.0 for name, at in part.indices.items() for i in at}
    return found


@pytest.mark.parametrize("bits", [32, 16, 2])
def test_only_the_union_moves_and_the_base_stays(model: TextToImage, apart: list[Edit], bits: Any) -> None:
    before = model.digest()
    both = last(model, apart, replace(QUICK, bits=bits))
    assert model.digest() == before
    sets = [as_sets(edit) for edit in apart]
    assert as_sets(both) == {name: sets[0][name] | sets[1][name] for name in sets[0]}
    assert both.tokens == ("<one>", "<two>") and any(value != 0 for value in values_in(both).values())
    assert both.provenance["parents"] == [dict(edit.provenance) for edit in apart]
    assert len(set(both.provenance["parent_digests"])) == 2 and len(both.provenance["losses"]["after"]) == 2
    with model.edits.applied(both):
        assert model.digest() != before
    assert model.digest() == before


def test_tuning_starts_from_the_composed_state(model: TextToImage, apart: list[Edit]) -> None:
    name, at = next(iter(apart[1].touched().items()))
    assert at is not None
    valued = Edit(
        (SparseWeights({name: at}, {name: torch.full((len(at),), 0.25)}), apart[1].parts[1]),
        apart[1].base,
        apart[1].provenance,
    )
    started = last(model, [apart[0], valued], replace(QUICK, steps=0, bits=32))
    assert values_in(started) == values_in(compose(apart[0], valued, overlap="union"))
    with pytest.raises(EditError, match="both touch"):
        last(model, [apart[0], valued], replace(QUICK, overlap="error"))
    summed = last(model, [apart[0], valued], replace(QUICK, steps=0, bits=32, overlap="sum"))
    expected = compose(apart[0], valued, overlap="sum", base=model.components)
    assert values_in(summed) == pytest.approx(values_in(expected), abs=1e-6)


def test_the_gradient_is_that_of_the_sum_of_the_losses(model: TextToImage, apart: list[Edit]) -> None:
    one, other = (last(model, apart, replace(QUICK, steps=1, bits=32, lr=1e-6)) for _ in range(2))
    assert values_in(one) == values_in(other)
    swapped = last(model, apart[::-1], replace(QUICK, steps=1, bits=32, lr=1e-6), preserved=KEPT[::-1])
    assert values_in(one) != values_in(swapped)  # each set of pictures is learnt with its own word


def test_tuning_lowers_both_losses(model: TextToImage, apart: list[Edit]) -> None:
    start = last(model, apart, replace(QUICK, steps=0, evaluation=12)).provenance["losses"]["after"]
    after = last(model, apart, replace(QUICK, steps=20, batch=4, evaluation=12)).provenance["losses"]["after"]
    for before, now in zip(start, after, strict=True):
        assert now["concept"] + now["prior"] < before["concept"] + before["prior"]


def test_collages_of_the_things_are_learnt_from_too(
    model: TextToImage, apart: list[Edit], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more loss, on pictures whose captions say both words; nothing else of the edit is another."""
    seen: list[tuple[str, ...]] = []
    made = joint.encode_examples

    def encode(found: TextToImage, images: torch.Tensor, captions: list[str], *more: Any) -> Any:
        seen.append(tuple(captions))
        assert all(
            found.token_positions(caption, "<one>") and found.token_positions(caption, "<two>") for caption in captions
        )
        return made(found, images, captions, *more)

    monkeypatch.setattr(joint, "encode_examples", encode)
    plain, both = last(model, apart), last(model, apart, replace(QUICK, beside=2))
    assert len(seen) == 1 and len(seen[0]) == 10  # five pictures, two collages each
    assert values_in(plain).keys() == values_in(both).keys() and values_in(plain) != values_in(both)
    assert len(both.provenance["losses"]["after"]) == 2


# --- taking apart


def test_what_was_only_composed_falls_apart_into_its_parents(
    model: TextToImage, apart: list[Edit], tmp_path: Path
) -> None:
    both = last(model, apart, replace(QUICK, steps=0))
    save(both, tmp_path / "both.edit")
    found = take_apart(load(tmp_path / "both.edit"))
    assert [to_bytes(edit) for edit in found] == [to_bytes(edit) for edit in apart]


@pytest.mark.parametrize("bits", [32, 16, 2])
def test_taking_apart_gives_each_parents_entries_with_the_tuned_values(
    model: TextToImage, apart: list[Edit], tmp_path: Path, bits: Any
) -> None:
    both = last(model, apart, replace(QUICK, bits=bits))
    save(both, tmp_path / "both.edit")
    found = take_apart(load(tmp_path / "both.edit"))
    whole = values_in(both)
    for parent, part in zip(apart, found, strict=True):
        assert as_sets(part) == as_sets(parent) and part.tokens == parent.tokens
        assert values_in(part) == {
            place: value for place, value in whole.items() if place[1] in as_sets(parent)[place[0]]
        }
        assert (
            part.provenance["parents"] == [dict(parent.provenance)]
            and part.provenance["noun"] == parent.provenance["noun"]
        )
        save(part, tmp_path / "part.edit")
        with model.edits.applied(load(tmp_path / "part.edit")):
            pass
    again = compose(*found, overlap="error")
    assert values_in(again) == whole


def test_an_edit_made_otherwise_or_changed_is_not_taken_apart(model: TextToImage, apart: list[Edit]) -> None:
    with pytest.raises(EditError, match="made by compose: expected an edit that remembers"):
        take_apart(compose(*apart))
    both = last(model, apart, replace(QUICK, steps=1))
    with pytest.raises(EditError, match="changed afterwards"):
        take_apart(Edit(both.parts[1:], both.base, both.provenance))
    for wrong in ([["x"]], [["x", [7]]], [[1, [0]]]):
        with pytest.raises(EditError, match="numbers below 2"):
            take_apart(Edit(both.parts, both.base, dict(both.provenance) | {"apart": wrong}))


# --- refusals


def test_what_cannot_be_tuned_together_is_refused(model: TextToImage, apart: list[Edit]) -> None:
    with pytest.raises(EditError, match="adds a token twice"):
        last(model, [apart[0], located(model, "<one>", "cat", 5)])
    with pytest.raises(EditError, match="edit 2: expected shut or set entries of the UNet and one token"):
        last(model, [apart[0], Edit(apart[1].parts[:1], apart[1].base, apart[1].provenance)])
    name = next(iter(apart[1].touched()))
    rank = LowRankDelta(
        {name: torch.ones(apart[1].base.shapes[name][0], 1)}, {name: torch.ones(1, apart[1].base.shapes[name][1])}
    )
    row = next(part for part in apart[1].parts if isinstance(part, TokenEmbedding))
    with pytest.raises(EditError, match="found low_rank, token"):
        last(model, [apart[0], Edit((rank, row), apart[1].base, apart[1].provenance)])
    with pytest.raises(DataError, match="an --images for each, found 1 and 2"):
        last(model, apart[:1])
    with pytest.raises(DataError, match="draws 32x32 pixels"):
        joint_tuning(model, apart, [IMAGES[0], CaptionedImages(torch.zeros(1, 3, 64, 64))])


def test_the_evaluation_can_be_left_out(model: TextToImage, apart: list[Edit]) -> None:
    assert last(model, apart, replace(QUICK, steps=1, evaluation=0)).provenance["losses"] == {"after": None}
