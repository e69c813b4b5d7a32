"""CLOOB: a contrast that does not saturate, between embeddings that a Hopfield network gave back from the batch.

Every embedding is replaced by what the batch holds of its kind, so that a contrast sees what several examples have in common
rather than what one is known by; the positive stands outside the denominator, so its pull does not fade as it comes near.

Paper: *CLOOB: Modern Hopfield Networks with InfoLOOB Outperform CLIP* (NeurIPS 2022, arXiv:2110.11316). Changed: here a trained
encoder goes on, where the paper trains from the beginning; captions that occur twice in a batch are no negatives. Temperature and
beta are fixed, as published. Claims ``cloob.*`` of benchmarks/train/contrastive.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt
from jaxtyping import Float
from torch import Tensor

from photopic.core.edits import Edit
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.runs import Run
from photopic.data.captioned_pictures import CaptionedPictures
from photopic.learning.losses.contrastive import info_loob, retrieved
from photopic.models.dual_encoder import DualEncoder
from photopic.train.contrastive._common import (
    Batch,
    ContrastiveTuning,
    Loss,
    TuningConfig,
    check_batch,
    tuned,
    tuned_view,
)


@dataclass(frozen=True, kw_only=True)
class CLOOBConfig(TuningConfig):
    """How to train."""

    beta: Annotated[float, Gt(0)] = (
        8.0  # inverse temperature of the retrieval; the larger, the fewer examples are mixed
    )
    scale: Annotated[float, Gt(0)] = 30.0  # inverse temperature of the contrast, fixed: the loss has no bound


@method(
    paper="arXiv:2110.11316",
    claims="cloob.",
    command="train cloob",
    examples=("Example: photopic train cloob captioned/ -o cloob.edit",),
    view=tuned_view,
)
def cloob(
    model: DualEncoder, data: CaptionedPictures, *, config: CLOOBConfig = CLOOBConfig(), run: Run | None = None
) -> Steps[Edit]:
    """Go on training a CLIP-like model by a contrast that does not saturate, between embeddings retrieved from the batch.

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
        >>> cloob(model, data).parts[0].kind  # doctest: +SKIP
        'delta'
    """
    check_batch(data)
    yield Event("preparing")
    return (yield from tuned(model, ContrastiveTuning(model, data, config, cloob_loss(config)), run))


def cloob_loss(config: CLOOBConfig) -> Loss:
    """InfoLOOB of pictures' and texts' retrievals from the pictures, and of theirs from the texts."""

    def loss(batch: Batch) -> Float[Tensor, ""]:
        images, texts = batch.images, batch.captions
        from_images = [retrieved(each, images, config.beta) for each in (images, texts)]  # U_x, U_y: (n, dim)
        from_texts = [retrieved(each, texts, config.beta) for each in (images, texts)]  # V_x, V_y
        # an anchor of the first term is a text, U_y against all U_x; of the second a picture, V_x against all V_y
        first = config.scale * from_images[1] @ from_images[0].mT
        second = config.scale * from_texts[0] @ from_texts[1].mT
        return info_loob(first, batch.square.mT) + info_loob(second, batch.square)

    return loss
