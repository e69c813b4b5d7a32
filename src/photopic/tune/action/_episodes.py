"""What few-shot video recognition computes: class prototypes, distances of queries to them, and the scores of many episodes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from torch.nn import functional as F

from photopic.core.errors import DataError
from photopic.core.events import Event, Steps, finished
from photopic.data.clips import Clips
from photopic.data.episodes import Episodes
from photopic.metrics.intervals import Interval
from photopic.metrics.temporal_alignment import alignment_distance, frame_distances, mean_distance
from photopic.models.dual_encoder import DualEncoder
from photopic.models.video_tower import TemporalTransformer, frame_features_in_parts, text_features_of_any_length

Matcher = Literal["otam", "mean"]
Merge = Literal["before", "after"]
TOGETHER = 50  # episodes scored at a time


@dataclass(frozen=True, eq=False)
class VideoBank:
    """Clips as features: what episodes are drawn from.

    Attributes:
        features: Of each frame of each clip, of any length.
        labels: The class of each clip.
        names: Class names.
        text: The feature of each class name, of any length.
        groups: A number a class; classes of one group are hard to tell apart.

    Example:
        >>> VideoBank.of(model, clips).features.shape  # doctest: +SKIP
        torch.Size([400, 8, 128])
    """

    features: Float[Tensor, "n t dim"]
    labels: Int64[np.ndarray, "n"]
    names: tuple[str, ...]
    text: Float[Tensor, "classes dim"]
    groups: tuple[int, ...] | None = None

    @classmethod
    def of(cls, model: DualEncoder, clips: Clips, template: str = "a photo of {}") -> VideoBank:
        """Read clips and class names with a model as it stands; raises as ``frame_features`` and for a name without tokens."""
        return finished(cls.reading(model, clips, template))

    @classmethod
    def reading(cls, model: DualEncoder, clips: Clips | VideoBank, template: str) -> Steps[VideoBank]:
        """``of`` as a generator of events; what are features already is given back."""
        if isinstance(clips, VideoBank):
            return clips
        text = text_features_of_any_length(model, clips.names, template)
        parts: list[Tensor] = []
        for part in frame_features_in_parts(model, clips.videos):
            parts.append(part)  # (part, t, dim)
            yield Event("reading", sum(map(len, parts)), len(clips))
        return cls(torch.cat(parts), clips.labels, clips.names, text, clips.groups)

    @cached_property
    def digest(self) -> str:
        """Hex sha256 of the features, the classes, their names and groups."""
        hasher = hashlib.sha256(json.dumps([self.names, self.labels.tolist(), self.groups]).encode())
        for tensor in (self.features, self.text):
            hasher.update(tensor.contiguous().numpy().tobytes())
        return hasher.hexdigest()

    def shuffled(self, seed: int) -> VideoBank:
        """The same with every class's text that of another class: the control."""
        order = np.random.default_rng(seed).permutation(len(self.names))
        other = np.empty_like(order)
        other[order] = np.roll(order, 1)  # along one cycle, so no class keeps its own
        return replace(self, text=self.text[torch.from_numpy(other)])


@dataclass(frozen=True, eq=False)
class EpisodeScores:
    """How many queries of each episode were named right, 0 to 1, by each way of naming.

    Attributes:
        few_shot: By the distance to prototypes of the labelled clips.
        zero_shot: By the class names alone.
        fused: By both (the test-time fusion).
    """

    few_shot: Float64[np.ndarray, "episodes"]
    zero_shot: Float64[np.ndarray, "episodes"]
    fused: Float64[np.ndarray, "episodes"]

    def interval(self, way: Literal["few_shot", "zero_shot", "fused"] = "few_shot") -> Interval:
        """The mean over episodes and its 95 % interval, 1.96 standard errors to each side.

        Example:
            >>> ones = np.ones(9)
            >>> EpisodeScores(ones, ones, ones).interval()
            Interval(value=1.0, low=1.0, high=1.0)
        """
        return normal_interval(getattr(self, way))


def normal_interval(values: Float64[np.ndarray, "n"]) -> Interval:
    """Mean and 1.96 standard errors to each side.

    Example:
        >>> [round(each, 2) for each in normal_interval(np.array([0.0, 1.0]))]
        [0.5, -0.48, 1.48]
    """
    value = float(np.mean(values))
    half = 1.96 * float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return Interval(value, value - half, value + half)


