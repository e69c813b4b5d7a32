"""The exact facts of specs/tuning_and_analysis.md, section 4(b), on random covariances; scikit-learn as the oracle."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import Lasso

from photopic.core.errors import DataError
from photopic.core.numerics.lasso_path import LassoPath, lambda_grid, lasso_path, solving

CLASSES = 40


def covariance(classes: int = CLASSES, features: int = 400, seed: int = 0, noise: float = 0.0) -> np.ndarray:
    """Correlation of the logits of a random linear head: rank min(features, classes) without noise."""
    rng = np.random.default_rng(seed)
    head = rng.normal(size=(classes, features)) + 2.0 * rng.normal(size=(classes, 1)) * rng.normal(size=features)
    found = head @ head.T + noise * features * np.eye(classes)
    scale = np.sqrt(np.diagonal(found))
    return found / scale / scale[:, None]


def objective(second: np.ndarray, row: int, beta: np.ndarray, penalty: float) -> float:
    theta = beta.copy()
    theta[row] = -1.0
    return float(theta @ second @ theta + penalty * np.abs(beta).sum())


def root(second: np.ndarray) -> np.ndarray:
    """X with X'X / n = S."""
    values, vectors = np.linalg.eigh(second)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T * np.sqrt(len(second))


def oracle(second: np.ndarray, row: int, penalty: float) -> np.ndarray:
    """What scikit-learn finds on a matrix with this covariance."""
    samples, others = root(second), np.arange(len(second)) != row
    model = Lasso(alpha=penalty / 2, fit_intercept=False, tol=1e-14, max_iter=200_000)
    beta = np.zeros(len(second))
    beta[others] = model.fit(samples[:, others], samples[:, row]).coef_
    return beta


@pytest.fixture(scope="module")
def solved() -> tuple[np.ndarray, LassoPath]:
    second = covariance()
    return second, lasso_path(second, lambda_grid(2.0, count=12, smallest=1e-2), tolerance=1e-12)


@pytest.mark.parametrize("step", [2, 5, 8])
def test_coefficients_equal_those_of_scikit_learn(solved: tuple[np.ndarray, LassoPath], step: int) -> None:
    second, found = solved
    betas = found.coefficients(step).toarray()
    assert (found.supports[:, step] > 0).sum() > 5
    for row in (0, 11, 39):
        np.testing.assert_allclose(betas[row], oracle(second, row, found.lambdas[step]), rtol=0, atol=1e-8)


def test_small_lambda_on_a_singular_covariance_has_the_objective_of_scikit_learn() -> None:
    second = covariance(60, 12)
    found = lasso_path(second, [1e-2, 1e-3], targets=[0, 7])
    for at, row in enumerate((0, 7)):
        for step, penalty in enumerate(found.lambdas):
            ours = objective(second, row, found.coefficients(step).toarray()[at], penalty)
            assert ours <= objective(second, row, oracle(second, row, penalty), penalty) + 1e-6
            assert found.supports[at, step] <= 12  # some solution has at most rank(S) coefficients; this one does


def test_the_certificate_is_true(solved: tuple[np.ndarray, LassoPath]) -> None:
    second, found = solved
    assert found.converged
    assert found.gaps.max() <= 1e-12
    assert (found.gaps >= -1e-14).all()
    worst = 0.0
    for step, penalty in enumerate(found.lambdas):
        betas = found.coefficients(step).toarray()
        gradient = 2 * (second - betas @ second)
        np.fill_diagonal(gradient, 0.0)
        active = betas != 0
        np.testing.assert_allclose(gradient[active], penalty * np.sign(betas[active]), rtol=0, atol=1e-5)
        assert np.abs(gradient).max() <= penalty + 1e-5
        excess = np.where(
            active, np.abs(gradient - penalty * np.sign(betas)), np.maximum(np.abs(gradient) - penalty, 0)
        )
        worst = max(worst, float(excess.max()))
        np.testing.assert_allclose(np.maximum(found.violations[:, step], 0), excess.max(1), rtol=0, atol=1e-12)
    assert worst <= 1e-5


