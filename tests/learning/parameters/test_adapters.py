"""Adapters of an image tower: the exact checks of the method in float64, where branches stand, and what they count."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import SiglipVisionConfig, SiglipVisionModel, ViTConfig, ViTModel

from photopic.core.edits import Adapters, Edit, LowRankDelta
from photopic.core.edits.attached_adapters import attention
from photopic.core.errors import DataError, EditError, ModelError
from photopic.learning.parameters.adapters import AdapterSpec, TrainableAdapters, blocks_of, parameter_count
from photopic.learning.parameters.merged_adapters import merged
from photopic.models.dual_encoder import DualEncoder
from tests.tiny_encoders import DIM, SIDE, tiny_dual_encoder

HEADS, TOKENS, LENGTH, WIDTH = 2, 7, 3, 8
OPS = ("attention", "ffn", "block")
KINDS = ("adapter", "prefix", "prompt")
SCALINGS = ("none", "scalar", "channel", "input")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_head(x: Tensor) -> Tensor:
    return x.unflatten(-1, (HEADS, -1)).transpose(-3, -2)  # (tokens, dim) -> (heads, tokens, head dim)


def scores(queries: Tensor, keys: Tensor) -> Tensor:
    return by_head(queries) @ by_head(keys).mT * (WIDTH // HEADS) ** -0.5  # (heads, queries, keys)


def share(queries: Tensor, trained: Tensor, own: Tensor) -> Tensor:
    """lambda of every head and query, by its definition, and again as a sigmoid of log-sum-exps."""
    new, old = scores(queries, trained), scores(queries, own)
    plain = new.exp().sum(-1) / (new.exp().sum(-1) + old.exp().sum(-1))
    stable = torch.sigmoid(new.logsumexp(-1) - old.logsumexp(-1))
    assert (plain - stable).abs().max() < 1e-12
    return stable  # (heads, queries)


def mixture(queries: Tensor, trained: tuple[Tensor, Tensor], own: tuple[Tensor, Tensor]) -> Tensor:
    """(1 - lambda) Attn(Q, K, V) + lambda Attn(Q, K_pre, V_pre)."""
    shares = share(queries, trained[0], own[0]).unsqueeze(-1)
    return ((1 - shares) * by_head(attention(queries, *own, HEADS)) + shares * by_head(
        attention(queries, *trained, HEADS)
    )).transpose(-3, -2).flatten(-2)  # fmt: skip


def test_a_prefix_inside_the_softmax_is_an_exact_mixture_of_the_attention_and_the_branch() -> None:
    queries, own = normal(TOKENS, WIDTH), (normal(TOKENS, WIDTH, seed=1), normal(TOKENS, WIDTH, seed=2))
    trained = normal(LENGTH, WIDTH, seed=3), normal(LENGTH, WIDTH, seed=4)
    inside = attention(queries, torch.cat([trained[0], own[0]]), torch.cat([trained[1], own[1]]), HEADS)
    assert (inside - mixture(queries, trained, own)).abs().max() < 1e-12


def test_a_prompt_inside_the_softmax_is_the_same_mixture_at_the_original_rows() -> None:
    x, tokens = normal(TOKENS, WIDTH), normal(LENGTH, WIDTH, seed=1)
    query, key, value = (normal(WIDTH, WIDTH, seed=seed) for seed in (2, 3, 4))
    both = torch.cat([tokens, x])
    inside = attention(both @ query, both @ key, both @ value, HEADS)[LENGTH:]
    expected = mixture(x @ query, (tokens @ key, tokens @ value), (x @ key, x @ value))
    assert (inside - expected).abs().max() < 1e-12


def test_lambda_goes_to_zero_with_the_length() -> None:
    queries, own = normal(TOKENS, WIDTH), normal(TOKENS, WIDTH, seed=1)
    assert torch.equal(share(queries, normal(0, WIDTH), own), torch.zeros(HEADS, TOKENS, dtype=torch.float64))
    trained = normal(LENGTH, WIDTH, seed=3)
    shares = [share(queries, trained[:length], own) for length in (1, 2, 3)]
    assert all(bool((few < more).all()) for few, more in pairwise(shares))


def doubled(model: DualEncoder) -> DualEncoder:
    """The same model at float64, in which exact checks can be read off."""
    model.network.double()
    return model


def randomised(tuners: TrainableAdapters, seed: int = 0) -> TrainableAdapters:
    """Every tensor far from where it starts."""
    draw = torch.Generator().manual_seed(seed)
    for name, tensor in tuners.tensors.items():
        tuners.tensors[name] = torch.randn(tensor.shape, generator=draw, dtype=torch.float64).requires_grad_()
    return tuners


def pixels(count: int = 2) -> Tensor:
    return normal(count, 3, SIDE, SIDE, seed=9)


@pytest.fixture(scope="module", autouse=True)
def shared() -> Iterator[dict[str, DualEncoder]]:
    MODELS.update(plain=tiny_dual_encoder(), double=doubled(tiny_dual_encoder()))
    yield MODELS
    MODELS.clear()


MODELS: dict[str, DualEncoder] = {}


def by_hand(model: DualEncoder, tuners: TrainableAdapters, op: str) -> Tensor:
    """The tower's layers written out, with U1, U2 or U3 at the residual sums."""
    tower: Any = model.network.vision_model
    x = tower.pre_layrnorm(tower.embeddings(pixels()))

    def branch(target: str, x: Tensor, norm: nn.Module, attend: Any) -> Tensor:
        own = {name.rpartition("/")[2]: each for name, each in tuners.tensors.items() if name.startswith(target + "/")}
        (spec,) = tuners.specs
        if spec.kind == "adapter":
            out = nn.functional.gelu(x @ own["down"].T + own["down_bias"]) @ own["up"].T + own["up_bias"]
        else:
            keys = attend.k_proj(own["tokens"]) if spec.kind == "prompt" else own["keys"]
            values = attend.v_proj(own["tokens"]) if spec.kind == "prompt" else own["values"]
            heads = []
            for at in torch.arange(DIM).split(DIM // 2):
                q = attend.q_proj(norm(x))[..., at]
                heads.append((q @ keys[:, at].T / (DIM / 2) ** 0.5).softmax(-1) @ values[:, at])
            out = torch.cat(heads, -1)
        if spec.scaling == "input":
            return out * torch.sigmoid(out @ own["gate"] + own["gate_bias"]).mean(1)[:, None, None]
        return out * own.get("scale", 1.0)

    for number, layer in enumerate(tower.encoder.layers):
        name, entered, attend = f"network.vision_model.encoder.layers.{number}", x, layer.self_attn
        added = branch(f"{name}.self_attn", x, layer.layer_norm1, attend) if op == "attention" else 0
        z = x + attend(layer.layer_norm1(x), attention_mask=None)[0] + added
        added = branch(f"{name}.mlp", z, layer.layer_norm2, attend) if op == "ffn" else 0
        x = z + layer.mlp(layer.layer_norm2(z)) + added
        x = x + (branch(name, entered, layer.layer_norm1, attend) if op == "block" else 0)
    return model.network.visual_projection(tower.post_layernorm(x[:, 0]))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(
    ("kind", "scaling"), [(k, "channel") for k in KINDS] + [("adapter", "input"), ("prefix", "none")]
)
def test_a_branch_is_added_at_the_residual_sum_and_reads_what_enters_before_the_norm(
    op: Any, kind: Any, scaling: Any
) -> None:
    model = MODELS["double"]
    tuners = randomised(TrainableAdapters(model, [AdapterSpec(op, kind, LENGTH, scaling)], init="xavier"))
    plain = model.encode_pixels(pixels())
    with tuners.attached():
        found = model.encode_pixels(pixels())
    torch.testing.assert_close(found, by_hand(model, tuners, op), atol=1e-10, rtol=0)
    assert (found - plain).abs().max() > 1e-3
    assert torch.equal(model.encode_pixels(pixels()), plain)
    assert not any(part._forward_hooks for part in model.network.modules())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("op", OPS)
def test_the_zero_start_changes_no_bit(op: Any, kind: Any) -> None:
    model = MODELS["double"]
    plain = model.encode_pixels(pixels())
    with TrainableAdapters(model, [AdapterSpec(op, kind)]).attached():
        assert torch.equal(model.encode_pixels(pixels()), plain)
    with TrainableAdapters(model, [AdapterSpec(op, kind)], init="xavier").attached():
        assert not torch.equal(model.encode_pixels(pixels()), plain)


@pytest.mark.parametrize("zeroed", ["scale", "up"])
def test_a_zero_scale_or_a_zero_second_matrix_is_the_frozen_model(zeroed: str) -> None:
    model = MODELS["double"]
    tuners = randomised(TrainableAdapters(model, [AdapterSpec(op, bias=False) for op in OPS], init="xavier"))
    plain = model.encode_pixels(pixels())
    for name in tuners.tensors:
        if name.endswith(f"/{zeroed}"):
            tuners.tensors[name] = torch.zeros_like(tuners.tensors[name])
    with tuners.attached():
        assert torch.equal(model.encode_pixels(pixels()), plain)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scaling", SCALINGS)
def test_trained_numbers_are_the_formula(op: Any, kind: Any, scaling: Any) -> None:
    spec = AdapterSpec(op, kind, LENGTH, scaling)
    tuners = TrainableAdapters(MODELS["plain"], [spec], init="xavier")
    d, length = DIM, LENGTH
    tensors = {"adapter": 2 * d * length + length + d, "prefix": 2 * length * d, "prompt": length * d}[kind]
    scale = {"none": 0, "scalar": 1, "channel": d, "input": d + 1}[scaling]
    held = sum(each.numel() for each in tuners.part().tensors.values())
    assert tuners.count == held == parameter_count(spec, d, blocks=2) == 2 * (tensors + scale)


def test_the_formulas_give_the_papers_counts_of_a_large_vit() -> None:
    width, head = 768, 768 * 100 + 100
    serial, prefix, prompt = (AdapterSpec("ffn", kind, scaling="none") for kind in ("adapter", "prefix", "prompt"))  # type: ignore[arg-type]
    assert parameter_count(serial, width, 12) + head == 270_556
    assert parameter_count(prefix, width, 12) + head == 261_220
    assert parameter_count(prompt, width, 12) + head == 169_060
    assert parameter_count(prompt, width, 1) + head == 84_580
    channel = AdapterSpec("attention")
    assert 2 * parameter_count(channel, width, 12) == 24 * (2 * 768 * 10 + 10 + 2 * 768)
    assert round((2 * parameter_count(channel, width) + head) / 1e6, 2) == 0.11


def test_the_edit_does_what_the_trained_branches_did_and_leaves_no_byte() -> None:
    model = MODELS["plain"]
    specs = [AdapterSpec("attention", "prompt"), AdapterSpec("ffn", "prefix"), AdapterSpec("block", scaling="input")]
    tuners = TrainableAdapters(model, specs, init="xavier")
    x, before = pixels().float(), model.digest()
    plain = model.encode_pixels(x)
    with tuners.attached(), torch.no_grad():
        expected = model.encode_pixels(x)
    edit = Edit((tuners.part(),), model.fingerprint())
    with model.edits.applied(edit):
        assert torch.equal(model.encode_pixels(x), expected)
    with model.edits.applied(edit, weight=0.0):
        assert torch.equal(model.encode_pixels(x), plain)
    assert torch.equal(model.encode_pixels(x), plain) and model.digest() == before
    assert not any(part._forward_hooks for part in model.network.modules())


@pytest.mark.parametrize("scaling", ["none", "scalar", "channel"])
def test_a_linear_adapter_beside_a_projection_merges_into_its_weight(scaling: Any) -> None:
    model = MODELS["plain"]
    specs = [AdapterSpec(op, length=2, scaling=scaling, activation="identity", bias=False) for op in ("query", "value")]  # type: ignore[arg-type]
    tuners = TrainableAdapters(model, specs, init="xavier")
    for number, name in enumerate(sorted(name for name in tuners.tensors if name.endswith("/scale"))):
        tuners.tensors[name] = normal(len(tuners.tensors[name]), seed=number).float()
    edit = Edit((tuners.part(),), model.fingerprint(), {"method": "by hand"})
    inside = merged(edit, model)
    assert isinstance(inside.parts[0], LowRankDelta) and len(inside.touched()) == 4
    x = pixels().float()
    with model.edits.applied(edit):
        beside = model.encode_pixels(x)
    with model.edits.applied(inside):
        assert not any(part._forward_hooks for part in model.network.modules())
        torch.testing.assert_close(model.encode_pixels(x), beside, atol=1e-6, rtol=0)
    assert (model.encode_pixels(x) - beside).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (AdapterSpec("query"), "its activation is gelu"),
        (AdapterSpec("query", activation="identity", scaling="input", bias=False), "its scale depends on the input"),
        (AdapterSpec("ffn", activation="identity", bias=False), "not beside a linear layer"),
        (AdapterSpec("attention", "prefix"), "a prefix is no linear function"),
    ],
)
def test_what_no_weight_can_hold_is_not_merged(spec: AdapterSpec, reason: str) -> None:
    model = MODELS["plain"]
    edit = Edit((TrainableAdapters(model, [spec]).part(),), model.fingerprint())
    with pytest.raises(EditError, match=rf"network\.vision_model\..*: expected a branch that fits .*{reason}"):
        merged(edit, model)


