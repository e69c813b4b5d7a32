"""BitFit: only the biases of the image tower are trained, those of its normalisations included.

Paper: BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked Language-models (arXiv:2106.10199). Changed: an
image tower, and no new head, since the class names make one. The result is an edit of values. Claim: ``few_shot.accuracy`` of
benchmarks/tune/few_shot.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from photopic.core.edits import Edit, SparseWeights
from photopic.core.errors import ModelError
from photopic.core.events import Steps
from photopic.core.method import method
from photopic.core.runs import Run
from photopic.data.few_shot import FewShotTask
from photopic.learning.few_shot_batches import Training
from photopic.models.dual_encoder import TEMPLATES, DualEncoder, Templates
from photopic.tune.few_shot._common import accuracy_view, as_edit, image_parameters, learn_weights, prepared


@dataclass(frozen=True, kw_only=True)
class BiasOnlyConfig(Training):
    """How to train; written into the edit."""


@method(
    paper="arXiv:2106.10199",
    claims="few_shot.",
    examples=("Example: photopic tune bias-only emoji:held-out-style --shots 4 -o biases.edit",),
    view=accuracy_view,
)
def bias_only(
    model: DualEncoder,
    data: FewShotTask,
    *,
    templates: Templates = TEMPLATES,
    config: BiasOnlyConfig = BiasOnlyConfig(),
    run: Run | None = None,
) -> Steps[Edit]:
    """Train the biases of the image encoder alone, those of its normalisations included (BitFit).

    Args:
        model: A bundled dual encoder, a folder with one of transformers, or a hub id.
        data: A few pictures of each class, and perhaps others to measure on.
        templates: Sentence with {} where a class name goes; several times.
        config: How to train.
        run: A run folder to checkpoint in and to resume from.

    Returns:
        The values of the biases.

    Raises:
        DataError: If there is one class only, a class without pictures, or a name without a token.
        ModelError: If the image tower has no bias.

    Example:
        >>> bias_only(model, data).provenance["trained"]  # doctest: +SKIP
        4736
    """
    biases = [name for name in image_parameters(model) if name.endswith(".bias")]
    if not biases:
        raise ModelError(f"{model.name}: expected biases in its image tower to train, found none; use LoRA instead")
    rows = yield from prepared(model, data, templates)
    found = yield from learn_weights(model, data.train, config, biases, rows, run)
    values = {name: tensor.reshape(-1) for name, tensor in found.items()}  # (n,) each: every entry of a bias is stored
    part = SparseWeights({name: torch.arange(value.numel()) for name, value in values.items()}, values)
    return as_edit([part], biases, model, data, rows, trained=part.count)
