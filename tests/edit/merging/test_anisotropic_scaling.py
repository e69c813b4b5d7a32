"""aTLAS: the number of learnt numbers, where it starts, the gradient by each, each objective, and what comes out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional

from photopic.core.edits import DenseDelta, Edit, SparseWeights
from photopic.core.errors import DataError
from photopic.data.few_shot import FewShotTask
from photopic.edit.merging.anisotropic_scaling import AnisotropicScalingConfig, Scaling, anisotropic_scaling
from photopic.learning.classifiers import TextClassifier
from photopic.learning.few_shot_batches import batch_at
from photopic.models.dual_encoder import DualEncoder
from tests.method_cases import labelled
from tests.tiny_encoders import tiny_dual_encoder

FIRST, SECOND = "network.visual_projection.weight", "network.vision_model.encoder.layers.0.mlp.fc1.weight"
CONFIG = AnisotropicScalingConfig(steps=6, lr=0.05, batch=4, augment=False)


@pytest.fixture
def model() -> DualEncoder:
    return tiny_dual_encoder()


@pytest.fixture
def edits(model: DualEncoder) -> list[Edit]:
    """One that touches two tensors, and one that touches a few entries of one."""
    draw = torch.Generator().manual_seed(0)
    deltas = {name: torch.randn(each.shape, generator=draw) for name, each in model.parameters(FIRST, SECOND).items()}
    few = SparseWeights({FIRST: torch.arange(9)}, {FIRST: torch.ones(9)}, delta=True)
    return [Edit((part,), model.fingerprint(*part.names())) for part in (DenseDelta(deltas), few)]


def flat(edit: Edit, name: str, count: int) -> torch.Tensor:
    found = torch.zeros(count)
    for part in edit.weight_parts:
        if name in part.names():
            write: Any = part.change(name)
            found[slice(None) if write.indices is None else write.indices] += write.values
    return found


def test_one_number_a_block_and_edit_is_learnt_and_scales_exactly_its_block(
    model: DualEncoder, edits: list[Edit]
) -> None:
    found = anisotropic_scaling(edits, model=model, data=FewShotTask(labelled(6)), config=CONFIG)
    learnt = found.provenance["coefficients"]
    assert found.provenance["trained"] == 3 and {name: len(each) for name, each in learnt.items()} == {
        FIRST: 2,
        SECOND: 1,
    }
    assert all(abs(number) > 1e-3 for each in learnt.values() for number in each)
    for name, numbers in learnt.items():
        count = model.parameters(name)[name].numel()
        taus = [flat(edit, name, count) for edit in edits if name in edit.touched()]
        expected = sum(number * tau for number, tau in zip(numbers, taus, strict=True))
        torch.testing.assert_close(flat(found, name, count), expected, atol=1e-5, rtol=1e-4)


def test_the_first_step_goes_down_the_derivative_by_each_number(model: DualEncoder, edits: list[Edit]) -> None:
    data = labelled(6)
    taus = [{name: flat(edit, name, model.parameters(name)[name].numel()) for name in edit.touched()} for edit in edits]
    learner = Scaling(model, taus, data, None, CONFIG)
    _, pixels, labels = batch_at(model, data, CONFIG, 0)
    rows = model.class_features(data.names)

    def loss(place: tuple[int, str], by: float) -> float:
        name = place[1]
        tensor = model.parameters(name)[name] + by * taus[place[0]][name].view_as(model.parameters(name)[name])
        features = functional.normalize(model.functional({name: tensor})(pixels), dim=-1)
        return functional.cross_entropy(model.logit_scale * features @ rows.mT, labels).item()

    learner.step(0)
    for number, tau in enumerate(taus):
        for place, name in enumerate(tau):
            slope = (loss((number, name), 1e-2) - loss((number, name), -1e-2)) / 2e-2
            gradient = learner.tensors[str(number)].grad
            assert gradient is not None and gradient[place].item() == pytest.approx(slope, rel=0.05, abs=2e-3)


@pytest.mark.parametrize("objective", ["learn", "forget", "adapt"])
def test_each_objective_goes_its_way(objective: Any, model: DualEncoder, edits: list[Edit]) -> None:
    task, mirror = FewShotTask(labelled(6)), labelled(6, seed=3)
    other = FewShotTask(replace(mirror, labels=1 - mirror.labels))  # what is kept speaks for forgetting
    config = replace(CONFIG, objective=objective, steps=12, batch=6)
    control = other if objective == "forget" else None
    events = list(anisotropic_scaling.events(edits, model=model, data=task, control=control, config=config))
    losses = [event.numbers["loss"] for event in events if event.numbers]
    assert losses[-1] < losses[0] and (control is None) == ("accuracy of control" not in events[-2].numbers)
    rows, labels = model.class_features(task.train.names), torch.from_numpy(task.train.labels)
    by, target = events[-1].result, task.train.images
    before, after = (
        functional.cross_entropy(TextClassifier(model, rows, each).logits(target), labels) for each in (None, by)
    )
    assert (after > before) == (objective == "forget") or objective == "adapt"
    if objective == "adapt":  # labels are not read
        swapped = replace(task.train, labels=1 - task.train.labels)
        again = anisotropic_scaling(edits, model=model, data=FewShotTask(swapped), config=config)
        assert again.provenance["coefficients"] == events[-1].result.provenance["coefficients"]


def test_what_is_kept_is_asked_for_to_forget_and_only_then(model: DualEncoder, edits: list[Edit]) -> None:
    task = FewShotTask(labelled(6))
    with pytest.raises(DataError, match=r"--control: expected pictures of what is kept .* found none"):
        anisotropic_scaling(edits, model=model, data=task, config=replace(CONFIG, objective="forget"))
    with pytest.raises(DataError, match=r"--control: .* found some"):
        anisotropic_scaling(edits, model=model, data=task, control=task, config=CONFIG)
