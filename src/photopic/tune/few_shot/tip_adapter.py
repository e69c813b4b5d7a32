"""Tip-Adapter: the shots are kept as a cache beside the zero-shot classifier; Tip-Adapter-F also trains the cache's keys.

A picture's logits are those of the names plus what similar shots say: scaled cosines + alpha x exp(-beta (1 - cosine to each
shot)) x its class.

Paper: Tip-Adapter: Training-free CLIP-Adapter for Better Vision-Language Modeling (arXiv:2111.03930). Changed: alpha and beta are
chosen on held-back shots only, before keys are trained; keys are features of the pictures as they are, not means over
augmented ones. Claim: ``few_shot.accuracy`` of benchmarks/tune/few_shot.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from photopic.core.errors import DataError
from photopic.data.few_shot import LabelledImages
from photopic.learning.classifiers import tensor_bytes
from photopic.learning.few_shot_batches import Step, Training, check_trainable
from photopic.models.dual_encoder import TEMPLATES, DualEncoder
from photopic.models.preprocessing import Images
from photopic.tune.few_shot._common import best_setting, done, fit, held_back


@dataclass(frozen=True)
class CacheConfig:
    """How to make the cache."""

    trained: bool = False  # Tip-Adapter-F: train the keys
    alpha: float = 5.0  # weight of the cache, where no shot can be held back; published 1
    beta: float = 2.0  # how fast a shot's say falls with its distance, where none can be held back; published 5.5
    alphas: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # to choose from
    betas: tuple[float, ...] = (0.5, 1.0, 2.0, 3.5, 5.5, 10.0, 15.0)  # to choose from
    training: Training = field(default_factory=lambda: Training(steps=200, lr=1e-2))  # Adam; the seed holds back

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            if min(getattr(self, name), *getattr(self, f"{name}s")) < 0:
                raise DataError(f"{name}: expected 0 or more, found a negative one")


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
    """

    model: DualEncoder
    class_embeddings: Float[Tensor, "classes dim"]
    keys: Float[Tensor, "shots dim"]
    labels: Int64[Tensor, " shots"]
    alpha: float
    beta: float
    trainable: int = 0

    def logits(self, images: Images, *, batch: int = 64) -> Float[Tensor, "n classes"]:
        """Scaled cosines with the names, plus what the cache says."""
        features = self.model.image_features(images, batch=batch)
        zero_shot = self.model.logit_scale * features @ self.class_embeddings.mT
        return zero_shot + self.alpha * said(features, self.keys, self.labels, len(self.class_embeddings), self.beta)

    @property
    def size_bytes(self) -> int:
        """Bytes of the keys and their classes."""
        return tensor_bytes([self.keys, self.labels])


def tip_adapter(
    model: DualEncoder,
    data: LabelledImages,
    *,
    config: CacheConfig = CacheConfig(),
    templates: Sequence[str] = TEMPLATES,
) -> Iterator[Step]:
    """Make a cache of the shots; the last event carries a ``CacheClassifier`` as ``tuned``.

    Args:
        model: Its weights are never written.
        data: The shots.
        config: How to make it, and whether to train its keys.
        templates: Sentences with ``{}`` where a class name goes.

    Raises:
        DataError: If there is one class only, a class without pictures, or a name without a token.

    Example:
        >>> finished(tip_adapter(model, data, config=CacheConfig(trained=True))).alpha  # doctest: +SKIP
        5.0
    """
    check_trainable(data)
    yield Step("preparing")
    rows = model.class_features(data.names, templates)
    keys, labels = model.image_features(data.images), torch.from_numpy(data.labels)
    alpha, beta = _chosen(model, data, rows, config)
    if not config.trained:
        found = CacheClassifier(model, rows, keys, labels, alpha, beta)
        yield Step("done", accuracy=float((found.logits(data.images).argmax(1) == labels).float().mean()), tuned=found)
        return
    device = model.device
    there, held_rows, held_labels = keys.to(device).requires_grad_(), rows.to(device), labels.to(device)

    def logits(pixels: Tensor) -> Tensor:
        with torch.no_grad():
            features = F.normalize(model.encode_pixels(pixels), dim=-1)
        zero_shot = model.logit_scale * features @ held_rows.mT
        return zero_shot + alpha * said(features, there, held_labels, len(rows), beta)

    last = Step("preparing")
    for last in fit(model, data, config.training, [there], logits):
        yield last
    trained = there.detach().cpu()
    yield done(config.training, last, CacheClassifier(model, rows, trained, labels, alpha, beta, trained.numel()))


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
    parts = held_back(data, config.training.seed)
    if parts is None:
        return config.alpha, config.beta
    kept, held = parts
    keys, labels = model.image_features(kept.images), torch.from_numpy(kept.labels)
    features = model.image_features(held.images)
    zero_shot = model.logit_scale * features @ rows.mT
    by_beta = {beta: said(features, keys, labels, len(rows), beta) for beta in config.betas}
    tried = {(alpha, beta): zero_shot + alpha * answer for beta, answer in by_beta.items() for alpha in config.alphas}
    best: tuple[float, float] = best_setting(tried, torch.from_numpy(held.labels))
    return best
