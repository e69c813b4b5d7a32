"""Few-shot action recognition on sprite videos: what class names add to few clips, its controls, and the order of time.

    python -m benchmarks few-shot-action           # writes benchmarks/results/few-shot-action.json

Trained on some objects, chosen on others, tested on others again; every motion is in all of them. Five classes an episode, one
judged clip of each; half of the training episodes are among the motions of one object. The image tower is frozen, so clips are read
once for all trainings. Ways that are compared share their start, training episodes and test episodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from photopic.core.config import Config
from photopic.data.clips import SPLITS, ActionTask
from photopic.data.episodes import draw_episodes
from photopic.data.sprite_videos import MOTIONS, REVERSED, actions, sprite_clips
from photopic.metrics.intervals import Interval, bootstrap, paired_bootstrap
from photopic.models.dual_encoder import DualEncoder
from photopic.models.video_tower import TemporalTransformer
from photopic.tune.action.few_shot_action import (
    ActionRecogniser,
    FewShotActionConfig,
    Recognition,
    VideoBank,
    few_shot_action,
)

WAYS: dict[str, dict[str, Any]] = {
    "modulated": {},
    "plain": {"modulation": False},
    "as-published": {"motion": 0.0},  # distances of frames as they are, which hardly depend on their order
    "shuffled": {"shuffled_text": True},  # the control: every class has another's name, in training and in the test
}
SHOTS = (1, 5)
CHUNK = 4  # objects read at a time, so that workers share the reading
PAIRS = "1 clip of each of two classes, one the other backwards; baseline: untrained; control: published distance"
CLAIMS = (
    Claim("few_shot_action.modulation_gain.1shot", "low > 0", "with names minus without; control: shuffled names"),
    Claim("few_shot_action.modulation_gain.5shot", "", "with names minus without; control: shuffled names"),
    Claim("few_shot_action.modulation_1shot_minus_5shot", "low > 0", "how much more names help one clip than five"),
    Claim(
        "few_shot_action.shuffled_text_gain",
        "low <= 0",
        "1 shot, every class with another's name, trained and tested so",
    ),
    Claim("few_shot_action.otam_reversal_accuracy", "low > 0.65", PAIRS),
    Claim("few_shot_action.meanpool_reversal_accuracy", "== 0.5", PAIRS),
    Claim(
        "few_shot_action.fusion_gain.*",
        "",
        "names and clips against clips with modulated prototypes; beta 0.9, as published",
    ),
    Claim("few_shot_action.zero_shot", "", "class names alone; the baseline is chance"),
    Claim("few_shot_action.accuracy.*", "", "the baseline is chance"),
)


@dataclass(frozen=True)
class ActionConfig(Config):
    """How much is measured."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)  # of trainings and episodes
    steps: Annotated[int, Ge(5)] = 400  # of learning
    episodes: Annotated[int, Ge(1)] = 600  # of the test, for each seed and number of shots
    objects: tuple[int, ...] = (48, 8, 16)  # of the training, validation and test classes
    clips: tuple[int, ...] = (5, 3, 8)  # of each class of each
    model: str = "emoji-clip-vit"  # a bundled name or a folder


QUICK = ActionConfig((0,), 40, 100, (8, 4, 4), (4, 3, 6))


@dataclass(frozen=True)
class Clips:
    """Clips of a few objects, to be read."""

    split: str
    first: int
    last: int
    clips: int  # of each class


