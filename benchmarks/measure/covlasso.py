"""What the lasso of all classes at once costs, beside scikit-learn and skglm, and what memory it takes.

    python -m benchmarks covlasso            # writes benchmarks/results/covlasso.json and docs/images/dependencies_cost.png

Needs `pip install -e '.[tests,bench]'`. Covariances are of linear heads with groups of like classes: 1,264 classes on 64 and on 256
features, on 64 with independent noise, and of a bundled classifier's logits (`dependencies.py`). One path for
all targets, 20 lambdas from the largest on; every solver goes to a duality gap of 1e-6 of the target's variance, checked by one
formula. Times are processor seconds of one thread, in turns, on a sample of targets, scaled to all of them.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.ledger import ROOT
from benchmarks.harness.timing import side_by_side
from benchmarks.measure.lasso_peers import TOLERANCE, Peers, gap
from photopic.core.config import Config
from photopic.core.numerics.covariance import Covariance
from photopic.core.numerics.lasso_path import lambda_grid, lasso_path

SEED = 6_400_001
CLASSES, STEPS = 1264, 20
SIZES = (1264, 2500, 5000, 10_000, 21_841)
BANK = "emoji-resnet-64-0"
FASTER = "the faster of lasso_path and a loop of Lasso, precomputed Gram matrix"
CLAIMS = (
    Claim("covlasso.vs_sklearn.head256", ">= 90", FASTER, "x"),
    Claim(
        "covlasso.vs_sklearn*",
        ">= 50",
        FASTER,
        "x",
    ),
    Claim("covlasso.vs_celer*", "> 1", "skglm, celer's algorithm, precomputed matrix", "x"),
    Claim("covlasso.vs_batched_torch", "", "accelerated proximal gradient over many targets at once, cold", "x"),
    Claim("covlasso.peak_memory_ratio", "<= 4", "process at its peak over the matrix, which is counted", "x"),
    Claim("covlasso.seconds_a_class.*", "", "a block of targets, lambda down to 1e-2, one thread", "s"),
)


@dataclass(frozen=True)
class LassoConfig(Config):
    """How much is measured."""

    targets: Annotated[int, Ge(1)] = 3  # of each covariance
    repeats: Annotated[int, Ge(1)] = 3  # of the timing
    memory: Annotated[int, Ge(100)] = 4000  # classes of the covariance whose memory is watched
    large: bool = True  # whether large covariances are measured too, and other heads


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


def bank() -> np.ndarray:
    """Correlation of a bundled classifier's logits, as ``dependencies`` keeps them."""
    from benchmarks.measure import dependencies

    bench = Bench(dependencies.BENCHMARKS[0], dependencies.DependenciesConfig())
    logits = dependencies.logits_of(bench, dependencies.Logits(BANK, 1))
    return Covariance(logits.shape[1]).update(logits).moment("standardised")


def path_of(second: np.ndarray, smallest: float) -> np.ndarray:
    """Twenty lambdas from the largest of all targets on."""
    largest = max(float(np.abs(np.delete(each, at)).max()) for at, each in enumerate(second))
    return lambda_grid(2 * largest, count=STEPS, smallest=smallest)


def seconds_of(calls: Sequence[Any], repeats: int) -> list[float]:
    """Median processor seconds of each call, in turns."""
    return [median(each) for each in side_by_side(calls, repeats, warm_up=0, clock=time.process_time)]


def compared(suffix: str, second: np.ndarray, smallest: float, config: LassoConfig) -> Iterator[Row]:
    """Both claims of speed on one covariance."""
    lambdas = path_of(second, smallest)
    targets = np.linspace(0, len(second) - 1, config.targets).astype(int)
    many = (
        np.linspace(0, len(second) - 1, 6 * config.targets).astype(int).tolist()
    )  # ours is quick: more, for a steadier mean
    peers = Peers(second, lambdas)

    def ours() -> Any:
        return lasso_path(second, lambdas, targets=many, tolerance=TOLERANCE, threads=1)

    found = ours()
    own_gap = float((found.gaps / np.diagonal(second)[many][:, None]).max())
    gaps = peers.worst_gap(peers.scikit_learn, targets[:1]), peers.tune_skglm(targets[:1])
    solvers = (peers.scikit_learn, peers.skglm, peers.scikit_learn_lasso)
    calls = [ours, *(partial(lambda solve: [solve(int(each)) for each in targets], solve) for solve in solvers)]
    scale = len(second) / config.targets
    own, sklearn, skglm, lasso = (scale * each for each in seconds_of(calls, config.repeats))
    own /= 6
    about = (
        f"lambda down to {smallest:g} of the largest, support at its end {int(np.median(found.supports[:, -1]))} (median); "
        f"{config.targets} targets, scaled to {len(second)}: {own:.0f} s of one thread against"
    )
    faster = min(sklearn, lasso)
    note = f"{about} {faster:.0f} s (lasso_path {sklearn:.0f} s, Lasso {lasso:.0f} s); gaps {own_gap:.0e} and {gaps[0]:.0e}"
    yield row(f"covlasso.vs_sklearn{suffix}", faster / own, n=config.targets, note=note)
    note = f"{about} {skglm:.0f} s, its tolerance {peers.skglm_tolerance:g}; gaps {own_gap:.0e} and {gaps[1]:.0e}"
    yield row(f"covlasso.vs_celer{suffix}", skglm / own, n=config.targets, note=note)