def prototypes(
    temporal: TemporalTransformer,
    support: Float[Tensor, "*batch way shots t dim"],
    text: Float[Tensor, "*batch way dim"] | None,
    merge: Merge = "before",
) -> Float[Tensor, "*batch way t dim"]:
    """One sequence of frames a class, in the light of its name if ``text`` is given.

    Args:
        temporal: The transformer over time.
        support: Frames of the labelled clips.
        text: Features of the class names, of any length; None leaves the names out.
        merge: Average the clips of a class ``before`` the transformer, or ``after`` it.
    """
    if merge == "before":
        return temporal(support.mean(-3), text)  # (*batch, way, t, dim)
    # the name once for every clip
    beside = None if text is None else text[..., None, :].expand(*support.shape[:-2], -1)
    return temporal(support, beside).mean(-3)


def distances(
    queries: Float[Tensor, "*batch q t dim"],
    classes: Float[Tensor, "*batch way t dim"],
    matcher: Matcher = "otam",
    softness: float = 0.5,
    motion: float = 0.0,
) -> Float[Tensor, "*batch q way"]:
    """The distance of every query to every class.

    Args:
        queries: Frames of the judged clips.
        classes: Frames of the prototypes.
        matcher: ``otam``, or ``mean`` frames, which knows no order.
        softness: lambda of ``otam``.
        motion: Share of a distance that is between what is left of frames when the mean of their clip is taken off, 0 to 1.
            What stays the same in a clip drowns what changes: at 0 OTAM hardly tells a clip from its reverse.
    """
    asked, named = queries[..., :, None, :, :], classes[..., None, :, :, :]
    if matcher == "mean":
        return mean_distance(asked, named)
    pairs = frame_distances(asked, named)  # (*batch, q, way, t, t)
    if motion:
        # the mean over time taken off both
        changes = frame_distances(asked - asked.mean(-2, keepdim=True), named - named.mean(-2, keepdim=True))
        pairs = (1 - motion) * pairs + motion * changes
    return alignment_distance(pairs, softness)


def text_logits(
    frames: Float[Tensor, "*batch q t dim"], text: Float[Tensor, "*batch way dim"], gamma: Tensor | float
) -> Float[Tensor, "*batch q way"]:
    """gamma x cosine of the mean frame, before the transformer over time, with each class name."""
    return gamma * F.normalize(frames.mean(-2), dim=-1) @ F.normalize(text, dim=-1).mT


def fused(
    zero_shot: Float[Tensor, "*batch way"], few_shot: Float[Tensor, "*batch way"], frames: int, beta: float
) -> Float[Tensor, "*batch way"]:
    """p_vt^beta x p_fs^(1 - beta), brought to sum 1.  # equation (7)

    Args:
        zero_shot: Logits of the class names.
        few_shot: Distances to the prototypes.
        frames: Frames of a clip; p_fs = softmax(-distance / frames).
        beta: 0 leaves the names out, 1 the labelled clips.

    Raises:
        DataError: If ``beta`` is outside 0 to 1.
    """
    if not 0 <= beta <= 1:
        raise DataError(f"beta: expected 0 to 1, found {beta}")
    few = (-few_shot / frames).log_softmax(-1)  # an alignment distance is a sum over frames
    return (beta * zero_shot.log_softmax(-1) + (1 - beta) * few).softmax(-1)


@torch.no_grad()
def score(
    bank: VideoBank,
    episodes: Episodes,
    temporal: TemporalTransformer,
    *,
    gamma: float = 1.0,
    beta: float = 0.9,
    modulation: bool = True,
    matcher: Matcher = "otam",
    merge: Merge = "before",
    softness: float = 0.5,
    motion: float = 0.0,
) -> EpisodeScores:
    """Judge episodes; the transformer is put into evaluation mode for it and back."""
    was = temporal.training
    temporal.eval()
    parts: list[list[Tensor]] = []
    for start in range(0, len(episodes.classes), TOGETHER):
        classes, support, asked = (torch.from_numpy(each[start : start + TOGETHER]) for each in episodes)
        text = bank.text[classes]  # (e, way, dim)
        queries = bank.features[asked.flatten(1)]  # (e, way * each, t, dim), class by class
        # (way * each,): the class of each, as numbered in the episode
        truth = torch.arange(classes.shape[1]).repeat_interleave(asked.shape[2])
        named = prototypes(temporal, bank.features[support], text if modulation else None, merge)
        few = distances(temporal(queries), named, matcher, softness, motion)
        zero = text_logits(queries, text, gamma)
        both = fused(zero, few, queries.shape[-2], beta)
        parts.append([(each.argmax(-1) == truth).double().mean(-1) for each in (-few, zero, both)])
    temporal.train(was)
    few_shot, zero_shot, together = (torch.cat(each).numpy() for each in zip(*parts, strict=True))
    return EpisodeScores(few_shot, zero_shot, together)
