"""The adapter that reads conditions: dropped ones do nothing, to the bit; its files; and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from photopic import load
from photopic.core.errors import ModelError
from photopic.data.conditions import Conditions
from photopic.data.extraction import Embedded, from_scene, random_hidden
from photopic.data.scenes import SceneOptions, sample_scene
from photopic.models.text_to_image.condition_files import read_about, read_encoder
from photopic.models.text_to_image.conditional import ConditionalTextToImage, batch_of
from tests.tiny_conditional import NAMES, tiny_conditional
from tests.tiny_encoders import tiny_dual_encoder


def everything(seed: int = 0) -> Conditions:
    scene = sample_scene(SceneOptions(("cat", "bear"), size=32), seed)
    vector = np.random.default_rng(seed).normal(size=16).astype(np.float16)
    hidden = random_hidden(np.random.default_rng(seed), 32)
    return from_scene(scene, hidden=hidden, embedded=Embedded(vector, tiny_dual_encoder().digest()))


@pytest.fixture(scope="module")
def model() -> ConditionalTextToImage:
    return tiny_conditional()


def predicted(model: ConditionalTextToImage, sets: list[Conditions] | None) -> torch.Tensor:
    noisy = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    text, timestep = model.encode_prompts(["a bear", "a cat"]), torch.tensor([600, 50])
    with torch.no_grad():
        if sets is None:
            return model.predict(noisy, timestep, text)
        with model.conditioned(model.encode_conditions(sets)):
            return model.predict(noisy, timestep, text)


def test_without_conditions_it_is_its_base_bit_for_bit(model: ConditionalTextToImage) -> None:
    empty = Conditions(32, {"caption": "a bear"})
    assert torch.equal(predicted(model, [empty, empty]), predicted(model, None))


def test_local_conditions_do_nothing_before_training(model: ConditionalTextToImage) -> None:
    fresh, local = tiny_conditional(trained=False), [everything().only(["sketch", "depth", "masked"])] * 2
    assert torch.equal(predicted(fresh, local), predicted(fresh, None))
    assert not torch.equal(predicted(model, local), predicted(model, None))


@pytest.mark.parametrize("name", NAMES)
def test_each_condition_acts_on_its_own_row_alone(model: ConditionalTextToImage, name: str) -> None:
    empty, found = Conditions(32, {}), everything().only([name])
    plain, told = predicted(model, None), predicted(model, [found, empty])
    assert (told[0] - plain[0]).abs().max() > 1e-5
    assert told[1] == pytest.approx(plain[1], abs=1e-6)  # tokens that are masked only change the order of sums


def test_what_is_dropped_may_have_any_value(model: ConditionalTextToImage) -> None:
    one, other = everything(0), everything(1)
    encoder, shape = model.condition_encoder, model.condition_encoder.shape
    values, kept = batch_of([one, one], shape)
    strange, _ = batch_of([other, other], shape)
    for name in NAMES:
        without = {**kept, name: torch.zeros(2)}
        found = [encoder({**values, name: each[name]}, without) for each in (values, strange)]
        for field in ("time", "tokens", "told", "local", "any"):
            assert torch.equal(getattr(found[0], field), getattr(found[1], field)), name


def test_the_order_of_local_conditions_does_not_matter(model: ConditionalTextToImage) -> None:
    found = everything()
    turned = Conditions(32, dict(reversed(list(found.values.items()))), {}, found.encoder)
    assert torch.equal(predicted(model, [found, found]), predicted(model, [turned, turned]))


def test_hooks_go_and_the_base_stays(model: ConditionalTextToImage) -> None:
    before = predicted(model, None)
    predicted(model, [everything()] * 2)
    assert torch.equal(predicted(model, None), before)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.unet.modules())


def test_a_folder_loads_again_and_is_told_from_a_plain_one(model: ConditionalTextToImage, tmp_path: Path) -> None:
    model.save(tmp_path / "x")
    again = load(tmp_path / "x", device="cpu")
    assert isinstance(again, ConditionalTextToImage) and again.about.encoder == "tiny-vit" and again.about.base == ""
    for name, value in again.condition_encoder.state_dict().items():
        assert torch.equal(value, model.condition_encoder.state_dict()[name].half().float())
    assert again.digest() != model.digest()  # by the rounding to half precision
    assert "conditions" in again.components


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "other"}, "other values"),
        ({"palette": "0"}, "other palette colours"),
        ({"shape": {"names": ["weather"]}}, "another file"),
        ({"base": "no-such-model"}, "no bundled model"),
        ({"shape": None}, "another file"),
    ],
)
def test_other_files_are_refused(
    model: ConditionalTextToImage, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    model.save(tmp_path)
    stated = json.loads((tmp_path / "conditions.json").read_text())
    (tmp_path / "conditions.json").write_text(json.dumps({**stated, **change}))
    with pytest.raises(ModelError, match=said):
        read_about(tmp_path) and load(tmp_path, device="cpu")


def test_weights_that_are_not_finite_or_not_there_are_refused(model: ConditionalTextToImage, tmp_path: Path) -> None:
    model.save(tmp_path)
    weights = load_file(tmp_path / "conditions.safetensors")
    save_file({**weights, "conv_new.bias": weights["conv_new.bias"] * torch.nan}, tmp_path / "conditions.safetensors")
    with pytest.raises(ModelError, match=r"conv_new.bias is not finite"):
        read_encoder(tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / "conditions.safetensors")
    with pytest.raises(ModelError, match="does not fit"):
        read_encoder(tmp_path)


def test_conditions_of_another_kind_size_or_encoder_are_refused(model: ConditionalTextToImage) -> None:
    with pytest.raises(ModelError, match="was not trained with skeleton; it reads caption, embedding"):
        model.check_conditions(Conditions(32, {"skeleton": np.zeros((1, 32, 32), np.uint8)}))
    with pytest.raises(ModelError, match="--size 32"):
        model.check_conditions(Conditions(64, {}))
    with pytest.raises(ModelError, match="embeddings of tiny-vit"):
        model.check_conditions(Conditions(32, {"embedding": np.ones(16, np.float16)}, {}, "other"))
