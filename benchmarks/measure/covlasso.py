"""What the lasso of all classes at once costs, beside scikit-learn and skglm, and what memory it takes.

    python -m benchmarks.measure.covlasso            # writes benchmarks/results/covlasso.json and docs/images/dependencies_cost.png
    python -m benchmarks.measure.covlasso --quick    # fewer targets, no large covariance; prints only

Needs `pip install -e '.[tests,bench]'`. Covariances are of linear heads with groups of like classes: 1,264 classes on 64 and on 256
features, on 64 with independent noise, and of a bundled classifier's logits where `dependencies.py` has kept them. One path for
all targets, 20 lambdas from the largest on; every solver goes to a duality gap of 1e-6 of the target's variance, checked by one
formula. Times are processor seconds of one thread, in turns, on a sample of targets, scaled to all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.harness.ledger import ROOT, Row, write_result
from photopic.core.numerics.covariance import Covariance
from photopic.core.numerics.lasso_path import lambda_grid, lasso_path

SEED = 6_400_001
CLASSES, STEPS, TOLERANCE = 1264, 20, 1e-6
SIZES = (1264, 2500, 5000, 10_000, 21_841)
BANK = "emoji-resnet-64-0"


def head(classes: int, features: int, noise: float = 0.0) -> np.ndarray:
    """Correlation matrix of the logits of a linear head whose classes come in groups of eight; noise is a share of the variance."""
    rng = np.random.default_rng([SEED, classes, features])
    weights = rng.standard_normal((-(-classes // 8), features)).repeat(8, 0)[:classes]
    weights += 0.6 * rng.standard_normal((classes, features))
    weights *= np.linspace(1.0, 0.2, features)  # features differ in size
    weights *= np.sqrt(1 - noise) / np.linalg.norm(weights, axis=1, keepdims=True)
    found = weights @ weights.T
    np.fill_diagonal(found, 1.0)
    return found


def bank() -> np.ndarray | None:
    """Correlation of a bundled classifier's logits as `dependencies.py` kept them; None where it has not run."""
    kept = sorted((ROOT / "out" / "dependencies").glob(f"{BANK}-*.npy"), key=os.path.getmtime)
    if not kept:
        return None
    logits = np.load(kept[-1])
    return Covariance(logits.shape[1]).update(logits).moment("standardised")


def path_of(second: np.ndarray, smallest: float) -> np.ndarray:
    """Twenty lambdas from the largest of all targets on."""
    largest = max(float(np.abs(np.delete(row, at)).max()) for at, row in enumerate(second))
    return lambda_grid(2 * largest, count=STEPS, smallest=smallest)


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


def in_turns(calls: list[Callable[[], Any]], repeats: int) -> list[float]:
    """Median processor seconds of each call."""
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, times in zip(calls, seconds, strict=True):
            began = time.process_time()
            call()
            times.append(time.process_time() - began)
    return [median(each) for each in seconds]


def compared(name: str, second: np.ndarray, smallest: float, targets: int, repeats: int) -> list[Row]:
    """Both claims of speed on one covariance."""
    lambdas = path_of(second, smallest)
    rows = np.linspace(0, len(second) - 1, targets).astype(int)
    many = np.linspace(0, len(second) - 1, 6 * targets).astype(int).tolist()  # ours is quick: more, for a steadier mean
    peers = Peers(second, lambdas)
    found = lasso_path(second, lambdas, targets=many, tolerance=TOLERANCE, threads=1)
    ours_gap = float((found.gaps / np.diagonal(second)[many][:, None]).max())
    gaps = {"sklearn": peers.worst_gap(peers.scikit_learn, rows[:1]), "skglm": peers.tune_skglm(rows[:1])}
    ours, sklearn, skglm, lasso = in_turns(
        [
            lambda: lasso_path(second, lambdas, targets=many, tolerance=TOLERANCE, threads=1),
            lambda: [peers.scikit_learn(int(row)) for row in rows],
            lambda: [peers.skglm(int(row)) for row in rows],
            lambda: [peers.scikit_learn_lasso(int(row)) for row in rows],
        ],
        repeats,
    )
    ours /= 6
    faster = min(sklearn, lasso)
    scale = len(second) / targets
    about = (
        f"{name}, lambda down to {smallest:g} of the largest, support at its end {int(np.median(found.supports[:, -1]))} "
        f"(median); {targets} targets, scaled to {len(second)}: {ours * scale:.0f} s of one thread"
    )
    short, suffix = name.split(":")[0], "" if smallest == 1e-3 else "_to_1e-2"
    return [
        Row(
            f"covlasso.vs_sklearn.{short}{suffix}", round(faster / ours, 1), unit="x", target=">= 50", n=targets,
            note=f"{about} against {faster * scale:.0f} s, the faster of lasso_path ({sklearn * scale:.0f} s) and a loop of Lasso "
            f"({lasso * scale:.0f} s), warm started, precomputed Gram matrix; gaps {ours_gap:.0e} and {gaps['sklearn']:.0e}",
        ),
        Row(
            f"covlasso.vs_celer.{short}{suffix}", round(skglm / ours, 1), unit="x", target="> 1", n=targets,
            note=f"{about} against {skglm * scale:.0f} s (skglm 0.5, celer's algorithm, precomputed matrix, its tolerance "
            f"{peers.skglm_tolerance:g}); gaps {ours_gap:.0e} and {gaps['skglm']:.0e}",
        ),
    ]  # fmt: skip