@dataclass(frozen=True)
class Training:
    """One way trained and tested, or the frames as the dual encoder gives them."""

    way: str
    seed: int
    steps: int
    episodes: int
    objects: tuple[int, ...]
    clips: tuple[int, ...]

    @property
    def config(self) -> FewShotActionConfig:
        """How it is trained; hidden is four times the features' width, as in the paper's ViT."""
        options: dict[str, Any] = {"hidden": 512, "queries": 2, "validation_episodes": 200, "within_group": 0.5}
        rest = {"steps": self.steps, "validate_every": self.steps // 5, "seed": self.seed}
        return FewShotActionConfig(**options | rest | WAYS[self.way])


def clips_of(objects: tuple[int, ...], clips: tuple[int, ...]) -> list[Clips]:
    """Everything that is read."""
    found: list[Clips] = []
    for split, count, each in zip(SPLITS, objects, clips, strict=True):
        found += [Clips(split, first, min(first + CHUNK, count), each) for first in range(0, count, CHUNK)]
    return found


def trainings(config: ActionConfig, way: str) -> list[Training]:
    """A way with every seed."""
    return [Training(way, seed, config.steps, config.episodes, config.objects, config.clips) for seed in config.seeds]


def cases(config: ActionConfig) -> list[Clips | Training]:
    """Clips first, then every training."""
    return [
        *clips_of(config.objects, config.clips),
        *(e for way in (*WAYS, "untrained") for e in trainings(config, way)),
    ]


def read(bench: Bench[Any, DualEncoder], case: Clips) -> VideoBank:
    """The clips of a few objects as features; kept."""
    chosen = actions(case.split)[case.first * len(MOTIONS) : case.last * len(MOTIONS)]

    @cache
    def bank() -> VideoBank:
        return VideoBank.of(bench.subject, sprite_clips(case.split, case.clips, chosen=chosen))

    def part(what: str) -> np.ndarray:
        return np.asarray(getattr(bank(), what))

    features, labels, text = (
        bench.array({"clips": case, "what": what}, partial(part, what)) for what in ("features", "labels", "text")
    )
    groups = tuple(case.first + place // len(MOTIONS) for place in range(len(chosen)))  # one an object
    names = tuple(each.name for each in chosen)
    return VideoBank(torch.from_numpy(features), labels, names, torch.from_numpy(text), groups)


@cache
def banks(bench: Bench[Any, DualEncoder], objects: tuple[int, ...], clips: tuple[int, ...]) -> dict[str, VideoBank]:
    """The three splits, put together once a process."""
    made = {}
    for split in SPLITS:
        parts = [read(bench, each) for each in clips_of(objects, clips) if each.split == split]
        starts = np.cumsum([0, *(len(part.names) for part in parts)])
        labels = np.concatenate([part.labels + start for part, start in zip(parts, starts, strict=False)])
        names = tuple(name for part in parts for name in part.names)
        features, text = (torch.cat([getattr(part, field) for part in parts]) for field in ("features", "text"))
        groups = tuple(group for part in parts for group in part.groups or ())
        made[split] = VideoBank(features, labels, names, text, groups)
    return made


def untrained(model: DualEncoder, width: int) -> ActionRecogniser:
    """Frames compared as the dual encoder gives them: a transformer that adds nothing."""
    temporal = TemporalTransformer(width, hidden=8)
    with torch.no_grad():
        for name, value in temporal.named_parameters():
            if ".out." in name or ".feed_forward.3." in name:  # what each residual branch ends in
                value.zero_()
    return ActionRecogniser(model, temporal.eval(), 1.0, Recognition(modulation=False, hidden=8))


def measure(bench: Bench[Any, DualEncoder], case: Clips | Training) -> Any:
    """Read clips, or train one way and test it: accuracies of every test episode, by shots and by what names the clips."""
    if isinstance(case, Clips):
        return len(read(bench, case).labels)
    parts, model, config = banks(bench, case.objects, case.clips), bench.subject, None
    test = parts["test"]
    if case.way == "untrained":
        made = untrained(model, test.text.shape[1])
    else:
        config = case.config
        made = few_shot_action(model, ActionTask(parts["train"], parts["validation"]), config=config)
        test = test.shuffled(case.seed) if config.shuffled_text else test
    found: dict[str, Any] = {}
    for shots in SHOTS:
        scores = made.evaluate(test, shots=shots, episodes=case.episodes, seed=1000 + case.seed)
        found |= {f"{by}.{shots}": getattr(scores, by).tolist() for by in ("few_shot", "zero_shot", "fused")}
    for matcher in ("otam", "mean"):
        judge = replace(made, how=replace(made.how, matcher=matcher))
        found[f"reversal.{matcher}"] = reversals(judge, test, case.seed)
    return found


def reversals(made: ActionRecogniser, test: VideoBank, seed: int) -> list[float]:
    """One clip of a class and one of its reverse; every judged clip also comes backwards. Accuracy of each pair of classes.

    What does not know the order of frames names a clip alike in both directions, so it is right for exactly half.
    """
    number = {name: place for place, name in enumerate(test.names)}
    accuracies = []
    for name, first in number.items():
        motion = next(each for each in MOTIONS if name.endswith(f" {each}"))
        second = number[name.removesuffix(motion) + REVERSED[motion]]
        if first >= second:  # its own reverse, or the pair was there
            continue
        pair = np.array([first, second])
        member = np.isin(test.labels, pair)
        labels = (test.labels[member] == second).astype(np.int64)
        bank = VideoBank(
            test.features[torch.from_numpy(member)], labels, (test.names[first], test.names[second]), test.text[pair]
        )
        drawn = draw_episodes(labels, bank.names, episodes=8, way=2, seed=[seed, first])
        clips = torch.cat([bank.features, bank.features.flip(1)])
        both = replace(bank, features=clips, labels=np.concatenate([labels, 1 - labels]))
        # the second query of a class is the other class's clip backwards
        turned = drawn.queries[:, ::-1] + len(labels)
        episodes = drawn._replace(queries=np.concatenate([drawn.queries, turned], -1))
        accuracies.append(float(made.judge(both, episodes).few_shot.mean()))
    return accuracies


class Found:
    """What was measured of every episode, way by way."""

    def __init__(self, bench: Bench[ActionConfig, DualEncoder]):
        config = bench.config
        self.found = {way: [bench.found(each) for each in trainings(config, way)] for way in (*WAYS, "untrained")}
        self.count = len(config.seeds)

    def column(self, way: str, what: str) -> np.ndarray:
        """One number an episode, seed after seed."""
        return np.concatenate([each[what] for each in self.found[way]])

    def mean(self, way: str, what: str) -> float:
        """Over all episodes."""
        return float(self.column(way, what).mean())

    def groups(self, way: str, what: str) -> list[int] | None:
        """The seed of each: a seed with its episodes is resampled as one; of one seed, each episode."""
        seeds = [seed for seed, each in enumerate(self.found[way]) for _ in each[what]]
        return seeds if self.count > 1 else None

    def interval(self, way: str, what: str) -> Interval:
        """Mean accuracy."""
        return bootstrap(self.column(way, what), groups=self.groups(way, what))

    def gain(self, way: str, other: str, what: str, of_other: str = "") -> Interval:
        """Paired difference of two ways in the same episodes."""
        pair = self.column(way, what), self.column(other, of_other or what)
        return paired_bootstrap(*pair, groups=self.groups(way, what))


def rows(bench: Bench[ActionConfig, DualEncoder]) -> Iterator[Row]:
    """All claims."""
    found = Found(bench)
    n, episodes = found.count, f"{found.count} trainings, {bench.config.episodes} episodes each"
    gains = {}
    for shots in SHOTS:
        what, plain = f"few_shot.{shots}", found.mean("plain", f"few_shot.{shots}")
        gains[shots] = found.column("modulated", what) - found.column("plain", what)
        beside: dict[str, Any] = {"baseline": plain, "control": found.mean("shuffled", what) - plain}
        note = f"with names {found.mean('modulated', what):.3f}; {episodes}"
        gain = found.gain("modulated", "plain", what)
        yield row(f"few_shot_action.modulation_gain.{shots}shot", gain, n=n, note=note, **beside)
    falling = paired_bootstrap(gains[1], gains[5], groups=found.groups("plain", "few_shot.1"))
    note = f"gain with 1 clip {gains[1].mean():.3f}, with 5 {gains[5].mean():.3f}"
    yield row("few_shot_action.modulation_1shot_minus_5shot", falling, n=n, note=note)
    shuffled, baseline = found.gain("shuffled", "plain", "few_shot.1"), found.mean("plain", "few_shot.1")
    yield row("few_shot_action.shuffled_text_gain", shuffled, baseline=baseline, n=n, note=episodes)
    for matcher, claim in (("otam", "otam"), ("mean", "meanpool")):
        what = f"reversal.{matcher}"
        note = f"{len(found.found['modulated'][0][what])} pairs, {n} trainings"
        beside = {
            "baseline": found.mean("untrained", what),
            "control": found.mean("as-published", what),
        }
        accuracy = found.interval("modulated", what)
        yield row(f"few_shot_action.{claim}_reversal_accuracy", accuracy, n=n, note=note, **beside)
    for shots in SHOTS:
        gain = found.gain("modulated", "modulated", f"fused.{shots}", f"few_shot.{shots}")
        baseline = found.mean("modulated", f"few_shot.{shots}")
        yield row(f"few_shot_action.fusion_gain.{shots}shot", gain, baseline=baseline, n=n, note=episodes)
    yield row("few_shot_action.zero_shot", found.interval("modulated", "zero_shot.1"), baseline=0.2, n=n)
    for way in found.found:
        for shots in SHOTS:
            accuracy = found.interval(way, f"few_shot.{shots}")
            yield row(f"few_shot_action.accuracy.{way}-{shots}shot", accuracy, baseline=0.2, n=n)


BENCHMARKS = (
    Benchmark(
        "few-shot-action", __doc__, ActionConfig(), QUICK, CLAIMS, rows, cases, measure,
        open=lambda config, cache: DualEncoder.load(config.model), seeds=ActionConfig().seeds,
    ),
)  # fmt: skip
