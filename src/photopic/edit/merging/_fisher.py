"""Fisher merging: each model's entries are weighed by how much its own predictions depend on them.

Paper: Merging Models with Fisher-Weighted Averaging (arXiv:2111.09832). Changed: the floor is added to every Fisher entry, not its
least value, so that entries that matter to nobody are averaged; one label is drawn a picture. Sums are kept in mapped files and the
squared gradient of a tensor is added to them as soon as it is there, so memory does not grow with the number of models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from photopic.core.events import Event, Steps
from photopic.data.class_folder import ClassFolder
from photopic.data.few_shot import LabelledImages
from photopic.edit.merging._common import Changes, Sums, Totals
from photopic.learning.class_logits import Logits, class_logits
from photopic.models.handle import Handle

Pictures = ClassFolder | LabelledImages


def fisher_weighted(
    changes: Changes,
    weights: Sequence[float],
    model: Handle,
    data: Sequence[Pictures],
    *,
    floor: float,
    pictures: int,
    seed: int,
    folder: Path,
) -> Steps[Totals]:
    """sum_i w_i (F_i + floor) tau_i / sum_i w_i (F_i + floor), F_i the diagonal Fisher of the base with edit i.

    Args:
        changes: tau_i, what each edit adds to the base.
        weights: w_i, one an edit.
        model: The base.
        data: Pictures of what each edit is for, in the edits' order; their labels are not asked.
        floor: Added to every entry of every Fisher.
        pictures: At most so many of each.
        seed: Of the pictures and of the labels drawn.
        folder: For the files of the sums.
    """
    sums = _WeighedSums(Sums(folder / "upper"), Sums(folder / "lower"))
    for number, (weight, given) in enumerate(zip(weights, data, strict=True)):
        base = {name: model.parameters(name)[name].detach() for name in changes.names}
        theta = _edited(base, changes, number)
        for name, tensor in theta.items():
            sums.add(name, torch.full((tensor.numel(),), weight * floor), tensor - base[name])
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(given), generator=generator)[:pictures].tolist()
        logits = class_logits(model, names_of(given))(theta)
        images = given.images if isinstance(given, LabelledImages) else given
        with sums.watching(theta, base, weight / len(chosen)):
            for done, place in enumerate(chosen, 1):
                pixels = model.preprocess([images[place]])  # type: ignore[attr-defined]  # as class_logits has checked
                drawn_label_loss(logits, pixels, generator).backward()
                yield Event(f"measuring edit {number + 1}", done, len(chosen))
        del theta, logits  # before the next edit is read
    for name, total in sums.upper.totals.items():
        total /= sums.lower.totals[name]
    return sums.upper.totals


def _edited(base: Mapping[str, Tensor], changes: Changes, number: int) -> dict[str, Tensor]:
    """theta_i, the only whole copy of weights in memory; what an edit does not touch is a copy of the base's."""
    theta: dict[str, Tensor] = {}
    for name, change in changes.of(number):
        theta[name] = (base[name] + change.view_as(base[name])).to(base[name].dtype)
    return {name: theta[name] if name in theta else base[name].clone() for name in base}


@dataclass
class _WeighedSums:
    """Above the line w F tau, below it w F, both flat by tensor name."""

    upper: Sums
    lower: Sums

    def add(self, name: str, fisher: Float[Tensor, " entries"], tau: Tensor) -> None:
        self.upper.add(name, fisher * tau.flatten().float())
        self.lower.add(name, fisher)

    @contextmanager
    def watching(self, theta: Mapping[str, Tensor], base: Mapping[str, Tensor], share: float) -> Iterator[None]:
        """A block in which each gradient of theta is squared and added, times a share, as soon as it is known, and let go."""

        def take(name: str, leaf: Tensor) -> None:
            assert leaf.grad is not None
            self.add(name, share * leaf.grad.flatten().float().square(), leaf.detach() - base[name])
            leaf.grad = None

        hooks = [
            tensor.requires_grad_().register_post_accumulate_grad_hook(partial(take, name))
            for name, tensor in theta.items()
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def drawn_label_loss(
    logits: Logits, pixels: Float[Tensor, "1 3 height width"], generator: torch.Generator
) -> Float[Tensor, ""]:
    """-log p(y | x) of a label drawn from the model's own p(y | x), as the Fisher asks; not of the true label."""
    log_p = logits(pixels).float().log_softmax(1)[0]  # (classes,)
    return -log_p[torch.multinomial(log_p.detach().exp().cpu(), 1, generator=generator)].sum()


def names_of(given: Pictures) -> tuple[str, ...]:
    """The classes that pictures are sorted by, each once; none where they lie loose."""
    return given.names if isinstance(given, LabelledImages) else tuple(sorted(set(given.classes or ())))
