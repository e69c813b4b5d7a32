"""What ``describe`` counts is what the file holds."""

from __future__ import annotations

import json
import math
import struct

import pytest
import torch

from photopic.core.edits import LowRankDelta, Part, SparseWeights, ZeroedWeights
from photopic.core.edits.file import to_bytes
from photopic.core.nn.layer_names import place, running_order
from photopic.edit.inspect import describe
from tests.core.edits.kinds import at, edit, hook_parts, other_parts, weight_parts

EVERYTHING = (*weight_parts(), *hook_parts(), *other_parts())


def data_bytes(content: bytes) -> int:
    (header,) = struct.unpack("<Q", content[:8])
    return len(content) - 8 - header


@pytest.mark.parametrize("part", [*EVERYTHING, None], ids=lambda part: part.kind if part else "everything")
def test_every_byte_of_the_data_belongs_to_a_row(part: Part | None) -> None:
    made = edit(*(EVERYTHING if part is None else [part]))
    found = describe(made)
    assert sum(row.index_bytes + row.value_bytes for row in found.tensors) == data_bytes(to_bytes(made))
    assert sum(each.bytes for each in found.parts) == data_bytes(to_bytes(made))
    assert [each.kind for each in found.parts] == [each.kind for each in made.parts]
    json.dumps(found.to_dict(), allow_nan=False)


def test_an_entry_that_two_parts_touch_counts_once() -> None:
    found = describe(edit(*weight_parts()))
    assert found.count == 35 + 10 + 2 + 5 and found.size == 35 + 30 + 6 + 5  # low-rank covers what is shut
    assert sum(block.count for block in found.blocks) == found.count
    assert sum(block.size for block in found.blocks) == found.size
    assert found.blocks[0].name == "m" and found.blocks[0].norm is None


def test_the_norm_is_that_of_what_is_added() -> None:
    low_rank = next(part for part in weight_parts() if isinstance(part, LowRankDelta))
    found = describe(edit(low_rank))
    assert found.tensors[0].norm == pytest.approx(float(low_rank.product("m.one.weight").norm()), rel=1e-5)
    assert found.blocks[0].norm == found.tensors[0].norm


def test_the_histogram_counts_every_value_around_zero() -> None:
    values = torch.tensor([-2.0, -1.9, 0.0, 0.0, 0.1, 1.0])
    found = describe(edit(SparseWeights({"m.two.bias": at(0, 1, 2, 3, 4, 5)}, {"m.two.bias": values}))).parts[0].values
    assert found is not None and found.edges[0] == -2 and found.edges[-1] == 2 and found.edges[8] == 0
    assert found.counts == (2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0)
    assert (found.count, found.zeros, found.minimum, found.maximum) == (6, 2, -2.0, 1.0)
    assert math.isclose(found.mean, float(values.mean()), abs_tol=1e-6)
    assert math.isclose(found.std, float(values.std(correction=0)), abs_tol=1e-6)


def test_a_part_of_positions_holds_no_values_and_zeros_have_a_histogram() -> None:
    assert describe(edit(ZeroedWeights({"m.two.bias": at(0)}))).parts[0].values is None
    zeros = describe(edit(SparseWeights({"m.two.bias": at(0)}, {"m.two.bias": torch.zeros(1)}))).parts[0].values
    assert zeros is not None and sum(zeros.counts) == 1


def test_blocks_come_in_the_order_the_network_runs_them() -> None:
    names = ["unet.up_blocks.10.attentions.0.proj_in.weight", "unet.up_blocks.2.resnets.0.conv1.weight"]
    names += ["unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight", "unet.conv_in.weight"]
    blocks = [place(name)[0] for name in names]
    assert sorted(blocks, key=running_order) == ["mid", "up 2", "up 10", "unet"]
    assert place(names[2]) == ("mid", "self 0/0", "q")
