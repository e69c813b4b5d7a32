"""The codes of position sets: nothing is lost, the smaller one is taken, and wrong bytes are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from photopic.core.errors import EditError
from photopic.core.indices import LARGEST_SIZE, decode, encode, entropy_bytes

few = settings(max_examples=80, deadline=None, database=None)


@st.composite
def sets(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """Sparse, dense, clustered and huge sets."""
    size = draw(st.sampled_from([0, 1, 7, 8, 9, 64, 1000, 5000, 2**31, LARGEST_SIZE]))
    if size == 0:
        return np.zeros(0, np.int64), 0
    start = draw(st.integers(0, size - 1))
    run = np.arange(start, min(size, start + draw(st.integers(0, 300))))
    loose = draw(st.lists(st.integers(0, size - 1), max_size=60))
    return np.unique(np.concatenate([run, np.array(loose, np.int64)])).astype(np.int64), size


@few
@given(sets())
def test_a_set_survives_the_round_trip(case: tuple[np.ndarray, int]) -> None:
    positions, size = case
    assert np.array_equal(decode(encode(positions, size), size), positions)


@pytest.mark.parametrize("size", [0, 1, 8, 1001])
def test_the_empty_and_the_full_set_survive(size: int) -> None:
    for positions in (np.arange(0), np.arange(size), np.arange(size)[-1:]):
        assert np.array_equal(decode(encode(positions, size), size), positions)


@pytest.mark.parametrize("density", [0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5])
def test_a_random_set_costs_its_entropy_within_three_per_cent(density: float) -> None:
    size = 1_000_000
    positions = np.flatnonzero(np.random.default_rng(0).random(size) < density)
    assert len(encode(positions, size)) <= 1.03 * entropy_bytes(len(positions), size)


def test_the_smaller_code_is_taken() -> None:
    size = 4096
    sparse, dense = np.array([5, 900]), np.arange(0, size, 2)
    assert encode(sparse, size)[0] != 0 and len(encode(sparse, size)) <= 16
    assert encode(dense, size)[0] == 0 and len(encode(dense, size)) == 1 + size // 8


def test_the_parameter_is_the_best_of_all() -> None:
    rng = np.random.default_rng(1)
    for density in (0.002, 0.02, 0.2):
        positions = np.flatnonzero(rng.random(20_000) < density)
        gaps = np.diff(positions, prepend=-1) - 1
        bits = [int((gaps >> k).sum()) + len(gaps) * (k + 1) for k in range(20)]
        assert encode(positions, 20_000)[0] - 1 == int(np.argmin(bits))


@pytest.mark.parametrize("positions", [[3, 3], [5, 2], [-1, 4], [0, 10]])
def test_positions_unsorted_twice_or_outside_are_refused(positions: list[int]) -> None:
    with pytest.raises(EditError, match="strictly increasing"):
        encode(np.array(positions), 10)


@few
@given(sets(), st.data())
def test_changed_bytes_give_a_valid_set_or_an_edit_error(case: tuple[np.ndarray, int], data: st.DataObject) -> None:
    positions, size = case
    code = bytearray(encode(positions, size))
    if data.draw(st.booleans()):
        code = code[: data.draw(st.integers(0, len(code) - 1))]
    else:
        bit = data.draw(st.integers(0, 8 * len(code) - 1))
        code[bit // 8] ^= 1 << bit % 8
    _valid_or_refused(bytes(code), size)


@few
@given(st.binary(max_size=60), st.sampled_from([0, 1, 100, 2**31, LARGEST_SIZE]))
def test_any_bytes_give_a_valid_set_or_an_edit_error(code: bytes, size: int) -> None:
    _valid_or_refused(code, size)


@few
@given(sets(), st.binary(min_size=1, max_size=3))
def test_bytes_after_the_end_are_refused(case: tuple[np.ndarray, int], tail: bytes) -> None:
    positions, size = case
    with pytest.raises(EditError):
        decode(encode(positions, size) + tail, size)


def test_a_position_beyond_the_size_is_refused() -> None:
    positions = np.array([1, 999])
    with pytest.raises(EditError, match="outside"):
        decode(encode(positions, 1000), 998)


def test_a_position_equal_to_the_size_is_refused() -> None:
    with pytest.raises(EditError, match="lies outside"):
        decode(encode(np.array([999]), 1000), 999)


def test_unused_bits_must_be_zero() -> None:
    code = bytearray(encode(np.arange(0, 9, 2), 9))
    assert code[0] == 0
    code[-1] |= 0x80
    with pytest.raises(EditError, match="unused bits"):
        decode(bytes(code), 9)


def _valid_or_refused(code: bytes, size: int) -> None:
    try:
        found = decode(code, size)
    except EditError:
        return
    assert found.dtype == np.int64
    assert not len(found) or (found[0] >= 0 and found[-1] < size and bool((np.diff(found) > 0).all()))
