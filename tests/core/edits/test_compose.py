"""The algebra of edits: the laws of composition under every policy, difference and restriction, against plain computations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from photopic.core.edits import (
    DenseDelta,
    Edit,
    EditStack,
    InitialNoise,
    LowRankDelta,
    ParallelAdapter,
    SparseWeights,
    SteeringVector,
    TokenEmbedding,
    ZeroedWeights,
    compose,
    difference,
    restrict,
)
from photopic.core.edits.file import to_bytes
from photopic.core.errors import EditError
from photopic.core.fingerprint import fingerprint
from tests.core.small import BASE, IDS, SHAPES, WEIGHT_KINDS, Net, assert_state, made, parts, state_after

few = settings(max_examples=20, deadline=None, database=None, suppress_health_check=list(HealthCheck))
specs = st.tuples(st.sampled_from(WEIGHT_KINDS), st.integers(0, 60))
added = st.tuples(st.sampled_from(["added", "low_rank", "delta"]), st.integers(0, 60))


def after(*edits: Edit, weight: float = 1.0) -> dict[str, Tensor]:
    """The parameters with edits applied one after the other, by the stack."""
    model = Net()
    stack = EditStack({"m": model})
    for edit in edits:
        stack.load(edit, weight=weight, overlap="last")
    return {f"m.{name}": tensor.detach().reshape(-1).clone() for name, tensor in model.state_dict().items()}


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor], exact: bool = True) -> None:
    for name in a:
        if exact:
            assert torch.equal(a[name].view(torch.uint8), b[name].view(torch.uint8)), name
        else:
            torch.testing.assert_close(a[name], b[name], rtol=1e-5, atol=1e-5)


def attempt(*edits: Any, **options: Any) -> Edit | None:
    """None where the edits clash."""
    return None if None in edits else _composed(edits, options)


def _composed(edits: Any, options: Any) -> Edit | None:
    try:
        return compose(*edits, **options)
    except EditError as error:
        assert "both touch" in str(error)
        return None


def layered(kind: str, seed: int, layer: str) -> Edit:
    return made(kind, seed, [layer])


@pytest.mark.parametrize("policy", ["error", "union", "first", "sum", "ties"])
@pytest.mark.parametrize("kind", [*WEIGHT_KINDS, "insertion", "direction", "tuner"])
def test_one_edit_composed_is_itself(kind: str, policy: Any) -> None:
    edit = made(kind, 4)
    assert to_bytes(compose(edit, overlap=policy)) == to_bytes(edit)


@few
@given(specs, st.sampled_from(["error", "union"]))
def test_composing_an_edit_with_itself_is_itself(spec: tuple[str, int], policy: Any) -> None:
    edit = made(*spec)
    assert to_bytes(compose(edit, made(*spec), overlap=policy)) == to_bytes(compose(edit))


@few
@given(specs, specs, specs, st.sampled_from(["error", "union"]))
def test_order_and_grouping_do_not_matter_down_to_the_bytes(a: Any, b: Any, c: Any, policy: Any) -> None:
    x, y, z = (made(*spec) for spec in (a, b, c))
    left = attempt(attempt(x, y, overlap=policy), z, overlap=policy)
    right = attempt(x, attempt(y, z, overlap=policy), overlap=policy)
    swapped = attempt(z, y, x, overlap=policy)
    assert (left is None) == (right is None) == (swapped is None)
    if left is not None and right is not None and swapped is not None:
        assert to_bytes(left) == to_bytes(right) == to_bytes(swapped)


def test_disjoint_edits_compose_to_the_same_bytes_in_any_order_and_grouping() -> None:
    x, y, z = (
        layered("values-8", 2, "m.one.weight"),
        layered("shut+low_rank", 1, "m.two.weight"),
        layered("shut", 1, "m.conv.weight"),
    )
    expected = to_bytes(compose(x, y, z))
    for each in (compose(z, compose(y, x)), compose(compose(z, x), y), compose(y, z, x, overlap="union")):
        assert [p.kind for p in each.parts] == [p.kind for p in compose(x, y, z).parts]
    assert to_bytes(compose(z, compose(y, x))) == to_bytes(compose(compose(z, x), y)) == expected
    assert_equal(after(compose(x, y, z)), after(z, x, y))


@few
@given(specs, specs, specs)
def test_keep_first_is_associative_and_the_first_edit_wins(a: Any, b: Any, c: Any) -> None:
    x, y, z = (made(*spec) for spec in (a, b, c))
    left = compose(compose(x, y, overlap="first"), z, overlap="first")
    right = compose(x, compose(y, z, overlap="first"), overlap="first")
    assert_equal(after(left), after(right))
    only, both = after(x), after(compose(x, y, overlap="first"))
    for name, positions in x.touched().items():
        at = slice(None) if positions is None else positions
        assert torch.equal(both[name][at], only[name][at])


@few
@given(specs, specs, specs)
def test_sums_are_associative_and_commutative_to_rounding_and_equal_the_dense_sum(a: Any, b: Any, c: Any) -> None:
    x, y, z = (made(*spec) for spec in (a, b, c))
    base = {"m": Net()}
    options: dict[str, Any] = {"overlap": "sum", "base": base}
    whole = compose(x, y, z, **options)
    plain = state_after([])
    expected = {name: flat.clone() for name, flat in plain.items()}
    expected["m.tied.weight"] = expected["m.one.weight"]
    for edit in (x, y, z):
        changed = state_after([(edit, 1.0)])
        for name in expected.keys() - {"m.tied.weight"}:
            expected[name] += changed[name] - plain[name]
    for each in (
        whole,
        compose(compose(x, y, **options), z, **options),
        compose(x, compose(y, z, **options), **options),
        compose(z, x, y, **options),
    ):
        assert_equal(after(each), expected, exact=False)


def test_added_changes_sum_without_the_base_and_set_entries_need_it() -> None:
    x, y = layered("low_rank", 1, "m.two.weight"), layered("delta", 2, "m.two.weight")
    both = compose(x, x, y, overlap="sum")
    assert_equal(after(both), after(x, x, y), exact=False)
    z = layered("values-32", 2, "m.two.weight")
    with pytest.raises(EditError, match=r"m\.two\.weight: .*pass the base model"):
        compose(z, layered("shut", 2, "m.two.weight"), overlap="sum")


def one_value(value: float, at: int = 3) -> Edit:
    return Edit(
        (SparseWeights({"m.two.weight": torch.tensor([at])}, {"m.two.weight": torch.tensor([value])}, delta=True),),
        BASE,
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 2.0], 1.5),  # both agree: their mean
        ([3.0, -1.0], 3.0),  # plus weighs more: its only member
        ([-3.0, 1.0, -1.0], -2.0),
        ([1.0, -1.0], 0.0),  # a tie elects nobody
        ([4.0, 0.0], 4.0),  # who changes nothing has no vote
    ],
)
def test_ties_elects_a_sign_and_takes_the_mean_of_those_who_agree(values: list[float], expected: float) -> None:
    found = (
        compose(*(one_value(value) for value in values), overlap="ties")
        if len(set(values)) > 1
        else one_value(values[0])
    )
    changed, plain = after(found)["m.two.weight"], after(made("shut", 1, ["m.conv.weight"]))["m.two.weight"]
    assert float(changed[3] - plain[3]) == pytest.approx(expected, abs=1e-6)
    assert torch.equal(changed[4:], plain[4:])


def test_ties_of_dense_and_sparse_changes_need_no_base() -> None:
    up, down = torch.ones(5, 1), torch.ones(1, 7)
    low = Edit((LowRankDelta({"m.two.weight": up}, {"m.two.weight": down}),), BASE)
    dense = Edit((DenseDelta({"m.two.weight": torch.full((5, 7), 3.0)}),), BASE)
    plain = after(made("shut", 1, ["m.conv.weight"]))["m.two.weight"]
    changed = after(compose(low, dense, one_value(-1.0), overlap="ties"))["m.two.weight"] - plain
    expected = torch.full((35,), 2.0)  # 1 and 3; at entry 3 the sparse one is outvoted
    torch.testing.assert_close(changed, expected, atol=1e-6, rtol=0)


def test_set_and_added_entries_vote_as_changes_to_the_base() -> None:
    plain = after(made("shut", 1, ["m.conv.weight"]))["m.two.weight"]
    start = float(plain[3])
    sets = Edit(
        (SparseWeights({"m.two.weight": torch.tensor([3])}, {"m.two.weight": torch.tensor([start + 2])}),), BASE
    )
    both = compose(sets, one_value(4.0), overlap="ties", base={"m": Net()})
    assert float(after(both)["m.two.weight"][3]) == pytest.approx(start + 3, abs=1e-5)


def test_weights_scale_the_changes_and_zero_leaves_an_edit_out() -> None:
    x, y = layered("low_rank", 1, "m.two.weight"), layered("values-32", 2, "m.conv.weight")
    with pytest.raises(EditError, match="pass the base model"):
        compose(x, y, weights=[1.0, 0.5])
    both = compose(x, y, weights=[-0.5, 0.25], base={"m": Net()})
    model = Net()
    stack = EditStack({"m": model})
    stack.load(x, weight=-0.5), stack.load(y, weight=0.25)
    assert_state(model, after(both), exact=False)
    clashing = layered("shut", 2, "m.conv.weight")
    assert_equal(after(compose(y, clashing, weights=[1.0, 0.0])), after(y))
    with pytest.raises(EditError, match="touches nothing"):
        compose(x, y, weights=[0.0, 0.0])
    with pytest.raises(EditError, match="expected 2 weights, found 1"):
        compose(x, y, weights=[1.0])


def test_union_lets_values_win_over_shutting_and_refuses_two_values() -> None:
    one, other = layered("values-32", 2, "m.two.bias"), layered("shut", 2, "m.two.bias")
    assert_equal(after(compose(other, one, overlap="union")), after(one))
    with pytest.raises(EditError, match=r"m\.two\.bias: .*both touch 5 entries.*overlap="):
        compose(one, layered("values-32", 5, "m.two.bias"), overlap="union")


def test_what_one_edit_does_to_its_own_entries_is_no_clash() -> None:
    own = layered("shut+low_rank", 2, "m.two.weight")
    other = layered("shut", 1, "m.conv.weight")
    assert_equal(after(compose(own, other)), after(own, other))
    with pytest.raises(EditError, match="both touch"):
        compose(own, layered("shut", 2, "m.two.weight"))


def test_hooks_and_tokens_of_several_edits() -> None:
    push = Edit((SteeringVector({"m.one": torch.ones(7)}),), BASE)
    twice, once = compose(push, push, overlap="sum"), compose(push, push)
    model = Net()
    plain = model.one(model.words(IDS))
    for edit, times in ((once, 1), (twice, 2)):
        with EditStack({"m": model}).applied(edit):
            torch.testing.assert_close(
                model.one(model.words(IDS)) - plain, times * torch.ones(1, 4, 7), atol=1e-5, rtol=0
            )
    token = Edit((TokenEmbedding("<x>", {"m": torch.zeros(7)}),), BASE)
    assert len(compose(token, token, overlap="sum").parts) == 1
    with pytest.raises(EditError, match="adds a token twice: <x> <x>"):
        compose(token, Edit((TokenEmbedding("<x>", {"m": torch.ones(7)}),), BASE))
    with pytest.raises(EditError, match="expected weight 1"):
        compose(Edit((InitialNoise(torch.zeros(1, 2, 2)),), BASE), weights=[0.5])


def test_another_base_is_refused_also_as_the_base_to_compute_with() -> None:
    elsewhere = Edit(made("shut", 1, ["m.two.bias"]).parts, fingerprint({"m": Net(1)}, "elsewhere", SHAPES))
    with pytest.raises(EditError, match=r"different bases: net .*elsewhere"):
        compose(made("shut", 1), elsewhere)
    edits = layered("values-32", 2, "m.two.bias"), layered("shut", 2, "m.two.bias")
    with pytest.raises(EditError, match=r"are for base net .*another model"):
        compose(*edits, overlap="sum", base={"m": Net(1)})
    compose(*edits, overlap="sum", base={"m": Net()})


@few
@given(specs)
def test_a_restriction_and_its_complement_are_the_whole(spec: tuple[str, int]) -> None:
    edit = made(*spec)
    kept = [name for name in edit.touched() if not name.startswith(("m.one", "m.conv"))]
    inside = restrict(edit, layers=kept) if kept else None
    try:
        outside = restrict(edit, layers=["m.one*", "m.conv.*"])
    except EditError as error:
        assert "touches nothing" in str(error) and inside is not None
        assert_equal(after(inside), after(edit))
        return
    both = outside if inside is None else compose(inside, outside)
    assert_equal(after(both), after(edit))
    assert both.touched().keys() == edit.touched().keys()


@few
@given(specs, st.integers(0, 34))
def test_a_region_and_what_is_left_are_the_whole(spec: tuple[str, int], border: int) -> None:
    edit = made(spec[0], spec[1], ["m.two.weight"])
    pieces = []
    for region in (torch.arange(border), torch.arange(border, 35)):
        try:
            pieces.append(restrict(edit, region={"m.two.weight": region}))
        except EditError as error:
            assert "touches nothing" in str(error)
    assert_equal(after(*pieces), after(edit))
    for piece, region in zip(pieces, (range(border), range(border, 35)), strict=False):
        touched = piece.touched()["m.two.weight"]
        assert len(pieces) == 1 or (touched is not None and set(touched.tolist()) <= set(region))


def test_a_region_outside_its_tensor_is_refused() -> None:
    with pytest.raises(EditError, match=r"m\.two\.bias: expected a region of int64 positions in \[0, 5\)"):
        restrict(layered("shut", 2, "m.two.bias"), region={"m.two.bias": torch.tensor([5])})


@few
@given(specs, specs)
def test_a_difference_leaves_what_the_other_touches_and_with_itself_is_nothing(a: Any, b: Any) -> None:
    x, y = made(*a), made(*b)
    with pytest.raises(EditError, match="touches nothing"):
        difference(x, x)
    try:
        rest = difference(x, y)
    except EditError as error:
        assert "touches nothing" in str(error)
        return
    found, whole, plain = after(rest), after(x), state_after([])
    for name in set(SHAPES) - {"m.tied.weight", "m.one.weight"}:
        taken = torch.zeros(len(plain[name]), dtype=torch.bool)
        if name in y.touched():
            positions = y.touched()[name]
            taken[slice(None) if positions is None else positions] = True
        assert torch.equal(found[name], torch.where(taken, plain[name], whole[name]))


def test_restricting_keeps_the_layers_hooks_and_eight_bits_where_they_hold() -> None:
    hooked = Edit((*parts("insertion", 0), *parts("direction", 0)), BASE)
    (left,) = restrict(hooked, layers=["m.two"]).parts
    assert isinstance(left, ParallelAdapter)
    part = SparseWeights.rounded(
        {"m.two.bias": torch.arange(5)}, {"m.two.bias": torch.tensor([127.0, 3, -64, 5, 10])}, 8
    )
    edit = Edit((part,), BASE)
    for region, bits in ((torch.tensor([0, 1]), 8), (torch.tensor([1, 2, 3]), 32)):
        (kept,) = restrict(edit, region={"m.two.bias": region}).parts
        assert isinstance(kept, SparseWeights) and kept.bits == bits
        assert torch.equal(kept.values["m.two.bias"], part.values["m.two.bias"][region])


def test_odd_provenance_does_not_break_composition() -> None:
    odd = Edit(made("shut", 1, ["m.conv.weight"]).parts, BASE, {"method": "compose"})
    assert compose(odd, layered("shut", 1, "m.two.bias")).provenance["method"] == "compose"


def test_masks_and_shut_entries_are_inverses() -> None:
    masks = {"m.two.weight": torch.rand(5, 7) < 0.5}
    part = ZeroedWeights.of_masks(masks)
    assert torch.equal(part.masks({"m.two.weight": (5, 7)})["m.two.weight"], masks["m.two.weight"])
    with pytest.raises(EditError, match=r"m\.two\.bias: expected a mask of 0 and 1"):
        ZeroedWeights.of_masks({"m.two.bias": torch.full((5,), 0.5)})
