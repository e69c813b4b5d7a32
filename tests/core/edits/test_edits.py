"""Edits on live models: the algebra keeps its laws; any order of applying and reverting is in `test_edit_programs`."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from photopic.core.edits import Edit, EditStack, SparseWeights, ZeroedWeights, compose
from photopic.core.errors import EditError
from photopic.core.fingerprint import fingerprint
from photopic.core.identity import Fingerprint
from tests.core.small import content

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
SIZES = {"m.one.weight": 35, "m.two.weight": 35, "m.two.bias": 5, "m.conv.weight": 24}
few = settings(max_examples=25, deadline=None, database=None)


class Small(nn.Module):
    """Two linear layers, a channels-last convolution, and a shared weight under a second name."""

    def __init__(self, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        self.one, self.two = nn.Linear(7, 5, bias=False), nn.Linear(7, 5)
        self.conv = nn.Conv2d(2, 3, 2, bias=False).to(memory_format=torch.channels_last)
        self.tied = nn.Linear(7, 5, bias=False)
        self.tied.weight = self.one.weight
        with torch.no_grad():
            self.one.weight[0, :3] = torch.tensor([-0.0, 0.0, -1e-8])


BASE = fingerprint({"m": Small()}, "small", [*SIZES, "m.tied.weight"])


def shut(positions: dict[str, list[int]], base: Fingerprint = BASE) -> Edit:
    return Edit((ZeroedWeights({name: torch.tensor(p, dtype=torch.int64) for name, p in positions.items()}),), base)


def valued(positions: dict[str, list[int]], seed: int = 0, bits: int = 32) -> Edit:
    generator = torch.Generator().manual_seed(seed)
    indices = {name: torch.tensor(p, dtype=torch.int64) for name, p in positions.items()}
    return Edit(
        (
            SparseWeights.rounded(
                indices, {n: torch.randn(len(p), generator=generator) for n, p in indices.items()}, bits
            ),
        ),
        BASE,
    )


positions_of = {
    name: st.lists(st.integers(0, size - 1), unique=True, max_size=12).map(sorted) for name, size in SIZES.items()
}
supports = st.fixed_dictionaries(positions_of).filter(lambda found: any(found.values()))


specs = st.tuples(supports, st.sampled_from([None, 32, 16, 2]), st.integers(0, 99))
Spec = tuple[dict[str, list[int]], int | None, int]


def made(spec: Spec) -> Edit:
    """Made in the test and not in the strategy: the checker of annotations draws random numbers, which strategies must not."""
    support, bits, seed = spec
    return shut(support) if bits is None else valued(support, seed, bits)


@few
@given(st.sampled_from(DTYPES), specs)
def test_weight_one_writes_exactly_the_edit_and_nothing_else(dtype: torch.dtype, spec: Spec) -> None:
    edit = made(spec)
    model, base = Small().to(dtype), dict(Small().to(dtype).named_parameters())
    stack = EditStack({"m": model})  # held: one that is collected takes its edits away
    stack.load(edit)
    (part,) = edit.parts
    for name, parameter in model.named_parameters():
        expected = base[name].detach().contiguous().view(-1).clone()
        if f"m.{name}" in part.indices:  # type: ignore[union-attr]
            values = (
                part.values[f"m.{name}"].to(dtype) if isinstance(part, SparseWeights) else torch.zeros((), dtype=dtype)
            )
            expected[part.indices[f"m.{name}"]] = values  # type: ignore[union-attr]
        found = parameter.detach().contiguous().view(-1)
        assert torch.equal(found, expected)


def test_a_fraction_interpolates() -> None:
    model, base = Small(), Small()
    edit = valued({"m.two.weight": [3]}, seed=1)
    value = float(edit.parts[0].values["m.two.weight"][0])  # type: ignore[union-attr]
    stack = EditStack({"m": model})
    with stack.applied(edit, weight=0.25):
        start = float(base.two.weight.detach().view(-1)[3])
        assert float(model.two.weight.detach().view(-1)[3]) == pytest.approx(start + 0.25 * (value - start), rel=1e-6)
    with stack.applied(shut({"m.two.weight": [3]}), weight=0.25):
        assert float(model.two.weight.detach().view(-1)[3]) == pytest.approx(0.75 * start, rel=1e-6)


def test_shut_entries_are_positive_zero() -> None:
    model = Small()
    stack = EditStack({"m": model})  # held: one that is collected takes its edits away
    stack.load(shut({"m.two.weight": list(range(35))}))
    assert not torch.signbit(model.two.weight).any()


@few
@given(st.sampled_from(DTYPES), specs, specs, st.sampled_from([1.0, 0.3]))
def test_disjoint_edits_commute(dtype: torch.dtype, one_spec: Spec, other_spec: Spec, weight: float) -> None:
    a, b = made(one_spec), made(other_spec)
    b_support = {
        name: [p for p in positions.tolist() if p not in set(a.touched().get(name, torch.tensor([])).tolist())]
        for name, positions in b.touched().items()
    }
    if not any(b_support.values()):
        return
    b = valued(b_support)
    one, other = Small().to(dtype), Small().to(dtype)
    stacks = [EditStack({"m": one}), EditStack({"m": other})]  # held: one that is collected takes its edits away
    for stack, order in zip(stacks, ((a, b), (b, a)), strict=True):
        for edit in order:
            stack.load(edit, weight=weight)
    assert content(one) == content(other)


def test_an_empty_stack_and_mask_then_unmask_are_bit_identical() -> None:  # spec 1(g) identity 3
    model = Small()
    before = content(model)
    stack = EditStack({"m": model})
    assert content(model) == before
    with stack.applied(shut({"m.one.weight": list(range(35)), "m.two.bias": [0]})):
        assert content(model) != before
    assert content(model) == before and stack.names() == ()


@few
@given(supports, supports, supports)
def test_composing_shut_sets_is_their_union(a: dict, b: dict, c: dict) -> None:  # spec 1(g) identity 4
    first, second, third = shut(a), shut(b), shut(c)
    both = compose(first, second)
    expected = {name: sorted({*a[name], *b[name]}) for name in a if a[name] or b[name]}
    assert {name: positions.tolist() for name, positions in both.touched().items()} == expected
    assert same(both, compose(second, first))
    assert same(compose(both, third), compose(first, compose(second, third)))
    assert same(compose(first, first), first)
    one, other = Small(), Small()
    at_once, one_by_one = EditStack({"m": one}), EditStack({"m": other})  # held: a collected one takes its edits away
    at_once.load(both)
    one_by_one.load(first), one_by_one.load(second)
    assert content(one) == content(other)


def same(a: Edit, b: Edit) -> bool:
    x, y = a.touched(), b.touched()
    return x.keys() == y.keys() and all(torch.equal(x[n], y[n]) for n in x) and a.provenance == b.provenance


def test_composing_keeps_values_and_refuses_overlaps() -> None:
    a, b = valued({"m.one.weight": [0, 1]}), valued({"m.one.weight": [2]})
    both = compose(shut({"m.two.bias": [4]}), compose(a, b))
    assert {n: p.tolist() for n, p in both.touched().items()} == {"m.one.weight": [0, 1, 2], "m.two.bias": [4]}
    assert same(compose(a, a), a)
    for other in (valued({"m.one.weight": [1]}, seed=5), shut({"m.one.weight": [1, 2]})):
        with pytest.raises(EditError, match=r"m\.one\.weight: these edits both touch 1 entries"):
            compose(a, other)


def test_composing_edits_of_different_bases_is_refused() -> None:
    other = fingerprint({"m": Small(1)}, "elsewhere", SIZES)
    with pytest.raises(EditError, match=r"small .*elsewhere"):
        compose(shut({"m.two.bias": [0]}), shut({"m.two.bias": [0]}, other))


def test_overlapping_values_are_reported_unless_a_policy_is_given() -> None:
    model = Small()
    before = content(model)
    stack = EditStack({"m": model})
    first, second = valued({"m.one.weight": [1, 2, 3]}), valued({"m.one.weight": [3, 4]}, seed=9)
    stack.load(first, name="first")
    applied = content(model)
    for other in (second, shut({"m.one.weight": [3]}), shut({"m.tied.weight": [3]})):
        with pytest.raises(EditError, match=r"second and first both touch 1 entries of m\.one\.weight"):
            stack.load(other, name="second")
        assert content(model) == applied and stack.names() == ("first",)
    stack.load(second, name="second", overlap="last")
    assert float(model.one.weight.detach().view(-1)[3]) == float(second.parts[0].values["m.one.weight"][0])  # type: ignore[union-attr]
    stack.clear()
    assert content(model) == before


def test_overlapping_shut_sets_need_no_policy() -> None:
    stack = EditStack({"m": Small()})
    stack.load(shut({"m.one.weight": [1, 2]}))
    assert stack.load(shut({"m.one.weight": [2, 3]})) == "edit-2"


def test_a_shared_parameter_is_edited_once() -> None:
    model = Small()
    before, start = content(model), float(model.one.weight.detach().view(-1)[5])
    stack = EditStack({"m": model})
    with stack.applied(shut({"m.one.weight": [5, 6], "m.tied.weight": [5, 9]}), weight=0.5):
        assert float(model.one.weight.detach().view(-1)[5]) == pytest.approx(start / 2, rel=1e-6)
    assert content(model) == before
    with pytest.raises(EditError, match="shared parameter"):
        stack.load(valued({"m.one.weight": [5], "m.tied.weight": [5]}))


def test_parts_of_one_edit_must_not_overlap() -> None:
    a, b = shut({"m.one.weight": [1, 2]}).parts[0], valued({"m.one.weight": [2]}).parts[0]
    with pytest.raises(EditError, match=r"m\.one\.weight: parts of one edit overlap in 1 entries"):
        Edit((a, b), BASE)


def test_only_touched_entries_are_kept_aside() -> None:
    stack = EditStack({"m": Small()})
    stack.load(shut({"m.one.weight": [1, 2, 3], "m.tied.weight": [3, 4]}))
    kept = stack._live._overwritten
    held = [each.base for each in kept._kept.values()]
    assert sum(map(torch.numel, held)) == 4 == sum(each.written.numel() for each in kept._kept.values())


def test_a_cast_while_an_edit_is_applied_still_reverts_to_the_cast_base() -> None:
    model = Small()
    stack = EditStack({"m": model})
    stack.load(valued({"m.one.weight": [1, 2, 3]}))
    model.half()
    stack.clear()
    assert content(model) == content(Small().half())


def test_the_block_leaves_earlier_edits_in_place_also_after_an_error() -> None:
    model = Small()
    stack = EditStack({"m": model})
    stack.load(shut({"m.one.weight": [10]}), name="stays")
    applied = content(model)
    with pytest.raises(KeyError), stack.applied(shut({"m.one.weight": [11]}), shut({"m.two.bias": [1]})):
        assert len(stack.names()) == 3
        raise KeyError
    assert content(model) == applied and stack.names() == ("stays",)


def test_an_interrupted_write_leaves_the_base_and_not_half_an_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    import photopic.core.edits.overwritten as module

    model = Small()
    before, stack, written, apply = content(model), EditStack({"m": model}), [], module.apply

    def interrupted(tensor: Tensor, *rest: Any) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(apply(tensor, *rest))

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "apply", interrupted)
        stack.load(shut({"m.one.weight": [10], "m.two.bias": [1]}))
    assert written and content(model) == before and stack.names() == ()
    with stack.applied(shut({"m.two.bias": [1]})):
        assert content(model) != before
    assert content(model) == before


def test_an_interruption_while_base_entries_are_kept_aside_leaves_no_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    import photopic.core.edits.overwritten as module

    def interrupted(*_: Any) -> Tensor:
        raise KeyboardInterrupt

    model = Small()
    before, stack = content(model), EditStack({"m": model})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "read_entries", interrupted)
        stack.load(shut({"m.one.weight": [10]}))
    assert content(model) == before and stack.names() == ()


def test_another_base_is_refused_with_both_names_unless_forced() -> None:
    model = Small(seed=1)
    before = content(model)
    stack = EditStack({"m": model}, name="other")
    digest = stack.fingerprint().digest
    with pytest.raises(EditError, match=rf"base small \({BASE.digest[:12]}\).* is other \({digest[:12]}\)"):
        stack.load(shut({"m.two.bias": [0]}))
    assert content(model) == before
    stack.load(shut({"m.two.bias": [0]}), force=True)
    assert float(model.two.bias.detach()[0]) == 0.0


def test_another_architecture_is_refused_even_if_forced() -> None:
    stack = EditStack({"m": nn.Linear(2, 2)}, name="other")
    with pytest.raises(EditError, match=r"small .* other"):
        stack.load(shut({"m.two.bias": [0]}))
    with pytest.raises(EditError, match=r"other: has no floating-point tensor m\.two\.bias"):
        stack.load(shut({"m.two.bias": [0]}), force=True)
    renamed = nn.Module()
    renamed.two = nn.Linear(2, 2)
    with pytest.raises(EditError, match=r"m\.two\.bias: expected shape \(5,\), found \(2,\)"):
        EditStack({"m": renamed}, name="other").load(shut({"m.two.bias": [0]}), force=True)


def test_a_change_by_somebody_else_is_noticed() -> None:
    model = Small()
    stack = EditStack({"m": model})
    with stack.applied(shut({"m.two.bias": [0]})):
        assert stack.fingerprint().digest == BASE.digest
    with torch.no_grad():
        model.two.weight.add_(1)
    with pytest.raises(EditError, match="made for base"):
        stack.load(shut({"m.two.bias": [0]}))


def test_the_model_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import photopic.core.fingerprint as module

    calls, root = [], module._root
    monkeypatch.setattr(module, "_root", lambda tensors: calls.append(1) or root(tensors))
    stack = EditStack({"m": Small()})
    for _ in range(3):
        with stack.applied(shut({"m.two.bias": [0]}), valued({"m.one.weight": [2]})):
            pass
    assert len(calls) == 1


@pytest.mark.parametrize("weight", [math.nan, math.inf])
def test_a_weight_must_be_a_number(weight: float) -> None:
    with pytest.raises(EditError, match="finite"):
        EditStack({"m": Small()}).load(shut({"m.two.bias": [0]}), weight=weight)


def test_names_are_unique_and_must_exist() -> None:
    stack = EditStack({"m": Small()})
    stack.load(shut({"m.two.bias": [0]}), name="bear")
    with pytest.raises(EditError, match="'bear' is already applied"):
        stack.load(shut({"m.two.bias": [1]}), name="bear")
    with pytest.raises(EditError, match="no edit 'mug' is applied; applied: bear"):
        stack.unload("mug")


def test_an_edit_that_touches_nothing_is_an_error() -> None:
    for parts in ((), (ZeroedWeights({}),), (ZeroedWeights({"m.two.bias": torch.zeros(0, dtype=torch.int64)}),)):
        with pytest.raises(EditError, match="touches nothing"):
            Edit(parts, BASE)


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([3, 3], "strictly increasing"),
        ([4, 2], "strictly increasing"),
        ([-1], "negative"),
        ([5], "expected positions below 5, found 5"),
    ],
)
def test_wrong_positions_are_named(positions: list[int], message: str) -> None:
    with pytest.raises(EditError, match=rf"m\.two\.bias: .*{message}"):
        shut({"m.two.bias": positions})


def test_positions_are_int64_and_every_touched_tensor_is_fingerprinted() -> None:
    with pytest.raises(EditError, match="int64"):
        ZeroedWeights({"m.two.bias": torch.tensor([1], dtype=torch.int32)})
    with pytest.raises(EditError, match="pass every touched tensor"):
        shut({"m.two.bias": [1]}, fingerprint({"m": Small()}, "small"))
    with pytest.raises(EditError, match="provenance"):
        Edit(shut({"m.two.bias": [1]}).parts, BASE, {"config": object()})


@pytest.mark.parametrize(
    "values", [torch.tensor([math.nan]), torch.tensor([1e9]), torch.tensor([0.1]), torch.tensor([1.0, 2.0])]
)
def test_values_that_16_bits_do_not_hold_are_refused(values: Tensor) -> None:
    with pytest.raises(EditError, match=r"m\.two\.bias"):
        SparseWeights({"m.two.bias": torch.tensor([1])}, {"m.two.bias": values}, bits=16)


def test_two_bits_are_the_best_of_four_levels() -> None:
    values = torch.cat([torch.full((50,), level) + 0.01 * torch.randn(50) for level in (-1.0, -0.2, 0.3, 2.0)])
    part = SparseWeights.rounded({"w": torch.arange(200)}, {"w": values}, bits=2)
    assert len(part.values["w"].unique()) == 4
    assert float((part.values["w"] - values).abs().max()) < 0.06
    with pytest.raises(EditError, match="at most 4"):
        SparseWeights({"w": torch.arange(5)}, {"w": torch.arange(5.0)}, bits=2)
    with pytest.raises(EditError, match="32, 16, 8 or 2"):
        SparseWeights({"w": torch.arange(5)}, {"w": torch.arange(5.0)}, bits=3)
