"""Few-shot action recognition: learn from some classes of videos to name others by one to five labelled clips and the class names.

A dual encoder reads frames; a small transformer over time refines them, with the class name's feature beside the labelled clips
(temporal prototype modulation); clips are compared by ordered temporal alignment. A second loss draws videos to the names of all
training classes.

Paper: CLIP-guided Prototype Modulating for Few-shot Action Recognition (CLIP-FSAR, arXiv:2303.02982). Changed: the image tower is
frozen by default, so that its features are read once; the rate is of a transformer that starts from nothing, the published one of a
large model's fine-tuning; the state is chosen on validation classes, where the published code looks at test classes; a loss that is
no number stops the training, where the published code skips it. Claims: ``few_shot_action.*`` of benchmarks/few_shot_action.py.
"""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from photopic.core.edits import Delta, Edit
from photopic.core.errors import DataError, ModelError, PhotopicError
from photopic.core.provenance import versions
from photopic.core.runs import Run, load_optimizer, optimizer_tensors
from photopic.data.clips import Clips, check_apart
from photopic.data.episodes import draw_episodes
from photopic.models.dual_encoder import DualEncoder
from photopic.models.progress import load_matching
from photopic.models.video_tower import TemporalTransformer, image_parameters
from photopic.tune._action_recogniser import ActionRecogniser, Named, Recognition, recognition_of
from photopic.tune._video_episodes import EpisodeScores, VideoBank, distances, normal_interval, prototypes, text_logits

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
    learner = _Learner(model, training, validation, (bank, held), config)
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


