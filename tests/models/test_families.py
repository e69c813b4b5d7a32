"""Transformer pipelines, a tiny random one of each class: drawn as the stock pipeline does, edited exactly, searched."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

import photopic
from photopic.core.edits import Edit, ZeroedWeights
from photopic.core.errors import ModelError
from photopic.core.sampling import Control, Step
from photopic.data.captioned import CaptionedImages
from photopic.data.few_shot import FewShotTask
from photopic.edit.interop.lora_import import import_lora
from photopic.edit.interop.textual_inversion import import_textual_inversion
from photopic.learning.parameters.text_encoder_copy import TunedText
from photopic.locate.attention import attention
from photopic.locate.concept_neurons import ConceptNeuronsConfig, concept_neurons
from photopic.measure.denoiser import probed
from photopic.measure.diffusion_features import diffusion_features
from photopic.models.text_to_image import measured
from photopic.models.text_to_image.attention_weights import attention_weights, random_positions
from photopic.models.text_to_image.families import FAMILIES, not_taken
from photopic.models.text_to_image.handle import TextToImage
from photopic.models.text_to_image.noise_schedule import StraightLine
from photopic.models.text_to_image.schedulers import flow_scheduler
from photopic.models.text_to_image.transformer_drawing import call_arguments, told_scheduler
from photopic.models.text_to_image.transformer_handle import TransformerTextToImage
from tests.method_cases import labelled
from tests.tiny import tiny_pipeline
from tests.tiny_transformers import PROMPTS, tiny_transformer_pipeline

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of diffusers, importing its own old names
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # of its DPM solver
]
TOLERANCE = {
    "SanaPipeline": 2e-4
}  # relative, of a prediction; all others 1e-5: halves in one call or in two round apart
STEPS, GUIDANCE = 2, 4.0
ALONE = ("CogView4Pipeline", "PRXPipeline")  # the stock pipeline draws two prompts wrongly, or not at all
RUNNING = [kind for kind, family in FAMILIES.items() if family.needs is None or find_spec(family.needs) is not None]


def handle_of(kind: str, dtype: torch.dtype = torch.float32) -> TransformerTextToImage:
    if kind not in RUNNING:
        pytest.skip(f"{kind} needs {FAMILIES[kind].needs}")
    pipeline = tiny_transformer_pipeline(kind)
    model = TransformerTextToImage(pipeline if dtype == torch.float32 else pipeline.to(dtype=dtype), "tiny")
    model.image_size = min(
        model.image_size, 16 if model.pipeline.vae_scale_factor == 2 and kind != "SanaPipeline" else 32
    )
    return model


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> Iterator[TransformerTextToImage]:
    yield handle_of(request.param)


def kind_of(model: TransformerTextToImage) -> str:
    return type(model.pipeline).__name__


class Recorder(Control):
    """Keeps the predictions that the scheduler is given."""

    def __init__(self) -> None:
        self.found: list[Tensor] = []

    def prediction(self, prediction: Tensor, step: Step) -> Tensor:
        self.found.append(prediction)
        return prediction


def stock(
    model: TransformerTextToImage, prompts: Sequence[str], seeds: Sequence[int], guidance: float
) -> tuple[list[Tensor], np.ndarray]:
    """What the stock pipeline hands its scheduler, a step, and the pictures it draws."""
    pipeline, found = model.pipeline, []
    arguments = call_arguments(pipeline, model.family, prompts, (model.image_size,) * 2, guidance=guidance, steps=STEPS)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    own, spy = pipeline.scheduler, copy.deepcopy(pipeline.scheduler)
    take = spy.step

    def step(output: Tensor, *args: Any, **kwargs: Any) -> Any:
        found.append(output)
        return take(output, *args, **kwargs)

    spy.step, pipeline.scheduler = step, spy
    try:
        drawn = pipeline(**arguments | {"generator": generators, "output_type": "np"}).images
    finally:
        pipeline.scheduler = own
    return found, (np.asarray(drawn) * 255).round().astype(np.uint8)


def own(model: TransformerTextToImage, prompts: Sequence[str], seeds: Sequence[int], guidance: float) -> Any:
    recorder = Recorder()
    options: dict[str, Any] = {"steps": STEPS, "guidance": guidance, "controls": [recorder]}
    return recorder.found, model.generate(prompts, seeds=seeds, **options)


def as_network_has_them(prediction: Tensor, like: Tensor) -> Tensor:
    from photopic.models.text_to_image.latents import to_network

    return to_network(prediction, "packed") if like.ndim == 3 else prediction


@pytest.mark.parametrize(("count", "guidance"), [(1, 1.0), (2, GUIDANCE)])
def test_predictions_and_pictures_are_the_stock_pipelines(
    model: TransformerTextToImage, count: int, guidance: float
) -> None:
    prompts, seeds = list(PROMPTS[:count]), list(range(count))
    kept = list(prompts)
    predictions, pictures = own(model, prompts, seeds, guidance)
    assert prompts == kept, "the caller's list was written into"
    if kind_of(model) in ALONE:
        parts = [stock(model, [prompt], [seed], guidance) for prompt, seed in zip(prompts, seeds, strict=True)]
        wanted = [torch.cat(each) for each in zip(*(part[0] for part in parts), strict=True)]
        drawn = np.concatenate([part[1] for part in parts])
    else:
        wanted, drawn = stock(model, prompts, seeds, guidance)
    assert len(predictions) == len(wanted) == STEPS
    limit = TOLERANCE.get(kind_of(model), 1e-5)
    for found, expected in zip(predictions, wanted, strict=True):
        found = as_network_has_them(found, expected)
        assert (found - expected).norm() <= limit * expected.norm()
    assert np.abs(pictures.astype(int) - drawn).max() <= 1  # of 255: what lies between two numbers rounds either way
    assert pictures.std() > 5


def test_guidance_and_prompts_matter(model: TransformerTextToImage) -> None:
    plain = own(model, PROMPTS[:1], [0], 1.0)[0][0]
    guided, other = own(model, PROMPTS[:1], [0], GUIDANCE)[0][0], own(model, PROMPTS[1:], [0], 1.0)[0][0]
    changed = min(float((each - plain).norm() / plain.norm()) for each in (guided, other))
    assert changed > 2 * TOLERANCE.get(kind_of(model), 1e-5)  # or the comparison above would see neither


def test_encoded_images_are_what_the_vae_decodes(model: TransformerTextToImage) -> None:
    images = torch.rand(2, 3, model.image_size, model.image_size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents, vae = model.encode_images(images), model.pipeline.vae
    given: list[Tensor] = []
    decode = vae.decode
    vae.decode = lambda z, **options: (given.append(z), decode(z, **options))[1]
    try:
        assert model.decode(latents).shape == images.shape
    finally:
        del vae.decode
    pixels = images.unsqueeze(2) if given[0].ndim == 5 else images
    found = vae.encode(pixels)
    mean = found.latent_dist.mean if hasattr(found, "latent_dist") else found.latent
    torch.testing.assert_close(given[0], mean, rtol=1e-5, atol=5e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_edit_goes_without_a_trace(model: TransformerTextToImage, dtype: torch.dtype) -> None:
    edited = model if dtype == torch.float32 else handle_of(kind_of(model), dtype)
    before = {name: tensor.clone() for name, tensor in edited.parameters().items()}
    weights = attention_weights(edited)
    positions = random_positions({name: torch.arange(5) for name in weights}, weights, seed=0)
    with edited.edits.applied(Edit((ZeroedWeights(positions),), edited.fingerprint(*weights), {})):
        changed = {name for name, tensor in edited.parameters().items() if not torch.equal(tensor, before[name])}
        assert changed == set(weights)
    for name, tensor in edited.parameters().items():
        assert tensor.view(torch.uint8).equal(before[name].view(torch.uint8)), name


SEARCH = ConceptNeuronsConfig(steps=3, batch=1, evaluation=2, controls=1, preservation_count=2, density=0.1)


def test_three_steps_of_a_search_touch_only_text_keys_and_values(model: TransformerTextToImage) -> None:
    before = {name: tensor.clone() for name, tensor in model.parameters().items()}
    pictures = torch.rand(2, 3, model.image_size, model.image_size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    edit = concept_neurons(model, CaptionedImages(pictures), noun="bear", config=SEARCH)
    assert {name for part in edit.parts if isinstance(part, ZeroedWeights) for name in part.indices} <= set(
        attention_weights(model)
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.parameters().items())
    with model.edits.applied(edit):  # the new word is one token, and its row acts
        own_word = [model.encode_prompts(f"a {word} bear") for word in ("<mine>", "red")]
    assert any(
        not torch.equal(first, second)
        for first, second in zip(*(tensors_of(each.rows[0]) for each in own_word), strict=True)
        if first.shape == second.shape
    )


def tensors_of(row: Any) -> list[Tensor]:
    values = [item for value in row.values() for item in (value if isinstance(value, list) else [value])]
    return [value for value in values if isinstance(value, Tensor) and value.is_floating_point()]


def test_the_loss_speaks_the_samplers_language(model: TransformerTextToImage) -> None:
    """A perfect prediction at any time gives the noise and the picture back, in the same scale as the scheduler's."""
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(2, 4, 4, 4, generator=generator) for _ in range(2))
    times, schedule = torch.tensor([100, 900]), model.schedule
    noisy, target = schedule.add_noise(clean, noise, times), schedule.target(clean, noise, times)
    torch.testing.assert_close(schedule.to_noise(target, noisy, times), noise, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(schedule.to_sample(target, noisy, times), clean, rtol=1e-4, atol=1e-4)


# faults of good guesses


def test_cogview4_is_told_another_time_than_its_noise() -> None:
    model = handle_of("CogView4Pipeline")
    schedule = model.schedule
    assert isinstance(schedule, StraightLine) and schedule.shift != 1
    seen: list[tuple[float, float]] = []

    class Levels(Control):
        def latents(self, latents: Tensor, step: Step) -> Tensor:
            seen.append((float(step.timestep), 1.0 if step.sigma == np.inf else step.sigma / (1 + step.sigma)))
            return latents

    model.generate("a bear", seeds=[0], steps=4, controls=[Levels()])
    for time, share in seen:
        found = schedule.sigmas(torch.zeros(1, 1, 1, 1), torch.tensor([time]))
        assert float(found) == pytest.approx(share, abs=1e-5)
    assert any(abs(time / 1000 - share) > 0.01 for time, share in seen)


def test_cogview4_draws_a_prompt_alike_in_every_batch() -> None:
    model = handle_of("CogView4Pipeline")
    prompts = ["a bear", " ".join(["a cat and a dog"] * 6)]  # of different multiples of 16 tokens
    options = {"steps": STEPS, "guidance": GUIDANCE}
    together = model.generate(prompts, seeds=[0, 1], **options)
    assert np.abs(together[0].astype(int) - model.generate(prompts[:1], seeds=[0], **options)[0]).max() <= 1


def test_z_image_guidance_of_1_is_none_and_its_own_number_is_one_less() -> None:
    model = handle_of("ZImagePipeline")
    arguments = call_arguments(model.pipeline, model.family, ["a"], (16, 16), guidance=2.0)
    assert arguments["guidance_scale"] == 1.0
    unguided = own(model, PROMPTS[:1], [0], 1.0)[0][0]
    options = {"num_inference_steps": STEPS, "height": 16, "width": 16, "output_type": "latent"}
    plain, drawn = (
        model.pipeline(PROMPTS[0], guidance_scale=scale, generator=[torch.Generator().manual_seed(0)], **options).images
        for scale in (0.0, 1.0)
    )
    assert not torch.allclose(plain, drawn, atol=1e-4) and unguided.isfinite().all()


def test_chroma_lets_the_picture_see_padding_as_the_stock_pipeline_does() -> None:
    model = handle_of("ChromaPipeline")
    said = model.encode_prompts("a bear")
    row = dict(said.rows[0])
    assert row["attention_mask"].is_floating_point()  # added to the scores, where a mask of truth values would hide
    other = row | {"encoder_hidden_states": row["encoder_hidden_states"].clone()}
    other["encoder_hidden_states"][:, -1] += 1
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    first, second = (model.predict(latents, torch.tensor([500]), type(said)((each,), ("",))) for each in (row, other))
    assert not torch.equal(first, second)


def test_qwen_image_is_guided_without_a_negative_prompt_as_with_an_empty_one() -> None:
    model = handle_of("QwenImagePipeline")
    plain = model.generate("a bear", seeds=[0], steps=2, guidance=1.0)
    guided = [model.generate("a bear", seeds=[0], steps=2, guidance=9.0, negative_prompt=each) for each in (None, "")]
    assert np.array_equal(*guided) and not np.array_equal(plain, guided[0])


def test_rows_of_two_times_are_those_of_one_each() -> None:
    model = handle_of("StableDiffusion3Pipeline")
    said, latents = model.encode_prompts(PROMPTS), torch.randn(2, 4, 8, 8)
    together = model.predict(latents, torch.tensor([100.0, 900.0]), said)
    for row, time in enumerate((100.0, 900.0)):
        alone = model.predict(latents[[row]], torch.tensor([time]), said[[row]])
        torch.testing.assert_close(together[[row]], alone, rtol=1e-5, atol=1e-6)


# schedulers, pictures to start from


@pytest.mark.parametrize("name", ["euler", "heun", "dpm++", "dpm++-sde", "lcm"])
@pytest.mark.parametrize("kind", ["StableDiffusion3Pipeline", "FluxPipeline"])  # a fixed shift, and one by the size
def test_flow_schedulers_draw(kind: str, name: str) -> None:
    model, recorder = handle_of(kind), Recorder()
    pictures = model.generate("a bear", seeds=[0], steps=4, scheduler=name, controls=[recorder])
    assert pictures.std() > 5 and len(recorder.found) == (7 if name == "heun" else 4)


@pytest.mark.parametrize(("kind", "shift"), [("exponential", np.exp(0.7)), ("linear", 0.7)])
def test_a_scheduler_that_takes_no_mu_gets_the_shift_it_stands_for(kind: str, shift: float) -> None:
    own = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type=kind)
    asked = flow_scheduler("heun", own, 4, "tiny")
    found, told = told_scheduler(asked, {"mu": 0.7, "sigmas": [1.0]}, own)
    assert found.config.shift == pytest.approx(shift) and told == {}
    assert told_scheduler(own, {"mu": 0.7, "sigmas": [1.0]}, own)[1] == {"mu": 0.7, "sigmas": [1.0]}


