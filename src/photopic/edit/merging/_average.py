"""Plain average and task arithmetic: weighted sums of the changes, which are sums of whole models less the base.

Papers: Model soups (arXiv:2203.05482) for the average; Editing Models with Task Arithmetic (arXiv:2212.04089) for the sum.
"""

from __future__ import annotations

from collections.abc import Sequence

from photopic.edit.merging._common import Changes, Sums, Totals


def averaged(changes: Changes, weights: Sequence[float]) -> Totals:
    """The mean of the models: sum_i w_i tau_i / sum_i w_i.

    Args:
        changes: tau_i, what each edit adds to the base.
        weights: w_i, one an edit.
    """
    whole = sum(weights)
    return added(changes, [each / whole for each in weights])


def added(changes: Changes, weights: Sequence[float]) -> Totals:
    """Task arithmetic: sum_i w_i tau_i; a negative weight takes a skill away."""
    sums = Sums()
    for number, weight in enumerate(weights):
        for name, change in changes.of(number):  # (entries,)
            sums.add(name, weight * change)
    return sums.totals
