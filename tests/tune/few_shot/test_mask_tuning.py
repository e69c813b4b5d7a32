"""Mask tuning on tiny dual encoders: what is learnt, taken away, resumed, stacked, refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from photopic.core.edits import Edit, SparseWeights, ZeroedWeights
from photopic.core.edits import file as edit_file
from photopic.core.errors import DataError
from photopic.data.emoji_tasks import emoji_task
from photopic.data.few_shot import FewShotTask, LabelledImages
from photopic.learning.classifiers import TextClassifier
from photopic.learning.parameters.binary_mask import maskable, packed_bits
from photopic.measure.base_to_new import BaseToNew, base_to_new
from photopic.tune.few_shot.mask_tuning import MaskTuningConfig, mask_tuning, step_budget
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


def tune_mask(model, data: LabelledImages, *, config: MaskTuningConfig = QUICK, **options) -> TextClassifier:
    """The classifier that a mask makes."""
    edit = mask_tuning(model, FewShotTask(data), config=config, **options)
    rows = options.get("class_embeddings")
    return TextClassifier(model, model.class_features(data.names) if rows is None else F.normalize(rows, dim=-1), edit)


def events_of(model, data: LabelledImages, config: MaskTuningConfig = QUICK):
    return mask_tuning.events(model, FewShotTask(data), config=config)


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


def test_the_loss_falls_and_the_events_say_so(vit, task) -> None:
    config = replace(QUICK, steps=30, lr=5e-4, dropout=0.0, augment=False, batch=16)
    events = list(events_of(vit, task, config))
    losses = [event.numbers["loss"] for event in events if event.numbers]
    assert len(losses) == 30
    assert min(losses[-5:]) < losses[0] - 0.01
    assert events[0].stage == "preparing"
    assert (
        events[-1].result.provenance["share_masked"]
        == [each for each in events if each.numbers][-1].numbers["share"]
        > 0
    )
    assert all(0 <= event.numbers["accuracy"] <= 1 for event in events if event.numbers)


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
        if step_budget(config, len(task), lr) < 0.5:  # Adam's step is at most about the rate
            with pytest.raises(DataError, match="no weight was switched off; raise the learning rate"):
                mask_tuning(vit, FewShotTask(task), config=config)
            shares.append(0.0)
        else:
            shares.append(mask_tuning(vit, FewShotTask(task), config=config).provenance["share_masked"])
    assert shares[0] == 0 < shares[-1]
    assert shares == sorted(shares)


def test_a_rate_under_which_nothing_can_flip_is_raised_with_a_word(vit, task) -> None:
    config = replace(QUICK, lr=8e-5)
    first = next(events_of(vit, task, config))
    assert "no weight could be switched off; using lr" in first.warning
    assert tune_mask(vit, task, config=config).edit is not None
    assert not next(events_of(vit, task)).warning
    with pytest.raises(DataError, match=r"8e-05 moves a mask entry at most .* use lr"):
        next(events_of(vit, task, replace(config, budget="refuse")))
    raised = float(first.warning.rsplit(" ", 1)[1])
    assert 4.9 <= step_budget(config, len(task), raised) <= 20


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
    given = tune_mask(vit, task, config=QUICK, class_embeddings=3 * rows)
    torch.testing.assert_close(given.class_embeddings, rows)
    assert positions(given.edit) != positions(tune_mask(vit, task, config=QUICK).edit)
    nameless = replace(task, names=("\u200b", "a", "b", "c"))
    tune_mask(vit, nameless, config=replace(QUICK, steps=1), class_embeddings=rows)  # names are not read
    with pytest.raises(DataError, match="one row for each of the 4 classes, found shape"):
        tune_mask(vit, task, config=QUICK, class_embeddings=rows[:3])


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
        next(events_of(vit, one))
    hole = LabelledImages(task.images[:4], np.array([0, 0, 1, 1]), ("bear", "mug", "fox"))
    with pytest.raises(DataError, match="class fox: expected one picture or more"):
        next(events_of(vit, hole))
    nameless = LabelledImages(task.images[:4], np.array([0, 0, 1, 1]), ("bear", "_"))
    with pytest.raises(DataError, match="token"):
        next(events_of(vit, nameless))


def test_the_rate_follows_from_how_far_the_steps_shall_reach(vit, task) -> None:
    lr = mask_tuning(vit, FewShotTask(task), config=replace(QUICK, lr=None, reach=2.0)).provenance["lr"]
    assert step_budget(QUICK, len(task), lr) == pytest.approx(2)


@pytest.mark.parametrize(("field", "value"), [("reach", 1.0), ("threshold", 0.01)])
def test_settings_that_make_no_sense_are_refused(field: str, value: float) -> None:
    with pytest.raises(DataError, match=field):
        MaskTuningConfig(**{field: value})
