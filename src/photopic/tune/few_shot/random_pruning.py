"""Random pruning: most weights of a tower are shut at random before training, and the few that are left are trained.

Nothing is searched. What matters is how many weights each tensor keeps: as many everywhere (uniform), or more where a tensor is
small (Erdos-Renyi, and with the sides of kernels counted Erdos-Renyi-kernel).

Paper: The Unreasonable Effectiveness of Random Pruning (arXiv:2202.02643). Changed: what is left begins at the pretrained weights
unless told otherwise, and the class rows of a dual encoder take the place of a trained head. Claims: ``random_pruning.*`` of
benchmarks/tune/sparse_towers.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod, sqrt
from typing import Annotated, Literal

import torch
from annotated_types import Gt, Lt
from jaxtyping import Bool, Float
from torch import Tensor

from photopic.core.edits import DenseDelta, Edit, SparseWeights, ZeroedWeights
from photopic.core.events import Steps
from photopic.core.fit import fit
from photopic.core.method import method
from photopic.core.runs import Run
from photopic.data.few_shot import FewShotTask, LabelledImages
from photopic.learning.few_shot_batches import Training
from photopic.learning.parameters.binary_mask import maskable
from photopic.models.dual_encoder import TEMPLATES, DualEncoder, Templates
from photopic.tune.few_shot._common import Classifying, accuracy_view, as_edit, cosines, image_parameters, prepared

Rule = Literal["uniform", "er", "erk"]
Masks = Mapping[str, Bool[Tensor, " entries"]]


@dataclass(frozen=True, kw_only=True)
class RandomPruningConfig(Training):
    """How much to shut, and how to train the rest."""

    lr: Annotated[float, Gt(0)] = 1e-3  # size of a step at first; it falls along a half cosine
    sparsity: Annotated[float, Gt(0), Lt(1)] = 0.8  # share of all weights that are shut
    # how many weights each tensor keeps: the same share of all (uniform), in proportion to (in + out) / (in x out) (er), or with
    # the sides of kernels counted as well (erk); er and erk keep more of small tensors
    densities: Literal["uniform", "er", "erk"] = "erk"
    # what the weights that are left begin at: the model's own (pretrained), or numbers drawn anew, as published (random)
    start: Literal["pretrained", "random"] = "pretrained"


@method(
    paper="arXiv:2202.02643",
    claims="random_pruning.",
    command="tune random-pruning",
    examples=("Example: photopic tune random-pruning emoji:held-out-style --shots 16 --sparsity 0.8 -o sparse.edit",),
    view=accuracy_view,
)
def random_pruning(
    model: DualEncoder,
    data: FewShotTask,
    *,
    templates: Templates = TEMPLATES,
    config: RandomPruningConfig = RandomPruningConfig(),
    run: Run | None = None,
) -> Steps[Edit]:
    """Shut most weights of the image encoder at random and train the rest: the baseline of every search for a sparse tower.

    Args:
        model: A bundled dual encoder, a folder with one of transformers, or a hub id.
        data: Pictures of each class, and perhaps others to measure on.
        templates: Sentence with {} where a class name goes; several times.
        config: How much to shut, and how to train the rest.
        run: A run folder to checkpoint in and to resume from.

    Returns:
        The weights that are shut, the values of those that are left, and what was added to biases and normalisations.

    Raises:
        DataError: If there is one class only, a class without pictures, or a name without a token.
        ModelError: If the image tower has no such weights.

    Example:
        >>> [part.kind for part in random_pruning(model, data).parts]  # doctest: +SKIP
        ['shut', 'values', 'delta']
    """
    rows = yield from prepared(model, data, templates)
    found = maskable(model, "all")
    densities = layer_densities(
        {name: each.shape for name, each in found.items()}, 1 - config.sparsity, config.densities
    )
    generator = torch.Generator().manual_seed(config.seed)
    masks = {name: random_mask(each.numel(), densities[name], generator) for name, each in found.items()}
    learner = Pruned(model, data.train, config, masks, rows)
    yield from fit(learner, config.steps, run=run)
    about = {"densities": {name: round(each, 6) for name, each in densities.items()}}
    parts = learner.parts()
    trained = sum(each.numel() for each in learner.tensors.values()) - parts[0].count
    names = [name for part in parts for name in part.names()]
    return as_edit(parts, list(dict.fromkeys(names)), model, data, rows, trained=trained, **about)


class Pruned(Classifying):
    """All weights of the image tower, of which a fixed mask lets through what is left of the matrices and kernels."""

    def __init__(
        self,
        model: DualEncoder,
        data: LabelledImages,
        config: RandomPruningConfig,
        masks: Masks,
        rows: Float[Tensor, "classes dim"],
    ):
        self.base = {name: each.detach() for name, each in image_parameters(model).items()}
        self.masks = {name: mask.view_as(self.base[name]).to(model.device) for name, mask in masks.items()}
        generator = torch.Generator().manual_seed(config.seed)
        tensors = {name: each.clone() for name, each in self.base.items()}
        for name, mask in self.masks.items():
            if config.start == "random":
                tensors[name] = drawn_anew(tensors[name], generator)
            tensors[name] *= mask  # shut before the first step

        def logits(pixels: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n classes"]:
            # the mask keeps gradients from what is shut, so that Adam never moves it from 0
            weights = {name: each * self.masks[name] if name in self.masks else each for name, each in tensors.items()}
            return cosines(model, model.functional(weights)(pixels), rows)

        super().__init__(model, data, config, {name: each.requires_grad_() for name, each in tensors.items()}, logits)

    def parts(self) -> tuple[ZeroedWeights, SparseWeights, DenseDelta]:
        """What is shut, what the entries that are left are set to, and what is added to everything else."""
        learnt = {name: each.detach() for name, each in self.tensors.items()}
        kept = {name: mask.flatten().nonzero().flatten().cpu() for name, mask in self.masks.items()}
        values = {name: learnt[name].flatten()[index.to(learnt[name].device)].cpu() for name, index in kept.items()}
        shut = {name: (~mask).flatten().nonzero().flatten().cpu() for name, mask in self.masks.items()}
        rest = {name: (each - self.base[name]).cpu() for name, each in learnt.items() if name not in self.masks}
        return (
            ZeroedWeights(shut),
            SparseWeights(kept, values),
            DenseDelta({name: each for name, each in rest.items() if bool(each.any())}),
        )


def layer_densities(shapes: Mapping[str, Sequence[int]], density: float, rule: Rule) -> dict[str, float]:
    """The share of each tensor's weights that is kept, so that ``density`` of all are.

    Of a tensor of ``out`` x ``in`` x sides, ``er`` keeps in proportion to (out + in) / (out in), ``erk`` to the sum of all sides
    over their product. What would keep more than all of a tensor keeps it whole, and the others share what is left.

    Args:
        shapes: Of matrices and kernels.
        density: Share of all weights that is kept.
        rule: How it is dealt out.

    Example:
        >>> shapes = {"wide": (100, 100), "narrow": (20, 20)}
        >>> {name: round(share, 2) for name, share in layer_densities(shapes, 0.2, "erk").items()}
        {'wide': 0.17, 'narrow': 0.87}
    """
    if rule == "uniform":
        return dict.fromkeys(shapes, density)
    sizes = {name: prod(shape) for name, shape in shapes.items()}
    sides = {name: tuple(shape) if rule == "erk" else tuple(shape[:2]) for name, shape in shapes.items()}
    shares = {name: sum(each) / prod(each) for name, each in sides.items()}
    whole: set[str] = set()
    while True:
        left = density * sum(sizes.values()) - sum(sizes[name] for name in whole)
        factor = left / sum(shares[name] * sizes[name] for name in shapes if name not in whole)
        if not (full := {name for name in shapes if name not in whole and factor * shares[name] >= 1}):
            return {name: 1.0 if name in whole else factor * share for name, share in shares.items()}
        whole |= full


def random_mask(count: int, density: float, generator: torch.Generator) -> Bool[Tensor, " count"]:
    """True at so many places drawn at random, at least one.

    Example:
        >>> int(random_mask(10, 0.3, torch.Generator().manual_seed(0)).sum())
        3
    """
    mask = torch.zeros(count, dtype=torch.bool)
    mask[torch.randperm(count, generator=generator)[: max(1, round(density * count))]] = True
    return mask


def drawn_anew(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Normal numbers in a tensor's place whose spread is sqrt(2 / inputs) (He), as networks start from."""
    spread = sqrt(2 / prod(weight.shape[1:]))
    return (spread * torch.randn(weight.shape, generator=generator)).to(weight)
