"""Edits as LoRA files: what diffusers makes of them, and the error that is reported."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from photopic.core.edits import LowRankDelta, SparseWeights, TokenEmbedding, ZeroedWeights
from photopic.core.errors import EditError
from photopic.edit.interop import export_lora, import_lora
from photopic.models.text_to_image.handle import TextToImage
from tests.edit.interop.examples import (
    BIAS,
    CONV,
    FC1,
    POINT,
    Q_PROJ,
    TO_K,
    TO_OUT,
    TO_V,
    largest_difference,
    low_rank,
    make,
    mixed_edit,
    noise,
    some_positions,
    text_output,
    tiny_model,
    unet_output,
)
from tests.tiny import tiny_pipeline, tiny_sdxl_pipeline

CLOSE = 1e-5


@pytest.mark.parametrize("naming", ["kohya", "diffusers"])
def test_diffusers_loads_an_export_without_unexpected_keys_and_as_we_do(
    naming: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, path = tiny_model(), tmp_path / "lora.safetensors"
    plain = unet_output(model.pipeline)
    export_lora(mixed_edit(model), path, model, rank=3, naming=naming)  # type: ignore[arg-type]
    pipeline = tiny_pipeline()
    with caplog.at_level(logging.WARNING):
        logging.getLogger("diffusers").addHandler(caplog.handler)
        pipeline.load_lora_weights(path)
        logging.getLogger("diffusers").removeHandler(caplog.handler)
    assert "nexpected" not in caplog.text
    assert "UNEXPECTED" not in caplog.text
    assert "MISSING" not in caplog.text
    with model.edits.applied(import_lora(path, model)):
        assert largest_difference(unet_output(model.pipeline), unet_output(pipeline)) < CLOSE
        assert largest_difference(text_output(model.pipeline), text_output(pipeline)) < CLOSE
        assert largest_difference(unet_output(pipeline), plain) > 100 * CLOSE


def test_a_kohya_export_for_sdxl_loads_in_diffusers(tmp_path: Path) -> None:
    model, path = tiny_model(sdxl=True), tmp_path / "lora.safetensors"
    names = ("unet.add_embedding.linear_1.weight", TO_K, "text_encoder_2.text_model.encoder.layers.0.mlp.fc1.weight")
    edit = make(model, low_rank(model, names))
    export_lora(edit, path, model, rank=2, naming="kohya")
    pipeline = tiny_sdxl_pipeline()
    pipeline.load_lora_weights(path)
    with model.edits.applied(edit):
        assert largest_difference(unet_output(model.pipeline), unet_output(pipeline)) < CLOSE
        assert largest_difference(text_output(model.pipeline), text_output(pipeline)) < CLOSE


def test_a_full_rank_export_is_the_edit_itself(tmp_path: Path) -> None:
    model, path = tiny_model(), tmp_path / "lora.safetensors"
    edit = mixed_edit(model, token=False)
    report = export_lora(edit, path, model, rank=32)
    assert {row["tensor"] for row in report.rows} == {TO_K, TO_V, TO_OUT, CONV, POINT, Q_PROJ, FC1}
    assert report.values["largest_relative_error"] < CLOSE
    names = [row["tensor"] for row in report.rows]
    with model.edits.applied(edit):
        wanted = [parameter(model, name) for name in names]
    with model.edits.applied(import_lora(path, model)):
        for name, each in zip(names, wanted, strict=True):
            assert largest_difference(each, parameter(model, name)) < CLOSE


def parameter(model: TextToImage, name: str) -> torch.Tensor:
    component, path = name.split(".", 1)
    return model.components[component].get_parameter(path).detach().clone()


def test_the_reported_error_is_that_of_the_file(tmp_path: Path) -> None:
    model, path = tiny_model(), tmp_path / "lora.safetensors"
    wanted = torch.zeros(32, 32)
    positions = some_positions(60, 32 * 32)
    wanted.view(-1)[positions] = noise(60, size=1.0)
    edit = make(model, SparseWeights({TO_V: positions}, {TO_V: noise(60, size=1.0)}, delta=True))
    errors = []
    for rank in (1, 4, 12):
        report = export_lora(edit, path, model, rank=rank)
        file = load_file(path)
        stem = TO_V.removesuffix(".weight")
        product = file[f"{stem}.lora_B.weight"] @ file[f"{stem}.lora_A.weight"]
        assert report.rows[0]["rank"] == rank
        assert report.rows[0]["relative_error"] == pytest.approx(float((wanted - product).norm() / wanted.norm()))
        best = torch.linalg.svdvals(wanted)[rank:].square().sum().sqrt() / wanted.norm()  # Eckart and Young
        assert report.rows[0]["relative_error"] == pytest.approx(float(best), rel=1e-4)
        errors.append(report.rows[0]["relative_error"])
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("naming", ["kohya", "diffusers"])
def test_a_low_rank_part_passes_through(naming: str, tmp_path: Path) -> None:
    model, path = tiny_model(), tmp_path / "lora.safetensors"
    part = low_rank(model, (TO_K, CONV), rank=2, scale=0.5)
    report = export_lora(make(model, part), path, model, rank=8, naming=naming)  # type: ignore[arg-type]
    assert [row["relative_error"] for row in report.rows] == [0.0, 0.0]
    assert [row["rank"] for row in report.rows] == [2, 2]
    again = import_lora(path, model).parts[0]
    assert isinstance(again, LowRankDelta)
    for name in (TO_K, CONV):
        assert torch.equal(again.product(name), part.product(name))
        assert torch.equal(again.down[name], part.down[name])


def test_what_a_lora_cannot_hold_is_named(tmp_path: Path) -> None:
    model = tiny_model()
    report = export_lora(mixed_edit(model), tmp_path / "lora.safetensors", model, rank=1)
    assert report.values["left_out"] == [BIAS, "token <mine>"]
    only_token = make(
        model, TokenEmbedding("<mine>", {"text_encoder": noise(32)}), ZeroedWeights({BIAS: torch.tensor([1])})
    )
    with pytest.raises(EditError, match=r"x\.safetensors: nothing in this edit fits .*conv1\.bias, token <mine>"):
        export_lora(only_token, tmp_path / "x.safetensors", model, rank=1)
    assert not (tmp_path / "x.safetensors").exists()


def test_another_base_and_wrong_arguments_are_refused(tmp_path: Path) -> None:
    model, path = tiny_model(), tmp_path / "x.safetensors"
    edit = mixed_edit(model)
    with pytest.raises(EditError, match=r"made for base tiny .*but this model is tiny"):
        export_lora(edit, path, tiny_model(seed=1), rank=1)
    with pytest.raises(EditError, match=r"rank: expected at least 1, found 0"):
        export_lora(edit, path, model, rank=0)
    with model.edits.applied(edit), pytest.raises(EditError, match=r"expected no edits applied"):
        export_lora(edit, path, model, rank=1)


def test_an_export_is_the_same_bytes_every_time(tmp_path: Path) -> None:
    model = tiny_model()
    for name in ("a", "b"):
        export_lora(mixed_edit(model), tmp_path / name, model, rank=2, naming="kohya")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
