"""A handle over a semantic segmentation model: any of transformers, or a plain ``nn.Module`` with its preprocessing.

Use it as ``Segmenter.load("mine").segment(images)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from photopic.core.errors import ModelError
from photopic.core.nn.evaluating import evaluating
from photopic.models.classifier_files import CONFIG, PREPROCESSOR, check_files, pretrained, read_preprocessor
from photopic.models.factories import is_factory, made
from photopic.models.files import SEGMENTER
from photopic.models.networks import check_finite, fastest, put_on
from photopic.models.picture_model import PictureModel
from photopic.models.preprocessing import OneOrMore, Preprocessing, batched


class Segmenter(PictureModel):
    """Everything photopic asks of a model that names the class of every pixel.

    The network is put into evaluation mode and its parameters stop requiring gradients.

    Args:
        network: Maps pixel values (n, 3, h, w) to logits (n, classes, rows, columns) of any resolution, or to an output with
            ``.logits``.
        preprocess: Maps pictures to pixel values.
        labels: Name of each class, in the order of the logits; up to 255.
        name: What messages and files call the model.
        provenance: Where it comes from, for one that was trained here.

    Raises:
        ModelError: If a weight is not finite.

    Example:
        >>> model = Segmenter(nn.Conv2d(3, 2, 1), preprocess=Preprocessing(resize=(8, 8)), labels=["background", "bear"])
        >>> model.segment(np.zeros((1, 16, 16, 3), np.uint8)).shape
        (1, 8, 8)
    """

    described: ClassVar[str] = SEGMENTER

    def __init__(
        self,
        network: nn.Module,
        *,
        preprocess: Callable[[OneOrMore], Tensor],
        labels: Sequence[str],
        name: str = "model",
        provenance: Mapping[str, Any] | None = None,
    ):
        check_finite(network, name)
        self.network, self.labels, self.name = network.eval().requires_grad_(False), tuple(labels), name
        self._preprocess, self.provenance = preprocess, dict(provenance or {})

    @classmethod
    def _read(cls, name: str, source: Path | str, device: str | torch.device, dtype: torch.dtype | None) -> Segmenter:
        check_files(name, source, "segmentation model", (CONFIG, PREPROCESSOR), "copy the whole model")
        network: Any = pretrained(name, str(source), "AutoModelForSemanticSegmentation", "a segmentation model")
        put_on(network, device)
        preprocess = Preprocessing.of(read_preprocessor(name, source), f"{name}: {PREPROCESSOR}")
        labels = [str(network.config.id2label[index]) for index in range(network.config.num_labels)]
        called = source.name if isinstance(source, Path) else source
        return cls(network.to(dtype=dtype), preprocess=preprocess, labels=labels, name=called)

    @classmethod
    def load(cls, model: Any, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Segmenter:
        """As ``Handle.load``; also ``module:factory``, a function that returns a segmenter.

        Raises:
            ModelError: As ``Handle.load``, and if the function cannot be imported, fails, or returns something else.
        """
        if not is_factory(str(model)):
            return super().load(model, device, dtype)
        found = made(str(model))
        if not isinstance(found, cls):
            raise ModelError(f"{model}: expected a Segmenter, found {type(found).__name__}; return one")
        put_on(found.network, device or fastest())
        found.network.to(dtype)
        return found

    def stamped(self, provenance: Mapping[str, Any]) -> Segmenter:
        """The same model that says where it comes from."""
        found = {**provenance, **self.provenance}
        return Segmenter(
            self.network, preprocess=self._preprocess, labels=self.labels, name=self.name, provenance=found
        )

    def forward(self, pixels: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n classes height width"]:
        """Logits of every pixel that the network reads; coarser ones are interpolated. Gradients flow where wanted.

        Raises:
            ModelError: If the network puts out something else than a logit a label and place.
        """
        with evaluating(self.network):
            output = self.network(pixels)
        logits = getattr(output, "logits", output)
        if not isinstance(logits, Tensor) or logits.ndim != 4 or logits.shape[:2] != (len(pixels), len(self.labels)):
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ModelError(
                f"{self.name}: expected logits of shape ({len(pixels)}, {len(self.labels)}, rows, columns), found {found}; give "
                "one label a map of logits"
            )
        return F.interpolate(logits, pixels.shape[2:], mode="bilinear", align_corners=False)

    @torch.no_grad()
    def segment(self, images: OneOrMore, *, batch: int = 32) -> UInt8[np.ndarray, "n height width"]:
        """The class of every pixel that the network reads, an index of ``labels``.

        Args:
            images: As ``preprocess`` takes them.
            batch: Pictures read at a time.
        """
        return np.concatenate([
            self.forward(pixels).argmax(1).byte().cpu().numpy() for pixels in self._batches(images, batch)
        ])  # fmt: skip

    @torch.no_grad()
    def class_ratio(self, images: OneOrMore, *, batch: int = 32) -> Float[np.ndarray, " classes"]:
        """Mean probability of each class over all pixels of all pictures."""
        several = batched(images)
        sums = [
            self.forward(pixels).softmax(1).mean((2, 3)).double().sum(0) for pixels in self._batches(several, batch)
        ]
        found: np.ndarray = (torch.stack(sums).sum(0) / len(several)).cpu().numpy()
        return found
