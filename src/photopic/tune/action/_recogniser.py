"""The model that few-shot action recognition gives back: names videos by a few labelled clips of each class, by names, or by both.

It is a dual encoder with a small transformer over time beside it. It can be saved in a folder and loaded again; the dual encoder's
own weights are never in the folder, a tuned image tower is there as an edit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor

from photopic.core.config import Config, Sentence
from photopic.core.edits import DenseDelta, Edit
from photopic.core.edits import file as edit_file
from photopic.core.errors import DataError, ModelError
from photopic.core.runs import write_atomically
from photopic.data.clips import Clips, Videos
from photopic.data.episodes import Episodes, draw_episodes
from photopic.learning.classifiers import load_tensors
from photopic.models.dual_encoder import DualEncoder
from photopic.models.video_tower import TemporalTransformer, frame_features, text_features_of_any_length
from photopic.tune.action._episodes import (
    EpisodeScores,
    Matcher,
    Merge,
    VideoBank,
    distances,
    fused,
    prototypes,
    score,
    text_logits,
)

FILE, TOWER = "action.safetensors", "tower.edit"
FORMAT = 1


@dataclass(frozen=True)
class Recognition(Config):
    """How videos are compared; what training used belongs to what it made."""

    modulation: bool = True  # let the class name correct what a few clips say of the class
    matcher: Matcher = "otam"  # otam: compare clips frame by frame in order of time; mean: compare their mean frames
    merge: Merge = "before"  # average the clips of a class before the transformer over time, or after
    softness: Annotated[float, Ge(0)] = 0.5  # lambda of the soft minimum of otam; 0 is the hard one
    # share of a distance that is between what changes in a clip; 0, as published, hardly knows the order of frames
    motion: Annotated[float, Ge(0), Le(1)] = 0.5
    # sentence with {} where a class name goes; no article, as in the published code
    template: Annotated[str, Sentence()] = "a photo of {}"
    heads: Annotated[int, Ge(1)] = 8  # heads of attention over time, fewer where the width is no multiple
    hidden: Annotated[int, Ge(1)] = 2048  # width of the feed-forward network over time
    depth: Annotated[int, Ge(1)] = 1  # layers of the transformer over time


@dataclass(frozen=True)
class Named:
    """Probabilities of the classes of each video, each (videos, classes).

    Attributes:
        few_shot: By the labelled clips.
        zero_shot: By the class names.
        fused: By both.
    """

    few_shot: Float[Tensor, "n classes"]
    zero_shot: Float[Tensor, "n classes"]
    fused: Float[Tensor, "n classes"]


@dataclass(frozen=True, eq=False)
class ActionRecogniser:
    """Names videos.

    Attributes:
        model: The dual encoder; its weights are as they were before and after every call.
        temporal: The transformer over time.
        gamma: What cosines of videos and names are multiplied with.
        how: How videos are compared.
        edit: The change of the image tower, or None where it was frozen.
        provenance: See ``core.results.provenance``; ``test`` holds the accuracy on test classes.

    Example:
        >>> found = recogniser.name(support, videos)  # doctest: +SKIP
        >>> [support.names[best] for best in found.few_shot.argmax(1)]  # doctest: +SKIP
        ['bear sliding left', 'mug growing']
    """

    model: DualEncoder
    temporal: TemporalTransformer
    gamma: float
    how: Recognition
    edit: Edit | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def trainable(self) -> int:
        """Number of parameters that were trained."""
        parts = self.edit.of(DenseDelta) if self.edit else []
        tower = sum(delta.numel() for part in parts for delta in part.deltas.values())
        return 1 + sum(each.numel() for each in self.temporal.parameters()) + tower

    def bank(self, clips: Clips) -> VideoBank:
        """Clips as features, with the tuned image tower if there is one; raises as ``VideoBank.of``."""
        return self._with_edit(partial(VideoBank.of, self.model, clips, self.how.template))

    @torch.no_grad()
    def name(self, support: Clips, videos: Videos, *, beta: float = 0.9) -> Named:
        """Name videos by labelled clips.

        Args:
            support: One clip or more of each class; several of a class are averaged.
            videos: Each uint8 (frames, h, w, 3), with as many frames as the labelled clips.
            beta: The share of the names in ``fused``.

        Raises:
            DataError: If a video has another number of frames, ``beta`` is outside 0 to 1, or a class name has no token.

        Example:
            >>> recogniser.name(support, videos).fused.sum(1)  # doctest: +SKIP
            tensor([1., 1.])
        """
        bank = self.bank(support)
        queries = self._with_edit(partial(frame_features, self.model, videos))
        if queries.shape[1] != bank.features.shape[1]:
            raise DataError(
                f"videos: expected {bank.features.shape[1]} frames as the labelled clips, found {queries.shape[1]}"
            )
        named = []
        for label in range(len(bank.names)):
            shots = bank.features[torch.from_numpy(bank.labels == label)]
            text = bank.text[None, label] if self.how.modulation else None
            named.append(prototypes(self.temporal, shots[None], text, self.how.merge)[0])
        few = distances(
            self.temporal(queries), torch.stack(named), self.how.matcher, self.how.softness, self.how.motion
        )
        zero = text_logits(queries, bank.text, self.gamma)
        frames = queries.shape[1]
        return Named((-few).softmax(-1), zero.softmax(-1), fused(zero, few, frames, beta))

    @torch.no_grad()
    def name_zero_shot(self, videos: Videos, names: Sequence[str]) -> Float[Tensor, "n classes"]:
        """Probabilities of classes by their names alone; raises as ``name``.

        Example:
            >>> recogniser.name_zero_shot(videos, ["bear sliding left", "mug growing"]).shape  # doctest: +SKIP
            torch.Size([2, 2])
        """
        text = text_features_of_any_length(self.model, names, self.how.template)
        queries = self._with_edit(partial(frame_features, self.model, videos))
        return text_logits(queries, text, self.gamma).softmax(-1)

    def evaluate(
        self,
        clips: Clips | VideoBank,
        *,
        way: int = 5,
        shots: int = 1,
        episodes: int = 1000,
        queries: int = 1,
        beta: float = 0.9,
        seed: int = 0,
    ) -> EpisodeScores:
        """Accuracy in random episodes.

        Args:
            clips: Of classes that were not trained on, or their features as ``bank`` makes them.
            way: Classes an episode.
            shots: Labelled clips a class.
            episodes: How many.
            queries: Judged clips a class.
            beta: The share of the names in ``fused``.
            seed: Of the episodes.

        Raises:
            DataError: If there are fewer classes than ``way``, or a class has too few clips.

        Example:
            >>> recogniser.evaluate(clips, shots=5).interval("fused")  # doctest: +SKIP
            Interval(value=0.81, low=0.80, high=0.82)
        """
        bank = clips if isinstance(clips, VideoBank) else self.bank(clips)
        drawn = draw_episodes(
            bank.labels, bank.names, episodes=episodes, way=way, shots=shots, queries=queries, seed=seed
        )
        return self.judge(bank, drawn, beta=beta)

    def judge(self, bank: VideoBank, episodes: Episodes, *, beta: float = 0.9) -> EpisodeScores:
        """Accuracy in given episodes.

        Args:
            bank: What the episodes were drawn from.
            episodes: Which clips are labelled and judged.
            beta: The share of the names in ``fused``.

        Raises:
            DataError: If ``beta`` is outside 0 to 1.

        Example:
            >>> recogniser.judge(bank, draw_episodes(bank.labels, bank.names, episodes=9)).few_shot.shape  # doctest: +SKIP
            (9,)
        """
        how = self.how
        return score(
            bank,
            episodes,
            self.temporal,
            gamma=self.gamma,
            beta=beta,
            modulation=how.modulation,
            matcher=how.matcher,
            merge=how.merge,
            softness=how.softness,
            motion=how.motion,
        )

    def save(self, folder: str | Path) -> None:
        """Write ``action.safetensors`` and, where the image tower was tuned, ``tower.edit`` into a folder, made if missing."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        state = {"temporal." + name: value.contiguous() for name, value in self.temporal.state_dict().items()}
        state["gamma"] = torch.tensor(self.gamma, dtype=torch.float64)
        about = {
            "format": FORMAT,
            "how": asdict(self.how),
            "base": {"name": self.model.name, "digest": self.model.digest()},
            "tower": self.edit is not None,
            "provenance": dict(self.provenance),
        }
        if self.edit:
            edit_file.save(self.edit, target / TOWER)
        else:
            (target / TOWER).unlink(missing_ok=True)
        write_atomically(target / FILE, save(state, metadata={"photopic": json.dumps(about, sort_keys=True)}))

    @classmethod
    def load(cls, folder: str | Path, model: DualEncoder) -> ActionRecogniser:
        """Read what ``save`` wrote.

        Args:
            folder: The folder.
            model: The dual encoder it was made for.

        Raises:
            ModelError: If the folder holds no such model, a damaged one, or one of another dual encoder.

        Example:
            >>> ActionRecogniser.load("out", DualEncoder.load("emoji-clip-vit"))  # doctest: +SKIP
        """
        path = Path(folder) / FILE
        state, about = load_tensors(path, model)
        try:
            how, tuned, version = Recognition(**about["how"]), about["tower"], about["format"]
            gamma = float(state.pop("gamma"))
            width = state["temporal.layers.0.norm.weight"].shape[0]
            temporal = TemporalTransformer(width, heads=how.heads, hidden=how.hidden, depth=how.depth)
            temporal.load_state_dict({name.removeprefix("temporal."): value for name, value in state.items()})
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelError(f"{path}: expected what photopic tune action wrote, found {error}") from error
        if version != FORMAT or not all(bool(value.isfinite().all()) for value in state.values()):
            raise ModelError(f"{path}: expected format {FORMAT} with finite weights, found another; train it again")
        edit = edit_file.load(Path(folder) / TOWER) if tuned else None
        return cls(model, temporal.eval(), gamma, how, edit, about.get("provenance", {}))

    def _with_edit(self, read: Any) -> Any:
        if self.edit is None:
            return read()
        with self.model.edits.applied(self.edit):
            return read()


def recognition_of(config: Any) -> Recognition:
    """The part of a training's configuration that says how videos are compared."""
    return Recognition(**{each.name: getattr(config, each.name) for each in fields(Recognition)})
