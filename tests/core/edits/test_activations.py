"""Parts that change no parameter: what they do to what flows through real modules, and to a picture's start."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from diffusers.utils import BaseOutput
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_outputs import BaseModelOutput

from photopic.core.edits import Edit, EditStack, InitialNoise, ParallelAdapter, SteeringVector, TokenResidual
from photopic.core.errors import EditError
from photopic.core.fingerprint import fingerprint
from photopic.models.text_to_image.handle import TextToImage
from tests.tiny import tiny_pipeline, tiny_sdxl_pipeline


def residual(pipeline: Any, words: str, encoders: tuple[str, ...] = ("text_encoder",)) -> TokenResidual:
    """A residual for the tokens of words."""
    generator = torch.Generator().manual_seed(0)
    ids = tuple(pipeline.tokenizer(words, add_special_tokens=False).input_ids)
    dim = pipeline.text_encoder.config.hidden_size
    rows = {name: torch.randn(len(ids), dim, generator=generator) for name in encoders}
    return TokenResidual(words, dict.fromkeys(encoders, ids), rows)


@torch.no_grad()
def encoded(pipeline: Any, prompts: list[str]) -> Any:
    ids = pipeline.tokenizer(prompts, padding="max_length", return_tensors="pt").input_ids
    return pipeline.text_encoder(ids, output_hidden_states=True)


@pytest.mark.parametrize(("words", "times"), [("bear", 2), ("red bear", 1)])
def test_a_residual_is_added_exactly_where_its_words_stand(words: str, times: int) -> None:
    pipeline = tiny_pipeline()
    part = residual(pipeline, words)
    prompts = ["a cat", "a bear on a red bear"]
    plain = encoded(pipeline, prompts).last_hidden_state
    ids = pipeline.tokenizer(prompts[1]).input_ids
    tokens, row = part.ids["text_encoder"], part.residuals["text_encoder"]
    starts = [at for at in range(len(ids)) if tuple(ids[at : at + len(tokens)]) == tokens]
    assert len(starts) == times
    expected = plain.clone()
    for start in starts:
        expected[1, start : start + len(tokens)] += 0.5 * row
    stack = EditStack({"text_encoder": pipeline.text_encoder})
    edit = Edit((part,), stack.fingerprint())
    with stack.applied(edit, weight=0.5):
        assert torch.equal(encoded(pipeline, prompts).last_hidden_state, expected)
    assert torch.equal(encoded(pipeline, prompts).last_hidden_state, plain)


def test_a_residual_longer_than_the_prompt_changes_nothing() -> None:
    pipeline = tiny_pipeline()
    part = residual(pipeline, "red bear on a house")
    short = torch.tensor([[1, 2]])
    plain = pipeline.text_encoder(short).last_hidden_state
    stack = EditStack({"text_encoder": pipeline.text_encoder})
    with stack.applied(Edit((part,), stack.fingerprint())):
        assert torch.equal(pipeline.text_encoder(short).last_hidden_state, plain)


def test_pipelines_of_two_encoders_read_the_residual_in_the_last_but_one_layer() -> None:
    pipeline = tiny_sdxl_pipeline()
    names = ("text_encoder", "text_encoder_2")
    part = residual(pipeline, "bear", names)
    stack = EditStack({name: getattr(pipeline, name) for name in names})

    def embedded() -> Tensor:
        return pipeline.encode_prompt("a bear", device="cpu", do_classifier_free_guidance=False)[0].detach()

    plain, place = embedded(), 2  # after the start token and the article
    with stack.applied(Edit((part,), stack.fingerprint())):
        changed = embedded() - plain
    both = torch.cat([part.residuals[name][0] for name in names])
    torch.testing.assert_close(changed[0, place], both, atol=1e-5, rtol=0)
    assert not changed[0, :place].any() and not changed[0, place + 1 :].any()


class Answer(BaseOutput):
    """A diffusers output."""

    sample: Tensor
    extra: int = 0


class Pair(NamedTuple):
    first: Tensor
    second: int


class Layer(nn.Module):
    """A linear layer that hands its result out in a way of its own, and takes its input in another."""

    def __init__(self, way: str):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.way = nn.Linear(4, 3), way

    def forward(self, *many: Tensor, **named: Tensor) -> Any:
        result = self.linear(next(iter(named.values())) if named else many[0])
        wrapped: dict[str, Any] = {
            "tensor": result,
            "tuple": (result, 7),
            "named tuple": Pair(result, 7),
            "model output": BaseModelOutput(last_hidden_state=result),
            "diffusers output": Answer(sample=result),
        }
        return wrapped[self.way]


def first_of(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


@pytest.mark.parametrize("way", ["tensor", "tuple", "named tuple", "model output", "diffusers output"])
@pytest.mark.parametrize("activation", ["identity", "relu", "gelu"])
def test_an_insertion_is_its_formula_whatever_holds_the_output(way: str, activation: str) -> None:
    layer, x = Layer(way), torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(1))
    down, up = torch.randn(2, 4), torch.randn(3, 2)
    part = ParallelAdapter({"m": down}, {"m": up}, scale=0.3, activation=activation)
    stack = EditStack({"m": layer})
    between = {"identity": lambda t: t, "relu": F.relu, "gelu": F.gelu}[activation](x @ down.T)
    plain = layer(x)
    with stack.applied(Edit((part,), stack.fingerprint()), weight=2.0):
        output, by_name = layer(x), layer(whatever=x)
    assert type(output) is type(plain)
    torch.testing.assert_close(first_of(output), first_of(plain) + 0.6 * between @ up.T)
    assert torch.equal(first_of(output), first_of(by_name))
    assert way not in ("tuple", "named tuple") or output[1] == 7
    assert torch.equal(first_of(layer(x)), first_of(plain))


def test_a_direction_is_added_everywhere_and_weighted_by_module() -> None:
    net = nn.Sequential(OrderedDict(first=nn.Conv2d(2, 3, 1), second=nn.Conv2d(3, 3, 1, bias=False)))
    x = torch.randn(2, 2, 4, 4)
    vector = torch.tensor([1.0, -2.0, 0.5]).view(3, 1, 1)
    part = SteeringVector({"m.first": vector, "m.second": vector})
    stack = EditStack({"m": net})
    plain, base = net.first(x), net(x)
    with stack.applied(Edit((part,), stack.fingerprint()), weight={"m.second": 0.0}):
        torch.testing.assert_close(
            net(x), net.second(plain) + F.conv2d(vector[None].expand(2, 3, 4, 4), net.second.weight)
        )
        assert len(net.second._forward_hooks) == 0
    with stack.applied(Edit((part,), stack.fingerprint()), weight={"m.first": 0.0}):
        torch.testing.assert_close(net(x), base + vector)


def test_hooks_of_several_edits_act_in_their_order_and_leave_in_any() -> None:
    layer, x = nn.Linear(4, 3), torch.ones(1, 4)
    stack = EditStack({"m": layer})
    base, plain = stack.fingerprint(), layer(x)
    one, two = (Edit((SteeringVector({"m": torch.full((3,), float(n))}),), base) for n in (1, 2))
    stack.load(one, name="one"), stack.load(two, name="two")
    torch.testing.assert_close(layer(x), plain + 3)
    stack.unload("one")
    torch.testing.assert_close(layer(x), plain + 2)
    stack.clear()
    assert torch.equal(layer(x), plain) and not layer._forward_hooks


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TokenResidual("bear", {"t": (1, 2)}, {"t": torch.zeros(1, 4)}), "found 2 ids and 1 residuals"),
        (lambda: TokenResidual("bear", {"t": (1,)}, {"u": torch.zeros(1, 4)}), "for the same encoders"),
        (lambda: TokenResidual("", {"t": (1,)}, {"t": torch.zeros(1, 4)}), "expected words"),
        (lambda: ParallelAdapter({"m": torch.ones(2, 4)}, {"m": torch.ones(3, 1)}), "m: expected matrices"),
        (lambda: ParallelAdapter({"m": torch.ones(2, 4)}, {}), "m: expected matrices"),
        (lambda: ParallelAdapter({"m": torch.ones(2, 4)}, {"m": torch.ones(3, 2).half()}), "at one precision"),
        (lambda: ParallelAdapter({"m": torch.ones(2, 4)}, {"m": torch.ones(3, 2)}, activation="tanh"), "'tanh'"),
        (lambda: SteeringVector({"m": torch.full((3,), float("nan"))}), "m: expected finite values"),
        (lambda: InitialNoise(torch.zeros(3)), "start noise"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, message: str) -> None:
    with pytest.raises(EditError, match=message):
        make()


def test_blended_noise_keeps_unit_variance_and_is_exact_at_its_ends() -> None:
    generator = torch.Generator().manual_seed(0)
    noise, drawn = torch.randn(4, 64, 64, generator=generator), torch.randn(2, 4, 64, 64, generator=generator)
    part = InitialNoise(noise)
    assert torch.equal(part.blend(drawn, 0.0), drawn) and torch.equal(part.blend(drawn, 1.0)[1], noise)
    for weight in (0.1, 0.5, 0.9):
        blended = part.blend(drawn, weight)
        torch.testing.assert_close(blended.var(dim=(1, 2, 3)), torch.ones(2), atol=0.03, rtol=0)
    for weight in (-0.1, 1.1):
        with pytest.raises(EditError, match="a weight from 0 to 1"):
            part.blend(drawn, weight)
    with pytest.raises(EditError, match=r"latents of shape \(4, 64, 64\)"):
        part.blend(drawn[:, :, :8], 0.5)


@pytest.mark.parametrize("make", [tiny_pipeline, tiny_sdxl_pipeline])
def test_pictures_start_from_the_start_noise(make: Any) -> None:
    model = TextToImage(make(), "tiny")
    options: dict[str, Any] = {"seeds": [3, 4], "steps": 2}
    plain = model.generate("a bear", **options)
    drawn = torch.cat([torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (3, 4)])
    base = fingerprint(model.components, "tiny")
    own = Edit((InitialNoise(drawn[1]),), base)
    with model.edits.applied(own, weight=1.0):
        found = model.generate("a bear", **options)
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[1], plain[1])  # both from what seed 4 draws
    with model.edits.applied(own, weight=0.0):
        assert np.array_equal(model.generate("a bear", **options), plain)
    with model.edits.applied(own, weight=0.5):
        halfway = model.generate("a bear", **options)
    assert not np.array_equal(halfway[0], plain[0]) and not np.array_equal(halfway[0], plain[1])
    assert np.array_equal(model.generate("a bear", **options), plain)
    wrong = Edit((InitialNoise(torch.zeros(4, 16, 16)),), base)
    with model.edits.applied(wrong), pytest.raises(EditError, match="start noise: expected latents of shape"):
        model.generate("a bear", **options)
