"""LoHa, LoKr, DoRA, OFT and BOFT files change what peft's own merging changes, on transformers and UNets, and leave no trace."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import BOFTConfig, LoHaConfig, LoKrConfig, LoraConfig, OFTConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from photopic.core.edits import DenseDelta, LowRankDelta
from photopic.core.errors import EditError
from photopic.edit.interop import import_lora
from photopic.models.text_to_image.handle import TextToImage
from tests.edit.interop.examples import CONV, TO_K, noise, tiny_model
from tests.tiny_transformers import shared_handle

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # of diffusers, importing its own old names
CONFIGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "LoHa": (LoHaConfig, {"r": 2, "alpha": 3, "init_weights": False}),
    "LoHa of high rank": (LoHaConfig, {"r": 6, "alpha": 3, "init_weights": False}),
    "LoKr": (LoKrConfig, {"r": 2, "alpha": 3, "init_weights": False}),
    "LoKr of whole matrices": (LoKrConfig, {"r": 64, "alpha": 32, "init_weights": False}),
    "LoKr of four factors": (LoKrConfig, {"r": 1, "alpha": 3, "decompose_both": True, "init_weights": False}),
    "DoRA": (LoraConfig, {"r": 2, "lora_alpha": 3, "use_dora": True, "init_lora_weights": False}),
}
TURNED: dict[str, tuple[Any, dict[str, Any]]] = {  # of linear layers
    "OFT": (OFTConfig, {"oft_block_size": 4, "init_weights": False}),
    "OFT of three terms": (OFTConfig, {"oft_block_size": 4, "init_weights": False, "num_cayley_neumann_terms": 3}),
    "OFT of two terms": (OFTConfig, {"oft_block_size": 4, "init_weights": False, "num_cayley_neumann_terms": 2}),
    "OFT of seven terms": (OFTConfig, {"oft_block_size": 8, "init_weights": False, "num_cayley_neumann_terms": 7}),
    "OFT, exact": (OFTConfig, {"oft_block_size": 4, "init_weights": False, "use_cayley_neumann": False}),
    "OFT, shared": (OFTConfig, {"oft_block_size": 4, "init_weights": False, "block_share": True}),
    "OFT, held": (OFTConfig, {"oft_block_size": 4, "init_weights": False, "coft": True, "eps": 0.3}),
    "BOFT": (BOFTConfig, {"boft_block_size": 4, "init_weights": False}),
}
PIPELINES = {
    "FluxPipeline": "transformer",
    "StableDiffusion3Pipeline": "transformer",
    "QwenImagePipeline": "transformer",
}


def trained(model: TextToImage, kind: str, folder: Path, targets: list[str]) -> dict[str, Tensor]:
    """An adapter of peft in a folder named as its component; returns the weights that it merges into."""
    component = next(each for each in ("transformer", "unet") if each in model.components)
    config, settings = (CONFIGS | TURNED)[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        adapted = get_peft_model(copy.deepcopy(model.components[component]), config(target_modules=targets, **settings))
        for name, part in adapted.named_parameters():
            if "magnitude" in name:  # that of the base as it begins
                part.data *= 1 + 0.3 * torch.rand_like(part)
            if "oft_" in name:  # rotations and scales that one can see
                part.data = part.data + 0.2 * torch.randn_like(part)
    adapted.save_pretrained(folder / component)
    merged = adapted.merge_and_unload()
    return {f"{component}.{name}": part.detach().clone() for name, part in merged.named_parameters()}


def check(model: TextToImage, path: Path, wanted: dict[str, Tensor]) -> None:
    """The file read as an edit makes the weights those that are wanted, and reverting gives back every byte."""
    before = {name: part.detach().clone() for name, part in model.parameters().items()}
    edit = import_lora(path, model)
    changed = {name for name in wanted if not torch.equal(wanted[name], before[name])}
    assert changed and set(edit.touched()) == changed
    with model.edits.applied(edit):
        for name, part in model.parameters().items():
            if name in wanted:
                torch.testing.assert_close(part, wanted[name], rtol=1e-4, atol=1e-6)
    assert all(torch.equal(part, before[name]) for name, part in model.parameters().items())


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_on_transformers_a_folder_of_peft_is_what_peft_merges(tmp_path: Path, pipeline: str, kind: str) -> None:
    model = shared_handle(pipeline)
    check(model, tmp_path, trained(model, kind, tmp_path, ["to_q", "to_k", "add_k_proj"]))


@pytest.mark.filterwarnings("ignore::UserWarning")  # of the BOFT of peft, which looks for a compiler
@pytest.mark.parametrize("kind", TURNED)
@pytest.mark.parametrize("pipeline", ["FluxPipeline", "QwenImagePipeline"])
def test_rotations_of_a_folder_of_peft_are_what_peft_merges(tmp_path: Path, pipeline: str, kind: str) -> None:
    model = shared_handle(pipeline)
    check(model, tmp_path, trained(model, kind, tmp_path, ["to_q", "add_k_proj"]))


@pytest.mark.parametrize("kind", CONFIGS)
def test_on_a_unet_with_convolutions_too(tmp_path: Path, kind: str) -> None:
    model = tiny_model()
    check(model, tmp_path, trained(model, kind, tmp_path, ["to_k", "conv1"]))


def test_a_loha_of_low_rank_stays_two_factors_and_one_of_high_rank_becomes_whole(tmp_path: Path) -> None:
    model = tiny_model()
    for kind, part in (("LoHa", LowRankDelta), ("LoHa of high rank", DenseDelta)):
        trained(model, kind, tmp_path / kind, ["to_k"])
        (found,) = import_lora(tmp_path / kind, model).parts
        assert isinstance(found, part)


def kohya(name: str) -> str:
    return "lora_" + name.removesuffix(".weight").replace(".", "_")


def test_alpha_and_the_norms_of_lycoris_files_count(tmp_path: Path) -> None:
    """Its names, alpha over rank, norms an output, or an input."""
    model, path = tiny_model(), tmp_path / "x.safetensors"
    base = model.parameters()[TO_K].detach()
    up, down, norms = noise(len(base), 2), noise(2, base.shape[1]), noise(1, base.shape[1]).abs() + 0.5
    stem = kohya(TO_K)
    parts = {f"{stem}.lora_up.weight": up, f"{stem}.lora_down.weight": down, f"{stem}.alpha": torch.tensor(1.0)}
    changed = base + 0.5 * up @ down
    save_file(parts | {f"{stem}.dora_scale": norms}, path)
    check(model, path, {TO_K: changed / changed.norm(dim=0, keepdim=True) * norms})
    outputs = noise(len(base), 1).abs() + 0.5
    save_file(parts | {f"{stem}.dora_scale": outputs}, path)
    check(model, path, {TO_K: changed / changed.norm(dim=1, keepdim=True) * outputs})
    first, second = noise(4, 2), noise(len(base) // 4, base.shape[1] // 2)
    save_file({f"{stem}.lokr_w1": first, f"{stem}.lokr_w2": second, f"{stem}.alpha": torch.tensor(7.0)}, path)
    check(model, path, {TO_K: base + torch.kron(first, second)})  # of whole matrices no alpha counts


@pytest.mark.parametrize("kind", ["LoHa", "LoKr", "DoRA"])
def test_rows_of_an_original_matrix_are_shared_out(tmp_path: Path, kind: str) -> None:
    """Of Flux's fused qkv each weight takes its rows."""
    model, path = shared_handle("FluxPipeline"), tmp_path / "x.safetensors"
    names = [f"transformer.transformer_blocks.0.attn.add_{each}_proj.weight" for each in "qkv"]
    base = torch.cat([model.parameters()[name].detach() for name in names])  # (48, 16)
    stem = "lora_unet_double_blocks_0_txt_attn_qkv"
    if kind == "LoHa":
        parts = {
            "hada_w1_a": noise(48, 1),
            "hada_w1_b": noise(1, 16),
            "hada_w2_a": noise(48, 1),
            "hada_w2_b": noise(1, 16),
        }
        whole = base + (parts["hada_w1_a"] @ parts["hada_w1_b"]) * (parts["hada_w2_a"] @ parts["hada_w2_b"])
    elif kind == "LoKr":
        parts = {"lokr_w1": noise(4, 4), "lokr_w2": noise(12, 4)}
        whole = base + torch.kron(parts["lokr_w1"], parts["lokr_w2"])
    else:
        parts = {
            "lora_up.weight": noise(48, 1),
            "lora_down.weight": noise(1, 16),
            "dora_scale": noise(48, 1).abs() + 0.5,
        }
        whole = base + parts["lora_up.weight"] @ parts["lora_down.weight"]
        whole = whole / whole.norm(dim=1, keepdim=True) * parts["dora_scale"]
    save_file({f"{stem}.{role}": part for role, part in parts.items()}, path)
    check(model, path, dict(zip(names, whole.split(16), strict=True)))


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (
            {"hada_w1_a": (32, 2), "hada_w1_b": (2, 32), "hada_w2_a": (32, 2)},
            "four factors of a LoHa, found no hada_w2_b",
        ),
        ({"lokr_w1": (4, 4), "lokr_w2_a": (8, 1)}, "expected lokr_w2, or its factors"),
        ({"lokr_w1": (4, 4), "lokr_w2": (7, 8)}, "expected a change of shape"),
        ({"lora_up.weight": (32, 1), "lora_down.weight": (1, 32), "dora_scale": (5, 1)}, "norms, one an output"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, parts: dict[str, tuple[int, int]], words: str) -> None:
    model = tiny_model()
    assert model.parameters()[TO_K].shape[0] == 32 and CONV in model.parameters()
    save_file({f"{kohya(TO_K)}.{role}": noise(*shape) for role, shape in parts.items()}, tmp_path / "x.safetensors")
    with pytest.raises(EditError, match=words):
        import_lora(tmp_path / "x.safetensors", model)
    assert load_file(tmp_path / "x.safetensors")


