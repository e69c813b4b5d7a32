"""Unified tuners: learn small branches beside the operations of the image tower, and a linear classifier, from a few pictures.

An adapter, a prefix or a prompt stands beside the attention, the MLP or the whole block of every transformer layer, reads
what enters there and adds to what comes out; nothing of the model is changed, and the branches with the classifier are one
edit.

Paper: Rethinking Efficient Tuning Methods from a Unified Perspective (U-Tuning, arXiv:2303.00690). Its tuner code is not
public. Changed: branches start at zero (``init="xavier"`` is the successor's start), the classifier starts from the class
names, features have length 1; queries of a branch beside the MLP or block come from that block's own query projection. The
preset ``paper`` is our reading of its tables: two adapters of width 10 with a factor a channel, the best pair there, begun as
in the code of its successor Res-Tuning (modelscope/swift). No optimiser is stated; rate, steps and decay stay ours. Claims:
``unified_tuners.*`` of benchmarks/tune/unified_tuners.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor
from torch.nn import functional as F

from photopic.core.config import Config, Flags
from photopic.core.edits import ClassifierHead, Edit
from photopic.core.events import Event, Steps
from photopic.core.fit import fit
from photopic.core.method import method
from photopic.core.runs import Run
from photopic.data.few_shot import FewShotTask
from photopic.learning.few_shot_batches import Training, check_trainable, cosine
from photopic.learning.parameters.adapters import AdapterSpec, Init, Scaling, TrainableAdapters
from photopic.models.dual_encoder import TEMPLATES, DualEncoder, Templates
from photopic.tune.few_shot._common import Classifying, accuracy_view, as_edit

BRANCHES: Mapping[str, tuple[AdapterSpec, ...]] = {
    "linear": (),  # no branch: a linear probe in the same loop
    "single": (AdapterSpec("attention"),),
    "dual": (AdapterSpec("attention"), AdapterSpec("ffn")),
    "tri": (AdapterSpec("attention"), AdapterSpec("ffn"), AdapterSpec("block", "prefix")),  # the paper's best third
}


@dataclass(frozen=True, kw_only=True)
class UnifiedTunersConfig(Training):
    """How to tune; every field is written into the edit. The paper states no optimiser; these are its sister paper's kinds."""

    tuners: Annotated[tuple[AdapterSpec, ...], Flags()] = BRANCHES["dual"]  # what stands beside which operation
    length: Annotated[int | None, Ge(1)] = None  # width of an adapter's bottleneck, or keys of a prefix; 10 by default
    scaling: Scaling | None = None  # what each branch is multiplied with; one number a channel by default
    init: Init = "zero"  # start with branches that change nothing, or with random ones, as the successor's library
    head: Literal["text", "zeros"] = "text"  # start the classifier at the class names, or at nothing
    lr: Annotated[float, Gt(0)] = 3e-3  # size of a step of branches and classifier, at its highest
    # share of the steps in which the rate rises to that; afterwards it falls along a half cosine
    warm_up: Annotated[float, Ge(0), Lt(1)] = 0.1
    weight_decay: Annotated[float, Ge(0)] = 0.01  # of AdamW: how strongly everything is drawn to zero

    @property
    def specs(self) -> tuple[AdapterSpec, ...]:
        """The branches with the length and scaling asked for."""
        asked = {"length": self.length, "scaling": self.scaling}
        return tuple(replace(spec, **{k: v for k, v in asked.items() if v is not None}) for spec in self.tuners)  # type: ignore[arg-type]

    def rate(self, step: int) -> float:
        """The learning rate of a step, from 0: linear warm-up, then a half cosine to 0."""
        rising = round(self.warm_up * self.steps)
        return self.lr * ((step + 1) / rising if step < rising else cosine(step - rising, self.steps - rising))


PRESETS: Mapping[str, Config] = {name: UnifiedTunersConfig(tuners=specs) for name, specs in BRANCHES.items()} | {
    "paper": UnifiedTunersConfig(tuners=BRANCHES["dual"], init="xavier", head="zeros")
}


@method(
    paper="arXiv:2303.00690",
    claims="unified_tuners.",
    presets=PRESETS,
    command="tune tuners",
    examples=(
        "Example: photopic tune tuners emoji:held-out-style --shots 8 -o style.edit",
        "Your pictures: photopic tune tuners pictures/ --model openai/clip-vit-base-patch32 --shots 16 -o mine.edit",
        "Look inside: photopic inspect mine.edit",
    ),
    view=accuracy_view,
    allow_edits=True,
)
def unified_tuners(
    model: DualEncoder,
    data: FewShotTask,
    *,
    templates: Templates = TEMPLATES,
    config: UnifiedTunersConfig = UnifiedTunersConfig(),
    run: Run | None = None,
) -> Steps[Edit]:
    """Learn branches beside the operations of the image encoder, and a classifier, from a few pictures a class.

    No weight of the model changes; branches and classifier are one file. Interrupted with Ctrl-C, the same command goes on where it
    stopped.

    Args:
        model: A bundled dual encoder, a folder with one of transformers, or a hub id. Edits in force stay so: the branches are
            learnt on top of them.
        data: A few pictures of each class, and perhaps others to measure on.
        templates: Sentence with {} where a class name goes; several times.
        config: How to tune.
        run: A run folder to checkpoint in and to resume from.

    Returns:
        Branches and head; ``TunedClassifier`` reads them.

    Raises:
        DataError: If there is one class only, one without pictures or whose name has no token, or the branches do not fit.
        ModelError: If the image tower has no transformer blocks.

    Example:
        >>> TunedClassifier(model, unified_tuners(model, data)).predict(images)  # doctest: +SKIP
        ['mug', 'bear']
    """
    check_trainable(data.train)
    branches = TrainableAdapters(model, config.specs, init=config.init, seed=config.seed)
    rows = model.class_features(data.train.names, templates)  # refuses names without a token
    weight = (rows if config.head == "text" else 0 * rows).to(model.device).clone().requires_grad_()
    bias = torch.zeros(len(weight), device=model.device, requires_grad=True)
    yield Event("preparing")

    def logits(pixels: Tensor) -> Tensor:
        with branches.attached():
            features = F.normalize(model.encode_pixels(pixels), dim=-1)
        return model.logit_scale * (features @ weight.mT + bias)  # (n, dim) @ (dim, classes)

    tensors = {**branches.tensors, "head.weight": weight, "head.bias": bias}
    optimizer = torch.optim.AdamW(tensors.values(), lr=config.lr, weight_decay=config.weight_decay)
    yield from fit(Classifying(model, data.train, config, tensors, logits, optimizer), config.steps, run=run)
    scaled = [model.logit_scale * each.detach().cpu() for each in (weight, bias)]  # the head then needs no model
    parts = (branches.part(), ClassifierHead(data.train.names, *scaled))
    return as_edit(parts, (), model, data, rows, trained=branches.count + weight.numel() + bias.numel())
