"""Does the firewall find triggers? Scaling consistency beside STRIP, SCALE-UP and confidence, on models with real backdoors.

    python -m benchmarks.guard.firewall            # writes benchmarks/results/firewall.json
    python -m benchmarks.guard.firewall --quick    # digits, one seed, short training; prints only

For every data set, attack and seed a small residual network is trained on poisoned pictures (`poisoned.py`). Positives are
triggered test pictures of other classes that the model takes for what the attacker wants; negatives are clean test pictures that
it takes for what they are, as in the paper's code. The defender has clean pictures that are in no other part. Intervals: bootstrap
of the pictures within each seed, of the mean over seeds; the seeds' range is in the note. Interrupted, it goes on from ``runs/``.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.stats import betabinom
from transformers import ResNetConfig, ResNetForImageClassification

from benchmarks.guard.poisoned import DATA, TARGET, trained
from benchmarks.harness.cache import Kept, code_of
from benchmarks.harness.ledger import ROOT, Row, write_result
from benchmarks.harness.runner import in_parallel, line_of, mine
from photopic.guard.attacks import attack
from photopic.guard.scaling_consistency import ScalingConsistency, ScalingConsistencyConfig
from photopic.guard.trigger_baselines import confidence, scale_up, strip
from photopic.metrics.conformal import conformal_threshold
from photopic.metrics.ranking import auroc
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Preprocessing

METHODS = ("ibd_psc", "strip", "scale_up", "confidence")
CONFIG = ScalingConsistencyConfig(threshold=0.9)  # omega 1.5, five members, error bound 0.6: the paper's
MOST = 400  # pictures of each kind that are scored


@dataclass(frozen=True)
class Settings:
    """How much is measured."""

    attacks: Mapping[str, tuple[str, ...]]
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 0  # 0: those of the data
    splits: int = 20  # of clean pictures, for the calibration
    rounds: int = 7  # of each timing


FULL = Settings(
    {
        "digits": (
            "badnets", "blended", "warped", "low_confidence", "input_aware", "clean_label", "all_to_all", "untargeted",
        ),
        "emoji": ("badnets", "blended", "warped", "low_confidence", "all_to_all", "untargeted"),
    }
)  # fmt: skip
QUICK = Settings({"digits": ("badnets", "all_to_all")}, seeds=(0,), epochs=4, splits=3, rounds=1)
NO_CLASS = ("clean", "all_to_all", "untargeted")  # attacks without one target class


def scores_of(
    model: Classifier, images: np.ndarray, clean: np.ndarray, wall: ScalingConsistency
) -> dict[str, list[float]]:
    """Scores of all methods, higher is more suspicious."""
    found = wall.score(images), strip(model, images, clean), scale_up(model, images), confidence(model, images)
    return {name: each.tolist() for name, each in zip(METHODS, found, strict=True)}


def measure(kept: Kept, settings: Settings, dataset: str, name: str, seed: int) -> dict[str, Any]:
    """One attack, or with the attack ``clean`` the pictures that badnets triggers, shown to a model nobody attacked; kept."""
    key = {
        "firewall": [dataset, name, seed], "epochs": settings.epochs, "config": CONFIG,
        "code": code_of("photopic.guard.scaling_consistency", "photopic.guard.trigger_baselines", "photopic.guard.attacks",
                        measure, trained, DATA[dataset]),
    }  # fmt: skip
    result: dict[str, Any] = kept.value(key, lambda: _measured(kept, settings, dataset, name, seed))
    return result


def _measured(kept: Kept, settings: Settings, dataset: str, name: str, seed: int) -> dict[str, Any]:
    data, made = DATA[dataset](), attack("badnets" if name == "clean" else name, target=TARGET)
    model = trained(kept, dataset, None if name == "clean" else made, seed, epochs=settings.epochs)
    images, labels = data.test
    right = model.logits(images).argmax(1).numpy() == labels
    other = made.aimed_at(labels, len(data.labels)) != labels
    marked = made.trigger(images[other])
    taken = model.logits(marked).argmax(1).numpy()
    hit = np.ones(len(taken), bool) if name == "clean" else made.succeeds(taken, labels[other], len(data.labels))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the error bound was not crossed: told by `crossed`
        wall = ScalingConsistency(model, CONFIG).fit(*data.clean)
    assert wall.fitted is not None
    parts = {
        "triggered": marked[hit][:MOST],
        "clean": images[right][:MOST],
        "target": images[right & (labels == TARGET)][:MOST],
    }
    return {
        "accuracy": float(right.mean()), "success": float(hit.mean()), "first": wall.fitted.first,
        "layers": len(wall.fitted.layers), "omega": wall.fitted.omega, "members": len(wall.fitted.sizes),
        "crossed": wall.fitted.crossed,
        "scores": {part: scores_of(model, each, data.clean[0], wall) if len(each) else None for part, each in parts.items()},
    }  # fmt: skip


def mean_auroc(
    pairs: Sequence[tuple[Sequence[float], Sequence[float]]], resamples: int = 500
) -> tuple[float, float, float]:
    """Mean AUROC over seeds, with a 95 % bootstrap interval over the pictures within each."""
    rng = np.random.default_rng(0)
    arrays = [(np.asarray(one), np.asarray(other)) for one, other in pairs]
    value = float(np.mean([auroc(one, other) for one, other in arrays]))
    draws = [
        np.mean([auroc(rng.choice(one, len(one)), rng.choice(other, len(other))) for one, other in arrays])
        for _ in range(resamples)
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    return value, float(min(low, value)), float(max(high, value))


def detection(kept: Kept, settings: Settings) -> list[Row]:
    """AUROC of every method and attack, against all clean pictures and against those of the target class."""
    rows = []
    for dataset, names in settings.attacks.items():
        for name in (*names, "clean"):
            found = [measure(kept, settings, dataset, name, seed) for seed in settings.seeds]
            facts = (
                f"accuracy {_range(found, 'accuracy')}, attack success {_range(found, 'success')}; k {_range(found, 'first')} of "
                f"{found[0]['layers']} layers, omega {_range(found, 'omega')}, members {_range(found, 'members')}"
            )
            if name == "clean":
                facts = f"a model nobody attacked, shown the patch: about 0.5 is right; accuracy {_range(found, 'accuracy')}"
            if not all(each["crossed"] for each in found):
                facts += (
                    f"; the error bound was crossed for {sum(each['crossed'] for each in found)} of {len(found)} seeds"
                )
            for against, word in (("clean", "auroc"), ("target", "auroc_vs_target_class")):
                for method in METHODS if against == "clean" else METHODS[:1]:
                    pairs = [
                        (each["scores"]["triggered"][method], each["scores"][against][method])
                        for each in found
                        if each["scores"]["triggered"] and each["scores"][against]
                    ]
                    if not pairs or (against == "target" and name in NO_CLASS):
                        continue
                    value, low, high = (round(each, 4) for each in mean_auroc(pairs))
                    ends = [auroc(*pair) for pair in pairs]
                    note = facts if method == METHODS[0] else ""
                    note += f"; seeds {min(ends):.3f} to {max(ends):.3f}"
                    n = sum(len(one) + len(other) for one, other in pairs)
                    claim = f"firewall.{word}.{dataset}.{name}" + (f".{method}" if against == "clean" else "")
                    rows.append(Row(claim, value, low, high, n=n, note=note.strip("; ")))
    return rows


def _range(found: Sequence[dict[str, Any]], field: str) -> str:
    values = [each[field] for each in found]
    form = "{:.2f}" if isinstance(values[0], float) else "{}"
    return (
        form.format(min(values))
        if min(values) == max(values)
        else f"{form.format(min(values))}-{form.format(max(values))}"
    )


def calibration(kept: Kept, settings: Settings) -> list[Row]:
    """How often the false-positive rate of fresh clean pictures lies in its conformal band, over splits of them."""
    dataset = list(settings.attacks)[-1]
    data, rate = DATA[dataset](), 0.05
    model = trained(kept, dataset, attack("badnets", target=TARGET), settings.seeds[0], epochs=settings.epochs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        wall = ScalingConsistency(model, CONFIG).fit(*data.clean)
    scores = wall.score(data.test[0])
    rng, used = np.random.default_rng(0), len(scores) // 3
    rates, inside = [], []
    for _ in range(settings.splits):
        mixed = rng.permutation(scores)
        over = int((mixed[used:] > conformal_threshold(mixed[:used], rate)).sum())
        above = used + 1 - int(np.ceil((used + 1) * (1 - rate)))
        band = betabinom(len(scores) - used, above, used + 1 - above).ppf([0.025, 0.975])
        rates.append(over / (len(scores) - used))
        inside.append(over <= band[1])
    note = (
        f"share of {settings.splits} splits ({used} clean pictures to calibrate on, {len(scores) - used} fresh ones) whose rate is "
        f"not above the 95 % conformal band for {rate:.0%}; rates {min(rates):.3f} to {max(rates):.3f}, mean {np.mean(rates):.3f}; "
        "ties lower them"
    )
    return [Row("firewall.fpr_in_band", float(np.mean(inside)), target=">= 0.9", n=settings.splits, note=note)]


def cost(settings: Settings) -> list[Row]:
    """Time of scores with five members on a ResNet-18-shaped network, for every first member, side by side with plain passes."""
    torch.manual_seed(0)
    shape = ResNetConfig(hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic", num_labels=10)
    prepare = Preprocessing(resize=(64, 64))
    model = Classifier(ResNetForImageClassification(shape), preprocess=prepare, labels=[str(i) for i in range(10)])
    pixels = model.preprocess(np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), np.uint8))
    images = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), np.uint8)
    wall = ScalingConsistency(model, ScalingConsistencyConfig(threshold=0.9, error_bound=0.01)).fit(
        images, model.logits(images).argmax(1).numpy()
    )
    assert wall.fitted is not None
    layers = len(wall.fitted.layers)

    def seconds(call: Callable[[], object]) -> float:
        began = time.perf_counter()
        call()
        return time.perf_counter() - began

    def plain() -> None:
        with torch.no_grad():
            model.forward(pixels)

    ratios: dict[int, list[float]] = {}
    for _ in range(settings.rounds):
        for first in range(1, layers - 3):
            wall.fitted = replace(wall.fitted, first=first, sizes=tuple(range(first, first + 5)))
            ratios.setdefault(first, []).append(seconds(lambda: wall.assess(pixels)) / seconds(plain))
    medians = {first: statistics.median(each) for first, each in ratios.items()}
    allowed = max((first for first, each in medians.items() if each <= 2.5), default=0)
    curve = ", ".join(f"k={first}: {each:.2f}" for first, each in medians.items())
    return [
        Row("firewall.cost_vs_forward", round(medians[1], 4), target="<= 2.5", n=settings.rounds,
            note=f"five members and the plain pass, over one plain pass; within 2.5 up to k={allowed} of {layers} layers; {curve}"),
        Row("firewall.cost_vs_naive", round(max(medians.values()) / 6, 4), target="<= 0.6", n=settings.rounds,
            note="the worst k, of exact scores, over six plain passes; verdicts stop early: see firewall.verdict_cost_vs_naive"),
    ]  # fmt: skip


def verdict_cost(kept: Kept, settings: Settings) -> list[Row]:
    """Members that a verdict needs on clean traffic, and the time of verdicts over that of six plain passes."""
    rows = []
    for dataset in settings.attacks:
        data = DATA[dataset]()
        model = trained(kept, dataset, attack("badnets", target=TARGET), settings.seeds[0], epochs=settings.epochs)
        wall = ScalingConsistency(model, CONFIG).fit(*data.clean)
        assert wall.fitted is not None
        images, times = data.test[0][:256], []
        pixels = model.preprocess(images)
        ran = [verdict.evidence["members"] for verdict in wall.predict(images)]
        for _ in range(settings.rounds):
            began = time.perf_counter()
            wall.assess(pixels, wall.fitted.bound)
            middle = time.perf_counter()
            with torch.no_grad():
                for _ in range(len(wall.fitted.sizes) + 1):
                    model.forward(pixels)
            times.append((middle - began) / (time.perf_counter() - middle))
        note = (
            f"clean {dataset} pictures, verdicts alone; k={wall.fitted.first} of {len(wall.fitted.layers)}; "
            f"members a picture {np.mean(ran):.2f} of {len(wall.fitted.sizes)}"
        )
        rows.append(
            Row(f"firewall.verdict_cost_vs_naive.{dataset}", round(statistics.median(times), 4), target="<= 0.6",
                n=settings.rounds, note=note)
        )  # fmt: skip
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="digits, one seed, short training; prints only")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings, kept = QUICK if options.quick else FULL, Kept(ROOT / "runs" / "firewall")
    work = [
        (dataset, name, seed)
        for (dataset, names), seed in itertools.product(reversed(list(settings.attacks.items())), settings.seeds)
        for name in (*names, "clean")
    ]
    if options.part:
        for each in mine(work, options.part):
            measure(kept, settings, *each)
        return
    in_parallel(__file__, ["--quick"] if options.quick else [], options.workers)
    rows = [*detection(kept, settings), *calibration(kept, settings), *cost(settings), *verdict_cost(kept, settings)]
    for row in rows:
        print(line_of(row))
    if not options.quick:
        write_result(
            "firewall",
            rows,
            command="python -m benchmarks.guard.firewall",
            seeds=settings.seeds,
            elapsed_s=kept.seconds,
        )


if __name__ == "__main__":
    main()
