"""Which base is this: the digest tells contents apart, the sketches recognise the same weights at another precision."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from photopic.core.errors import ModelError
from photopic.core.fingerprint import fingerprint, named_tensors
from photopic.core.identity import Fingerprint, difference

NAMES = ["a.0.weight", "b.weight"]


def modules(seed: int = 0) -> dict[str, nn.Module]:
    torch.manual_seed(seed)
    return {"a": nn.Sequential(nn.Linear(12, 9), nn.BatchNorm1d(9)), "b": nn.Linear(9, 12, bias=False)}


def cast(model: dict[str, nn.Module], dtype: torch.dtype) -> dict[str, nn.Module]:
    return {name: copy.deepcopy(module).to(dtype) for name, module in model.items()}


def of(model: dict[str, nn.Module], name: str = "tiny") -> Fingerprint:
    return fingerprint(model, name, NAMES)


def test_equal_content_has_one_digest_and_any_changed_bit_another() -> None:
    model = modules()
    before = of(model)
    assert of(modules()) == before
    weight = model["a"][0].weight  # type: ignore[index]
    with torch.no_grad():
        weight.view(torch.int32)[0, 0] ^= 1
    assert of(model).digest != before.digest


def test_name_dtype_and_shape_are_part_of_the_digest() -> None:
    weight = torch.zeros(4, 2)
    digests = set()
    for name, tensor in [
        ("m", weight),
        ("n", weight),
        ("m", weight.half()),
        ("m", weight.view(2, 4)),
        ("m", weight.bfloat16()),
    ]:
        layer = nn.Linear(2, 4, bias=False)
        layer.weight = nn.Parameter(tensor)
        digests.add(fingerprint({name: layer}, "x").digest)
    assert len(digests) == 5


def test_what_the_model_is_called_does_not_matter() -> None:
    assert of(modules(), "one").digest == of(modules(), "two").digest
    assert difference(of(modules(), "one"), of(modules(), "two")) == ""


def test_the_order_of_the_components_does_not_matter() -> None:
    model = modules()
    assert of(dict(reversed(model.items()))).digest == of(model).digest


def test_memory_layout_does_not_matter() -> None:
    layer = nn.Conv2d(3, 5, 3)
    before = fingerprint({"c": layer}, "x", ["c.weight"])
    assert fingerprint({"c": layer.to(memory_format=torch.channels_last)}, "x", ["c.weight"]) == before


@settings(max_examples=10, deadline=None, database=None)
@given(st.integers(0, 10**6), *[st.sampled_from([torch.float32, torch.float16, torch.bfloat16])] * 2)
def test_a_copy_at_another_precision_is_recognised(seed: int, one: torch.dtype, other: torch.dtype) -> None:
    model = modules(seed)
    assert difference(of(cast(model, one)), of(cast(model, other))) == ""


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_weights_loaded_as_float32_are_recognised(dtype: torch.dtype) -> None:
    model = modules()
    upcast = cast(cast(model, dtype), torch.float32)
    assert difference(of(model), of(upcast)) == ""
    assert difference(of(cast(model, dtype)), of(upcast)) == ""


@settings(max_examples=10, deadline=None, database=None)
@given(st.integers(0, 10**6), *[st.sampled_from([torch.float32, torch.float16, torch.bfloat16])] * 2)
def test_another_base_is_refused_at_any_precision(seed: int, one: torch.dtype, other: torch.dtype) -> None:
    assert difference(of(cast(modules(seed), one)), of(cast(modules(seed + 1), other))) != ""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_fine_tuned_model_is_not_its_base(dtype: torch.dtype) -> None:
    model, tuned = modules(), cast(modules(), torch.float32)
    with torch.no_grad():
        for parameter in [p for module in tuned.values() for p in module.parameters()]:
            parameter.mul_(1 + 0.02 * torch.randn_like(parameter))
    assert difference(of(model), of(cast(tuned, dtype))) != ""


@pytest.mark.parametrize(("dtype", "factor"), [(torch.float16, 1.004), (torch.bfloat16, 1.02)])
def test_a_change_beyond_rounding_is_seen_at_another_precision(dtype: torch.dtype, factor: float) -> None:
    torch.manual_seed(0)
    model: dict[str, nn.Module] = {"m": nn.Linear(12, 9, bias=False)}
    tuned = cast(model, torch.float32)
    with torch.no_grad():
        tuned["m"].weight.mul_(factor)  # type: ignore[operator]
    base, copied, changed = (
        fingerprint(each, "tiny", ["m.weight"]) for each in (model, cast(model, dtype), cast(tuned, dtype))
    )
    assert difference(base, copied) == ""
    assert "differ" in difference(base, changed)


def test_one_changed_weight_at_the_same_precision_is_another_base() -> None:
    model = modules()
    changed = cast(model, torch.float32)
    with torch.no_grad():
        changed["b"].weight[-1, -1] += 1  # type: ignore[index, operator]
    assert "same precision" in difference(of(model), of(changed)) or "differ" in difference(of(model), of(changed))


def test_one_changed_weight_that_no_sample_shows_is_another_base() -> None:
    base, changed = nn.Linear(300, 300), nn.Linear(300, 300)
    changed.load_state_dict(base.state_dict())
    with torch.no_grad():
        changed.weight[-1, -1] += 1
    found = [fingerprint({"m": layer}, "tiny", ["m.weight"]) for layer in (base, changed)]
    assert "same precision" in difference(*found)


def test_another_architecture_is_named_as_such() -> None:
    bigger = {**modules(), "c": nn.Linear(2, 2)}
    assert difference(of(modules()), of(bigger)) == "it has other tensors or shapes"


def test_only_some_components_cast_is_recognised() -> None:
    model = modules()
    assert difference(of(model), of({"a": model["a"], "b": copy.deepcopy(model["b"]).half()})) == ""


def test_shared_and_scalar_tensors_are_allowed() -> None:
    shared = nn.Linear(3, 3)
    shared.scale = nn.Parameter(torch.tensor(2.0))
    found = fingerprint({"one": shared, "two": shared}, "x", ["one.scale", "two.weight"])
    assert found.shapes == {"one.scale": (), "two.weight": (3, 3)}


def test_unknown_and_offloaded_tensors_are_named() -> None:
    with pytest.raises(ModelError, match=r"tiny: has no tensor b\.bias"):
        fingerprint(modules(), "tiny", ["b.bias"])
    with pytest.raises(ModelError, match=r"m\.weight: has no data here"):
        fingerprint({"m": nn.Linear(2, 2, bias=False, device="meta")}, "x")


def test_a_compiled_module_keeps_its_names() -> None:
    model = modules()
    compiled = {name: torch.compile(module, backend="eager") for name, module in model.items()}
    assert of(compiled) == of(model)  # type: ignore[arg-type]


DTYPES = st.sampled_from([torch.float32, torch.float16, torch.bfloat16])


def holding(values: list[float], dtype: torch.dtype) -> Fingerprint:
    """A model of these weights, rounded once from float32, whose samples show most of them."""
    module = nn.Module()
    module.weight = nn.Parameter(torch.tensor(values, dtype=torch.float32).to(dtype))
    return fingerprint({"m": module}, "tiny", ["m.weight"])


@settings(max_examples=300, deadline=None, database=None)
@given(st.lists(st.floats(width=32), max_size=24), DTYPES, DTYPES)
def test_a_copy_is_recognised_whatever_numbers_it_holds(
    values: list[float], one: torch.dtype, other: torch.dtype
) -> None:
    assert difference(holding(values, one), holding(values, other)) == ""


@settings(max_examples=100, deadline=None, database=None)
@given(st.lists(st.floats(-0.125, 0.125, width=32), max_size=24), st.floats(-24, -10), DTYPES, DTYPES)
def test_copies_of_small_weights_are_recognised(
    values: list[float], exponent: float, one: torch.dtype, other: torch.dtype
) -> None:
    values = [value * 2.0**exponent for value in values]  # where float16 is coarser than bfloat16
    assert difference(holding(values, one), holding(values, other)) == ""


def test_half_weights_cast_to_bfloat16_are_recognised() -> None:
    model = modules()
    assert difference(of(model), of(cast(cast(model, torch.float16), torch.bfloat16))) == ""


@settings(max_examples=60, deadline=None, database=None)
@given(
    st.integers(0, 10**6),
    DTYPES,
    st.lists(st.tuples(st.integers(0, 255), st.sampled_from(["up", "down", "other"])), min_size=1, max_size=4),
)
def test_a_few_changed_weights_at_the_same_precision_are_another_base(
    seed: int, dtype: torch.dtype, changes: list[tuple[int, str]]
) -> None:
    weights = np.random.default_rng(seed).standard_normal(256).tolist()
    base, changed = (torch.tensor(weights).to(dtype) for _ in range(2))
    step = {"up": math.inf, "down": -math.inf}
    for position, change in changes:
        towards = torch.tensor(step.get(change, 0.0), dtype=dtype)
        changed[position] = changed[position] * -0.5 if change == "other" else base[position].nextafter(towards)
    assert difference(holding(base.tolist(), dtype), holding(changed.tolist(), dtype)) != ""


def test_a_weight_that_became_a_round_number_is_another_base() -> None:
    assert difference(holding([1.001] * 3, torch.float32), holding([1.001, 1.001, 1.0], torch.float32)) != ""


def test_a_touched_tensor_is_compared_even_if_no_sample_of_the_model_shows_it() -> None:
    torch.manual_seed(0)
    base: dict[str, nn.Module] = {"m": nn.Sequential(nn.Linear(400, 400), nn.Linear(2, 2))}
    other = cast(base, torch.float16)
    with torch.no_grad():
        other["m"][1].weight.mul_(3)  # type: ignore[index]
    assert difference(*(fingerprint(model, "x", ["m.0.weight"]) for model in (base, other))) == ""
    found = [fingerprint(model, "x", ["m.0.weight", "m.1.weight"]) for model in (base, other)]
    assert difference(*found) == "m.1.weight differs"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_empty_scalar_and_tied_tensors_are_recognised_at_another_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 5)
    layer.scale = nn.Parameter(torch.tensor(0.3))
    layer.none = nn.Parameter(torch.zeros(0, 3))
    names = ["one.scale", "one.none", "two.weight"]
    copied = copy.deepcopy(layer).to(dtype)
    found = [fingerprint({"one": each, "two": each}, "x", names) for each in (layer, copied)]
    assert found[0].digest != found[1].digest and difference(*found) == ""


def test_a_model_without_weights_is_itself() -> None:
    assert difference(fingerprint({"m": nn.ReLU()}, "x"), fingerprint({"m": nn.Tanh()}, "x")) == ""


class Quantised(nn.Module):
    """A linear layer as 8-bit quantisers keep it: integers, a scale a row, and a zero point."""

    def __init__(self, weight: torch.Tensor, dtype: torch.dtype = torch.int8):
        super().__init__()
        scale = weight.abs().amax(1, keepdim=True) / 127
        self.register_buffer("weight", (weight / scale).round().to(dtype))
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", torch.tensor(3))
        self.register_buffer("scratch", torch.arange(4), persistent=False)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8])
def test_quantised_weights_are_part_of_the_identity(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight = torch.rand(3, 4)
    base = fingerprint({"m": Quantised(weight, dtype)}, "x", ["m.weight"])
    assert base == fingerprint({"m": Quantised(weight, dtype)}, "x", ["m.weight"])
    for name in ("weight", "zero_point"):
        changed = Quantised(weight, dtype)
        getattr(changed, name).view(-1)[0] += 1
        assert difference(base, fingerprint({"m": changed}, "x", ["m.weight"])) != ""
        changed.scale = changed.scale.half()
        assert difference(base, fingerprint({"m": changed}, "x", ["m.zero_point"])) == "it has other tensors or shapes"
    assert difference(base, fingerprint({"m": Quantised(weight, dtype).half()}, "x", ["m.weight"])) == ""
    same_but_scratch = Quantised(weight, dtype)
    same_but_scratch.scratch += 1
    assert fingerprint({"m": same_but_scratch}, "x").digest == base.digest


def test_a_quantised_model_is_not_its_original() -> None:
    weight = torch.tensor([[127.0, -3.0], [5.0, 127.0]])  # where quantising moves nothing
    original, quantised = Quantised(weight), Quantised(weight)
    original.weight = original.weight.float()
    assert torch.equal(original.weight, quantised.weight.float())
    found = [fingerprint({"m": module}, "x", ["m.weight"]) for module in (original, quantised)]
    assert difference(*found) == "it has other tensors or shapes"


class Packed(torch.Tensor):
    """A weight made of other tensors, as torchao's are."""

    @staticmethod
    def __new__(cls, packed: torch.Tensor, scale: torch.Tensor) -> Packed:
        return torch.Tensor._make_wrapper_subclass(cls, packed.shape, dtype=scale.dtype)  # type: ignore[attr-defined]

    def __init__(self, packed: torch.Tensor, scale: torch.Tensor):
        self.packed, self.scale = packed, scale

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["packed", "scale"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, torch.Tensor], context: None, size: object, stride: object) -> Packed:
        return Packed(inner["packed"], inner["scale"])

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        raise NotImplementedError(func)


