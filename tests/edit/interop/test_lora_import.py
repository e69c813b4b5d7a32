"""LoRA files of other libraries, read as diffusers itself reads them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

from photopic.core.edits import LowRankDelta
from photopic.core.errors import EditError
from photopic.edit.interop import import_file, import_lora
from photopic.edit.interop._names import kohya_names, layers, original_names
from tests.edit.interop.examples import (
    ATTENTION,
    largest_difference,
    make,
    mixed_edit,
    noise,
    text_output,
    tiny_model,
    unet_output,
)
from tests.tiny import tiny_pipeline, tiny_sdxl_pipeline

TARGETS = ["to_k", "to_out.0", "proj_in", "conv1", "ff.net.0.proj", "time_emb_proj", "conv_shortcut"]
CLOSE = 1e-5


def assert_equals_diffusers(path: Path, *, sdxl: bool = False) -> None:
    """Our import changes the outputs, and to what diffusers' own loading gives."""
    model = tiny_model(sdxl=sdxl)
    plain = unet_output(model.pipeline), text_output(model.pipeline)
    pipeline = tiny_sdxl_pipeline() if sdxl else tiny_pipeline()
    pipeline.load_lora_weights(path)
    edit = import_lora(path, model)
    with model.edits.applied(edit):
        for ours, theirs, base in zip(
            (unet_output(model.pipeline), text_output(model.pipeline)),
            (unet_output(pipeline), text_output(pipeline)),
            plain,
            strict=True,
        ):
            assert largest_difference(ours, theirs) < CLOSE
            assert largest_difference(ours, base) > 100 * CLOSE
    assert torch.equal(unet_output(model.pipeline), plain[0])


def adapted(module: Any, targets: list[str], **options: Any) -> tuple[dict[str, Tensor], LoraConfig]:
    """The state of a random LoRA that peft made, and its configuration."""
    config = LoraConfig(r=4, lora_alpha=2, target_modules=targets, init_lora_weights=False, **options)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module.add_adapter(config)
    return get_peft_model_state_dict(module), config


def test_a_file_that_diffusers_saved_equals_its_own_loading(tmp_path: Path) -> None:
    pipeline = tiny_pipeline()
    unet, config = adapted(pipeline.unet, TARGETS, rank_pattern={"conv1": 2}, alpha_pattern={"to_k": 8})
    text, text_config = adapted(pipeline.text_encoder, ["q_proj", "fc2"])
    StableDiffusionPipeline.save_lora_weights(
        tmp_path,
        unet,
        text,
        unet_lora_adapter_metadata=config.to_dict(),
        text_encoder_lora_adapter_metadata=text_config.to_dict(),
    )
    path = tmp_path / "pytorch_lora_weights.safetensors"
    assert_equals_diffusers(path)
    scales = import_lora(path, tiny_model()).parts[0].scales  # type: ignore[union-attr]
    assert scales[f"unet.{ATTENTION}.attn2.to_k.weight"] == 2.0  # alpha 8, rank 4
    assert scales["unet.mid_block.resnets.0.conv1.weight"] == 1.0  # alpha 2, rank 2
    assert scales[f"unet.{ATTENTION}.ff.net.0.proj.weight"] == 0.5


def test_a_file_without_metadata_has_scale_one(tmp_path: Path) -> None:
    pipeline = tiny_pipeline()
    unet, _ = adapted(pipeline.unet, TARGETS)
    text, _ = adapted(pipeline.text_encoder, ["q_proj", "fc2"])
    StableDiffusionPipeline.save_lora_weights(tmp_path, unet, text)
    assert_equals_diffusers(tmp_path / "pytorch_lora_weights.safetensors")


