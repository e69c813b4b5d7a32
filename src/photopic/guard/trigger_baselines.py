"""What a backdoor firewall is compared with: STRIP, SCALE-UP, and the confidence of the prediction alone.

Papers: *STRIP: A Defence Against Trojan Attacks on Deep Neural Networks* (arXiv:1902.06531): a trigger's prediction outlives
blending with clean pictures, so the entropy of blends is low. *SCALE-UP: An Efficient Black-box Input-level Backdoor Detection via
Analyzing Scaled Prediction Consistency* (arXiv:2302.03251): it outlives multiplied pixels. Scores are oriented alike: higher is
more suspicious. Written from the papers; SCALE-UP in its data-free form. Claims ``firewall.auroc.*`` of
benchmarks/guard/firewall.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8

from photopic.core.errors import DataError
from photopic.models.classifier import Classifier

Pictures = UInt8[np.ndarray, "n h w 3"]


def confidence(model: Classifier, images: Pictures, *, batch: int = 64) -> Float[np.ndarray, "n"]:
    """Probability of the prediction, 0 to 1: a backdoor is often surer than the truth.

    Example:
        >>> scores = confidence(model, images)  # doctest: +SKIP
    """
    return model.logits(images, batch=batch).double().softmax(1).max(1).values.numpy()


@dataclass(frozen=True)
class StripConfig:
    """How to blend."""

    blends: int = 10  # clean pictures each input is blended with; the paper's code has 10 to 100
    weight: float = 0.5  # of the clean picture
    seed: int = 0  # of their choice


def strip(
    model: Classifier,
    images: Pictures,
    clean: UInt8[np.ndarray, "m height width 3"],
    *,
    config: StripConfig = StripConfig(),
    batch: int = 64,
) -> Float[np.ndarray, "n"]:
    """Minus the mean entropy, in nats, of the predictions of blends.

    Args:
        model: The classifier.
        images: To be judged.
        clean: Pictures of the same size that nobody tampered with.
        config: How to blend.
        batch: Pictures at a time.

    Raises:
        DataError: If sizes differ or there is no clean picture.

    Example:
        >>> scores = strip(model, images, clean)  # doctest: +SKIP
    """
    if not len(clean) or clean.shape[1:] != images.shape[1:]:
        raise DataError(
            f"strip: expected clean pictures of {images.shape[1:]}, found {len(clean)} of {clean.shape[1:]}"
        )
    rng = np.random.default_rng(config.seed)
    total = np.zeros(len(images))
    for _ in range(config.blends):
        other = clean[rng.integers(len(clean), size=len(images))].astype(np.float32)
        blend = (1 - config.weight) * images + config.weight * other
        logits = model.logits(blend.round().clip(0, 255).astype(np.uint8), batch=batch).double()
        total += torch.distributions.Categorical(logits=logits).entropy().numpy()
    return -total / config.blends


def scale_up(
    model: Classifier, images: Pictures, *, factors: Sequence[int] = (2, 3, 4, 5), batch: int = 64
) -> Float[np.ndarray, "n"]:
    """SPC: share of the multiplied pictures, clipped to 255, that keep the plain prediction, 0 to 1.

    Args:
        model: The classifier.
        images: To be judged.
        factors: What pixel values are multiplied with.
        batch: Pictures at a time.

    Raises:
        DataError: If there is no factor.

    Example:
        >>> scores = scale_up(model, images)  # doctest: +SKIP
    """
    if not factors:
        raise DataError("scale_up: expected one or more factors, found none")
    plain = model.logits(images, batch=batch).argmax(1)
    same = [
        model.logits((images.astype(np.int64) * factor).clip(0, 255).astype(np.uint8), batch=batch).argmax(1) == plain
        for factor in factors
    ]
    return torch.stack(same).double().mean(0).numpy()
