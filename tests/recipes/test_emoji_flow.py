"""The recipe of emoji-flow: it trains on what its pipeline is given, goes on exactly, and its checkpoint draws as diffusers."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from torch import Tensor

from photopic.core.runs import Run
from photopic.models.text_to_image.handle import TextToImage
from tests.recipes.conftest import RECIPES, same, weights

SAID = ["a bear on a red background", "a cat left of a dog on a dotted teal background"]
LANDED = RECIPES / "emoji-flow" / "checkpoint"


@pytest.fixture
def stage(open_recipe: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(RECIPES))
    open_recipe("emoji-flow")
    found = importlib.util.spec_from_file_location("stage_flow", RECIPES / "emoji-flow" / "2_transformer.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    monkeypatch.setitem(sys.modules, module.__name__, module)  # where dataclasses look their types up
    found.loader.exec_module(module)
    small = module.fresh_transformer
    monkeypatch.setattr(module, "fresh_transformer", lambda layers: small(1, width=32))
    return module


class FewScenes:
    """A bank of eight random scenes, drawn as ``Bank`` draws."""

    def __init__(self, *_: object) -> None:
        draw = torch.Generator().manual_seed(0)
        self.latents, self.ids = torch.randn(8, 16, 8, 8, generator=draw), torch.randint(0, 99, (8, 24), generator=draw)

    def draw(self, step: int, batch: int, *, seed: int, unconditional: float) -> tuple[Tensor, ...]:
        draw = torch.Generator().manual_seed(100 * seed + step)
        pick = torch.randint(8, (batch,), generator=draw)
        times = torch.randint(1000, (batch,), generator=draw)
        return self.latents[pick], torch.randn(batch, 16, 8, 8, generator=draw), times, self.ids[pick]


def trained(stage: ModuleType, name: str, *options: str) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["2_transformer.py", "--name", name, "--batch", "4", *options])
        stage.main()
    return stage.run_of(name, replace(stage.Config(), batch=4))


def test_a_run_that_is_gone_on_with_ends_as_one_that_was_never_stopped_and_draws(
    stage: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "RUNS", tmp_path)
    monkeypatch.setattr(stage, "LANDED", tmp_path / "landed")
    monkeypatch.setattr(stage, "Bank", FewScenes)
    whole = trained(stage, "whole", "--steps", "4")
    trained(stage, "parts", "--steps", "2")
    parts = trained(stage, "parts", "--steps", "4")
    assert same(weights(whole, ""), weights(parts, "")) and len(weights(whole, "optimizer")) > 10
    trained(stage, "whole", "--export")
    assert "_name_or_path" not in (tmp_path / "landed" / "transformer" / "config.json").read_text()
    model = TextToImage.load(str(tmp_path / "landed"))
    average = weights(whole, "ema.transformer.")
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, average[f"ema.transformer.{name}"].half().float())
    assert model.generate(SAID, seeds=[0, 1], steps=2).shape == (2, 64, 64, 3)


def test_training_sees_the_text_that_the_pipeline_gives(stage: ModuleType) -> None:
    flow = stage.Flow(stage.Config())
    pipeline = stage.pipeline_of(flow.transformer)
    ids = stage.tokenizer()(SAID, padding="max_length", return_tensors="pt").input_ids
    states, pooled = flow.text(ids)
    given = pipeline.encode_prompt(SAID, None, None, do_classifier_free_guidance=False, max_sequence_length=0)
    assert torch.equal(states, given[0]) and torch.equal(pooled, given[2])
    assert states.shape == (2, 24, 320) and not any(name.startswith("encoders") for name in flow.state_dict())


def test_the_loss_is_of_the_velocity_at_logit_normal_noise(stage: ModuleType) -> None:
    latents, noise = torch.randn(2, 4000, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    seen: list[Tensor] = []

    def exact(noisy: Tensor, sigma: Tensor, ids: Tensor) -> Tensor:
        seen.append(sigma)
        assert torch.allclose(
            noisy, (1 - sigma.view(-1, 1, 1, 1)) * latents + sigma.view(-1, 1, 1, 1) * noise, atol=1e-6
        )
        return noise - latents + 0.5

    times = torch.arange(4000) // 4
    assert stage.loss_of(exact, (latents, noise, times, None)).item() == pytest.approx(0.25)
    logits = seen[0].logit()
    assert logits.mean().abs() < 0.01 and logits.std() == pytest.approx(1, abs=0.02)


def test_the_committed_checkpoint_draws_as_diffusers_draws_it() -> None:
    model = TextToImage.load(str(LANDED))
    pipeline = StableDiffusion3Pipeline.from_pretrained(
        LANDED, dtype=torch.float32, text_encoder_3=None, tokenizer_3=None
    )
    pipeline.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 2, "guidance_scale": 4.0, "max_sequence_length": 0}
    stock = pipeline(SAID[0], generator=torch.Generator().manual_seed(3), output_type="np", **options).images[0]
    drawn = model.generate(SAID[0], seeds=[3], steps=2, guidance=4.0)[0]
    assert np.abs(stock * 255 - drawn).max() < 1
    assert json.loads((LANDED / "model_index.json").read_text())["_call"] == {"max_sequence_length": 0}
    assert sum(path.stat().st_size for path in LANDED.rglob("*")) < 31e6
