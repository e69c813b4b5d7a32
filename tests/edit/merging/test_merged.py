"""Merging by rules: each entry is decided from what all edits want of it and how much it matters to them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from photopic.core.edits import Edit, SparseWeights, ZeroedWeights, compose
from photopic.core.edits.file import to_bytes
from photopic.core.errors import EditError
from photopic.edit.merging import elected, merged, summed
from tests.core.edits.kinds import Small, at, edit

WHERE = "m.two.weight"


def added(positions: Tensor, values: list[float]) -> Edit:
    return edit(SparseWeights({WHERE: positions}, {WHERE: torch.tensor(values)}, delta=True))


def changes(found: Edit) -> Tensor:
    """What an edit that only adds makes of each entry."""
    flat = torch.zeros(30)
    for part in found.weight_parts:
        write = part.change(WHERE)
        flat[write.indices] += write.values  # type: ignore[index,operator]
    return flat


def test_a_rule_decides_on_what_several_touch_and_nothing_else() -> None:
    def largest(changes: Tensor, importance: Tensor | None) -> Tensor:
        return changes.gather(0, changes.abs().argmax(0, keepdim=True))[0]  # (edits, entries) -> (entries)

    one, two = added(at(0, 1), [1.0, 2.0]), added(at(1, 2), [-3.0, 4.0])
    assert changes(merged([one, two], largest))[:3].tolist() == [1.0, -3.0, 4.0]
    assert merged([one, two], largest).provenance["overlap"] == "largest"


def test_importance_reaches_the_rule_entry_by_entry() -> None:
    def weighted(changes: Tensor, importance: Tensor | None) -> Tensor:
        assert importance is not None
        return (changes * importance).sum(0) / importance.sum(0)

    one, two = added(at(1, 5), [2.0, 6.0]), added(at(1, 5), [4.0, 2.0])
    first, second = torch.zeros(6, 5), torch.zeros(6, 5)  # shape of the weight
    first.view(-1)[[1, 5]], second.view(-1)[[1, 5]] = torch.tensor([3.0, 1.0]), torch.tensor([1.0, 3.0])
    found = changes(merged([one, two], weighted, [{WHERE: first}, {WHERE: second}]))
    assert found[[1, 5]].tolist() == [2.5, 3.0]  # (3 x 2 + 1 x 4) / 4, (1 x 6 + 3 x 2) / 4
    with pytest.raises(EditError, match=r"importance of edit 2: m\.two\.weight: expected shape \(6, 5\), found none"):
        merged([one, two], weighted, [{WHERE: first}, {}])


@pytest.mark.parametrize(("rule", "policy"), [(summed, "sum"), (elected, "ties")])
def test_the_policies_of_compose_are_rules(rule: object, policy: str) -> None:
    edits = [added(at(0, 1), [1.0, 2.0]), added(at(1, 2), [-3.0, 4.0]), edit(ZeroedWeights({WHERE: at(1)}))]
    base = {"m": Small()}
    by_rule, by_policy = merged(edits, rule, base=base), compose(*edits, overlap=policy, base=base)  # type: ignore[arg-type]
    assert [to_bytes(Edit(each.parts, each.base)) for each in (by_rule,)] == [
        to_bytes(Edit(by_policy.parts, by_policy.base))
    ]
