"""A transformer in a file, under diffusers' names or the original ones, the rest of its pipeline in a folder beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from photopic.core.errors import ModelError
from photopic.models.text_to_image.handle import TextToImage
from tests.tiny_transformers import tiny_transformer_pipeline

RENAMED = {
    "all_final_layer.2-1.": "final_layer.",
    "all_x_embedder.2-1.": "x_embedder.",
    "attention.to_out.0.": "attention.out.",
    "attention.norm_k.": "attention.k_norm.",
    "attention.norm_q.": "attention.q_norm.",
}


def original(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a Z-Image in the layout of its authors: queries, keys and values are one matrix."""
    found = {}
    for key, each in state.items():
        if "attention.to_q." in key:
            parts = [state[key.replace("to_q", f"to_{part}")] for part in "qkv"]
            found[key.replace("to_q", "qkv")] = torch.cat(parts)
        elif not any(f"attention.to_{part}." in key for part in "kv"):
            for new, old in RENAMED.items():
                key = key.replace(new, old)
            found[key] = each
    assert sum(each.numel() for each in found.values()) == sum(each.numel() for each in state.values())
    return found


def saved(folder: Path, kind: str) -> tuple[dict[str, Tensor], TextToImage]:
    """A pipeline in a folder, other weights for its transformer, and a model with these."""
    pipeline = tiny_transformer_pipeline(kind)
    pipeline.save_pretrained(folder)
    with torch.no_grad():
        for parameter in pipeline.transformer.parameters():
            parameter.mul_(1.1)
    pipeline.save_pretrained(folder.parent / "wanted")
    return dict(pipeline.transformer.state_dict()), TextToImage.load(str(folder.parent / "wanted"))


@pytest.mark.parametrize("layout", ["diffusers", "original", "comfy"])
def test_a_transformer_in_a_file_is_read_with_the_rest_of_its_pipeline(tmp_path: Path, layout: str) -> None:
    kind = "FluxPipeline" if layout == "diffusers" else "ZImagePipeline"  # diffusers converts a Flux of one width alone
    state, wanted = saved(tmp_path / "mine", kind)
    state = state if layout == "diffusers" else original(state)
    wrapped = {f"model.diffusion_model.{key}" if layout == "comfy" else key: each for key, each in state.items()}
    save_file({key: each.contiguous() for key, each in wrapped.items()}, tmp_path / "mine.safetensors")
    model = TextToImage.load(str(tmp_path / "mine.safetensors"))
    expected = wanted.parameters()
    assert model.parameters().keys() == expected.keys()
    assert all(torch.equal(each, expected[name]) for name, each in model.parameters().items())


def test_a_transformer_alone_says_what_it_lacks(tmp_path: Path) -> None:
    save_file({"double_blocks.0.img_attn.qkv.weight": torch.ones(2, 2)}, tmp_path / "flux.safetensors")
    with pytest.raises(
        ModelError, match=r"flux\.safetensors: holds a transformer alone; put the other parts of its pipeline"
    ):
        TextToImage.load(str(tmp_path / "flux.safetensors"))


def test_a_file_of_another_transformer_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "sd3", "StableDiffusion3Pipeline")
    save_file({"layers.0.attention.to_q.weight": torch.ones(2, 2)}, tmp_path / "sd3.safetensors")
    with pytest.raises(ModelError, match=r"sd3\.safetensors: cannot be read as the SD3Transformer2DModel of sd3"):
        TextToImage.load(str(tmp_path / "sd3.safetensors"))
