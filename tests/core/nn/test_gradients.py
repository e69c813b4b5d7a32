"""The streaming mean: a scale that does not depend on the number of updates, float32 sums, exact checkpoints."""

from __future__ import annotations

import torch

from photopic.core.nn.gradients import StreamingMean


def test_the_mean_does_not_depend_on_how_often_the_same_values_come() -> None:
    values = [{"w": torch.tensor([float(k), -2.0 * k])} for k in range(4)]
    once, twice = StreamingMean(), StreamingMean()
    for each in values:
        once.update(each)
    for each in values * 2:
        twice.update(each)
    assert torch.equal(once.values["w"], torch.tensor([1.5, -3.0])) and torch.equal(twice.values["w"], once.values["w"])


def test_half_precision_values_are_summed_in_float32() -> None:
    mean = StreamingMean()
    for _ in range(4096):  # in float16 a sum of ones ends at 2048
        mean.update({"w": torch.ones(1, dtype=torch.float16)})
    assert mean.values["w"].dtype == torch.float32 and mean.values["w"].item() == 1.0


def test_a_restored_mean_goes_on_exactly() -> None:
    generator = torch.Generator().manual_seed(0)
    values = [{"a": torch.randn(3, generator=generator), "b": torch.randn(2, generator=generator)} for _ in range(5)]
    whole, first, second = StreamingMean(), StreamingMean(), StreamingMean()
    for each in values:
        whole.update(each)
    for each in values[:2]:
        first.update(each)
    saved = {name: tensor.clone() for name, tensor in first.tensors("sum.").items()} | {"mask.a": torch.zeros(3)}
    second.restore(saved, 2, torch.device("cpu"))
    for each in values[2:]:
        second.update(each)
    assert all(torch.equal(second.values[name], whole.values[name]) for name in ("a", "b"))
    assert second.values.keys() == whole.values.keys()
