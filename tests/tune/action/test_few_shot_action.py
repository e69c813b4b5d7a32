"""Few-shot action recognition: exact limits, the right thing learnt and kept, training that goes on exactly where it stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from photopic.core.errors import DataError, ModelError
from photopic.core.runs import Run
from photopic.data.clips import ActionTask, Clips
from photopic.data.episodes import draw_episodes
from photopic.data.sprite_videos import SpriteVideos, actions, sprite_clips
from photopic.models.video_tower import TemporalTransformer
from photopic.tune.action._episodes import distances, fused, prototypes, score, text_logits
from photopic.tune.action._learner import rate
from photopic.tune.action.few_shot_action import ActionRecogniser, FewShotActionConfig, VideoBank, few_shot_action
from tests.tiny_encoders import tiny_dual_encoder

QUICK = FewShotActionConfig(
    steps=4, hidden=16, episodes=2, queries=2, validate_every=2, validation_episodes=10, way=3, lr=1e-2
)
WIDTH = 16


def clips(split: str, classes: int, each: int = 3) -> Clips:
    chosen = actions(split)[: 2 * classes : 2]
    return sprite_clips(split, each, chosen=chosen, config=SpriteVideos(frames=3, size=32))


@pytest.fixture(scope="module")
def data() -> tuple[Clips, Clips]:
    return clips("train", 4), clips("validation", 3)


def transformer(seed: int = 0) -> TemporalTransformer:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TemporalTransformer(WIDTH, hidden=32).eval()


class Untouched(TemporalTransformer):
    """In the transformer's place: frames as they are."""

    def forward(self, frames: Tensor, text: Tensor | None = None) -> Tensor:
        return frames


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# -- exact


def test_one_frame_is_a_cosine_classifier() -> None:
    queries, classes = 50 * rand(6, 1, WIDTH), 50 * rand(4, 1, WIDTH, seed=1)
    cosine = nn.functional.cosine_similarity(queries, classes[:, 0], dim=-1)  # (6, 4)
    torch.testing.assert_close(distances(queries, classes), 2 * (1 - cosine), atol=1e-4, rtol=0)


def test_as_many_equal_clips_are_one_clip() -> None:
    temporal, one, text = transformer(), rand(4, 1, 8, WIDTH), rand(4, WIDTH, seed=2)
    many = one.expand(4, 5, 8, WIDTH)
    for merge in ("before", "after"):
        torch.testing.assert_close(prototypes(temporal, many, text, merge), prototypes(temporal, one, text, merge))  # type: ignore[arg-type]
    different = rand(4, 5, 8, WIDTH, seed=3)
    before, after = (prototypes(temporal, different, text, merge) for merge in ("before", "after"))  # type: ignore[arg-type]
    assert not torch.allclose(before, after, atol=1e-3)


def test_the_name_reaches_the_prototype_only_with_modulation() -> None:
    temporal, support = transformer(), rand(4, 2, 8, WIDTH)
    a, b = (prototypes(temporal, support, rand(4, WIDTH, seed=seed)) for seed in (1, 2))
    assert not torch.allclose(a, b, atol=1e-3)
    assert torch.equal(prototypes(temporal, support, None), prototypes(temporal, support, None))


def test_fusion_is_few_shot_at_0_and_names_alone_at_1() -> None:
    zero, few = rand(20, 5), rand(20, 5, seed=1)
    torch.testing.assert_close(fused(zero, few, 8, 0.0), (-few / 8).softmax(-1))
    torch.testing.assert_close(fused(zero, few, 8, 1.0), zero.softmax(-1))
    half = (zero.softmax(-1) * (-few / 8).softmax(-1)).sqrt()
    torch.testing.assert_close(fused(zero, few, 8, 0.5), half / half.sum(-1, keepdim=True))
    with pytest.raises(DataError, match="beta: expected 0 to 1, found 2"):
        fused(zero, few, 8, 2.0)


def reversal_bank(seed: int = 0) -> VideoBank:
    """Clips that go through eight places, and the same clips backwards as the second class."""
    places = 3 * rand(8, WIDTH, seed=seed)
    there = places + 0.8 * rand(10, 8, WIDTH, seed=seed + 1)
    labels = np.repeat([0, 1], 10)
    return VideoBank(torch.cat([there, there.flip(1)]), labels, ("there", "back"), rand(2, WIDTH))


