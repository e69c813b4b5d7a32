"""Do concept neurons hold what the paper says? Loss, preservation, stability, identifier gap, and free samples.

    python -m benchmarks.locate.concept_neurons                  # writes benchmarks/results/concept-neurons.json
    python -m benchmarks.locate.concept_neurons --quick          # two subjects, few samples; prints only

Held-out subjects in a held-out style, five pictures each. Losses are on a fixed stratified set with preservation scenes
that the search never saw; the controls are 20 random masks and an anti-selected one, of the same per-layer sizes. Free
samples are judged by the oracle, with paired seeds. Interrupted, it goes on from ``runs/customisation``.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch

from benchmarks.harness.cache import code_of, content_of
from benchmarks.harness.ledger import Row
from benchmarks.harness.runner import Benchmark, mine, run
from benchmarks.harness.subjects import (
    EIGHT,
    THREE,
    TOKEN,
    Bench,
    Judged,
    class_prompts,
    reference,
    shut,
    token_prompts,
    unrelated_prompts,
    with_shut,
)
from photopic.core.edits import ZeroedWeights
from photopic.core.events import finished
from photopic.data import splits
from photopic.learning.losses.denoising import ConceptLoss
from photopic.learning.parameters.soft_mask import WeightMask
from photopic.learning.subject.examples import subject
from photopic.learning.subject.new_token import new_rows
from photopic.learning.subject.preservation import preservation_examples
from photopic.locate.concept_neurons import ConceptNeuronsConfig
from photopic.metrics.intervals import bootstrap, paired_bootstrap, ratio_bootstrap
from photopic.models.text_to_image.attention_weights import attention_weights, random_positions, with_zeros

SEED = 5_000_000  # of the samples
UNSEEN = 909  # seed of the preservation scenes losses are measured on


@dataclass(frozen=True)
class Settings:
    """How much is measured."""

    gated: tuple[str, ...] = THREE  # subjects of the loss gates
    sampled: tuple[str, ...] = EIGHT  # subjects of the free samples
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)  # searches a gated subject
    randoms: int = 20  # random masks a search
    problems: int = 60  # of each part of the evaluation set
    draws: int = 20  # gradient steps that choose the anti-selected mask
    samples: int = 24  # pictures of the token prompt a subject
    others: int = 12  # pictures of class prompts, and of unrelated ones
    search: ConceptNeuronsConfig = field(default_factory=ConceptNeuronsConfig)


QUICK = Settings(
    ("panda", "violin"), ("panda", "violin"), (0, 1), 4, 20, 4, 4, 2,
    ConceptNeuronsConfig(steps=30, lr=0.1, batch=4, preservation_count=40, evaluation=20, controls=1),
)  # fmt: skip


def loss_of(bench: Bench, name: str, batch: int = 8) -> ConceptLoss:
    """The loss of a subject with preservation scenes that no search saw."""
    given, noun = reference(name), splits.SUBJECTS[name]
    kept = finished(preservation_examples(bench.model, noun, kind="scenes", count=60, seed=UNSEEN))
    rows = new_rows(bench.model, TOKEN, noun, start=ConceptNeuronsConfig().token_start)
    chosen = subject(bench.model, given, noun=noun, rows=rows, preserved=kept)
    return chosen.loss(bench.model, bench.base, prior_weight=1.0, batch=batch, seed=0)


def anti_selected(
    loss: ConceptLoss, weights: Mapping[str, torch.Tensor], positions: Mapping[str, torch.Tensor], draws: int
) -> dict[str, torch.Tensor]:
    """As many positions of every tensor, those with the most negative mean theta * dL/dtheta: to shut them should harm."""
    still = WeightMask(weights, optimizer="sgd", lr=0.0)  # the mask stays at one, its saliency is the mean
    for step in range(draws):
        still.step(loss, step)
    worst = {name: still.saliency.values[name].flatten().argsort(stable=True) for name in positions}
    return {name: worst[name][: len(index)].sort().values for name, index in positions.items()}


def gate(bench: Bench, settings: Settings, name: str, seed: int) -> dict[str, Any]:
    """Losses before and after shutting, and under random and anti-selected masks of the same per-layer sizes."""
    config = replace(settings.search, seed=seed)
    positions = shut(bench.located(name, config))

    def measure() -> dict[str, Any]:
        loss, weights = loss_of(bench, name), attention_weights(bench.model)
        worst = anti_selected(loss, weights, positions, settings.draws)
        randoms = [random_positions(positions, weights, 1000 * seed + k) for k in range(settings.randoms)]
        sizes = {kind: sum(len(i) for n, i in positions.items() if f"to_{kind}" in n) for kind in ("k", "v")}
        return {
            "before": asdict(loss.evaluate(count=settings.problems)),
            "after": asdict(loss.evaluate(with_zeros(weights, positions), settings.problems)),
            "random": [loss.evaluate_concept(with_zeros(weights, each), settings.problems) for each in randoms],
            "antiselected": loss.evaluate_concept(with_zeros(weights, worst), settings.problems),
            "share": sum(sizes.values()) / sum(weight.numel() for weight in weights.values()),
            "sizes": sizes,
        }

    sizes = {"problems": settings.problems, "randoms": settings.randoms, "draws": settings.draws}
    return bench.kept.value(measured("gate", name, positions) | sizes | {"seed": seed}, measure)


def measured(what: str, name: str, *masks: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """All that decides a measurement of losses, but for its settings."""
    contents = [content_of([ZeroedWeights(each)]) for each in masks]
    return {what: name, "data": reference(name).digest(), "masks": contents, "code": code()}


def code() -> str:
    """Hex sha256 of the code that measures losses."""
    modules = (
        "photopic.learning.parameters.soft_mask",
        "photopic.learning.subject.preservation",
        "photopic.learning.subject.examples",
    )
    return code_of(*modules, gate, cross, loss_of, anti_selected)


def cross(bench: Bench, settings: Settings, name: str, other: str) -> dict[str, float]:
    """Drop of the loss on ``name`` under its own mask, the other's, and the union of both."""
    config = settings.search
    own, theirs = shut(bench.located(name, config)), shut(bench.located(other, config))

    def measure() -> dict[str, float]:
        loss, weights = loss_of(bench, name), attention_weights(bench.model)
        union = {n: torch.cat([own.get(n, _NONE), theirs.get(n, _NONE)]).unique() for n in {*own, *theirs}}
        before = loss.evaluate_concept({}, settings.problems)
        masks = {"own": own, "other": theirs, "union": union}
        drops = {
            key: before - loss.evaluate_concept(with_zeros(weights, each), settings.problems)
            for key, each in masks.items()
        }
        return drops

    return bench.kept.value(measured("cross", name, own, theirs) | {"problems": settings.problems}, measure)


