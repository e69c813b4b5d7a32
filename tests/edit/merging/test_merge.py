"""Merging: each rule against its formula, Fisher merging against the Fishers of single pictures, what is refused, exact revert."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from photopic.core.edits import DenseDelta, Edit, SparseWeights, SteeringVector, ZeroedWeights
from photopic.core.edits import file as edit_file
from photopic.core.edits.stored import StoredEdit
from photopic.core.errors import DataError, EditError
from photopic.data.few_shot import LabelledImages
from photopic.edit.merging.merge import MergeConfig, merge
from photopic.models.classifier import Classifier
from tests.cli.conftest import run
from tests.tiny_classifiers import CLASSES, tiny_class_folder, tiny_classifier

WEIGHT, HEAD = "network.0.weight", "network.5.weight"


def specialist(model: Classifier, seed: int, names: Sequence[str] = (WEIGHT, HEAD)) -> Edit:
    """The base with noise on some tensors, as a task vector."""
    draw = torch.Generator().manual_seed(seed)
    shapes = {name: each.shape for name, each in model.parameters(*names).items()}
    deltas = {name: 0.3 * torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    return Edit((DenseDelta(deltas),), model.fingerprint(*names), {"noun": f"style {seed}"})


def change_of(edit: Edit, name: str, shape: Sequence[int]) -> Tensor:
    found = torch.zeros(*shape)
    for part in edit.weight_parts:
        if name in part.names():
            write = part.change(name)
            values = write.values() if callable(write.values) else write.values
            found.view(-1)[slice(None) if write.indices is None else write.indices] += values  # type: ignore[operator]
    return found


@pytest.fixture
def model() -> Classifier:
    return tiny_classifier()


@pytest.fixture
def three(model: Classifier) -> list[Edit]:
    return [specialist(model, seed) for seed in range(3)]


def by_ties(taus: Tensor, weights: Tensor) -> Tensor:
    """Trim, elect, disjoint mean, written entry by entry."""
    kept = int(0.5 * taus[0].numel())
    flat = taus.flatten(1)
    smallest = [sorted(row.abs().tolist(), reverse=True)[kept - 1] for row in flat]
    found = []
    for column in flat.T.tolist():
        votes = [value if abs(value) >= least else 0.0 for value, least in zip(column, smallest, strict=True)]
        positive = sum(votes) > 0
        agreeing = [w * v for w, v in zip(weights.tolist(), votes, strict=True) if v and (v > 0) == positive]
        found.append(sum(agreeing) / max(1, len(agreeing)))
    return torch.tensor(found).view(taus.shape[1:])


FORMULAS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "average": lambda taus, weights: torch.einsum("n...,n->...", taus, weights) / weights.sum(),
    "task-arithmetic": lambda taus, weights: torch.einsum("n...,n->...", taus, weights),
    "ties": by_ties,
}


@pytest.mark.parametrize("rule", FORMULAS)
def test_a_rule_is_its_formula(rule: str, model: Classifier, three: list[Edit]) -> None:
    weights = torch.tensor([0.5, 2.0, 1.5])
    config = MergeConfig(by=rule, keep=0.5, scale=0.25)  # type: ignore[arg-type]
    found = merge(three, weights=weights.tolist(), config=config)
    for name, tensor in model.parameters(WEIGHT, HEAD).items():
        taus = torch.stack([change_of(each, name, tensor.shape) for each in three])
        expected = 0.25 * FORMULAS[rule](taus, weights)
        assert torch.allclose(change_of(found, name, tensor.shape), expected, atol=1e-6)
    assert [each["noun"] for each in found.provenance["parents"]] == ["style 0", "style 1", "style 2"]


def test_ties_and_dare_are_those_of_peft(model: Classifier, three: list[Edit]) -> None:
    peft = pytest.importorskip("peft.utils.merge_utils")
    weights = torch.tensor([0.5, 2.0, 1.5])
    taus = [change_of(each, WEIGHT, model.parameters(WEIGHT)[WEIGHT].shape) for each in three]
    found = merge(three, weights=weights.tolist(), config=MergeConfig(by="ties", keep=0.3))
    expected = peft.ties(taus, weights, 0.3)
    torch.testing.assert_close(change_of(found, WEIGHT, taus[0].shape), expected, atol=1e-6, rtol=1e-5)
    alone = [three[0], specialist(model, 9, (HEAD,))]  # of the first tensor only one edit has a say
    found = merge(alone, config=MergeConfig(by="dare", drop=0.7, seed=4))
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.SeedSequence((4, 0, 0)).generate_state(1)[0]))
        expected = peft.dare_linear([taus[0].flatten()], torch.ones(1), 0.3)  # draws from the global generator
    torch.testing.assert_close(change_of(found, WEIGHT, taus[0].shape).flatten(), expected)


def by_mergekit(taus: Tensor, masks: Tensor) -> Tensor:
    """A generalised task-arithmetic merge of sparsified changes: the sign of the sum wins, the mean of those that agree."""
    sparse = taus * masks
    agrees = (sparse.sign() == sparse.sum(0).sign()) & (sparse != 0)
    divisor = agrees.sum(0).float()
    divisor[divisor == 0] = 1
    return (sparse * agrees).sum(0) / divisor


def test_ties_and_dare_are_those_of_mergekit_where_all_weights_are_one(model: Classifier, three: list[Edit]) -> None:
    shape = model.parameters(WEIGHT)[WEIGHT].shape
    taus = torch.stack([change_of(each, WEIGHT, shape).flatten() for each in three])  # (edits, entries)
    found = change_of(merge(three, config=MergeConfig(by="ties", keep=0.3)), WEIGHT, shape).flatten()
    ranks = taus.abs().argsort(1, descending=True).argsort(1)  # 0 is the largest change
    torch.testing.assert_close(found, by_mergekit(taus, (ranks < int(0.3 * taus.shape[1])).float()))
    # DARE linear: every change thinned by a draw of its own, rescaled, and summed
    place = list(three[0].touched()).index(WEIGHT)
    states = [int(np.random.SeedSequence((7, number, place)).generate_state(1)[0]) for number in range(3)]
    kept = torch.full(taus.shape[1:], 0.4)
    masks = torch.stack([torch.bernoulli(kept, generator=torch.Generator().manual_seed(state)) for state in states])
    found = change_of(merge(three, config=MergeConfig(by="dare", drop=0.6, seed=7)), WEIGHT, shape).flatten()
    torch.testing.assert_close(found, (taus * masks / 0.4).sum(0))


def test_dare_drops_its_share_and_keeps_the_mean(model: Classifier) -> None:
    ones = Edit((DenseDelta({WEIGHT: torch.ones(6, 3, 3, 3)}),), model.fingerprint(WEIGHT))
    configs = [MergeConfig(by="dare", drop=0.8, seed=seed) for seed in range(60)]
    entries = torch.stack([change_of(merge([ones, ones], config=each), WEIGHT, (162,)) for each in configs])
    assert set(entries.unique().tolist()) == {0.0, 5.0, 10.0}  # each of two is kept, as 1 / 0.2, or not
    assert abs(entries.mean().item() - 2) < 0.1  # 9,720 entries of spread 2.8: three standard errors are 0.086
    assert abs((entries == 0).float().mean().item() - 0.64) < 0.02  # dropped in both


def fisher(model: Classifier, edit: Edit, data: LabelledImages, seed: int) -> dict[str, Tensor]:
    """Of the edited network, from single pictures, by autograd on the network itself."""
    draw = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(data), generator=draw).tolist()
    with model.edits.applied(edit):
        weights = {name: each.requires_grad_() for name, each in model.parameters(WEIGHT, HEAD).items()}
        total = {name: torch.zeros_like(each) for name, each in weights.items()}
        for place in order:
            log_p = model.forward(model.preprocess(data.images[place])).log_softmax(1)
            label = torch.multinomial(log_p.detach().exp()[0], 1, generator=draw)
            gradients = torch.autograd.grad(functional.nll_loss(log_p, label), list(weights.values()))
            for name, gradient in zip(weights, gradients, strict=True):
                total[name] += gradient**2 / len(data)
        model.network.requires_grad_(False)
    return total


def labelled(count: int, seed: int) -> LabelledImages:
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 256, (count, 14, 14, 3), dtype=np.uint8)
    return LabelledImages(pictures, np.arange(count) % 4, CLASSES)


def test_fisher_merging_is_its_formula(model: Classifier, three: list[Edit]) -> None:
    data, floor = [labelled(6, seed) for seed in range(3)], 1e-4
    found = merge(three, model=model, images=data, config=MergeConfig(by="fisher", floor=floor, seed=5))
    each = [fisher(model, edit, pictures, 5) for edit, pictures in zip(three, data, strict=True)]
    for name in (WEIGHT, HEAD):
        weights = torch.stack([found[name] + floor for found in each])  # (edits, ...)
        taus = torch.stack([change_of(edit, name, weights.shape[1:]) for edit in three])
        expected = (weights * taus).sum(0) / weights.sum(0)
        torch.testing.assert_close(change_of(found, name, expected.shape), expected, atol=1e-5, rtol=1e-4)
        assert not torch.allclose(expected, taus.mean(0), atol=1e-2)  # the Fishers do say something


def test_equal_fishers_give_the_plain_average(model: Classifier) -> None:
    one, two = specialist(model, 1), specialist(model, 2)
    data = [labelled(5, 0)] * 2
    same = merge([one, one], model=model, images=data, config=MergeConfig(by="fisher"))
    by_floor = merge([one, two], model=model, images=data, config=MergeConfig(by="fisher", floor=1e9))
    for found, plain in ((same, merge([one, one])), (by_floor, merge([one, two]))):
        for name, tensor in model.parameters(WEIGHT, HEAD).items():
            away = change_of(found, name, tensor.shape) - change_of(plain, name, tensor.shape)
            assert away.abs().max() < 1e-6


def test_what_one_edit_leaves_alone_stands_at_the_base_in_its_model(model: Classifier) -> None:
    added = SparseWeights({WEIGHT: torch.tensor([3])}, {WEIGHT: torch.tensor([4.0])}, delta=True)
    shut = ZeroedWeights({WEIGHT: torch.tensor([5])})
    edits = [Edit((part,), model.fingerprint(WEIGHT)) for part in (added, shut)]
    found = change_of(merge(edits, model=model), WEIGHT, (162,))
    assert found[3] == 2.0 and found.count_nonzero() == 2
    assert torch.isclose(found[5], -model.parameters(WEIGHT)[WEIGHT].flatten()[5] / 2)


def test_files_merge_as_edits_do_and_come_off_again(model: Classifier, three: list[Edit], tmp_path: Path) -> None:
    for number, each in enumerate(three):
        edit_file.save(each, tmp_path / f"{number}.edit")
    stored = [StoredEdit(tmp_path / f"{number}.edit") for number in range(3)]
    data, config = [tiny_class_folder()] * 3, MergeConfig(by="fisher", pictures=4)
    found, beside = (merge(each, model=model, images=data, config=config) for each in (stored, three))
    assert [part.digest() for part in found.parts] == [part.digest() for part in beside.parts]
    before = {name: each.clone() for name, each in model.parameters().items()}
    with model.edits.applied(found):
        assert not torch.equal(model.parameters()[WEIGHT], before[WEIGHT])
    assert all(torch.equal(each, before[name]) for name, each in model.parameters().items())


def test_what_is_wrong_is_said_in_a_line(model: Classifier, three: list[Edit]) -> None:
    other = tiny_classifier(seed=1)
    beside = Edit((SteeringVector({"network.0": torch.ones(6, 1, 1)}),), model.fingerprint())
    by_fisher = MergeConfig(by="fisher")
    with pytest.raises(EditError, match="expected 2 edits or more, found 1"):
        merge(three[:1])
    with pytest.raises(DataError, match=r"--weight: expected one for each of 3 edits, found 1"):
        merge(three, weights=[1.0])
    with pytest.raises(DataError, match=r"more than 0 for a mean, found -1\.0; --by task-arithmetic subtracts"):
        merge(three[:2], weights=[1.0, -1.0])
    with pytest.raises(EditError, match="edit 2: made for another base than the first"):
        merge([three[0], specialist(other, 0)])
    with pytest.raises(EditError, match=r"edit 1: made for tiny-cnn, but this model is tiny-cnn"):
        merge(three, model=other)
    with pytest.raises(EditError, match=r"--by fisher: needs the base model"):
        merge(three, config=by_fisher)
    with pytest.raises(DataError, match=r"--images: expected one folder for each of 3 edits, found 0"):
        merge(three, model=model, config=by_fisher)
    with pytest.raises(EditError, match="edit 2: expected changes of weights only, found"):
        merge([three[0], beside])


def test_the_command_writes_an_edit(model: Classifier, three: list[Edit], tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.edit" for number in range(3)]
    for path, each in zip(files, three, strict=True):
        edit_file.save(each, path)
    run("edit", "merge", *files, "--by", "ties", "--keep", "0.5", "-o", tmp_path / "m.edit")
    expected = merge(three, config=MergeConfig(by="ties", keep=0.5))
    assert [part.digest() for part in edit_file.load(tmp_path / "m.edit").parts] == [p.digest() for p in expected.parts]
