"""Unified tuners: learn small branches beside the operations of the image tower, and a linear classifier, from a few pictures.

An adapter, a prefix or a prompt stands beside the attention, the MLP or the whole block of every transformer layer, reads what
enters there and adds to what comes out; nothing of the model is changed, and the branches with the classifier are one edit.

Paper: Rethinking Efficient Tuning Methods from a Unified Perspective (U-Tuning, arXiv:2303.00690). Its tuner code is not public.
Changed: branches start at zero (``init="xavier"`` is the successor's start), the classifier starts from the class names, features
have length 1; queries of a branch beside the MLP or block come from that block's own query projection. Claims:
``unified_tuners.*`` of benchmarks/tune/unified_tuners.py.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from photopic.core.edits import ClassifierHead, Edit
from photopic.core.errors import DataError
from photopic.core.provenance import versions
from photopic.core.runs import Run, load_optimizer, optimizer_tensors
from photopic.data.few_shot import LabelledImages
from photopic.learning.few_shot_batches import Step, Training, batches, check_trainable, cosine, running
from photopic.learning.parameters.adapters import AdapterSpec, Init, TrainableAdapters
from photopic.learning.progress import load_matching, peak_bytes
from photopic.learning.tuned_classifier import TunedClassifier
from photopic.models.dual_encoder import TEMPLATES, DualEncoder

PRESETS: dict[str, tuple[AdapterSpec, ...]] = {
    "linear": (),  # no branch: a linear probe in the same loop
    "single": (AdapterSpec("attention"),),
    "dual": (AdapterSpec("attention"), AdapterSpec("ffn")),
    "tri": (AdapterSpec("attention"), AdapterSpec("ffn"), AdapterSpec("block", "prefix")),  # the paper's best third
}


def preset(name: str, **changes: Any) -> tuple[AdapterSpec, ...]:
    """The branches of a preset, with fields of all of them changed.

    Args:
        name: ``linear``, ``single``, ``dual`` or ``tri``.
        changes: Fields of ``AdapterSpec``, such as ``length=4``.

    Raises:
        DataError: If there is no such preset, or a field does not fit.

    Example:
        >>> [spec.op for spec in preset("dual", length=4)]
        ['attention', 'ffn']
    """
    if name not in PRESETS:
        raise DataError(f"preset: expected {', '.join(PRESETS)}, found {name!r}")
    return tuple(replace(spec, **changes) for spec in PRESETS[name])


@dataclass(frozen=True)
class UnifiedTunersConfig:
    """How to tune; every field is written into the edit. The paper states no optimiser; these are its sister paper's kinds."""

    tuners: tuple[AdapterSpec, ...] = PRESETS["dual"]
    init: Init = "zero"  # zero: nothing is changed at first; xavier: random branches, as the successor's library
    head: Literal["text", "zeros"] = "text"  # where the classifier starts: at the class names, or at nothing
    steps: int = 200  # of AdamW
    lr: float = 3e-3  # of branches and classifier, at its highest
    warm_up: float = 0.1  # share of the steps in which the rate rises to that; afterwards it falls along a half cosine
    weight_decay: float = 0.01  # of AdamW
    batch: int = 32  # pictures a step
    augment: bool = True  # random crops of half the area or more
    flip: bool = False  # also mirror half of the pictures
    seed: int = 0  # of the start, the order and the crops

    def __post_init__(self) -> None:
        if self.init not in ("zero", "xavier") or self.head not in ("text", "zeros"):
            raise DataError(
                f"init and head: expected zero or xavier and text or zeros, found {self.init!r} and {self.head!r}"
            )
        if not 0 <= self.warm_up < 1:
            raise DataError(f"warm_up: expected 0 to below 1, found {self.warm_up}")
        if not 0 <= self.weight_decay < float("inf"):
            raise DataError(f"weight_decay: expected 0 or more, found {self.weight_decay}")
        _ = self.training  # refuses what does not fit

    @property
    def training(self) -> Training:
        """The loop."""
        return Training(
            steps=self.steps, lr=self.lr, batch=self.batch, augment=self.augment, flip=self.flip, seed=self.seed
        )

    def rate(self, step: int) -> float:
        """The learning rate of a step, from 0: linear warm-up, then a half cosine to 0."""
        rising = round(self.warm_up * self.steps)
        return self.lr * ((step + 1) / rising if step < rising else cosine(step - rising, self.steps - rising))


def tune_unified(model: DualEncoder, data: LabelledImages, **options: Any) -> TunedClassifier:
    """Learn tuners and a classifier; drives ``tune`` to its end. See there for arguments and errors.

    Example:
        >>> classifier = tune_unified(model, train.shots(8, seed=0))  # doctest: +SKIP
        >>> classifier.save("pets.edit")  # doctest: +SKIP
    """
    *_, last = tune(model, data, **options)
    assert isinstance(last.tuned, TunedClassifier)
    return last.tuned


