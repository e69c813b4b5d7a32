"""Transformer pipelines, a tiny random one of each class: predictions and pictures are those of the stock pipeline."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from photopic.core.nn.hooks import tap
from photopic.models.text_to_image import measured
from photopic.models.text_to_image.families import FAMILIES
from photopic.models.text_to_image.latents import latent_shape, to_network
from photopic.models.text_to_image.transformer_drawing import call_arguments
from photopic.models.text_to_image.transformer_handle import TransformerTextToImage
from tests.tiny_transformers import GUIDANCE, PROMPTS, STEPS, Recorder, drawn, kind_of, shared_handle, stock

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of diffusers, importing its own old names
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # of its DPM solver
]
# relative, of a prediction; all others 1e-5: halves in one call or in two round apart
TOLERANCE = {"SanaPipeline": 2e-4}
ALONE = ("CogView4Pipeline", "PRXPipeline")  # the stock pipeline draws two prompts wrongly, or not at all


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> TransformerTextToImage:
    return shared_handle(request.param)


@pytest.mark.parametrize(("count", "guidance"), [(1, 1.0), (2, GUIDANCE)])
def test_predictions_and_pictures_are_the_stock_pipelines(
    model: TransformerTextToImage, count: int, guidance: float
) -> None:
    prompts, seeds = list(PROMPTS[:count]), list(range(count))
    kept = list(prompts)
    recorder = Recorder()
    pictures = model.generate(prompts, seeds=seeds, steps=STEPS, guidance=guidance, controls=[recorder])
    predictions = recorder.found
    assert prompts == kept, "the caller's list was written into"
    parts = [[row] for row in range(count)] if kind_of(model) in ALONE else [list(range(count))]
    found = [stock(model, [prompts[i] for i in rows], [seeds[i] for i in rows], guidance) for rows in parts]
    wanted = [torch.cat(each) for each in zip(*(part[0] for part in found), strict=True)]
    assert len(predictions) == len(wanted) == STEPS
    limit = TOLERANCE.get(kind_of(model), 1e-5)
    for own, expected in zip(predictions, wanted, strict=True):
        own = as_network_has_them(own, expected, model)
        assert (own - expected).norm() <= limit * expected.norm()
    stock_pictures = np.concatenate([part[1] for part in found])
    assert (
        np.abs(pictures.astype(int) - stock_pictures).max() <= 1
    )  # of 255: what lies between two numbers rounds either way
    assert pictures.std() > 5
    # guidance and prompts matter, or the comparison above would see neither
    if recorder.halves:
        assert apart(*recorder.halves[0]) > 2 * limit
    elif guidance > 1:  # a number in the network
        assert apart(predictions[0], drawn(model, prompts, seeds, 1.0)[0][0]) > 2 * limit
    if count > 1:
        said, latents = model.encode_prompts(prompts), predictions[0][:1]
        first, other = (model.predict(latents, torch.tensor([500]), said[[row]]) for row in range(2))
        assert apart(first, other) > 2 * limit


def as_network_has_them(prediction: Tensor, like: Tensor, model: TransformerTextToImage) -> Tensor:
    return to_network(prediction, model.family.layout) if like.ndim == 3 else prediction


def apart(found: Tensor, other: Tensor) -> float:
    return float((found - other).norm() / other.norm())


def test_encoded_images_are_what_the_vae_decodes(model: TransformerTextToImage) -> None:
    images = torch.rand(2, 3, model.image_size, model.image_size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents, vae = model.encode_images(images), model.pipeline.vae
    assert latents.shape[1:] == latent_shape(model.pipeline, model.family, *images.shape[2:])
    given: list[Tensor] = []
    decode = vae.decode
    vae.decode = lambda z, **options: (given.append(z), decode(z, **options))[1]
    try:
        assert model.decode(latents).shape == images.shape
    finally:
        del vae.decode
    if vae.config.get("in_channels", 3) == 4:
        images = torch.cat([images, torch.ones_like(images[:, :1])], dim=1)
    found = vae.encode(images.unsqueeze(2) if given[0].ndim == 5 else images)
    mean = found.latent_dist.mean if hasattr(found, "latent_dist") else found.latent
    torch.testing.assert_close(given[0], mean, rtol=1e-5, atol=1e-6)


def test_measured_time_and_sign_are_those_of_the_table(model: TransformerTextToImage) -> None:
    arguments = call_arguments(model.pipeline, model.family, ["a"], (model.image_size,) * 2, guidance=None, steps=2)
    arguments["generator"] = [torch.Generator().manual_seed(0)]
    answer = measured.ones_like_prediction(model.family)
    found = measured.record(model.pipeline, arguments, steps=2, answer=answer, networks=model.family.networks)
    assert measured.measured_time(found) == pytest.approx(model.family.time, abs=1e-4)
    assert measured.measured_sign(found) == model.family.sign


def test_the_loss_speaks_the_samplers_language(model: TransformerTextToImage) -> None:
    """A perfect prediction at any time gives the noise and the picture back, in the same scale as the scheduler's."""
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(2, 4, 4, 4, generator=generator) for _ in range(2))
    times, schedule = torch.tensor([100, 900]), model.schedule
    noisy, target = schedule.add_noise(clean, noise, times), schedule.target(clean, noise, times)
    torch.testing.assert_close(schedule.to_noise(target, noisy, times), noise, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(schedule.to_sample(target, noisy, times), clean, rtol=1e-4, atol=1e-4)


def test_what_goes_through_the_text_keys_is_what_the_table_says(model: TransformerTextToImage) -> None:
    """Where it is text alone, nothing of picture and time; elsewhere one of both, or the prompt would have fixed keys."""
    said = model.encode_prompts("a bear")
    shape = latent_shape(model.pipeline, model.family, model.image_size, model.image_size)
    latents = torch.randn(2, 1, *shape, generator=torch.Generator().manual_seed(0))
    for keys in model.family.text_keys:
        with torch.no_grad(), tap(model.network, keys.key.removesuffix(".weight"), inputs=True) as seen:
            for row, time in enumerate((900, 200)):
                model.predict(latents[row], torch.tensor([time]), said)
        moved = [not torch.equal(*(first_tensor(each) for each in calls)) for calls in seen.values()]
        assert moved and (not any(moved) if keys.stream == "text" else all(moved)), keys.key


def first_tensor(inputs: object) -> Tensor:
    return inputs if isinstance(inputs, Tensor) else inputs[0]  # type: ignore[index]
