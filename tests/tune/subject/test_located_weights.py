"""Further tuning of located weights on a tiny real pipeline: only they move, at the bits asked for; resume is exact."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from photopic.core.edits import Edit, SparseWeights, TokenEmbedding, ZeroedWeights
from photopic.core.errors import DataError, EditError, ModelError
from photopic.core.runs import Run, RunMismatchError
from photopic.learning.subject import collage
from photopic.locate.concept_neurons import ConceptNeuronsConfig, locate
from photopic.models.text_to_image.attention_weights import attention_weights
from photopic.models.text_to_image.handle import TextToImage
from photopic.tune.subject.located_weights import LocatedWeightsConfig, tune, tune_located_weights
from tests.tiny import IMAGE_SIZE, tiny_pipeline

QUICK = LocatedWeightsConfig(steps=6, batch=2, lr=0.01, evaluation=4)


def pictures(count: int, seed: int) -> Tensor:
    return torch.rand(count, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


IMAGES = pictures(2, 0)
KEPT = (pictures(3, 1), ["a cat", "a dog on a red background", "a tree"])


@pytest.fixture(scope="module")
def model() -> TextToImage:
    return TextToImage(tiny_pipeline(), "tiny")


@pytest.fixture(scope="module")
def located(model: TextToImage) -> Edit:
    config = ConceptNeuronsConfig(steps=4, batch=2, lr=0.2, density=0.1, evaluation=0)
    *_, last = locate(model, IMAGES, noun="bear", config=config, preservation=KEPT)
    assert last.edit is not None
    return last.edit


def run_to_end(model: TextToImage, edit: Edit, config: LocatedWeightsConfig = QUICK, **options: Any) -> Edit:
    *_, last = tune(model, IMAGES, edit, config=config, **({"preservation": KEPT} | options))
    assert last.edit is not None
    return last.edit


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
    assert tuned.provenance["located"]["method"] == "concept_neurons" and tuned.provenance["config"]["bits"] == bits
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


@pytest.mark.parametrize("bits", [16, 2])
def test_an_interrupted_tuning_ends_in_the_same_values(
    model: TextToImage, located: Edit, tmp_path: Path, bits: Any
) -> None:
    config = replace(QUICK, bits=bits)
    whole = values_of(run_to_end(model, located, config))
    broken = tune(model, IMAGES, located, config=config, preservation=KEPT, run=Run(tmp_path), save_every=2)
    for event in broken:
        if event.step == 5:
            broken.close()  # type: ignore[attr-defined]
            break
    events = list(tune(model, IMAGES, located, config=config, preservation=KEPT, run=Run(tmp_path), save_every=2))
    assert [event.step for event in events] == [0, 5, 6, 6]
    assert events[-1].edit is not None
    resumed = values_of(events[-1].edit)
    assert all(torch.equal(value, resumed.values[name]) for name, value in whole.values.items())
    with pytest.raises(RunMismatchError, match="another run"):
        run_to_end(model, located, replace(config, seed=5), run=Run(tmp_path))


def test_an_edit_that_was_not_located_is_refused(model: TextToImage, located: Edit) -> None:
    rows = next(part for part in located.parts if isinstance(part, TokenEmbedding))
    with pytest.raises(EditError, match="run locate first"):
        run_to_end(model, Edit((rows,), located.base, located.provenance))
    tuned = run_to_end(model, located)
    with pytest.raises(EditError, match="found SparseWeights, TokenEmbedding"):
        run_to_end(model, tuned)


def test_an_edited_model_is_refused(model: TextToImage, located: Edit) -> None:
    other = Edit((shut_of(located),), located.base)  # no token, so nothing else would refuse it
    with model.edits.applied(other), pytest.raises(ModelError, match="has edits applied"):
        run_to_end(model, located)


def test_a_run_on_other_positions_is_refused(model: TextToImage, located: Edit, tmp_path: Path) -> None:
    run_to_end(model, located, replace(QUICK, steps=1), run=Run(tmp_path))
    fewer = ZeroedWeights({name: index[:-1] for name, index in shut_of(located).indices.items()})
    rows = next(part for part in located.parts if isinstance(part, TokenEmbedding))
    with pytest.raises(RunMismatchError, match="another run"):
        changed = Edit((fewer, rows), located.base, located.provenance)
        run_to_end(model, changed, replace(QUICK, steps=1), run=Run(tmp_path))


def test_one_call_is_the_whole_tuning(model: TextToImage, located: Edit) -> None:
    config = replace(QUICK, steps=2, preservation_count=1)
    assert tune_located_weights(model, IMAGES, located, config=config).tokens == ("<mine>",)


def test_company_is_learnt_from_and_named_in_the_provenance(
    model: TextToImage, located: Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collage, "DRAWING_STEPS", 1)
    alone, beside = (run_to_end(model, located, replace(QUICK, beside=each)) for each in (0, 2))
    assert alone.provenance["data"] != beside.provenance["data"] and beside.provenance["config"]["beside"] == 2
    assert not all(
        torch.equal(torch.as_tensor(value), torch.as_tensor(values_of(beside).values[name]))
        for name, value in values_of(alone).values.items()
    )
    with pytest.raises(DataError, match="beside"):
        LocatedWeightsConfig(beside=-1)
