"""Source-free adaptation of segmentation: from a trained model, unlabelled pictures, and how much of them each class has.

Every pixel's prediction is made surer, and the share of pixels that each class is given is held near a prior. Sureness alone is
also had by calling everything background; the prior forbids that.

Paper: *Source-Free Domain Adaptation for Image Segmentation* (Medical Image Analysis 2022, arXiv:2108.03152): AdaMI, and AdaEnt of
the authors' earlier version. Changed: the ratio of a class is that of a batch rather than of a picture that is tagged with its
classes (`--per-picture` for that), normalisation keeps its statistics. Claims ``sfda.*`` of benchmarks/train/adaptation.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Le

from photopic.core.config import Flags
from photopic.core.edits import Edit
from photopic.core.errors import DataError, ModelError
from photopic.core.events import Event, Steps
from photopic.core.fit import OptimizedTensors, fit
from photopic.core.method import method
from photopic.core.runs import Run
from photopic.data.class_folder import ClassFolder
from photopic.learning.few_shot_batches import Training, drawn
from photopic.learning.losses.class_ratio import class_weights, pixel_entropy, ratio_divergence
from photopic.learning.trained_weights import learnt_edit, weight_copies
from photopic.models.preprocessing import Images, batched
from photopic.models.segmenter import Segmenter

COLLAPSED = 0.95  # share of pixels of one class from which on a warning is given


@dataclass(frozen=True, kw_only=True)
class SourceFreeConfig(Training):
    """How to adapt."""

    # share of pixels that each class has, in the order of the model's classes, commas between; needed but for --loss entropy
    prior: Annotated[tuple[float, ...], Ge(0), Le(1)] = ()
    # the divergence of class ratios from the prior: KL(predicted, prior) for mutual-information (AdaMI), KL(prior, predicted) and
    # rare classes weighted for weighted-entropy (AdaEnt), none for entropy, which collapses and is there to compare
    loss: Literal["mutual-information", "weighted-entropy", "entropy"] = "mutual-information"
    prior_weight: Annotated[float, Gt(0)] = (
        10.0  # of the divergence, beside the entropy of pixels; too small lets one class grow
    )
    per_picture: bool = (
        False  # hold each picture's class ratios near the prior, for pictures that all show the same classes
    )
    affine: bool = False  # learn the scales and shifts of normalisation alone
    steps: Annotated[int, Ge(1)] = 100  # steps of adaptation; more goes further from the source
    lr: Annotated[float, Gt(0)] = 3e-4  # size of a step of AdamW at first; it falls along a half cosine
    batch: Annotated[int, Ge(1)] = 16  # pictures a step, all where there are fewer
    augment: Annotated[bool, Flags()] = False  # pictures stay whole: a crop would have other ratios


@method(
    paper="arXiv:2108.03152",
    claims="sfda.",
    presets={"paper": SourceFreeConfig(prior_weight=1.0, per_picture=True)},
    command="train adapt-segmentation",
    examples=(
        "Example: photopic train adapt-segmentation mine unlabelled/ --prior 0.67,0.33 -o adapted.edit",
        "A model to try it with: photopic train segmentation emoji-scenes -o mine",
    ),
)
def source_free(
    model: Segmenter,
    images: ClassFolder | Images,
    *,
    config: SourceFreeConfig = SourceFreeConfig(),
    run: Run | None = None,
) -> Steps[Edit]:
    """Adapt a segmentation model to unlabelled pictures of another domain, without a picture of its own (AdaMI, AdaEnt).

    Args:
        model: A segmentation model: a folder of transformers or of train segmentation, a hub id, or module:factory.
        images: Pictures of the other domain, without labels.
        config: How to adapt; the prior is among it.
        run: A run folder to checkpoint in and to resume from.

    Returns:
        What was added to the weights; ``class_ratio`` in its provenance tells the ratios after.

    Raises:
        DataError: If there is no picture, or the prior is not one share a class that sum to 1.
        ModelError: If only normalisation is to be learnt and there is none.

    Example:
        >>> edit = source_free(model, images, config=SourceFreeConfig(prior=(0.7, 0.3)))  # doctest: +SKIP
    """
    several = batched(images)
    if not len(several):
        raise DataError("images: expected one picture or more, found none")
    learner = _SourceFree(model, several, config)
    yield from fit(learner, config.steps, run=run)
    edit = learnt_edit(model, learner.tensors, {"pictures": len(several)})
    with model.edits.applied(edit):
        ratios = model.class_ratio(several)
    if ratios.max() > COLLAPSED:
        said = (
            f"{ratios.max():.0%} of all pixels became {model.labels[int(ratios.argmax())]}; use a prior, or fewer steps"
        )
        yield Event("learning", config.steps, config.steps, warning=said)
    facts = {"class_ratio": [round(float(each), 4) for each in ratios]}
    return Edit(edit.parts, edit.base, {**edit.provenance, **facts})


class _SourceFree(OptimizedTensors):
    """The weights that are learnt, on batches without labels."""

    def __init__(self, model: Segmenter, images: Images, config: SourceFreeConfig):
        prior = config.prior
        if config.loss != "entropy" and (len(prior) != len(model.labels) or abs(sum(prior) - 1) > 0.01):
            raise DataError(
                f"prior: expected {len(model.labels)} shares that sum to 1, of {', '.join(model.labels)}, found "
                f"{', '.join(map(str, prior)) or 'none'}; count pixels of pictures that are labelled, or estimate"
            )
        self.model, self.images, self.config = model, images, config
        self.prior = torch.tensor(prior, device=model.device, dtype=model.dtype)
        tensors = weight_copies(model)
        if config.affine:
            tensors = {name: each for name, each in tensors.items() if name in _affine(model)}
        optimizer = torch.optim.AdamW(tensors.values(), lr=config.lr, weight_decay=0.0)
        super().__init__(tensors, optimizer, config.rate)

    def step(self, step: int) -> Mapping[str, float]:
        config, index = self.config, drawn(len(self.images), self.config, step)
        pixels = self.model.preprocess([self.images[each] for each in index.tolist()])
        chances = self.model.functional(self.tensors)(pixels).softmax(1)  # (n, classes, h, w)
        weighted = config.loss == "weighted-entropy"
        entropy = pixel_entropy(chances, class_weights(self.prior) if weighted else None)
        numbers, loss = {"entropy": entropy.item()}, entropy
        ratios = chances.mean((2, 3))  # (n, classes)
        if config.loss != "entropy":
            ratios = ratios if config.per_picture else ratios.mean(0, keepdim=True)
            apart = ratio_divergence(ratios, self.prior, "prior-first" if weighted else "predicted-first")
            loss, numbers["divergence"] = entropy + config.prior_weight * apart, apart.item()
        self.update(loss, step=step)
        return {"loss": loss.item(), "largest class": ratios.mean(0).max().item()} | numbers


def _affine(model: Segmenter) -> set[str]:
    """Names of the scales and shifts of normalisation layers: those whose weights are vectors."""
    found = {
        f"network.{path}.{name}"
        for path, part in model.network.named_modules()
        if "norm" in type(part).__name__.lower()
        for name, weight in part.named_parameters(recurse=False)
        if weight.ndim == 1
    }
    if not found:
        raise ModelError(f"{model.name}: has no normalisation with scales to learn; leave --affine out")
    return found
