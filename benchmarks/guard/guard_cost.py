"""What a guard costs beside the network alone: one picture, a batch, fitting, and verdicts; CPU seconds of one thread.

    python -m benchmarks.guard.guard_cost --before OTHER/src   # beside another checkout, in turns; writes results/guard-cost.json

Each turn is a process of its own that measures this checkout or the other one. Ratios are taken within a process, medians over its
rounds and then over the turns; ``baseline`` is the other checkout's. Pictures: 240 scenes of the bundled classifier's own concepts;
verdicts: the networks of ``poisoned.py`` with BadNets in them, seed 0, trained once and kept in ``runs/``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import photopic
from benchmarks.guard.poisoned import DATA, TARGET, trained
from benchmarks.harness.cache import Kept
from benchmarks.harness.ledger import ROOT, Row, write_result
from benchmarks.harness.runner import line_of
from photopic.data import emoji_world, scenes
from photopic.guard.attacks import attack
from photopic.guard.scaling_consistency import ScalingConsistency, ScalingConsistencyConfig
from photopic.models.classifier import Classifier

MODEL, SIZE, CLASSES = "emoji-resnet-64-0", 64, 40
TARGETS = {
    "guard.one_picture_vs_forward": "<= 6", "guard.batch64_ms": None, "guard.batch64_vs_before": "<= 0.75",
    "guard.fit_vs_forward": "<= 4", "firewall.verdict_cost_vs_naive.digits": "<= 0.45",
    "firewall.verdict_cost_vs_naive.emoji": "<= 0.3",
}  # fmt: skip


def pictures(model: Classifier, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Scenes of known concepts in training styles, and their classes."""
    items = {item.name: item for item in emoji_world.select(split="known")}
    names = [label for label in model.labels if label in items][:CLASSES]
    rng, images, labels = np.random.default_rng(0), [], []
    for number in range(count):
        item = items[names[number % CLASSES]]
        style = str(rng.choice([each for each in emoji_world.TRAINING_STYLES if each in item.styles]))
        place = scenes.Placement(item.name, style, (0.5, 0.5), 0.7)
        images.append(scenes.compose([place], scenes.Background("white"), size=SIZE).image)
        labels.append(model.labels.index(item.name))
    return np.stack(images), np.array(labels)


def seconds(call: Callable[[], object], rounds: int) -> float:
    """Median CPU seconds, after one call that does not count."""
    call()
    found = []
    for _ in range(rounds):
        began = time.process_time()
        call()
        found.append(time.process_time() - began)
    return statistics.median(found)


def guard_costs(rounds: int) -> dict[str, float]:
    """Ratios of a guard with both checks around the bundled classifier."""
    model = Classifier.load(MODEL, "cpu")
    images, labels = pictures(model, 240)
    guarded = photopic.guarded(model).fit(images, labels)
    batch = seconds(lambda: guarded(images[:64]), rounds)
    one, alone = (seconds(lambda call=call: call(images[:1]), 3 * rounds) for call in (guarded, model.logits))
    fit = seconds(lambda: photopic.guarded(model).fit(images, labels), max(1, rounds // 2))
    return {
        "guard.one_picture_vs_forward": one / alone,
        "guard.batch64_ms": 1000 * batch / 64,
        "guard.fit_vs_forward": fit / seconds(lambda: model.logits(images), rounds),
    }


def verdict_cost(dataset: str, rounds: int) -> float:
    """Verdicts on 256 clean pictures over as many plain passes as a score has members, and one."""
    data = DATA[dataset]()
    model = trained(Kept(ROOT / "runs" / "firewall"), dataset, attack("badnets", target=TARGET), 0)
    wall = ScalingConsistency(model, ScalingConsistencyConfig(threshold=0.9)).fit(*data.clean)
    assert wall.fitted is not None
    pixels, fitted = model.preprocess(data.test[0][:256]), wall.fitted

    def naive() -> None:
        with torch.no_grad():
            for _ in range(len(fitted.sizes) + 1):
                model.forward(pixels)

    return seconds(lambda: wall.assess(pixels, fitted.bound), rounds) / seconds(naive, rounds)


def turn(source: Path, rounds: int) -> dict[str, float]:
    """One process over one checkout."""
    path = os.pathsep.join([str(source), str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "benchmarks.guard.guard_cost",
        "--rounds",
        str(rounds),
        "--measure",
    ]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="src of the checkout that is compared with")
    parser.add_argument("--rounds", type=int, default=5, help="of each call in a turn")
    parser.add_argument("--turns", type=int, default=2, help="processes a checkout")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.measure:
        warnings.simplefilter("ignore")
        verdicts = {f"firewall.verdict_cost_vs_naive.{each}": verdict_cost(each, options.rounds) for each in DATA}
        print(json.dumps(guard_costs(options.rounds) | verdicts))
        return
    began = time.monotonic()
    both = {"now": ROOT / "src", "before": options.before.resolve()}
    turns = {name: [turn(source, options.rounds) for _ in range(options.turns)] for name, source in both.items()}
    middle = {
        name: {key: statistics.median(each[key] for each in found) for key in found[0]} for name, found in turns.items()
    }
    middle["now"]["guard.batch64_vs_before"] = middle["now"]["guard.batch64_ms"] / middle["before"]["guard.batch64_ms"]
    n, before = options.turns * options.rounds, middle["before"]
    rows = [
        Row(
            claim,
            round(value, 4),
            unit="ms" if claim.endswith("_ms") else "",
            target=TARGETS[claim],
            baseline=round(before[claim], 4) if claim in before else None,
            n=n,
            note="CPU of one thread; baseline: the checkout before",
        )
        for claim, value in middle["now"].items()
    ]
    for row in rows:
        print(line_of(row))
    command = "python -m benchmarks.guard.guard_cost --before OTHER/src"
    write_result("guard-cost", rows, command=command, seeds=[0], elapsed_s=time.monotonic() - began)


if __name__ == "__main__":
    main()
