"""What a control may see and change: steps without their unconditional half, self-attention, queries, keys, values and blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from photopic.core.nn.attention import KINDS, Place, capture_attention
from photopic.core.sampling import Control, Sampling, Step, invert, sample
from photopic.models.text_to_image.handle import TextToImage
from tests.core.sampling.test_loop import STEPS, changing, run_of, with_scheduler
from tests.tiny import tiny_pipeline, tiny_sdxl_pipeline


@pytest.fixture(scope="module", params=[tiny_pipeline, tiny_sdxl_pipeline], ids=["sd1", "sdxl"])
def model(request: pytest.FixtureRequest) -> TextToImage:
    return TextToImage(with_scheduler(request.param(), "ddim"), "tiny")


def drawn(model: TextToImage, *controls: Control, **options: Any) -> Tensor:
    return sample(*run_of(model, ["a bear"], [3], controls=controls, **options))


def seeing(hook: str, value: Callable[..., Any], *kinds: str) -> Control:
    control = changing(hook, value)
    control.kinds = kinds or ("cross",)
    return control


@contextmanager
def counted(model: TextToImage) -> Iterator[list[int]]:
    """Rows of every UNet call inside."""
    rows: list[int] = []
    handle = model.unet.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    try:
        yield rows
    finally:
        handle.remove()


# --- the unconditional half


def test_never_guided_is_guidance_1_at_half_the_calls(model: TextToImage) -> None:
    with counted(model) as plain:
        expected = drawn(model, scale=1.0)
    with counted(model) as spared:
        found = drawn(model, changing("is_guided", lambda step: False))
    assert torch.equal(found, expected) and spared == plain == [1] * STEPS


def test_a_step_that_is_spared_calls_one_row_a_sample_and_the_others_two(model: TextToImage) -> None:
    seen: list[bool] = []
    first_two = changing("is_guided", lambda step: step.index < 2)
    watching = changing("latents", lambda latents, step: seen.append(step.guided) or latents)
    with counted(model) as rows:
        found = drawn(model, first_two, watching)
    assert rows == [2, 2, 1, 1, 1] and seen == [True, True, False, False, False]
    assert not torch.equal(found, drawn(model)) and not torch.equal(found, drawn(model, scale=1.0))
    by_hand = changing("guidance", lambda c, u, scale, step: None if step.index < 2 else c)
    torch.testing.assert_close(found, drawn(model, by_hand), atol=1e-5, rtol=1e-5)


def test_where_a_step_is_spared_its_attention_is_all_conditional(model: TextToImage) -> None:
    with capture_attention(model.unet, [2]) as maps:
        drawn(model, changing("is_guided", lambda step: step.index < 2))
    assert set(maps.counts.values()) == {STEPS}  # one conditional row a step, doubled or not


def test_a_run_begins_with_start_forwards_and_backwards() -> None:
    model = TextToImage(tiny_pipeline(), "tiny")
    begun: list[Sampling] = []
    control = changing("start", begun.append)
    sampling, noise = run_of(model, ["a bear"], [3], controls=[control])
    clean = sample(sampling, noise)
    sample(sampling, noise)
    with counted(model) as rows:
        invert(run_of(model, ["a bear"], [3], controls=[control, changing("is_guided", lambda step: False)])[0], clean)
    assert len(begun) == 3 and rows == [1] * STEPS


# --- inside the network


@pytest.mark.parametrize(
    "control",
    [
        Control(),
        changing("is_guided", lambda step: True),
        seeing("qkv", lambda q, k, v, place, step: (q, k, v), *KINDS),
        changing("block", lambda output, place, step: output),
    ],
    ids=["plain", "is_guided", "qkv", "block"],
)
def test_a_control_that_does_nothing_changes_no_bit(model: TextToImage, control: Control) -> None:
    processors = dict(model.unet.attn_processors)
    assert torch.equal(drawn(model, control), drawn(model))
    assert all(model.unet.attn_processors[name] is each for name, each in processors.items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.unet.modules())


def test_self_attention_is_seen_where_a_control_asks_for_it(model: TextToImage) -> None:
    seen: dict[tuple[str, ...], list[Place]] = {}

    def watch(kinds: tuple[str, ...]) -> Control:
        def look(scores: Tensor, place: Place, step: Step) -> Tensor:
            seen.setdefault(kinds, []).append(place)
            own = place.height * place.width
            assert scores.shape[2] == own and (place.kind == "cross" or scores.shape[3] == own)
            return scores

        return seeing("attention", look, *kinds)

    plain = drawn(model, steps=1)
    torch.testing.assert_close(drawn(model, *map(watch, (("self",), ("cross",), KINDS)), steps=1), plain)
    names = {kinds: {(place.name, place.kind) for place in places} for kinds, places in seen.items()}
    assert names[KINDS] == names["self",] | names["cross",]
    assert {kind for _, kind in names["self",]} == {"self"} and all("attn1" in name for name, _ in names["self",])


def test_queries_keys_and_values_are_used_and_keys_may_be_more(model: TextToImage) -> None:
    plain = drawn(model)
    scaled = seeing("qkv", lambda q, k, v, place, step: (q, k, 0.5 * v), "self")
    assert not torch.allclose(drawn(model, scaled), plain, atol=1e-3)
    by_scores = seeing("attention", lambda scores, place, step: scores + 0.0, "self")
    torch.testing.assert_close(drawn(model, scaled, by_scores), drawn(model, scaled), atol=1e-5, rtol=1e-4)

    def twice(q: Tensor, k: Tensor, v: Tensor, place: Place, step: Step) -> tuple[Tensor, Tensor, Tensor]:
        return q, torch.cat([k, k], 2), torch.cat([v, v], 2)  # every cell read twice is the same mean

    torch.testing.assert_close(drawn(model, seeing("qkv", twice, "self")), plain, atol=1e-4, rtol=1e-4)


def test_what_a_block_hands_on_is_rewritten_in_order(model: TextToImage) -> None:
    seen: set[tuple[str, str]] = set()

    def halve(output: Tensor, place: Place, step: Step) -> Tensor:
        seen.add((place.name, place.kind))
        assert output.shape[1] == place.height * place.width
        return 0.5 * output

    back = changing("block", lambda output, place, step: 2 * output)
    assert not torch.allclose(drawn(model, changing("block", halve)), drawn(model), atol=1e-3)
    assert torch.equal(drawn(model, changing("block", halve), back), drawn(model))
    assert {kind for _, kind in seen} == {"block"} and len(seen) >= 4
