"""Mask tuning on tiny dual encoders: what is learnt, taken away, resumed, stacked, refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from photopic.core.edits import Edit, SparseWeights, ZeroedWeights
from photopic.core.edits import file as edit_file
from photopic.core.errors import DataError
from photopic.core.runs import Run, RunMismatchError
from photopic.data.emoji_tasks import emoji_task
from photopic.data.few_shot import LabelledImages
from photopic.learning.classifiers import TextClassifier
from photopic.learning.parameters.binary_mask import maskable, packed_bits
from photopic.measure.base_to_new import BaseToNew, base_to_new
from photopic.tune.few_shot.mask_tuning import MaskTuningConfig, step_budget, tune, tune_mask
from tests.tiny_encoders import tiny_dual_encoder

QUICK = MaskTuningConfig(steps=6, lr=2e-3, batch=8)


@pytest.fixture(scope="module")
def task() -> LabelledImages:
    return emoji_task("held-out-style", classes=4, train_per_class=4, test_per_class=1, size=32)[0]


@pytest.fixture(params=["vit", "cnn"])
def model(request):
    return tiny_dual_encoder(request.param)


@pytest.fixture
def vit():
    return tiny_dual_encoder("vit")


def positions(edit: Edit | None) -> dict[str, list[int]]:
    assert edit is not None
    return {
        name: found.tolist()
        for part in edit.parts
        if isinstance(part, ZeroedWeights)
        for name, found in part.indices.items()
    }


def test_a_mask_is_learnt_and_taking_it_away_restores_every_byte(model, task) -> None:
    before = model.digest()
    statistics = {name: each.clone() for name, each in model.network.named_buffers()}
    plain = TextClassifier(model, model.class_features(task.names)).logits(task.images)
    tuned = tune_mask(model, task, config=QUICK)
    assert model.digest() == before
    assert all(torch.equal(statistics[name], each) for name, each in model.network.named_buffers())
    assert not torch.equal(tuned.logits(task.images), plain)
    assert model.digest() == before
    assert tuned.edit is not None
    name = model.edits.load(tuned.edit)
    assert model.digest() != before
    for each, found in positions(tuned.edit).items():
        flat = model.network.get_parameter(each.removeprefix("network.")).detach().view(-1)
        assert not flat[found].any()
    model.edits.unload(name)
    assert model.digest() == before
    assert torch.equal(TextClassifier(model, model.class_features(task.names)).logits(task.images), plain)


def test_only_kernels_and_matrices_of_the_variant_are_shut(vit, task) -> None:
    found = positions(tune_mask(vit, task, config=replace(QUICK, which="mlp")).edit)
    assert set(found) <= set(maskable(vit, "mlp"))
    assert tune_mask(vit, task, config=QUICK).trainable == sum(each.numel() for each in maskable(vit).values())


def test_the_loss_falls_and_the_events_say_so(vit, task) -> None:
    config = replace(QUICK, steps=30, lr=5e-4, dropout=0.0, augment=False, batch=16)
    events = list(tune(vit, task, config=config))
    losses = [event.loss for event in events if event.stage == "tuning"]
    assert len(losses) == 30
    assert min(losses[-5:]) < losses[0] - 0.01
    assert events[0].stage == "preparing"
    assert events[-1].tuned is not None
    assert events[-1].share == events[-2].share > 0
    assert all(0 <= event.accuracy <= 1 for event in events)


def test_an_interrupted_run_goes_on_exactly(vit, task, tmp_path: Path) -> None:
    whole = tune_mask(vit, task, config=QUICK)
    events = tune(vit, task, config=QUICK, run=Run(tmp_path), save_every=2)
    for event in events:
        if event.step == 3:
            break
    events.close()
    resumed = list(tune(vit, task, config=QUICK, run=Run(tmp_path), save_every=2))
    assert resumed[1].step == 3  # after the checkpoint of step 2
    assert positions(resumed[-1].edit) == positions(whole.edit)
    with pytest.raises(RunMismatchError, match="another run"):
        list(tune(vit, task, config=replace(QUICK, seed=1), run=Run(tmp_path)))


def test_the_teacher_is_the_same_once_a_picture_and_once_a_batch(vit, task, monkeypatch) -> None:
    """Without augmentation its logits are kept; reading the pictures again in each step gives the same mask."""
    import photopic.tune.few_shot.mask_tuning as module

    config = replace(QUICK, augment=False)
    kept = positions(tune_mask(vit, task, config=config).edit)
    real = module.Teacher
    monkeypatch.setattr(module, "Teacher", lambda model, rows, images: real(model, rows, None))
    assert positions(tune_mask(vit, task, config=config).edit) == kept
    assert positions(tune_mask(vit, task, config=replace(config, dropout=0.0)).edit) != kept


def test_no_bit_flips_before_the_rates_add_up(vit, task) -> None:
    """And from there on ever more do."""
    shares = []
    for lr in (1e-4, 6e-4, 3e-3, 6e-3):
        config = replace(QUICK, lr=lr, budget="keep", augment=False)
        last = list(tune(vit, task, config=config))[-1]
        shares.append(last.share)
        if step_budget(config, len(task)) < 0.5:  # Adam's step is at most about the rate
            assert last.share == 0
            assert last.edit is None
            assert "raise the learning rate" in last.warning
    assert shares[0] == 0 < shares[-1]
    assert shares == sorted(shares)


def test_a_rate_under_which_nothing_can_flip_is_raised_with_a_word(vit, task) -> None:
    config = replace(QUICK, lr=8e-5)
    first = next(tune(vit, task, config=config))
    assert "no weight could be switched off; using lr" in first.warning
    assert tune_mask(vit, task, config=config).edit is not None
    assert not next(tune(vit, task, config=QUICK)).warning
    with pytest.raises(DataError, match=r"8e-05 moves a mask entry at most .* use lr"):
        next(tune(vit, task, config=replace(config, budget="refuse")))
    raised = float(first.warning.rsplit(" ", 1)[1])
    assert 4.9 <= step_budget(replace(config, lr=raised), len(task)) <= 20


def test_the_file_is_smaller_than_the_packed_bits_and_reads_the_same() -> None:
    """At five per cent of zeros of the matrices of a small transformer."""
    from torch import nn

    from photopic.core.fingerprint import fingerprint

    network = nn.Sequential(*(nn.Linear(128, 128) for _ in range(16)))
    names = [f"network.{place}.weight" for place in range(16)]
    masks = {
        name: torch.rand(128, 128, generator=torch.Generator().manual_seed(place)) > 0.05
        for place, name in enumerate(names)
    }
    edit = Edit((ZeroedWeights.of_masks(masks),), fingerprint({"network": network}, "tiny", names))
    coded = edit_file.to_bytes(edit)
    assert len(coded) < 0.5 * sum(len(each) for each in packed_bits(masks).values())
    (part,) = edit_file.from_bytes(coded, "mask").parts
    assert isinstance(part, ZeroedWeights)
    back = part.masks({name: (128, 128) for name in names})
    assert all(torch.equal(back[name], masks[name]) for name in names)


def test_a_mask_is_learnt_on_top_of_another_edit(vit, task) -> None:
    weight = vit.network.vision_model.encoder.layers[0].self_attn.q_proj.weight
    name = "network.vision_model.encoder.layers.0.self_attn.q_proj.weight"
    other = Edit(
        (SparseWeights({name: torch.arange(weight.numel())}, {name: torch.full((weight.numel(),), 0.05)}, delta=True),),
        vit.edits.fingerprint(name),
    )
    alone, before = tune_mask(vit, task, config=QUICK), vit.digest()
    with vit.edits.applied(other):
        below = vit.digest()
        stacked = tune_mask(vit, task, config=QUICK)
        assert vit.digest() == below
        assert positions(stacked.edit) != positions(alone.edit)
        assert stacked.logits(task.images).isfinite().all()  # writes over entries the other edit wrote
        assert vit.digest() == below
    assert vit.digest() == before
    assert stacked.edit is not None
    assert stacked.edit.base.digest == before  # both name the base they share


def test_a_mask_is_learnt_for_a_given_classifier(vit, task) -> None:
    """Such as learnt prompts; the classifier then counts, not the names."""
    rows = torch.nn.functional.normalize(torch.randn(4, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    given = tune_mask(vit, task, config=QUICK, class_features=3 * rows)
    torch.testing.assert_close(given.class_embeddings, rows)
    assert positions(given.edit) != positions(tune_mask(vit, task, config=QUICK).edit)
    nameless = replace(task, names=("\u200b", "a", "b", "c"))
    tune_mask(vit, nameless, config=replace(QUICK, steps=1), class_features=rows)  # names are not read
    with pytest.raises(DataError, match="one row for each of the 4 classes, found shape"):
        tune_mask(vit, task, config=QUICK, class_features=rows[:3])


def test_other_classifiers_stand_on_the_masked_model(vit, task) -> None:
    """A cache of shots (Tip-Adapter) is made from whatever features the model gives."""
    edit = tune_mask(vit, task, config=QUICK).edit
    assert edit is not None
    plain = vit.image_features(task.images)
    with vit.edits.applied(edit):
        keys = vit.image_features(task.images)
        affinity = torch.exp(-5.5 * (1 - vit.image_features(task.images) @ keys.mT))
        logits = (
            vit.zero_shot(task.images, task.names)
            + affinity @ torch.nn.functional.one_hot(torch.from_numpy(task.labels)).float()
        )
    assert not torch.equal(keys, plain)
    assert (logits.argmax(1).numpy() == task.labels).mean() > 0.3


def test_base_and_new_classes_are_measured_apart(vit, task) -> None:
    tuned = tune_mask(vit, task.classes([0, 1]), config=QUICK)
    found = base_to_new(vit, task, tuned.edit)
    base = tuned.logits(task.classes([0, 1]).images).argmax(1).numpy()
    assert found.base == (base == task.classes([0, 1]).labels).mean()
    assert found == base_to_new(vit, task, tuned.edit)
    assert found.harmonic_mean == pytest.approx(2 * found.base * found.new / max(found.base + found.new, 1e-9))
    assert BaseToNew(0.0, 0.0).harmonic_mean == 0


def test_what_nothing_can_be_learnt_from_is_refused(vit, task) -> None:
    one = LabelledImages(task.images[:4], np.zeros(4, np.int64), ("bear",))
    with pytest.raises(DataError, match="expected two or more to tell apart, found only bear"):
        next(tune(vit, one))
    hole = LabelledImages(task.images[:4], np.array([0, 0, 1, 1]), ("bear", "mug", "fox"))
    with pytest.raises(DataError, match="class fox: expected one picture or more"):
        next(tune(vit, hole))
    nameless = LabelledImages(task.images[:4], np.array([0, 0, 1, 1]), ("bear", "_"))
    with pytest.raises(DataError, match="token"):
        next(tune(vit, nameless))


def test_the_rate_follows_from_how_far_the_steps_shall_reach(vit, task) -> None:
    last = list(tune(vit, task, config=replace(QUICK, lr=8e-5, reach=2.0)))[-1]
    lr = last.edit.provenance["config"]["lr"]
    assert step_budget(replace(QUICK, lr=lr), len(task)) == pytest.approx(2)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("reach", 1.0),
        ("dropout", 1.5),
        ("epochs", 0),
        ("threshold", 0.01),
        ("temperature", 0.0),
        ("lr", -1.0),
        ("steps", 0),
        ("batch", 0),
    ],
)
def test_settings_that_make_no_sense_are_refused(vit, task, field: str, value) -> None:
    with pytest.raises(DataError, match=field):
        next(tune(vit, task, config=replace(MaskTuningConfig(), **{field: value})))
