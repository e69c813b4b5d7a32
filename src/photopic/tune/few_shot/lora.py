"""LoRA by peft: low-rank products beside the linear layers of the image tower, kept as an edit.

Paper: LoRA: Low-Rank Adaptation of Large Language Models (arXiv:2106.09685). peft trains them on a copy of the image tower; the
text tower and the class rows stay. A tower without linear layers has its convolutions adapted. Claim: ``few_shot.accuracy`` of
benchmarks/tune/few_shot.py.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from photopic.core.edits import LowRankDelta
from photopic.core.errors import DataError, ModelError
from photopic.data.few_shot import LabelledImages
from photopic.learning.classifiers import TextClassifier
from photopic.learning.few_shot_batches import Step, Training
from photopic.models.dual_encoder import TEMPLATES, DualEncoder
from photopic.tune.few_shot._common import IMAGE_TOWER, check_bare, cosines, done, edit_of, fit

ADAPTER = "default"  # what peft calls the only one


@dataclass(frozen=True)
class LoraConfig:
    """How to train; written into the edit."""

    rank: int = 4  # of every product
    alpha: float = 8.0  # products are multiplied with alpha / rank
    training: Training = field(default_factory=lambda: Training(steps=200, lr=1e-2))  # Adam

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise DataError(f"rank: expected 1 or more, found {self.rank}")


def lora(
    model: DualEncoder,
    data: LabelledImages,
    *,
    config: LoraConfig = LoraConfig(),
    templates: Sequence[str] = TEMPLATES,
) -> Iterator[Step]:
    """Train low-rank products, reporting after every step; the last event carries a ``TextClassifier`` as ``tuned``.

    Args:
        model: Its weights are never written.
        data: The shots.
        config: How to train.
        templates: Sentences with ``{}`` where a class name goes.

    Raises:
        DataError: If there is one class only, a class without pictures, or a name without a token.
        EditError: If the model has edits applied.
        ModelError: If the image tower has neither linear layers nor convolutions, or peft is not installed.

    Example:
        >>> finished(lora(model, data)).edit.parts[0].kind  # doctest: +SKIP
        'low_rank'
    """
    check_bare(model)
    rows = model.class_features(data.names, templates).to(model.device)
    adapted = with_adapters(model, config)
    factors = [each for each in adapted.image_tower.parameters() if each.requires_grad]
    last = Step("preparing")
    for last in fit(
        model, data, config.training, factors, lambda pixels: cosines(model, adapted.encode_pixels(pixels), rows)
    ):
        yield last
    part = exported(adapted.image_tower)
    edit = edit_of(part, part.names(), model, data, "lora", config)
    trained = sum(each.numel() for each in factors)
    yield done(config.training, last, TextClassifier(model, rows.cpu(), edit, trained, templates=templates))


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
        torch.manual_seed(config.training.seed)
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
