"""The same LoRA in the forms that other tools write it: each comes in as the same change, or is refused by its kind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

from photopic.core.edits import DenseDelta, Edit, LowRankDelta, SparseWeights, TokenEmbedding
from photopic.core.edits.file import save
from photopic.core.errors import EditError, PhotopicError
from photopic.edit.interop import export_comfy, export_lora, export_peft_shira, import_file, import_lora
from photopic.edit.interop._changes import change, parts_by_weight
from photopic.edit.interop._names import original_names
from photopic.models.text_to_image.handle import TextToImage
from tests.edit.interop.examples import (
    BIAS,
    CONV,
    PROMPT,
    TO_K,
    TO_V,
    largest_difference,
    make,
    mixed_edit,
    noise,
    text_output,
    tiny_model,
    unet_output,
)
from tests.tiny import tiny_pipeline, tiny_sdxl_pipeline

TARGETS = ["to_q", "to_k", "conv1"]


@pytest.fixture(scope="module")
def model() -> TextToImage:
    return tiny_model()


@pytest.fixture(scope="module")
def peft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as peft writes it: rank 4, alpha 8, another rank and alpha for some layers."""
    folder = tmp_path_factory.mktemp("peft")
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=TARGETS,
        init_lora_weights=False,
        rank_pattern={"conv1": 2},
        alpha_pattern={"to_k": 2},
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        get_peft_model(tiny_pipeline().unet, config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def plain(peft: Path) -> dict[str, Tensor]:
    """Its factors by the names of diffusers, scaled so that they count once."""
    found = {}
    for key, tensor in load_file(peft / "adapter_model.safetensors").items():
        scale = 4.0 if "conv1" in key else 0.5 if "to_k" in key else 2.0  # alpha / rank
        found[key.removeprefix("base_model.model.")] = tensor * (scale if "lora_B" in key else 1.0)
    return found


def changes(edit: Edit, model: TextToImage) -> dict[str, Tensor]:
    """What an edit adds to each weight."""
    tensors = model.parameters()
    return {name: change(name, parts, tensors[name]) for name, parts in parts_by_weight(edit).items()}


def assert_same(found: Edit, wanted: Edit, model: TextToImage) -> None:
    ours, theirs = changes(found, model), changes(wanted, model)
    assert ours.keys() == theirs.keys() and len(ours) > 10
    for name, each in theirs.items():
        assert torch.allclose(ours[name], each, atol=1e-6), name


def test_a_folder_of_peft_and_its_file_have_the_alphas_of_their_settings(
    peft: Path, plain: dict[str, Tensor], model: TextToImage, tmp_path: Path
) -> None:
    save_file({f"unet.{key}": each for key, each in plain.items()}, tmp_path / "plain.safetensors")
    wanted = import_lora(tmp_path / "plain.safetensors", model)
    assert_same(import_lora(peft, model), wanted, model)
    assert_same(import_file(model, str(peft / "adapter_model.safetensors")), wanted, model)
    shutil.copytree(peft, tmp_path / "named/unet")
    assert_same(import_lora(tmp_path / "named", model), wanted, model)
    settings = json.loads((peft / "adapter_config.json").read_text()) | {"use_rslora": True, "alpha_pattern": {}}
    (tmp_path / "named/unet/adapter_config.json").write_text(json.dumps(settings))
    part = import_lora(tmp_path / "named", model).parts[0]
    assert isinstance(part, LowRankDelta) and part.scales[TO_K] == 8 / 2  # alpha / sqrt(rank)


def test_a_lora_that_one_module_saved_equals_diffusers_loading(model: TextToImage, tmp_path: Path) -> None:
    pipeline = tiny_pipeline()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        pipeline.unet.add_adapter(LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS, init_lora_weights=False))
    pipeline.unet.save_lora_adapter(str(tmp_path))
    with model.edits.applied(import_lora(tmp_path / "pytorch_lora_weights.safetensors", model)):
        assert largest_difference(unet_output(model.pipeline), unet_output(pipeline)) < 1e-5


