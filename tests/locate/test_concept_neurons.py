"""Locating a subject's weights on a tiny real pipeline: what comes out, exact resume, and clear refusals."""

from __future__ import annotations

import hashlib
import weakref
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from photopic.core.edits import Edit, SparseWeights, TokenEmbedding, ZeroedWeights
from photopic.core.edits.file import from_bytes as load_bytes
from photopic.core.edits.file import to_bytes
from photopic.core.errors import DataError, EditError, ModelError, PhotopicError
from photopic.core.events import finished
from photopic.core.runs import Run
from photopic.data.captioned import CaptionedImages
from photopic.learning.losses.denoising import Limits
from photopic.learning.parameters.soft_mask import WeightMask
from photopic.learning.subject.preservation import preservation_examples
from photopic.locate.concept_neurons import (
    LONG,
    SHORT,
    ConceptNeuronsConfig,
    Schedule,
    _evidence,
    _Search,
    concept_neurons,
)
from photopic.models.text_to_image.attention_weights import attention_weights, random_positions
from photopic.models.text_to_image.handle import TextToImage
from tests.processes import be_one_of_two, both_at_work
from tests.tiny import IMAGE_SIZE, noise_pictures, tiny_pipeline, tiny_sdxl_pipeline

QUICK = ConceptNeuronsConfig(steps=6, batch=2, lr=0.2, betas=LONG.betas, evaluation=4, controls=1)


IMAGES = CaptionedImages(noise_pictures(2, 0))
KEPT = CaptionedImages(noise_pictures(3, 1), ["a cat", "a dog on a red background", "a tree"])


@pytest.fixture(scope="module")
def model() -> TextToImage:
    return TextToImage(tiny_pipeline("v_prediction"), "tiny")


@pytest.fixture(scope="module")
def found(model: TextToImage) -> Edit:
    """What the quick search finds."""
    return run_to_end(model)


def run_to_end(model: TextToImage, config: ConceptNeuronsConfig = QUICK, **options: Any) -> Edit:
    arguments = {"noun": "bear", "preserved": KEPT, "images": IMAGES} | options
    return concept_neurons(model, config=config, **arguments)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, LONG),
        ({"binary": True}, SHORT),
        ({"binary": True, "steps": 7, "lr": 0.5}, SHORT._replace(steps=7, lr=0.5)),
        ({"betas": (0.5, 0.9)}, LONG._replace(betas=(0.5, 0.9))),
        ({"optimizer": "sgd"}, LONG._replace(lr=None)),  # which has a rate of its own
        ({"optimizer": "sgd", "binary": True}, LONG._replace(lr=None)),
    ],
)
def test_a_search_takes_the_usual_schedule_of_its_kind_but_for_what_is_given(options: Any, expected: Schedule) -> None:
    assert ConceptNeuronsConfig(**options).schedule == expected


def shut_of(edit: Edit) -> dict[str, list[int]]:
    shut = next(part for part in edit.parts if isinstance(part, ZeroedWeights))
    return {name: index.tolist() for name, index in shut.indices.items()}


@pytest.mark.parametrize(
    ("options", "digest"),
    [
        ({}, "3851fbaf4e97e208957795f51a646dc712b7e2c807b53607d4c9167a13f7c53f"),
        ({"binary": True}, "59436bae048431491ba02572c34b2c987dfb3cd2bf7efc46d697db57605d6fa3"),
        ({"optimizer": "sgd", "lr": None}, "16dacdbbeac3dd7a33f3dabfb9645118a0a62c635c55b38da99a458383a4a0fe"),
        (
            {"optimizer": "paper", "lr": None, "density": 0.05},
            "23310fce70d60e41e44ecff854c1cc0244c883a57e8009147618683e01931585",
        ),
    ],
    ids=["adam", "binary", "sgd", "paper"],
)
def test_one_seed_finds_the_positions_it_always_found(model: TextToImage, options: Any, digest: str) -> None:
    """The digests were taken before the search became a method, on this processor family's float32 sums."""
    edit = run_to_end(model, replace(QUICK, steps=10, evaluation=0, **options))
    hasher = hashlib.sha256()
    for name, index in shut_of(edit).items():
        hasher.update(f"{name} {len(index)} ".encode() + np.array(index, np.int64).tobytes())
    assert hasher.hexdigest() == digest