def samples(bench: Bench, settings: Settings, name: str) -> dict[str, Judged]:
    """Free samples of the base with the token's row, with the shut set, and with a random set of the same sizes."""
    config = settings.search
    located = bench.located(name, config)
    weights = attention_weights(bench.model)
    random = with_shut(located, random_positions(shut(located), weights, 1), bench.model.edits.fingerprint(*weights))
    base = bench.token_only(name, config)
    prompts = {
        "token": token_prompts(name, settings.samples),
        "class": class_prompts(name, settings.others),
        "unrelated": unrelated_prompts(name, settings.others),
    }
    drawn = {}
    for kind, words in prompts.items():
        seeds = list(range(SEED, SEED + len(words)))
        plain = base if kind == "token" else None
        drawn[f"{kind}.base"] = bench.judged(plain, words, seeds)
        drawn[f"{kind}.shut"] = bench.judged(located, words, seeds)
        if kind == "token":
            drawn["token.random"] = bench.judged(random, words, seeds)
    return drawn


def work(bench: Bench, settings: Settings, part: str) -> None:
    """A worker's share of everything slow."""
    searches = [(name, seed) for name in settings.gated for seed in settings.seeds]
    for name, seed in mine(searches, part):
        gate(bench, settings, name, seed)
        print(f"gate {name} {seed}", flush=True)
    for name in mine(settings.sampled, part):
        samples(bench, settings, name)
        print(f"samples {name}", flush=True)