def rate(step: int, steps: int) -> float:
    """The factor on the rate: a tenth of the steps warming up, then 1, a tenth after 60 % and a hundredth after 80 %.

    Example:
        >>> [rate(step, 10) for step in (0, 5, 6, 8)]
        [1.0, 1.0, 0.1, 0.01]
    """
    warm = max(1, steps // 10)
    return min(1.0, (step + 1) / warm) * (1.0 if step < 0.6 * steps else 0.1 if step < 0.8 * steps else 0.01)


class _Learner:
    """What is trained, and one step of it."""

    def __init__(
        self,
        model: DualEncoder,
        training: Any,
        validation: Any,
        banks: Sequence[VideoBank],
        config: FewShotActionConfig,
    ):
        self.model, self.config, self.how = model, config, recognition_of(config)
        self.clips = (training, validation)
        self.reader = _copy(model) if config.tower == "tuned" else model
        self.bank, self.held = (self._named(bank) for bank in banks)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.temporal = TemporalTransformer(
                self.bank.text.shape[1],
                heads=config.heads,
                hidden=config.hidden,
                depth=config.depth,
                attention_dropout=config.attention_dropout,
                dropout=config.dropout,
            )
        self.gamma = nn.Parameter(torch.ones(()))
        self.tower = dict(image_parameters(self.reader.network)) if config.tower == "tuned" else {}
        groups: list[dict[str, Any]] = [{"params": [*self.temporal.parameters(), self.gamma], "lr": config.lr}]
        if self.tower:
            groups.append({"params": list(self.tower.values()), "lr": config.tower_lr})
        self.optimizer = torch.optim.Adam(groups, weight_decay=config.weight_decay)
        self.rates = [float(group["lr"]) for group in groups]
        self.recent: deque[float] = deque(maxlen=25)
        self.validation = self.best = 0.0
        self.kept: dict[str, Tensor] = {}

    def step(self, step: int) -> tuple[float, float]:
        """One step of Adam on a few episodes: its loss and the running accuracy."""
        config = self.config
        self.temporal.train()
        for group, start in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = start * rate(step, config.steps)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed * 1_000_003 + step + 1)  # of the dropout
            loss, accuracy = self._loss(step)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.recent.append(accuracy)
        return float(loss.detach()), sum(self.recent) / len(self.recent)

    def _loss(self, step: int) -> tuple[Tensor, float]:
        config, bank = self.config, self.bank
        drawn = draw_episodes(
            bank.labels,
            bank.names,
            episodes=config.episodes,
            way=config.way,
            queries=config.queries,
            seed=[config.seed, step],
            groups=bank.groups,
            within=config.within_group,
        )
        classes, support, asked = (torch.from_numpy(each) for each in drawn)
        each = torch.cat([support, asked], -1)  # (e, way, 1 + queries)
        frames = self._frames(each.flatten()).unflatten(0, each.shape)  # (e, way, 1 + queries, t, dim)
        queries = frames[:, :, 1:].flatten(1, 2)  # (e, way * queries, t, dim)
        text = bank.text[classes] if config.modulation else None
        named = prototypes(self.temporal, frames[:, :, :1], text, config.merge)
        logits = -distances(self.temporal(queries), named, config.matcher, config.softness)  # (e, q, way)
        truth = torch.arange(config.way).repeat_interleave(config.queries).expand(config.episodes, -1)
        loss = F.cross_entropy(logits.flatten(0, 1), truth.flatten())
        if config.video_text:
            against = text_logits(frames.flatten(0, 2), bank.text, self.gamma)  # (videos, training classes)
            actual = classes[..., None].expand(each.shape).flatten()
            loss = loss + config.video_text * F.cross_entropy(against, actual)
        return loss, float((logits.argmax(-1) == truth).float().mean())

    def _frames(self, places: Tensor) -> Float[Tensor, "n t dim"]:
        """Features of clips: looked up where the tower is frozen, read with gradients where it is tuned."""
        if not self.tower:
            return self.bank.features[places]
        videos = [self.clips[0].videos[place] for place in places.tolist()]
        pixels = self.reader.preprocess([frame for video in videos for frame in video])
        return self.reader.encode_pixels(pixels).float().cpu().unflatten(0, (len(videos), -1))

    def validate(self) -> None:
        """Measure on validation classes, and keep the state if it is the best so far."""
        if self.tower:
            self.held = self._named(VideoBank.of(self.reader, self.clips[1], self.config.template))
        now = ActionRecogniser(self.model, self.temporal, self.gamma.item(), self.how)
        way = min(self.config.way, len(self.held.names))
        scores = now.evaluate(self.held, way=way, episodes=self.config.validation_episodes, seed=self.config.seed + 1)
        self.validation = float(scores.few_shot.mean())
        if not self.kept or self.validation > self.best:
            self.best = self.validation
            self.kept = {name: value.detach().clone() for name, value in self._state().items()}

    def result(self) -> ActionRecogniser:
        """The best state as a recogniser; the change of the tower as an edit."""
        self._set(self.kept)
        edit = _tower_edit(self.model, self.tower, self.config) if self.tower else None
        return ActionRecogniser(self.model, self.temporal.eval(), self.gamma.item(), self.how, edit)

    def tensors(self) -> dict[str, Tensor]:
        """Everything a checkpoint needs."""
        numbers = torch.tensor([self.validation, self.best, *self.recent], dtype=torch.float64)
        kept = {"kept." + name: value for name, value in self.kept.items()}
        return {**self._state(), **kept, "numbers": numbers, **optimizer_tensors(self.optimizer)}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from ``tensors``."""
        self._set(tensors)
        self.kept = {name.removeprefix("kept."): value for name, value in tensors.items() if name.startswith("kept.")}
        self.validation, self.best, *recent = tensors["numbers"].tolist()
        self.recent.extend(recent)
        load_optimizer(self.optimizer, tensors)

    def identity(self) -> str:
        """Hex sha256 of all that decides the training."""
        digest = hashlib.sha256(json.dumps(asdict(self.config), sort_keys=True).encode())
        digest.update(self.model.digest().encode())
        for bank in (self.bank, self.held):
            digest.update("\n".join(bank.names).encode())
            for array in (bank.labels, bank.features.numpy(), bank.text.numpy()):
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def _state(self) -> dict[str, Tensor]:
        temporal = {"temporal." + name: value for name, value in self.temporal.state_dict().items()}
        tower = {"tower." + name: value.detach() for name, value in self.tower.items()}
        return {**temporal, **tower, "gamma": self.gamma.detach()}

    @torch.no_grad()
    def _set(self, tensors: dict[str, Tensor]) -> None:
        for name, value in self._state().items():
            value.copy_(tensors[name])

    def _named(self, bank: VideoBank) -> VideoBank:
        return bank.shuffled(self.config.seed) if self.config.shuffled_text else bank


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


def _copy(model: DualEncoder) -> DualEncoder:
    """The same model with weights of its own, whose image side can be trained."""
    copied = DualEncoder(
        copy.deepcopy(model.network), tokenizer=model.tokenizer, preprocess=model.preprocess, name=model.name
    )
    tower = image_parameters(copied.network)
    if not tower:
        raise ModelError(f"{model.name}: expected parameters of an image tower, found none; keep the tower frozen")
    for value in tower.values():
        value.requires_grad_(True)
    return copied


def _tower_edit(model: DualEncoder, tower: dict[str, nn.Parameter], config: FewShotActionConfig) -> Edit:
    base = dict(model.network.named_parameters())
    deltas = {f"network.{name}": (value - base[name]).detach() for name, value in tower.items()}
    moved = {name: delta for name, delta in deltas.items() if bool(delta.any())}
    provenance = {
        "method": "few_shot_action",
        "paper": "arXiv:2303.02982",
        "config": asdict(config),
        "seed": config.seed,
        "steps": config.steps,
        "versions": versions(),
    }
    return Edit((Delta(moved),), base=model.base(list(moved)), provenance=provenance)