def old_processors(key: str) -> str:
    stem, _, end = key.partition(".lora_")
    head, _, last = stem.rpartition(".")
    if "attn" not in head:  # only attention was adapted then
        return f"{stem}.lora.{'down' if end[0] == 'A' else 'up'}.weight"
    return f"{head}.processor.{last}_lora.{'down' if end[0] == 'A' else 'up'}.weight"


FORMS: dict[str, Callable[[str], str]] = {
    "without a component": lambda key: key,
    "an adapter's name": lambda key: "unet." + key.replace(".weight", ".default_0.weight"),
    "peft's wrapper": lambda key: "base_model.model." + key,
    "old processors without a component": old_processors,
    "diffusion_model.": lambda key: "diffusion_model." + key,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_naming_means_the_same(form: str, plain: dict[str, Tensor], model: TextToImage, tmp_path: Path) -> None:
    save_file({f"unet.{key}": each for key, each in plain.items()}, tmp_path / "plain.safetensors")
    save_file({FORMS[form](key): each for key, each in plain.items()}, tmp_path / "form.safetensors")
    found = import_lora(tmp_path / "form.safetensors", model)
    assert_same(found, import_lora(tmp_path / "plain.safetensors", model), model)


def test_the_original_layout_with_dots_means_the_same(
    plain: dict[str, Tensor], model: TextToImage, tmp_path: Path
) -> None:
    paths = [name.removeprefix("unet.").removesuffix(".weight") for name in model.parameters("unet.*.weight")]
    original = original_names(paths)
    renamed = {}
    for key, each in plain.items():
        stem, _, end = key.partition(".lora_")
        renamed[f"diffusion_model.{original[stem]}.lora_{'down' if end[0] == 'A' else 'up'}.weight"] = each
    save_file(renamed, tmp_path / "form.safetensors")
    save_file({f"unet.{key}": each for key, each in plain.items()}, tmp_path / "plain.safetensors")
    found = import_lora(tmp_path / "form.safetensors", model)
    assert_same(found, import_lora(tmp_path / "plain.safetensors", model), model)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float64])
def test_factors_of_other_precisions_keep_their_values(
    dtype: torch.dtype, plain: dict[str, Tensor], model: TextToImage, tmp_path: Path
) -> None:
    cast = {f"unet.{key}": each.to(dtype) for key, each in plain.items()}
    save_file(cast, tmp_path / "x.safetensors")
    save_file({key: each.float() for key, each in cast.items()}, tmp_path / "plain.safetensors")
    found = import_lora(tmp_path / "x.safetensors", model)
    assert_same(found, import_lora(tmp_path / "plain.safetensors", model), model)


def test_a_text_projection_in_diffusers_naming_equals_its_own_loading(tmp_path: Path) -> None:
    model, pipeline = tiny_model(sdxl=True), tiny_sdxl_pipeline()
    encoder = tiny_sdxl_pipeline().text_encoder_2
    config = LoraConfig(r=2, target_modules=["q_proj", "text_projection"], init_lora_weights=False)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        encoder.add_adapter(config)
    saved = convert_state_dict_to_diffusers(get_peft_model_state_dict(encoder))
    pipeline.save_lora_weights(tmp_path, text_encoder_2_lora_layers=saved)
    pipeline.load_lora_weights(tmp_path)
    edit = import_lora(tmp_path / "pytorch_lora_weights.safetensors", model)
    assert "text_encoder_2.text_projection.weight" in edit.touched()
    before = pooled(model.pipeline)
    with model.edits.applied(edit):
        assert largest_difference(pooled(model.pipeline), pooled(pipeline)) < 1e-5
        assert largest_difference(pooled(model.pipeline), before) > 0.1


@torch.no_grad()
def pooled(pipeline: Any) -> Tensor:
    """What the projection makes of a prompt."""
    return pipeline.encode_prompt(prompt=PROMPT, device="cpu", do_classifier_free_guidance=False)[2]


