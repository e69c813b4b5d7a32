"""A mask on weights: what is lowest is chosen to the entry, it stays within 0 and 1, and a checkpoint holds all of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from photopic.learning.parameters.soft_mask import WeightMask, masked

WEIGHTS = {"a": torch.tensor([[1.0, -2.0], [3.0, 0.5]]), "b": torch.tensor([4.0, -1.0])}


class Pull:
    """L = sum over w of (w - 1)^2 / 2 of the effective weights: dL/dM = theta * (M * theta - 1)."""

    scale = 1.0

    def gradients(self, step: int, effective: dict[str, Tensor], inputs: list[Tensor]) -> Any:
        total = self.scale * sum((weight - 1).square().sum() for weight in effective.values()) / 2
        return None, torch.autograd.grad(total, inputs)  # type: ignore[arg-type]


def after(steps: int, optimizer: Any = "adam", lr: float | None = 0.3, density: float | None = None) -> WeightMask:
    mask = WeightMask(WEIGHTS, optimizer=optimizer, lr=lr, density=density, steps=steps)
    for step in range(steps):
        mask.step(Pull(), step)  # type: ignore[arg-type]
    return mask


def test_a_mask_of_ones_changes_no_bit_at_any_precision() -> None:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        weights = {"w": torch.randn(50, generator=torch.Generator().manual_seed(0)).to(dtype)}
        assert torch.equal(masked(weights, {"w": torch.ones(50)})["w"], weights["w"])


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_it_shuts_what_lowers_the_loss_and_stays_within_0_and_1(optimizer: Any) -> None:
    mask = after(20, optimizer)
    flat = torch.cat([each.detach().flatten() for each in mask.masks.values()])
    assert flat.min() == 0 and flat.max() == 1
    assert mask.below(0.5)["a"].tolist()[0] == 1 and 1 in mask.below(0.5)["b"].tolist()  # the negative weights
    assert mask.share_below(0.5) == sum(map(len, mask.below(0.5).values())) / 6


def test_a_density_is_kept_to_the_entry_and_the_lowest_are_taken() -> None:
    mask = after(2, lr=0.05)
    lowest = mask.lowest(1 / 3)
    assert sum(map(len, lowest.values())) == 2
    chosen = {(name, int(i)) for name, index in lowest.items() for i in index}
    values = {(n, i): float(v) for n, m in mask.masks.items() for i, v in enumerate(m.detach().flatten())}
    assert max(values[each] for each in chosen) <= min(value for each, value in values.items() if each not in chosen)


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.25, 1.0]), st.sampled_from([-1.0, -0.0, 0.0, 2.0])), min_size=1),
    st.floats(0, 1),
)
def test_the_lowest_are_those_that_sorting_twice_finds(entries: list[tuple[float, float]], density: float) -> None:
    masks, saliency = (torch.tensor(each) for each in zip(*entries, strict=True))
    mask = WeightMask({"w": torch.ones(len(entries))})
    mask.masks["w"].data.copy_(masks)
    mask.saliency.update({"w": saliency})
    order = saliency.argsort(descending=True, stable=True)
    order = order[masks[order].argsort(stable=True)]  # by mask, ties by saliency, then by place
    expected = order[: round(density * len(order))].sort().values.tolist()
    assert mask.lowest(density).get("w", torch.zeros(0)).tolist() == expected
    by_saliency = saliency.argsort(descending=True, stable=True)[: round(density * len(order))].sort().values
    assert mask.most_salient(density).get("w", torch.zeros(0)).tolist() == by_saliency.tolist()


class Recorded(Pull):
    """Keeps the effective weights of every step."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def gradients(self, step: int, effective: dict[str, Tensor], inputs: list[Tensor]) -> Any:
        self.seen.append(torch.cat([each.detach().flatten() for each in effective.values()]))
        return super().gradients(step, effective, inputs)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_with_a_density_the_lowest_are_really_shut_while_searching(optimizer: Any) -> None:
    mask, loss = WeightMask(WEIGHTS, optimizer=optimizer, lr=0.1, density=1 / 3, steps=10), Recorded()
    plain = torch.cat([weight.flatten() for weight in WEIGHTS.values()])
    for step in range(10):
        mask.step(loss, step)  # type: ignore[arg-type]
    assert torch.equal(loss.seen[0], plain)
    for effective in loss.seen[3:]:  # before that masks are soft
        assert int((effective == 0).sum()) == 2 and torch.equal(effective[effective != 0], plain[effective != 0])
    assert 1 in mask.lowest(1 / 3)["a"]  # -2, which is best at 0
    assert mask.share_shut(9, 0.5) == 1 / 3 and mask.share_shut(0, 0.5) == mask.share_below(0.5)


def test_the_step_of_plain_descent_suits_any_scale_of_the_loss() -> None:
    class Scaled(Pull):
        scale = 1e-6

    found = []
    for loss in (Pull(), Scaled()):
        mask = WeightMask(WEIGHTS, optimizer="sgd", lr=0.1)
        for step in range(3):
            mask.step(loss, step)  # type: ignore[arg-type]
        found.append(torch.cat([each.detach().flatten() for each in mask.masks.values()]))
    torch.testing.assert_close(*found)
    assert not torch.equal(found[0], torch.ones(6))


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("density", [None, 1 / 3])
def test_a_restored_mask_goes_on_as_if_nothing_had_happened(optimizer: Any, density: float | None) -> None:
    def search() -> WeightMask:
        return WeightMask(WEIGHTS, optimizer=optimizer, lr=0.1, density=density, steps=5)

    whole, first = search(), search()
    for step in range(5):
        whole.step(Pull(), step)  # type: ignore[arg-type]
    for step in range(2):
        first.step(Pull(), step)  # type: ignore[arg-type]
    saved = {name: tensor.detach().clone() for name, tensor in first.state().items()}
    resumed = search()
    resumed.restore(saved)
    for step in range(2, 5):
        resumed.step(Pull(), step)  # type: ignore[arg-type]
    for name in WEIGHTS:
        assert torch.equal(resumed.masks[name], whole.masks[name])
        torch.testing.assert_close(resumed.saliency.values[name], whole.saliency.values[name])


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "paper"])
def test_a_mask_of_rows_shuts_whole_rows(optimizer: Any) -> None:
    weights = {"a": WEIGHTS["a"], "b": torch.tensor([[-4.0, -1.0, 2.0], [2.0, 0.5, 0.1], [-3.0, 1.0, 1.0]])}
    mask = WeightMask(weights, optimizer=optimizer, lr=0.05, rows={"b": range(0, 2)}, structure="rows")
    assert mask.count == 4  # two rows of each
    mask.step(Pull(), 0)  # type: ignore[arg-type]
    # dL/dM of a row is the sum of theta * (theta - 1) over it: 6, 5.75; 24, 1.66; the last is not searched
    assert torch.allclose(mask.saliency.values["b"].flatten()[:2], torch.tensor([24.0, 1.66]))
    assert mask.masks["b"].shape == (3, 1) and mask.masks["b"].detach()[2].item() == 1
    for found in (mask.most_salient(1 / 4), mask.lowest(1 / 4)):
        assert {name: index.tolist() for name, index in found.items()} == {"b": [0, 1, 2]}
    assert mask.lowest(1 / 2)["a"].tolist() == [0, 1]
