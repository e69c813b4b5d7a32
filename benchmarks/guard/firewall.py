"""Does the firewall find triggers? Scaling consistency beside STRIP, SCALE-UP and confidence, on models with real backdoors.

    python -m benchmarks firewall                # writes benchmarks/results/firewall.json
    python -m benchmarks firewall-vit            # small ViTs: does climbing the ladder of factors help?

For every data set, attack and seed a small network is trained on poisoned pictures (`poisoned.py`). Positives are
triggered test pictures of other classes that the model takes for what the attacker wants; negatives are clean test pictures that
it takes for what they are, as in the paper's code. The defender has clean pictures that are in no other part. Intervals: bootstrap
of the pictures within each seed, of the mean over seeds; the seeds' range is in the note. On ViTs the paper's factor 1.5 alone is
measured beside the ladder 1.5, 2, 3, 5, 8, on the same pictures. What it costs is measured by `guard_costs.py`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge
from scipy.stats import betabinom

from benchmarks.guard.poisoned import DATA, TARGET, trained
from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.cache import ResultCache
from photopic.core.config import Config
from photopic.guard.attacks import attack
from photopic.guard.scaling_consistency import ScalingConsistency, ScalingConsistencyConfig
from photopic.guard.trigger_baselines import confidence, scale_up, strip
from photopic.metrics.conformal import conformal_threshold
from photopic.metrics.ranking import auroc
from photopic.models.classifier import Classifier

WALLS = {  # by kind of network; omega 1.5, five members, error bound 0.6: the paper's
    "resnet": {"ibd_psc": ScalingConsistencyConfig(threshold=0.9)},
    "vit": {
        "ladder": ScalingConsistencyConfig(threshold=0.9),
        "omega_1.5": ScalingConsistencyConfig(threshold=0.9, omegas=(1.5,)),
    },
}
BASELINES = {"resnet": ("strip", "scale_up", "confidence"), "vit": ("confidence",)}
MOST = 400  # pictures of each kind that are scored
DIGITS = ("badnets", "blended", "warped", "low_confidence", "input_aware", "clean_label", "all_to_all", "untargeted")
EMOJI = ("badnets", "blended", "warped", "low_confidence", "all_to_all", "untargeted")
NO_CLASS = ("clean", "all_to_all", "untargeted")  # attacks without one target class
CLAIMS = (
    Claim("firewall.auroc.*"),
    Claim("firewall.auroc_vs_target_class.*"),
    Claim(
        "firewall.fpr_in_band",
        ">= 0.9",
        "share of splits whose rate is not above its 95 % conformal band; ties lower rates",
    ),
)
VIT_CLAIMS = (Claim("firewall_vit.auroc.*"),)


@dataclass(frozen=True)
class FirewallConfig(Config):
    """How much is measured."""

    digits: tuple[str, ...] = DIGITS  # attacks on digits
    emoji: tuple[str, ...] = EMOJI  # attacks on a hundred emoji
    seeds: tuple[int, ...] = (0, 1, 2)  # of trainings
    epochs: Annotated[int, Ge(0)] = 0  # of trainings; 0: those of the pictures
    splits: Annotated[int, Ge(1)] = 20  # of clean pictures, for the calibration
    kind: str = "resnet"  # of network

    @property
    def attacks(self) -> dict[str, tuple[str, ...]]:
        """By data set; last the model that nobody attacked, shown the patch of badnets."""
        found = {"digits": self.digits, "emoji": self.emoji}
        return {dataset: (*names, "clean") for dataset, names in found.items() if names}


@dataclass(frozen=True)
class Case:
    """One model and what is shown to it."""

    dataset: str
    attack: str
    seed: int
    epochs: int
    kind: str


def cases_of(config: FirewallConfig, dataset: str, name: str) -> list[Case]:
    """Every seed of an attack."""
    return [Case(dataset, name, seed, config.epochs, config.kind) for seed in config.seeds]


def cases(config: FirewallConfig) -> list[Case]:
    """Every attack; emoji first, which take longer."""
    pairs = [(dataset, name) for dataset in reversed(config.attacks) for name in config.attacks[dataset]]
    return [case for pair in pairs for case in cases_of(config, *pair)]


def fitted(
    model: Classifier, config: ScalingConsistencyConfig, clean: tuple[np.ndarray, np.ndarray]
) -> ScalingConsistency:
    """The firewall, fitted on what the defender has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the error bound was not crossed: told by `crossed`
        return ScalingConsistency(model, config).fit(*clean)


