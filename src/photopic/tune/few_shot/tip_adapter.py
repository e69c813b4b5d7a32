"""Tip-Adapter: the shots are kept as a cache beside the zero-shot classifier; Tip-Adapter-F also trains the cache's keys.

A picture's logits are those of the names plus what similar shots say: scaled cosines + alpha x exp(-beta (1 - cosine to each
shot)) x its class.

Paper: Tip-Adapter: Training-free CLIP-Adapter for Better Vision-Language Modeling (arXiv:2111.03930). Changed: alpha and beta
are chosen on held-back shots only, before keys are trained; keys are features of the pictures as they are, not means over
augmented ones. The preset ``paper`` is of the released code for ImageNet (gaopengcuhk/Tip-Adapter, configs/imagenet.yaml and
utils.py): alpha 1.17 and beta 1 where nothing is held back, its grid of 20 and 200 values, keys trained at 0.001 in batches
of 256. Not in it: AdamW with eps 1e-4, 20 epochs, and the state chosen on test pictures. Claim: ``few_shot.accuracy`` of
benchmarks/tune/few_shot.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from photopic.core.events import Event, Steps
from photopic.core.fit import fit
from photopic.core.method import method
from photopic.core.runs import Run
from photopic.data.few_shot import FewShotTask, LabelledImages
from photopic.learning.classifiers import load_classifier, save_classifier, tensor_bytes
from photopic.learning.few_shot_batches import Training, check_trainable
from photopic.models.dual_encoder import TEMPLATES, DualEncoder, Templates
from photopic.models.preprocessing import Images
from photopic.tune.few_shot._common import (
    Classifying,
    accuracy_view,
    best_setting,
    frozen_features,
    held_back,
    measured,
)


@dataclass(frozen=True, kw_only=True)
class CacheConfig(Training):
    """How to make the cache; steps, rate, batch and crops are of trained keys alone."""

    trained: bool = False  # train the keys too (Tip-Adapter-F)
    alpha: Annotated[float, Ge(0)] = 5.0  # weight of the cache, where no shot can be held back to choose it
    beta: Annotated[float, Ge(0)] = 2.0  # how fast a shot's say falls with its distance, where none can be held back
    # weights of the cache to choose from on held-back shots
    alphas: Annotated[tuple[float, ...], Ge(0)] = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
    # falls with the distance to choose from on held-back shots
    betas: Annotated[tuple[float, ...], Ge(0)] = (0.5, 1.0, 2.0, 3.5, 5.5, 10.0, 15.0)


PUBLISHED = CacheConfig(
    alpha=1.17,
    beta=1.0,
    alphas=tuple(0.1 + place * 2.9 / 20 for place in range(20)),
    betas=tuple(0.1 + place * 6.9 / 200 for place in range(200)),
    lr=1e-3,
    batch=256,
    flip=True,
)


@dataclass(frozen=True, eq=False)
class CacheClassifier:
    """The zero-shot classifier with a cache of shots.

    Attributes:
        model: The base model.
        class_embeddings: One row of length 1 a class, from its name.
        keys: Features of the shots, or what they became.
        labels: The class of each key.
        alpha: Weight of the cache; 0 is zero-shot.
        beta: How fast a shot's say falls with its distance.
        trainable: Number of parameters that were trained.
        names: Of the classes.
        provenance: See ``core.results.provenance``.
    """

    model: DualEncoder
    class_embeddings: Float[Tensor, "classes dim"]
    keys: Float[Tensor, "shots dim"]
    labels: Int64[Tensor, " shots"]
    alpha: float
    beta: float
    trainable: int = 0
    names: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def logits(self, images: Images, *, batch: int = 64) -> Float[Tensor, "n classes"]:
        """Scaled cosines with the names, plus what the cache says."""
        features = self.model.image_features(images, batch=batch)
        zero_shot = self.model.logit_scale * features @ self.class_embeddings.mT
        # f W + alpha exp(-beta (1 - f K)) L, (n, classes)
        return zero_shot + self.alpha * said(features, self.keys, self.labels, len(self.class_embeddings), self.beta)

    @property
    def size_bytes(self) -> int:
        """Bytes of the keys and their classes."""
        return tensor_bytes([self.keys, self.labels])

    def save(self, folder: str | Path) -> None:
        """Write keys, rows and settings into a folder, made if missing."""
        tensors = {"class_embeddings": self.class_embeddings, "keys": self.keys, "labels": self.labels}
        settings = {"alpha": self.alpha, "beta": self.beta, "trainable": self.trainable}
        save_classifier(folder, self.model, tensors, self.names, self.provenance, **settings)

    @classmethod
    def load(cls, folder: str | Path, model: DualEncoder) -> CacheClassifier:
        """Read what ``save`` wrote; raises as ``load_classifier``."""
        tensors, about = load_classifier(folder, model)
        fields: dict[str, Any] = {**tensors, **about["settings"]}
        return cls(model, **fields, names=tuple(about["names"]), provenance=about["provenance"])


@method(
    paper="arXiv:2111.03930",
    claims="few_shot.",
    presets={"paper": PUBLISHED},
    examples=(
        "Example: photopic tune tip-adapter emoji:held-out-style --shots 4 -o cache/",
        "Tip-Adapter-F: photopic tune tip-adapter pictures/ --trained -o cache/",
    ),
    view=accuracy_view,
)
def tip_adapter(
    model: DualEncoder,
    data: FewShotTask,
    *,
    templates: Templates = TEMPLATES,
    config: CacheConfig = CacheConfig(),
    run: Run | None = None,
) -> Steps[CacheClassifier]:
    """Keep the shots as a cache beside the class names; nothing is trained unless you ask for it.

    Args:
        model: A bundled dual encoder, a folder with one of transformers, or a hub id.
        data: A few pictures of each class, and perhaps others to measure on.
        templates: Sentence with {} where a class name goes; several times.
        config: How to make the cache, and whether to train its keys.
        run: A run folder to checkpoint in and to resume from.

    Returns:
        The names' classifier with the cache.

    Raises:
        DataError: If there is one class only, a class without pictures, or a name without a token.

    Example:
        >>> tip_adapter(model, data, config=CacheConfig(trained=True)).alpha  # doctest: +SKIP
        5.0
    """
    train = data.train
    check_trainable(train)
    rows = model.class_features(train.names, templates)
    yield Event("preparing")
    keys, labels = model.image_features(train.images), torch.from_numpy(train.labels)
    alpha, beta = _chosen(model, train, rows, config)
    trained = 0
    if config.trained:
        keys = yield from _trained(model, train, rows, keys, (alpha, beta), config, run)
        trained = keys.numel()
    found = CacheClassifier(model, rows, keys, labels, alpha, beta, trained, train.names)
    return measured(found, model, data.test, rows)


def _trained(
    model: DualEncoder,
    data: LabelledImages,
    rows: Float[Tensor, "classes dim"],
    keys: Float[Tensor, "shots dim"],
    chosen: tuple[float, float],
    config: CacheConfig,
    run: Run | None,
) -> Steps[Float[Tensor, "shots dim"]]:
    """The keys after training; alpha and beta stay as they were chosen."""
    alpha, beta = chosen
    learnt, rows = keys.to(model.device).requires_grad_(), rows.to(model.device)
    labels = torch.from_numpy(data.labels).to(model.device)

    def logits(pixels: Tensor) -> Tensor:
        features = frozen_features(model, pixels)  # (batch, dim)
        zero_shot = model.logit_scale * features @ rows.mT  # (batch, classes)
        return zero_shot + alpha * said(features, learnt, labels, len(rows), beta)

    yield from fit(Classifying(model, data, config, {"keys": learnt}, logits), config.steps, run=run)
    return learnt.detach().cpu()


def said(
    features: Float[Tensor, "n dim"],
    keys: Float[Tensor, "shots dim"],
    labels: Int64[Tensor, " shots"],
    classes: int,
    beta: float,
) -> Float[Tensor, "n classes"]:
    """What the cache says of each class: exp(-beta (1 - cosine)) summed over its shots."""
    affinity = torch.exp(-beta * (1 - features @ keys.mT))  # (n, dim) @ (dim, shots) -> (n, shots)
    return affinity @ F.one_hot(labels, classes).to(affinity.dtype)  # (n, shots) @ (shots, classes)


def _chosen(
    model: DualEncoder, data: LabelledImages, rows: Float[Tensor, "classes dim"], config: CacheConfig
) -> tuple[float, float]:
    """alpha and beta that are best on held-back shots with a cache of the others."""
    parts = held_back(data, config.seed)
    if parts is None:
        return config.alpha, config.beta
    kept, held = parts
    keys, labels = model.image_features(kept.images), torch.from_numpy(kept.labels)
    features = model.image_features(held.images)
    zero_shot = model.logit_scale * features @ rows.mT
    answers = {beta: said(features, keys, labels, len(rows), beta) for beta in config.betas}  # (n, classes) each
    settings = ((alpha, beta) for beta in config.betas for alpha in config.alphas)
    return best_setting(settings, lambda each: zero_shot + each[0] * answers[each[1]], torch.from_numpy(held.labels))
