"""The codes of position sets: nothing is lost, random sets cost their entropy, and no other bytes are accepted for a set."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from photopic.core.editfile.indices import LARGEST_SIZE, decode, encode, entropy_bytes
from photopic.core.editfile.position_code import decode_set, encode_set
from photopic.core.errors import EditError

few = settings(max_examples=80, deadline=None, database=None)
DENSITIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.38, 0.5)
Case = tuple[np.ndarray, int, int | None]


@st.composite
def sets(draw: st.DrawFn) -> Case:
    """Sparse, dense, clustered and huge sets, with and without rows."""
    size = draw(st.sampled_from([0, 1, 7, 8, 9, 64, 1000, 5040, 2**31, LARGEST_SIZE]))
    if size == 0:
        return np.zeros(0, np.int64), 0, None
    start = draw(st.integers(0, size - 1))
    run = np.arange(start, min(size, start + draw(st.integers(0, 300))))
    loose = draw(st.lists(st.integers(0, size - 1), max_size=60))
    drawn = np.random.default_rng(draw(st.integers(0, 99))).random(min(size, 5040)) < draw(st.sampled_from(DENSITIES))
    scattered = np.flatnonzero(drawn) if draw(st.booleans()) else np.zeros(0, np.int64)
    row = draw(st.sampled_from([None, *(row for row in (1, 4, 7, 40, 720, 2**20) if size % row == 0)]))
    return np.unique(np.concatenate([run, np.array(loose, np.int64), scattered])).astype(np.int64), size, row


def random_set(density: float, size: int, seed: int = 0) -> np.ndarray:
    return np.flatnonzero(np.random.default_rng(seed).random(size) < density)


def rows_of_density(densities: np.ndarray, row: int, seed: int = 0) -> np.ndarray:
    return np.flatnonzero(np.random.default_rng(seed).random((len(densities), row)) < densities[:, None])


def clustered() -> Case:
    """Empty rows, rows of four per cent and dense rows."""
    densities = np.random.default_rng(1).choice([0, 0.04, 0.9], 24, p=[0.6, 0.3, 0.1])
    return rows_of_density(densities, 120), 24 * 120, 120


@settings(max_examples=400, deadline=None, database=None)
@given(sets())
@example(clustered())
def test_a_set_survives_the_round_trip(case: Case) -> None:
    positions, size, row = case
    found = decode(encode(positions, size, row=row), size, row=row)
    assert found.dtype == np.int64 and np.array_equal(found, positions)


@pytest.mark.parametrize("size", [0, 1, 8, 1001])
def test_the_empty_and_the_full_set_survive(size: int) -> None:
    for positions in (np.arange(0), np.arange(size), np.arange(size)[-1:]):
        assert np.array_equal(decode(encode(positions, size), size), positions)


def test_every_subset_of_a_small_size_has_its_own_code() -> None:
    size = 9
    subsets = [np.flatnonzero(number >> np.arange(size) & 1) for number in range(2**size)]
    codes = [encode(subset, size) for subset in subsets]
    assert len(set(codes)) == 2**size
    assert all(np.array_equal(decode(code, size), subset) for code, subset in zip(codes, subsets, strict=True))


def test_sets_longer_than_a_block_survive_at_every_density() -> None:
    for density in (0.0001, *DENSITIES, 0.11, 0.22, 0.4, 0.9):
        size = min(int(300_000 / density), 2**24)
        positions = random_set(density, size)
        assert np.array_equal(decode(encode(positions, size), size), positions)


@pytest.mark.parametrize("density", [0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.38, 0.5])
def test_a_random_set_costs_its_entropy_within_three_per_cent(density: float) -> None:
    size = 1_000_000
    positions = random_set(density, size)
    for row in (None, 1000):
        assert len(encode(positions, size, row=row)) <= 1.03 * entropy_bytes(len(positions), size)


def test_no_density_between_costs_more_than_two_and_a_half_per_cent() -> None:
    size = 400_000
    for density in np.geomspace(0.001, 0.5, 60):
        positions = random_set(density, size)
        assert len(encode(positions, size)) <= 1.025 * entropy_bytes(len(positions), size), density


def test_the_code_of_a_dense_set_is_a_bitmap() -> None:
    size = 4096
    code = encode(np.arange(size // 2), size)
    assert code == bytes([0, 0, 8]) + b"\xff" * (size // 16) + b"\0" * (size // 16)


def test_known_sets_have_known_bytes() -> None:
    # 4 of 40: divisor 8. Gaps 2, 0, 13, 5: three planes of low bits, then the quotients 0, 0, 1, 0 in unary.
    assert encode(np.array([2, 3, 17, 23]), 40) == bytes([0, 4, 0b1100, 0b0001, 0b1100, 0b11011])
    # 4 of 32: divisor 6 = 3 x 2. Low bits 0, 0, 1, 1; what is left 1, 0, 6, 2, so digits 1, 0, 0, 2 and quotients 0, 0, 2, 0.
    assert encode(np.array([2, 3, 17, 23]), 32) == bytes([0, 4, 0b1100, 0b1001, 0b10, 0b110011])
    # 2 of 5: triples {0} and {4}: leaves 4 and 6, digits 1 1, then the bits 0 1.
    assert encode(np.array([0, 4]), 5) == bytes([0, 2, 0b11, 0b00, 0b10])


@pytest.mark.parametrize(
    "densities",
    [
        np.where(np.arange(320) % 100 == 7, 1.0, 0.0),
        np.where(np.arange(320) % 20 == 7, 0.3, 0.001),
        np.where(np.arange(320) % 2 == 0, 0.02, 0.0),
        np.minimum(0.9, np.random.default_rng(5).gamma(0.5, 0.02, 320)),
    ],
    ids=["full rows", "dense rows", "empty rows", "gamma"],
)
def test_a_clustered_set_costs_less_than_the_entropy_of_the_whole(densities: np.ndarray) -> None:
    size = 320 * 768
    positions = rows_of_density(densities, 768)
    code = encode(positions, size, row=768)
    bound = entropy_bytes(len(positions), size)
    assert len(code) < 0.95 * min(bound, len(encode(positions, size)))
    assert np.array_equal(decode(code, size, row=768), positions)


@pytest.mark.parametrize("positions", [[3, 3], [5, 2], [-1, 4], [0, 10]])
def test_positions_unsorted_twice_or_outside_are_refused(positions: list[int]) -> None:
    with pytest.raises(EditError, match="strictly increasing"):
        encode(np.array(positions), 10)


@pytest.mark.parametrize(("size", "row"), [(10, 3), (10, 0), (10, -2)])
def test_a_row_that_does_not_divide_the_size_is_refused(size: int, row: int) -> None:
    with pytest.raises(EditError, match=f"divisor of {size}, found {row}"):
        encode(np.array([1]), size, row=row)


@settings(max_examples=300, deadline=None, database=None)
@given(sets(), st.data())
def test_changed_bytes_give_their_own_set_or_an_edit_error(case: Case, data: st.DataObject) -> None:
    positions, size, row = case
    code = bytearray(encode(positions, size, row=row))
    if data.draw(st.booleans()):
        code = code[: data.draw(st.integers(0, len(code) - 1))]
    else:
        bit = data.draw(st.integers(0, 8 * len(code) - 1))
        code[bit // 8] ^= 1 << bit % 8
    _own_set_or_refused(bytes(code), size, row)


@pytest.mark.parametrize("density", [0.01, 0.1, 0.11, 0.38, 0.5])
def test_every_flip_and_truncation_gives_its_own_set_or_an_edit_error(density: float) -> None:
    size = 1500
    _all_changes(encode(random_set(density, size), size), size, None)


def test_every_flip_and_truncation_of_a_code_by_rows_gives_its_own_set_or_an_edit_error() -> None:
    positions, size, row = clustered()
    code = encode(positions, size, row=row)
    assert code[0] == 1
    _all_changes(code, size, row)


@few
@given(st.binary(max_size=60), st.sampled_from([(0, None), (1, None), (100, 10), (2**31, 64), (LARGEST_SIZE, 2**40)]))
def test_any_bytes_give_their_own_set_or_an_edit_error(code: bytes, size_and_row: tuple[int, int | None]) -> None:
    _own_set_or_refused(code, *size_and_row)


@few
@given(sets(), st.binary(min_size=1, max_size=3))
@example(clustered(), b"\0")
def test_bytes_after_the_end_are_refused(case: Case, tail: bytes) -> None:
    positions, size, row = case
    with pytest.raises(EditError):
        decode(encode(positions, size, row=row) + tail, size, row=row)


def test_the_other_form_of_a_set_is_refused() -> None:
    positions, size, row = clustered()
    with pytest.raises(EditError, match="expected the form by rows"):
        decode(encode(positions, size), size, row=row)
    with pytest.raises(EditError, match="expected form 0, found 1"):
        decode(encode(positions, size, row=row), size)
    even = random_set(0.03, size)
    assert encode(even, size, row=row)[0] == 0
    with pytest.raises(EditError, match=r"cannot hold|classes"):
        decode(b"\1" + encode(even, size)[1:], size, row=row)


def test_a_set_by_rows_that_costs_less_as_a_whole_is_refused() -> None:
    size, row = 8 * 100, 100
    positions = np.concatenate([np.arange(k * row, k * row + 3 + 2 * (k % 2)) for k in range(8)])
    odd = positions // row % 2 == 1
    blocks = [encode_set(np.arange(1, 8, 2), 8)]
    blocks += [encode_set(np.concatenate([np.arange(k * row, k * row + n) for k in range(4)]), 4 * row) for n in (5, 3)]
    code = bytes([1, len(positions), 0, 3, 2]) + b"".join(bytes([len(block), 0]) + block for block in blocks)
    assert int(odd.sum()) == 20 and encode(positions, size, row=row)[0] == 0
    with pytest.raises(EditError, match="classes of the rows"):
        decode(code, size, row=row)


def test_a_position_beyond_the_size_is_refused() -> None:
    for last in (998, 999):  # the same divisor, and the last position is the size or one more
        with pytest.raises(EditError, match="outside"):
            decode(encode(np.array([1, 999]), 1000), last)


def test_unused_bits_must_be_zero() -> None:
    code = bytearray(encode(np.arange(0, 9, 2), 9))
    code[-1] |= 0x80
    with pytest.raises(EditError, match="unused bits"):
        decode(bytes(code), 9)


@pytest.mark.parametrize("form", [0, 1])
@pytest.mark.parametrize("count", [0, 1, 2**20, 2**30, 2**46, 2**47, LARGEST_SIZE])
def test_a_hostile_head_allocates_nothing_large(form: int, count: int) -> None:
    head = bytes([form]) + count.to_bytes(7, "little") + bytes([8, 0])
    for tail in (b"", b"\xff" * 1000, b"\0" * 1000):
        assert _peak(head + tail, LARGEST_SIZE, 2**20) < 1_000_000


def test_memory_is_a_fixed_multiple_of_the_data() -> None:
    positions = np.arange(10_000)
    for size, row in (
        (10_000, None),
        (10_000, 1),
        (20_000, 100),
        (2**28, 2**6),
        (LARGEST_SIZE, None),
        (LARGEST_SIZE, 2**40),
    ):
        code = encode(positions, size, row=row)
        assert _peak(code, size, row) < 400 * len(code) + 20_000


def test_entropy_is_that_of_a_coin() -> None:
    assert [entropy_bytes(count, 800) for count in (0, 400, 800)] == [0.0, 100.0, 0.0]
    assert entropy_bytes(0, 0) == 0.0
    assert all(a < b for a, b in pairwise(entropy_bytes(count, 800) for count in range(0, 401, 40)))


def test_a_set_code_may_be_any_size() -> None:
    for size in range(1, 70):
        for count in range(size + 1):
            positions = np.sort(np.random.default_rng(count).choice(size, count, replace=False))
            assert np.array_equal(decode_set(encode_set(positions, size), size), positions)


def _all_changes(code: bytes, size: int, row: int | None) -> None:
    for length in range(len(code)):
        _own_set_or_refused(code[:length], size, row)
    for bit in range(8 * len(code)):
        changed = bytearray(code)
        changed[bit // 8] ^= 1 << bit % 8
        _own_set_or_refused(bytes(changed), size, row)


def _own_set_or_refused(code: bytes, size: int, row: int | None) -> None:
    try:
        found = decode(code, size, row=row)
    except EditError:
        return
    assert encode(found, size, row=row) == code


def _peak(code: bytes, size: int, row: int | None) -> int:
    tracemalloc.start()
    try:
        decode(code, size, row=row)
    except EditError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak
