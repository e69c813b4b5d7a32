"""LoRA by peft: low-rank products beside the linear layers of the image tower, kept as an edit.

Paper: LoRA: Low-Rank Adaptation of Large Language Models (arXiv:2106.09685). peft trains them on a copy of the image tower; the
text tower and the class rows stay. A tower without linear layers has its convolutions adapted. Claim: ``few_shot.accuracy`` of
benchmarks/tune/few_shot.py.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt
from torch import nn

from photopic.core.edits import Edit, LowRankDelta
from photopic.core.errors import ModelError
from photopic.core.events import Steps
from photopic.core.fit import fit
from photopic.core.method import method
from photopic.core.runs import Run
from photopic.data.few_shot import FewShotTask
from photopic.learning.few_shot_batches import Training
from photopic.models.dual_encoder import TEMPLATES, DualEncoder, Templates
from photopic.tune.few_shot._common import (
    IMAGE_TOWER,
    Classifying,
    accuracy_view,
    as_edit,
    cosines,
    prepared,
)

ADAPTER = "default"  # what peft calls the only one


@dataclass(frozen=True, kw_only=True)
class LoraConfig(Training):
    """How to train; written into the edit."""

    rank: Annotated[int, Ge(1)] = 4  # width of every product; more can change more
    alpha: Annotated[float, Gt(0)] = 8.0  # strength: products are multiplied with alpha / rank


@method(
    paper="arXiv:2106.09685",
    claims="few_shot.",
    examples=("Example: photopic tune lora emoji:held-out-style --shots 4 -o lora.edit",),
    view=accuracy_view,
)
def lora(
    model: DualEncoder,
    data: FewShotTask,
    *,
    templates: Templates = TEMPLATES,
    config: LoraConfig = LoraConfig(),
    run: Run | None = None,
) -> Steps[Edit]:
    """Train low-rank products beside the linear layers of the image encoder, with peft (LoRA).

    Args:
        model: A bundled dual encoder, a folder with one of transformers, or a hub id.
        data: A few pictures of each class, and perhaps others to measure on.
        templates: Sentence with {} where a class name goes; several times.
        config: How to train.
        run: A run folder to checkpoint in and to resume from.

    Returns:
        The products.

    Raises:
        DataError: If there is one class only, a class without pictures, or a name without a token.
        ModelError: If the image tower has neither linear layers nor convolutions, or peft is not installed.

    Example:
        >>> lora(model, data).parts[0].kind  # doctest: +SKIP
        'low_rank'
    """
    rows = yield from prepared(model, data, templates)
    adapted = with_adapters(model, config)
    factors = {name: each for name, each in adapted.image_tower.named_parameters() if each.requires_grad}
    learner = Classifying(
        model, data.train, config, factors, lambda pixels: cosines(model, adapted.encode_pixels(pixels), rows)
    )
    yield from fit(learner, config.steps, run=run)
    part = exported(adapted.image_tower)
    trained = sum(each.numel() for each in factors.values())
    return as_edit([part], part.names(), model, data, rows, trained=trained)


def with_adapters(model: DualEncoder, config: LoraConfig) -> DualEncoder:
    """A copy of a model, sharing its text tower, whose image tower has peft's adapters; untrained they change nothing.

    Raises:
        ModelError: As ``lora``.
    """
    try:
        import peft
    except ImportError:
        raise ModelError("LoRA: expected peft, found it is not installed; pip install 'photopic[peft]'") from None
    text = model.network.text_model
    network = copy.deepcopy(model.network, {id(text): text})
    copied = DualEncoder(network, tokenizer=model.tokenizer, preprocess=model.preprocess, name=model.name)
    parts = dict(copied.image_tower.named_modules())
    targets = [name for name, part in parts.items() if isinstance(part, nn.Linear)]
    targets = targets or [name for name, part in parts.items() if isinstance(part, nn.Conv2d) and part.groups == 1]
    if not targets:
        raise ModelError(f"{model.name}: expected linear layers or convolutions in its image tower, found none")
    adapters = peft.LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=targets)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        peft.inject_adapter_in_model(adapters, network.vision_model, ADAPTER)
    for part in network.vision_model.modules():
        if isinstance(inner := getattr(part, "base_layer", None), nn.Conv2d):
            for name in ("stride", "kernel_size", "dilation"):  # some towers read them, and peft's layer hides them
                setattr(part, name, getattr(inner, name))
    network.eval()
    return copied


def exported(tower: nn.Module) -> LowRankDelta:
    """The adapters of an image tower as a part of an edit."""
    layers: dict[str, Any] = {
        f"{IMAGE_TOWER}{name}.weight": part for name, part in tower.named_modules() if hasattr(part, "lora_A")
    }
    up = {name: each.lora_B[ADAPTER].weight.flatten(1) for name, each in layers.items()}  # (out, rank)
    down = {
        name: each.lora_A[ADAPTER].weight.flatten(1) for name, each in layers.items()
    }  # (rank, in x height x width)
    return LowRankDelta(up, down, {name: each.scaling[ADAPTER] for name, each in layers.items()})
