"""The race of the lasso: all solvers solve the same problem, judged by one formula of the gap."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.measure.covlasso import head, path_of
from benchmarks.measure.dependencies import purity
from benchmarks.measure.lasso_peers import Peers, gap
from photopic.core.numerics.lasso_path import lasso_path
from photopic.core.results import Report

SECOND = head(48, 12, noise=0.1)
LAMBDAS = path_of(SECOND, 0.1)


def test_a_covariance_of_heads_is_one_and_its_path_starts_where_everything_is_zero() -> None:
    assert np.allclose(np.diagonal(SECOND), 1) and np.linalg.eigvalsh(SECOND)[0] > -1e-10
    assert len(LAMBDAS) == 20 and (np.diff(LAMBDAS) < 0).all()
    assert lasso_path(SECOND, LAMBDAS[:1]).supports.sum() == 0


@pytest.mark.parametrize("solver", ["scikit_learn", "scikit_learn_lasso"])
def test_peers_solve_the_same_problem_and_the_gap_is_ours(solver: str) -> None:
    found = lasso_path(SECOND, LAMBDAS, tolerance=1e-9)
    theirs = getattr(Peers(SECOND, LAMBDAS), solver)(7)
    for step in (5, 12, 19):
        beta = np.zeros(48)
        members, values = found.of(7, step)
        beta[members] = values
        ours = np.delete(beta, 7)
        assert abs(ours - theirs[:, step]).max() < 5e-3 and members.size > 0
        assert gap(SECOND, 7, ours, LAMBDAS[step]) == pytest.approx(found.gaps[7, step], abs=1e-8)
        assert gap(SECOND, 7, theirs[:, step], LAMBDAS[step]) <= 2e-6
        assert gap(SECOND, 7, ours * 0.9, LAMBDAS[step]) > 1e-5


def test_purity_is_measured_on_dependent_classes_against_all_others() -> None:
    def row(name: str, support: list[str], dependent: bool = True) -> dict[str, object]:
        return {"class": name, "support": support, "dependent": dependent}

    rows = (
        row("lion", ["tiger", "pizza"]),
        row("tiger", ["lion"], dependent=False),
        row("pizza", ["hamburger"]),
        row("hamburger", []),
    )
    found, chance = purity(Report("dependencies", {}, rows))
    assert found == [0.5, 1.0]
    assert chance == [pytest.approx(1 / 3)] * 2
