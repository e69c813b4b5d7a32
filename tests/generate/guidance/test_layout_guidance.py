"""Layout guidance: the formula, exact zeros outside, rows that sum to one, the untouched half, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from photopic.core.errors import DataError, ModelError
from photopic.core.nn.attention import Place, capture_attention, rewrite_attention
from photopic.core.sampling import Control, Sampling, Step, sample, standard_noise
from photopic.data.layout import Layout, Region
from photopic.generate.guidance.layout_guidance import OUTSIDE, LayoutGuidance, LayoutGuidanceConfig, subject_positions
from photopic.models.text_to_image.handle import TextToImage

PROMPT = "a bear left of a cat on a red background"
PAIR = Layout((Region("bear", (0.0, 0.0, 0.5, 0.75)), Region("cat", (0.5, 0.0, 1.0, 0.75), strength=4.0)))
NEUTRAL = Layout(PAIR.regions, outside="neutral")
POSITIONS = [[2], [6]]
HEADS, DIM, TOKENS, SIDE = 2, 8, 24, 4
PLACE = Place("mid_block.attn2", SIDE, SIDE, HEADS)


def at(sigma: float, guided: bool = False) -> Step:
    return Step(0, 2, torch.tensor(500), sigma, 0.0, guided)


def queries_and_keys(batch: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(batch, HEADS, n, DIM, generator=generator) for n in (SIDE * SIDE, TOKENS))  # type: ignore[return-value]


def guidance(layout: Layout = PAIR, **config: Any) -> LayoutGuidance:
    return LayoutGuidance(layout, POSITIONS, LayoutGuidanceConfig(**config))


def draw(model: TextToImage, seeds: list[int], *controls: Control, steps: int = 2) -> Tensor:
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    noise = standard_noise(generators, torch.empty(len(seeds), 4, 8, 8))
    prompts, empty = (model.encode_prompts([text] * len(seeds)) for text in (PROMPT, ""))
    run = Sampling(
        model.unet,
        model.pipeline.scheduler,
        prompts,
        generators,
        unconditional=empty,
        steps=steps,
        controls=controls,
    )
    return sample(run, noise)


@pytest.mark.parametrize("sigma", [0.01, 0.7, 14.0])
def test_the_edit_is_the_papers_before_the_division_by_the_root_of_the_head_dimension(sigma: float) -> None:
    query, key = queries_and_keys(1)
    product = (query @ key.mT).double()
    weights = guidance().weights(SIDE, SIDE, TOKENS)[0].double()
    level = torch.log(torch.tensor(1 + sigma**2, dtype=torch.float64))
    expected = (product + 0.08 * weights * level * product.std()) / DIM**0.5
    found = guidance(weight=0.08).attention((product / DIM**0.5).float(), PLACE, at(sigma))
    torch.testing.assert_close(found, expected.float())
    torch.testing.assert_close(found.softmax(-1), expected.softmax(-1).float())


def test_the_edit_vanishes_with_the_noise_and_with_its_weight() -> None:
    query, key = queries_and_keys()
    scores = query @ key.mT
    assert torch.equal(guidance().attention(scores, PLACE, at(0.0)), scores)
    assert torch.equal(guidance(weight=0.0).attention(scores, PLACE, at(14.0)), scores)
    assert torch.equal(guidance(layers="up_blocks.*").attention(scores, PLACE, at(14.0)), scores)
    inside = PAIR.cells(SIDE, SIDE)[0].ravel()
    added = [
        float((guidance().attention(scores, PLACE, at(s)) - scores)[..., inside, 2].max()) for s in (3.0, 0.3, 0.03)
    ]
    assert added[0] > added[1] > added[2] > 0


def test_infinite_noise_counts_as_the_limit() -> None:
    query, key = queries_and_keys()
    found, limit = (guidance().attention(query @ key.mT, PLACE, at(s)) for s in (float("inf"), 14.6146))
    assert torch.equal(found, limit) and found.isfinite().all()


def test_only_the_conditional_half_of_a_guided_batch_is_touched() -> None:
    query, key = queries_and_keys(4)
    scores = query @ key.mT
    found = guidance().attention(scores, PLACE, at(5.0, guided=True))
    assert torch.equal(found[:2], scores[:2])
    assert torch.equal(found[2:], guidance().attention(scores[2:], PLACE, at(5.0)))


def test_a_sample_does_not_depend_on_its_batch() -> None:
    query, key = queries_and_keys(3)
    key[0] *= 50  # another sample of other spread
    together = guidance().attention(query @ key.mT, PLACE, at(5.0))
    torch.testing.assert_close(together[1:2], guidance().attention((query @ key.mT)[1:2], PLACE, at(5.0)))


def test_shut_layouts_shut_everywhere_outside_and_neutral_ones_in_the_regions_of_others_only() -> None:
    bear, cat = (cells.ravel() for cells in PAIR.cells(SIDE, SIDE))
    nobody = ~(bear | cat)
    assert nobody.any()
    for layout, beyond in ((PAIR, OUTSIDE), (NEUTRAL, 0.0)):
        weights = guidance(layout).weights(SIDE, SIDE, TOKENS)[0]
        assert (weights[bear, 2] == 2.5).all() and (weights[cat, 6] == 4.0).all()
        assert (weights[cat, 2] == OUTSIDE).all() and (weights[bear, 6] == OUTSIDE).all()
        assert (weights[nobody][:, [2, 6]] == beyond).all()
        weights[:, [2, 6]] = 0
        assert not weights.any()  # no other token
    query, key = queries_and_keys()
    scores = query @ key.mT
    found = guidance(NEUTRAL).attention(scores, PLACE, at(5.0))
    assert torch.equal(found[:, :, nobody], scores[:, :, nobody])


@pytest.mark.parametrize("sigma", [14.6, 1.0, 0.05])
def test_probabilities_are_zero_outside_and_sum_to_one_in_a_unet(model: TextToImage, sigma: float) -> None:
    guide = LayoutGuidance(PAIR, subject_positions(model, PROMPT, PAIR))
    assert guide.positions == [POSITIONS]
    prompts = model.encode_prompts([PROMPT] * 2)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with (
        rewrite_attention(model.unet, lambda scores, place: guide.attention(scores, place, at(sigma))),
        capture_attention(model.unet) as maps,
    ):
        model.unet(noise, 500, **prompts.unet_kwargs())
    assert {4, 8} <= {size[0] for size in maps.resolutions.values()}
    for name, size in maps.resolutions.items():
        shares = maps.mean(layers=name)
        torch.testing.assert_close(shares.sum(0), torch.ones(size))
        for region, (position,) in zip(PAIR.cells(*size), POSITIONS, strict=True):
            assert (shares[position][torch.from_numpy(~region)] == 0).all()
            assert (shares[position][torch.from_numpy(region)] > 0).all()


def test_a_region_smaller_than_a_cell_has_all_its_subjects_attention_on_every_grid(model: TextToImage) -> None:
    layout = Layout((Region("bear", (0.3, 0.6, 0.301, 0.601)),))
    guide = LayoutGuidance(layout, subject_positions(model, PROMPT, layout))
    with capture_attention(model.unet, [2], guided=True) as maps:
        draw(model, [0], guide)
    for name in maps.resolutions:
        (shares,) = maps.mean(layers=name)
        assert int((shares > 0).sum()) == 1


def test_two_regions_in_one_cell_of_a_layer_are_refused_where_it_is_drawn(model: TextToImage) -> None:
    layout = Layout((Region("bear", (0.3, 0.6, 0.301, 0.601)), Region("cat", (0.31, 0.6, 0.311, 0.601))))
    with pytest.raises(DataError, match="share their only cell of an attention grid of"):
        draw(model, [0], LayoutGuidance(layout, POSITIONS))


def test_a_run_without_weight_is_the_run_without_layout_and_with_it_another(model: TextToImage) -> None:
    plain = draw(model, [0, 1])
    torch.testing.assert_close(draw(model, [0, 1], guidance(weight=0.0)), plain)
    guided = draw(model, [0, 1], guidance())
    assert (guided - plain).abs().amax() > 1e-3
    torch.testing.assert_close(draw(model, [1], guidance()), guided[1:], rtol=1e-4, atol=1e-5)


def test_repeats_call_the_network_that_often_a_step(model: TextToImage) -> None:
    calls: list[int] = []
    handle = model.unet.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        draw(model, [0], guidance(repeats=3))
    finally:
        handle.remove()
    assert len(calls) == 3 * 2


def test_each_prompt_of_a_batch_has_its_words_found_and_nothing_is_kept_for_the_next(model: TextToImage) -> None:
    other = "a cat right of a bear on a red background"
    guide = LayoutGuidance(PAIR)

    def drawn(*prompts: str) -> np.ndarray:
        return model.generate(list(prompts), seeds=range(len(prompts)), steps=2, controls=[guide])

    together = drawn(PROMPT, other)
    assert guide.positions == [POSITIONS, [[6], [2]]]
    assert np.array_equal(drawn(PROMPT)[0], model.generate(
        PROMPT, seeds=[0], steps=2, controls=[LayoutGuidance(PAIR, POSITIONS)])[0])  # fmt: skip
    assert np.abs(drawn(PROMPT)[0].astype(int) - together[0]).max() <= 1  # another batch
    assert guide.positions == [POSITIONS]
    with pytest.raises(DataError, match="'cat' is not a subject of the prompt"):
        drawn("a bear")
    with pytest.raises(DataError, match="knows no prompts; give positions="):
        draw(model, [0], guide)


def test_words_are_found_at_every_occurrence_and_belong_to_the_longest_subject(model: TextToImage) -> None:
    layout = Layout((Region("cat", (0.0, 0.0, 0.5, 1.0)), Region("red cat", (0.5, 0.0, 1.0, 1.0))))
    assert subject_positions(model, "a cat and a red cat and a cat", layout) == [[2, 9], [5, 6]]
    with pytest.raises(DataError, match="'cat' is in the prompt 'a red cat' only as part of another"):
        subject_positions(model, "a red cat", layout)
    with pytest.raises(DataError, match="'red cat' is not a subject of the prompt 'a cat'"):
        subject_positions(model, "a cat", layout)


def test_numbers_out_of_range_and_positions_that_do_not_pair_up_are_refused() -> None:
    for config in ({"weight": -1.0}, {"strength": float("nan")}, {"repeats": 0}):
        with pytest.raises(DataError, match=next(iter(config))):
            guidance(**config)
    with pytest.raises(DataError, match="positions for each of 2 regions"):
        LayoutGuidance(PAIR, [[2]])


def test_a_guidance_of_its_own_counts_in_its_region_and_the_runs_elsewhere() -> None:
    bear = Region("bear", (0.0, 0.0, 0.5, 0.75), guidance=9.0)
    conditional, empty = torch.randn(2, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    found = guidance(Layout((bear, PAIR.regions[1]))).guidance(conditional, empty, 2.0, at(1.0, guided=True))
    assert found is not None
    expected = empty + 2.0 * (conditional - empty)
    expected[..., :3, :2] = (empty + 9.0 * (conditional - empty))[..., :3, :2]
    torch.testing.assert_close(found, expected)
    assert guidance().guidance(conditional, empty, 2.0, at(1.0, guided=True)) is None  # left to what comes after it
    with pytest.raises(ModelError, match="guidance of a region needs a model with a UNet"):
        LayoutGuidance(Layout((bear,))).guidance(conditional[0], empty[0], 2.0, at(1.0, guided=True))


def test_a_guidance_of_its_own_needs_a_guided_run(model: TextToImage) -> None:
    control = LayoutGuidance(Layout((Region("bear", (0.0, 0.0, 0.5, 0.75), guidance=9.0),)))
    strong = model.generate(PROMPT, seeds=[0], steps=2, guidance=2.0, controls=[control])
    plain = model.generate(
        PROMPT, seeds=[0], steps=2, guidance=2.0, controls=[LayoutGuidance(Layout(PAIR.regions[:1]))]
    )
    assert (strong != plain).any()
    with pytest.raises(DataError, match="region 'bear' has a guidance of its own, and the run has none"):
        model.generate(PROMPT, seeds=[0], steps=2, guidance=1.0, controls=[control])