def test_the_edit_explains_itself_and_the_base_stays(model: TextToImage) -> None:
    before = model.digest()
    events = list(concept_neurons.events(model, IMAGES, noun="bear", config=QUICK, preserved=KEPT))
    located = [event for event in events if event.stage == "locating"]
    assert [event.done for event in located] == [0, 1, 2, 3, 4, 5, 6]
    assert all(event.numbers["loss"] > 0 and event.numbers["prior"] > 0 for event in located[1:])
    edit = events[-1].result
    assert edit is not None and edit.tokens == ("<mine>",)
    found = edit.provenance
    assert (found["noun"], found["prompt"], found["images"]) == ("bear", "a <mine> bear", 2)
    assert found["config"]["lr"] == 0.2 and found["data"] == {"images": IMAGES.digest(), "preserved": KEPT.digest()}
    assert {"before", "after", "random_concept"} <= found["losses"].keys() and 0 < found["share_shut"] < 1
    with model.edits.applied(edit):
        assert model.digest() != before
    assert model.digest() == before


def test_shutting_lowers_the_loss_it_was_searched_on(model: TextToImage) -> None:
    edit = run_to_end(model, replace(QUICK, steps=20, lr=0.1, batch=4, evaluation=12))
    losses = edit.provenance["losses"]
    before, after = (losses[when]["concept"] + losses[when]["prior"] for when in ("before", "after"))
    assert after < before
    assert losses["after"]["concept"] < min(losses["random_concept"])


def test_base_is_unchanged_after_an_exception(model: TextToImage, monkeypatch: pytest.MonkeyPatch) -> None:
    before, tokenizer = model.digest(), model.tokenizers["text_encoder"]
    steps = WeightMask.step

    def fails(self: WeightMask, loss: Any, step: int) -> Any:
        if step == 2:
            raise KeyboardInterrupt
        return steps(self, loss, step)

    monkeypatch.setattr(WeightMask, "step", fails)
    with pytest.raises(KeyboardInterrupt):
        run_to_end(model)
    assert model.digest() == before and model.tokenizers["text_encoder"] is tokenizer
    assert not model.edits.names()


def test_density_is_kept_to_the_weight(model: TextToImage) -> None:
    total = sum(weight.numel() for weight in attention_weights(model, "all").values())
    edit = run_to_end(model, replace(QUICK, layers="all", density=0.03))
    assert sum(map(len, shut_of(edit).values())) == round(0.03 * total)
    assert any("attn1" in name for name in shut_of(edit)) and any("attn2" in name for name in shut_of(edit))


def test_only_the_chosen_projections_are_shut(model: TextToImage) -> None:
    names = shut_of(run_to_end(model, replace(QUICK, which=("v",), density=0.05)))
    assert names and all(".attn2.to_v." in name for name in names)


def test_published_loop_shuts_the_highest_accumulated_saliency(model: TextToImage) -> None:
    weights = attention_weights(model)
    config = replace(QUICK, optimizer="paper", lr=None, density=0.01)
    search = WeightMask(weights, optimizer="paper")

    class Quadratic:
        """L = sum(w^2) / 2 of the effective weights: theta' * g = theta'^2."""

        def gradients(self, step: int, effective: dict[str, Tensor], inputs: list[Tensor]) -> Any:
            total = sum(weight.square().sum() for weight in effective.values()) / 2
            return None, torch.autograd.grad(total, inputs)  # type: ignore[arg-type]

    search.step(Quadratic(), 0)  # type: ignore[arg-type]
    name, weight = next(iter(weights.items()))
    torch.testing.assert_close(search.saliency.values[name], weight.square())
    expected = weight - 2e-5 * weight * weight * weight  # theta' - rho theta' theta' g
    torch.testing.assert_close(search.masks[name].detach() * weight, expected)
    edit = run_to_end(model, config)
    assert edit.provenance["share_shut"] == pytest.approx(0.01, rel=0.01)
    searched = run_to_end(model, replace(config, density=None)).provenance["share_shut"]
    assert any(searched == pytest.approx(density, rel=0.1) for density in (0.001, 0.003, 0.01, 0.03, 0.1))


def test_captions_may_name_only_the_noun_or_be_left_out(model: TextToImage) -> None:
    edit = run_to_end(model, images=CaptionedImages(IMAGES.images, ["a bear on a red background", None]))
    assert edit.provenance["prompt"] == "a <mine> bear on a red background"


def test_preservation_is_drawn_by_a_model_that_is_not_bundled(model: TextToImage) -> None:
    found = finished(preservation_examples(model, "bear", kind="both", count=2, seed=0))
    assert found.images.shape == (2, 3, IMAGE_SIZE, IMAGE_SIZE) and found.images.abs().max() <= 1
    assert found.captions is not None and found.captions[0] == "a bear" != found.captions[1]