def test_the_older_names_of_diffusers_equal_its_own_loading(tmp_path: Path) -> None:
    tensors = {}
    for projection, width in (("to_q", 32), ("to_k", 32), ("to_out", 32)):
        stem = f"unet.{ATTENTION}.attn2.processor.{projection}_lora"
        tensors |= {f"{stem}.down.weight": noise(3, width), f"{stem}.up.weight": noise(32, 3, seed=2, size=2.0)}
    stem = f"unet.{ATTENTION}.ff.net.2.lora"
    tensors |= {f"{stem}.down.weight": noise(3, 128), f"{stem}.up.weight": noise(32, 3, seed=2, size=2.0)}
    for projection in ("q_proj", "out_proj"):
        stem = f"text_encoder.text_model.encoder.layers.0.self_attn.{projection}.lora_linear_layer"
        tensors |= {f"{stem}.down.weight": noise(3, 32), f"{stem}.up.weight": noise(32, 3, seed=2, size=2.0)}
    save_file(tensors, tmp_path / "old.safetensors")
    assert_equals_diffusers(tmp_path / "old.safetensors")


def kohya_file(path: Path, stems: dict[str, tuple[int, ...]], alpha: float = 2.0, rank: int = 4) -> Path:
    """A file of the kohya scripts: stem to the shape of the weight."""
    tensors = {}
    for number, (stem, shape) in enumerate(stems.items()):
        tail = (1, 1) if len(shape) == 4 else ()
        tensors[f"{stem}.lora_down.weight"] = noise(rank, *shape[1:], seed=number)
        tensors[f"{stem}.lora_up.weight"] = noise(shape[0], rank, *tail, seed=number + 99, size=2.0)
        tensors[f"{stem}.alpha"] = torch.tensor(alpha)
    save_file(tensors, path)
    return path


def test_a_kohya_file_equals_diffusers_loading(tmp_path: Path) -> None:
    attention = "lora_unet_mid_block_attentions_0_transformer_blocks_0"
    stems = {
        f"{attention}_attn2_to_k": (32, 32),
        f"{attention}_attn1_to_out_0": (32, 32),
        f"{attention}_ff_net_0_proj": (256, 32),
        "lora_unet_down_blocks_0_attentions_0_proj_in": (16, 16, 1, 1),
        "lora_unet_down_blocks_1_resnets_0_conv1": (32, 16, 3, 3),
        "lora_unet_down_blocks_0_downsamplers_0_conv": (16, 16, 3, 3),
        "lora_unet_up_blocks_0_resnets_0_time_emb_proj": (32, 64),
        "lora_unet_time_embedding_linear_1": (64, 16),
        "lora_unet_conv_in": (16, 4, 3, 3),
        "lora_te_text_model_encoder_layers_0_self_attn_q_proj": (32, 32),
        "lora_te_text_model_encoder_layers_0_self_attn_out_proj": (32, 32),
        "lora_te_text_model_encoder_layers_1_mlp_fc1": (64, 32),
    }
    path = kohya_file(tmp_path / "kohya.safetensors", stems)
    assert_equals_diffusers(path)
    part = import_lora(path, tiny_model()).parts[0]
    assert isinstance(part, LowRankDelta)
    assert set(part.scales.values()) == {0.5}
    assert len(part.up) == len(stems)


def test_an_sdxl_file_in_the_original_layout_equals_diffusers_loading(tmp_path: Path) -> None:
    stems = {
        "lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_k": (16, 64),
        "lora_unet_input_blocks_2_0_op": (16, 16, 3, 3),
        "lora_unet_input_blocks_3_0_in_layers_2": (32, 16, 3, 3),
        "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q": (32, 32),
        "lora_unet_middle_block_2_out_layers_3": (32, 32, 3, 3),
        "lora_unet_output_blocks_0_0_skip_connection": (32, 64, 1, 1),
        "lora_unet_output_blocks_1_1_proj_out": (32, 32),
        "lora_unet_output_blocks_1_2_conv": (32, 32, 3, 3),
        "lora_te1_text_model_encoder_layers_0_self_attn_out_proj": (32, 32),
        "lora_te2_text_model_encoder_layers_0_mlp_fc2": (32, 64),
    }
    assert_equals_diffusers(kohya_file(tmp_path / "sdxl.safetensors", stems), sdxl=True)


