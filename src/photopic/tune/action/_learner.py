"""The inside of the training of few-shot action recognition: one step, its state, and what comes of it."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Le, Lt
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from photopic.core.config import Flags
from photopic.core.digests import plain
from photopic.core.edits import DenseDelta, Edit
from photopic.core.errors import DivergedError, ModelError
from photopic.core.results import provenance
from photopic.core.runs import load_optimizer, optimizer_tensors
from photopic.data.clips import ActionTask
from photopic.data.episodes import draw_episodes
from photopic.models.dual_encoder import DualEncoder
from photopic.models.video_tower import TemporalTransformer, image_parameters
from photopic.tune.action._episodes import VideoBank, distances, prototypes, text_logits
from photopic.tune.action._recogniser import ActionRecogniser, Recognition, recognition_of


@dataclass(frozen=True)
class FewShotActionConfig(Recognition):
    """How to train, always with one labelled clip a class, as published; what ``Recognition`` says stays so afterwards."""

    way: Annotated[int, Ge(2)] = 5  # classes to choose among in an episode
    queries: Annotated[int, Ge(1)] = 5  # judged clips of each class in an episode
    episodes: Annotated[int, Ge(1), Flags("--episodes-a-step")] = 4  # episodes of one step of learning
    # share of episodes among the motions of one object; half by default where clips say so, so that motion counts; published: 0
    within_group: Annotated[float | None, Ge(0), Le(1)] = None
    steps: Annotated[int, Ge(1)] = 500  # steps of learning; more takes longer; published: 3,000 to 30,000 episodes
    # size of a step of the transformer; published: 2e-6 to 5e-5, with everything pretrained
    lr: Annotated[float, Gt(0)] = 1e-3
    tower_lr: Annotated[float, Gt(0)] = 1e-4  # size of a step of the image tower where it is tuned
    weight_decay: Annotated[float, Ge(0)] = 5e-4  # as Adam adds it to the gradient
    video_text: Annotated[float, Ge(0)] = (
        1.5  # weight of the loss that draws clips to the names of their classes; 0: none
    )
    # frozen: the image encoder stays, every clip is read once, training takes minutes; tuned: it learns too, as published,
    # and every step reads its clips again
    tower: Literal["frozen", "tuned"] = "frozen"
    attention_dropout: Annotated[float, Ge(0), Lt(1)] = 0.2  # share of attention weights dropped while learning
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.05  # share of activations dropped while learning
    shuffled_text: bool = False  # give every class another's name, the control; what names help is then gone
    validate_every: Annotated[int, Ge(1)] = 50  # steps between measurements on validation classes
    validation_episodes: Annotated[int, Ge(2)] = 300  # episodes of each of these measurements
    test_episodes: Annotated[int, Ge(2), Flags("--episodes")] = 1000  # test episodes behind each number of the table
    beta: Annotated[float, Ge(0), Le(1)] = 0.9  # share of the names where names and clips are fused in the table
    seed: Annotated[int, Ge(0)] = 0  # seed of everything random; the same seed learns the same


def rate(step: int, steps: int) -> float:
    """The factor on the rate: a tenth of the steps warming up, then 1, a tenth after 60 % and a hundredth after 80 %.

    Example:
        >>> [rate(step, 10) for step in (0, 5, 6, 8)]
        [1.0, 1.0, 0.1, 0.01]
    """
    warm = max(1, steps // 10)
    return min(1.0, (step + 1) / warm) * (1.0 if step < 0.6 * steps else 0.1 if step < 0.8 * steps else 0.01)


class Learner:
    """What is trained, and one step of it."""

    def __init__(
        self,
        model: DualEncoder,
        task: ActionTask,
        banks: Sequence[VideoBank],
        config: FewShotActionConfig,
    ):
        self.model, self.config, self.how = model, config, recognition_of(config)
        self.clips = task
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

    def step(self, step: int) -> Mapping[str, float]:
        """One step of Adam on a few episodes, now and then a look at validation classes."""
        config = self.config
        self.temporal.train()
        for group, start in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = start * rate(step, config.steps)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed * 1_000_003 + step + 1)  # of the dropout
            loss, accuracy = self._loss(step)
            if not torch.isfinite(loss):
                raise DivergedError(
                    f"step {step + 1}: the loss is {loss.item()}; lower lr ({config.lr:g}) and start again"
                )
            self.optimizer.zero_grad()
            loss.backward()
        self.optimizer.step()
        self.recent.append(accuracy)
        if (step + 1) % config.validate_every == 0 or step + 1 == config.steps:
            self.validate()
        running = sum(self.recent) / len(self.recent)
        return {"loss": loss.item(), "accuracy": running, "validation": self.validation, "best": self.best}

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
            within=within_group(config, bank),
        )
        classes, support, asked = (torch.from_numpy(each) for each in drawn)
        each = torch.cat([support, asked], -1)  # (e, way, 1 + queries)
        frames = self._frames(each.flatten()).unflatten(0, each.shape)  # (e, way, 1 + queries, t, dim)
        queries = frames[:, :, 1:].flatten(1, 2)  # (e, way * queries, t, dim)
        text = bank.text[classes] if config.modulation else None
        named = prototypes(self.temporal, frames[:, :, :1], text, config.merge)
        logits = -distances(
            self.temporal(queries), named, config.matcher, config.softness, config.motion
        )  # (e, q, way)
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
        videos = [self.clips.training.videos[place] for place in places.tolist()]
        pixels = self.reader.preprocess([frame for video in videos for frame in video])
        return self.reader.encode_pixels(pixels).float().cpu().unflatten(0, (len(videos), -1))

    def validate(self) -> None:
        """Measure on validation classes, and keep the state if it is the best so far."""
        if self.tower:
            self.held = self._named(VideoBank.of(self.reader, self.clips.validation, self.config.template))
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

    def state(self) -> dict[str, Tensor]:
        """Everything a checkpoint needs."""
        numbers = torch.tensor([self.validation, self.best, *self.recent], dtype=torch.float64)
        kept = {"kept." + name: value for name, value in self.kept.items()}
        return {**self._state(), **kept, "numbers": numbers, **optimizer_tensors(self.optimizer)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from ``tensors``."""
        self._set(tensors)
        self.kept = {name.removeprefix("kept."): value for name, value in tensors.items() if name.startswith("kept.")}
        self.validation, self.best, *recent = tensors["numbers"].tolist()
        self.recent.extend(recent)
        load_optimizer(self.optimizer, tensors)

    def _state(self) -> dict[str, Tensor]:
        temporal = {"temporal." + name: value for name, value in self.temporal.state_dict().items()}
        tower = {"tower." + name: value.detach() for name, value in self.tower.items()}
        return {**temporal, **tower, "gamma": self.gamma.detach()}

    @torch.no_grad()
    def _set(self, tensors: Mapping[str, Tensor]) -> None:
        for name, value in self._state().items():
            value.copy_(tensors[name])

    def _named(self, bank: VideoBank) -> VideoBank:
        return bank.shuffled(self.config.seed) if self.config.shuffled_text else bank


def within_group(config: FewShotActionConfig, clips: Any) -> float:
    """The share of episodes among hard classes: half by default, where clips say which those are."""
    if config.within_group is None:
        return 0.0 if clips.groups is None else 0.5
    return config.within_group


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
    facts = provenance("tune.action.few_shot_action", paper="arXiv:2303.02982", config=plain(config), seed=config.seed)
    return Edit((DenseDelta(moved),), base=model.fingerprint(*moved), provenance=facts)
