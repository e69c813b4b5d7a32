"""The network behind its handle: context group, padding, flips and turns, the folder, what it refuses; and the bundled one."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import photopic
from photopic.core.errors import ModelError
from photopic.data.skeleton_pairs import emoji_pairs, noisy_boundary
from photopic.data.skeletons import prune, thin
from photopic.metrics.skeleton import skeleton_f1
from photopic.models.files import BUNDLED
from photopic.models.skeleton_network import TURNS, SkeletonNetwork, _turned, network_inputs
from photopic.models.skeleton_unet import ContextGroup, SkeletonUNet

ROOT = Path(__file__).parents[2]


def tiny(inputs: int = 2) -> SkeletonNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SkeletonNetwork(SkeletonUNet(inputs, (4, 8, 8), (1, 2)), 0.3, "tiny")


def shapes(count: int = 2, side: int = 20) -> np.ndarray:
    grown = np.zeros((count, side, side), bool)
    grown[:, 3:15, 5:12] = grown[0, 8:11, 2:19] = True
    return grown


def test_with_zero_logits_the_context_group_adds_the_mean_of_its_branches() -> None:
    group = ContextGroup(6, (1, 2, 4)).eval()
    with torch.no_grad():
        group.attention.weight.zero_(), group.attention.bias.zero_()
        x = torch.randn(2, 6, 9, 9)
        mean = torch.stack([branch(x) for branch in group.branches]).mean(0)
        assert torch.allclose(group(x), x + mean, atol=1e-6)
        group.attention.bias[1] = 50.0  # all weight on one
        assert torch.allclose(group(x), x + group.branches[1](x), atol=1e-6)


def test_a_side_that_is_no_multiple_is_padded_by_what_is_outside() -> None:
    model, odd = tiny(), shapes()[:, :18, :19]
    padded = np.pad(odd, ((0, 0), (0, 2), (0, 1)))
    assert np.abs(model.probability(odd) - model.probability(padded)[:, :18, :19]).max() < 1e-6


def test_outside_the_shape_is_zero() -> None:
    found = tiny().probability(shapes())
    assert not found[~shapes()].any() and found[shapes()].all()


@pytest.mark.parametrize("way", TURNS)
def test_the_mean_over_flips_and_turns_commutes_with_them(way: tuple[int, bool]) -> None:
    model = tiny(inputs=1)
    moved = model.probability(_turned(shapes(), *way), turned=True)
    assert np.abs(moved - _turned(model.probability(shapes(), turned=True), *way)).max() < 1e-6
    if way != (0, False):  # and without the mean it does not
        assert (
            np.abs(model.probability(_turned(shapes(), *way)) - _turned(model.probability(shapes()), *way)).max() > 1e-4
        )


def test_the_folder_loads_again(tmp_path: Path) -> None:
    model = tiny()
    model.save(tmp_path)
    again = photopic.load(str(tmp_path))
    assert isinstance(again, SkeletonNetwork) and again.digest() == model.digest() and again.threshold == 0.3
    assert np.array_equal(again.probability(shapes()), model.probability(shapes()))


def test_a_damaged_folder_is_refused(tmp_path: Path) -> None:
    tiny().save(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="a skeleton network"):
        SkeletonNetwork.load(str(tmp_path))


def test_half_precision_is_read_as_single(tmp_path: Path) -> None:
    model = tiny()
    model.network.half()
    model.save(tmp_path)
    assert SkeletonNetwork.load(str(tmp_path)).dtype == torch.float32


def test_the_bundled_network_is_that_of_the_card_and_beats_thinning_and_pruning() -> None:
    card = json.loads((ROOT / "recipes/emoji-skeleton/card.json").read_text())
    content = (BUNDLED / "emoji-skeleton" / "model.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() == card["sha256"] and len(content) == card["bytes"] <= 1_000_000
    data, model = emoji_pairs(48, split="held_out"), SkeletonNetwork.load("emoji-skeleton", "cpu")
    noisy = np.stack([noisy_boundary(each, 0.05, np.random.default_rng(3)) for each in data.shapes])
    ours = np.stack([thin(each > model.threshold) for each in model.probability(noisy)])
    theirs = np.stack([prune(thin(each), each) for each in noisy])
    assert skeleton_f1(ours, data.skeletons, 1).mean() > skeleton_f1(theirs, data.skeletons, 1).mean() + 0.1


def test_distances_are_over_the_largest_of_their_own_picture() -> None:
    both = np.zeros((2, 20, 20), bool)
    both[0, 2:18, 2:18] = both[1, 2:5, 2:5] = True
    found = network_inputs(both, 2)
    assert found[:, 1].amax((1, 2)).tolist() == [1.0, 1.0] and found[1, 1, 2, 2] == 0.5  # one of two pixels
