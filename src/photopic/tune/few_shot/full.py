"""Full fine-tuning: every weight of the image tower is trained on the shots; the text tower and its class rows stay.

The plain baseline of every few-shot paper, here with the budget of the others. Batch normalisations stay in evaluation mode. The
result is a dense delta. Claim: ``few_shot.accuracy`` of benchmarks/tune/few_shot.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt

from photopic.core.edits import DenseDelta, Edit
from photopic.core.events import Steps
from photopic.core.method import method
from photopic.core.runs import Run
from photopic.data.few_shot import FewShotTask
from photopic.learning.few_shot_batches import Training
from photopic.models.dual_encoder import TEMPLATES, DualEncoder, Templates
from photopic.tune.few_shot._common import accuracy_view, as_edit, image_parameters, learn_weights, prepared


@dataclass(frozen=True, kw_only=True)
class FullConfig(Training):
    """How to train; written into the edit."""

    lr: Annotated[float, Gt(0)] = 3e-4  # size of a step at first; it falls along a half cosine


@method(
    claims="few_shot.",
    command="tune full",
    examples=("Example: photopic tune full emoji:held-out-style --shots 4 -o full.edit",),
    view=accuracy_view,
)
def full_fine_tuning(
    model: DualEncoder,
    data: FewShotTask,
    *,
    templates: Templates = TEMPLATES,
    config: FullConfig = FullConfig(),
    run: Run | None = None,
) -> Steps[Edit]:
    """Train every weight of the image encoder: the plain baseline, and the largest file.

    Args:
        model: A bundled dual encoder, a folder with one of transformers, or a hub id.
        data: A few pictures of each class, and perhaps others to measure on.
        templates: Sentence with {} where a class name goes; several times.
        config: How to train.
        run: A run folder to checkpoint in and to resume from.

    Returns:
        What was added to the weights.

    Raises:
        DataError: If there is one class only, a class without pictures, or a name without a token.

    Example:
        >>> full_fine_tuning(model, data).parts[0].kind  # doctest: +SKIP
        'delta'
    """
    base, rows = image_parameters(model), (yield from prepared(model, data, templates))
    found = yield from learn_weights(model, data.train, config, list(base), rows, run)
    deltas = {name: tensor - base[name] for name, tensor in found.items()}
    deltas = {name: delta for name, delta in deltas.items() if bool(delta.any())}  # what did not move is not stored
    trained = sum(each.numel() for each in base.values())
    return as_edit([DenseDelta(deltas)], list(deltas), model, data, rows, trained=trained)
