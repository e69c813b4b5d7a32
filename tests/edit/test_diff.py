"""Two edits side by side: what each touches and what becomes of it."""

from __future__ import annotations

import torch

from photopic.core.edits import LowRankDelta, ParallelAdapter, SparseWeights, TokenEmbedding, ZeroedWeights
from photopic.core.edits.file import from_bytes, to_bytes
from photopic.edit.diff import diff as compare
from tests.core.edits.kinds import at, edit, hook_parts, other_parts, weight_parts

EVERYTHING = (*weight_parts(), *hook_parts(), *other_parts())
WHERE = "m.two.weight"


def test_an_edit_is_identical_to_itself_however_it_was_found() -> None:
    made = edit(*EVERYTHING, method="search")
    again = compare(made, from_bytes(to_bytes(edit(*EVERYTHING, method="luck"))))
    assert again.values["identical"] and not again.values["same_provenance"]
    assert again.values["jaccard"] == 1 and again.values["different"] == again.values["sign_conflicts"] == 0


def test_every_entry_is_counted_where_it_belongs() -> None:
    a = edit(
        ZeroedWeights({WHERE: at(1, 2)}), SparseWeights({WHERE: at(5, 6, 7)}, {WHERE: torch.tensor([1.0, 2.0, -3.0])})
    )
    b = edit(
        ZeroedWeights({WHERE: at(2, 5)}), SparseWeights({WHERE: at(6, 7, 8)}, {WHERE: torch.tensor([2.0, 3.0, 4.0])})
    )
    found = compare(a, b)
    (row,) = found.rows
    assert (row["only_a"], row["only_b"]) == (1, 1)  # 1; 8
    assert (row["equal"], row["different"]) == (2, 2)  # 2, 6; 5, 7
    assert row["sign_conflicts"] == 1  # 7
    assert row["jaccard"] == 4 / 6 == found.values["jaccard"]
    expected = 5 * 5 / 30
    assert row["jaccard_by_chance"] == expected / (10 - expected)
    assert not found.values["identical"]
    back = compare(b, a)
    assert [row[key] for key in ("only_a", "only_b", "equal")] == [
        back.rows[0][key] for key in ("only_b", "only_a", "equal")
    ]


def test_two_ways_to_say_the_same_are_the_same() -> None:
    low_rank = LowRankDelta({WHERE: torch.ones(6, 1)}, {WHERE: torch.arange(5.0).view(1, 5)})
    dense = SparseWeights({WHERE: torch.arange(30)}, {WHERE: low_rank.product(WHERE).reshape(-1)}, delta=True)
    assert compare(edit(low_rank), edit(dense)).values["identical"]
    zeros = SparseWeights({WHERE: at(3)}, {WHERE: torch.zeros(1)})
    assert compare(edit(ZeroedWeights({WHERE: at(3)})), edit(zeros)).values["identical"]
    added = SparseWeights({WHERE: at(3)}, {WHERE: torch.zeros(1)}, delta=True)
    assert compare(edit(zeros), edit(added)).values["different"] == 1


def test_sets_drawn_by_chance_come_near_the_chance_index() -> None:
    draw = torch.Generator().manual_seed(0)
    name, size = "m.one.weight", 35
    total, chance = 0.0, 0.0
    for _ in range(200):
        one, two = (torch.randperm(size, generator=draw)[:12].sort().values for _ in range(2))
        found = compare(edit(ZeroedWeights({name: one})), edit(ZeroedWeights({name: two}))).values
        total, chance = total + found["jaccard"] / 200, found["jaccard_by_chance"]
    assert abs(total - chance) < 0.02


def test_another_base_is_said_and_is_not_identical() -> None:
    part = ZeroedWeights({WHERE: at(3)})
    found = compare(edit(part), edit(part, seed=1)).values
    assert not found["identical"] and not found["same_base"] and found["base_difference"]
    assert found["different"] == 0 and "small-1" in found["bases"][1]


def test_words_and_modules_are_compared_by_content() -> None:
    row = torch.ones(8)
    token, other = TokenEmbedding("<mine>", {"text_encoder": row}), TokenEmbedding("<mine>", {"text_encoder": -row})
    found = compare(edit(token), edit(other))
    assert found.rows[0]["kind"] == "token" and found.rows[0]["different"] == 8
    one = ParallelAdapter({"m.one": torch.ones(2, 7)}, {"m.one": torch.ones(5, 2)})
    scaled = ParallelAdapter({"m.one": torch.ones(2, 7)}, {"m.one": torch.ones(5, 2)}, scale=2.0)
    assert compare(edit(one), edit(scaled)).values["different"] == 24
    assert compare(edit(one), edit(token)).values["only_b"] == 8
