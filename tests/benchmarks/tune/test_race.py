"""The race's rules, its judgement of several subjects, and its own claims about fairness, on numbers and a tiny real pipeline."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.harness.cache import NotMeasured
from benchmarks.harness.subjects import EIGHT
from benchmarks.tune.race import applying, composing, own_methods, page, peers, plan, presence, rows
from benchmarks.tune.race import run as run_race
from benchmarks.tune.race.composing import Grouped
from benchmarks.tune.race.making import ways_of
from benchmarks.tune.race.plan import PEERS, SEARCH, TEST, TUNING_ON, VALUES, RaceConfig, Tried, boxes, chosen, groups
from benchmarks.tune.race.presence import Judged, inside, judge
from benchmarks.tune.race.subject_case import Given
from photopic.core.edits import ZeroedWeights
from photopic.core.edits import file as edit_file
from photopic.data import splits
from photopic.learning.losses.denoising import ConceptLoss, encode_examples
from photopic.locate.concept_neurons import LONG, ConceptNeuronsConfig, concept_neurons
from photopic.metrics.recognition import Recognised
from photopic.models.text_to_image.handle import TextToImage
from photopic.tune.subject.located_weights import LocatedWeightsConfig
from tests.tiny import IMAGE_SIZE, tiny_pipeline

from benchmarks.harness.ledger import Row  # isort: skip


@pytest.fixture
def model() -> TextToImage:
    return TextToImage(tiny_pipeline(), "tiny")


@pytest.fixture
def given() -> Given:
    images = torch.rand(2, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return Given("panda", "<panda>", "bear", images, ("a <panda> bear on a red background", "a <panda> bear"))


def test_the_rule_takes_the_most_similar_within_the_bound_and_the_least_drift_where_none_is() -> None:
    tried = [Tried(1e-4, 60, 0.5, 0.02), Tried(1e-3, 60, 0.7, 0.09), Tried(1e-2, 60, 0.9, 0.3)]
    assert chosen(tried, bound=0.1).rate == 1e-3
    assert chosen(tried, bound=0.01).rate == 1e-4
    even = [Tried(1e-3, 120, 0.7, 0.05), Tried(1e-3, 60, 0.7, 0.05)]
    assert chosen(even).steps == 60  # of two equal ones the cheaper


def test_tuning_subjects_are_not_in_the_test_and_follow_from_the_table() -> None:
    assert not set(TUNING_ON) & set(EIGHT) and set(TEST) <= set(EIGHT)
    left = [name for name in splits.SUBJECTS if name not in EIGHT]
    first = left[0]
    second = next(name for name in left if splits.SUBJECTS[name] != splits.SUBJECTS[first])
    assert (first, second) == TUNING_ON


def test_every_method_is_tried_at_its_documented_rate_and_ten_times_it_and_the_search_at_its_default_alone() -> None:
    methods = [*PEERS, VALUES]
    assert all(len(method.rates) == 2 for method in methods)
    assert all(method.rates[1] == pytest.approx(10 * method.rates[0]) for method in methods)
    assert all(method.source for method in (*methods, SEARCH))
    assert not SEARCH.rates
    assert VALUES.rates[0] == LocatedWeightsConfig().lr


def test_groups_repeat_nothing_mix_no_noun_and_use_subjects_evenly() -> None:
    settings = RaceConfig()
    for size, (most, count) in settings.groups.items():
        found = groups(settings.test, size, most)
        assert len({frozenset(group) for group in found}) == len(found) == most
        assert all(len({splits.SUBJECTS[name] for name in group}) == size for group in found)
        used = Counter(name for group in found for name in group)
        assert max(used.values()) - min(used[name] for name in settings.test) <= 1
        assert all(len(set(plan.group_prompts(group, count))) == min(count, 12) for group in found)
    pairs, pictures = settings.groups[2]
    assert pairs >= 10 and pairs * pictures >= 256


def test_every_subject_has_a_token_of_its_own_that_its_prompt_names() -> None:
    tokens = {plan.token(name) for name in splits.SUBJECTS}
    assert len(tokens) == len(splits.SUBJECTS) and not any(" " in token for token in tokens)
    (prompt,) = plan.group_prompts(("panda", "fire engine", "violin"), 1)
    assert prompt == "a <panda> bear, a <fire-engine> bus and a <violin> guitar on a red background"


def test_boxes_lie_in_the_picture_and_apart() -> None:
    for count in (2, 3, 4):
        places = boxes(count)
        assert all(0 <= left < right <= 1 and 0 <= top < bottom <= 1 for left, top, right, bottom in places)
        for a, b in combinations(places, 2):
            assert min(a[2], b[2]) <= max(a[0], b[0]) or min(a[3], b[3]) <= max(a[1], b[1])
            assert not (inside(a, 0.0) & inside(b, 0.0)).any()


def _seen(*peaks: tuple[int, int]) -> Recognised:
    """One picture; each subject's map is 0 but for its peak, and only the peaks are given to anybody, the last word wins."""
    maps = np.zeros((len(peaks), 1, 8, 8))
    taken = np.full((1, 8, 8), -1)
    for index, place in enumerate(peaks):
        maps[(index, 0, *place)] = 0.9
        taken[(0, *place)] = index
    there = np.array([[taken[(0, *place)] == index] for index, place in enumerate(peaks)])
    return Recognised(maps, taken, np.array([[place] for place in peaks]), there)


