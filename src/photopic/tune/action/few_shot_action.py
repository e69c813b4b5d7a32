"""Few-shot action recognition: learn from some classes of videos to name others by one to five labelled clips and the class names.

A dual encoder reads frames; a small transformer over time refines them, with the class name's feature beside the labelled clips
(temporal prototype modulation); clips are compared by ordered temporal alignment. A second loss draws videos to the names of all
training classes.

Paper: CLIP-guided Prototype Modulating for Few-shot Action Recognition (CLIP-FSAR, arXiv:2303.02982). Changed: half of a distance
is between frames without the mean of their clip (``motion``), for without that the order of frames hardly counts; the image tower
is frozen by default, so that its features are read once; the rate is of a transformer that starts from nothing, the published one
of a large model's fine-tuning; the state is chosen on validation classes, where the published code looks at test classes; a loss
that is no number stops the training, where the published code skips it. Claims: ``few_shot_action.*`` of
benchmarks/tune/few_shot_action.py.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np

from photopic.core.errors import DataError, ModelError, PhotopicError
from photopic.core.runs import Run
from photopic.data.clips import Clips, check_apart
from photopic.data.episodes import draw_episodes
from photopic.learning.progress import load_matching
from photopic.models.dual_encoder import DualEncoder
from photopic.tune.action._episodes import EpisodeScores, VideoBank, normal_interval
from photopic.tune.action._learner import Learner
from photopic.tune.action._recogniser import ActionRecogniser, Named, Recognition

__all__ = [
    "ActionRecogniser",
    "ActionStep",
    "EpisodeScores",
    "FewShotActionConfig",
    "Named",
    "Recognition",
    "VideoBank",
    "normal_interval",
    "train",
    "train_few_shot_action",
]


@dataclass(frozen=True)
class FewShotActionConfig(Recognition):
    """How to train, always with one labelled clip a class, as published; what ``Recognition`` says stays so afterwards."""

    way: int = 5  # classes an episode
    queries: int = 5  # judged clips a class and episode
    episodes: int = 4  # episodes a step
    within_group: float = 0.0  # share of episodes among the motions of one object, where clips say so; published: 0
    steps: int = 500  # of Adam; published: 3,000 to 30,000 episodes
    lr: float = 1e-3  # of the transformer and gamma; published: 2e-6 to 5e-5, with everything pretrained
    tower_lr: float = 1e-4  # of the image tower where it is tuned
    weight_decay: float = 5e-4  # as Adam adds it to the gradient
    video_text: float = 1.5  # v, weight of the loss that draws videos to the names of all training classes; 0: none
    tower: Literal["frozen", "tuned"] = "frozen"  # published: tuned
    attention_dropout: float = 0.2
    dropout: float = 0.05
    shuffled_text: bool = False  # every class gets another's name: the control
    validate_every: int = 50  # steps
    validation_episodes: int = 300
    seed: int = 0  # of the start, the episodes, the dropout and the shuffling

    def __post_init__(self) -> None:
        for name, least in (("way", 2), ("queries", 1), ("episodes", 1), ("steps", 1), ("validate_every", 1)):
            if getattr(self, name) < least:
                raise DataError(f"{name}: expected {least} or more, found {getattr(self, name)}")
        if not 0 <= self.motion <= 1:
            raise DataError(f"motion: expected 0 to 1, found {self.motion}")
        if not (self.lr > 0 and self.tower_lr > 0 and self.video_text >= 0 and self.softness >= 0):
            raise DataError(
                "lr and tower_lr: expected above 0, video_text and softness 0 or more, found "
                f"{self.lr}, {self.tower_lr}, {self.video_text}, {self.softness}"
            )


@dataclass(frozen=True)
class ActionStep:
    """One event of the training; the last one carries the result.

    Attributes:
        stage: ``reading``, ``tuning`` or ``done``.
        step: Steps done; while reading, clips read.
        steps: Steps in all; while reading, clips in all.
        loss: Of the step, both parts.
        accuracy: Share of queries named right, mean of the last 25 steps, 0 to 1.
        validation: Accuracy on validation classes when it was last measured, 0 before.
        best: The highest of these so far.
        elapsed_s: Seconds since this process began.
        eta_s: Seconds still to go by the pace so far.
        warning: Empty; as other methods' events have it.
        result: The recogniser as it was when best on validation classes, with the last event only.
    """

    stage: str
    step: int = 0
    steps: int = 0
    loss: float = 0.0
    accuracy: float = 0.0
    validation: float = 0.0
    best: float = 0.0
    elapsed_s: float = 0.0
    eta_s: float = 0.0
    warning: str = ""
    result: ActionRecogniser | None = None


def train_few_shot_action(
    model: DualEncoder, training: Clips, validation: Clips, *, config: FewShotActionConfig = FewShotActionConfig()
) -> ActionRecogniser:
    """Learn to name videos; drives ``train`` to its end. See there for arguments and errors.

    Example:
        >>> recogniser = train_few_shot_action(model, training, validation)  # doctest: +SKIP
    """
    *_, last = train(model, training, validation, config=config)
    assert last.result is not None
    return last.result


def train(
    model: DualEncoder,
    training: Clips | VideoBank,
    validation: Clips | VideoBank,
    *,
    config: FewShotActionConfig = FewShotActionConfig(),
    run: Run | None = None,
    save_every: int = 25,
) -> Iterator[ActionStep]:
    """Learn to name videos, reporting after every step.

    Args:
        model: The dual encoder; its weights are never written.
        training: Clips of ``config.way`` classes or more; or their features, where the tower is frozen.
        validation: Clips of other classes: the state that names them best is kept.
        config: How to train.
        run: A run folder to checkpoint in and to resume from.
        save_every: Steps between checkpoints.

    Raises:
        DataError: If there are too few classes or clips, both sets share a class, or a name has no token.
        ModelError: If the model has edits applied.
        PhotopicError: If the loss is no number.
        RunMismatchError: If the run folder holds another training.

    Example:
        >>> for event in train(model, training, validation): print(event.step, event.accuracy)  # doctest: +SKIP
    """
    clock = time.monotonic()
    _check(model, training, validation, config)
    bank = yield from _reading(model, training, config)
    held = yield from _reading(model, validation, config)
    learner = Learner(model, training, validation, (bank, held), config)
    identity = learner.identity()
    done = 0
    if run and (found := load_matching(run, identity)):
        tensors, done = found
        learner.restore(tensors)
    for step in range(done, config.steps):
        loss, accuracy = learner.step(step)
        if not np.isfinite(loss):
            raise PhotopicError(f"step {step + 1}: the loss is {loss}; lower lr ({config.lr:g}) and start again")
        if (step + 1) % config.validate_every == 0 or step + 1 == config.steps:
            learner.validate()
        if run and ((step + 1) % save_every == 0 or step + 1 == config.steps):
            run.save(learner.tensors(), {"step": step + 1, "identity": identity})
        elapsed = time.monotonic() - clock
        to_go = elapsed / (step + 1 - done) * (config.steps - step - 1)
        now, best = learner.validation, learner.best
        yield ActionStep("tuning", step + 1, config.steps, loss, accuracy, now, best, elapsed, to_go)
    result = learner.result()
    elapsed = time.monotonic() - clock
    yield ActionStep(
        "done", config.steps, config.steps, 0.0, 0.0, learner.validation, learner.best, elapsed, result=result
    )


def _reading(
    model: DualEncoder, source: Clips | VideoBank, config: FewShotActionConfig
) -> Generator[ActionStep, None, VideoBank]:
    if isinstance(source, VideoBank):
        return source
    reading = VideoBank.reading(model, source, config.template)
    while True:
        try:
            yield ActionStep("reading", next(reading), len(source))
        except StopIteration as done:
            return cast(VideoBank, done.value)


def _check(model: DualEncoder, training: Any, validation: Any, config: FewShotActionConfig) -> None:
    if model.edits.list():
        raise ModelError(f"{model.name}: has edits applied; take them off before training")
    if config.tower == "tuned" and (isinstance(training, VideoBank) or isinstance(validation, VideoBank)):
        raise DataError("tower: tuning needs clips, found their features; give the clips, or keep the tower frozen")
    check_apart({"training": training.names, "validation": validation.names})
    way = config.way  # what is wrong with the clips is said before anything slow
    draw_episodes(
        training.labels,
        training.names,
        episodes=1,
        way=way,
        queries=config.queries,
        groups=training.groups,
        within=config.within_group,
    )
    draw_episodes(validation.labels, validation.names, episodes=1, way=min(way, max(2, len(validation.names))))
