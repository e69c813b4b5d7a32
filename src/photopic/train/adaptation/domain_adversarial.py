"""Domain-adversarial training: a classifier learns its classes from labelled pictures of one domain for unlabelled ones of another.

A second head tells the domains apart by the features that enter the classifier's head; its gradient reaches the network with the
sign turned, so that features are learnt that name the class and do not tell where a picture is from.

Paper: *Domain-Adversarial Training of Neural Networks* (JMLR 2016, arXiv:1505.07818). Changed: AdamW along a half cosine in place
of SGD, normalisation keeps the statistics it has, the strength may be scaled. Claims ``dann.*`` of benchmarks/train/adaptation.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from photopic.core.edits import Edit
from photopic.core.errors import DataError
from photopic.core.events import Steps
from photopic.core.fit import OptimizedTensors, fit
from photopic.core.method import method
from photopic.core.nn.hooks import tap
from photopic.core.runs import Run
from photopic.data.class_folder import ClassFolder
from photopic.data.few_shot import LabelledImages
from photopic.learning.few_shot_batches import RunningShare, Training, drawn, pictures_of
from photopic.learning.losses.gradient_reversal import adversarial_strength, reversed_gradient
from photopic.learning.shared_classes import shown_classes
from photopic.learning.trained_weights import learnt_edit, weight_copies
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Images, batched


@dataclass(frozen=True, kw_only=True)
class DomainAdversarialConfig(Training):
    """How to adapt."""

    steps: Annotated[int, Ge(1)] = 500  # steps of learning; more takes longer
    lr: Annotated[float, Gt(0)] = 1e-3  # size of a step of AdamW at first; it falls along a half cosine
    batch: Annotated[int, Ge(1)] = 64  # pictures a step of each domain, all where there are fewer
    strength: Annotated[float, Ge(0)] = (
        1.0  # how far the reversed gradient counts at the end; 0 learns from the source alone
    )
    hidden: Annotated[int, Ge(1)] = 128  # width of the domain head


@method(
    paper="arXiv:1505.07818",
    claims="dann.",
    command="train adapt",
    examples=(
        "Example: photopic train adapt emoji-resnet-64-0 source/ unlabelled/ -o adapted.edit",
        "What the source alone teaches: add --strength 0",
    ),
)
def domain_adversarial(
    model: Classifier,
    data: ClassFolder | LabelledImages,
    target: ClassFolder | Images,
    *,
    config: DomainAdversarialConfig = DomainAdversarialConfig(),
    run: Run | None = None,
) -> Steps[Edit]:
    """Teach a classifier from labelled pictures of one domain to name unlabelled pictures of another (DANN).

    Args:
        model: A classifier with the classes of the source: a bundled name, a folder of transformers, a hub id, or module:factory.
        data: The source: pictures in one sub-folder a class, named as the class.
        target: Pictures of the other domain; labels are not looked at.
        config: How to adapt.
        run: A run folder to checkpoint in and to resume from.

    Returns:
        What was added to the weights; the domain head is not kept.

    Raises:
        DataError: If the source has no sub-folders, or one of the two has no picture.
        ModelError: If the model is an exported program.

    Example:
        >>> edit = domain_adversarial(model, load_classes("source"), load_classes("unlabelled"))  # doctest: +SKIP
    """
    model.check_layers("learning")
    learner = _Adversarial(model, data, target, config)
    yield from fit(learner, config.steps, run=run)
    facts = {
        "pictures": len(data),
        "target_pictures": len(learner.target),
        "told_apart": round(learner.told.value.item(), 4),
    }
    weights = {name: each for name, each in learner.tensors.items() if name not in learner.domain}
    return learnt_edit(model, weights, facts)


class _Adversarial(OptimizedTensors):
    """The network's weights and those of the domain head, on a batch of each domain a step."""

    def __init__(
        self, model: Classifier, data: ClassFolder | LabelledImages, target: Images, config: DomainAdversarialConfig
    ):
        self.model, self.config, self.target = model, config, batched(target)
        self.source, self.labels = shown_classes(data, model.labels)
        if self.labels is None:
            raise DataError(
                "source: expected one sub-folder a class, named as the class, found pictures alone; sort them"
            )
        if not len(self.target):
            raise DataError("target: expected one picture or more, found none")
        self.domain = domain_head(model.head.in_features, config.hidden, config.seed, model)
        weights = weight_copies(model)
        optimizer = torch.optim.AdamW([*weights.values(), *self.domain.values()], lr=config.lr, weight_decay=0.0)
        super().__init__(weights | self.domain, optimizer, config.rate)
        self.told = RunningShare()

    def step(self, step: int) -> Mapping[str, float]:
        source, target = (
            self.read(images, replace(self.config, seed=self.config.seed * 2 + number), step)
            for number, images in enumerate((self.source, self.target))
        )
        index = drawn(len(self.source), replace(self.config, seed=self.config.seed * 2), step)
        classes = torch.from_numpy(self.labels[index]).to(source[0].device)  # type: ignore[index]
        strength = self.config.strength * adversarial_strength(step / self.config.steps)
        features = reversed_gradient(torch.cat([source[1], target[1]]), strength)  # (2 n, width)
        domains = torch.cat([torch.zeros(len(source[1])), torch.ones(len(target[1]))]).to(features)
        logits = self.domain_logits(features)
        named = F.cross_entropy(source[0], classes)
        self.update(named + F.binary_cross_entropy_with_logits(logits, domains), step=step)
        told = self.told.update(((logits > 0) == (domains > 0.5)).float().mean().item())
        return {"loss": named.item(), "told apart": told, "strength": strength}

    def read(
        self, images: Images, training: Training, step: int
    ) -> tuple[Float[Tensor, "n classes"], Float[Tensor, "n width"]]:
        """Logits of a batch and what enters the head, with the weights that are learnt."""
        pixels = self.model.preprocess(pictures_of(images, drawn(len(images), training, step), training, step))
        weights = {name: each for name, each in self.tensors.items() if name not in self.domain}
        with tap(self.model.network, self.model.head_name, inputs=True, detach=False) as seen:
            logits = self.model.functional(weights)(pixels)
        return logits, seen[self.model.head_name][0]

    def domain_logits(self, features: Float[Tensor, "n width"]) -> Float[Tensor, " n"]:
        """Above 0 for the target."""
        first, bias, second, last = self.domain.values()
        return F.linear(F.relu(F.linear(features, first, bias)), second, last)[:, 0]

    def state(self) -> dict[str, Tensor]:
        return super().state() | {"told": self.told.value}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        super().restore(state)
        self.told.value.copy_(state["told"])


def domain_head(width: int, hidden: int, seed: int, model: Classifier) -> dict[str, Tensor]:
    """Weights of two linear layers, drawn by the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, 1))
    return {
        f"domain.{name}": each.detach().to(model.device, model.dtype).requires_grad_()
        for name, each in layers.named_parameters()
    }
