"""Further tuning of located weights on a tiny real pipeline: only they move, at the bits asked for; resume is exact."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from photopic.core.edits import Edit, SparseWeights, TokenEmbedding, ZeroedWeights
from photopic.core.errors import DataError, EditError
from photopic.core.runs import Run
from photopic.data.captioned import CaptionedImages
from photopic.learning.subject import collage
from photopic.locate.concept_neurons import ConceptNeuronsConfig, concept_neurons
from photopic.models.text_to_image.attention_weights import attention_weights
from photopic.models.text_to_image.handle import TextToImage
from photopic.tune.subject.located_weights import LocatedWeightsConfig, located_weights
from tests.tiny import noise_pictures

QUICK = LocatedWeightsConfig(steps=6, batch=2, lr=0.01, evaluation=4)


IMAGES = CaptionedImages(noise_pictures(2, 0))
KEPT = CaptionedImages(noise_pictures(3, 1), ["a cat", "a dog on a red background", "a tree"])


@pytest.fixture(scope="module")
def located(model: TextToImage) -> Edit:
    config = ConceptNeuronsConfig(steps=4, batch=2, lr=0.2, density=0.1, evaluation=0)
    return concept_neurons(model, IMAGES, noun="bear", config=config, preserved=KEPT)


def run_to_end(model: TextToImage, edit: Edit, config: LocatedWeightsConfig = QUICK, **options: Any) -> Edit:
    return located_weights(model, edit, IMAGES, config=config, **({"preserved": KEPT} | options))


def values_of(edit: Edit) -> SparseWeights:
    return next(part for part in edit.parts if isinstance(part, SparseWeights))


def shut_of(edit: Edit) -> ZeroedWeights:
    return next(part for part in edit.parts if isinstance(part, ZeroedWeights))


@pytest.mark.parametrize("bits", [32, 16, 2])
def test_only_located_weights_move_and_the_base_stays(model: TextToImage, located: Edit, bits: Any) -> None:
    before = model.digest()
    tuned = run_to_end(model, located, replace(QUICK, bits=bits))
    assert model.digest() == before
    assert tuned.tokens == ("<mine>",) and values_of(tuned).bits == bits
    assert {name: index.tolist() for name, index in tuned.touched().items()} == {
        name: index.tolist() for name, index in shut_of(located).indices.items()
    }
    assert any((value != 0).any() for value in values_of(tuned).values.values())
    if bits == 2:
        assert all(len(value.unique()) <= 4 for value in values_of(tuned).values.values())
    assert (
        tuned.provenance["located"]["method"] == "locate.concept_neurons" and tuned.provenance["config"]["bits"] == bits
    )
    with model.edits.applied(tuned):
        assert model.digest() != before
    assert model.digest() == before


def test_tuning_starts_from_the_shut_state(model: TextToImage, located: Edit) -> None:
    tuned = run_to_end(model, located, replace(QUICK, steps=1, lr=1e-9, bits=32))
    assert all(value.abs().max() <= 1.1e-9 for value in values_of(tuned).values.values())


def test_tuning_lowers_the_loss(model: TextToImage, located: Edit) -> None:
    start = run_to_end(model, located, replace(QUICK, steps=1, lr=1e-9, evaluation=24)).provenance["losses"]["after"]
    after = run_to_end(model, located, replace(QUICK, steps=30, batch=4, evaluation=24)).provenance["losses"]["after"]
    assert after["concept"] + after["prior"] < start["concept"] + start["prior"]


def test_baselines_touch_as_many_random_weights_or_all(model: TextToImage, located: Edit) -> None:
    weights = attention_weights(model)
    random = run_to_end(model, located, replace(QUICK, where="random"))
    sizes = {name: len(index) for name, index in shut_of(located).indices.items()}
    assert {name: len(index) for name, index in random.touched().items()} == sizes
    assert any(not torch.equal(index, shut_of(located).indices[name]) for name, index in random.touched().items())
    everything = run_to_end(model, located, replace(QUICK, where="all"))
    assert {n: len(i) for n, i in everything.touched().items()} == {n: w.numel() for n, w in weights.items()}
    assert everything.provenance["share_tuned"] == 1


def test_an_interrupted_tuning_of_two_bits_ends_in_the_same_values(
    model: TextToImage, located: Edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("photopic.core.fit.SAVE_EVERY", 5)  # the levels are fitted after step 4
    config, given = replace(QUICK, bits=2), {"preserved": KEPT, "run": Run(tmp_path)}
    whole = values_of(run_to_end(model, located, config))
    broken = located_weights.events(model, located, IMAGES, config=config, **given)
    next(event for event in broken if event.done == 5)
    broken.close()  # type: ignore[attr-defined]
    *events, last = located_weights.events(model, located, IMAGES, config=config, **given)
    assert [event.done for event in events if event.stage == "tuning"] == [5, 6] and last.result is not None
    resumed = values_of(last.result)
    assert all(torch.equal(value, resumed.values[name]) for name, value in whole.values.items())


def test_an_edit_that_was_not_located_is_refused(model: TextToImage, located: Edit) -> None:
    rows = next(part for part in located.parts if isinstance(part, TokenEmbedding))
    with pytest.raises(EditError, match="run locate first"):
        run_to_end(model, Edit((rows,), located.base, located.provenance))
    tuned = run_to_end(model, located)
    with pytest.raises(EditError, match="found SparseWeights, TokenEmbedding"):
        run_to_end(model, tuned)


def test_company_is_learnt_from_and_named_in_the_provenance(
    model: TextToImage, located: Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collage, "DRAWING_STEPS", 1)
    alone, beside = (run_to_end(model, located, replace(QUICK, beside=each)) for each in (0, 2))
    assert beside.provenance["config"]["beside"] == 2
    assert not all(
        torch.equal(torch.as_tensor(value), torch.as_tensor(values_of(beside).values[name]))
        for name, value in values_of(alone).values.items()
    )


def test_attention_of_collages_is_learnt_and_needs_them(
    model: TextToImage, located: Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collage, "DRAWING_STEPS", 1)
    config, seen = replace(QUICK, beside=2, steps=2), []
    for event in located_weights.events(model, located, IMAGES, config=replace(config, attention=3.0), preserved=KEPT):
        seen += [event.numbers["attention"]] if "attention" in event.numbers else []
        attended = event.result
    plain = run_to_end(model, located, config)
    assert attended is not None and any(each > 0 for each in seen)
    assert any((a != values_of(plain).values[name]).any() for name, a in values_of(attended).values.items())
    with pytest.raises(DataError, match=r"attention: expected collages, .* raise beside, to 4"):
        run_to_end(model, located, replace(QUICK, attention=1.0))
