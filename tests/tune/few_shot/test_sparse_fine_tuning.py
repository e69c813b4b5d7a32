"""LT-SFT: which entries are chosen, that the second phase starts from the base and touches no other, and that differences add."""

from __future__ import annotations

from dataclasses import replace

import torch

from photopic.core.edits import SparseWeights
from photopic.data.few_shot import FewShotTask
from photopic.edit.merging.merge import MergeConfig, merge
from photopic.tune.few_shot import sparse_fine_tuning as module
from photopic.tune.few_shot.full import FullConfig, full_fine_tuning
from photopic.tune.few_shot.sparse_fine_tuning import SparseFineTuningConfig, sparse_fine_tuning
from tests.method_cases import labelled
from tests.tiny_encoders import tiny_dual_encoder

CONFIG = SparseFineTuningConfig(steps=5, lr=1e-2, batch=4, share=0.1)


def difference(config: SparseFineTuningConfig, seed: int = 0) -> SparseWeights:
    (part,) = sparse_fine_tuning(tiny_dual_encoder(), FewShotTask(labelled(6, seed=seed)), config=config).of(
        SparseWeights
    )
    return part


def test_the_entries_are_those_that_full_fine_tuning_moves_most() -> None:
    part, model = difference(CONFIG), tiny_dual_encoder()
    full = full_fine_tuning(model, FewShotTask(labelled(6)), config=FullConfig(steps=5, lr=1e-2, batch=4))
    moved = {name: each.abs().flatten() for name, each in full.parts[0].deltas.items()}  # type: ignore[attr-defined]
    entries = sum(each.numel() for each in model.image_tower.parameters())
    assert part.count == int(0.1 * entries) and part.delta
    chosen = torch.cat([moved[name][positions] for name, positions in part.indices.items()])
    everything = torch.cat(list(moved.values()))
    assert chosen.min() >= everything.sort(descending=True).values[part.count - 1]  # the threshold, by sorting


def test_the_second_phase_begins_at_the_base(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    seen: list[float] = []
    update = module.Difference.update

    def watched(self, loss, *, step):  # type: ignore[no-untyped-def]
        seen.append(max(float(each.detach().abs().max()) for each in self.tensors.values()))
        update(self, loss, step=step)

    monkeypatch.setattr(module.Difference, "update", watched)
    difference(CONFIG)
    assert seen[0] == 0.0 < seen[1] and len(seen) == 5


def test_a_pull_to_the_base_leaves_less() -> None:
    free, pulled = difference(CONFIG), difference(replace(CONFIG, l1=1.0))
    assert sum(float(each.abs().sum()) for each in pulled.values.values()) < 0.7 * sum(
        float(each.abs().sum()) for each in free.values.values()
    )


def test_two_differences_add_entry_by_entry() -> None:
    model = tiny_dual_encoder()
    edits = [sparse_fine_tuning(model, FewShotTask(labelled(6, seed=seed)), config=CONFIG) for seed in (0, 1)]
    both = merge(edits, config=MergeConfig(by="task-arithmetic"))
    before = {name: each.clone() for name, each in model.parameters().items()}
    with model.edits.applied(both):
        together = {name: each.clone() for name, each in model.parameters().items()}
    changed = {name: torch.zeros_like(each) for name, each in before.items()}
    for edit in edits:
        with model.edits.applied(edit):
            for name, each in model.parameters().items():
                changed[name] += each - before[name]
    for name, each in before.items():
        torch.testing.assert_close(together[name] - each, changed[name], atol=1e-6, rtol=0)
        assert torch.equal(model.parameters()[name], each)  # and off again, to the byte
