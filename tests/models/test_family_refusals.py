"""What transformer pipelines are refused, or do not do, is said in one line; a folder is loaded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

import photopic
from photopic.core.errors import ModelError
from photopic.core.sampling import Control, Step
from photopic.data.few_shot import FewShotTask
from photopic.learning.parameters.text_encoder_copy import TunedText
from photopic.measure.diffusion_features import diffusion_features
from photopic.models.text_to_image.attention_weights import attention_weights
from photopic.models.text_to_image.families import FAMILIES, WHY, not_taken
from photopic.models.text_to_image.handle import TextToImage
from photopic.models.text_to_image.transformer_drawing import capture
from photopic.models.text_to_image.transformer_handle import TransformerTextToImage
from tests.method_cases import labelled
from tests.tiny import tiny_pipeline
from tests.tiny_transformers import (
    GUIDANCE,
    TINY,
    drawn,
    handle_of,
    shared_handle,
    tensors_of,
    tiny_transformer_pipeline,
)

# what a pipeline may lack: Stable Diffusion 3's largest text encoder, and a guider that photopic guides in the place of
WITHOUT = {("StableDiffusion3Pipeline", "text_encoder_3"), ("HunyuanImagePipeline", "guider")}

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of diffusers, importing its own old names
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # of its DPM solver
]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"time": (1.0, 0.0)},
            "expected to tell its transformer t and to take its negated output, found 1 - t/1000 and",
        ),
        ({"sign": 1}, "to take its output as it is, found 1 - t/1000 and its negated"),
    ],
)
def test_pipelines_that_disagree_with_their_row_are_refused(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], said: str
) -> None:
    pipeline = tiny_transformer_pipeline("Lumina2Pipeline")
    monkeypatch.setitem(FAMILIES, "Lumina2Pipeline", replace(FAMILIES["Lumina2Pipeline"], **changed))
    with pytest.raises(ModelError, match=said):
        TransformerTextToImage(pipeline, "tiny")


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_missing_part_is_named_in_one_line(kind: str) -> None:
    pipeline = shared_handle(kind).pipeline
    needed = [part for part, found in pipeline.components.items() if found is not None]
    assert {"transformer", "vae", "scheduler", "text_encoder"} <= set(needed)
    for part in needed:
        kept = getattr(pipeline, part)
        setattr(pipeline, part, None)
        try:
            if (kind, part) in WITHOUT:
                assert TransformerTextToImage(pipeline, "tiny").predict is not None
                continue
            with pytest.raises(
                ModelError, match=rf"tiny: {kind} has no .*\b{part}\b.*; load the pipeline with all its"
            ) as caught:
                TransformerTextToImage(pipeline, "tiny")
            assert "\n" not in str(caught.value)
        finally:
            setattr(pipeline, part, kept)


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_negative_prompt_acts_or_is_refused_in_one_line(kind: str) -> None:
    model = shared_handle(kind)
    if model.family.unconditional == "negative":
        told = []
        for negative in (None, ["a cat"]):
            how: dict[str, Any] = {
                "generators": [torch.Generator().manual_seed(0)],
                "guidance": GUIDANCE,
                "negative": negative,
            }
            found = capture(model.pipeline, model.family, ["a bear"], (model.image_size,) * 2, **how)
            assert found.unconditional is not None
            told.append(tensors_of(found.unconditional.rows[0]))
        pairs = zip(*told, strict=True)
        assert any(first.shape != other.shape or not torch.equal(first, other) for first, other in pairs)
        return
    with pytest.raises(ModelError, match=rf"tiny: {kind} .*leave (it|the negative prompt) out") as caught:
        model.generate("a bear", seeds=[0], guidance=GUIDANCE, negative_prompt="a cat")
    assert "\n" not in str(caught.value)


def test_a_distilled_hunyuan_is_told_the_guidance_and_refuses_a_negative_prompt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind = "HunyuanImagePipeline"
    monkeypatch.setitem(TINY, kind, replace(TINY[kind], config={**TINY[kind].config, "guidance_embeds": True}))
    model = handle_of(kind)
    first, other = (drawn(model, ["a bear"], [0], scale)[0][0] for scale in (2.0, 9.0))
    assert not torch.equal(first, other)
    with pytest.raises(ModelError, match="is guided by a number in its network, a negative prompt has no effect"):
        model.generate("a bear", seeds=[0], guidance=GUIDANCE, negative_prompt="a cat")


def test_what_these_families_do_not_do_is_said_in_one_line() -> None:
    model = shared_handle("FluxPipeline")
    for refused in (
        lambda: model.unet,
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
    model = shared_handle("StableDiffusion3Pipeline")
    for refused in (
        lambda: diffusion_features(model, FewShotTask(labelled(3), labelled(2))),
        lambda: TunedText(model),
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


def test_what_makes_sound_with_a_unet_is_refused_before_its_weights_too(tmp_path: Path) -> None:
    index = {"_class_name": "AudioLDM2Pipeline", "unet": ["diffusers", "AudioLDM2UNet2DConditionModel"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="AudioLDM2Pipeline makes sound"):
        photopic.load(tmp_path)


def test_a_control_that_looks_into_layers_is_refused() -> None:
    class Looking(Control):
        def block(self, output: Tensor, place: Any, step: Step) -> Tensor:
            return output

    with pytest.raises(ModelError, match="Looking looks into the layers of a UNet, StableDiffusion3Pipeline"):
        shared_handle("StableDiffusion3Pipeline").generate("a", seeds=[0], controls=[Looking()])


def test_other_kinds_of_pipelines_are_told_apart() -> None:
    assert "makes a film" in not_taken("x", "WanPipeline") and "makes sound" in not_taken("x", "StableAudioPipeline")
    assert "what stands in quotes" in not_taken("x", "GlmImagePipeline")
    assert "has noise levels" in not_taken("x", "Cosmos2TextToImagePipeline")  # its name begins as those of films do
    known = dir(diffusers)  # without importing each
    for kind in ("StableVideoDiffusion", "I2VGenXL", "HeliosPyramid", "Kandinsky6TI2VA", "SanaWM", "PIA", "MotifVideo"):
        assert "makes a film" in not_taken("x", f"{kind}Pipeline") and f"{kind}Pipeline" in known
    assert "makes sound" in not_taken("x", "AudioLDM2Pipeline")
    for kind in ("FluxImg2Img", "StableDiffusion3Inpaint", "ZImageInpaint", "Flux2KleinInpaint", "ChromaImg2Img"):
        assert "asks for a picture beside the text; load it as" in not_taken("x", f"{kind}Pipeline")
        assert f"{kind}Pipeline" in known
    assert "no pipeline that photopic takes" in not_taken("x", "FluxControlInpaintPipeline")
    assert all(kind in known and kind not in FAMILIES for kind in WHY)
    with pytest.raises(ModelError, match="StableDiffusionPipeline is no pipeline"):
        TransformerTextToImage(tiny_pipeline(), "x")
    with pytest.raises(ModelError, match="FluxPipeline has a transformer; make it"):
        TextToImage(tiny_transformer_pipeline("FluxPipeline"), "x")