def loss_rows(bench: Bench, settings: Settings) -> list[Row]:
    """P1 to P3 and the identifier gap."""
    found = {(n, s): gate(bench, settings, n, s) for n in settings.gated for s in settings.seeds}
    names = [name for name, _ in found]
    before, after = ([each[when] for each in found.values()] for when in ("before", "after"))

    def column(when: Sequence[Mapping[str, float]], part: str) -> np.ndarray:
        return np.array([each[part] for each in when])

    drop = 1 - column(after, "concept") / column(before, "concept")
    randoms = np.array([each["random"] for each in found.values()])
    random_drop = 1 - randoms / column(before, "concept")[:, None]
    harm = 1 - np.array([each["antiselected"] for each in found.values()]) / column(before, "concept")
    rise = column(after, "prior") / column(before, "prior") - 1
    gap = [column(when, "class_prompt") - column(when, "concept") for when in (before, after)]
    share = np.mean([each["share"] for each in found.values()])
    values = np.mean([each["sizes"]["v"] / max(1, sum(each["sizes"].values())) for each in found.values()])
    masks = {key: shut(bench.located(key[0], replace(settings.search, seed=key[1]))) for key in found}
    same = [jaccard(masks[a], masks[b]) for a, b in itertools.combinations(masks, 2) if a[0] == b[0]]
    apart = [jaccard(masks[a], masks[b]) for a, b in itertools.combinations(masks, 2) if a[0] != b[0]]
    positive = gap[0].mean() > 0  # from a gap of nothing or less there is no doubling, only a gain
    ratio = ratio_bootstrap(gap[1], gap[0], groups=names) if positive else (None,)
    worst = f"smallest drop {drop.min():.3f}, largest of {randoms.size} random masks {random_drop.max():.3f}"
    beaten = (column(after, "concept")[:, None] < randoms).all(1)
    count = len(found)
    return [
        _row("neurons.loss_drop", bootstrap(drop, groups=names), ">= 0.1", control=float(random_drop.mean()), n=count,
             note=f"relative drop of the loss on the subject; {share:.1%} of the weights shut; {worst}"),
        _row("neurons.loss_drop_random", bootstrap(random_drop.max(1), groups=names), n=count,
             note=f"best of {settings.randoms} random masks of the same per-layer sizes"),
        _row("neurons.loss_drop_antiselected", bootstrap(harm, groups=names), "high < 0", control=float(random_drop.mean()),
             n=count, note=f"mask of the same per-layer sizes with the most negative weight x gradient; {(harm < 0).mean():.0%} "
             "of these masks raise the loss; control: random masks"),
        _row("neurons.beats_every_random", (float(beaten.mean()),), "== 1", n=count,
             note=f"share of searches that beat each of {settings.randoms} random masks"),
        _row("neurons.preservation_rise", bootstrap(rise, groups=names), "<= 0.02", n=count,
             note="relative rise of the loss on diverse scenes the search never saw"),
        _row("neurons.identifier_gap_ratio", ratio, ">= 2", n=count,
             note=f"gap {gap[0].mean():.6f} before and {gap[1].mean():.6f} after; subjects are resampled"),
        _row("neurons.identifier_gap_gain", paired_bootstrap(*gap[::-1], groups=names), "low > 0", n=count,
             note="growth of the identifier gap, in units of the loss"),
        _row("neurons.seed_jaccard", bootstrap(same), ">= 0.7", control=float(np.mean(apart)), n=len(same),
             note=f"control: masks of different subjects; {values:.0%} of the shut weights are in V"),
        _row("neurons.cross_subject_jaccard", bootstrap(apart), n=len(apart), control=float(share / (2 - share)),
             note="control: independent random sets of this size"),
    ]  # fmt: skip


def cross_rows(bench: Bench, settings: Settings) -> list[Row]:
    """P4 and P5, as found."""
    pairs = list(itertools.permutations(settings.gated, 2))
    drops = [cross(bench, settings, *pair) for pair in pairs]
    own, other, union = (np.array([each[key] for each in drops]) for key in ("own", "other", "union"))
    names = [pair[0] for pair in pairs]
    return [
        _row("neurons.specificity", ratio_bootstrap(other, own, groups=names), n=len(pairs),
             note="loss drop under another subject's mask over the drop under its own"),
        _row("neurons.union_keeps", ratio_bootstrap(union, own, groups=names), ">= 0.5", n=len(pairs),
             note="loss drop under the union of two subjects' masks over the drop under its own"),
    ]  # fmt: skip