def test_two_subjects_in_one_place_are_not_two() -> None:
    places = boxes(2)
    apart = judge(_seen((4, 1), (4, 6)), places)
    assert apart.present.all() and apart.obeyed == 1 and apart.leaked == 0 and apart.similarity == pytest.approx(0.9)
    near = judge(_seen((4, 1), (4, 2)), places)
    assert near.subjects.all() and not near.present.any()
    same = judge(_seen((4, 1), (4, 1)), places)
    assert not same.present.any() and list(same.subjects[0]) == [False, True]


def test_a_subject_in_the_others_box_has_leaked_and_disobeyed() -> None:
    swapped = judge(_seen((4, 6), (4, 1)), boxes(2))
    assert swapped.present.all() and swapped.leaked == 1 and swapped.obeyed == 0


def test_a_search_is_what_locate_gives_at_its_density_and_steps(
    model: TextToImage, given: Given, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"batch": 2, "evaluation": 0, "preservation_count": 2}
    found = []
    for steps, density in ((2, 0.05), (2, 0.2), (1, 0.2)):
        folder = tmp_path / str(density)
        *_, last = own_methods.search(model, given, folder, steps=steps, batch=2, preservation=2, density=density)
        assert last == steps
        config = ConceptNeuronsConfig(
            steps=steps, density=density, binary=True, lr=LONG.lr, betas=LONG.betas, **options
        )
        alone = concept_neurons(model, given.pictures, noun="bear", token="<panda>", config=config)
        kept = edit_file.load(folder / str(steps) / own_methods.EDIT)
        (one,), (other,) = ([part for part in edit.parts if isinstance(part, ZeroedWeights)] for edit in (alone, kept))
        assert one.indices.keys() == other.indices.keys()
        assert all(torch.equal(one.indices[name], other.indices[name]) for name in one.indices)
        assert json.loads((folder / str(steps) / "facts.json").read_text())["seconds"] > 0
        found.append(sum(map(len, one.indices.values())))
    assert found[0] * 3 < found[1] == found[2]