def test_heun_draws_as_the_stock_pipeline_with_it() -> None:
    model = handle_of("StableDiffusion3Pipeline")
    model.pipeline.scheduler = diffusers.FlowMatchHeunDiscreteScheduler(shift=3.0)
    wanted = stock(model, PROMPTS[:1], [0], GUIDANCE)[1]
    assert np.array_equal(own(model, PROMPTS[:1], [0], GUIDANCE)[1], wanted)


@pytest.mark.parametrize("kind", ["FluxPipeline", "PixArtSigmaPipeline"])
def test_what_is_outside_a_mask_stays_and_a_weak_start_keeps_the_picture(kind: str) -> None:
    model = handle_of(kind)
    side = model.image_size
    picture = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    mask = np.zeros((side, side), bool)
    mask[: side // 2] = True
    drawn = model.generate("a bear", seeds=[0], steps=4, image=picture, mask=mask)[0]
    assert np.array_equal(drawn[~mask], picture[~mask]) and not np.array_equal(drawn[mask], picture[mask])
    weak, strong = (
        model.generate("a bear", seeds=[0], steps=8, image=picture, strength=share)[0].astype(float)
        for share in (0.125, 1.0)
    )
    vae = model.decode(model.encode_images(torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1))
    seen = (vae[0].permute(1, 2, 0).numpy() + 1) * 127.5
    assert np.abs(weak - seen).mean() < np.abs(strong - seen).mean()


# refusals


def test_pipelines_that_disagree_with_their_row_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = tiny_transformer_pipeline("Lumina2Pipeline")
    monkeypatch.setitem(FAMILIES, "Lumina2Pipeline", FAMILIES["StableDiffusion3Pipeline"])
    with pytest.raises(ModelError, match=r"expected to tell its transformer t and .* found 1 - t/1000 and its negated"):
        TransformerTextToImage(pipeline, "tiny")


def test_measured_time_and_sign_are_those_of_the_table(model: TransformerTextToImage) -> None:
    arguments = call_arguments(model.pipeline, model.family, ["a"], (model.image_size,) * 2, guidance=None, steps=2)
    arguments["generator"] = [torch.Generator().manual_seed(0)]
    found = measured.record(model.pipeline, arguments, steps=2, answer=measured.ones_like_prediction(model.family))
    assert measured.measured_time(found) == pytest.approx(model.family.time, abs=1e-4)
    assert measured.measured_sign(found) == model.family.sign


@pytest.mark.parametrize("part", ["vae", "text_encoder_2", "tokenizer_2"])
def test_a_missing_part_is_named(part: str) -> None:
    pipeline = tiny_transformer_pipeline("FluxPipeline")
    setattr(pipeline, part, None)
    with pytest.raises(ModelError, match=part if part != "text_encoder_2" else "FluxPipeline: cannot be called"):
        TransformerTextToImage(pipeline, "tiny")


def test_what_these_families_do_not_do_is_said_in_one_line() -> None:
    model = handle_of("FluxPipeline")
    for refused in (
        lambda: model.unet,
        lambda: model.token_positions("a bear", "bear"),
        lambda: model.generate("a", seeds=[0], negative_prompt="b"),
        lambda: model.generate("a", seeds=[0], scheduler="ddim"),
        lambda: model.generate("a", seeds=[0], scheduler=diffusers.DDIMScheduler()),
        lambda: model.generate("a", seeds=[0], steps=2000),
        lambda: attention_weights(model, "self"),
        lambda: setattr(model, "image_size", 6),
    ):
        with pytest.raises(ModelError) as caught:
            refused()
        assert "\n" not in str(caught.value) and ("tiny" in str(caught.value) or "trained on" in str(caught.value))


def test_methods_that_look_into_a_unet_name_the_pipeline() -> None:
    model = handle_of("StableDiffusion3Pipeline")
    for refused in (
        lambda: import_lora("none.safetensors", model),
        lambda: import_textual_inversion("none.safetensors", model),
        lambda: probed(model),
        lambda: diffusion_features(model, FewShotTask(labelled(3), labelled(2))),
        lambda: TunedText(model),
        lambda: attention(model, "a bear", words=["bear"]),
    ):
        with pytest.raises(ModelError, match=r"tiny: StableDiffusion3Pipeline has a transformer, .*; load a Stable"):
            refused()


def test_a_folder_is_loaded_and_a_film_maker_is_refused_before_its_weights(tmp_path: Path) -> None:
    made = tiny_transformer_pipeline("SanaPipeline")
    made.save_pretrained(tmp_path / "sana")
    model = photopic.load(tmp_path / "sana", device="cpu")
    assert isinstance(model, TransformerTextToImage) and model.image_size == 32
    assert model.digest() == TransformerTextToImage(made).digest()
    index = json.loads((tmp_path / "sana" / "model_index.json").read_text())
    (tmp_path / "sana" / "model_index.json").write_text(json.dumps(index | {"_class_name": "WanPipeline"}))
    for file in (tmp_path / "sana").rglob("*.safetensors"):
        file.unlink()
    with pytest.raises(ModelError, match="WanPipeline makes a film"):
        photopic.load(tmp_path / "sana")


def test_a_control_that_looks_into_layers_is_refused() -> None:
    class Looking(Control):
        def attention(self, scores: Tensor, place: Any, step: Step) -> Tensor:
            return scores

    with pytest.raises(ModelError, match="Looking looks into the layers of a UNet, StableDiffusion3Pipeline"):
        handle_of("StableDiffusion3Pipeline").generate("a", seeds=[0], controls=[Looking()])


def test_other_kinds_of_pipelines_are_told_apart() -> None:
    assert "makes a film" in not_taken("x", "WanPipeline") and "makes sound" in not_taken("x", "StableAudioPipeline")
    with pytest.raises(ModelError, match="StableDiffusionPipeline is no pipeline"):
        TransformerTextToImage(tiny_pipeline(), "x")
    with pytest.raises(ModelError, match="FluxPipeline has a transformer; make it"):
        TextToImage(tiny_transformer_pipeline("FluxPipeline"), "x")
