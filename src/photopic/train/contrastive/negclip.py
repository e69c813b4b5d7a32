"""NegCLIP: teach a CLIP-like model to read the order of words, by captions with words exchanged and by pictures that look alike.

Half of a batch are pictures at random, half one of the nearest other pictures of each. Every caption comes with itself after two of
its phrases, nouns or adjectives changed places; such captions are negatives of the pictures and have no picture of their own.

Paper: *When and why vision-language models behave like bags-of-words, and what to do about it?* (ICLR 2023, arXiv:2210.01936).
Changed: nouns and adjectives are what a short list of function words leaves, where the paper has a tagger; two things that are only
listed stay; articles are mended; the temperature stays. Claims ``negclip.*`` of benchmarks/train/contrastive.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge
from jaxtyping import Int64

from photopic.core.edits import Edit
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.numerics.neighbours import neighbours_of
from photopic.core.runs import Run
from photopic.data.caption_swaps import swapped, swaps
from photopic.data.captioned_pictures import CaptionedPictures
from photopic.models.dual_encoder import DualEncoder
from photopic.train.contrastive._common import (
    ContrastiveTuning,
    Pick,
    TuningConfig,
    check_batch,
    plain_loss,
    tuned,
    tuned_view,
)


@dataclass(frozen=True, kw_only=True)
class NegCLIPConfig(TuningConfig):
    """How to train."""

    neighbours: Annotated[int, Ge(0)] = 3  # nearest pictures that one is drawn from, for half the batch; 0: none


@method(
    paper="arXiv:2210.01936",
    claims="negclip.",
    command="train negclip",
    examples=("Example: photopic train negclip captioned/ -o reads.edit", "Without pictures: emoji-scenes:4000"),
    view=tuned_view,
)
def negclip(
    model: DualEncoder, data: CaptionedPictures, *, config: NegCLIPConfig = NegCLIPConfig(), run: Run | None = None
) -> Steps[Edit]:
    """Teach a CLIP-like model to read the order of words, with captions whose words changed places.

    Args:
        model: A bundled dual encoder, a folder with one of transformers, or a hub id.
        data: Pictures, each with a caption; sentences that say which of two things is what.
        config: How to train.
        run: A run folder to checkpoint in and to resume from.

    Returns:
        What was added to the weights of both encoders.

    Raises:
        DataError: If all captions are the same, or no words of any can change places.

    Example:
        >>> negclip(model, data).parts[0].kind  # doctest: +SKIP
        'delta'
    """
    check_batch(data)
    count = sum(bool(swaps(caption)) for caption in data.captions)
    if not count:
        raise DataError(
            f"captions: expected words that can change places, as in 'a bear left of a cat', found none in {len(data)} "
            f"such as {data.captions[0]!r}"
        )
    yield Event("preparing", warning=f"{count:,} of {len(data):,} captions have hard negatives")
    pick = nearest(model, data, config.neighbours) if config.neighbours else None
    learner = ContrastiveTuning(model, data, config, plain_loss, pick=pick, negatives=hard_captions)
    return (yield from tuned(model, learner, run))


def hard_captions(captions: list[str], rng: np.random.Generator) -> list[str]:
    """Each caption after an exchange of words; those without one are left out."""
    found = [swapped(caption, rng) for caption in captions]
    return [text for text in found if text is not None]


def nearest(model: DualEncoder, data: CaptionedPictures, count: int) -> Pick:
    """Adds to each anchor one of its nearest other pictures, as the model sees them before it is trained."""
    features = model.image_features(data.images)  # (n, dim)
    several = neighbours_of(features, min(count, len(data) - 1)).numpy()

    def pick(anchors: Int64[np.ndarray, " n"], rng: np.random.Generator) -> Int64[np.ndarray, " m"]:
        drawn = several[anchors, rng.integers(several.shape[1], size=len(anchors))]
        # a picture that was drawn twice would be its own negative
        return np.unique(np.concatenate([anchors, drawn]))

    return pick
