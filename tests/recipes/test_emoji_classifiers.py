"""The recipe of the classifiers: nothing held out is seen, both seeds start alike, an interrupted run ends the same."""

import hashlib
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from photopic.core.runs import Run
from photopic.data import emoji_world, renderings
from tests.recipes.conftest import assert_goes_on


@pytest.fixture
def recipe(open_recipe, monkeypatch):
    open_recipe("emoji-classifiers")
    few = renderings.training_pairs()[::60]
    monkeypatch.setattr(renderings, "training_pairs", lambda: few)
    import train

    return train


def test_no_held_out_concept_and_no_held_out_style_is_learnt():
    pairs = renderings.training_pairs()
    assert all(emoji_world.concept(name).split != "held_out" for name in renderings.classes())
    assert {style for _, style in pairs} == set(emoji_world.TRAINING_STYLES)
    assert set(pairs).isdisjoint(renderings.held_out_pairs())
    assert set(pairs) | set(renderings.held_out_pairs()) == {
        (name, style) for name in renderings.classes() for style in emoji_world.TRAINING_STYLES
    }


def test_the_split_of_the_renderings_is_the_one_the_models_were_trained_with():
    held_out = renderings.held_out_pairs()
    assert len(renderings.classes()) == 1264 and len(held_out) == 725
    assert hashlib.sha256(json.dumps(held_out).encode()).hexdigest().startswith("34c68184f086ac5f")
    seen = Counter(name for name, _ in renderings.training_pairs())
    assert set(seen) == set(renderings.classes()) and min(seen.values()) >= 3


def test_a_picture_is_the_sprite_on_its_background():
    picture = renderings.pictures([("bear", "noto")], background=(0, 255, 0))[0]
    assert picture.shape == (64, 64, 3)
    rows, columns = np.nonzero((picture != (0, 255, 0)).any(2))
    assert 4 <= rows.min() < 12 and 52 < rows.max() < 60 and 4 <= columns.min() < 12 and 52 < columns.max() < 60
    with pytest.raises(KeyError, match="no concept is named"):
        renderings.pictures([("bearr", "noto")])


def test_an_interrupted_run_ends_with_the_same_weights(recipe, tmp_path):
    config = replace(recipe.config_of("resnet-64", 0), steps=4, batch=8, warmup=1)
    assert_goes_on(recipe.train, config, tmp_path, steps=3)  # the last checkpoint is of the second


def test_both_seeds_start_alike_and_see_other_pictures(recipe):
    import pictures

    networks = [recipe.prepare(recipe.config_of("vit-64", seed))[0] for seed in (0, 1)]
    states = [network.state_dict() for network in networks]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    first, second = (pictures.Painter(seed).batch(0, 8, 0.0) for seed in (0, 1))
    assert not torch.equal(first[0], second[0]) and not torch.equal(first[1], second[1])


def test_other_initial_weights_are_refused(recipe, monkeypatch):
    import networks

    monkeypatch.setattr(networks, "INITIAL_SEED", 1)
    with pytest.raises(RuntimeError, match="vit-64: expected the initial weights"):
        networks.build("vit-64")


def test_a_step_draws_the_same_batch_whenever_it_is_asked(recipe):
    import pictures

    painter, late = pictures.Painter(0), pictures.Painter(0)
    epoch = len(painter.labels) // 8
    batches = [painter.batch(step, 8, 1.0) for step in range(epoch + 1)]
    images, labels = late.batch(epoch, 8, 1.0)
    assert torch.equal(images, batches[epoch][0]) and torch.equal(labels, batches[epoch][1])
    assert images.shape == (8, 3, 32, 32) and -3 <= images.min() < images.max() <= 1
    assert not torch.equal(batches[0][1], labels)


def test_without_augmentation_a_training_picture_is_the_sprite_on_white(recipe):
    import pictures

    painter = pictures.Painter(0)
    images, labels = painter.batch(0, 8, 0.0)
    order = painter.order[1][:8]
    assert torch.equal(labels, painter.labels[order])
    pairs = [renderings.training_pairs()[i] for i in order]
    plain = torch.from_numpy(renderings.pictures(pairs, size=32)).permute(0, 3, 1, 2) / 255
    apart = (images * 0.25 + 0.75 - plain).abs().mean()  # it is zoomed a little
    assert apart < 0.5 * (images * 0.25 + 0.75 - plain.roll(1, 0)).abs().mean()
    strong = painter.batch(0, 8, 1.0)[0]
    assert (strong - images).abs().flatten(1).mean(1).min() > 0.1


@pytest.mark.parametrize(
    ("name", "harmless"),
    [("bear", True), ("avocado", True), ("right arrow", False), ("three o’clock", False), ("full moon", False)],
)
def test_only_what_has_no_direction_is_mirrored(recipe, name, harmless):
    import pictures

    assert pictures.may_mirror(name) is harmless


def test_an_exported_folder_holds_the_trained_network(recipe, tmp_path):
    from photopic.models.classifier import Classifier

    config = replace(recipe.config_of("vit-64", 0), steps=1, batch=8, warmup=0)
    run = Run(tmp_path / "run", config)
    list(recipe.train(config, run))
    recipe.export(config, run, tmp_path / "emoji-vit-64-0")
    model = Classifier.load(tmp_path / "emoji-vit-64-0")
    assert model.labels == renderings.classes() and model.head.in_features == 64
    trained = recipe.trained(run, "model.")[0]["classifier.weight"]
    assert torch.equal(model.head.weight, trained.half().float())
