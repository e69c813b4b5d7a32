"""The other solvers of the lasso of many classes, on the same covariance, and one formula of the gap that judges all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

TOLERANCE = 1e-6  # duality gap over the target's variance


def gap(second: np.ndarray, row: int, beta: np.ndarray, penalty: float) -> float:
    """Duality gap of a solution over the target's variance, recomputed from the matrix alone."""
    cross = np.delete(second[row], row)
    others = np.arange(len(second)) != row
    gradient = cross - (second[:, others] @ beta)[others]
    power = second[row, row]
    aligned, error = power - beta @ cross, power - beta @ cross - beta @ gradient
    limit = penalty / 2 / max(np.abs(gradient).max(), 1e-300)
    scale = float(np.clip(aligned / max(error, 1e-300), -limit, limit))
    return float(error + penalty * np.abs(beta).sum() - (2 * scale * aligned - scale**2 * error)) / power


class Peers:
    """The other solvers, one target along the path: coefficients (p - 1, lambdas)."""

    def __init__(self, second: np.ndarray, lambdas: np.ndarray):
        self.second, self.lambdas = second, lambdas
        values, vectors = np.linalg.eigh(second)
        kept = values > 1e-12 * values[-1]
        # A matrix with this covariance, no taller than need be: what scikit-learn asks for beside the Gram matrix.
        self.samples = np.asfortranarray((vectors[:, kept] * np.sqrt(values[kept])).T * np.sqrt(kept.sum()))
        self.skglm_tolerance = 1e-6

    def scikit_learn(self, row: int) -> np.ndarray:
        """``lasso_path`` with the precomputed Gram matrix; its gap is half of ours in units of its own."""
        from sklearn.linear_model import lasso_path as path

        others, n = np.arange(len(self.second)) != row, len(self.samples)
        gram = np.ascontiguousarray(self.second[others][:, others]) * n
        return path(
            self.samples[:, others], self.samples[:, row], alphas=self.lambdas / 2, precompute=gram,
            Xy=self.second[row, others] * n, tol=TOLERANCE / 2, max_iter=1_000_000,
        )[1]  # fmt: skip

    def scikit_learn_lasso(self, row: int) -> np.ndarray:
        """A ``Lasso`` for each lambda, warm started."""
        from sklearn.linear_model import Lasso

        others, n = np.arange(len(self.second)) != row, len(self.samples)
        gram = np.ascontiguousarray(self.second[others][:, others]) * n
        model = Lasso(precompute=gram, fit_intercept=False, tol=TOLERANCE / 2, max_iter=1_000_000, warm_start=True)
        found = []
        for each in self.lambdas:
            found.append(
                model.set_params(alpha=each / 2).fit(self.samples[:, others], self.samples[:, row]).coef_.copy()
            )
        return np.stack(found, 1)

    def skglm(self, row: int) -> np.ndarray:
        """skglm's working sets with Anderson acceleration (celer's algorithm) on the precomputed matrix."""
        from skglm.datafits import QuadraticHessian
        from skglm.penalties import L1
        from skglm.solvers import AndersonCD
        from skglm.utils.jit_compilation import compiled_clone

        if not hasattr(self, "compiled"):
            self.compiled = compiled_clone(QuadraticHessian()), compiled_clone(L1(1.0))
        datafit, penalty = self.compiled
        others = np.arange(len(self.second)) != row
        hessian = np.asfortranarray(self.second[others][:, others])
        linear = -self.second[row, others]
        solver = AndersonCD(max_iter=1000, tol=self.skglm_tolerance, fit_intercept=False, warm_start=True)
        beta, found = np.zeros(len(linear)), []
        for each in self.lambdas:
            penalty.alpha = each / 2
            beta = solver.solve(hessian, linear, datafit, penalty, beta, hessian @ beta, run_checks=False)[0]
            found.append(beta.copy())
        return np.stack(found, 1)

    def worst_gap(self, solve: Callable[[int], np.ndarray], rows: np.ndarray) -> float:
        """Largest relative gap of a solver's solutions."""
        return max(
            gap(self.second, row, beta, each)
            for row in rows
            for beta, each in zip(solve(int(row)).T, self.lambdas, strict=True)
        )

    def tune_skglm(self, rows: np.ndarray) -> float:
        """Loosen or tighten skglm's own criterion by tens to the loosest that reaches the gap; the gap reached."""
        for tolerance in (1e-6, 1e-7, 1e-8):
            self.skglm_tolerance = tolerance
            reached = self.worst_gap(self.skglm, rows)
            if reached <= TOLERANCE:
                break
        return reached
