"""LoRA files of transformers: every naming means the same change, and diffusers' own loading agrees."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from photopic.core.edits import Edit, LowRankDelta, ZeroedWeights
from photopic.core.errors import EditError
from photopic.edit.interop.lora_export import Naming, export_lora
from photopic.edit.interop.lora_import import import_lora
from photopic.models.text_to_image.attention_weights import attention_rows, attention_weights
from photopic.models.text_to_image.transformer_handle import TransformerTextToImage
from tests.tiny_transformers import PROMPTS, handle_of, shared_handle

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # of diffusers, importing its own old names
LINEAR = ("attn", "attention", "ff", "proj_mlp", "proj_out")
ORIGINAL = {  # a stem of each class's original layout, with the weights that are its rows
    "FluxPipeline": ("single_blocks.0.linear1", ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")),
    "Flux2Pipeline": ("single_blocks.0.linear1", ("attn.to_qkv_mlp_proj",)),
    "StableDiffusion3Pipeline": (
        "joint_blocks.0.context_block.attn.qkv",
        ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    ),
    "Lumina2Pipeline": ("layers.0.attention.qkv", ("attn.to_q", "attn.to_k", "attn.to_v")),
    "ZImagePipeline": ("layers.0.attention.qkv", ("attention.to_q", "attention.to_k", "attention.to_v")),
    "QwenImagePipeline": ("transformer_blocks.0.attn.add_k_proj", ("attn.add_k_proj",)),
}


def low_rank(model: TransformerTextToImage, rank: int = 2, within: str = "") -> Edit:
    """A change of low rank in every linear layer of attention and feed-forward."""
    generator = torch.Generator().manual_seed(0)
    linear = {
        f"transformer.{name}.weight": part.weight
        for name, part in model.network.named_modules()
        if isinstance(part, torch.nn.Linear) and any(word in name for word in LINEAR) and name.startswith(within)
    }
    up = {name: 0.3 * torch.randn(len(weight), rank, generator=generator) for name, weight in linear.items()}
    down = {name: torch.randn(rank, weight.shape[1], generator=generator) for name, weight in linear.items()}
    return Edit((LowRankDelta(up, down, dict.fromkeys(up, 0.5)),), model.fingerprint(*linear), {})


def everywhere(model: TransformerTextToImage) -> Edit:
    """A change of rank 2 in every linear layer and convolution of a transformer."""
    draw = torch.Generator().manual_seed(1)
    found = {
        f"transformer.{name}.weight": part.weight
        for name, part in model.network.named_modules()
        if isinstance(part, torch.nn.Linear | torch.nn.Conv2d)
    }
    up = {name: torch.randn(len(weight), 2, generator=draw) for name, weight in found.items()}
    down = {name: torch.randn(2, weight[0].numel(), generator=draw) for name, weight in found.items()}
    return Edit((LowRankDelta(up, down, dict.fromkeys(up, 0.5)),), model.fingerprint(*found), {})


LAST = {  # original name -> diffusers' weight whose halves are the other way round
    "FluxPipeline": {"final_layer.adaLN_modulation.1": "norm_out.linear"},
    "Flux2Pipeline": {"final_layer.adaLN_modulation.1": "norm_out.linear"},
    "StableDiffusion3Pipeline": {
        "final_layer.adaLN_modulation.1": "norm_out.linear",
        "joint_blocks.1.context_block.adaLN_modulation.1": "transformer_blocks.1.norm1_context.linear",
    },
}
OUTSIDE = {
    "FluxPipeline": (
        "img_in",
        "txt_in",
        "time_in.in_layer",
        "vector_in.out_layer",
        "guidance_in.in_layer",
        "final_layer.linear",
    ),
    "Flux2Pipeline": ("img_in", "txt_in", "time_in.in_layer", "double_stream_modulation_img.lin", "final_layer.linear"),
    "StableDiffusion3Pipeline": (
        "x_embedder.proj",
        "context_embedder",
        "t_embedder.mlp.0",
        "y_embedder.mlp.2",
        "final_layer.linear",
    ),
}


@pytest.mark.parametrize("naming", ["kohya", "original"])
@pytest.mark.parametrize("kind", LAST)
def test_layers_outside_of_blocks_have_their_original_names_too(tmp_path: Path, kind: str, naming: Naming) -> None:
    model, path = shared_handle(kind), tmp_path / "lora.safetensors"
    edit = everywhere(model)
    export_lora(edit, path, model, rank=2, naming=naming)
    read, wanted = changes(import_lora(path, model)), changes(edit)
    assert read.keys() == wanted.keys()
    for name, each in wanted.items():
        torch.testing.assert_close(read[name].flatten(1), each.flatten(1), rtol=1e-4, atol=1e-5)
    keys = load_file(path)

    def stem(layer: str) -> str:
        return f"diffusion_model.{layer}" if naming == "original" else f"lora_unet_{layer.replace('.', '_')}"

    for layer in OUTSIDE[kind]:
        assert any(key.startswith(f"{stem(layer)}.lora") for key in keys), layer
    ends = ("lora_B.weight", "lora_A.weight") if naming == "original" else ("lora_up.weight", "lora_down.weight")
    for old, new in LAST[kind].items():
        up, down = (keys[f"{stem(old)}.{end}"] for end in ends)
        shift, scale = (up @ down).chunk(2)  # diffusers' conversions make scale and shift of these
        torch.testing.assert_close(torch.cat([scale, shift]), wanted[f"transformer.{new}.weight"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", ["double_blocks_0_img_attn_proj", "transformer_blocks_0_attn_to_out_0"])
def test_the_prefix_of_lycoris_is_read(tmp_path: Path, layer: str) -> None:
    model, path = shared_handle("FluxPipeline"), tmp_path / "x.safetensors"
    save_file(
        {f"lycoris_{layer}.lora_up.weight": torch.ones(16, 1), f"lycoris_{layer}.lora_down.weight": torch.ones(1, 16)},
        path,
    )
    assert set(changes(import_lora(path, model))) == {"transformer.transformer_blocks.0.attn.to_out.0.weight"}


def changes(edit: Edit) -> dict[str, Tensor]:
    (part,) = edit.of(LowRankDelta)
    return {name: part.scales[name] * (part.up[name] @ part.down[name]) for name in part.up}


@pytest.mark.parametrize("naming", get_args(Naming))
@pytest.mark.parametrize("kind", ORIGINAL)
def test_every_naming_means_the_same_change(tmp_path: Path, kind: str, naming: Naming) -> None:
    model, path = shared_handle(kind), tmp_path / "lora.safetensors"
    edit = low_rank(model)
    report = export_lora(edit, path, model, rank=2, naming=naming)
    assert report.values["largest_relative_error"] == 0 and not report.values["left_out"]
    read = changes(import_lora(path, model))
    assert set(read) == set(edit.of(LowRankDelta)[0].up)
    for name, wanted in changes(edit).items():
        torch.testing.assert_close(read[name], wanted, rtol=1e-4, atol=1e-5)
    stem, parts = ORIGINAL[kind]
    keys = load_file(path)
    if naming == "diffusers":
        assert all(key.startswith("transformer.") for key in keys)
    else:
        stem = f"diffusion_model.{stem}" if naming == "original" else f"lora_unet_{stem.replace('.', '_')}"
        up = keys[f"{stem}.lora_B.weight" if naming == "original" else f"{stem}.lora_up.weight"]
        assert up.shape[1] == 2 * len(parts)  # each part's own factors, one beside the other


@pytest.mark.parametrize(
    ("kind", "naming"), [("FluxPipeline", "kohya"), ("FluxPipeline", "diffusers"), ("QwenImagePipeline", "diffusers")]
)
def test_a_file_changes_what_diffusers_own_loading_changes(tmp_path: Path, kind: str, naming: Naming) -> None:
    model, theirs, path = shared_handle(kind), handle_of(kind), tmp_path / "lora.safetensors"
    # of kohya's files diffusers takes the sizes of the released Flux for granted in single blocks, and nothing outside blocks
    edit = low_rank(model, within="transformer_blocks." if naming == "kohya" else "")
    export_lora(edit, path, model, rank=2, naming=naming)
    said, times = model.encode_prompts(PROMPTS[:1]), torch.tensor([500])
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    theirs.pipeline.load_lora_weights(path)
    with torch.no_grad():
        plain, wanted = model.predict(latents, times, said), theirs.predict(latents, times, said)
        with model.edits.applied(import_lora(path, model)):
            found = model.predict(latents, times, said)
        assert torch.equal(model.predict(latents, times, said), plain)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert (found - plain).norm() > 1e-2 * plain.norm()


def test_the_rows_of_an_original_matrix_are_shared_out(tmp_path: Path) -> None:
    """Only the keys' rows of a file are not zero, so only keys change."""
    model, path = shared_handle("FluxPipeline"), tmp_path / "lora.safetensors"
    up = torch.zeros(3 * 16, 1)
    up[16:32] = 1.0
    stem = "lora_unet_double_blocks_0_txt_attn_qkv"
    save_file({f"{stem}.lora_up.weight": up, f"{stem}.lora_down.weight": torch.ones(1, 16)}, path)
    changed = {name for name, change in changes(import_lora(path, model)).items() if change.any()}
    assert changed == {"transformer.transformer_blocks.0.attn.add_k_proj.weight"}
    save_file({f"{stem}.lora_up.weight": up[:40], f"{stem}.lora_down.weight": torch.ones(1, 16)}, path)
    with pytest.raises(EditError, match=r"expected 48 rows, of transformer.*add_q_proj.*found \(40, 1\)"):
        import_lora(path, model)


