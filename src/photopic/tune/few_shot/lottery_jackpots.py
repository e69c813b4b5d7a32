"""Lottery jackpots: a pretrained tower already holds a sparse one that does the task; only which weights stay is learnt.

Weights never change. Each has a score; of every tensor the best-scored share stays and the rest is zero. Scores begin at the
magnitudes of the weights and are learnt through the mask as if it were not there. What a step may swap is restricted, and less so
early on: many swaps at once break the first-order estimate that each of them rests on.

Paper: Lottery Jackpots Exist in Pre-trained Models (arXiv:2104.08700). Changed: swaps are restricted by step, not by epoch, and the
class rows of a dual encoder take the place of a trained head. Claims: ``jackpots.*`` of benchmarks/tune/sparse_towers.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Gt, Le, Lt
from jaxtyping import Bool, Float
from torch import Tensor

from photopic.core.edits import Edit, ZeroedWeights
from photopic.core.events import Steps
from photopic.core.fit import fit
from photopic.core.method import method
from photopic.core.runs import Run
from photopic.data.few_shot import FewShotTask, LabelledImages
from photopic.learning.few_shot_batches import Training, cosine
from photopic.learning.parameters.binary_mask import maskable
from photopic.models.dual_encoder import TEMPLATES, DualEncoder, Templates
from photopic.tune.few_shot._common import Classifying, accuracy_view, as_edit, cosines, prepared

Scores = Mapping[str, Float[Tensor, " entries"]]
Masks = dict[str, Bool[Tensor, " entries"]]


@dataclass(frozen=True, kw_only=True)
class LotteryJackpotsConfig(Training):
    """How to search."""

    lr: Annotated[float, Gt(0)] = 0.05  # size of a step of the scores, in mean magnitudes of their tensor
    sparsity: Annotated[float, Gt(0), Lt(1)] = 0.5  # share of each tensor's weights that is shut
    start: Literal["magnitude", "random"] = "magnitude"  # what the scores begin at
    # share of the weights kept that one step may swap for others at first; it falls along a half cosine; 1 does not restrict
    swaps: Annotated[float, Gt(0), Le(1)] = 0.02
    layers: Literal["attention", "mlp", "all"] = "all"  # matrices that are searched; kernels of convolutions always are


@method(
    paper="arXiv:2104.08700",
    claims="jackpots.",
    command="tune jackpots",
    examples=("Example: photopic tune jackpots emoji:held-out-style --shots 16 --sparsity 0.7 -o sparse.edit",),
    view=accuracy_view,
)
def lottery_jackpots(
    model: DualEncoder,
    data: FewShotTask,
    *,
    templates: Templates = TEMPLATES,
    config: LotteryJackpotsConfig = LotteryJackpotsConfig(),
    run: Run | None = None,
) -> Steps[Edit]:
    """Find a sparse tower inside the pretrained one: learn which weights stay, and change none (lottery jackpots).

    Args:
        model: A bundled dual encoder, a folder with one of transformers, or a hub id.
        data: Pictures of each class, and perhaps others to measure on.
        templates: Sentence with {} where a class name goes; several times.
        config: How to search.
        run: A run folder to checkpoint in and to resume from.

    Returns:
        The weights that are shut.

    Raises:
        DataError: If there is one class only, a class without pictures, or a name without a token.
        ModelError: If the image tower has no such weights.

    Example:
        >>> lottery_jackpots(model, data).parts[0].kind  # doctest: +SKIP
        'shut'
    """
    rows = yield from prepared(model, data, templates)
    learner = Searching(model, data.train, config, rows)
    at_start = {name: mask.clone() for name, mask in learner.masks.items()}
    yield from fit(learner, config.steps, run=run)
    shut = {name: (~mask).nonzero().flatten().cpu() for name, mask in learner.masks.items()}
    changed = sum(int((at_start[name] & ~mask).sum()) for name, mask in learner.masks.items())
    kept = sum(int(mask.sum()) for mask in learner.masks.values())
    about = {"trained": kept, "swapped": round(changed / max(kept, 1), 6)}  # share of the first mask that was swapped
    return as_edit([ZeroedWeights(shut)], list(shut), model, data, rows, **about)


class Searching(Classifying):
    """Scores of all weights, and the masks that swaps between the lowest kept and the highest shut ones lead to."""

    def __init__(
        self,
        model: DualEncoder,
        data: LabelledImages,
        config: LotteryJackpotsConfig,
        rows: Float[Tensor, "classes dim"],
    ):
        base = {name: each.detach() for name, each in maskable(model, config.layers).items()}
        generator = torch.Generator().manual_seed(config.seed)
        scores = {name: first_scores(each, config.start, generator).requires_grad_() for name, each in base.items()}
        self.masks: Masks = {name: top_share(each.detach(), 1 - config.sparsity) for name, each in scores.items()}

        def logits(pixels: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n classes"]:
            weights = {}
            for name, each in base.items():
                # straight through: the mask going forward, the identity going back, so d loss / d score = w d loss / d (w m)
                mask = self.masks[name].to(each.dtype) + scores[name] - scores[name].detach()
                weights[name] = each * mask.view_as(each).to(each.dtype)
            return cosines(model, model.functional(weights)(pixels), rows)

        super().__init__(model, data, config, scores, logits)
        self.search = config

    def update(self, loss: Float[Tensor, ""], *, step: int) -> None:
        """One step of the scores, and the swaps that it leads to."""
        super().update(loss, step=step)
        allowed = self.search.swaps * cosine(step, self.search.steps)
        for name, scores in self.tensors.items():
            self.masks[name] = swapped(self.masks[name], scores.detach(), allowed)

    def state(self) -> dict[str, Tensor]:
        """The scores, and the masks, which do not follow from them alone."""
        return super().state() | {f"mask.{name}": mask for name, mask in self.masks.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put back what ``state`` gave."""
        super().restore(state)
        self.masks = {name: state[f"mask.{name}"].to(mask.device) for name, mask in self.masks.items()}


