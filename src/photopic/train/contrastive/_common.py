"""The trainer of the family: a copy of both encoders, batches of pictures and captions, and a loss that makes the difference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, TypeAlias

import numpy as np
import torch
from annotated_types import Ge, Gt
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from photopic.core.config import Config
from photopic.core.edits import Edit
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.fit import OptimizedTensors, fit
from photopic.core.runs import Run
from photopic.core.view import Section, Table, View
from photopic.data.captioned_pictures import CaptionedPictures
from photopic.learning.few_shot_batches import Training, drawn
from photopic.learning.losses.contrastive import info_nce
from photopic.learning.trained_weights import learnt_edit
from photopic.models.dual_encoder import COMPONENT, DualEncoder

SCALE = "logit_scale"  # stays as it is: losses without a bound would shrink the temperature for ever


@dataclass(frozen=True, kw_only=True)
class TuningConfig(Config):
    """How to train."""

    steps: Annotated[int, Ge(1)] = 200  # steps of learning; more takes longer
    batch: Annotated[int, Ge(2)] = 64  # pictures a step, all where there are fewer; each is a negative of the others
    lr: Annotated[float, Gt(0)] = 1e-4  # size of a step of AdamW at first; it falls along a half cosine
    seed: Annotated[int, Ge(0)] = 0  # seed of everything random; the same seed learns the same


@dataclass(frozen=True)
class Batch:
    """What a loss sees of a step.

    Attributes:
        images: Of length 1.
        texts: Of length 1: the caption of each picture, then perhaps captions of none of them.
        right: 1 where a text is the caption of a picture, word for word.
        scale: The model's inverse temperature.
        rng: For what a loss draws.
    """

    images: Float[Tensor, "n dim"]
    texts: Float[Tensor, "m dim"]
    right: Float[Tensor, "n m"]
    scale: float
    rng: np.random.Generator

    @property
    def captions(self) -> Float[Tensor, "n dim"]:
        """The texts that belong to the pictures, in their order."""
        return self.texts[: len(self.images)]

    @property
    def square(self) -> Float[Tensor, "n n"]:
        """``right`` of these."""
        return self.right[:, : len(self.images)]


Loss: TypeAlias = Callable[[Batch], Float[Tensor, ""]]
Pick: TypeAlias = Callable[[Int64[np.ndarray, " n"], np.random.Generator], Int64[np.ndarray, " m"]]
Rewrite: TypeAlias = Callable[[list[str], np.random.Generator], list[str]]


def plain_loss(batch: Batch) -> Float[Tensor, ""]:
    """CLIP's: every picture finds its caption among all texts, every caption its picture."""
    return info_nce(batch.scale * batch.images @ batch.texts.mT, batch.right)


class ContrastiveTuning(OptimizedTensors):
    """A learner of both encoders.

    Args:
        model: Stays as it is; a copy is learnt.
        data: Pictures and captions.
        config: How.
        loss: Of a batch.
        pick: From the places of anchors those of the whole batch; None: the anchors.
        negatives: From the captions of a batch texts that belong to none of its pictures; None: none.
    """

    def __init__(
        self,
        model: DualEncoder,
        data: CaptionedPictures,
        config: TuningConfig,
        loss: Loss,
        *,
        pick: Pick | None = None,
        negatives: Rewrite | None = None,
    ):
        self.data, self.config, self.loss, self.pick, self.negatives = data, config, loss, pick, negatives
        network = deepcopy(model.network)
        self.copy = DualEncoder(network, tokenizer=model.tokenizer, preprocess=model.preprocess, name=model.name)
        tensors = {
            f"{COMPONENT}.{name}": each.requires_grad_()
            for name, each in network.named_parameters()
            if name != SCALE and each.is_floating_point()
        }
        # no decay: what the contrast does not move stays where the base has it
        optimizer = torch.optim.AdamW(tensors.values(), lr=config.lr, weight_decay=0.0)
        self.batches = Training(steps=config.steps, lr=config.lr, batch=config.batch, seed=config.seed)
        if pick is not None:  # half the batch are anchors, half what is picked for them
            self.batches = Training(steps=config.steps, lr=config.lr, batch=max(1, config.batch // 2), seed=config.seed)
        super().__init__(tensors, optimizer, self.batches.rate)

    def step(self, step: int) -> Mapping[str, float]:
        """One step down the loss of a batch."""
        batch = self.batch(step)
        loss = self.loss(batch)
        self.update(loss, step=step)
        with torch.no_grad():
            logits = batch.images @ batch.captions.mT  # (n, n)
            found = batch.square.gather(1, logits.argmax(1, keepdim=True)).mean()
        return {"loss": loss.item(), "accuracy": found.item()}

    def batch(self, step: int) -> Batch:
        """Of a step: a function of the seed, the step and the weights."""
        rng = np.random.default_rng((self.config.seed, 3, step))
        places = drawn(len(self.data), self.batches, step)
        if self.pick is not None:
            places = self.pick(places, rng)
        captions = [self.data.captions[place] for place in places.tolist()]
        texts = captions + (self.negatives(captions, rng) if self.negatives is not None else [])
        right = [[text == caption for text in texts] for caption in captions]  # (n, m)
        images = self.copy.encode_pixels(self.copy.preprocess(self.data.images[places]))
        return Batch(
            F.normalize(images, dim=-1),
            F.normalize(self.copy.encode_texts(texts), dim=-1),
            torch.tensor(right, dtype=images.dtype, device=images.device),
            self.copy.logit_scale,
            rng,
        )


def tuned(model: DualEncoder, learner: ContrastiveTuning, run: Run | None) -> Steps[Edit]:
    """Train, and tell what was added to the weights; before, how many captions are longer than what the model reads."""
    ids = model.tokenizer(list(learner.data.captions), verbose=False).input_ids
    if cut := sum(len(each) > model.longest_text for each in ids):
        text = f"{cut:,} of {len(ids):,} captions are cut: the model reads {model.longest_text} tokens"
        yield Event("preparing", warning=text)
    yield from fit(learner, learner.config.steps, run=run)
    facts = {"pictures": len(learner.data), "trained": sum(each.numel() for each in learner.tensors.values())}
    return learnt_edit(model, learner.tensors, facts)


def check_batch(data: CaptionedPictures) -> None:
    """Refuse captions that are all the same: nothing could be told apart.

    Raises:
        DataError: If they are.
    """
    if len(set(data.captions)) < 2:
        raise DataError(f"captions: expected two or more that differ, found only {data.captions[0]!r}")


def tuned_view(edit: Edit) -> View:
    """What was learnt from."""
    facts = [[name, f"{edit.provenance[name]:,}"] for name in ("pictures", "trained")]
    return View("Trained with captions", [Section("", [Table(["", ""], facts)])])