def test_biases_are_not_merged_unless_they_are_zero() -> None:
    model = MODELS["plain"]
    tuners = TrainableAdapters(model, [AdapterSpec("value", activation="identity")])
    assert merged(Edit((tuners.part(),), model.fingerprint()), model).parts[0].kind == "low_rank"
    name = next(name for name in tuners.tensors if name.endswith("up_bias"))
    tuners.tensors[name] = torch.ones(DIM)
    with pytest.raises(EditError, match="it has biases"):
        merged(Edit((tuners.part(),), model.fingerprint()), model)


SIZES: dict[str, Any] = dict(
    hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=16, patch_size=8
)


@pytest.mark.parametrize(
    ("tower", "first"),
    [
        (lambda: ViTModel(ViTConfig(**SIZES)), "layernorm_before"),
        (lambda: SiglipVisionModel(SiglipVisionConfig(**SIZES)), "layer_norm1"),
    ],
)
def test_blocks_of_other_families_are_found(tower: Any, first: str) -> None:
    blocks = blocks_of(tower())
    assert len(blocks) == 2
    assert blocks[0].norms[0].endswith(first) and (blocks[0].heads, blocks[0].width) == (4, 16)


def test_a_convnet_and_branches_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ModelError, match=r"tiny-cnn: expected an image tower of transformer blocks.*MobileNetV2"):
        TrainableAdapters(tiny_dual_encoder("cnn"), [AdapterSpec("attention")])
    model = MODELS["plain"]
    with pytest.raises(DataError, match="several beside attention"):
        TrainableAdapters(model, [AdapterSpec("attention"), AdapterSpec("attention", "prefix")])
    with pytest.raises(DataError, match="a prompt scaled by none cannot start at zero"):
        TrainableAdapters(model, [AdapterSpec("attention", "prompt", scaling="none")])
    for fields, message in (
        ({"op": "ffn", "length": 0}, "length: expected 1 or more, found 0"),
        ({"op": "query", "kind": "prefix"}, "expected an adapter beside a projection"),
        ({"op": "ffn", "kind": "prompt", "serial": True}, "found a prompt"),
    ):
        with pytest.raises(DataError, match=message):
            AdapterSpec(**fields)  # type: ignore[arg-type]


def test_parts_know_what_they_hook() -> None:
    part = TrainableAdapters(
        MODELS["plain"], [AdapterSpec("attention", "prefix"), AdapterSpec("ffn", serial=True)]
    ).part()
    assert isinstance(part, Adapters)
    layer = "network.vision_model.encoder.layers.0"
    assert {f"{layer}.self_attn", f"{layer}.layer_norm1", f"{layer}.mlp"} <= set(part.modules())
    assert f"{layer}.self_attn.q_proj" in part.needs() and f"{layer}.layer_norm2" not in part.needs()
