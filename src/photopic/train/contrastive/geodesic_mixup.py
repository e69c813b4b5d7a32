"""Geodesic multi-modal mixup: hard negatives that are mixtures of a picture and its caption on the unit sphere.

CLIP-like models keep pictures and texts in two narrow cones, and plain fine-tuning leaves them there. A mixture on the great arc
between a picture and its caption lies between the cones, and pushing it away from other pairs spreads both.

Paper: *Geodesic Multi-Modal Mixup for Robust Fine-Tuning* (NeurIPS 2023, arXiv:2203.03897). Changed: the temperature stays; a
caption that occurs twice in a batch is no negative of its twin. Claims ``geodesic_mixup.*`` of benchmarks/train/contrastive.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from jaxtyping import Float
from torch import Tensor

from photopic.core.edits import Edit
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.runs import Run
from photopic.data.captioned_pictures import CaptionedPictures
from photopic.learning.losses.contrastive import multi_positive_contrast
from photopic.learning.losses.geodesic import geodesic, mixed_negatives
from photopic.models.dual_encoder import DualEncoder
from photopic.train.contrastive._common import (
    Batch,
    ContrastiveTuning,
    Loss,
    TuningConfig,
    check_batch,
    plain_loss,
    tuned,
    tuned_view,
)


@dataclass(frozen=True, kw_only=True)
class GeodesicMixupConfig(TuningConfig):
    """How to train."""

    beta: Annotated[float, Gt(0)] = 0.5  # shares are drawn from Beta(beta, beta): small ones lie near the ends
    mixed: Annotated[float, Ge(0)] = 1.0  # weight of negatives between each picture and its caption (m2-Mix)
    within: Annotated[float, Ge(0)] = 0.0  # weight of mixtures of two pictures, two captions, and both (V-, L-, VL-Mix)


@method(
    paper="arXiv:2203.03897",
    claims="geodesic_mixup.",
    presets={"paper": GeodesicMixupConfig(within=1.0)},
    command="train geodesic-mixup",
    examples=("Example: photopic train geodesic-mixup captioned/ -o spread.edit",),
    view=tuned_view,
)
def geodesic_mixup(
    model: DualEncoder,
    data: CaptionedPictures,
    *,
    config: GeodesicMixupConfig = GeodesicMixupConfig(),
    run: Run | None = None,
) -> Steps[Edit]:
    """Go on training a CLIP-like model so that its embeddings use more of the sphere, by mixtures as hard negatives.

    Args:
        model: A bundled dual encoder, a folder with one of transformers, or a hub id.
        data: Pictures, each with a caption.
        config: How to train.
        run: A run folder to checkpoint in and to resume from.

    Returns:
        What was added to the weights of both encoders.

    Raises:
        DataError: If all captions are the same.

    Example:
        >>> geodesic_mixup(model, data).parts[0].kind  # doctest: +SKIP
        'delta'
    """
    check_batch(data)
    yield Event("preparing")
    return (yield from tuned(model, ContrastiveTuning(model, data, config, mixup_loss(config)), run))


def mixup_loss(config: GeodesicMixupConfig) -> Loss:
    """CLIP's contrast, the one with mixed negatives in both directions, and those of mixtures within a modality."""

    def loss(batch: Batch) -> Float[Tensor, ""]:
        total, images, texts = plain_loss(batch), batch.images, batch.captions
        if config.mixed:
            mixed = geodesic(images, texts, _shares(batch, config.beta, len(images)))  # (n, dim)
            pairs = ((images, texts), (texts, images))
            both = [mixed_negatives(*pair, mixed, batch.square, batch.scale) for pair in pairs]
            total = total + config.mixed * (both[0] + both[1]) / 2
        if config.within:
            total = total + config.within * _within(batch, config.beta)
        return total

    return loss


def _within(batch: Batch, beta: float) -> Float[Tensor, ""]:
    """V-, L- and VL-Mix: each pair mixed with the one as far from the end, one share for all, both right by their shares."""
    images, texts, (share,) = batch.images, batch.captions, _shares(batch, beta, 1)
    mixed = [geodesic(each, each.flip(0), share.expand(len(each), 1)) for each in (images, texts)]
    once = torch.eye(len(images), dtype=images.dtype, device=images.device)
    both = share * once + (1 - share) * once.flip(1)  # (n, n): the weight of each as a positive
    parts = [
        _both_ways(mixed[0] @ texts.mT, both, batch.scale),
        _both_ways(mixed[1] @ images.mT, both, batch.scale),
        _both_ways(mixed[0] @ mixed[1].mT, once, batch.scale),
    ]
    return torch.stack(parts).sum()


def _both_ways(cosines: Float[Tensor, "n n"], weights: Float[Tensor, "n n"], scale: float) -> Float[Tensor, ""]:
    logits = scale * cosines
    return (multi_positive_contrast(logits, weights) + multi_positive_contrast(logits.mT, weights.mT)) / 2


def _shares(batch: Batch, beta: float, count: int) -> Float[Tensor, "count 1"]:
    drawn = batch.rng.beta(beta, beta, size=(count, 1))
    return torch.from_numpy(drawn).to(batch.images)
