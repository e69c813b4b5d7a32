"""Go on training both encoders of a CLIP-like model on pictures and captions, by CLIP's own contrast.

The plain loss of its family, and the baseline that NegCLIP, geodesic mixup and CLOOB are measured against.

Paper: *Learning Transferable Visual Models From Natural Language Supervision* (arXiv:2103.00020). Changed: the temperature stays
as the model has it.
"""

from __future__ import annotations

from dataclasses import dataclass

from photopic.core.edits import Edit
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.runs import Run
from photopic.data.captioned_pictures import CaptionedPictures
from photopic.models.dual_encoder import DualEncoder
from photopic.train.contrastive._common import (
    ContrastiveTuning,
    TuningConfig,
    check_batch,
    plain_loss,
    tuned,
    tuned_view,
)


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig(TuningConfig):
    """How to train."""


@method(
    paper="arXiv:2103.00020",
    command="train contrastive",
    examples=("Example: photopic train contrastive captioned/ -o mine.edit",),
    view=tuned_view,
)
def contrastive(
    model: DualEncoder,
    data: CaptionedPictures,
    *,
    config: ContrastiveConfig = ContrastiveConfig(),
    run: Run | None = None,
) -> Steps[Edit]:
    """Go on training a CLIP-like model on your captioned pictures, as CLIP was trained.

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
        >>> contrastive(model, data).parts[0].kind  # doctest: +SKIP
        'delta'
    """
    check_batch(data)
    yield Event("preparing")
    return (yield from tuned(model, ContrastiveTuning(model, data, config, plain_loss), run))