def sample_rows(bench: Bench, settings: Settings) -> list[Row]:
    """P6: subject similarity of free samples, and what class and unrelated prompts keep."""
    drawn = {name: samples(bench, settings, name) for name in settings.sampled}

    def column(key: str, measure: str) -> np.ndarray:
        if measure == "similarity":
            return np.concatenate([bench.similarity(name, each[key]) for name, each in drawn.items()])
        return np.concatenate([each[key].alignment for each in drawn.values()])

    def groups(key: str) -> list[str]:
        return [name for name, each in drawn.items() for _ in each[key].alignment]

    def change(kind: str, measure: str, versus: str = "base") -> tuple[float, ...]:
        pair = column(f"{kind}.shut", measure), column(f"{kind}.{versus}", measure)
        return tuple(paired_bootstrap(*pair, groups=groups(f"{kind}.shut")))

    base, shut_, random = (column(f"token.{key}", "similarity") for key in ("base", "shut", "random"))
    gains = (shut_ - base).reshape(len(drawn), -1).mean(1)
    listed = ", ".join(f"{name} {gain:+.3f}" for name, gain in zip(drawn, gains, strict=True))
    real = np.mean([bench.truth(name) @ bench.truth(name).T for name in drawn])
    n, others = len(base), len(column("class.shut", "alignment"))
    pairs = [[each[f"unrelated.{key}"].embedding for key in ("shut", "base")] for each in drawn.values()]
    drift = [1 - (first * second).sum(1) for first, second in pairs]
    return [
        _row("neurons.index_only_similarity_gain", change("token", "similarity"), "low > 0", base.mean(), random.mean(), n,
             f"shut {shut_.mean():.3f}, real pictures {real:.3f}; {listed}"),
        _row("neurons.index_only_gain_over_random", change("token", "similarity", "random"), "low > 0", n=n),
        _row("neurons.index_only_background", change("token", "alignment"), None,
             column("token.base", "alignment").mean(), n=n, note="change of text alignment (the background) of token prompts"),
        _row("neurons.class_prompt_change", change("class", "alignment"), "low > -0.05",
             column("class.base", "alignment").mean(), n=others, note="text alignment of class-noun prompts"),
        _row("neurons.class_similarity_change", change("class", "similarity"), None,
             column("class.base", "similarity").mean(), n=others, note="leak of the subject into its class noun"),
        _row("neurons.unrelated_change", change("unrelated", "alignment"), "low > -0.05",
             column("unrelated.base", "alignment").mean(), n=others, note="text alignment of unrelated prompts"),
        _row("neurons.index_only_drift", bootstrap(np.concatenate(drift), groups=groups("unrelated.shut")), n=others,
             note="1 - cosine of the oracle embeddings of unrelated prompts, same seeds"),
    ]  # fmt: skip


def jaccard(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> float:
    """Intersection over union of two sets of positions."""
    both = sum(int(torch.isin(first[n], second[n]).sum()) for n in first.keys() & second.keys())
    return both / (sum(map(len, first.values())) + sum(map(len, second.values())) - both)


_NONE = torch.zeros(0, dtype=torch.int64)


def _row(
    claim: str,
    interval: Sequence[float | None],
    target: str | None = None,
    baseline: float | None = None,
    control: float | None = None,
    n: int | None = None,
    note: str = "",
) -> Row:
    value, low, high = (*interval, None, None)[:3]
    kept = [None if number is None else round(float(number), 5) for number in (value, low, high, baseline, control)]
    return Row(claim, kept[0], kept[1], kept[2], target=target, baseline=kept[3], control=kept[4], n=n, note=note)


def rows_of(bench: Bench, settings: Settings) -> list[Row]:
    """All claims, from what the workers kept."""
    return [*loss_rows(bench, settings), *cross_rows(bench, settings), *sample_rows(bench, settings)]


if __name__ == "__main__":
    seeds = [*Settings().seeds, SEED, UNSEEN]
    run(Benchmark("concept-neurons", __file__, __doc__ or "", Settings(), QUICK, work, rows_of, seeds, code))
