"""Learning the values of a few weights for one subject or several: what tuning after a search, alone and together, shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from photopic.core.events import Steps
from photopic.core.fit import fit
from photopic.core.runs import Run
from photopic.learning.losses.denoising import ConceptLoss
from photopic.learning.parameters.sparse_values import SparseValues


class ValueTuning:
    """A learner: the values of some entries, on the sum of the subjects' losses.

    Args:
        values: What is learnt.
        losses: One a subject; one subject's graph is in memory at a time.
        steps: Of learning, in all; values of two bits learn through the rounding in the last third of them.
    """

    def __init__(self, values: SparseValues, losses: Sequence[ConceptLoss], steps: int):
        self.values, self.losses, self.steps = values, losses, steps
        self.state, self.restore = values.state, values.restore

    def step(self, step: int) -> Mapping[str, float]:
        values, concept, prior, attention = self.values, 0.0, 0.0, 0.0
        if values.bits == 2 and step >= self.steps * 2 // 3:
            values.fit_levels()  # four levels a matrix; gradients then pass straight through the rounding
        sums: list[Tensor] = []
        for loss in self.losses:
            # subject by subject, so that one graph is alive at a time; gradients of a sum are the sum of gradients
            found, gradients = loss.gradients(step, values.weights(), list(values.values.values()))
            sums = [a + b for a, b in zip(sums, gradients, strict=True)] if sums else gradients
            concept, prior = concept + found.concept.item(), prior + found.prior.item()
            attention += found.attention
        values.step(sums)
        shown = {"loss": concept, "prior": prior} | ({"attention": attention} if attention else {})
        return {name: value / len(self.losses) for name, value in shown.items()}


def tuned_values(
    values: SparseValues, losses: Sequence[ConceptLoss], steps: int, run: Run | None = None
) -> Steps[dict[str, Tensor]]:
    """Learn the values and return them at the precision they are stored in; arguments as of ``ValueTuning``."""
    yield from fit(ValueTuning(values, losses, steps), steps, run=run, stage="tuning")
    return values.final()