def turn(skew: Tensor) -> Tensor:
    one = torch.eye(skew.shape[-1])
    return (one + skew) @ (one - skew).inverse()


def test_rotations_of_lycoris_turn_outputs(tmp_path: Path) -> None:
    """Diag-OFT: transposed blocks, held by alpha times the outputs; BOFT: two stages; both with scales of the outputs."""
    model, path = tiny_model(), tmp_path / "x.safetensors"
    base, stem = model.parameters()[TO_K].detach(), kohya(TO_K)
    outputs = len(base)
    blocks, scales = 0.3 * noise(outputs // 4, 4, 4), noise(outputs, 1).abs() + 0.5
    skew = blocks - blocks.mT
    for alpha in (0.0, 0.01):
        held = skew * min(1.0, alpha * outputs / float(skew.norm())) if alpha else skew
        wanted = scales * (torch.block_diag(*turn(held)).T @ base)
        parts = {f"{stem}.oft_blocks": blocks, f"{stem}.rescale": scales, f"{stem}.alpha": torch.tensor(alpha)}
        save_file(parts, path)
        check(model, path, {TO_K: wanted})
    stages = 0.3 * noise(2, outputs // 4, 4, 4)
    turns = turn(stages - stages.mT)
    found = base
    for stage, apart in ((0, 2), (1, 4)):
        # rows i and i + apart of every 2 apart rows become neighbours
        order = torch.arange(outputs).view(-1, 2, apart).transpose(1, 2).flatten()
        mixed = torch.block_diag(*turns[stage]) @ found[order]
        found = torch.empty_like(found)
        found[order] = mixed
    save_file({f"{stem}.oft_blocks": stages}, path)
    check(model, path, {TO_K: found})


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"oft_blocks": (3, 4, 4)}, "expected rotations of a weight of shape"),
        ({"oft_R.weight": (3, 6)}, "expected blocks that make up"),
        ({"boft_R": (1, 4, 4, 4)}, "expected boft_R and boft_s of a BOFT, found boft_R"),
        ({"boft_R": (3, 4, 4, 4), "boft_s": (16, 1)}, "expected a BOFT with one factor, found 3; merge it with peft"),
        ({"oft_r": (2, 4, 4)}, "found an OFT of another layout"),
    ],
)
def test_rotations_that_do_not_fit_are_refused(tmp_path: Path, parts: dict[str, tuple[int, ...]], said: str) -> None:
    stem = TO_K.removeprefix("unet.").removesuffix(".weight")
    save_file(
        {f"base_model.model.{stem}.{key}": noise(*shape) for key, shape in parts.items()}, tmp_path / "x.safetensors"
    )
    with pytest.raises(EditError, match=said):
        import_lora(tmp_path / "x.safetensors", tiny_model())


def test_outputs_of_an_original_matrix_are_not_turned(tmp_path: Path) -> None:
    stem = "lora_unet_double_blocks_0_txt_attn_qkv"
    save_file({f"{stem}.oft_blocks": noise(12, 4, 4), f"{stem}.alpha": torch.tensor(0.0)}, tmp_path / "x.safetensors")
    with pytest.raises(EditError, match="turns the outputs of an original matrix that is 3 weights here"):
        import_lora(tmp_path / "x.safetensors", shared_handle("FluxPipeline"))