def test_guard_refuses_a_mask_that_does_harm(model: TextToImage) -> None:
    harmful = replace(QUICK, max_prior_rise=-0.9)
    *events, last = concept_neurons.events(model, IMAGES, noun="bear", config=harmful, preserved=KEPT)
    assert "preservation loss" in events[-1].warning and last.result is not None
    assert last.result.provenance["warning"] == events[-1].warning
    with pytest.raises(ModelError, match="preservation loss"):
        run_to_end(model, replace(harmful, guard="refuse"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"noun": "zyxqw"}, DataError, "zyxqw"),
        ({"noun": " "}, DataError, "noun is empty"),
        ({"token": "cat"}, EditError, "already in the vocabulary"),
        ({"token": "my bear"}, EditError, "without spaces"),
        ({"images": CaptionedImages(torch.zeros(0, 3, 32, 32))}, DataError, "n >= 1"),
        ({"images": CaptionedImages(torch.zeros(2, 3, 16, 16))}, DataError, "resize"),
        ({"images": CaptionedImages(torch.full((1, 3, 32, 32), 255.0))}, DataError, "from -1 to 1"),
        ({"images": CaptionedImages(torch.full((1, 3, 32, 32), torch.nan))}, DataError, "from -1 to 1"),
        ({"images": CaptionedImages(IMAGES.images, ["a bear"])}, DataError, "1 captions for 2 images"),
        ({"images": CaptionedImages(IMAGES.images, ["a bear", "a dog"])}, DataError, "expected the noun 'bear'"),
        ({"preserved": CaptionedImages(KEPT.images, ["a cat"])}, DataError, "captions"),
    ],
)
def test_bad_input_is_one_clear_line(
    model: TextToImage, options: dict[str, Any], error: type[PhotopicError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        run_to_end(model, **options)
    assert "\n" not in str(caught.value)


def test_nothing_shut_is_an_error(model: TextToImage) -> None:
    with pytest.raises(DataError, match="nothing to shut after 1 steps"):
        run_to_end(model, replace(QUICK, steps=1, lr=1e-4, threshold=0.5))


def test_by_default_a_twentieth_of_the_weights_is_shut(found: Edit) -> None:
    assert found.provenance["share_shut"] == pytest.approx(0.05, rel=0.01)


def test_a_binary_search_shuts_the_same_share_and_other_weights(model: TextToImage) -> None:
    soft, binary = (run_to_end(model, replace(QUICK, steps=10, binary=each)) for each in (False, True))
    assert soft.provenance["share_shut"] == binary.provenance["share_shut"]
    assert shut_of(soft) != shut_of(binary)
    for impossible in ({"threshold": 0.5}, {"optimizer": "paper"}):
        with pytest.raises(DataError, match="binary: expected a share to shut"):
            replace(QUICK, binary=True, **impossible)  # type: ignore[arg-type]


def test_a_threshold_shuts_what_fell_below_it_however_much(model: TextToImage) -> None:
    shares = [run_to_end(model, replace(QUICK, threshold=each)).provenance["share_shut"] for each in (0.2, 0.9)]
    assert 0 < shares[0] < shares[1] and 0.05 not in (round(share, 3) for share in shares)


def test_a_density_and_a_threshold_are_one_too_many() -> None:
    with pytest.raises(DataError, match="a density or a threshold, found both"):
        replace(QUICK, density=0.1, threshold=0.5)


def test_two_text_encoders_get_a_row_each() -> None:
    edit = run_to_end(TextToImage(tiny_sdxl_pipeline(), "tiny-xl"))
    rows = next(part for part in edit.parts if isinstance(part, TokenEmbedding)).rows
    assert set(rows) == {"text_encoder", "text_encoder_2"} and not torch.equal(*rows.values())


def test_tuning_after_the_search_learns_values_at_the_located_weights(model: TextToImage, found: Edit) -> None:
    tuned = run_to_end(model, replace(QUICK, tune=3, bits=2))
    values = next(part for part in tuned.parts if isinstance(part, SparseWeights))
    assert {name: index.tolist() for name, index in values.indices.items()} == shut_of(found)
    assert values.bits == 2 and any(value.any() for value in values.values.values())


def test_under_a_memory_budget_the_search_finds_the_same(
    model: TextToImage, found: Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = model.components["vae"].get_parameter("encoder.conv_in.weight")
    tight, kept, place = Limits(at_once=1, recompute=True), vae.clone(), vae.data_ptr()

    def limits(loss: ConceptLoss, weights: Any, memory: str) -> Limits:
        assert vae.data_ptr() != place and torch.equal(vae, kept)  # set aside while the search goes on
        return tight

    given_back: list[int] = []
    monkeypatch.setattr("photopic.locate.concept_neurons.limits_within", limits)
    monkeypatch.setattr("photopic.locate.concept_neurons.give_back", lambda: given_back.append(1))
    whole, limited = shut_of(found), shut_of(run_to_end(model, replace(QUICK, memory="6GiB")))
    assert len(given_back) > QUICK.steps  # what a step freed does not lie below the next
    same = sum(len({*whole[name]} & {*limited.get(name, ())}) for name in whole)
    assert same >= 0.98 * sum(map(len, whole.values()))  # entries at the limit may change places by rounding


def test_masks_and_what_their_optimizer_keeps_are_gone_before_the_evaluation(
    model: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches: list[weakref.ref[Any]] = []

    class Watched(_Search):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            searches.append(weakref.ref(self))

    def alone(*arguments: Any) -> Any:
        assert [each() for each in searches] == [None]
        return _evidence(*arguments)

    monkeypatch.setattr("photopic.locate.concept_neurons._Search", Watched)
    monkeypatch.setattr("photopic.locate.concept_neurons._evidence", alone)
    run_to_end(model, replace(QUICK, steps=2))
    assert searches


@pytest.mark.parametrize("options", [{}, {"binary": True}, {"structure": "rows"}, {"tune": 2}, {"tune": 2, "bits": 2}])
def test_a_file_keeps_within_its_bytes_and_uses_them(model: TextToImage, options: Any) -> None:
    limit = 4500
    edit = run_to_end(model, replace(QUICK, bytes=limit, **options))
    size = len(to_bytes(edit))
    assert 0.85 * limit < size <= limit
    held = edit.parts[0]
    assert isinstance(held, ZeroedWeights | SparseWeights) and held.count > 1
    assert edit.provenance["config"] == replace(QUICK, bytes=limit, **options).changed  # no room for the usual settings
    assert load_bytes(to_bytes(edit)).provenance == edit.provenance


def test_rows_are_shut_whole_and_compared_with_whole_rows(model: TextToImage, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[dict[str, Tensor]] = []

    def kept(*args: Any, **options: Any) -> dict[str, Tensor]:
        compared.append(random_positions(*args, **options))
        return compared[-1]

    monkeypatch.setattr("photopic.locate.concept_neurons.random_positions", kept)
    edit = run_to_end(model, replace(QUICK, structure="rows", density=0.1))
    shut, weights = edit.parts[0], attention_weights(model)
    assert isinstance(shut, ZeroedWeights) and compared
    for positions in (shut.indices, *compared):
        assert positions.keys() == shut.indices.keys()
        for name, index in positions.items():
            columns = weights[name].shape[1]
            rows = index.view(-1, columns)
            assert len(rows) == len(shut.indices[name]) // columns
            assert torch.equal(rows, rows[:, :1] + torch.arange(columns)) and not (rows[:, 0] % columns).any()


def test_too_few_bytes_are_refused_before_the_search_with_what_is_needed(model: TextToImage) -> None:
    with pytest.raises(
        DataError, match=r"bytes: expected (\d+) or more for the smallest edit here, found 500; raise it"
    ) as said:
        run_to_end(model, replace(QUICK, bytes=500))
    least = int(str(said.value).split("expected ")[1].split()[0])
    assert len(to_bytes(run_to_end(model, replace(QUICK, bytes=least)))) <= least


@pytest.mark.parametrize("other", [{"density": 0.1}, {"threshold": 0.5}])
def test_bytes_and_another_number_of_weights_are_refused_together(other: Any) -> None:
    with pytest.raises(DataError, match="bytes: expected no density and no threshold beside it"):
        ConceptNeuronsConfig(bytes=4096, **other)


def search_as_one_of_two(connection: Connection, rank: int, folder: Path) -> None:
    """In a process of its own: how many problems each call of the network had, and what was found."""
    be_one_of_two(rank, connection.recv())
    model, asked = TextToImage(tiny_pipeline("v_prediction"), "tiny"), []
    predict = model.predict
    model.predict = lambda noisy, *rest: asked.append(len(noisy)) or predict(noisy, *rest)  # type: ignore[method-assign]
    edit = run_to_end(model, replace(QUICK, tune=2), run=Run(folder, {}))
    connection.send((asked, to_bytes(edit), edit.provenance["losses"]))
    torch.distributed.destroy_process_group()


def test_two_processes_share_the_problems_of_a_search(model: TextToImage, tmp_path: Path) -> None:
    alone = run_to_end(model, replace(QUICK, tune=2))
    (asked, first, losses), (_, second, _) = (
        each.recv() for each in both_at_work(search_as_one_of_two, tmp_path / "run")
    )
    assert set(asked) == {2}  # of 4 problems a step, and of 4 that are evaluated
    values = [load_bytes(each).of(SparseWeights)[0].values for each in (first, second)]
    assert all(torch.equal(each, values[1][name]) for name, each in values[0].items())
    for when in ("before", "after"):
        assert losses[when] == pytest.approx(alone.provenance["losses"][when], rel=1e-3)