def first_scores(
    weight: Tensor, start: Literal["magnitude", "random"], generator: torch.Generator
) -> Float[Tensor, " n"]:
    """Magnitudes over their mean, or numbers of the same mean that know nothing of the weights."""
    magnitude = weight.abs().flatten().float()
    if start == "random":
        return 2 * torch.rand(len(magnitude), generator=generator).to(weight.device)
    return magnitude / magnitude.mean().clamp(min=1e-12)


def top_share(scores: Float[Tensor, " n"], share: float) -> Bool[Tensor, " n"]:
    """True at the highest scores, at least one.

    Example:
        >>> top_share(torch.tensor([0.1, 3.0, 2.0, 0.5]), 0.5).tolist()
        [False, True, True, False]
    """
    kept = torch.zeros_like(scores, dtype=torch.bool)
    kept[scores.topk(max(1, round(share * len(scores)))).indices] = True
    return kept


def swapped(mask: Bool[Tensor, " n"], scores: Float[Tensor, " n"], allowed: float) -> Bool[Tensor, " n"]:
    """The mask after at most a share of what is kept was swapped: lowest kept against highest shut, while that gains.

    Example:
        >>> mask, scores = torch.tensor([True, True, False, False]), torch.tensor([1.0, 2.0, 4.0, 3.0])
        >>> swapped(mask, scores, 0.5).tolist(), swapped(mask, scores, 1.0).tolist()
        ([False, True, True, False], [False, False, True, True])
    """
    limit = min(round(allowed * int(mask.sum())), int((~mask).sum()))
    if limit == 0:
        return mask
    lowest = scores.masked_fill(~mask, torch.inf).topk(limit, largest=False)  # (limit,) kept, worst first
    highest = scores.masked_fill(mask, -torch.inf).topk(limit)  # (limit,) shut, best first
    gains = highest.values > lowest.values
    made = mask.clone()
    made[lowest.indices[gains]], made[highest.indices[gains]] = False, True
    return made