def scores_of(
    model: Classifier, images: np.ndarray, clean: np.ndarray, walls: dict[str, ScalingConsistency]
) -> dict[str, Any]:
    """Scores of all methods, higher is more suspicious."""
    found = {title: wall.score(images).tolist() for title, wall in walls.items()}
    others = {"strip": lambda: strip(model, images, clean), "scale_up": lambda: scale_up(model, images),
              "confidence": lambda: confidence(model, images)}  # fmt: skip
    return found | {name: others[name]().tolist() for name in BASELINES["vit" if "ladder" in walls else "resnet"]}


def measure(bench: Bench[Any, ResultCache], case: Case) -> dict[str, Any]:
    """Scores of one attack, or with the attack ``clean`` of the pictures that badnets triggers, on a model nobody attacked."""
    is_clean = case.attack == "clean"
    data, made = DATA[case.dataset](), attack("badnets" if is_clean else case.attack, target=TARGET)
    model = trained(
        bench.subject, case.dataset, None if is_clean else made, case.seed, kind=case.kind, epochs=case.epochs
    )
    images, labels = data.test
    right = model.logits(images).argmax(1).numpy() == labels
    other = made.aimed_at(labels, len(data.labels)) != labels
    marked = made.trigger(images[other])
    taken = model.logits(marked).argmax(1).numpy()
    hit = np.ones(len(taken), bool) if is_clean else made.succeeds(taken, labels[other], len(data.labels))
    walls = {title: fitted(model, config, data.clean) for title, config in WALLS[case.kind].items()}
    parts = {"triggered": marked[hit], "clean": images[right], "target": images[right & (labels == TARGET)]}
    return {
        "accuracy": float(right.mean()),
        "success": float(hit.mean()),
        "walls": {title: facts_of(wall) for title, wall in walls.items()},
        "scores": {
            part: scores_of(model, each[:MOST], data.clean[0], walls) if len(each) else None
            for part, each in parts.items()
        },
    }


def facts_of(wall: ScalingConsistency) -> dict[str, Any]:
    """What was fitted."""
    fit = wall.fitted
    assert fit is not None
    return {
        "first": fit.first, "layers": len(fit.layers), "omega": fit.omega, "members": len(fit.sizes), "crossed": fit.crossed,
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


def detection(bench: Bench[FirewallConfig, ResultCache]) -> Iterator[Row]:
    """AUROC of every method and attack, against all clean pictures; on residual networks against those of the target class too."""
    is_vit = bench.config.kind == "vit"
    walls, others = list(WALLS[bench.config.kind]), BASELINES[bench.config.kind]
    for dataset, names in bench.config.attacks.items():
        for name in names:
            found = [bench.found(case) for case in cases_of(bench.config, dataset, name)]
            where = f"firewall_vit.auroc.{name}" if is_vit else f"firewall.auroc.{dataset}.{name}"
            for title in (*walls, *others):
                said = facts(found, title, name) if title in walls else ""
                yield from compared(f"{where}.{title}", found, title, "clean", said)
            if not is_vit and name not in NO_CLASS:
                claim = f"firewall.auroc_vs_target_class.{dataset}.{name}"
                yield from compared(claim, found, walls[0], "target", facts(found, walls[0], name))


def compared(claim: str, found: Sequence[dict[str, Any]], title: str, against: str, said: str) -> Iterator[Row]:
    """The mean AUROC of a method over seeds; of a seed without triggered pictures there is none."""
    scores = [each["scores"] for each in found if each["scores"]["triggered"] and each["scores"][against]]
    pairs = [(each["triggered"][title], each[against][title]) for each in scores]
    if pairs:
        ends = [auroc(*pair) for pair in pairs]
        note = "; ".join(filter(None, [said, f"seeds {min(ends):.3f} to {max(ends):.3f}"]))
        yield row(claim, mean_auroc(pairs), n=sum(len(one) + len(other) for one, other in pairs), note=note)


def facts(found: Sequence[dict[str, Any]], title: str, name: str) -> str:
    """How the models and the firewalls of all seeds are."""
    walls = [each["walls"][title] for each in found]
    said = f"accuracy {_range(found, 'accuracy')}"
    if name == "clean":
        said = f"a model nobody attacked, shown the patch: about 0.5 is right; {said}"
    else:
        said += (
            f", attack success {_range(found, 'success')}; k {_range(walls, 'first')} of {walls[0]['layers']} layers, omega "
            f"{_range(walls, 'omega')}, members {_range(walls, 'members')}"
        )
    crossed = sum(each["crossed"] for each in walls)
    return said if crossed == len(walls) else f"{said}; the error bound was crossed for {crossed} of {len(walls)} seeds"


def _range(found: Sequence[dict[str, Any]], field: str) -> str:
    values = [each[field] for each in found]
    form = "{:.2f}" if isinstance(values[0], float) else "{}"
    return (
        form.format(min(values))
        if min(values) == max(values)
        else f"{form.format(min(values))}-{form.format(max(values))}"
    )


def calibration(bench: Bench[FirewallConfig, ResultCache], rate: float = 0.05) -> Row:
    """How often the false-positive rate of fresh clean pictures lies in its conformal band, over splits of them."""
    config = bench.config
    data, model = attacked(bench.subject, list(config.attacks)[-1], config.seeds[0], config.epochs)
    scores = fitted(model, WALLS["resnet"]["ibd_psc"], data.clean).score(data.test[0])
    rng, used = np.random.default_rng(0), len(scores) // 3
    above = used + 1 - int(np.ceil((used + 1) * (1 - rate)))
    band = betabinom(len(scores) - used, above, used + 1 - above).ppf([0.025, 0.975])
    mixed = [rng.permutation(scores) for _ in range(config.splits)]
    over = [int((each[used:] > conformal_threshold(each[:used], rate)).sum()) for each in mixed]
    rates = np.array(over) / (len(scores) - used)
    note = (
        f"{config.splits} splits, {used} clean pictures to calibrate on, {len(scores) - used} fresh ones, for {rate:.0%}; rates "
        f"{rates.min():.3f} to {rates.max():.3f}, mean {rates.mean():.3f}"
    )
    return row("firewall.fpr_in_band", float(np.mean(np.array(over) <= band[1])), n=config.splits, note=note)


def attacked(cache: ResultCache, dataset: str, seed: int = 0, epochs: int = 0) -> tuple[Any, Classifier]:
    """The pictures of a data set, and a model that badnets attacked."""
    return DATA[dataset](), trained(cache, dataset, attack("badnets", target=TARGET), seed, epochs=epochs)


def rows(bench: Bench[FirewallConfig, ResultCache]) -> Iterator[Row]:
    """All claims."""
    yield from detection(bench)
    yield calibration(bench)


FULL, QUICK = FirewallConfig(), FirewallConfig(("badnets", "all_to_all"), (), (0,), 4, 3)
VIT = FirewallConfig(("badnets", "blended"), (), epochs=100, kind="vit")  # a ViT needs more than a residual network
QUICK_VIT = FirewallConfig(("badnets", "blended"), (), (0,), 3, kind="vit")
BENCHMARKS = (
    Benchmark(
        "firewall", __doc__, FULL, QUICK, CLAIMS, rows, cases, measure, open=lambda config, cache: cache, seeds=FULL.seeds
    ),
    Benchmark(
        "firewall-vit", __doc__, VIT, QUICK_VIT, VIT_CLAIMS, detection, cases, measure, open=lambda config, cache: cache,
        seeds=VIT.seeds, folder="firewall",
    ),
)  # fmt: skip