def test_concept_neurons_of_a_fused_matrix_become_a_lora_of_their_rows(tmp_path: Path) -> None:
    model, path = shared_handle("Flux2Pipeline"), tmp_path / "lora.safetensors"
    (name, rows), *_ = attention_rows(model, ("v",)).items()
    columns = attention_weights(model)[name].shape[1]
    index = torch.arange(rows.start * columns, rows.stop * columns)
    edit = Edit((ZeroedWeights({name: index}),), model.fingerprint(name), {})
    export_lora(edit, path, model, rank=16, naming="original")
    (change,) = changes(import_lora(path, model)).values()
    outside = torch.ones(len(change), dtype=torch.bool)
    outside[rows.start : rows.stop] = False
    assert change[outside].abs().max() < 1e-5 < change[~outside].abs().max()


def test_original_naming_is_for_transformers_alone(tmp_path: Path) -> None:
    from tests.edit.interop.examples import mixed_edit, tiny_model

    model = tiny_model()
    with pytest.raises(EditError, match="has a UNet; use kohya"):
        export_lora(mixed_edit(model), tmp_path / "x.safetensors", model, rank=2, naming="original")


@pytest.mark.parametrize(
    ("kind", "layer", "said"),
    [
        ("FluxPipeline", "unet.down_blocks.0.attentions.0.proj_in", "a UNet, as Stable Diffusion 1.x, 2.x and XL have"),
        ("FluxPipeline", "diffusion_model.joint_blocks.0.x_block.attn.qkv", "Stable Diffusion 3"),
        ("StableDiffusion3Pipeline", "lora_unet_double_blocks_0_img_attn_qkv", "Flux or a relative of it"),
        ("QwenImagePipeline", "transformer.noise_refiner.0.attention.to_q", "Lumina 2 or Z-Image"),
    ],
)
def test_a_file_of_another_family_says_whose_names_it_has(tmp_path: Path, kind: str, layer: str, said: str) -> None:
    path = tmp_path / "x.safetensors"
    save_file({f"{layer}.lora_A.weight": torch.ones(1, 4), f"{layer}.lora_B.weight": torch.ones(4, 1)}, path)
    with pytest.raises(
        EditError, match=rf"x\.safetensors: none .* expected a LoRA for this model, its names are those of {said}"
    ):
        import_lora(path, shared_handle(kind))