def test_norms_of_lycoris_are_added_to_weights_and_biases(model: TextToImage, tmp_path: Path) -> None:
    norms = {  # LyCORIS adds w_norm and b_norm to the norm's own
        "lora_unet_conv_norm_out": "unet.conv_norm_out",
        "lora_unet_input_blocks_1_0_in_layers_0": "unet.down_blocks.0.resnets.0.norm1",
        "lora_te_text_model_final_layer_norm": "text_encoder.final_layer_norm",
    }
    size = {name: len(model.parameters(f"*{name}.weight").popitem()[1]) for name in norms.values()}
    tensors = {f"{key}.w_norm": noise(size[name]) for key, name in norms.items()}
    tensors |= {f"{key}.b_norm": noise(size[name], seed=2) for key, name in norms.items()}
    save_file(tensors, tmp_path / "x.safetensors")
    added = changes(import_file(model, str(tmp_path / "x.safetensors")), model)
    assert len(added) == 6
    for key, name in norms.items():
        for ending, last in (("w_norm", "weight"), ("b_norm", "bias")):
            (found,) = (each for full, each in added.items() if full.endswith(f"{name.partition('.')[2]}.{last}"))
            assert torch.allclose(found, tensors[f"{key}.{ending}"], atol=1e-7)


def test_the_bias_of_a_factor_is_added_to_the_layers_bias(model: TextToImage, tmp_path: Path) -> None:
    stem = BIAS.removesuffix(".bias")
    weight = model.parameters(f"{stem}.weight")[f"{stem}.weight"]
    tensors = {
        f"{stem}.lora_A.weight": noise(2, *weight.shape[1:]),
        f"{stem}.lora_B.weight": noise(len(weight), 2, 1, 1),
    }
    tensors |= {f"{stem}.lora_B.bias": torch.ones(len(weight)), f"{stem}.alpha": torch.tensor(1.0)}
    save_file(tensors, tmp_path / "x.safetensors")
    added = changes(import_lora(tmp_path / "x.safetensors", model), model)
    assert torch.allclose(added[BIAS], torch.full((len(weight),), 0.5), atol=1e-6)
    save_file(
        {f"{TO_K.removesuffix('.weight')}.lora_B.bias": torch.ones(32), **factors(TO_K)}, tmp_path / "x.safetensors"
    )
    with pytest.raises(EditError, match=r"lora_B\.bias: expected a layer with a bias"):
        import_lora(tmp_path / "x.safetensors", model)


def factors(name: str, rank: int = 4, alpha: float | None = None) -> dict[str, Tensor]:
    """Factors of a 32 x 32 weight."""
    stem = name.removesuffix(".weight")
    found = {f"{stem}.lora_A.weight": noise(rank, 32, size=1.0), f"{stem}.lora_B.weight": noise(32, rank, seed=2)}
    return found if alpha is None else {**found, f"{stem}.alpha": torch.tensor(alpha)}


def scales(path: Path, model: TextToImage) -> dict[str, float]:
    part = import_lora(path, model).parts[0]
    assert isinstance(part, LowRankDelta)
    return dict(part.scales)


def test_layers_without_an_alpha_get_the_commonest_over_their_own_rank(model: TextToImage, tmp_path: Path) -> None:
    attention = "lora_unet_mid_block_attentions_0_transformer_blocks_0"
    tensors: dict[str, Tensor] = {}
    for layer, rank, alpha in (
        ("attn1_to_q", 4, 2.0),
        ("attn1_to_k", 4, 2.0),
        ("attn2_to_q", 4, 1.0),
        ("attn1_to_v", 8, None),
    ):
        stem = f"{attention}_{layer}"
        tensors |= {
            f"{stem}.lora_down.weight": noise(rank, 32, size=1.0),
            f"{stem}.lora_up.weight": noise(32, rank, seed=2),
        }
        tensors |= {} if alpha is None else {f"{stem}.alpha": torch.tensor(alpha)}
    save_file(tensors, tmp_path / "x.safetensors")
    found = scales(tmp_path / "x.safetensors", model)
    assert found["unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_v.weight"] == 2 / 8
    assert found["unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_q.weight"] == 1 / 4


