"""Negative token merging: push what the network sees of a picture away from its likest places in another picture.

In the first steps the features of each cell look for the cell of a reference that is most like them, and where the two are alike
enough they move away from it. The reference is the first picture of the batch, so that a batch becomes more varied, or a picture
of one's own that nothing drawn should look like. Nothing is trained.

Paper: *Negative Token Merging: Image-based Adversarial Feature Guidance* (arXiv:2412.01339). Changed: features are those that the
transformer blocks of the UNet hand on; the likest cell is the arg-max over the cells of the reference, as the paper's text says
(its released code for another network takes the maximum along the other axis); both halves of a guided step are pushed, each from
its own reference, since guidance would undo a push of one; the defaults are chosen for the bundled model. A picture depends on the
first of its batch, which stays as it is. Claims ``negtome.*`` of benchmarks/generate/negative_token_merging.py.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from jaxtyping import Float
from torch import Tensor

from photopic.core.config import Config, Existing
from photopic.core.method import method
from photopic.core.nn.attention import Place
from photopic.core.sampling import Control, Sampling, Step, block_outputs, noised
from photopic.data.folder import load_picture
from photopic.data.pixels import from_pixels


@dataclass(frozen=True, kw_only=True)
class NegativeTokenMergingConfig(Config):
    """How far and how long features are pushed."""

    alpha: Annotated[float, Ge(0)] = 0.9  # how far a feature moves away from its likest; 0 changes nothing
    # cosine from which two features are alike enough; lower pushes more of the picture
    threshold: Annotated[float, Ge(-1), Le(1)] = 0.65
    until: Annotated[float, Ge(0), Le(1)] = 0.4  # share of the steps that push: composition is decided early


@method(
    paper="arXiv:2412.01339",
    claims="negtome.",
    examples=(
        "Example: photopic generate 'a bear on a red background' -n 8 --control negative_token_merging",
        "Example: photopic generate 'a bear' -n 8 --control negative_token_merging:reference=photos/not-this-one.png",
    ),
)
class NegativeTokenMerging(Control):
    """Draw pictures that differ more from each other, or that keep away from a picture of yours.

    Args:
        reference: File of a picture to keep away from; None keeps every picture of a batch away from its first.
        config: How far and how long.

    Raises:
        DataError: If the reference cannot be read as a picture.

    Example:
        >>> control = NegativeTokenMerging(config=NegativeTokenMergingConfig(alpha=0.5))
        >>> model.generate("a bear", seeds=range(8), controls=[control])  # doctest: +SKIP
    """

    def __init__(
        self,
        reference: Annotated[str | None, Existing()] = None,
        *,
        config: NegativeTokenMergingConfig = NegativeTokenMergingConfig(),
    ):
        if reference is not None:
            load_picture(reference, 8)  # refused before anything is drawn
        self.reference, self.config = reference, config
        self.known: Tensor | None = None  # clean latents of the reference, (1, c, h, w)

    def applied(self, model: Any) -> AbstractContextManager[None]:
        """Encode the reference in the model's size."""
        if self.reference is not None:
            self.known = model.encode_images(from_pixels(np.array([load_picture(self.reference, model.image_size)])))
        return nullcontext()

    def start(self, sampling: Sampling) -> None:
        """The reference has one noise for the whole run, drawn apart from the pictures' own."""
        self.sampling = sampling
        self.features: dict[str, Tensor] = {}
        if self.known is not None:
            generator = torch.Generator().manual_seed(0)
            self.noise = torch.randn(self.known.shape, generator=generator).to(self.known)

    def model_input(self, latents: Float[Tensor, "batch c h w"], step: Step) -> Float[Tensor, "batch c h w"]:
        """See the reference at the noise level of the step, read with the prompt of every picture: one more call."""
        if self.known is not None and self._is_early(step):
            # in the variance-preserving scale, which is the network's whatever the scheduler keeps
            seen = noised(self.known, self.noise, step.sigma, exploding=False).to(latents)
            self.features = block_outputs(self.sampling, seen.expand(len(latents), *seen.shape[1:]), step)
        return latents

    def block(
        self, output: Float[Tensor, "batch cells dim"], place: Place, step: Step
    ) -> Float[Tensor, "batch cells dim"]:
        """Push the features of every picture but the reference."""
        if not self._is_early(step):
            return output
        if self.known is not None:
            return pushed(output, self.features[place.name], self.config.alpha, self.config.threshold)
        halves = []
        for half in output.chunk(2 if step.guided else 1):  # each (pictures, cells, dim)
            away = pushed(half[1:], half[:1].expand_as(half[1:]), self.config.alpha, self.config.threshold)
            halves += [half[:1], away]
        return torch.cat(halves)

    def _is_early(self, step: Step) -> bool:
        return step.index < self.config.until * step.total


def pushed(
    features: Float[Tensor, "batch cells dim"],
    reference: Float[Tensor, "batch others dim"],
    alpha: float,
    threshold: float,
) -> Float[Tensor, "batch cells dim"]:
    """Features moved away from the likest of a reference, where they are alike.

    Args:
        features: Of what is drawn.
        reference: Of what to keep away from; cells need not be as many.
        alpha: How far; 0 changes nothing.
        threshold: Cosine from which on two features are alike.

    Example:
        >>> pushed(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[[2.0, 0.0]]]), 0.5, 0.65)
        tensor([[[0.5000, 0.0000],
                 [0.0000, 1.0000]]])
    """
    likeness = F.normalize(features, dim=-1) @ F.normalize(reference, dim=-1).transpose(1, 2)  # (batch, cells, others)
    cosine, likest = likeness.max(-1)  # over the cells of the reference
    match = reference.gather(1, likest[..., None].expand(-1, -1, reference.shape[-1]))  # (batch, cells, dim)
    return torch.where(cosine[..., None] >= threshold, (1 + alpha) * features - alpha * match, features)