def test_every_layer_of_a_model_has_kohya_names_of_its_own() -> None:
    for sdxl in (False, True):
        model = tiny_model(sdxl=sdxl)
        names = layers(model)
        found = kohya_names(model, names)
        assert set(found.values()) == set(names)
        unet = [name.removeprefix("unet.").removesuffix(".weight") for name in names if name.startswith("unet.")]
        original = original_names(unet)
        assert set(original) == set(unet)
        assert len(set(original.values())) == len(unet)


def test_unknown_keys_half_a_pair_and_wrong_shapes_are_named(tmp_path: Path) -> None:
    path, model = tmp_path / "lora.safetensors", tiny_model()
    good = load_file(kohya_file(path, {"lora_unet_conv_in": (16, 4, 3, 3)}))
    cases = {
        r"1 of its 4 tensors fit no layer of tiny: lora_unet_conv_on\.alpha": {
            **good,
            "lora_unet_conv_on.alpha": torch.ones(()),
        },
        r"none of its 1 tensors fits a layer of tiny \(transformer\.x\.lora_A\.weight\)": {
            "transformer.x.lora_A.weight": torch.ones(1, 1)
        },
        r"lora_unet_conv_in\.lora_down\.weight: expected both factors of unet\.conv_in\.weight, found no up": {
            key: tensor for key, tensor in good.items() if "up" not in key
        },
        r"lora_unet_conv_in\.lora_down\.weight: expected factors .* shape \(16, 4, 3, 3\), found": {
            **good,
            "lora_unet_conv_in.lora_down.weight": torch.ones(4, 4, 1, 9),
        },
        r"lora_unet_conv_in\.lora_up\.weight: expected finite": {
            **good,
            "lora_unet_conv_in.lora_up.weight": torch.full((16, 4, 1, 1), torch.nan),
        },
        r"lora_unet_conv_in\.alpha: expected one finite number": {**good, "lora_unet_conv_in.alpha": torch.ones(2)},
        r"unet\.conv_in\.lora_A\.weight: means the same|lora_down\.weight: means the same": {
            **good,
            "unet.conv_in.lora_A.weight": torch.ones(4, 4, 3, 3),
        },
    }
    for message, tensors in cases.items():
        save_file(tensors, path)
        with pytest.raises(EditError, match=rf"lora\.safetensors: .*{message}|lora\.safetensors: {message}"):
            import_lora(path, model)


def test_files_that_are_no_safetensors_or_not_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "lora.bin").write_bytes(b"\x80\x04no pickle is opened")
    model = tiny_model()
    with pytest.raises(EditError, match=r"lora\.bin: expected a safetensors file"):
        import_lora(tmp_path / "lora.bin", model)
    with pytest.raises(EditError, match=r"none\.safetensors: expected a safetensors file, found nothing"):
        import_lora(tmp_path / "none.safetensors", model)
    os.mkfifo(tmp_path / "pipe.safetensors")
    for read in (import_lora, lambda path, model: import_file(model, str(path))):
        with pytest.raises(EditError, match=r"pipe\.safetensors: expected a safetensors file.* found a pipe"):
            read(tmp_path / "pipe.safetensors", model)


def test_a_model_with_edits_applied_is_refused(tmp_path: Path) -> None:
    path, model = kohya_file(tmp_path / "a.safetensors", {"lora_unet_conv_in": (16, 4, 3, 3)}), tiny_model()
    with model.edits.applied(mixed_edit(model)), pytest.raises(EditError, match=r"tiny: expected no edits applied"):
        import_lora(path, model)
    assert make(model, *import_lora(path, model).parts).touched().keys() == {"unet.conv_in.weight"}
