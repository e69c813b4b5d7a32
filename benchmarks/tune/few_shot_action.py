"""Few-shot action recognition on sprite videos: what class names add to few clips, its controls, and the order of time.

    python -m benchmarks.tune.few_shot_action           # rows and benchmarks/results/few-shot-action.json; two workers
    python -m benchmarks.tune.few_shot_action --quick   # one seed, few classes and steps, prints only

Trained on some objects, chosen on others, tested on others again; every motion is in all of them. Five classes an episode, one
judged clip of each; half of the training episodes are among the motions of one object. The image tower is frozen, so clips are read
once for all trainings. Ways that are compared share their start, training episodes and test episodes. Everything slow is kept under
``runs/few-shot-action``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from benchmarks.harness.cache import Kept, code_of
from benchmarks.harness.ledger import Row
from benchmarks.harness.runner import Benchmark, Handle, dual_encoder, mine, run
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

MODEL = "emoji-clip-vit"
CODE = ("photopic.tune.action.few_shot_action", "photopic.data.sprite_videos")
WAYS: dict[str, dict[str, Any]] = {
    "modulated": {},
    "plain": {"modulation": False},
    "as-published": {"motion": 0.0},  # distances of frames as they are, which hardly depend on their order
    "shuffled": {"shuffled_text": True},  # the control: every class has another's name, in training and in the test
}
SHOTS = (1, 5)


@dataclass(frozen=True)
class Settings:
    """How much is measured."""

    seeds: tuple[int, ...]
    steps: int
    episodes: int  # of the test, for each seed and number of shots
    objects: tuple[int, int, int]  # of the training, validation and test classes
    clips: tuple[int, int, int] = (5, 3, 8)  # a class of each


FULL = Settings((0, 1, 2, 3, 4), 400, 600, (48, 8, 16))
QUICK = Settings((0,), 40, 100, (8, 4, 4), (4, 3, 6))
CHUNK = 4  # objects read at a time, so that workers share the reading
Found = Mapping[tuple[str, int], Mapping[str, Any]]


def config_of(settings: Settings, way: str, seed: int) -> FewShotActionConfig:
    """How one way is trained; hidden is four times the features' width, as in the paper's ViT."""
    every = settings.steps // 5
    base = FewShotActionConfig(
        steps=settings.steps,
        hidden=512,
        queries=2,
        validate_every=every,
        validation_episodes=200,
        within_group=0.5,
        seed=seed,
    )
    return replace(base, **WAYS[way])


def chunks(settings: Settings) -> list[tuple[str, int]]:
    """Everything that is read: splits and the first object of a few."""
    counts = zip(SPLITS, settings.objects, strict=True)
    return [(split, first) for split, count in counts for first in range(0, count, CHUNK)]


def read(model: DualEncoder, kept: Kept, settings: Settings, split: str, first: int) -> VideoBank:
    """The clips of a few objects as features, made if they are not there."""
    place = SPLITS.index(split)
    last = min(first + CHUNK, settings.objects[place])
    chosen = actions(split)[first * len(MOTIONS) : last * len(MOTIONS)]

    def make(path: Path) -> None:
        bank = VideoBank.of(model, sprite_clips(split, settings.clips[place], chosen=chosen))
        save_file({"features": bank.features, "labels": torch.from_numpy(bank.labels), "text": bank.text}, path)

    key = {
        "clips": [split, first, last, settings.clips[place]],
        "code": code_of("photopic.data.sprite_videos", "photopic.models.video_tower"),
    }
    found = load_file(kept.file(key, ".safetensors", make))
    groups = tuple(first + place // len(MOTIONS) for place in range(len(chosen)))  # one an object
    names = tuple(each.name for each in chosen)
    return VideoBank(found["features"], found["labels"].numpy(), names, found["text"], groups)


def banks(model: DualEncoder, kept: Kept, settings: Settings) -> dict[str, VideoBank]:
    """The three splits."""
    made = {}
    for split in SPLITS:
        parts = [read(model, kept, settings, *chunk) for chunk in chunks(settings) if chunk[0] == split]
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


def measured(
    model: DualEncoder, parts: Mapping[str, VideoBank], settings: Settings, way: str, seed: int
) -> dict[str, Any]:
    """Train one way and test it: accuracies of every test episode, by shots and by what names the clips."""
    test = parts["test"]
    if way == "untrained":
        made = untrained(model, test.text.shape[1])
    else:
        config = config_of(settings, way, seed)
        made = few_shot_action(model, ActionTask(parts["train"], parts["validation"]), config=config)
        test = test.shuffled(seed) if config.shuffled_text else test
    found: dict[str, Any] = {"gamma": made.gamma}
    for shots in SHOTS:
        scores = made.evaluate(test, shots=shots, episodes=settings.episodes, seed=1000 + seed)
        found |= {f"{by}.{shots}": getattr(scores, by).tolist() for by in ("few_shot", "zero_shot", "fused")}
    for matcher in ("otam", "mean"):
        judge = replace(made, how=replace(made.how, matcher=matcher))
        found[f"reversal.{matcher}"] = reversals(judge, test, seed)
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
        both = replace(
            bank,
            features=torch.cat([bank.features, bank.features.flip(1)]),
            labels=np.concatenate([labels, 1 - labels]),
        )
        # the second query of a class is the other class's clip backwards
        turned = drawn.queries[:, ::-1] + len(labels)
        episodes = drawn._replace(queries=np.concatenate([drawn.queries, turned], -1))
        accuracies.append(float(made.judge(both, episodes).few_shot.mean()))
    return accuracies


def kept_case(model: DualEncoder, kept: Kept, settings: Settings, way: str, seed: int) -> dict[str, Any]:
    """One case, made if it is not there."""
    config = asdict(config_of(settings, way, seed)) if way in WAYS else None
    key = {
        "way": way,
        "seed": seed,
        "config": config,
        "settings": asdict(settings) | {"seeds": None},
        "code": code_of(*CODE, measured, reversals),
    }
    found: dict[str, Any] = kept.value(key, lambda: measured(model, loaded(model, kept, settings), settings, way, seed))
    return found


@cache
def loaded(model: DualEncoder, kept: Kept, settings: Settings) -> dict[str, VideoBank]:
    """The three splits, read from what is kept once a process."""
    return banks(model, kept, settings)


def column(found: Found, settings: Settings, way: str, what: str) -> tuple[list[float], list[int]]:
    """What was measured of every episode of all seeds, and the seed of each."""
    values = [(value, seed) for seed in settings.seeds for value in found[way, seed][what]]
    return [value for value, _ in values], [seed for _, seed in values]


def gain(found: Found, settings: Settings, way: str, other: str, what: str) -> Interval:
    """Paired difference of two ways in the same episodes; a seed with its episodes is resampled as one."""
    values, groups = column(found, settings, way, what)
    if len(settings.seeds) == 1:
        return paired_bootstrap(values, column(found, settings, other, what)[0])
    return paired_bootstrap(values, column(found, settings, other, what)[0], groups=groups)


def rows(found: Found, settings: Settings) -> list[Row]:
    """All claims."""
    count = len(settings.seeds)
    episodes = f"{count} trainings, {settings.episodes} episodes each"

    def mean(way: str, what: str) -> float:
        return float(np.mean(column(found, settings, way, what)[0]))

    def interval(way: str, what: str) -> Interval:
        values, groups = column(found, settings, way, what)
        return bootstrap(values, groups=groups if count > 1 else None)

    made = []
    for shots in SHOTS:
        what = f"few_shot.{shots}"
        value = gain(found, settings, "modulated", "plain", what)
        control = mean("shuffled", what) - mean("plain", what)
        note = f"with names {mean('modulated', what):.3f}; the control has shuffled names; {episodes}"
        target = "low > 0" if shots == 1 else None
        made.append(
            Row(
                f"few_shot_action.modulation_gain.{shots}shot",
                *value,
                target=target,
                baseline=mean("plain", what),
                control=control,
                n=count,
                note=note,
            )
        )
    made.append(falling(found, settings))
    shuffled = gain(found, settings, "shuffled", "plain", "few_shot.1")
    note = f"1 shot, every class with another's name, trained and tested so; {episodes}"
    made.append(
        Row(
            "few_shot_action.shuffled_text_gain",
            *shuffled,
            target="low <= 0",
            baseline=mean("plain", "few_shot.1"),
            n=count,
            note=note,
        )
    )
    for matcher, claim, target in (("otam", "otam", "low > 0.65"), ("mean", "meanpool", "== 0.5")):
        pairs = found["modulated", settings.seeds[0]][f"reversal.{matcher}"]
        note = f"1 clip of each of two classes, one the other backwards; {len(pairs)} pairs, {count} trainings"
        bare = mean("untrained", f"reversal.{matcher}")
        made.append(
            Row(
                f"few_shot_action.{claim}_reversal_accuracy",
                *interval("modulated", f"reversal.{matcher}"),
                target=target,
                baseline=bare,
                control=mean("as-published", f"reversal.{matcher}"),
                n=count,
                note=f"{note}; baseline: untrained; control: trained with the published distance (motion 0)",
            )
        )
    for shots in SHOTS:
        few = column(found, settings, "modulated", f"few_shot.{shots}")[0]
        values, groups = column(found, settings, "modulated", f"fused.{shots}")
        value = paired_bootstrap(values, few, groups=groups if count > 1 else None)
        note = f"names and clips against clips with modulated prototypes; beta 0.9, as published; {episodes}"
        made.append(
            Row(f"few_shot_action.fusion_gain.{shots}shot", *value, baseline=float(np.mean(few)), n=count, note=note)
        )
    made.append(
        Row(
            "few_shot_action.zero_shot",
            *interval("modulated", "zero_shot.1"),
            baseline=0.2,
            n=count,
            note="class names alone; the baseline is chance",
        )
    )
    for way in (*WAYS, "untrained"):
        for shots in SHOTS:
            made.append(
                Row(
                    f"few_shot_action.accuracy.{way}-{shots}shot",
                    *interval(way, f"few_shot.{shots}"),
                    baseline=0.2,
                    n=count,
                    note="the baseline is chance",
                )
            )
    return made


def falling(found: Found, settings: Settings) -> Row:
    """How much more names help one clip than five; episodes of one number belong to one seed, not to each other."""
    gains = {
        shots: np.subtract(
            column(found, settings, "modulated", f"few_shot.{shots}")[0],
            column(found, settings, "plain", f"few_shot.{shots}")[0],
        ).tolist()
        for shots in SHOTS
    }
    groups = column(found, settings, "plain", "few_shot.1")[1]
    value = paired_bootstrap(gains[1], gains[5], groups=groups if len(settings.seeds) > 1 else None)
    note = f"gain with 1 clip {np.mean(gains[1]):.3f}, with 5 {np.mean(gains[5]):.3f}"
    return Row(
        "few_shot_action.modulation_1shot_minus_5shot", *value, target="low > 0", n=len(settings.seeds), note=note
    )


def code() -> None:
    """Read the code that decides the numbers."""
    code_of(*CODE, measured, reversals)


def cases(settings: Settings) -> list[tuple[str, int]]:
    """Everything that is trained or only read."""
    return [(way, seed) for seed in settings.seeds for way in (*WAYS, "untrained")]


def work(bench: Handle[DualEncoder], settings: Settings, part: str) -> None:
    """Clips are read first, then every case, shared."""
    for chunk in mine(chunks(settings), part):
        read(bench.model, bench.kept, settings, *chunk)
        print("read", *chunk, flush=True)
    for case in mine(cases(settings), part):
        kept_case(bench.model, bench.kept, settings, *case)
        print(*case, flush=True)


def rows_of(bench: Handle[DualEncoder], settings: Settings) -> list[Row]:
    """All claims."""
    return rows({case: kept_case(bench.model, bench.kept, settings, *case) for case in cases(settings)}, settings)


if __name__ == "__main__":
    opened = partial(dual_encoder, "few-shot-action")
    run(
        Benchmark(
            "few-shot-action",
            __file__,
            __doc__ or "",
            FULL,
            QUICK,
            work,
            rows_of,
            FULL.seeds,
            code,
            opened,
            MODEL,
        )
    )
