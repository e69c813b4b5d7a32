"""Edits beside frozen matrices: what they compute, that they leave no trace, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accelerate import cpu_offload, cpu_offload_with_hook, disk_offload, dispatch_model
from torch import Tensor, nn

from photopic.core.edits import DenseDelta, Edit, EditStack, LowRankDelta, SparseWeights, ZeroedWeights
from photopic.core.edits.branches import LowRankBranch, SparseBranch
from photopic.core.errors import EditError, ModelError, OverlapError
from photopic.core.fingerprint import fingerprint, named_tensors
from photopic.core.frozen import frozen_weights, plain_weight
from photopic.data.captioned import CaptionedImages
from photopic.locate.concept_neurons import concept_neurons
from photopic.models.text_to_image.attention_weights import attention_weights
from photopic.models.text_to_image.handle import TextToImage
from tests.tiny_transformers import handle_of

NAME = "m.0.weight"
AT = torch.tensor([0, 5, 17])
SEVERAL = ["FluxPipeline", "QwenImagePipeline", "ZImagePipeline", "SanaPipeline"]


class Cast(nn.Linear):
    """A linear layer that keeps its weight in 8-bit floats and computes in float32, as layerwise casting does."""

    def forward(self, given: Tensor) -> Tensor:
        return F.linear(given, self.weight.float(), self.bias.float())


def float8() -> nn.Module:
    return Cast(6, 4).requires_grad_(False).to(torch.float8_e4m3fn)


def torchao() -> nn.Module:
    quantization = pytest.importorskip("torchao.quantization")
    layer = nn.Sequential(nn.Linear(6, 4).requires_grad_(False))
    quantization.quantize_(layer, quantization.Int8WeightOnlyConfig())
    return layer[0]


def gguf() -> nn.Module:
    pytest.importorskip("gguf")
    import gguf as library
    from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter

    layer = GGUFLinear(32, 4, bias=True, compute_dtype=torch.float32)
    packed = library.quants.quantize(torch.randn(4, 32).numpy(), library.GGMLQuantizationType.Q8_0)
    layer.weight = GGUFParameter(torch.from_numpy(packed), quant_type=library.GGMLQuantizationType.Q8_0)
    return layer.requires_grad_(False)


def bits8() -> nn.Module:
    library = pytest.importorskip("bitsandbytes")
    return _quantised(library.nn.Linear8bitLt(64, 32, has_fp16_weights=False), nn.Linear(64, 32))


def _quantised(layer: nn.Module, plain: nn.Module) -> nn.Module:
    layer.load_state_dict(plain.state_dict(), strict=False)
    return layer.to("cpu").eval().requires_grad_(False)  # on the way there bitsandbytes quantises


@pytest.fixture(params=[float8, torchao, gguf, bits8], ids=lambda made: made.__name__)
def model(request: pytest.FixtureRequest) -> nn.Module:
    made: Callable[[], nn.Module] = request.param
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(made())


def parts_of(shape: torch.Size) -> dict[str, Any]:
    out, inner = shape
    generator = torch.Generator().manual_seed(1)
    up, down = torch.randn(out, 2, generator=generator), torch.randn(2, inner, generator=generator)
    return {
        "zeroed": ZeroedWeights({NAME: AT}),
        "set": SparseWeights({NAME: AT}, {NAME: torch.tensor([1.0, 2.0, 3.0])}),
        "added": SparseWeights({NAME: AT}, {NAME: torch.tensor([1.0, 2.0, 3.0])}, delta=True),
        "low rank": LowRankDelta({NAME: up}, {NAME: down}, {NAME: 0.5}),
        "dense": DenseDelta({NAME: torch.ones(out, inner)}),
    }


def content(model: nn.Module) -> dict[str, bytes]:
    tensors = named_tensors({"m": model})
    return {name: bytes(each.reshape(-1).view(torch.uint8).tolist()) for name, each in tensors.items()}


@pytest.mark.parametrize("kind", ["zeroed", "set", "added", "low rank", "dense"])
@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_a_branch_computes_what_the_written_matrix_would(model: nn.Module, kind: str, weight: float) -> None:
    base = plain_weight(model[0])
    part = parts_of(base.shape)[kind]
    given, before = torch.randn(2, 3, base.shape[1], generator=torch.Generator().manual_seed(2)), content(model)
    plain = model(given)
    edit = Edit((part,), fingerprint({"m": model}, "tiny", [NAME]), {})
    written = nn.Linear(base.shape[1], base.shape[0], bias=False).requires_grad_(False)
    written.weight.copy_(base)
    other = EditStack({"m": nn.Sequential(written)})
    stack = EditStack({"m": model})
    with stack.applied(edit, weight=weight), other.applied(edit, weight=weight, force=True):
        wanted = plain + written(given) - F.linear(given, base)
        torch.testing.assert_close(model(given), wanted, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(model(given), plain, atol=1e-3)
        assert content(model) == before and stack.fingerprint().digest == edit.base.digest
    assert torch.equal(model(given), plain) and content(model) == before and not model[0]._forward_hooks


def test_few_entries_and_factors_stay_few(model: nn.Module) -> None:
    parts = parts_of(plain_weight(model[0]).shape)
    base = fingerprint({"m": model}, "tiny", [NAME])
    stack = EditStack({"m": model})
    for kind, found in (("zeroed", SparseBranch), ("low rank", LowRankBranch)):
        with stack.applied(Edit((parts[kind],), base, {})):
            (hook,) = model[0]._forward_hooks.values()
            assert isinstance(hook.branch, found)
            if kind == "zeroed":
                assert hook.branch.matrix.layout == torch.sparse_csr and hook.branch.matrix.values().numel() == len(AT)


def test_edits_go_in_any_order_and_overlaps_are_refused(model: nn.Module) -> None:
    parts, given = parts_of(plain_weight(model[0]).shape), torch.ones(1, plain_weight(model[0]).shape[1])
    base, plain = fingerprint({"m": model}, "tiny", [NAME]), model(torch.ones(1, plain_weight(model[0]).shape[1]))
    stack = EditStack({"m": model})
    first = stack.load(Edit((parts["zeroed"],), base, {}), name="first")
    alone = model(given)
    with pytest.raises(OverlapError, match=r"both touch 3 entries of m\.0\.weight"):
        stack.load(Edit((parts["set"],), base, {}))
    second = stack.load(Edit((parts["low rank"],), base, {}), name="second", overlap="last")
    stack.unload(first)
    assert not torch.equal(model(given), alone)
    stack.unload(second)
    assert torch.equal(model(given), plain)
    stack.load(Edit((parts["zeroed"],), base, {}))
    with pytest.raises(EditError, match=r"expected plain weights to fuse, found quantised ones \(m\.0\.weight\)"):
        stack.fuse()


def test_the_identity_is_that_of_what_stands_there(model: nn.Module) -> None:
    found = fingerprint({"m": model}, "tiny", [NAME])
    assert found.shapes[NAME] == tuple(plain_weight(model[0]).shape) and list(frozen_weights({"m": model}, [NAME])) == [
        NAME
    ]
    other = nn.Sequential(nn.Linear(*reversed(found.shapes[NAME])))
    edit = Edit((ZeroedWeights({NAME: AT}),), fingerprint({"m": other}, "other", [NAME]), {})
    with pytest.raises(EditError, match="made for base other"):
        EditStack({"m": model}).load(edit)


@pytest.mark.parametrize("kind", SEVERAL)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:__array__ implementation:DeprecationWarning")
def test_a_transformer_under_layerwise_casting_is_edited_and_comes_back(kind: str) -> None:
    model = handle_of(kind)
    model.network.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    before = {name: tensor.clone() for name, tensor in model.parameters().items()}
    plain = model.generate("a bear", seeds=[0], steps=2)
    edit = few_shut(model)
    with pytest.raises(ModelError, match="expected plain weights to search, found quantised ones"):
        concept_neurons(model, CaptionedImages(torch.zeros(1, 3, model.image_size, model.image_size)), noun="bear")
    with model.edits.applied(edit):
        edited = model.generate("a bear", seeds=[0], steps=2)
    assert (edited != plain).any() and (model.generate("a bear", seeds=[0], steps=2) == plain).all()
    for name, tensor in model.parameters().items():
        assert tensor.reshape(-1).view(torch.uint8).equal(before[name].reshape(-1).view(torch.uint8)), name


def test_4_bits_of_bitsandbytes_are_refused_on_a_processor() -> None:
    """Its state dict after a call is not the one before, and every reading moves it: there is no base to come back to."""
    library = pytest.importorskip("bitsandbytes")
    model = nn.Sequential(_quantised(library.nn.Linear4bit(64, 32, quant_type="nf4"), nn.Linear(64, 32)))
    edit = Edit((ZeroedWeights({NAME: AT}),), fingerprint({"m": nn.Sequential(nn.Linear(64, 32))}, "other", [NAME]), {})
    with pytest.raises(ModelError, match=r"m\.0\.weight: bitsandbytes packs 4-bit weights anew") as caught:
        EditStack({"m": model}).load(edit, force=True)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_transformer_in_8_bits_of_bitsandbytes_is_edited_and_comes_back() -> None:
    library = pytest.importorskip("bitsandbytes")
    model = handle_of("FluxPipeline")
    for name in attention_weights(model):
        path = name.removesuffix(".weight").partition(".")[2]
        plain = model.network.get_submodule(path)
        layer = library.nn.Linear8bitLt(plain.in_features, plain.out_features, has_fp16_weights=False)
        model.network.set_submodule(path, _quantised(layer, plain))
    base = drawn_with(model, None)
    before, edit = content(model.network), few_shut(model)
    assert (drawn_with(model, edit) != base).any() and (drawn_with(model, None) == base).all()
    assert content(model.network) == before


CPU = torch.device("cpu")
OFFLOADS: dict[str, Callable[[Any, str], Any]] = {
    "every weight, accelerate": lambda model, folder: [cpu_offload(part, CPU) for part in model.components.values()],
    "model by model, diffusers": lambda model, folder: model.pipeline.enable_model_cpu_offload(device="cpu"),
    "model by model, accelerate": lambda model, folder: cpu_offload_with_hook(model.network, CPU),
    "device_map": lambda model, folder: dispatch_model(model.network, {"": "cpu"}, main_device="cpu", force_hooks=True),
    "groups of leaves, diffusers": lambda model, folder: model.pipeline.enable_group_offload(
        onload_device=CPU, offload_device=CPU, offload_type="leaf_level"
    ),
    "groups of blocks, diffusers": lambda model, folder: model.network.enable_group_offload(
        onload_device=CPU, offload_device=CPU, offload_type="block_level", num_blocks_per_group=1
    ),
}
ON_DISK: dict[str, Callable[[Any, str], Any]] = {
    "every weight, accelerate": lambda model, folder: disk_offload(model.network, folder, CPU),
    "device_map": lambda model, folder: dispatch_model(
        model.network,
        {name: "disk" if name.startswith("single") else "cpu" for name, _ in model.network.named_children()},
        main_device="cpu",
        offload_dir=folder,
    ),
    "groups of blocks, diffusers": lambda model, folder: model.network.enable_group_offload(
        onload_device=CPU,
        offload_device=CPU,
        offload_type="block_level",
        num_blocks_per_group=1,
        offload_to_disk_path=folder,
    ),
}


def drawn_with(model: TextToImage, edit: Edit | None) -> Any:
    with model.edits.applied(*([] if edit is None else [edit])):
        return model.generate("a bear", seeds=[0], steps=2)


def few_shut(model: TextToImage) -> Edit:
    base = model.fingerprint(*attention_weights(model))  # whose shapes are those that quantised weights stand for
    draw = torch.Generator().manual_seed(0)
    at = {name: torch.randperm(prod(shape), generator=draw)[:60].sort().values for name, shape in base.shapes.items()}
    return Edit((ZeroedWeights(at),), base, {})


OFFLOADED = [(offload, "FluxPipeline") for offload in OFFLOADS] + [
    ("every weight, accelerate", "ChromaPipeline"),
    ("device_map", "QwenImagePipeline"),
    ("groups of leaves, diffusers", "ZImagePipeline"),
    ("model by model, diffusers", "SanaPipeline"),
]


@pytest.mark.parametrize(("offload", "kind"), OFFLOADED)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:__array__ implementation:DeprecationWarning")
def test_an_offloaded_transformer_is_edited_and_comes_back(offload: str, kind: str, tmp_path: Path) -> None:
    model = handle_of(kind)
    edit, picture = few_shut(model), torch.zeros(1, 3, model.image_size, model.image_size)
    plain, wanted, latents = drawn_with(model, None), drawn_with(model, edit), model.encode_images(picture)
    OFFLOADS[offload](model, str(tmp_path))
    assert (drawn_with(model, None) == plain).all()
    assert (drawn_with(model, edit) == wanted).all()
    assert (drawn_with(model, None) == plain).all() and (wanted != plain).any()
    assert torch.equal(model.encode_images(picture), latents) and model.device == CPU


@pytest.mark.parametrize("offload", ON_DISK)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_is_offloaded_to_a_disk_draws_and_is_not_edited(offload: str, tmp_path: Path) -> None:
    model = handle_of("FluxPipeline")
    edit, plain = few_shut(model), drawn_with(model, None)
    ON_DISK[offload](model, str(tmp_path))
    assert (drawn_with(model, None) == plain).all()
    with pytest.raises(
        ModelError, match=r"has no data here .*offloaded to a disk.; load the model into memory"
    ) as caught:
        drawn_with(model, edit)
    assert "\n" not in str(caught.value)
    assert (drawn_with(model, None) == plain).all()


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_sequential_offload_to_a_processor_is_an_error_of_accelerate_said_in_one_line() -> None:
    model = handle_of("StableDiffusion3Pipeline")
    model.pipeline.enable_sequential_cpu_offload(device="cpu")
    with pytest.raises(TypeError, match=r"new\(\)"):  # the stock pipeline's
        model.pipeline(prompt="a bear", num_inference_steps=1, height=16, width=16)
    with pytest.raises(ModelError, match="StableDiffusion3Pipeline: cannot be called: TypeError") as caught:
        model.generate("a bear", seeds=[0], steps=1)
    assert "\n" not in str(caught.value)