def test_newton_ends_at_the_minimum_of_its_signs_with_the_factor_of_what_is_left() -> None:
    from photopic.core.numerics.lasso_kernel import newton

    second, half, size = covariance(30, 60), 0.05, 29
    gram, cross, rng = np.ascontiguousarray(second[1:, 1:]), second[0, 1:], np.random.default_rng(0)
    matrix, order = np.empty((size + 1, size)), np.full(size, -1)
    members, values, left = np.arange(size), np.zeros(size), 0
    for entering in (np.arange(20), np.arange(10, 29)):  # the second series starts from the factor of the first
        values[entering] = np.where(values[entering] == 0, rng.normal(size=len(entering)), values[entering])
        values[order[[1, 4]]] = 0.0  # as a sweep may leave them: out of the factor in the second series
        before, h = values.copy(), cross - gram @ values
        scratch = np.empty(size, np.int64), order, np.empty(size), np.empty(size)
        newton(gram, members, values, h, size, half, members, matrix, *scratch)
        inside = values != 0
        left += int((before != 0).sum() - inside.sum())
        assert (np.sign(values)[inside] == np.sign(before)[inside]).all()
        np.testing.assert_allclose(h, cross - gram @ values, rtol=0, atol=1e-12)
        np.testing.assert_allclose(h[inside], half * np.sign(values[inside]), rtol=0, atol=1e-9)
        rows = order[: inside.sum()]
        assert sorted(rows) == np.flatnonzero(inside).tolist() and (order[inside.sum() :] == -1)[:1].all()
        factor = np.linalg.cholesky(gram[np.ix_(rows, rows)])
        np.testing.assert_allclose(np.tril(matrix[: len(rows), : len(rows)]), factor, rtol=0, atol=1e-9)
    assert left > 5


def test_a_loose_gap_bounds_the_objective() -> None:
    second = covariance(60, 30)
    loose, tight = (lasso_path(second, [0.05], tolerance=tolerance) for tolerance in (1e-2, 1e-12))
    excess = [
        objective(second, row, loose.coefficients(0).toarray()[row], 0.05)
        - objective(second, row, tight.coefficients(0).toarray()[row], 0.05)
        for row in range(60)
    ]
    assert max(excess) > 1e-9  # it stopped early
    assert (np.array(excess) <= loose.gaps[:, 0] + 1e-12).all()


def test_beta_is_zero_exactly_from_lambda_max_on() -> None:
    second = covariance()
    largest = 2 * np.abs(second - np.diag(np.diagonal(second))).max(1)
    for row in (0, 5, 23):
        found = lasso_path(second, [largest[row] * 1.0001, largest[row] * 0.999], targets=[row], tolerance=1e-12)
        assert found.supports[0].tolist() == [0, 1]
        assert found.errors[0, 0] == pytest.approx(second[row, row])


def test_error_identity_bounds_and_monotony(solved: tuple[np.ndarray, LassoPath]) -> None:
    second, found = solved
    least = 1 / np.diagonal(np.linalg.inv(second))
    for step, penalty in enumerate(found.lambdas):
        betas = found.coefficients(step).toarray()
        fitted = np.einsum("ij,ij->i", second, betas)
        norms = np.abs(betas).sum(1)
        theta = betas - np.eye(CLASSES)
        np.testing.assert_allclose(found.errors[:, step], np.einsum("ij,jk,ik->i", theta, second, theta), atol=1e-12)
        np.testing.assert_allclose(found.norms[:, step], norms, atol=1e-12)
        np.testing.assert_allclose(found.errors[:, step], np.diagonal(second) - fitted - penalty / 2 * norms, atol=1e-6)
        full = np.array([exact(second, row) for row in range(CLASSES)])
        assert (found.errors[:, step] >= least - 1e-9).all()
        assert (found.errors[:, step] <= least + penalty * (np.abs(full).sum(1) - norms) + 1e-9).all()
    assert (np.diff(found.errors, axis=1) <= 1e-9).all()
    assert (np.diff(found.norms, axis=1) >= -1e-9).all()


def exact(second: np.ndarray, row: int) -> np.ndarray:
    """Least squares: the end of the path."""
    others = np.arange(len(second)) != row
    beta = np.zeros(len(second))
    beta[others] = np.linalg.solve(second[np.ix_(others, others)], second[others, row])
    return beta


def test_the_end_of_the_path_three_ways() -> None:
    second = covariance()
    found = lasso_path(second, [1e-9], tolerance=1e-10)
    inverse = 1 / np.diagonal(np.linalg.inv(second))
    for row in (0, 17):
        others = np.arange(CLASSES) != row
        block = second[np.ix_(others, others)]
        ratio = np.exp(np.linalg.slogdet(second)[1] - np.linalg.slogdet(block)[1])
        assert inverse[row] == pytest.approx(ratio, rel=1e-10)
        assert inverse[row] == pytest.approx(
            second[row, row] - second[row, others] @ exact(second, row)[others], rel=1e-9
        )
    np.testing.assert_allclose(found.errors[:, 0], inverse, rtol=0, atol=1e-7)