def torch_row(second: np.ndarray) -> Row:
    """The other way to write it: proximal steps of all targets as one matrix product, batched torch."""
    import torch

    penalty = 0.3
    matrix = torch.from_numpy(second)
    bound = float(np.linalg.eigvalsh(second)[-1])
    rows = list(range(0, len(second), len(second) // 16))

    def batched() -> int:
        beta = momentum = torch.zeros(len(rows), len(second), dtype=torch.float64)
        age = 1.0
        for step in range(1, 2001):
            moved = momentum - (momentum @ matrix - matrix[rows]) / bound
            new = moved.sign() * (moved.abs() - penalty / 2 / bound).clamp_min(0)
            new[torch.arange(len(rows)), rows] = 0
            older, age = age, (1 + (1 + 4 * age**2) ** 0.5) / 2
            momentum, beta = new + (older - 1) / age * (new - beta), new
            if step % 100 == 0:
                sample = beta[:: len(rows) // 4].numpy()
                chosen = rows[:: len(rows) // 4]
                reached = max(
                    gap(second, at, np.delete(each, at), penalty) for at, each in zip(chosen, sample, strict=True)
                )
                if reached <= TOLERANCE:
                    return step
        return step

    steps = batched()
    other, ours = in_turns(
        [batched, lambda: lasso_path(second, [penalty], targets=rows, tolerance=TOLERANCE, threads=1)], 1
    )
    note = (
        f"accelerated proximal gradient over {len(rows)} targets at once, lambda {penalty}, {steps} steps; compiled "
        f"coordinate descent {ours:.2f} s, cold, against {other:.1f} s; so numba was taken"
    )
    return Row("covlasso.vs_batched_torch", round(other / ours, 1), unit="x", n=len(rows), note=note)


CHILD = """
import json, sys, threading, time
import numpy as np
from photopic.core.numerics.lasso_path import lasso_path
lasso_path(np.eye(4) + 0.1, [0.05], threads=2)
lambdas = np.array(json.loads(sys.argv[2]))
resident = lambda: int(next(l for l in open('/proc/self/status') if l.startswith('VmRSS')).split()[1]) * 1024
before = peak = resident()
done = threading.Event()
def watch():
    global peak
    while not done.wait(0.005):
        peak = max(peak, resident())
watcher = threading.Thread(target=watch)
watcher.start()
second = np.load(sys.argv[1])
began, cpu = time.perf_counter(), time.process_time()
found = lasso_path(second, lambdas, threads=int(sys.argv[3]))
peak = max(peak, resident())
done.set()
watcher.join()
print(json.dumps([(peak - before) / second.nbytes, time.perf_counter() - began, time.process_time() - cpu,
                  int(found.starts[-1]), bool(found.converged), float(found.gaps.max())]))
"""


def memory_row(second: np.ndarray, smallest: float) -> Row:
    """All targets in a process of its own: its memory at the peak, watched, above what it held before, over the matrix."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "second.npy"
        np.save(file, second)
        lambdas, threads = json.dumps(path_of(second, smallest).tolist()), "2"
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(file), lambdas, threads], capture_output=True, text=True, check=True
        )
    ratio, wall, processor, coefficients, converged, worst = json.loads(done.stdout)
    note = (
        f"all {len(second)} targets, {STEPS} lambdas, {threads} threads, the covariance itself and {coefficients:,} coefficients "
        f"counted; {wall:.0f} s, {processor:.0f} s of the processor; largest gap {worst:.0e}, converged: {converged}"
    )
    return Row("covlasso.peak_memory_ratio", round(ratio, 2), unit="x", target="<= 4", n=len(second), note=note)


def large_rows(targets: int = 16) -> list[Row]:
    """A block of targets on ever larger covariances, and what all would take."""
    rows, points = [], []
    for size in SIZES:
        second = head(size, 256, 0.01)
        cross = np.abs(second[:: size // 16])
        lambdas = lambda_grid(2 * float(np.where(cross < 1 - 1e-9, cross, 0).max()), count=STEPS)
        chosen = list(range(0, size, size // targets))[:targets]
        began = time.process_time()
        found = lasso_path(second, lambdas, targets=chosen, threads=1)
        seconds = (time.process_time() - began) / targets
        points.append((size, seconds))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / second.nbytes
        note = (
            f"{targets} targets on a covariance of {size:,} classes (256 features, 1 % noise, {second.nbytes / 2**30:.2f} GiB), "
            f"lambda down to 1e-2; all would take {seconds * size / 3600:.2f} h of one thread; checks of the matrix counted; "
            f"process peak {peak:.2f} of the matrix; converged: {found.converged}"
        )
        if size in (SIZES[0], SIZES[-1]):
            rows.append(Row(f"covlasso.seconds_a_class.{size}", round(seconds, 4), unit="s", n=targets, note=note))
        print(note, flush=True)
        del second
    plot(points)
    return rows


def plot(points: list[tuple[int, float]]) -> None:
    """The cost curve."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sizes, seconds = np.array(points).T
    figure, axes = pyplot.subplots(figsize=(6, 4))
    axes.loglog(sizes, seconds * 1e3, "o-")
    slope = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
    axes.set(
        xlabel="classes", ylabel="ms a class, 20 lambdas, one thread", title=f"cost grows with classes^{slope:.2f}"
    )
    axes.grid(True, which="both", alpha=0.3)
    figure.tight_layout()
    figure.savefig(ROOT / "docs/images/dependencies_cost.png", dpi=110)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer targets, no large covariance; print only")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    began = time.monotonic()
    targets, repeats = (2, 1) if options.quick else (3, 3)
    settings, found = {"head64": head(CLASSES, 64)}, bank()
    if not options.quick:
        settings |= {"head256": head(CLASSES, 256), "head64_noise": head(CLASSES, 64, 0.01)}
    if found is not None:
        settings[BANK.replace("-", "_")] = found
    first = "head64" if found is None else BANK.replace("-", "_")
    order = [(first, 1e-3), ("head64", 1e-2), ("head64", 1e-3), ("head256", 1e-3), ("head64_noise", 1e-2)]
    rows: list[Row] = []

    def add(*more: Row) -> None:
        """Print, and write what there is so far: the whole takes long."""
        rows.extend(more)
        for row in more:
            print(f"{row.claim:44} {row.value:8} {row.note}", flush=True)
        if not options.quick:
            elapsed = time.monotonic() - began
            write_result(
                "covlasso", rows, command="python -m benchmarks.measure.covlasso", seeds=[SEED], elapsed_s=elapsed
            )

    for at, (name, smallest) in enumerate(dict.fromkeys(order)):
        if name not in settings:
            continue
        found_rows = compared(name, settings[name], smallest, targets, repeats)
        if at == 0:  # the claim itself: on real logits where there are any, with the path of `dependencies`
            add(*(replace(row, claim=".".join(row.claim.split(".")[:2])) for row in found_rows))
            add(
                memory_row(head(1264 if options.quick else 4000, 256, 0.01), 1e-2)
            )  # large, so that it is the matrix that counts
        add(*found_rows)
    add(torch_row(settings["head64"]))
    if not options.quick:
        add(*large_rows())


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
