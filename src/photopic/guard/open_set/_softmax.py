"""Uncertainties of logits in float64, without the cancellation that makes very sure samples equal."""

from __future__ import annotations

import numpy as np

from photopic.guard.open_set._common import Column, Rows


def rest(logits: Rows) -> Column:
    """Sum of exp(z - max z) over all classes but the likeliest."""
    rows, likeliest = np.arange(len(logits)), logits.argmax(1)
    others = np.exp(logits - logits[rows, likeliest, None])  # (n, classes)
    others[rows, likeliest] = 0
    return others.sum(1)


def msp(logits: Rows) -> Column:
    """1 minus the maximum softmax probability."""
    left = rest(logits)
    return left / (1 + left)


def doctor(logits: Rows) -> Column:
    """(1 - sum p^2) / sum p^2, where 1 - sum p^2 = sum p (1 - p)."""
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    other = 1 - p
    other[np.arange(len(p)), p.argmax(1)] = msp(logits)
    return (p * other).sum(1) / (p**2).sum(1)


def energy(logits: Rows) -> Column:
    """Minus the log-sum-exp."""
    return -(logits.max(1) + np.log1p(rest(logits)))


def entropy(logits: Rows) -> Column:
    """Entropy in nats."""
    log_p = logits - logits.max(1, keepdims=True) - np.log1p(rest(logits))[:, None]
    return -(np.exp(log_p) * log_p).sum(1)
