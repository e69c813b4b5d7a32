"""Mask tuning: learn from a few pictures a class which weights of the image encoder to switch off, and keep one bit a weight.

Nothing is added and no weight is changed: what comes out is a set of weights that become zero, which can be taken away again,
stacked on other edits and sent as a file of a few kilobytes. Gradient dropout lets the zero-shot classifier veto steps that
work against what the model already knows.

Paper: Regularized Mask Tuning (arXiv:2307.15049). Changed: the unmasked teacher runs without gradients, and once a picture where
pictures are not augmented; both losses share one forward pass; a learning rate under which no bit could flip is refused or
raised; the file codes the positions of the zeros, which costs less than a bit a weight; mirroring is off by default. Claims:
``mask_tuning.*`` of benchmarks/tune/mask_tuning.py.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from photopic.core.edits import Edit, ZeroedWeights
from photopic.core.errors import DataError
from photopic.core.provenance import versions
from photopic.core.runs import Run, load_optimizer, optimizer_tensors
from photopic.data.few_shot import LabelledImages
from photopic.learning.classifiers import TextClassifier
from photopic.learning.few_shot_batches import (
    Step,
    Training,
    check_trainable,
    cosine,
    drawn,
    epoch_of,
    epochs,
    pixels_of,
    running,
)
from photopic.learning.losses.distillation import Teacher, distillation
from photopic.learning.parameters.binary_mask import BinaryMask, GateForm, Masked, Variant, maskable
from photopic.learning.progress import load_matching, peak_bytes
from photopic.models.dual_encoder import TEMPLATES, DualEncoder

RESCALED = (
    10  # where no bit could flip, the rate is raised until all steps together go so many times from start to threshold
)


@dataclass(frozen=True)
class MaskTuningConfig:
    """How to tune, with the paper's defaults; every field is written into the edit."""

    which: Variant = "attention"  # matrices: of attention, of the MLPs, or all; convolution kernels always
    lr: float = 8e-5  # of Adam at the first step, falling along a half cosine once an epoch
    reach: float | None = None  # in place of lr: how far all steps together go, in distances from init to threshold
    epochs: int = 30  # times everything is seen
    steps: int | None = None  # of the optimizer, in place of epochs
    batch: int = 32  # pictures a step
    dropout: float = (
        1.0  # l: 1 drops steps against the zero-shot model, less scales them by 1 - l, 0: plain mask tuning
    )
    form: GateForm = "code"  # which steps are dropped; "figure": the opposite choice, as the paper's figure has it
    temperature: float = 1.0  # T of the loss to the zero-shot teacher
    init: float = 0.01  # M at the start
    threshold: float = 0.005  # a weight stays where M is above it
    norm_weight: float = 1e-4  # of the sum of the L2 norms of M
    augment: bool = True  # random crops of half the area or more
    flip: bool = False  # also mirror half of the pictures; the paper does
    budget: Literal["rescale", "refuse", "keep"] = "rescale"  # what to do with a rate under which no bit could flip
    seed: int = 0  # of the order, the crops and the draws of gradient dropout

    def __post_init__(self) -> None:
        if not 0 <= self.dropout <= 1:
            raise DataError(f"dropout: expected 0 to 1, found {self.dropout}")
        if self.epochs < 1:
            raise DataError(f"epochs: expected 1 or more, found {self.epochs}")
        if self.reach is not None and not self.reach > 1:
            raise DataError(f"reach: expected above 1, below which no weight can be switched off, found {self.reach}")
        if not self.threshold < self.init:
            raise DataError(
                f"threshold: expected below init {self.init}, so that every weight stays at first, found {self.threshold}"
            )
        if not self.temperature > 0:
            raise DataError(f"temperature: expected a number above 0, found {self.temperature}")

    def training(self, count: int) -> Training:
        """The loop over so many pictures."""
        size = min(self.batch, count)
        steps = -(-self.epochs * count // max(1, size)) if self.steps is None else self.steps
        return Training(steps=steps, lr=self.lr, batch=self.batch, augment=self.augment, flip=self.flip, seed=self.seed)


def tune_mask(model: DualEncoder, data: LabelledImages, **options: Any) -> TextClassifier:
    """Learn a mask; drives ``tune`` to its end. See there for arguments and errors.

    Example:
        >>> tuned = tune_mask(model, train.shots(4, seed=0))  # doctest: +SKIP
        >>> tuned.logits(test.images).argmax(1)  # doctest: +SKIP
    """
    *_, last = tune(model, data, **options)
    assert isinstance(last.tuned, TextClassifier)
    return last.tuned


def tune(
    model: DualEncoder,
    data: LabelledImages,
    *,
    config: MaskTuningConfig = MaskTuningConfig(),
    templates: Sequence[str] = TEMPLATES,
    class_features: Float[Tensor, "classes dim"] | None = None,
    run: Run | None = None,
    save_every: int = 25,
) -> Iterator[Step]:
    """Learn a mask, reporting after every step; the last event carries the edit and the classifier.

    Edits applied to the model stay in force meanwhile: the mask is learnt on top of them, and its edit names the base they share.

    Args:
        model: Its weights are never written.
        data: A few pictures of each class.
        config: How to tune.
        templates: Sentences that make the classifier of the class names.
        class_features: A classifier to tune for, one row of length 1 a class, in place of the names': learnt prompts.
        run: A run folder to checkpoint in and to resume from.
        save_every: Steps between checkpoints.

    Raises:
        DataError: If there is one class only, one without pictures or whose name has no token, if the classifier does not
            fit, or no bit could flip and ``config.budget`` refuses that.
        ModelError: If the image tower has nothing to mask.
        RunMismatchError: If the run folder holds another tuning.

    Example:
        >>> for event in tune(model, train.shots(4, seed=0)): print(event.step, event.accuracy)  # doctest: +SKIP
    """
    clock = time.monotonic()
    check_trainable(data)
    training = config.training(len(data))
    lr, warning = _rate(config, len(data))
    rows = _classifier(model, data, templates, class_features)
    yield Step("preparing", steps=training.steps, warning=warning)
    model.network.eval()  # batch normalisations keep their running statistics
    weights = maskable(model, config.which)
    mask = BinaryMask(weights, init=config.init, threshold=config.threshold, norm_weight=config.norm_weight)
    given = {**asdict(config), "templates": list(templates), "classes": _digest(rows), "model": model.digest()}
    identity = hashlib.sha256(json.dumps([given, data.digest], sort_keys=True).encode()).hexdigest()
    done, right = 0, None
    if run and (found := load_matching(run, identity)):
        tensors, done = found
        right = float(tensors["right"])
        _restore(mask, tensors)
    same = None if config.augment or config.flip else data.images
    teacher = Teacher(model, rows, same) if config.dropout else None
    encoder, scale, total = Masked(model), model.logit_scale, epochs(len(data), training)
    for step in range(done, training.steps):
        index = drawn(len(data), training, step)
        pixels = pixels_of(model, data, index, training, step)
        labels = torch.from_numpy(data.labels[index]).to(model.device)
        logits, loss = mask.step(
            partial(_logits, encoder, pixels, scale * rows),
            partial(F.cross_entropy, target=labels),
            partial(distillation, teacher=teacher(pixels, index), temperature=config.temperature) if teacher else None,
            lr=lr * cosine(epoch_of(len(data), training, step), total),
            strength=config.dropout,
            form=config.form,
            generator=torch.Generator(model.device).manual_seed((config.seed * 1_000_003 + step) % 2**63),
        )
        right = running(right, float((logits.argmax(1) == labels).float().mean()))
        if run and ((step + 1) % save_every == 0 or step + 1 == training.steps):
            state = {f"mask.{name}": real for name, real in mask.real.items()} | optimizer_tensors(mask.adam)
            run.save(
                state | {"right": torch.tensor(right, dtype=torch.float64)}, {"step": step + 1, "identity": identity}
            )
        elapsed = time.monotonic() - clock
        to_go = elapsed / (step + 1 - done) * (training.steps - step - 1)
        yield Step("tuning", step + 1, training.steps, float(loss), right, mask.share, elapsed, to_go)
    edit = _edit(model, mask, config, data, lr, training.steps, time.monotonic() - clock)
    tuned = TextClassifier(
        model,
        rows.cpu(),
        edit,
        trainable=sum(weight.numel() for weight in weights.values()),
        embeddings_learnt=class_features is not None,
        templates=templates,
    )
    nothing = "" if edit else "no weight was switched off: raise the learning rate or the number of steps"
    elapsed = time.monotonic() - clock
    yield Step(
        "done",
        training.steps,
        training.steps,
        0.0,
        right or 0.0,
        mask.share,
        elapsed,
        warning=nothing,
        edit=edit,
        tuned=tuned,
    )


def step_budget(config: MaskTuningConfig, count: int) -> float:
    """How far all steps at ``lr`` can take an entry, in distances from start to threshold: below 1 no bit flips.

    Adam moves an entry by about the rate in a step, so the distance is the sum of the rates.

    Args:
        config: How to tune.
        count: Training pictures.

    Example:
        >>> round(step_budget(MaskTuningConfig(), 160), 2)
        1.24
    """
    training = config.training(count)
    total = epochs(count, training)
    rates = (config.lr * cosine(epoch_of(count, training, step), total) for step in range(training.steps))
    return sum(rates) / (config.init - config.threshold)


def _rate(config: MaskTuningConfig, count: int) -> tuple[float, str]:
    """The learning rate, and a word about it where it was raised."""
    budget = step_budget(config, count)
    if config.reach is not None:
        return config.lr * config.reach / budget, ""
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


def _classifier(
    model: DualEncoder, data: LabelledImages, templates: Sequence[str], given: Tensor | None
) -> Float[Tensor, "classes dim"]:
    rows = model.class_features(data.names, templates) if given is None else given.detach().float()
    if rows.ndim != 2 or len(rows) != len(data.names):
        raise DataError(
            f"class_features: expected one row for each of the {len(data.names)} classes, found shape {tuple(rows.shape)}"
        )
    return F.normalize(rows, dim=-1).to(model.device)


def _edit(
    model: DualEncoder,
    mask: BinaryMask,
    config: MaskTuningConfig,
    data: LabelledImages,
    lr: float,
    steps: int,
    elapsed: float,
) -> Edit | None:
    part = ZeroedWeights.of_masks({name: bits.cpu() for name, bits in mask.bits().items()})
    if not part.indices:
        return None
    provenance = {
        "method": "mask_tuning",
        "paper": "arXiv:2307.15049",
        "config": asdict(config) | {"lr": lr},
        "seed": config.seed,
        "steps": steps,
        "classes": list(data.names),
        "images": len(data),
        "data": data.digest,
        "share_masked": mask.share,
        "versions": versions(),
        "device": str(model.device),
        "elapsed_s": round(elapsed, 1),
        "peak_bytes": peak_bytes(model.device),
    }
    return Edit((part,), model.edits.fingerprint(*part.names()), provenance)


def _restore(mask: BinaryMask, tensors: dict[str, Tensor]) -> None:
    for name, real in mask.real.items():
        real.copy_(tensors[f"mask.{name}"])
    load_optimizer(mask.adam, tensors)


def _digest(rows: Tensor) -> str:
    return hashlib.sha256(rows.cpu().contiguous().numpy().tobytes()).hexdigest()