def test_reversal_pairs_are_apart_for_ordered_alignment_and_never_for_the_mean() -> None:
    """Every query also comes backwards; the mean names both alike, so one of two is wrong."""
    for seed, temporal in enumerate((Untouched(WIDTH), transformer())):
        bank = reversal_bank(seed)
        support, queries = bank.features[[0, 11]], bank.features[[2, 3, 4, 12, 13, 14]]  # none is another backwards
        truth = torch.tensor([0, 0, 0, 1, 1, 1])
        named = prototypes(temporal, support[:, None], None)  # type: ignore[arg-type]
        hits = {
            matcher: (distances(temporal(queries), named, matcher).argmin(-1) == truth).float().mean().item()  # type: ignore[arg-type]
            for matcher in ("otam", "mean")
        }
        assert hits["mean"] == 0.5
        assert hits["otam"] == 1.0


def test_what_stays_the_same_in_a_clip_drowns_its_order_unless_it_is_taken_off() -> None:
    right = {0.0: 0.0, 1.0: 0.0}
    for seed in range(20):
        bank = reversal_bank(seed)
        still = 30 * rand(len(bank.features), 1, WIDTH, seed=900 + seed)  # another for every clip
        clips = bank.features + still
        for motion in right:
            found = distances(clips[[2, 12]], clips[[0, 11]], motion=motion).argmin(-1)
            right[motion] += (found == torch.tensor([0, 1])).float().mean().item() / 20
    assert right[0.0] < 0.7 < 0.95 < right[1.0]


def test_shuffled_names_are_all_wrong() -> None:
    bank = VideoBank(rand(9, 2, WIDTH), np.arange(9), tuple("abcdefghi"), rand(9, WIDTH))
    for seed in range(5):
        other = bank.shuffled(seed)
        assert sorted(other.text[:, 0].tolist()) == sorted(bank.text[:, 0].tolist())
        assert not bool((other.text == bank.text).all(-1).any())
    assert torch.equal(bank.shuffled(1).text, bank.shuffled(1).text)


def test_scores_do_not_depend_on_how_many_episodes_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    bank = VideoBank(rand(30, 4, WIDTH), np.repeat(np.arange(6), 5), tuple("abcdef"), rand(6, WIDTH))
    drawn = draw_episodes(bank.labels, bank.names, episodes=7, shots=2)
    whole = score(bank, drawn, transformer())
    monkeypatch.setattr("photopic.tune.action._episodes.TOGETHER", 2)
    parts = score(bank, drawn, transformer())
    assert (whole.few_shot == parts.few_shot).all() and (whole.fused == parts.fused).all()
    value, low, high = whole.interval()
    assert high - value == pytest.approx(1.96 * whole.few_shot.std(ddof=1) / 7**0.5) and low < value


def test_names_alone_need_no_clip() -> None:
    frames, text = rand(3, 8, WIDTH), rand(5, WIDTH, seed=1)
    cosine = nn.functional.cosine_similarity(frames.mean(1)[:, None], text[None], dim=-1)
    torch.testing.assert_close(text_logits(frames, text, 7.0), 7 * cosine)


# -- training


def planted(classes: int, seed: int) -> VideoBank:
    """One of two things in a clip is the class."""
    rng = np.random.default_rng(seed)
    things = torch.from_numpy(rng.standard_normal((classes, WIDTH))).float()
    labels = np.repeat(np.arange(classes), 8)
    other = (labels + rng.integers(1, classes, len(labels))) % classes
    noise = torch.from_numpy(rng.standard_normal((len(labels), 4, WIDTH))).float()
    features = 2 * (things[labels] + 1.2 * things[other])[:, None] + 0.5 * noise
    return VideoBank(features, labels, tuple(f"{seed} {number}" for number in range(classes)), 2 * things)


def test_training_lowers_the_loss() -> None:
    config = replace(QUICK, steps=60, queries=3, video_text=0.0, validate_every=60, motion=0.0)
    events = few_shot_action.events(tiny_dual_encoder(), ActionTask(planted(5, 1), planted(4, 2)), config=config)
    losses = [event.numbers["loss"] for event in events if event.numbers]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def finished(model: Any, data: tuple[Any, Any], config: FewShotActionConfig) -> ActionRecogniser:
    return few_shot_action(model, ActionTask(*data), config=config)