def test_a_stopped_run_gives_the_rows_of_what_was_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only two ways of composing are there: their rows and no comparison with the missing ones."""
    rng = np.random.default_rng(0)

    def grouped() -> Grouped:
        numbers = rng.random((5, 4))
        judged = Judged(numbers[0] > 0.5, numbers[:2].T > 0.5, numbers[2], numbers[3], numbers[4])
        return Grouped(judged, rng.random(3))

    def missing(*_: object) -> None:
        raise NotMeasured

    monkeypatch.setattr(composing, "real", missing)
    monkeypatch.setattr(composing, "setting_of", lambda race, kind: (1.0, None) if "lora" in kind else "regions")
    race: Any = SimpleNamespace(config=plan.QUICK)
    found = {kind: [grouped(), grouped()] for kind in ("edits_layout", "lora_cat")}
    claims = {row.claim: row for row in rows._of_size("two", found, race, 2)}
    assert {"compose.two_present", "compose.two_vs_lora_cat", "compose.two.drift.lora_cat"} <= claims.keys()
    assert claims["compose.two_present"].baseline is None and claims["compose.two_present"].control is None
    assert not [
        claim for claim in claims if "ties" in claim or "linear" in claim or "real" in claim or "drift_vs" in claim
    ]
    text = page.page(claims | {"race.similarity.base": Row("race.similarity.base", 0.4)})
    assert "LoRA, cat" in text and "LoRA, TIES" not in text


def test_everything_is_worked_on_once_pairs_first_and_what_is_drawn_with_the_same_trainings_by_one_worker() -> None:
    found = run_race.works(RaceConfig())
    assert len(found) == len(set(found))
    kinds = [work.what for work in found]
    assert kinds[0] == "peaks" and len(found[1].names) == 2 and kinds.index("group") < kinds.index("single")
    assert {work.kind for work in found if work.what == "group"} == set(composing.KINDS)
    assert {work.way for work in found if work.what == "single"} == {None, *ways_of(RaceConfig())}
    assert [work.way.method for work in found if work.way][-1] == run_race.LAST
    sides = {work.side for work in found if work.kind in composing.KINDS or (work.way and work.way.method == "lora4")}
    assert sides == {"lora", "edits"} and found[0].side == "lora"


@pytest.mark.parametrize("name", ["dreambooth", "custom_diffusion", "textual_inversion", "lora4", "shira", "ia3"])
@pytest.mark.filterwarnings("ignore")  # of peft and diffusers
def test_a_peer_starts_at_the_base_learns_and_leaves_the_model_as_it_was(
    name: str, model: TextToImage, given: Given, tmp_path: Path
) -> None:
    base, before = model.edits.fingerprint(), {n: t.clone() for n, t in applying.state(model).items()}
    with model.edits.applied(given.row_edit(model, base)):
        concept = encode_examples(model, given.images, list(given.captions))
    prior = encode_examples(model, given.images, ["a cat", "a dog"])
    loss = ConceptLoss(model, concept, concept, None if name == "textual_inversion" else prior, batch=2)
    start = loss.step(0, {}).total
    peer = peers.learner(name, model, given, base, loss)
    torch.testing.assert_close(peer.loss(0), start)  # the same loss of the same base for every method
    optimizer = torch.optim.Adam(peer.parameters, lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        peer.loss(0).backward()
        optimizer.step()
    assert peer.loss(0) < start
    peer.save(tmp_path)
    peer.close()
    assert applying.share_equal(model, before) == 1.0
    assert not model.edits.names()
    assert all(not parameter.requires_grad for parameter in model.unet.parameters())
    assert torch.equal(loss.step(0, {}).total, start)
    assert list(tmp_path.glob("*.safetensors"))


def test_share_equal_counts_changed_bits(model: TextToImage) -> None:
    before = {name: tensor.clone() for name, tensor in applying.state(model).items()}
    weight = model.unet.conv_in.bias
    weight[0] += 1
    total = sum(tensor.numel() for tensor in before.values())
    assert applying.share_equal(model, before) == pytest.approx(1 - 1 / total, abs=1e-12)


def test_the_front_drops_what_is_larger_and_no_better_and_the_page_needs_no_number_that_is_missing() -> None:
    given_rows = [
        Row("race.similarity.base", 0.4), Row("race.similarity.lora4", 0.7), Row("race.bytes.lora4", 150_000),
        Row("race.similarity.neurons_1pc", 0.6), Row("race.bytes.neurons_1pc", 4_000),
        Row("race.similarity.shira", 0.5), Row("race.bytes.shira", 600_000),
        Row("race.bytes_vs_lora4", None, target="<= 0.1", note="none"),
    ]  # fmt: skip
    found = {row.claim: row for row in given_rows}
    assert [name for name, *_ in page.front(page.points(found))] == ["neurons_1pc", "lora4"]
    assert "LoRA r=4" in page.page(found) and "150,000" in page.page(found)
    assert page.picture(page.points(found)).count("<circle") == 3


def test_real_scenes_hold_each_subject_in_its_half_and_differ() -> None:
    images = presence.real_scenes(("panda", "violin"), [presence.KNOWN_STYLES, (presence.HELD_OUT_STYLE,)], 3, seed=0)
    assert images.shape == (3, 64, 64, 3)
    drawn = (images != images[:, :1, :1]).any(3)  # a flat background
    assert not drawn[:, :, 31:33].any()
    assert (drawn[:, :, :31].mean((1, 2)) > 0.1).all() and (drawn[:, :, 33:].mean((1, 2)) > 0.02).all()
    assert len({each.tobytes() for each in drawn}) == 3  # moved and resized, not only on other ground
