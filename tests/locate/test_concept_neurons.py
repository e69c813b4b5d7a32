"""Locating a subject's weights on a tiny real pipeline: what comes out, exact resume, and clear refusals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from photopic.core.edits import Edit, TokenEmbedding, ZeroedWeights
from photopic.core.errors import DataError, EditError, ModelError, PhotopicError
from photopic.core.runs import Run, RunMismatchError
from photopic.learning.parameters.soft_mask import WeightMask
from photopic.learning.subject.preservation import preservation_examples
from photopic.locate.concept_neurons import ConceptNeuronsConfig, concept_neurons, locate
from photopic.models.text_to_image.attention_weights import attention_weights
from photopic.models.text_to_image.handle import TextToImage
from tests.tiny import IMAGE_SIZE, tiny_pipeline, tiny_sdxl_pipeline

QUICK = ConceptNeuronsConfig(steps=6, batch=2, lr=0.2, evaluation=4, controls=1)


def pictures(count: int, seed: int) -> Tensor:
    return torch.rand(count, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


IMAGES = pictures(2, 0)
KEPT = (pictures(3, 1), ["a cat", "a dog on a red background", "a tree"])


@pytest.fixture(scope="module")
def model() -> TextToImage:
    return TextToImage(tiny_pipeline("v_prediction"), "tiny")


def run_to_end(model: TextToImage, config: ConceptNeuronsConfig = QUICK, **options: Any) -> Edit:
    arguments = {"noun": "bear", "token": "<mine>", "preservation": KEPT} | options
    *_, last = locate(model, arguments.pop("images", IMAGES), config=config, **arguments)
    assert last.edit is not None
    return last.edit


def shut_of(edit: Edit) -> dict[str, list[int]]:
    shut = next(part for part in edit.parts if isinstance(part, ZeroedWeights))
    return {name: index.tolist() for name, index in shut.indices.items()}


def test_events_count_up_and_the_last_carries_an_edit_that_explains_itself(model: TextToImage) -> None:
    before = model.digest()
    events = list(locate(model, IMAGES, noun="bear", config=QUICK, preservation=KEPT))
    assert [event.step for event in events if event.stage == "locating"] == [1, 2, 3, 4, 5, 6]
    assert all(event.concept_loss > 0 and event.prior_loss > 0 for event in events if event.stage == "locating")
    assert all(event.edit is None for event in events[:-1])
    edit = events[-1].edit
    assert edit is not None and edit.tokens == ("<mine>",)
    found = edit.provenance
    assert (found["noun"], found["prompt"], found["steps"], found["images"]) == ("bear", "a <mine> bear", 6, 2)
    assert found["config"]["lr"] == 0.2 and found["versions"]["torch"] and found["peak_bytes"] > 0
    assert {"before", "after", "random_concept"} <= found["losses"].keys() and len(found["data"]) == 64
    assert 0 < found["share_shut"] < 1
    assert model.digest() == before
    with model.edits.applied(edit):
        assert model.digest() != before
    assert model.digest() == before


def test_shutting_lowers_the_loss_it_was_searched_on(model: TextToImage) -> None:
    edit = run_to_end(model, replace(QUICK, steps=40, lr=0.05, batch=4, evaluation=24))
    losses = edit.provenance["losses"]
    before, after = (losses[when]["concept"] + losses[when]["prior"] for when in ("before", "after"))
    assert after < before
    assert losses["after"]["concept"] < min(losses["random_concept"])


def test_an_interrupted_search_ends_in_the_same_mask(model: TextToImage, tmp_path: Path) -> None:
    for optimizer, options in {"adam": {}, "sgd": {"lr": 2000.0}, "paper": {"density": 0.05}}.items():
        config = replace(QUICK, optimizer=optimizer, **options)
        whole = run_to_end(model, config)
        folder = tmp_path / optimizer
        broken: Iterator[Any] = locate(
            model, IMAGES, noun="bear", config=config, preservation=KEPT, run=Run(folder), save_every=2
        )
        for event in broken:
            if event.step == 5:
                broken.close()  # as Ctrl-C between two checkpoints
                break
        again = locate(model, IMAGES, noun="bear", config=config, preservation=KEPT, run=Run(folder), save_every=2)
        events = list(again)
        assert [event.step for event in events] == [0, 5, 6, 6]
        assert events[-1].edit is not None and shut_of(events[-1].edit) == shut_of(whole)


def test_a_run_of_another_search_is_refused(model: TextToImage, tmp_path: Path) -> None:
    run_to_end(model, run=Run(tmp_path))
    with pytest.raises(RunMismatchError, match="another run"):
        run_to_end(model, replace(QUICK, seed=1), run=Run(tmp_path))
    with pytest.raises(RunMismatchError, match="another run"):
        run_to_end(model, images=pictures(2, 9), run=Run(tmp_path))


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


def test_seed_decides_everything(model: TextToImage) -> None:
    first, again, other = (run_to_end(model, replace(QUICK, seed=seed)) for seed in (0, 0, 1))
    assert shut_of(first) == shut_of(again) != shut_of(other)


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

        def step(self, step: int, effective: dict[str, Tensor]) -> Any:
            total = sum(weight.square().sum() for weight in effective.values()) / 2
            return type("L", (), {"total": total})

    search.step(Quadratic(), 0)  # type: ignore[arg-type]
    name, weight = next(iter(weights.items()))
    torch.testing.assert_close(search.saliency.values[name], weight.square())
    expected = weight - 2e-5 * weight * weight * weight  # theta' - rho theta' theta' g
    torch.testing.assert_close(search.masks[name].detach() * weight, expected)
    edit = run_to_end(model, config)
    assert edit.provenance["share_shut"] == pytest.approx(0.01, rel=0.01)
    searched = run_to_end(model, replace(config, density=None)).provenance["share_shut"]
    assert any(searched == pytest.approx(density, rel=0.1) for density in (0.001, 0.003, 0.01, 0.03, 0.1))


def test_captions_may_name_the_token_or_only_the_noun(model: TextToImage) -> None:
    edit = run_to_end(model, captions=["a bear on a red background", "two of a <mine> bear"])
    assert edit.provenance["prompt"] == "a <mine> bear on a red background"


def test_preservation_is_drawn_by_a_model_that_is_not_bundled(model: TextToImage) -> None:
    images, captions = preservation_examples(model, "bear", kind="both", count=2, seed=0)
    assert images.shape == (2, 3, IMAGE_SIZE, IMAGE_SIZE) and images.abs().max() <= 1
    assert captions[0] == "a bear" != captions[1]


def test_guard_refuses_a_mask_that_does_harm(model: TextToImage) -> None:
    harmful = replace(QUICK, max_prior_rise=-0.9)
    *_, last = locate(model, IMAGES, noun="bear", config=harmful, preservation=KEPT)
    assert "preservation loss" in last.warning and last.edit is not None
    assert last.edit.provenance["warning"] == last.warning
    with pytest.raises(ModelError, match="preservation loss"):
        run_to_end(model, replace(harmful, guard="refuse"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"noun": "zyxqw"}, DataError, "zyxqw"),
        ({"noun": " "}, DataError, "noun is empty"),
        ({"token": "cat"}, EditError, "already in the vocabulary"),
        ({"token": "my bear"}, EditError, "without spaces"),
        ({"images": torch.zeros(0, 3, 32, 32)}, DataError, "n >= 1"),
        ({"images": torch.zeros(2, 3, 16, 16)}, DataError, "resize"),
        ({"images": torch.full((1, 3, 32, 32), 255.0)}, DataError, "from -1 to 1"),
        ({"images": torch.full((1, 3, 32, 32), torch.nan)}, DataError, "from -1 to 1"),
        ({"captions": ["a bear"]}, DataError, "1 captions for 2 images"),
        ({"captions": ["a bear", "a dog"]}, DataError, "expected the noun 'bear'"),
        ({"preservation": (KEPT[0], ["a cat"])}, DataError, "captions"),
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


def test_by_default_a_twentieth_of_the_weights_is_shut(model: TextToImage) -> None:
    assert run_to_end(model, QUICK).provenance["share_shut"] == pytest.approx(0.05, rel=0.01)


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


@pytest.mark.parametrize("field", ["density", "threshold"])
@pytest.mark.parametrize("value", [0.0, -0.1, 5.0, float("nan")])
def test_a_share_is_a_share(field: str, value: float) -> None:
    with pytest.raises(DataError, match=f"{field}: expected above 0 and at most 1, found"):
        replace(QUICK, **{field: value})  # type: ignore[arg-type]


def test_a_density_and_a_threshold_are_one_too_many() -> None:
    with pytest.raises(DataError, match="a density or a threshold, found both"):
        replace(QUICK, density=0.1, threshold=0.5)


def test_an_edited_model_is_refused(model: TextToImage) -> None:
    edit = run_to_end(model)
    with model.edits.applied(edit), pytest.raises(ModelError, match="has edits applied"):
        run_to_end(model, token="<other>")


def test_two_text_encoders_get_a_row_each() -> None:
    edit = run_to_end(TextToImage(tiny_sdxl_pipeline(), "tiny-xl"))
    rows = next(part for part in edit.parts if isinstance(part, TokenEmbedding)).rows
    assert set(rows) == {"text_encoder", "text_encoder_2"} and not torch.equal(*rows.values())


def test_one_call_is_the_whole_search(model: TextToImage) -> None:
    config = replace(QUICK, steps=3, lr=0.4, preservation_count=1)
    assert concept_neurons(model, IMAGES, noun="bear", config=config).tokens == ("<mine>",)