def tune(
    model: DualEncoder,
    data: LabelledImages,
    *,
    config: UnifiedTunersConfig = UnifiedTunersConfig(),
    templates: Sequence[str] = TEMPLATES,
    run: Run | None = None,
    save_every: int = 25,
) -> Iterator[Step]:
    """Learn tuners and a classifier, reporting after every step; the last event carries the edit and the classifier.

    Edits applied to the model stay in force meanwhile: the branches are learnt on top of them.

    Args:
        model: Its weights are never written.
        data: A few pictures of each class.
        config: How to tune.
        templates: Sentences that make the classifier's start from the class names.
        run: A run folder to checkpoint in and to resume from.
        save_every: Steps between checkpoints.

    Raises:
        DataError: If there is one class only, one without pictures or whose name has no token, or the branches do not fit.
        ModelError: If the image tower has no transformer blocks.
        RunMismatchError: If the run folder holds another tuning.

    Example:
        >>> for event in tune(model, train.shots(8, seed=0)): print(event.step, event.accuracy)  # doctest: +SKIP
    """
    clock, done, right = time.monotonic(), 0, None
    check_trainable(data)
    tuners = TrainableAdapters(model, config.tuners, init=config.init, seed=config.seed)
    weight = model.class_features(data.names, templates).to(model.device)  # refuses names without a token
    head = [(weight if config.head == "text" else 0 * weight).clone(), torch.zeros(len(weight), device=model.device)]
    trained = [*tuners.tensors.values(), *(each.requires_grad_() for each in head)]
    optimizer = torch.optim.AdamW(trained, lr=config.lr, weight_decay=config.weight_decay)
    yield Step("preparing", steps=config.steps)
    identity = _identity(model, data, config, templates)
    if run and (found := load_matching(run, identity)):
        tensors, done = found
        right = float(tensors["right"])
        _restore(trained, optimizer, tensors)
    for step, pixels, labels in batches(model, data, config.training, start=done):
        with tuners.attached():
            features = F.normalize(model.encode_pixels(pixels), dim=-1)
        logits = model.logit_scale * (features @ head[0].mT + head[1])  # (n, dim) @ (dim, classes)
        loss = F.cross_entropy(logits, labels)
        gradients = torch.autograd.grad(loss, trained, allow_unused=True)  # of some towers' last block not all is read
        for tensor, gradient in zip(trained, gradients, strict=True):
            tensor.grad = gradient
        optimizer.param_groups[0]["lr"] = config.rate(step)
        optimizer.step()
        right = running(right, float((logits.argmax(1) == labels).float().mean()))
        if run and ((step + 1) % save_every == 0 or step + 1 == config.steps):
            state = {f"trained.{number}": each for number, each in enumerate(trained)} | optimizer_tensors(optimizer)
            run.save(
                state | {"right": torch.tensor(right, dtype=torch.float64)}, {"step": step + 1, "identity": identity}
            )
        elapsed = time.monotonic() - clock
        to_go = elapsed / (step + 1 - done) * (config.steps - step - 1)
        yield Step("tuning", step + 1, config.steps, loss.item(), right, elapsed_s=elapsed, eta_s=to_go)
    scaled = [model.logit_scale * each.detach().cpu() for each in head]  # so that the head needs nothing of the model
    parts = (tuners.part(), ClassifierHead(tuple(data.names), *scaled))
    edit = Edit(parts, model.edits.fingerprint(), _provenance(model, data, config, tuners.count, clock))
    elapsed = time.monotonic() - clock
    last = Step("done", config.steps, config.steps, 0.0, right or 0.0, elapsed_s=elapsed)
    yield replace(last, edit=edit, tuned=TunedClassifier(model, edit))


def _identity(model: DualEncoder, data: LabelledImages, config: UnifiedTunersConfig, templates: Sequence[str]) -> str:
    given = [asdict(config), list(templates), model.digest(), data.digest]
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()


def _restore(trained: Sequence[Tensor], optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for number, each in enumerate(trained):
            each.copy_(tensors[f"trained.{number}"])
    load_optimizer(optimizer, tensors)


def _provenance(
    model: DualEncoder, data: LabelledImages, config: UnifiedTunersConfig, tuned: int, began: float
) -> dict[str, Any]:
    return {
        "method": "unified_tuners",
        "paper": "arXiv:2303.00690",
        "config": asdict(config),
        "seed": config.seed,
        "steps": config.steps,
        "classes": list(data.names),
        "images": len(data),
        "data": data.digest,
        "trained": tuned,
        "versions": versions(),
        "device": str(model.device),
        "elapsed_s": round(time.monotonic() - began, 1),
        "peak_bytes": peak_bytes(model.device),
    }
