"""Rewritten cross-attention scores: an identity changes nothing, columns can be shut exactly, and all is undone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, IPAdapterAttnProcessor2_0
from torch import Tensor, nn

from photopic.core.errors import ModelError
from photopic.core.nn.attention import Place, capture_attention, rewrite_attention
from photopic.core.nn.hooks import tap
from photopic.models.text_to_image.handle import TextToImage
from tests.tiny import tiny_pipeline, tiny_sdxl_pipeline

LAYER = "mid_block.attentions.0.transformer_blocks.0.attn2"
LAYERS = 7


def call(model: TextToImage, prompts: list[str], size: tuple[int, int] = (8, 8)) -> Tensor:
    noisy = torch.randn(1, 4, *size, generator=torch.Generator().manual_seed(0)).expand(len(prompts), -1, -1, -1)
    return model.predict(noisy, torch.tensor(500), model.encode_prompts(prompts))


def identity(scores: Tensor, place: Place) -> Tensor:
    return scores


def without(*tokens: int) -> Any:
    return lambda scores, place: scores.index_fill(-1, torch.tensor(tokens), -torch.inf)


@pytest.mark.parametrize("build", [tiny_pipeline, tiny_sdxl_pipeline])
@pytest.mark.parametrize("plain", [None, AttnProcessor])
def test_identity_gives_the_plain_output_and_everything_is_restored(build: Any, plain: Any) -> None:
    model = TextToImage(build(), "tiny")
    if plain:
        model.unet.set_attn_processor(plain())
    before = call(model, ["a bear", "a cat"])
    processors = dict(model.unet.attn_processors)
    with rewrite_attention(model.unet, identity):
        during = call(model, ["a bear", "a cat"])
        changed = [name for name, each in model.unet.attn_processors.items() if each is not processors[name]]
    assert len(changed) == LAYERS and all("attn2" in name for name in changed)
    torch.testing.assert_close(during, before, atol=1e-5, rtol=1e-5)
    assert all(model.unet.attn_processors[name] is processor for name, processor in processors.items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.unet.modules())
    assert torch.equal(call(model, ["a bear", "a cat"]), before)


def test_scores_are_queries_times_keys_and_places_are_named(model: TextToImage) -> None:
    seen: dict[Place, Tensor] = {}

    def look(scores: Tensor, place: Place) -> Tensor:
        seen[place] = scores.clone()
        return scores

    with tap(model.unet, f"{LAYER}.to_q", f"{LAYER}.to_k") as taps, rewrite_attention(model.unet, look):
        call(model, ["a bear", "a cat"], (6, 10))
    place = next(place for place in seen if place.name == LAYER)
    layer = model.unet.get_submodule(LAYER)
    assert (place.height, place.width, place.heads) == (3, 5, layer.heads)
    assert {(each.height, each.width) for each in seen} == {(6, 10), (3, 5)}
    query, key = (taps[f"{LAYER}.to_{part}"][0].unflatten(-1, (layer.heads, -1)) for part in "qk")
    expected = torch.einsum("bihd,bjhd->bhij", query, key) / query.shape[-1] ** 0.5
    torch.testing.assert_close(seen[place], expected)


def test_minus_infinity_gives_a_token_exactly_nothing_and_rows_still_sum_to_one(model: TextToImage) -> None:
    with rewrite_attention(model.unet, without(2)), capture_attention(model.unet) as maps:
        call(model, ["a bear"])
    assert set(maps.sums) == set(maps.resolutions) and len(maps.sums) == LAYERS
    assert all(float(total[2].max()) == 0 for total in maps.sums.values())
    torch.testing.assert_close(maps.mean().sum(0), torch.ones(8, 8))


def test_capture_reports_what_was_rewritten_inside_and_around(model: TextToImage) -> None:
    with capture_attention(model.unet) as plain:
        call(model, ["a bear"])
    with capture_attention(model.unet) as around, rewrite_attention(model.unet, without(1, 2)):
        call(model, ["a bear"])
    with rewrite_attention(model.unet, without(1, 2)), capture_attention(model.unet) as inside:
        call(model, ["a bear"])
    assert torch.equal(around.mean(), inside.mean())
    kept = plain.mean(layers="down_blocks.0*")  # the first layer's queries do not depend on earlier rewriting
    expected = kept.clone()
    expected[1:3] = 0
    assert not torch.allclose(around.mean(layers="down_blocks.0*"), kept)
    assert float(around.mean()[1:3].max()) == 0
    with rewrite_attention(model.unet, identity), capture_attention(model.unet) as same:
        call(model, ["a bear"])
    torch.testing.assert_close(same.mean(), plain.mean())


def test_only_matching_layers_are_touched(model: TextToImage) -> None:
    places: list[str] = []

    def note(scores: Tensor, place: Place) -> Tensor:
        places.append(place.name)
        return scores

    with rewrite_attention(model.unet, note, layers="mid_block.*"):
        call(model, ["a bear"])
    assert places == [LAYER]


def test_an_inner_rewrite_sees_what_the_outer_returns(model: TextToImage) -> None:
    order: list[tuple[str, float]] = []

    def add(name: str, amount: float) -> Any:
        def rewrite(scores: Tensor, place: Place) -> Tensor:
            order.append((name, float(scores.mean())))
            return scores + amount

        return rewrite

    mid = "mid_block.*"
    with rewrite_attention(model.unet, add("outer", 1.0), layers=mid):
        with rewrite_attention(model.unet, add("inner", 1.0), layers=mid):
            call(model, ["a bear"])
        call(model, ["a bear"])
    assert [name for name, _ in order] == ["outer", "inner", "outer"]
    assert order[1][1] == pytest.approx(order[0][1] + 1, abs=1e-5)


def test_rewrites_that_end_out_of_order_are_undone(model: TextToImage) -> None:
    before = dict(model.unet.attn_processors)
    first, second = rewrite_attention(model.unet, without(1)), rewrite_attention(model.unet, without(2))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    with capture_attention(model.unet) as maps:
        call(model, ["a bear"])
    assert float(maps.mean()[2].max()) == 0 < float(maps.mean()[1].min())
    second.__exit__(None, None, None)
    assert all(model.unet.attn_processors[name] is processor for name, processor in before.items())


def test_undone_after_an_exception_in_the_body_and_in_the_rewrite(model: TextToImage) -> None:
    def fails(scores: Tensor, place: Place) -> Tensor:
        raise RuntimeError("rewrite")

    plain = call(model, ["a bear"])
    with pytest.raises(RuntimeError, match="rewrite"), rewrite_attention(model.unet, fails):
        call(model, ["a bear"])
    with pytest.raises(RuntimeError, match="body"), rewrite_attention(model.unet, without(1)):
        raise RuntimeError("body")
    assert torch.equal(call(model, ["a bear"]), plain)


def test_gradients_flow_through_a_rewrite(model: TextToImage) -> None:
    strength = torch.zeros((), requires_grad=True)

    def lift(scores: Tensor, place: Place) -> Tensor:
        return scores + strength * torch.nn.functional.one_hot(torch.tensor(2), scores.shape[-1])

    with rewrite_attention(model.unet, lift):
        call(model, ["a bear"]).square().mean().backward()
    assert strength.grad is not None and float(strength.grad.abs()) > 0


def test_a_generated_picture_changes_with_the_rewrite(model: TextToImage) -> None:
    plain = model.generate("a bear", seeds=[0], steps=2)
    with rewrite_attention(model.unet, identity):
        same = model.generate("a bear", seeds=[0], steps=2)
    with rewrite_attention(model.unet, lambda scores, place: 50 * scores):
        other = model.generate("a bear", seeds=[0], steps=2)
    assert abs(same.astype(int) - plain).max() <= 1
    assert (other != plain).any()


def test_a_mask_holds_after_rewriting(model: TextToImage) -> None:
    conditioning = model.encode_prompts("a bear")
    length = conditioning.hidden.shape[1]
    mask = torch.arange(length)[None] < 4
    noisy = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    masked = {"encoder_hidden_states": conditioning.hidden, "encoder_attention_mask": mask, "return_dict": False}
    plain = model.unet(noisy, 500, **masked)[0]
    with rewrite_attention(model.unet, identity), capture_attention(model.unet) as maps:
        rewritten = model.unet(noisy, 500, **masked)[0]
    torch.testing.assert_close(rewritten, plain, atol=1e-5, rtol=1e-5)
    assert float(maps.mean()[4:].max()) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_scores_are_float32_in_half_precision_and_the_output_keeps_its_type(dtype: torch.dtype) -> None:
    layer = Attention(query_dim=8, cross_attention_dim=6, heads=2, dim_head=4).to(dtype).requires_grad_(False)
    unet = OneLayer(layer)
    cells, text = torch.randn(2, 8, 3, 3, dtype=dtype), torch.randn(2, 5, 6, dtype=dtype)
    kinds: list[torch.dtype] = []
    with rewrite_attention(unet, lambda scores, place: (kinds.append(scores.dtype), scores)[1]):
        assert unet(cells, text).dtype == dtype
    assert kinds == [torch.float32]


class OneLayer(nn.Module):
    """The least that has a grid and a cross-attention layer."""

    def __init__(self, layer: Attention):
        super().__init__()
        self.layer = layer

    def forward(self, sample: Tensor, text: Tensor) -> Tensor:
        return self.layer(sample.flatten(2).mT, encoder_hidden_states=text)


@pytest.mark.parametrize(
    "options",
    [
        {"norm_num_groups": 2},
        {"residual_connection": True, "rescale_output_factor": 2.0},
        {"qk_norm": "layer_norm"},
        {"cross_attention_norm": "layer_norm"},
        {"bias": True, "out_bias": False},
    ],
    ids=lambda options: "-".join(options),
)
@torch.no_grad()
def test_every_kind_of_attention_layer_is_computed_as_diffusers_does(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    unet = OneLayer(Attention(query_dim=8, cross_attention_dim=6, heads=2, dim_head=4, **options))
    cells, text = torch.randn(2, 8, 3, 3), torch.randn(2, 5, 6)
    plain = unet(cells, text)
    with rewrite_attention(unet, identity):
        torch.testing.assert_close(unet(cells, text), plain)


def test_a_compiled_model_is_rewritten_and_captured() -> None:
    torch.manual_seed(0)
    unet = OneLayer(Attention(query_dim=8, cross_attention_dim=6, heads=2, dim_head=4)).requires_grad_(False)
    compiled = torch.compile(unet, backend="eager")
    cells, text = torch.randn(2, 8, 3, 3), torch.randn(2, 5, 6)
    plain = compiled(cells, text)
    with rewrite_attention(compiled, without(1)), capture_attention(compiled) as maps:
        rewritten = compiled(cells, text)
    assert float(maps.mean()[1].max()) == 0 and not torch.allclose(rewritten, plain)
    torch.testing.assert_close(compiled(cells, text), plain)


def test_errors_name_the_layer_and_the_way_out(model: TextToImage) -> None:
    def run(rewrite: Any, **options: Any) -> None:
        with rewrite_attention(model.unet, rewrite, **options):
            call(model, ["a bear"])

    with pytest.raises(ModelError, match=r"'attn9' matches no cross-attention layer; names look like 'down_blocks.0"):
        run(identity, layers="attn9")
    with pytest.raises(ModelError, match=r"down_blocks.0.*must return scores of \(1, .*, found \(1, "):
        run(lambda scores, place: scores[..., :3])
    with pytest.raises(ModelError, match="found NoneType"):
        run(lambda scores, place: None)
    with pytest.raises(ModelError, match=r"down_blocks.0.*-inf for every token in \d+ of \d+ rows"):
        run(lambda scores, place: torch.full_like(scores, -torch.inf))
    with pytest.raises(ModelError, match="was called by itself"), rewrite_attention(model.unet, identity):
        model.unet.get_submodule(LAYER)(torch.zeros(1, 16, 32), encoder_hidden_states=torch.zeros(1, 5, 32))


def test_a_processor_that_does_more_is_refused_by_name() -> None:
    unet = OneLayer(Attention(query_dim=8, cross_attention_dim=6, heads=2, dim_head=4))
    unet.layer.set_processor(IPAdapterAttnProcessor2_0(hidden_size=8, cross_attention_dim=6))
    refused = pytest.raises(ModelError, match="layer: its IPAdapterAttnProcessor2_0 does more than attention")
    with refused, rewrite_attention(unet, identity):
        pass