def test_the_path_is_piecewise_linear() -> None:
    second = covariance()
    lambdas = np.linspace(0.5, 0.3, 201)
    found = lasso_path(second, lambdas, targets=[3], tolerance=1e-13)
    betas = np.stack([found.coefficients(step).toarray()[0] for step in range(201)])
    bends = np.abs(np.diff(betas, 2, axis=0)).max(1) > 1e-7
    changes = np.abs(np.diff(betas != 0, axis=0)).any(1)
    assert (~bends).sum() > 150
    assert bends.sum() <= 2 * changes.sum() + 2


def test_redundancy_makes_dependencies() -> None:
    second = covariance(60, 57, noise=1e-4)
    values, vectors = np.linalg.eigh(second)
    errors = lasso_path(second, [1e-9], tolerance=1e-10).errors[:, 0]
    for value, vector in list(zip(values, vectors.T, strict=True))[:5]:
        seen = np.abs(vector) > 1e-3
        assert (errors[seen] <= value / vector[seen] ** 2 + 1e-6).all()
    assert errors.min() <= 60 * values[0] + 1e-6


def test_another_networks_predictors_skip_nothing() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(500, 5)), rng.normal(size=(500, 9))
    left[:, 0] = right @ np.array([1.0, 0, -2, 0, 0, 0, 0, 0, 0.5])
    second, cross = right.T @ right / 500, left.T @ right / 500
    found = lasso_path(second, [1e-4], cross=cross, powers=(left**2).mean(0), tolerance=1e-10)
    assert found.coefficients(0).shape == (5, 9)
    np.testing.assert_allclose(found.coefficients(0).toarray()[0], [1, 0, -2, 0, 0, 0, 0, 0, 0.5], atol=1e-3)
    assert (found.errors[1:, 0] / (left[:, 1:] ** 2).mean(0)).min() > 0.9


def test_threads_and_blocks_change_nothing() -> None:
    second = covariance(70, 20)
    one, two = (lasso_path(second, [0.3, 0.02], threads=threads) for threads in (1, 4))
    assert (one.members == two.members).all()
    assert (one.values == two.values).all()
    events = list(solving(second, [0.3], threads=1))
    assert [event.done for event in events] == [0, 16, 32, 48, 64, 70]


def test_a_dense_solution_finds_room_where_threads_share_it() -> None:
    second = covariance(64, 400)
    found = lasso_path(second, [1e-6], threads=4, tolerance=1e-9)
    assert found.supports.min() > 50
    assert found.converged


def test_a_constant_class_is_nobodys_predictor() -> None:
    second = covariance()
    second[4] = second[:, 4] = 0.0
    found = lasso_path(second, [0.01])
    assert 4 not in found.members
    assert found.supports[4, 0] == 0
    assert found.errors[4, 0] == 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lambdas": [0.1, 0.0]}, "positive"),
        ({"lambdas": [float("nan")]}, "positive"),
        ({"tolerance": 1e-16}, "at least 1e-13"),
        ({"targets": [40]}, "0 to 39, found 40"),
        ({"threads": 0}, "at least 1"),
        ({"cross": np.ones((2, 40))}, "powers"),
        ({"cross": np.ones((2, 3)), "powers": np.ones(2)}, "expected"),
    ],
)
def test_what_cannot_be_solved_is_refused(change: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        lasso_path(**({"second": covariance(), "lambdas": [0.1]} | change))


def test_a_matrix_that_is_no_covariance_is_refused() -> None:
    second = covariance()
    second[3, 5] += 0.1
    with pytest.raises(DataError, match="symmetric"):
        lasso_path(second, [0.1])
    second[3, 5] = np.nan
    with pytest.raises(DataError, match="row 3 is not finite"):
        lasso_path(second, [0.1])
    with pytest.raises(DataError, match="float64"):
        lasso_path(covariance().astype(np.float32), [0.1])


def test_a_package_that_cannot_be_written_still_compiles(tmp_path: Path) -> None:
    """Neither beside the code nor in a user's folder can machine code be kept: it is compiled for this process alone."""
    code = (
        "import numba.core.caching as caching\n"
        "for locator in caching.CacheImpl._locator_classes: locator.from_function = classmethod(lambda *_: None)\n"
        "from photopic.core.numerics.lasso_kernel import sweep\n"
        "import numpy as np\n"
        "h, values = np.array([1.0, 0.5]), np.zeros(2)\n"
        "sweep(np.eye(2), values, h, 2, 0.25)\n"
        "print(values.tolist(), sweep.stats.cache_path)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.stdout.split("]")[0] == "[0.75, 0.25", done.stderr
    assert done.stdout.split()[-1] == "None"