def test_training_a_tower_goes_on_exactly_where_it_stopped(tmp_path: Path, data: tuple[Clips, Clips]) -> None:
    """That it does with a frozen one is the contract's."""
    model, config, task = (
        tiny_dual_encoder(),
        replace(QUICK, tower="tuned", steps=27, validate_every=9),
        ActionTask(*data),
    )
    before = model.digest()
    whole = finished(model, data, config)
    for event in few_shot_action.events(model, task, config=config, run=Run(tmp_path)):
        if event.stage == "learning" and event.done == 26:  # the last checkpoint is after step 25
            break
    resumed = few_shot_action(model, task, config=config, run=Run(tmp_path))
    for name, value in whole.temporal.state_dict().items():
        assert torch.equal(value, resumed.temporal.state_dict()[name]), name
    assert whole.gamma == resumed.gamma != 1.0 and model.digest() == before
    assert whole.edit is not None and resumed.edit is not None
    deltas, others = (each.edit.parts[0].deltas for each in (whole, resumed))  # type: ignore[union-attr]
    assert deltas.keys() == others.keys() and all(torch.equal(deltas[name], others[name]) for name in deltas)
    assert all("vision_model" in name or "visual_projection" in name for name in deltas)


@pytest.mark.parametrize("tower", ["frozen", "tuned"])
def test_saved_and_loaded_it_names_alike(tmp_path: Path, data: tuple[Clips, Clips], tower: str) -> None:
    model = tiny_dual_encoder()
    made = finished(model, data, replace(QUICK, tower=tower))
    made.save(tmp_path / "out")
    assert (tmp_path / "out" / "tower.edit").exists() == (tower == "tuned")
    read = ActionRecogniser.load(tmp_path / "out", model)
    a, b = (each.name(data[1], data[1].videos[:4]) for each in (made, read))
    assert torch.equal(a.fused, b.fused) and torch.equal(a.few_shot, b.few_shot)
    torch.testing.assert_close(a.fused.sum(1), torch.ones(4))
    torch.testing.assert_close(made.name_zero_shot(data[1].videos[:4], data[1].names), a.zero_shot)
    assert read.trainable == made.trainable and read.how == made.how
    with pytest.raises(ModelError, match=r"made for base tiny-vit \(.*\), but this model is tiny-vit"):
        ActionRecogniser.load(tmp_path / "out", tiny_dual_encoder(seed=1))
    with pytest.raises(ModelError, match="found nothing; check the folder"):
        ActionRecogniser.load(tmp_path, model)
    (tmp_path / "out" / "action.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match="expected a classifier that photopic tune wrote"):
        ActionRecogniser.load(tmp_path / "out", model)


def test_the_state_that_is_kept_is_the_best_on_validation_classes(
    data: tuple[Clips, Clips], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, values = tiny_dual_encoder(), iter([0.4, 0.9, 0.3])
    states: list[dict[str, Tensor]] = []
    evaluate = ActionRecogniser.evaluate

    def scored(self: ActionRecogniser, bank: VideoBank, **options: object) -> object:
        assert bank.names == data[1].names  # never anything but validation classes
        states.append({name: value.clone() for name, value in self.temporal.state_dict().items()})
        return replace(evaluate(self, bank, **options), few_shot=np.full(10, next(values)))  # type: ignore[arg-type]

    monkeypatch.setattr(ActionRecogniser, "evaluate", scored)
    made = finished(model, data, replace(QUICK, steps=6))
    assert len(states) == 3
    assert all(torch.equal(value, states[1][name]) for name, value in made.temporal.state_dict().items())


def test_a_loss_that_is_no_number_stops_with_a_message(data: tuple[Clips, Clips]) -> None:
    with pytest.raises(ModelError, match=r"step \d+: the loss is nan; lower lr \(1e\+30\)"):
        finished(tiny_dual_encoder(), data, replace(QUICK, lr=1e30))


def test_what_is_wrong_is_said_before_anything_is_read(data: tuple[Clips, Clips]) -> None:
    model, (seen, held) = tiny_dual_encoder(), data
    with pytest.raises(DataError, match="expected in one split, found in training and validation"):
        ActionTask(seen, seen)
    with pytest.raises(DataError, match="expected 5 or more classes, found 4"):
        finished(model, data, replace(QUICK, way=5))
    with pytest.raises(DataError, match="expected 10 or more"):
        finished(model, data, replace(QUICK, queries=9))
    with pytest.raises(DataError, match="expected 2 or more classes, found 1"):
        finished(model, (seen, held.classes([0])), QUICK)
    with pytest.raises(DataError, match="tuning needs clips"):
        finished(model, (VideoBank.of(model, seen), held), replace(QUICK, tower="tuned"))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="expected 3 frames as the labelled clips, found 2"):
        finished(model, data, QUICK).name(held, held.videos[:, :2])


def test_the_rate_warms_up_and_falls_twice() -> None:
    found = [rate(step, 100) for step in range(100)]
    assert found[0] == 0.1 and found[9:60] == [1.0] * 51 and set(found[60:80]) == {0.1} and set(found[80:]) == {0.01}
