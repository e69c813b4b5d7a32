"""The recipes of both text-to-image models: nothing held out is drawn, interrupted runs end the same, results load in diffusers."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTokenizer

from photopic.core.errors import PhotopicError
from photopic.core.runs import Run, read_log
from photopic.data import emoji_world
from photopic.data.scenes import Background, Placement, SceneOptions, compose, sample_scene
from tests.recipes.conftest import RECIPES, same, weights

Stage = Callable[[str], ModuleType]


def stages(edition: str, open_recipe: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Opens stages of one recipe, whose ``common`` is not the other's."""
    monkeypatch.syspath_prepend(str(RECIPES))
    open_recipe(edition)

    def opened(name: str) -> ModuleType:
        found = importlib.util.spec_from_file_location(f"stage_{name}", RECIPES / edition / f"{name}.py")
        assert found is not None and found.loader is not None
        module = importlib.util.module_from_spec(found)
        monkeypatch.setitem(sys.modules, module.__name__, module)  # where dataclasses look their types up
        found.loader.exec_module(module)
        return module

    return opened


@pytest.fixture
def first(open_recipe: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> Stage:
    return stages("emoji-diffusion", open_recipe, monkeypatch)


@pytest.fixture
def second(open_recipe: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> Stage:
    return stages("emoji-diffusion-128", open_recipe, monkeypatch)


# --- the autoencoders


def small_autoencoder(stage: ModuleType, **changed: object):
    return replace(stage.Config(), batch=4, large=2, channels=(4, 4, 8, 8), latent_channels=2, **changed)


def test_no_held_out_concept_and_no_held_out_style_is_drawn(second: Stage) -> None:
    stage, common = second("1_autoencoder"), second("common")
    drawn = [scene for step in range(16) for scene in stage.scenes_of(stage.Config(), step)]
    drawn += [
        sample_scene(common.known_scenes(size, common.OBJECTS[size]), (1, k)) for size in (64, 128) for k in range(60)
    ]
    placed = [item for scene in drawn for item in scene.placements]
    assert len(placed) > 300 and {len(scene.image) for scene in drawn} == {64, 128}
    assert {emoji_world.concept(item.concept).split for item in placed} == {"known", "train"}
    assert emoji_world.HELD_OUT_STYLE not in {item.style for item in placed}


def test_an_autoencoder_that_is_stopped_goes_on_to_the_same_weights_and_is_read_by_diffusers(
    second: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = second("1_autoencoder")
    monkeypatch.setattr(stage, "evaluate", partial(stage.evaluate, scenes=2))
    config = small_autoencoder(stage)
    whole, parts = Run(tmp_path / "whole", config), Run(tmp_path / "parts", config)
    stage.train(config, whole, "cpu", until=4, cooldown=2)
    scenes_of = stage.scenes_of

    def stopping(config, step: int):
        if step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return scenes_of(config, step)

    monkeypatch.setattr(stage, "scenes_of", stopping)
    stage.train(config, parts, "cpu", until=4, cooldown=2)
    saved = parts.load()
    assert saved is not None and saved[1]["step"] == 2  # the step that the signal met was finished and kept
    monkeypatch.setattr(stage, "scenes_of", scenes_of)
    stage.train(config, parts, "cpu", until=4, cooldown=2)
    assert same(weights(whole, ""), weights(parts, ""))

    stage.land(config, whole, tmp_path / "landed")
    report = json.loads((tmp_path / "landed" / "autoencoder.json").read_text())
    model = AutoencoderKL.from_pretrained(tmp_path / "landed" / "vae")
    average = weights(whole, "ema.")
    assert all(torch.equal(value, average[f"ema.{name}"].half().float()) for name, value in model.state_dict().items())
    assert report["reached"] == stage.evaluate(model) and report["step"] == 4
    assert [line["psnr"] for line in read_log(whole.folder) if "psnr" in line]
    images = stage.pixels([sample_scene(stage.known_scenes(), (98, index)) for index in range(128)])
    with torch.no_grad():
        spread = model.encode(images).latent_dist.mean.std().item()
    assert model.config.scaling_factor == pytest.approx(1 / spread, rel=0.01)


def test_errors_inside_objects_weigh_more(second: Stage) -> None:
    stage = second("1_autoencoder")
    model = stage.build(small_autoencoder(stage))
    images, weight = torch.zeros(1, 3, 64, 64), torch.ones(1, 1, 64, 64)
    images[..., :32] = 1.0  # the untrained model is wrong by different amounts on the two halves
    losses = []
    for half in (slice(0, 32), slice(32, 64)):
        heavy = weight.clone()
        heavy[..., half] = 50.0
        losses.append(stage.autoencoder.losses(model, images, heavy, edges=0.0, seed=0)[0].item())
    output = stage.autoencoder.losses(model, images, weight, edges=0.0, seed=0)[2]
    error = (output - images).abs() + (output - images).square()
    for loss, half, rest in (
        (losses[0], error[..., :32], error[..., 32:]),
        (losses[1], error[..., 32:], error[..., :32]),
    ):
        assert loss == pytest.approx(((50 * half.mean() + rest.mean()) / 51).item(), rel=1e-4)


def test_the_first_edition_is_trained_and_written(
    first: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = first("1_autoencoder")
    for name in ("RUNS", "MODEL"):
        monkeypatch.setattr(stage, name, tmp_path / name.lower())
    stage.main(stage.Config(steps=2, batch=2, channels=(4, 4, 8)))
    model = AutoencoderKL.from_pretrained(tmp_path / "model" / "vae")
    assert model.config.latent_channels == 4 and len(weights(Run(tmp_path / "runs" / "autoencoder"), "optimizer")) > 10


# --- the denoisers


@pytest.fixture
def bank(second: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """24 scenes through an untrained autoencoder of the second edition's shape."""
    from _common import latents

    stage, encoding = second("1_autoencoder"), second("2_latents")
    monkeypatch.setattr(latents, "PART", 8)
    landed = tmp_path / "landed"
    small = replace(small_autoencoder(stage), latent_channels=16)
    stage.build(small).half().save_pretrained(landed / "vae")
    for name, value in (("LANDED", landed), ("RUNS", tmp_path)):
        monkeypatch.setattr(encoding, name, value)
    monkeypatch.setattr(sys, "argv", ["2_latents.py", "--size", "64", "--scenes", "24", "--device", "cpu"])
    encoding.main()
    stage.build(replace(small, seed=1)).half().save_pretrained(landed / "vae")
    with pytest.raises(PhotopicError, match="autoencoder="):  # other latents are not mixed with these
        encoding.main()
    return tmp_path / "latents-64"


def small_denoiser(second: Stage):
    """The stage, and its parts with a UNet of few channels."""
    stage = second("3_unet")

    def small(config) -> UNet2DConditionModel:
        whole = stage.unet(replace(config, start="random")).config
        return UNet2DConditionModel.from_config({**whole, "block_out_channels": (16, 16, 16)})

    return stage, replace(stage.parts(), unet=small, text=second("common").FIRST_EDITION)


def test_a_stopped_denoiser_goes_on_to_the_same_weights_and_draws_in_diffusers(
    second: Stage, bank: Path, tmp_path: Path
) -> None:
    from _common import denoiser

    stage, parts = small_denoiser(second)
    parts = replace(parts, vae=tmp_path / "landed" / "vae")
    config = replace(stage.CONFIG, batch=4, save_every=2, steps=5)
    options = {"device": "cpu", "threads": 1, "compile": False, "bfloat16": False}
    runs = {name: tmp_path / name for name in ("whole", "parts")}
    denoiser.train(0, 1, parts, config, runs["whole"], bank, options)
    one = denoiser.Bank(bank, denoiser.empty_ids(parts))
    assert one.latents.shape == (24, 16, 8, 8) and one.ids.shape == (24, 24)
    draw, lost = denoiser.Bank.draw, []

    def failing(self, step: int, *given, **named):
        if step == 3:  # the step after the last checkpoint is lost
            lost.append(step)
            raise KeyboardInterrupt
        return draw(self, step, *given, **named)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(denoiser.Bank, "draw", failing)
        denoiser.train(0, 1, parts, config, runs["parts"], bank, options)
    denoiser.train(0, 1, parts, config, runs["parts"], bank, options)
    assert lost == [3] and same(*(weights(denoiser.run_of(folder, config), "") for folder in runs.values()))

    denoiser.export(parts, config, runs["whole"], tmp_path / "model")
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "model").to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a bear on a red background", num_inference_steps=1, output_type="np", height=64, width=64).images
    assert image.shape == (1, 64, 64, 3)
    assert "_name_or_path" not in (tmp_path / "model" / "unet" / "config.json").read_text()


def test_scenes_with_too_long_a_caption_are_left_out(second: Stage, tmp_path: Path, monkeypatch) -> None:
    from _common import latents

    stage, common = second("1_autoencoder"), second("common")
    monkeypatch.setattr(latents, "PART", 30)
    tokenizer = CLIPTokenizer.from_pretrained(common.FIRST_EDITION / "tokenizer", model_max_length=12)
    vae = stage.build(small_autoencoder(stage))
    options = common.known_scenes(64, (0.5, 0.5, 0.0, 0.0))
    latents.encode_scenes(tmp_path, options, vae, tokenizer, scenes=30, seed=1)
    captions = [sample_scene(options, (1, index)).caption for index in range(30)]
    short = [ids for ids in tokenizer(captions).input_ids if len(ids) <= 12]
    found = latents.Bank(tmp_path, torch.zeros(12))
    assert 5 < len(short) < 25 and len(found.latents) == len(short)
    assert [row[: len(ids)] for row, ids in zip(found.ids.tolist(), short, strict=True)] == short


def test_a_batch_holds_every_stretch_of_time_once_and_some_empty_captions(second: Stage, bank: Path) -> None:
    from _common import denoiser

    empty = torch.arange(24)
    found = denoiser.Bank(bank, empty)
    latents, noise, timesteps, ids, owners, coverage = found.draw(7, 50, seed=0, unconditional=0.2)
    assert sorted((timesteps // 20).tolist()) == list(range(50))
    assert latents.shape == noise.shape == (50, 16, 8, 8)
    silent = (ids == empty).all(1)
    assert 0 < int(silent.sum()) < 25
    assert (owners[silent] == -1).all() and (owners[~silent] == 0).any(1).all() and coverage.shape == (50, 4, 8, 8)
    again, later = found.draw(7, 50, seed=0, unconditional=0.2), found.draw(8, 50, seed=0, unconditional=0.2)
    assert torch.equal(noise, again[1]) and not torch.equal(noise, later[1])


def test_tokens_belong_to_the_thing_they_name_and_things_to_their_cells(second: Stage, tmp_path: Path) -> None:
    from _common import latents

    tokenizer = CLIPTokenizer.from_pretrained(second("common").FIRST_EDITION / "tokenizer")
    corners = ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75))
    items = [
        Placement(name, "noto", at, 0.5) for name, at in zip(("cat", "cat face", "tangerine"), corners, strict=True)
    ]
    scene = compose(items, Background("orange"), size=64)
    owners, coverage = latents._places(scene, tokenizer, 8)
    words = tokenizer.convert_ids_to_tokens(tokenizer(scene.caption).input_ids)
    said = [
        "".join(word.removesuffix("</w>") for word, k in zip(words, owners, strict=False) if k == at) for at in range(3)
    ]
    assert said == ["cat", "catface", "tangerine"]
    for thing, (x, y) in enumerate(corners):
        inside = coverage[thing, int(8 * (y - 0.25)) :, int(8 * (x - 0.25)) :][:4, :4]
        assert inside.sum() == coverage[thing].sum() > 0
    bears = compose([replace(item, concept="bear") for item in items], Background("red"), size=64)
    owners, coverage = latents._places(bears, tokenizer, 8)
    assert set(owners.tolist()) == {-1, 0} and not coverage[1:].any()
    assert (coverage[0, :4, :4].any(), coverage[0, :4, 4:].any(), coverage[0, 4:, :4].any()) == (True, True, True)


def test_attention_outside_of_a_thing_costs_its_square(second: Stage) -> None:
    second("common")
    from _common import denoiser

    owners = torch.tensor([[-1, 0, 1], [-1, -1, -1]])
    coverage = torch.zeros(2, 4, 2, 2)
    coverage[0, 0, 0, 0] = coverage[0, 1, :, 1] = 1.0  # the first thing in one cell, the second in the right half
    shares = torch.tensor([[0.4, 0.3, 0.3], [0.0, 0.1, 0.2], [0.0, 0.6, 0.0], [0.9, 0.0, 0.1]])  # (cells, tokens)
    seen = [torch.stack([shares, shares, shares * 0, shares * 0])]  # two heads of two samples
    found = denoiser.attention_loss(seen, owners, coverage, torch.ones(2))
    assert found.item() == pytest.approx((0.7**2 + 0.5**2) / 2)
    only_silent = denoiser.attention_loss(seen, owners, coverage, torch.tensor([0.0, 1.0]))
    assert only_silent.item() == 0


def test_attention_to_things_is_learnt_on_request(second: Stage, bank: Path, tmp_path: Path) -> None:
    from _common import denoiser

    stage, parts = small_denoiser(second)
    options = {"device": "cpu", "threads": 1, "compile": False, "bfloat16": True, "log": 1}
    learnt, logged = [], []
    for weight in (0.0, 10.0):
        config = replace(stage.CONFIG, batch=8, steps=2, lr=5e-3, decay=1.0, warmup=1, attention=weight)
        denoiser.train(0, 1, parts, config, tmp_path / str(weight), bank, options)
        learnt.append(weights(denoiser.run_of(tmp_path / str(weight), config), "model.unet.mid_block.attentions"))
        logged.append(read_log(tmp_path / str(weight))[-1])
    key = next(name for name in learnt[0] if "attn2.to_k" in name)
    assert (learnt[0][key] - learnt[1][key]).abs().max() > 1e-3
    assert "outside" not in logged[0] and 0 < logged[1]["outside"] < 1


def test_both_editions_have_room_to_locate_and_the_first_is_the_bundled_one(
    open_recipe: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for edition in ("emoji-diffusion", "emoji-diffusion-128"):
        stage = stages(edition, open_recipe, monkeypatch)("4_unet" if edition == "emoji-diffusion" else "3_unet")
        built = stage.unet(stage.Config())
        keys_and_values = [p for name, p in built.named_parameters() if "attn2.to_k" in name or "attn2.to_v" in name]
        assert sum(p.numel() for p in keys_and_values) >= 400_000
        assert stage.scheduler().config.prediction_type == "v_prediction"
        if edition == "emoji-diffusion":
            bundled = json.loads((stage.MODEL / "unet" / "config.json").read_text())
            ours = json.loads(built.to_json_string())
            assert {key: ours[key] for key in bundled if key != "_diffusers_version"} == {
                key: value for key, value in bundled.items() if key != "_diffusers_version"
            }


@pytest.mark.parametrize("size", [64, 128])
def test_things_are_of_the_sizes_that_were_asked_for(second: Stage, size: int) -> None:
    common = second("common")
    options: SceneOptions = common.known_scenes(size, (0.25, 0.25, 0.25, 0.25))
    low, high = common.SIDES[size]
    sides = [item.side for k in range(30) for item in sample_scene(options, (3, k)).placements]
    assert max(sides) <= high and (size == 64 or min(sides) >= low)


def test_the_committed_checkpoint_reaches_what_is_written_beside_it(second: Stage) -> None:
    stage = second("1_autoencoder")
    report = json.loads((stage.LANDED / "autoencoder.json").read_text())
    model = stage.build(stage.Config(start="landed"))
    found = stage.psnr(model, stage.scenes_of_four(), 32)
    assert found == pytest.approx((report["reached"]["psnr"], report["reached"]["objects"]), abs=0.02)
    assert sum(path.stat().st_size for path in stage.LANDED.rglob("*")) < 42e6  # with the UNet, which is 27 of them
