"""Edits beside frozen matrices: what they compute, that they leave no trace, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accelerate import cpu_offload
from torch import Tensor, nn

from photopic.core.edits import DenseDelta, Edit, EditStack, LowRankDelta, SparseWeights, ZeroedWeights
from photopic.core.edits.branches import LowRankBranch, SparseBranch
from photopic.core.errors import EditError, ModelError, OverlapError
from photopic.core.fingerprint import fingerprint, named_tensors
from photopic.core.frozen import frozen_weights, plain_weight
from photopic.data.captioned import CaptionedImages
from photopic.locate.concept_neurons import concept_neurons
from photopic.models.text_to_image.attention_weights import attention_weights, random_positions
from tests.tiny_transformers import handle_of

NAME = "m.0.weight"
AT = torch.tensor([0, 5, 17])


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


@pytest.fixture(params=[float8, torchao, gguf], ids=lambda made: made.__name__)
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


@pytest.mark.parametrize("kind", ["StableDiffusion3Pipeline", "FluxPipeline"])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_transformer_under_layerwise_casting_is_edited_and_comes_back(kind: str) -> None:
    model = handle_of(kind)
    model.network.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    before = {name: tensor.clone() for name, tensor in model.parameters().items()}
    plain = model.generate("a bear", seeds=[0], steps=2)
    weights = attention_weights(model)
    positions = random_positions({name: torch.arange(60) for name in weights}, weights, seed=0)
    edit = Edit((ZeroedWeights(positions),), model.fingerprint(*weights), {})
    with pytest.raises(ModelError, match="expected plain weights to search, found quantised ones"):
        concept_neurons(model, CaptionedImages(torch.zeros(1, 3, 16, 16)), noun="bear")
    with model.edits.applied(edit):
        edited = model.generate("a bear", seeds=[0], steps=2)
    assert (edited != plain).any() and (model.generate("a bear", seeds=[0], steps=2) == plain).all()
    for name, tensor in model.parameters().items():
        assert tensor.reshape(-1).view(torch.uint8).equal(before[name].reshape(-1).view(torch.uint8)), name


@pytest.mark.parametrize("offload", ["cpu_offload", "group"])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_an_offloaded_transformer_is_edited_and_comes_back(offload: str) -> None:
    model, cpu = handle_of("FluxPipeline"), torch.device("cpu")
    plain = model.generate("a bear", seeds=[0], steps=2)
    weights = attention_weights(model)
    positions = random_positions({name: torch.arange(60) for name in weights}, weights, seed=0)
    edit = Edit((ZeroedWeights(positions),), model.fingerprint(*weights), {})
    with model.edits.applied(edit):
        wanted = model.generate("a bear", seeds=[0], steps=2)
    if offload == "cpu_offload":
        cpu_offload(model.network, execution_device=cpu)
    else:
        model.network.enable_group_offload(onload_device=cpu, offload_device=cpu, offload_type="leaf_level")
    assert (model.generate("a bear", seeds=[0], steps=2) == plain).all()
    with model.edits.applied(edit):
        assert (model.generate("a bear", seeds=[0], steps=2) == wanted).all()
    assert (model.generate("a bear", seeds=[0], steps=2) == plain).all() and (wanted != plain).any()
