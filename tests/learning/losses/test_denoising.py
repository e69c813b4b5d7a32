"""The concept-implanting loss: draws, the functional weights, and the exact identities of a multiplicative mask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from photopic.core.errors import DataError
from photopic.core.nn.replaced import replaced
from photopic.data.layout import Layout, Region
from photopic.learning.losses.attention_masks import attention_outside, watched_attention
from photopic.learning.losses.denoising import ConceptLoss, Limits, encode_examples, stratified_draws, uniform_draws
from photopic.learning.parameters.soft_mask import WeightMask, masked
from photopic.models.text_to_image.attention_weights import attention_weights, with_zeros
from photopic.models.text_to_image.handle import TextToImage
from tests.tiny import IMAGE_SIZE, tiny_pipeline, tiny_sdxl_pipeline

CAPTIONS = ["a bear on a red background", "a bear on a blue background", "a cat"]


@pytest.fixture(scope="module", params=["epsilon", "v_prediction", "sample"])
def any_model(request: pytest.FixtureRequest) -> TextToImage:
    return TextToImage(tiny_pipeline(request.param), "tiny")


def images(count: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def loss_of(model: TextToImage, *, prior: bool = True, **options: Any) -> ConceptLoss:
    concept = encode_examples(model, images(), CAPTIONS)
    kept = encode_examples(model, images(2, 1), CAPTIONS[:2]) if prior else None
    return ConceptLoss(model, concept, concept, kept, batch=3, **options)


def snapshot(model: TextToImage) -> dict[str, bytes]:
    return {
        f"{part}.{name}": tensor.detach().numpy().tobytes()
        for part, module in model.components.items()
        for name, tensor in module.state_dict().items()
    }


def test_mask_gradient_is_weight_times_weight_gradient(any_model: TextToImage) -> None:  # identity 1
    loss, weights = loss_of(any_model), attention_weights(any_model, "all")
    leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    by_weight = torch.autograd.grad(loss.step(0, leaves).total, list(leaves.values()))
    masks = {name: torch.ones_like(weight, requires_grad=True) for name, weight in weights.items()}
    by_mask = torch.autograd.grad(loss.step(0, masked(weights, masks)).total, list(masks.values()))
    for weight, first, second in zip(weights.values(), by_weight, by_mask, strict=True):
        assert second.abs().max() > 0
        torch.testing.assert_close(second, weight * first, rtol=1e-5, atol=1e-9)


def test_small_scaling_changes_the_loss_as_saliency_predicts() -> None:  # identity 2
    model = TextToImage(tiny_pipeline(dtype=torch.float64), "tiny")
    loss, weights = loss_of(model), attention_weights(model)
    loss.concept.latents.data, loss._both.latents.data = loss.concept.latents.double(), loss._both.latents.double()
    name = next(name for name in sorted(weights) if "to_v" in name)
    mask = {name: torch.ones_like(weights[name], requires_grad=True)}

    def total(entries: Tensor) -> Tensor:
        draws = loss.draws(0)
        noisy = model.schedule.add_noise(loss._both.latents[draws.index], draws.noise.double(), draws.timesteps)
        with replaced(model.components, {name: entries * weights[name]}):
            prediction = model.predict(noisy, draws.timesteps, loss._both.conditioning[draws.index])
        return (prediction - draws.noise.double()).square().mean()

    base = total(mask[name])
    (slope,) = torch.autograd.grad(base, [mask[name]])
    entry = int(slope.abs().argmax())
    errors = []
    for eta in (1e-3, 1e-4):
        changed = torch.ones_like(mask[name]).detach()
        changed.view(-1)[entry] -= eta
        errors.append((total(changed) - base + eta * slope.view(-1)[entry]).abs().item())
    assert errors[0] < 1e-2 * 1e-3 * slope.view(-1)[entry].abs().item()
    assert errors[1] < errors[0] / 50  # second order: a tenth of the step, a hundredth of the error


def test_mask_of_ones_changes_no_bit_and_nothing_is_written(any_model: TextToImage) -> None:  # identity 3
    before = snapshot(any_model)
    loss, weights = loss_of(any_model), attention_weights(any_model)
    draws = loss.draws(0)
    ones = masked(weights, {name: torch.ones_like(weight) for name, weight in weights.items()})
    plain = loss.errors(loss._both, draws)
    assert torch.equal(plain, loss.errors(loss._both, draws, ones))
    zeros = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    assert not torch.equal(plain, loss.errors(loss._both, draws, zeros))
    assert torch.equal(plain, loss.errors(loss._both, draws))
    assert snapshot(any_model) == before


def test_saliency_does_not_change_when_the_same_batches_come_twice(model: TextToImage) -> None:  # identity 5
    loss, weights = loss_of(model), attention_weights(model)
    once, twice = WeightMask(weights, optimizer="sgd", lr=0.0), WeightMask(weights, optimizer="sgd", lr=0.0)
    for step in range(3):
        once.step(loss, step)
    for step in (0, 1, 2, 0, 1, 2):
        twice.step(loss, step)
    for name, value in once.saliency.values.items():
        torch.testing.assert_close(twice.saliency.values[name], value, rtol=1e-5, atol=1e-10)


def test_zeroing_a_key_entry_changes_only_its_output_channel(model: TextToImage) -> None:  # identity 6
    name, weight = next((n, w) for n, w in attention_weights(model).items() if "to_k" in n)
    layer = model.unet.get_submodule(name.removeprefix("unet.").removesuffix(".weight"))
    text = model.encode_prompts(CAPTIONS).hidden
    row, column = 3, 5
    shut = with_zeros({name: weight}, {name: torch.tensor([row * weight.shape[1] + column])})[name]
    plain = torch.nn.functional.linear(text, weight)
    changed = torch.func.functional_call(layer, {"weight": shut}, (text,))
    same = [channel for channel in range(weight.shape[0]) if channel != row]
    assert torch.equal(plain[..., same], changed[..., same])
    torch.testing.assert_close(plain[..., row] - changed[..., row], weight[row, column] * text[..., column])


def test_base_survives_an_exception_inside_the_loss(model: TextToImage) -> None:
    before, loss = snapshot(model), loss_of(model)
    name, weight = next(iter(attention_weights(model).items()))
    with pytest.raises(RuntimeError):
        loss.step(0, {name: weight[:, :-1]})
    assert snapshot(model) == before


def test_sample_i_does_not_depend_on_the_batch(model: TextToImage) -> None:
    examples = encode_examples(model, images(), CAPTIONS)
    small, large = (uniform_draws(examples, batch, 1000, (0, "concept", 7)) for batch in (2, 5))
    assert torch.equal(small.noise, large.noise[:2])
    assert torch.equal(small.timesteps, large.timesteps[:2]) and torch.equal(small.index, large.index[:2])
    other = uniform_draws(examples, 2, 1000, (0, "concept", 8))
    assert not torch.equal(small.noise, other.noise)


def test_evaluation_set_is_fixed_and_stratified(model: TextToImage) -> None:
    examples = encode_examples(model, images(), CAPTIONS)
    draws = stratified_draws(examples, 20, 1000)
    assert draws.timesteps.tolist() == list(range(25, 1000, 50))
    assert set(draws.index.tolist()) == {0, 1, 2}
    assert torch.equal(draws.noise, stratified_draws(examples, 20, 1000).noise)
    loss = loss_of(model)
    assert loss.evaluate(count=6) == loss.evaluate(count=6)
    assert loss.evaluate_concept(count=6) == loss.evaluate(count=6).concept
    assert loss_of(model, limits=Limits(at_once=4)).evaluate_concept(count=6) == pytest.approx(
        loss.evaluate_concept(count=6), rel=1e-5
    )


def test_loss_is_the_noise_error_whatever_the_prediction_type(any_model: TextToImage) -> None:
    loss = loss_of(any_model)
    draws = loss.draws(0)
    latents = loss._both.latents[draws.index]
    noisy = any_model.schedule.add_noise(latents, draws.noise, draws.timesteps)
    prediction = any_model.predict(noisy, draws.timesteps, loss._both.conditioning[draws.index])
    noise = any_model.schedule.to_noise(prediction, noisy, draws.timesteps)
    by_hand = (noise - draws.noise).square().flatten(1).mean(1)
    torch.testing.assert_close(loss.errors(loss._both, draws), by_hand)
    losses = loss.step(0, {})
    torch.testing.assert_close(losses.concept, by_hand[:3].mean())
    torch.testing.assert_close(losses.total, by_hand[:3].mean() + by_hand[3:].mean())


@pytest.mark.parametrize("limits", [Limits(at_once=1), Limits(at_once=4, recompute=True), Limits(recompute=True)])
def test_limits_of_memory_change_the_gradients_by_rounding_only(model: TextToImage, limits: Limits) -> None:
    masks = {name: torch.ones_like(weight).requires_grad_() for name, weight in attention_weights(model).items()}
    inputs, before = list(masks.values()), snapshot(model)

    def found(limits: Limits) -> tuple[Any, list[Tensor]]:
        loss = loss_of(model, prior_weight=0.5, limits=limits)
        return loss.gradients(3, masked(attention_weights(model), masks), inputs)

    (losses, gradients), (plain, expected) = found(limits), found(Limits())
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(losses.total, plain.total)
    total = loss_of(model, prior_weight=0.5).step(3, masked(attention_weights(model), masks)).total
    for one, other in zip(expected, torch.autograd.grad(total, inputs), strict=True):
        assert torch.equal(one, other)  # without limits it is the plain backward pass, bit for bit
    assert snapshot(model) == before and not model.unet.is_gradient_checkpointing


def test_prior_weight_scales_the_preservation_part(model: TextToImage) -> None:
    light, heavy = (loss_of(model, prior_weight=weight).step(0, {}) for weight in (0.0, 2.0))
    torch.testing.assert_close(heavy.total, light.total + 2 * light.prior)
    assert loss_of(model, prior=False).step(0, {}).prior == 0


def test_two_text_encoders_are_carried_along() -> None:
    model = TextToImage(tiny_sdxl_pipeline(), "tiny-xl")
    assert torch.isfinite(loss_of(model).step(0, attention_weights(model)).total)


def test_captions_must_match_images(model: TextToImage) -> None:
    with pytest.raises(DataError, match="3 images with 1 captions"):
        encode_examples(model, images(), ["a bear"])


def test_pictures_are_encoded_a_few_at_a_time_so_that_large_ones_fit(
    model: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, sizes = model.encode_images, []

    def recorded(part: Tensor) -> Tensor:
        sizes.append(len(part))
        return encode(part)

    monkeypatch.setattr(model, "encode_images", recorded)
    whole = encode_examples(model, images(), CAPTIONS).latents
    two = Limits(pixels=2 * IMAGE_SIZE**2)
    torch.testing.assert_close(encode_examples(model, images(), CAPTIONS, two).latents, whole)
    assert sizes == [3, 2, 1]


def test_attention_outside_of_places_is_added_to_the_loss_in_any_slices() -> None:
    """Against the gradient of the loss without it and of the attention of the same problems, by hand."""
    model = TextToImage(tiny_pipeline(), "tiny")
    left = Layout((Region("bear", (0.0, 0.0, 0.5, 1.0)),))
    concept = encode_examples(model, images(), CAPTIONS, layouts=[left, None, None])
    kept, weights = encode_examples(model, images(2, 1), CAPTIONS[:2]), attention_weights(model)

    def found(attention: float, at_once: int | None = None) -> tuple[Any, list[Tensor]]:
        loss = ConceptLoss(model, concept, concept, kept, batch=3, attention=attention, limits=Limits(at_once=at_once))
        leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
        return loss.gradients(1, leaves, list(leaves.values()))

    plain, without = found(0.0)
    losses, with_it = found(10.0)
    draws = ConceptLoss(model, concept, concept, kept, batch=3).draws(1)
    said = [concept.places[index] for index in draws.index[:3]]
    assert [len(each) for each in said].count(1) in (1, 2)  # it is of some of the three alone
    leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    whole = ConceptLoss(model, concept, concept, kept, batch=3)
    with watched_attention(model.unet) as seen:
        whole.errors(whole._both, draws, leaves)
    outside = attention_outside(seen, said).sum() / 3
    own = torch.autograd.grad(outside, list(leaves.values()), allow_unused=True)
    assert losses.attention == pytest.approx(outside.item(), rel=1e-5) and plain.attention == 0
    assert losses.concept.item() == pytest.approx(plain.concept.item(), rel=1e-5)
    for before, after, part in zip(without, with_it, own, strict=True):
        torch.testing.assert_close(after, before + (0 if part is None else 10 * part), rtol=1e-3, atol=1e-6)
    for one, other in zip(with_it, found(10.0, at_once=2)[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_attention_needs_places_and_captions_that_say_their_words() -> None:
    model = TextToImage(tiny_pipeline(), "tiny")
    with pytest.raises(DataError, match="attention: expected pictures with layouts"):
        loss_of(model, attention=1.0)
    dog = Layout((Region("dog", (0.0, 0.0, 0.5, 1.0)),))
    with pytest.raises(DataError, match="layout of a picture: 'dog' is not a word of the prompt"):
        encode_examples(model, images(), CAPTIONS, layouts=[dog, None, None])
    with pytest.raises(DataError, match="3 images with 1 layouts"):
        encode_examples(model, images(), CAPTIONS, layouts=[None])
