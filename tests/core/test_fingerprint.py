"""Which base is this: the digest tells contents apart, the sketches recognise the same weights at another precision."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from photopic.core.errors import ModelError
from photopic.core.fingerprint import Fingerprint, difference, fingerprint

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
    with pytest.raises(ModelError, match=r"m\.weight.*offloading"):
        fingerprint({"m": nn.Linear(2, 2, bias=False, device="meta")}, "x")


def test_a_compiled_module_keeps_its_names() -> None:
    model = modules()
    compiled = {name: torch.compile(module, backend="eager") for name, module in model.items()}
    assert of(compiled) == of(model)  # type: ignore[arg-type]