def test_a_weight_made_of_other_tensors_counts_as_those() -> None:
    module = nn.Module()
    module.register_buffer("weight", Packed(torch.arange(6, dtype=torch.int8), torch.tensor(0.5)))
    found = named_tensors({"m": module})
    assert list(found) == ["m.weight.packed", "m.weight.scale"]
    before = fingerprint({"m": module}, "x", found)
    found["m.weight.packed"][0] += 1
    assert fingerprint({"m": module}, "x").digest != before.digest


def test_a_tensor_whose_bytes_cannot_be_read_is_refused_by_name() -> None:
    module = nn.Module()
    module.register_buffer("table", torch.eye(2).to_sparse())
    with pytest.raises(ModelError, match=r"m\.table: expected a plain tensor, found sparse_coo; load the model"):
        fingerprint({"m": module}, "x")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64, torch.bool, torch.int16])
def test_every_type_of_tensor_has_a_fingerprint(dtype: torch.dtype) -> None:
    module = nn.Module()
    module.register_buffer("table", torch.tensor([0.0, 1.0, 2.0]).to(dtype))
    before = fingerprint({"m": module}, "x", ["m.table"])
    module.table = torch.tensor([0.0, 0.0, 2.0]).to(dtype)
    assert difference(before, fingerprint({"m": module}, "x", ["m.table"])) != ""


def test_the_tensors_are_those_of_the_state_in_its_order() -> None:
    class Kept(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2), nn.Linear(2, 2))
            self.none = None
            self.register_buffer("passing", torch.zeros(2), persistent=False)
            self.register_buffer("kept", torch.zeros(2))
            self.register_parameter("absent", None)

    model = Kept()
    expected = {f"m.{name}": value for name, value in model.state_dict(keep_vars=True).items()}
    found = named_tensors({"m": model})
    assert list(found) == list(expected) and all(found[name] is expected[name] for name in found)
    assert list(named_tensors({"m": torch.compile(model, backend="eager")})) == list(expected)
