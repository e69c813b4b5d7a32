"""Adaptive guidance: leave out the unconditional half of a step where it no longer says anything of its own.

Classifier-free guidance calls the network twice a step, with the prompt and without. While a picture forms the two predictions come
to agree; from the step on where their cosine passes a threshold, the picture is drawn from the conditional one alone, at half the
cost. Nothing is trained, and any scheduler and model will do.

Paper: *Adaptive Guidance: Training-free Acceleration of Conditional Diffusion Models* (arXiv:2312.12487). Changed: every picture of
a batch stops for itself, so that a picture does not depend on its batch (the unconditional half is spared once all have stopped);
the cosine is that of the network's outputs, which for models of noise is the paper's; the default threshold is chosen for the
bundled model. The paper's LinearAG is ``linear_guidance``. Claims ``adaptive_guidance.*`` of
benchmarks/generate/adaptive_guidance.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from jaxtyping import Float
from torch import Tensor

from photopic.core.config import Config
from photopic.core.method import method
from photopic.core.sampling import Control, Sampling, Step


@dataclass(frozen=True, kw_only=True)
class AdaptiveGuidanceConfig(Config):
    """When a picture has had enough guidance."""

    # cosine of the two predictions from which on a picture goes on without its unconditional half; higher keeps closer to full
    # guidance and saves less, 1 saves nothing
    threshold: Annotated[float, Ge(-1), Le(1)] = 0.99


@method(
    paper="arXiv:2312.12487",
    claims="adaptive_guidance.",
    examples=("Example: photopic generate 'a bear on a red background' --control adaptive_guidance:threshold=0.99",),
)
class AdaptiveGuidance(Control):
    """Draw with fewer network calls: guidance stops for each picture once its two predictions agree.

    Args:
        config: When to stop.

    Attributes:
        guided_steps: Of each picture of the last run the steps that were guided: the calls of its unconditional half.

    Example:
        >>> control = AdaptiveGuidance(config=AdaptiveGuidanceConfig(threshold=0.98))
        >>> model.generate("a bear on a red background", seeds=[0], controls=[control])  # doctest: +SKIP
    """

    def __init__(self, *, config: AdaptiveGuidanceConfig = AdaptiveGuidanceConfig()):
        self.config = config

    def start(self, sampling: Sampling) -> None:
        """Every picture begins guided."""
        self.stopped = torch.zeros(len(sampling.generators), dtype=torch.bool)  # (batch,)
        self.guided_steps = torch.zeros(len(sampling.generators), dtype=torch.long)  # (batch,)

    def is_guided(self, step: Step) -> bool:
        """Until all pictures have stopped."""
        return not bool(self.stopped.all())

    def guidance(
        self,
        conditional: Float[Tensor, "batch c h w"],
        unconditional: Float[Tensor, "batch c h w"],
        scale: float,
        step: Step,
    ) -> Float[Tensor, "batch c h w"]:
        """Classifier-free guidance for the pictures that have not stopped, the conditional prediction for the others."""
        guided = unconditional + scale * (conditional - unconditional)  # classifier-free guidance
        stopped = self.stopped.to(conditional.device)
        used = torch.where(stopped[:, None, None, None], conditional, guided)  # (batch,) -> (batch, 1, 1, 1)
        self.guided_steps += ~self.stopped  # this step was paid for by those that had not stopped before it
        agreement = F.cosine_similarity(conditional.flatten(1).float(), unconditional.flatten(1).float())  # gamma_t
        self.stopped |= (agreement >= self.config.threshold).cpu()  # from the next step on
        return used
