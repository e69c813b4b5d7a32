"""A logit as a weighted sum of a few others: fits on given samples, and how it does on other samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from photopic.core.errors import DataError
from photopic.core.numerics.lasso_path import lambda_grid, lasso_path


@dataclass(frozen=True)
class Replacement:
    """Weights of other classes, and what to add to their sum."""

    support: tuple[int, ...]
    weights: tuple[float, ...]
    offset: float = 0.0

    def of(self, logits: Float[Tensor, "n classes"]) -> Float[Tensor, "n"]:
        """The replaced logit."""
        return logits[:, list(self.support)] @ torch.tensor(self.weights, dtype=logits.dtype) + self.offset


PUBLISHED_RATE = 1e-5


def published_fits(
    samples: Sequence[Float[Tensor, "_ classes"]],
    classes: Sequence[int],
    *,
    steps: int,
    rate: float | None,
    penalty: float,
    keep: int,
) -> list[Replacement]:
    """Sub-gradient descent on mean squared error + penalty * ||w||_1 from zero, no offset; then the ``keep`` largest |w|.

    Args:
        samples: Logits that each class is fitted on.
        classes: The logits to replace.
        steps: Of the descent, all classes at once.
        rate: Step size; None: the published one, for a class on whose logits it would diverge the largest that does not.
        penalty: Weight of the l1 norm.
        keep: Weights kept. Those that no step moved are left out.

    Raises:
        DataError: If a descent diverges.

    Example:
        >>> samples = [torch.tensor([[1.0, 2.0], [2.0, 4.0]])]
        >>> published_fits(samples, [1], steps=100, rate=0.01, penalty=0.0, keep=1)[0].support
        (0,)
    """
    longest = max(len(each) for each in samples)
    width = samples[0].shape[1]
    others = torch.zeros(len(classes), longest, width)  # (classes, samples, predictors), zeros where there is no sample
    wanted = torch.zeros(len(classes), longest, 1)
    for number, (each, own) in enumerate(zip(classes, samples, strict=True)):
        others[number, : len(own)] = own.float()
        wanted[number, : len(own), 0] = own[:, each].float()
        others[number, :, each] = 0  # its weight stays zero
    counts = torch.tensor([len(own) for own in samples]).view(-1, 1, 1)
    size = torch.tensor(rate) if rate is not None else stable_rates(others, counts)
    weights = torch.zeros(len(classes), width, 1)
    for _ in range(steps):
        residual = others @ weights - wanted  # (classes, samples, predictors) @ (classes, predictors, 1)
        # down the gradient of (1/n) ||X w - y||^2 and the sub-gradient of penalty ||w||_1, which is 0 at 0
        weights -= size * (2 * others.mT @ residual / counts + penalty * weights.sign())
    if not bool(weights.isfinite().all()):
        raise DataError(
            f"the published descent diverges at a step size of {rate:g} on these logits; choose a smaller one (rate)"
        )
    return [_largest(row[:, 0], keep) for row in weights]


def stable_rates(
    others: Float[Tensor, "classes samples predictors"], counts: Int[Tensor, "classes 1 1"]
) -> Float[Tensor, "classes 1 1"]:
    """The published step size, or 0.9 over the largest eigenvalue of the second moment where that is less.

    The descent on the squared error converges below one over that eigenvalue.
    """
    largest = torch.linalg.matrix_norm(others, 2) ** 2 / counts[:, 0, 0]
    return (0.9 / largest.clamp(min=1e-30)).clamp(max=PUBLISHED_RATE)[:, None, None]


def path_fits(
    samples: Float[Tensor, "n classes"], classes: Sequence[int], *, keep: int, lambdas: int, smallest: float
) -> list[Replacement]:
    """The lasso on standardised logits by coordinate descent: of a path the last point with at most ``keep`` weights.

    Example:
        >>> logits = torch.randn(500, 4).double()
        >>> logits[:, 3] = 2 * logits[:, 0] - logits[:, 1]
        >>> path_fits(logits, [3], keep=2, lambdas=40, smallest=1e-3)[0].support
        (0, 1)
    """
    mean, std = samples.mean(0), samples.std(0, correction=0)
    std = torch.where(std > 1e-12 * samples.abs().max(), std, torch.inf)  # what is constant predicts nothing
    standard = (samples - mean) / std
    second = (standard.T @ standard / len(samples)).numpy()  # the correlation, (classes, classes)
    np.fill_diagonal(second, 1.0)
    path = lasso_path(second, lambda_grid(2.0, count=lambdas, smallest=smallest), targets=list(classes), threads=1)
    found = []
    for row, each in enumerate(classes):
        step = int(np.flatnonzero(path.supports[row] <= keep)[-1])  # the smallest penalty that keeps no more
        members, values = path.of(row, step)
        order = np.argsort(members)
        members, values = members[order], values[order]
        # back from standardised to logits
        weights = torch.as_tensor(values) * std[each] / std[torch.as_tensor(members)]
        # so that the sum has the mean of the logit
        offset = mean[each] - (weights * mean[torch.as_tensor(members)]).sum()
        if not bool(std[each].isfinite()):  # a constant logit is its mean
            members, weights, offset = members[:0], weights[:0], mean[each]
        found.append(Replacement(tuple(int(m) for m in members), tuple(weights.tolist()), float(offset)))
    return found


def judge(
    replacement: Replacement,
    each: int,
    fitted: Float[Tensor, "n classes"],
    held_out: Float[Tensor, "m classes"],
    truth: Int[Tensor, "m"],
) -> dict[str, Any]:
    """Errors of a replacement on the samples it was fitted on and on held-out ones; keys as ``independence_deficit`` says."""
    replaced, own = replacement.of(held_out), held_out[:, each]
    spread = float(own.std(correction=0))
    rest = held_out.clone()
    rest[:, each] = -torch.inf
    others = rest.logsumexp(1)  # p = sigmoid(f_i - log sum_(j != i) exp f_j)
    before, after = (own - others).sigmoid(), (replaced - others).sigmoid()  # softmax of the class
    relative = {
        "logit": (replaced - own).abs() / own.abs().clamp(min=1e-30),
        "softmax": (after - before).abs() / before.clamp(min=1e-30),
    }
    facts: dict[str, Any] = {
        "weights": list(replacement.weights),
        "offset": replacement.offset,
        "fit_error": _root_mean_square(replacement.of(fitted) - fitted[:, each]) / spread,
    }
    positive = truth == each
    for place, where in (("positives", positive), ("all", torch.ones_like(positive))):
        facts[f"error_{place}"] = _root_mean_square((replaced - own)[where]) / spread
        for name, values in relative.items():
            facts[f"relative_{name}_error_{place}"] = float(values[where].mean())
    best = rest.max(1).values
    for suffix, logit in (("", own), ("_replaced", replaced)):
        facts[f"recall{suffix}"] = _share((logit > best)[positive])
        facts[f"false_positives{suffix}"] = _share((logit > best)[~positive])
    return facts


def _largest(weights: Float[Tensor, "classes"], keep: int) -> Replacement:
    order = weights.abs().argsort(descending=True)[:keep]
    kept = sorted(int(index) for index in order if weights[index] != 0)
    return Replacement(tuple(kept), tuple(weights[kept].double().tolist()))


def _root_mean_square(values: Float[Tensor, "n"]) -> float:
    return float(values.square().mean().sqrt())


def _share(hits: Bool[Tensor, "n"]) -> float:
    return float(hits.double().mean()) if len(hits) else 0.0
