"""Mask tuning: learn from a few pictures a class which weights of the image encoder to switch off, and keep one bit a weight.

Nothing is added and no weight is changed: what comes out is a set of weights that become zero, which can be taken away again,
stacked on other edits and sent as a file of a few kilobytes. Gradient dropout lets the zero-shot classifier veto steps that
work against what the model already knows.

Paper: Regularized Mask Tuning (arXiv:2307.15049). Changed: the unmasked teacher runs without gradients, and once a picture where
pictures are not augmented; both losses share one forward pass; a learning rate under which no bit could flip is refused or
raised; the file codes the positions of the zeros, which costs less than a bit a weight; mirroring is off by default; few pictures
in many steps, as far as ``reach`` says, choose better than the published rate (``presets["paper"]``). Claims:
``mask_tuning.*`` of benchmarks/tune/mask_tuning.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from photopic.core.config import Config, Flags
from photopic.core.edits import Edit, ZeroedWeights
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.fit import fit
from photopic.core.method import method
from photopic.core.runs import Run, load_optimizer, optimizer_tensors
from photopic.data.few_shot import FewShotTask, LabelledImages
from photopic.learning.few_shot_batches import (
    RunningShare,
    Training,
    batch_at,
    check_trainable,
    cosine,
    epoch_of,
    epochs,
)
from photopic.learning.losses.distillation import Teacher, distillation
from photopic.learning.parameters.binary_mask import BinaryMask, GateForm, Masked, Variant, maskable
from photopic.models.dual_encoder import TEMPLATES, DualEncoder, Templates
from photopic.tune.few_shot._common import accuracy_view, as_edit, unit_rows

RESCALED = 10  # where no bit could flip, the rate is raised until the steps go so many times from start to threshold
MUCH = 0.06  # more was switched off only where few steps reached far, and then for the worse


@dataclass(frozen=True)
class MaskTuningConfig(Config):
    """How to tune; every field is written into the edit."""

    which: Variant = "attention"  # weights that may be switched off: attention, mlp or all; convolution kernels always
    # how much the model as it is may veto steps against what it knows: 1 keeps the most of it, lower fits your pictures
    # more, 0 does not ask it and takes half the time
    dropout: Annotated[float, Ge(0), Le(1)] = 1.0
    steps: Annotated[int | None, Ge(1)] = 300  # steps of learning; more chooses better and takes longer
    epochs: Annotated[int, Ge(1)] = 30  # times everything is seen, where no steps are given (in Python: steps=None)
    # how much is switched off: the way all steps can go, in distances from on to off; up to 1 nothing is, at 4 about one to
    # four weights in a hundred
    reach: Annotated[float | None, Gt(0)] = 4.0
    lr: Annotated[float | None, Gt(0)] = None  # size of a step, in place of the reach; published: 8e-5
    batch: Annotated[int, Ge(1)] = 16  # pictures a step; few, in many steps, choose better
    augment: bool = True  # crop pictures at random while learning, to half the area or more
    flip: bool = False  # also mirror them at random, where left and right do not matter
    form: GateForm = "code"  # which steps the veto drops: as the published code, or as the paper's figure says
    temperature: Annotated[float, Gt(0)] = 1.0  # T of the loss to the model as it is
    init: float = 0.01  # M at the start, everywhere
    threshold: float = 0.005  # a weight stays where its M is above it
    norm_weight: Annotated[float, Ge(0)] = 1e-4  # weight of the sum of the L2 norms of M
    budget: Literal["rescale", "refuse", "keep"] = "rescale"  # what to do with a rate under which no bit could flip
    seed: Annotated[int, Ge(0)] = 0  # seed of everything random; the same seed learns the same

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lr is None and (self.reach is None or self.reach <= 1):
            raise DataError(f"reach: expected above 1, below which no weight can be switched off, found {self.reach}")
        if not self.threshold < self.init:
            raise DataError(
                f"threshold: expected below init {self.init}, so that every weight stays at first, found {self.threshold}"
            )

    def training(self, count: int) -> Training:
        """The loop over so many pictures; its rate is 1, and ``_rate`` says what that stands for."""
        size = min(self.batch, count)
        steps = -(-self.epochs * count // max(1, size)) if self.steps is None else self.steps
        return Training(steps=steps, lr=1.0, batch=self.batch, augment=self.augment, flip=self.flip, seed=self.seed)


@method(
    paper="arXiv:2307.15049",
    claims="mask_tuning.",
    presets={"paper": MaskTuningConfig(steps=None, reach=None, lr=8e-5, batch=32, flip=True)},
    command="tune mask",
    examples=(
        "Example: photopic tune mask emoji:held-out-style --shots 4 -o style.edit",
        "Your pictures: photopic tune mask pictures/ --model openai/clip-vit-base-patch32 --shots 16 -o mine.edit",
        "Look inside: photopic inspect mine.edit",
    ),
    view=accuracy_view,
    allow_edits=True,
)
def mask_tuning(
    model: DualEncoder,
    data: FewShotTask,
    *,
    templates: Templates = TEMPLATES,
    class_embeddings: Annotated[Float[Tensor, "classes dim"] | None, Flags()] = None,
    config: MaskTuningConfig = MaskTuningConfig(),
    run: Run | None = None,
) -> Steps[Edit]:
    """Teach a CLIP-like model your classes by switching a few of its weights off: nothing is added, no weight is changed.

    The file says which weights, in less than a bit for each there is; without it every byte of the model is as before. Interrupted
    with Ctrl-C, the same command goes on where it stopped.

    Args:
        model: A bundled dual encoder, a folder with one of transformers, or a hub id. Edits in force stay so: the mask is learnt on
            top of them, and its edit names the base they share.
        data: A few pictures of each class, and perhaps others to measure on.
        templates: Sentence with {} where a class name goes; several times.
        class_embeddings: A classifier to tune for, one row of length 1 a class, in place of the names': learnt prompts.
        config: How to tune.
        run: A run folder to checkpoint in and to resume from.

    Returns:
        The weights to switch off.

    Raises:
        DataError: If there is one class only, one without pictures or whose name has no token, if the classifier does not
            fit, if no bit could flip and ``config.budget`` refuses that, or none did.
        ModelError: If the image tower has nothing to mask.
        RunMismatchError: If the run folder holds another tuning.

    Example:
        >>> edit = mask_tuning(model, FewShotTask(train.shots(4, seed=0)))  # doctest: +SKIP
    """
    check_trainable(data.train)
    lr, warning = _rate(config, len(data.train))
    rows = unit_rows(model, data.train, templates, class_embeddings)
    yield Event("preparing", warning=warning)
    model.network.eval()  # batch normalisations keep their running statistics
    learner = _Masking(model, data.train, rows, lr, config)
    yield from fit(learner, config.training(len(data.train)).steps, run=run)
    mask = learner.mask
    part = ZeroedWeights.of_masks({name: bits.cpu() for name, bits in mask.bits().items()})
    if not part.indices:
        raise DataError("no weight was switched off; raise the learning rate, the reach or the number of steps")
    if mask.share > MUCH:
        much = f"{mask.share:.0%} of the weights is a lot to switch off; more steps or a smaller reach choose better"
        yield Event("measuring", warning=much)
    return as_edit([part], part.names(), model, data, rows, share_masked=mask.share, lr=lr)


class _Masking:
    """The real numbers behind the mask, learnt batch by batch."""

    def __init__(
        self,
        model: DualEncoder,
        data: LabelledImages,
        rows: Float[Tensor, "classes dim"],
        lr: float,
        config: MaskTuningConfig,
    ):
        self.model, self.data, self.rows, self.lr, self.config = model, data, rows, lr, config
        weights = maskable(model, config.which)
        self.mask = BinaryMask(weights, init=config.init, threshold=config.threshold, norm_weight=config.norm_weight)
        same = None if config.augment or config.flip else data.images  # then the teacher says the same in every step
        self.teacher = Teacher(model, rows, same) if config.dropout else None
        self.encoder, self.training = Masked(model), config.training(len(data))
        self.accuracy = RunningShare()

    def step(self, step: int) -> Mapping[str, float]:
        data, training, config = self.data, self.training, self.config
        index, pixels, labels = batch_at(self.model, data, training, step)  # (batch,), (batch, 3, h, w), (batch,)
        guide = None
        if self.teacher is not None:
            guide = partial(distillation, teacher=self.teacher(pixels, index), temperature=config.temperature)
        logits, loss = self.mask.step(
            partial(_logits, self.encoder, pixels, self.model.logit_scale * self.rows),
            partial(F.cross_entropy, target=labels),
            guide,
            lr=self.lr * cosine(epoch_of(len(data), training, step), epochs(len(data), training)),
            strength=config.dropout,
            form=config.form,
            generator=torch.Generator(self.model.device).manual_seed((config.seed * 1_000_003 + step) % 2**63),
        )
        now = self.accuracy.update((logits.argmax(1) == labels).float().mean().item())
        return {"loss": loss.item(), "accuracy": now, "share": self.mask.share}

    def state(self) -> dict[str, Tensor]:
        mask = {f"mask.{name}": real for name, real in self.mask.real.items()}
        return mask | optimizer_tensors(self.mask.adam) | {"accuracy": self.accuracy.value}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        for name, real in self.mask.real.items():
            real.copy_(state[f"mask.{name}"])
        load_optimizer(self.mask.adam, state)
        self.accuracy.value.copy_(state["accuracy"])


def step_budget(config: MaskTuningConfig, count: int, lr: float) -> float:
    """How far all steps can take an entry, in distances from start to threshold: below 1 no bit flips.

    Adam moves an entry by about the rate in a step, so the distance is the sum of the rates.

    Args:
        config: How to tune.
        count: Training pictures.
        lr: Rate at the first step.

    Example:
        >>> round(step_budget(MaskTuningConfig(steps=None, batch=32), 160, 8e-5), 2)
        1.24
    """
    training = config.training(count)
    total = epochs(count, training)
    rates = (lr * cosine(epoch_of(count, training, step), total) for step in range(training.steps))
    return sum(rates) / (config.init - config.threshold)


def _rate(config: MaskTuningConfig, count: int) -> tuple[float, str]:
    """The learning rate, and a word about it where it was raised."""
    if config.lr is None:
        assert config.reach is not None  # checked by the config
        return config.reach / step_budget(config, count, 1.0), ""
    budget = step_budget(config, count, config.lr)
    if budget > 1 or config.budget == "keep":
        return config.lr, ""
    steps, raised = config.training(count).steps, config.lr * RESCALED / budget
    short = (
        f"lr {config.lr:.3g} moves a mask entry at most {budget:.2g} of the way to its threshold in {steps} steps, so no weight "
        "could be switched off"
    )
    if config.budget == "refuse":
        raise DataError(f"{short}; use lr {raised:.2g}, more steps, or budget rescale")
    return raised, f"{short}; using lr {raised:.2g}"


def _logits(encoder: Masked, pixels: Tensor, scaled_rows: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    return encoder(pixels, weights) @ scaled_rows.mT  # (n, dim) @ (dim, classes)