def torch_row(second: np.ndarray, penalty: float = 0.3) -> Row:
    """The other way to write it: proximal steps of all targets as one matrix product, batched torch."""
    rows = list(range(0, len(second), len(second) // 16))
    steps: list[int] = []
    calls = (
        lambda: steps.append(proximal_steps(second, rows, penalty)),
        lambda: lasso_path(second, [penalty], targets=rows, tolerance=TOLERANCE, threads=1),
    )
    other, ours = seconds_of(calls, 1)
    note = f"{len(rows)} targets, lambda {penalty}, {steps[0]} steps; coordinate descent {ours:.2f} s against {other:.1f} s"
    return row("covlasso.vs_batched_torch", other / ours, n=len(rows), note=f"{note}; so numba was taken")


def proximal_steps(second: np.ndarray, rows: Sequence[int], penalty: float) -> int:
    """Accelerated proximal gradient (FISTA) until the gap of a sample of the targets is small; the steps it took."""
    matrix, bound = torch.from_numpy(second), float(np.linalg.eigvalsh(second)[-1])
    beta = momentum = torch.zeros(len(rows), len(second), dtype=torch.float64)
    age, sample = 1.0, slice(None, None, len(rows) // 4)
    for step in range(1, 2001):
        moved = momentum - (momentum @ matrix - matrix[rows]) / bound
        new = moved.sign() * (moved.abs() - penalty / 2 / bound).clamp_min(0)
        new[torch.arange(len(rows)), rows] = 0
        older, age = age, (1 + (1 + 4 * age**2) ** 0.5) / 2
        momentum, beta = new + (older - 1) / age * (new - beta), new
        if step % 100 == 0:
            pairs = zip(rows[sample], beta[sample].numpy(), strict=True)
            if max(gap(second, at, np.delete(each, at), penalty) for at, each in pairs) <= TOLERANCE:
                break
    return step


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


def memory_row(second: np.ndarray, smallest: float = 1e-2, threads: int = 2) -> Row:
    """All targets in a process of its own: its memory at the peak, watched, above what it held before, over the matrix."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "second.npy"
        np.save(file, second)
        words = [str(file), json.dumps(path_of(second, smallest).tolist()), str(threads)]
        done = subprocess.run([sys.executable, "-c", CHILD, *words], capture_output=True, text=True, check=True)
    ratio, wall, processor, coefficients, converged, worst = json.loads(done.stdout)
    note = (
        f"all {len(second)} targets, {STEPS} lambdas, {threads} threads, {coefficients:,} coefficients counted; {wall:.0f} s, "
        f"{processor:.0f} s of the processor; largest gap {worst:.0e}, converged: {converged}"
    )
    return row("covlasso.peak_memory_ratio", ratio, n=len(second), note=note)


def large_row(size: int, targets: int = 16) -> Row:
    """A block of targets on a large covariance, and what all would take."""
    second = head(size, 256, 0.01)
    cross = np.abs(second[:: size // 16])
    lambdas = lambda_grid(2 * float(np.where(cross < 1 - 1e-9, cross, 0).max()), count=STEPS)
    chosen = list(range(0, size, size // targets))[:targets]
    began = time.process_time()
    found = lasso_path(second, lambdas, targets=chosen, threads=1)
    seconds = (time.process_time() - began) / targets
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / second.nbytes
    note = (
        f"{targets} targets on a covariance of {size:,} classes (256 features, 1 % noise, {second.nbytes / 2**30:.2f} GiB); all "
        f"would take {seconds * size / 3600:.2f} h of one thread; checks of the matrix counted; process peak {peak:.2f} of the "
        f"matrix; converged: {found.converged}"
    )
    return row(f"covlasso.seconds_a_class.{size}", seconds, n=targets, note=note)


def plot(bench: Bench[LassoConfig, Any], rows: Sequence[Row]) -> None:
    """docs/images/dependencies_cost.png: the cost curve."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    points = [(int(each.claim.rsplit(".", 1)[1]), each.value) for each in rows if ".seconds_a_class." in each.claim]
    sizes, seconds = np.array(points).T
    figure, axes = pyplot.subplots(figsize=(6, 4))
    axes.loglog(sizes, seconds * 1e3, "o-")
    slope = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
    title = f"cost grows with classes^{slope:.2f}"
    axes.set(xlabel="classes", ylabel="ms a class, 20 lambdas, one thread", title=title)
    axes.grid(True, which="both", alpha=0.3)
    figure.tight_layout()
    figure.savefig(ROOT / "docs/images/dependencies_cost.png", dpi=110)


def rows(bench: Bench[LassoConfig, Any]) -> Iterator[Row]:
    """All claims; the first is on real logits where other heads are measured too."""
    warnings.simplefilter("ignore")
    config, small = bench.config, head(CLASSES, 64)
    first = bank() if config.large else small
    found = list(compared("", first, 1e-3, config))
    yield from found
    yield memory_row(head(config.memory, 256, 0.01))  # large, so that it is the matrix that counts
    name = BANK.replace("-", "_") if config.large else "head64"
    yield from (replace(each, claim=f"{each.claim}.{name}") for each in found)
    yield from compared(".head64_to_1e-2", small, 1e-2, config)
    if config.large:
        yield from compared(".head64", small, 1e-3, config)
        yield from compared(".head256", head(CLASSES, 256), 1e-3, config)
        yield from compared(".head64_noise_to_1e-2", head(CLASSES, 64, 0.01), 1e-2, config)
    yield torch_row(small)
    if config.large:
        yield from map(large_row, SIZES)


BENCHMARKS = (
    Benchmark(
        "covlasso", __doc__, LassoConfig(), LassoConfig(2, 1, 1264, False), CLAIMS, rows, seeds=(SEED,), finish=plot
    ),
)
