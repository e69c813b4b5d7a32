"""The code of 16-bit numbers: every number comes back, in one form, close to the entropy of the exponents."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from photopic.core.editfile.float16_code import MANTISSA, decode_halves, encode_halves
from photopic.core.errors import EditError

DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16}


def raw(values: torch.Tensor) -> bytes:
    return values.view(torch.uint8).numpy().tobytes()


@settings(max_examples=300, deadline=None, database=None)
@given(st.sampled_from(list(MANTISSA)), st.lists(st.integers(0, 65535), min_size=1, max_size=80))
def test_any_numbers_come_back_bit_for_bit(kind: str, numbers: list[int]) -> None:
    data = np.array(numbers, "<u2").tobytes()  # infinities, NaN and subnormal numbers among them
    assert decode_halves(encode_halves(data, kind), len(numbers), kind) == data


@pytest.mark.parametrize("kind", MANTISSA)
@pytest.mark.parametrize("count", [1024, 30_000])
def test_weights_cost_what_their_entropy_says(kind: str, count: int) -> None:
    data = raw(torch.randn(count, generator=torch.Generator().manual_seed(0)).to(DTYPES[kind]))
    exponents = np.frombuffer(data, "<u2") >> MANTISSA[kind] & ((1 << (15 - MANTISSA[kind])) - 1)
    shares = np.bincount(exponents)[np.bincount(exponents) > 0] / count
    bound = count * (MANTISSA[kind] + 1 - (shares * np.log2(shares)).sum()) / 8
    assert bound < len(encode_halves(data, kind)) < 1.01 * bound + 30  # the table of the exponents comes on top


@settings(max_examples=400, deadline=None, database=None)
@given(st.data())
def test_a_damaged_code_is_refused_or_is_the_one_code_of_other_numbers(data: st.DataObject) -> None:
    kind, count = data.draw(st.sampled_from(list(MANTISSA))), data.draw(st.integers(1, 60))
    values = torch.randn(count, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 9))))
    code = bytearray(encode_halves(raw(values.to(DTYPES[kind])), kind))
    way = data.draw(st.sampled_from(["flip", "cut", "more", "count"]))
    if way == "flip":
        code[data.draw(st.integers(0, len(code) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    elif way == "cut":
        del code[data.draw(st.integers(0, len(code) - 1)) :]
    elif way == "more":
        code += data.draw(st.binary(min_size=1, max_size=4))
    else:
        count = data.draw(st.integers(1, 1 << 40))
    try:
        found = decode_halves(bytes(code), count, kind)
    except EditError:
        return
    assert encode_halves(found, kind) == bytes(code) and len(found) == 2 * count


def test_a_claim_of_many_numbers_is_refused_before_anything_is_made() -> None:
    with pytest.raises(EditError, match="expected the code of 1099511627776 numbers, found 4 bytes"):
        decode_halves(b"\x00\x01\x02\x03", 1 << 40, "F16")
    code = encode_halves(raw(torch.randn(4).half()), "F16")
    cut = code[: 4 + 2] + bytes([0]) + code[6 + 1 : 6 + 2]  # a table of one exponent, larger than there is
    with pytest.raises(EditError, match="expected exponents up to 31"):
        decode_halves(cut[:7] + bytes([77]), 4, "F16")


def test_a_second_code_of_the_same_numbers_is_refused() -> None:
    numbers = torch.tensor(
        [1.0, 0.5, 1.0, 0.5, 1.0, 0.5]
    ).half()  # two exponents as frequent as each other: the lower is first
    code = encode_halves(raw(numbers), "F16")
    table = 6 + 3  # after the low bytes and 3 bits a number in whole bytes
    first, second = code[table + 1 : table + 2], code[table + 2 : table + 3]
    for message, each in {
        "from the most to the least frequent": code[: table + 1] + second + first + code[table + 3 :],
        "from the most": code[: table + 1] + first + first + code[table + 3 :],  # one twice
        "in the unused bits": code[: table - 1] + bytes([code[table - 1] | 128]) + code[table:],
    }.items():
        with pytest.raises(EditError, match=message):
            decode_halves(each, 6, "F16")
    single = encode_halves(raw(numbers[:1].repeat(3)), "F16")
    with pytest.raises(EditError, match="no code after the only exponent, found 1 bytes"):
        decode_halves(single + b"\x00", 3, "F16")