def test_a_dylora_is_scaled_by_its_blocks(model: TextToImage, tmp_path: Path) -> None:
    def written(**arguments: Any) -> Path:
        metadata = {"ss_network_args": json.dumps({"algo": "dylora", **arguments})}
        save_file(factors(TO_K, 4, 7.0), tmp_path / "x.safetensors", metadata)
        return tmp_path / "x.safetensors"

    assert scales(written(block_size="2"), model)[TO_K] == 7 / 2  # alpha over two blocks
    with pytest.raises(EditError, match="expected the block_size of this DyLoRA, found none"):
        import_lora(written(), model)


def test_bundled_embeddings_come_in_as_words(model: TextToImage, tmp_path: Path) -> None:
    vectors = noise(2, 32, size=1.0)
    save_file({**factors(TO_K), "bundle_emb.mine.string_to_param.*": vectors}, tmp_path / "x.safetensors")
    edit = import_lora(tmp_path / "x.safetensors", model)
    assert edit.tokens == ("<mine>", "<mine>_1")
    rows = [part.rows["text_encoder"] for part in edit.parts if isinstance(part, TokenEmbedding)]
    assert torch.equal(torch.stack(rows), vectors)


@pytest.mark.parametrize("name", ["<mv>", "emb_params"])
def test_a_textual_inversion_of_several_vectors_equals_diffusers_loading(
    name: str, model: TextToImage, tmp_path: Path
) -> None:
    save_file({name: noise(2, 32, size=1.0)}, tmp_path / "mv.safetensors")
    pipeline = tiny_pipeline()
    pipeline.load_textual_inversion(str(tmp_path / "mv.safetensors"), token="<mv>")
    prompt = "a <mv> bear"
    theirs = text_output(pipeline, prompt)
    edit = import_file(model, str(tmp_path / "mv.safetensors"))
    assert edit.tokens == ("<mv>", "<mv>_1")
    with model.edits.applied(edit):
        assert torch.equal(text_output(model.pipeline, prompt), theirs)
    save_file({name: noise(2, 31)}, tmp_path / "mv.safetensors")
    with pytest.raises(EditError, match="expected vectors of length 32 for text_encoder, found shape"):
        import_file(model, str(tmp_path / "mv.safetensors"))


def test_our_exports_come_in_again(model: TextToImage, tmp_path: Path) -> None:
    edit = mixed_edit(model, token=False)
    export_comfy(edit, tmp_path / "x.safetensors", model, half=False)
    back = import_file(model, str(tmp_path / "x.safetensors"))
    assert {type(part) for part in back.parts} == {DenseDelta}
    assert_equal_changes(back, edit, model)
    sparse = make(model, *(part for part in edit.parts if isinstance(part, SparseWeights) and TO_V in part.names()))
    export_peft_shira(sparse, tmp_path / "shira", model)
    save(sparse, tmp_path / "own.edit")
    with pytest.raises(EditError, match=r"own\.edit: .* found one of photopic; an edit needs no import"):
        import_file(model, str(tmp_path / "own.edit"))
    back = import_file(model, str(tmp_path / "shira"))
    assert back.touched()[TO_V].tolist() == sparse.touched()[TO_V].tolist()  # type: ignore[union-attr]
    assert_equal_changes(back, sparse, model)


def assert_equal_changes(found: Edit, wanted: Edit, model: TextToImage) -> None:
    ours, theirs = changes(found, model), changes(wanted, model)
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-7) for name in theirs)


def test_what_the_kohya_scripts_pass_over_stands_in_the_report(model: TextToImage, tmp_path: Path) -> None:
    names = ("unet.conv_in.weight", "unet.time_embedding.linear_1.weight", CONV, TO_K)
    shapes = {name: model.parameters(name)[name].shape for name in names}
    edit = make(model, DenseDelta({name: noise(*shape) for name, shape in shapes.items()}))
    report = export_lora(edit, tmp_path / "x.safetensors", model, rank=2, naming="kohya")
    assert report.values["not_read_by_sd_scripts"] == sorted(names[:2])


def test_layers_that_peft_trained_in_full_come_along(model: TextToImage, tmp_path: Path) -> None:
    config = LoraConfig(r=2, target_modules=["to_q"], modules_to_save=["conv_in", "norm1"], init_lora_weights=False)
    adapted = get_peft_model(tiny_pipeline().unet, config)
    with torch.no_grad():
        for name, each in adapted.named_parameters():
            if "modules_to_save" in name:
                each.add_(0.1 * torch.randn(each.shape, generator=torch.Generator().manual_seed(len(name))))
    adapted.save_pretrained(tmp_path / "x")
    edit = import_lora(tmp_path / "x", model)
    assert {"unet.conv_in.weight", "unet.conv_in.bias"} < set(edit.of(DenseDelta)[0].names())
    given = (torch.randn(1, 4, 8, 8), torch.tensor([500]), torch.randn(1, 5, model.unet.config.cross_attention_dim))
    with torch.no_grad():
        base, wanted = model.unet(*given).sample, adapted(*given).sample
        with model.edits.applied(edit):
            assert torch.allclose(model.unet(*given).sample, wanted, atol=1e-5) and not torch.allclose(base, wanted)
        assert torch.equal(model.unet(*given).sample, base)
    tensors = load_file(tmp_path / "x/adapter_model.safetensors")
    save_file(tensors | {"base_model.model.conv_in.bias": torch.ones(3)}, tmp_path / "x/adapter_model.safetensors")
    with pytest.raises(EditError, match=r"conv_in\.bias: expected shape \(\d+,\), found \(3,\)"):
        import_lora(tmp_path / "x", model)


OTHERS = {
    "lora_unet_conv_in.lora_mid.weight": r"a CP-decomposed \(LoCon mid\) convolution",
    "lora_unet_conv_in.hada_t1": "a CP-decomposed LoHa or LoKr",
    "lora_unet_conv_in.lokr_t2": "a CP-decomposed LoHa or LoKr",
    "lora_unet_conv_in.a1.weight": "GLoRA",
    "lora_unet_conv_in.bm.weight": "GLoRA",
    "lora_unet_conv_in.lambda_layer": "T-LoRA",
    "lora_unet_conv_in.on_input": "IA3",
    "base_model.model.conv_in.ia3_l": "IA3",
    "base_model.model.conv_in.oft_r": "an OFT of another layout",
    "base_model.vera_lambda": "VeRA",
    "base_model.model.x.lora_embedding_A": "a LoRA of an embedding",
    "base_model.model.x.trainable_tokens_delta": "TrainableTokens",
    "base_model.model.x.modules_to_save.weight": "a layer trained in full",
}


@pytest.mark.parametrize("key", OTHERS)
def test_what_cannot_be_taken_is_named_by_its_kind(key: str, model: TextToImage, tmp_path: Path) -> None:
    save_file({key: torch.ones(2)}, tmp_path / "x.safetensors")
    with pytest.raises(EditError, match=rf"x\.safetensors: .*found {OTHERS[key]}.*, which photopic cannot import"):
        import_file(model, str(tmp_path / "x.safetensors"))


def test_settings_of_another_kind_and_two_adapters_are_refused(peft: Path, model: TextToImage, tmp_path: Path) -> None:
    shutil.copytree(peft, tmp_path / "x")
    settings = json.loads((peft / "adapter_config.json").read_text())
    (tmp_path / "x/adapter_config.json").write_text(json.dumps(settings | {"peft_type": "VERA"}))
    with pytest.raises(
        EditError, match=r"x/adapter_config\.json: expected a LoRA, LoHa, LoKr, SHiRA, OFT or BOFT, found VERA"
    ):
        import_lora(tmp_path / "x", model)
    (tmp_path / "x/adapter_config.json").write_text(json.dumps(settings | {"init_lora_weights": "pissa_niter_4"}))
    with pytest.raises(
        EditError, match=r"init_lora_weights: expected factors for the base as it is, found pissa_niter_4"
    ):
        import_lora(tmp_path / "x", model)
    two = {
        key.replace(".weight", f".{name}.weight"): each
        for name, layer in (("a", TO_K), ("b", TO_V))
        for key, each in factors(layer).items()
    }
    save_file(two, tmp_path / "two.safetensors")
    with pytest.raises(PhotopicError, match=r"two\.safetensors: holds the adapters a, b"):
        import_lora(tmp_path / "two.safetensors", model)
