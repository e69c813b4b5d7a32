"""Sums over bits tell every single change and every order; the same on a device without numpy's views."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from photopic.core.edits import bit_sums
from photopic.core.edits.bit_sums import BitSums

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def drawn(count: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(count)).to(dtype)


@settings(max_examples=100, deadline=None, database=None)
@given(st.sampled_from(DTYPES), st.integers(1, 70), st.data())
def test_any_bit_that_flips_changes_the_sum(dtype: torch.dtype, count: int, data: st.DataObject) -> None:
    tensor, sums = drawn(count, dtype), BitSums()
    before, raw = sums.of(tensor), tensor.view(torch.uint8)
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert sums.of(tensor) != before


@pytest.mark.parametrize("count", [3, 2 * bit_sums._RUN + 5, 4 * bit_sums._RUN])
def test_entries_and_whole_runs_that_change_places_are_told(count: int) -> None:
    tensor, sums = drawn(count, torch.float32), BitSums()
    assert sums.of(tensor) == BitSums().of(tensor.clone())
    for shift in (1, min(count - 1, 2 * bit_sums._RUN)):  # a run is half as many words as float32 entries
        assert sums.of(tensor.roll(shift)) != sums.of(tensor)


@pytest.mark.parametrize("dtype", DTYPES)
def test_accelerators_sum_the_same_and_memory_order_does_not_matter(dtype: torch.dtype) -> None:
    tensor, sums = drawn(3 * bit_sums._RUN // 2 + 1, dtype), BitSums()
    raw = tensor.view(torch.uint8)[: tensor.numel() * tensor.element_size() // 8 * 8]
    assert sums._of_runs(raw) == sums._of_runs_there(raw)
    image = tensor[:60].view(3, 5, 2, 2)
    assert sums.of(image.to(memory_format=torch.channels_last)) == sums.of(image)
    assert sums.of(tensor[1:]) == sums.of(tensor[1:].clone())  # that begins within a word
