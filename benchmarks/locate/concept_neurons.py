"""Do concept neurons hold what the paper says? Loss, preservation, stability, identifier gap, and free samples.

    python -m benchmarks concept-neurons                  # writes benchmarks/results/concept-neurons.json
    python -m benchmarks concept-neurons-small-batch      # the losses alone, of the fastest preset; a quarter of an hour

Held-out subjects in a held-out style, five pictures each. Losses are on a fixed stratified set with preservation scenes
that the search never saw; the controls are 20 random masks and an anti-selected one, of the same per-layer sizes. Free
samples are judged by the oracle, with paired seeds.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.subjects import (
    EIGHT,
    THREE,
    Judged,
    JudgedModel,
    class_prompts,
    shut,
    token_prompts,
    unrelated_prompts,
    with_shut,
)
from benchmarks.locate.mask_losses import UNSEEN, Cross, Gate, cross, gate, jaccard
from photopic.core.config import Config
from photopic.locate.concept_neurons import ConceptNeuronsConfig
from photopic.metrics.intervals import bootstrap, paired_bootstrap, ratio_bootstrap
from photopic.models.text_to_image.attention_weights import attention_weights, random_positions

SEED = 5_000_000  # of the samples
CLAIMS = (
    Claim("neurons.loss_drop", ">= 0.1", "relative drop of the loss on the subject; control: random masks"),
    Claim("neurons.loss_drop_random", "", "best of the random masks of the same per-layer sizes"),
    Claim(
        "neurons.loss_drop_antiselected",
        "high < 0",
        "mask of the same per-layer sizes with the most negative weight x gradient; control: random masks",
    ),
    Claim("neurons.beats_every_random", "== 1", "share of searches that beat each of the random masks"),
    Claim("neurons.preservation_rise", "<= 0.02", "relative rise of the loss on diverse scenes the search never saw"),
    Claim("neurons.identifier_gap_ratio", ">= 2", "subjects are resampled"),
    Claim("neurons.identifier_gap_gain", "low > 0", "growth of the identifier gap, in units of the loss"),
    Claim("neurons.seed_jaccard", ">= 0.7", "control: masks of different subjects"),
    Claim("neurons.cross_subject_jaccard", "", "control: independent random sets of this size"),
    Claim("neurons.specificity", "", "loss drop under another subject's mask over the drop under its own"),
    Claim(
        "neurons.union_keeps", ">= 0.5", "loss drop under the union of two subjects' masks over the drop under its own"
    ),
    Claim("neurons.index_only_similarity_gain", "low > 0", "subject similarity of free samples; control: a random set"),
    Claim("neurons.index_only_gain_over_random", "low > 0"),
    Claim("neurons.index_only_background", "", "change of text alignment (the background) of token prompts"),
    Claim("neurons.class_prompt_change", "low > -0.05", "text alignment of class-noun prompts"),
    Claim("neurons.class_similarity_change", "", "leak of the subject into its class noun"),
    Claim("neurons.unrelated_change", "low > -0.05", "text alignment of unrelated prompts"),
    Claim("neurons.index_only_drift", "", "1 - cosine of the oracle embeddings of unrelated prompts, same seeds"),
)

SMALL = "neurons.small_batch."
SMALL_CLAIMS = (
    Claim(f"{SMALL}loss_drop", ">= 0.1", "relative drop of the loss on the subject; control: random masks"),
    Claim(f"{SMALL}beats_every_random", "== 1", "share of searches that beat each of the random masks"),
    Claim(f"{SMALL}preservation_rise", "<= 0.02", "relative rise of the loss on diverse scenes the search never saw"),
    Claim(f"{SMALL}identifier_gap_ratio", ">= 2", "subjects are resampled"),
    Claim(f"{SMALL}*"),
)


@dataclass(frozen=True)
class NeuronsConfig(Config):
    """How much is measured."""

    gated: tuple[str, ...] = THREE  # subjects of the loss gates
    sampled: tuple[str, ...] = EIGHT  # subjects of the free samples
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)  # searches of each gated subject
    randoms: Annotated[int, Ge(1)] = 20  # random masks of each search
    problems: Annotated[int, Ge(1)] = 60  # of each part of the evaluation set
    draws: Annotated[int, Ge(1)] = 20  # gradient steps that choose the anti-selected mask
    samples: Annotated[int, Ge(1)] = 24  # pictures of the token prompt of each subject
    others: Annotated[int, Ge(1)] = 12  # pictures of class prompts, and of unrelated ones
    search: ConceptNeuronsConfig = field(default_factory=ConceptNeuronsConfig)
    model: str = "emoji-diffusion"  # a bundled name or a folder


SHORT = ConceptNeuronsConfig(steps=30, lr=0.1, batch=4, preservation_count=40, evaluation=20, controls=1)
QUICK = NeuronsConfig(("panda", "violin"), ("panda", "violin"), (0, 1), 4, 20, 4, 4, 2, SHORT)


@dataclass(frozen=True)
class Samples:
    """Free samples of a subject."""

    name: str
    search: ConceptNeuronsConfig
    samples: int
    others: int


Case = Gate | Cross | Samples


def gates(config: NeuronsConfig) -> list[Gate]:
    """Every search of the gated subjects."""
    seeded = itertools.product(config.gated, config.seeds)
    sizes = (config.problems, config.randoms, config.draws)
    return [Gate(name, replace(config.search, seed=seed), *sizes) for name, seed in seeded]


def crosses(config: NeuronsConfig) -> list[Cross]:
    """Every ordered pair of gated subjects."""
    return [Cross(*pair, config.search, config.problems) for pair in itertools.permutations(config.gated, 2)]


def sampled(config: NeuronsConfig) -> list[Samples]:
    """Every sampled subject."""
    return [Samples(name, config.search, config.samples, config.others) for name in config.sampled]


def cases(config: NeuronsConfig) -> list[Case]:
    """Everything slow; crosses last, since they need two searches."""
    return [*gates(config), *sampled(config), *crosses(config)]


def measure(bench: Bench[Any, JudgedModel], case: Case) -> Any:
    """Any of the three kinds."""
    if isinstance(case, Samples):
        return sorted(samples(bench.subject, case))  # the pictures are kept
    return gate(bench.subject, case) if isinstance(case, Gate) else cross(bench.subject, case)


def samples(judge: JudgedModel, case: Samples) -> dict[str, Judged]:
    """Free samples of the base with the token's row, with the shut set, and with a random set of the same sizes."""
    located = judge.located(case.name, case.search)
    weights = attention_weights(judge.model)
    random = with_shut(located, random_positions(shut(located), weights, 1), judge.model.edits.fingerprint(*weights))
    drawn = {}
    for kind, words in {
        "token": token_prompts(case.name, case.samples),
        "class": class_prompts(case.name, case.others),
        "unrelated": unrelated_prompts(case.name, case.others),
    }.items():
        seeds = list(range(SEED, SEED + len(words)))
        base = judge.token_only(case.name, case.search) if kind == "token" else None
        drawn[f"{kind}.base"] = judge.judged(base, words, seeds)
        drawn[f"{kind}.shut"] = judge.judged(located, words, seeds)
        if kind == "token":
            drawn["token.random"] = judge.judged(random, words, seeds)
    return drawn


def loss_rows(bench: Bench[NeuronsConfig, JudgedModel]) -> Iterator[Row]:
    """P1 to P3 and the identifier gap."""
    every = gates(bench.config)
    found = [bench.found(each) for each in every]
    names, n = [each.name for each in every], len(every)

    def column(when: str, part: str) -> np.ndarray:
        return np.array([each[when][part] for each in found])

    before, after = column("before", "concept"), column("after", "concept")
    randoms = np.array([each["random"] for each in found])  # (searches, masks)
    drop, random_drop = 1 - after / before, 1 - randoms / before[:, None]
    harm = 1 - np.array([each["antiselected"] for each in found]) / before
    share = np.mean([each["share"] for each in found])
    worst = f"smallest drop {drop.min():.3f}, largest of {randoms.size} random masks {random_drop.max():.3f}"
    control = random_drop.mean()
    note = f"{share:.1%} of the weights shut; {worst}"
    yield row("neurons.loss_drop", bootstrap(drop, groups=names), control=control, n=n, note=note)
    yield row("neurons.loss_drop_random", bootstrap(random_drop.max(1), groups=names), n=n)
    note = f"{(harm < 0).mean():.0%} of these masks raise the loss"
    yield row("neurons.loss_drop_antiselected", bootstrap(harm, groups=names), control=control, n=n, note=note)
    yield row("neurons.beats_every_random", float((after[:, None] < randoms).all(1).mean()), n=n)
    rise = column("after", "prior") / column("before", "prior") - 1
    yield row("neurons.preservation_rise", bootstrap(rise, groups=names), n=n)
    gap = [column(when, "class_prompt") - column(when, "concept") for when in ("before", "after")]
    # from a gap of nothing or less there is no doubling, only a gain
    ratio = ratio_bootstrap(gap[1], gap[0], groups=names) if gap[0].mean() > 0 else None
    note = f"gap {gap[0].mean():.6f} before and {gap[1].mean():.6f} after"
    yield row("neurons.identifier_gap_ratio", ratio, n=n, note=note)
    yield row("neurons.identifier_gap_gain", paired_bootstrap(*gap[::-1], groups=names), n=n)
    masks = [(each.name, shut(bench.subject.located(each.name, each.search))) for each in every]
    pairs = [(one[0] == other[0], jaccard(one[1], other[1])) for one, other in itertools.combinations(masks, 2)]
    same, apart = ([value for is_same, value in pairs if is_same is wanted] for wanted in (True, False))
    values = np.mean([each["sizes"]["v"] / max(1, sum(each["sizes"].values())) for each in found])
    note = f"{values:.0%} of the shut weights are in V"
    yield row("neurons.seed_jaccard", bootstrap(same), control=float(np.mean(apart)), n=len(same), note=note)
    yield row("neurons.cross_subject_jaccard", bootstrap(apart), n=len(apart), control=share / (2 - share))


def cross_rows(bench: Bench[NeuronsConfig, JudgedModel]) -> Iterator[Row]:
    """P4 and P5, as found."""
    pairs = crosses(bench.config)
    own, other, union = (np.array([bench.found(each)[key] for each in pairs]) for key in ("own", "other", "union"))
    names = [each.name for each in pairs]
    yield row("neurons.specificity", ratio_bootstrap(other, own, groups=names), n=len(pairs))
    yield row("neurons.union_keeps", ratio_bootstrap(union, own, groups=names), n=len(pairs))


def sample_rows(bench: Bench[NeuronsConfig, JudgedModel]) -> Iterator[Row]:
    """P6: subject similarity of free samples, and what class and unrelated prompts keep."""
    judge = bench.subject
    drawn = {each.name: samples(judge, each) for each in sampled(bench.config)}

    def column(key: str, measure: str) -> np.ndarray:
        if measure == "similarity":
            return np.concatenate([judge.similarity(name, each[key]) for name, each in drawn.items()])
        return np.concatenate([each[key].alignment for each in drawn.values()])

    def groups(kind: str) -> list[str]:
        return [name for name, each in drawn.items() for _ in each[f"{kind}.shut"].alignment]

    def change(
        claim: str, kind: str, measure: str, note: str = "", control: float | None = None, rival: str = "base"
    ) -> Row:
        ours, theirs = column(f"{kind}.shut", measure), column(f"{kind}.{rival}", measure)
        interval = paired_bootstrap(ours, theirs, groups=groups(kind))
        return row(f"neurons.{claim}", interval, baseline=theirs.mean(), control=control, n=len(ours), note=note)

    base, located, random = (column(f"token.{key}", "similarity") for key in ("base", "shut", "random"))
    gains = (located - base).reshape(len(drawn), -1).mean(1)
    listed = ", ".join(f"{name} {gain:+.3f}" for name, gain in zip(drawn, gains, strict=True))
    real = np.mean([judge.truth(name) @ judge.truth(name).T for name in drawn])
    note = f"shut {located.mean():.3f}, real pictures {real:.3f}; {listed}"
    yield change("index_only_similarity_gain", "token", "similarity", note, random.mean())
    yield change("index_only_gain_over_random", "token", "similarity", rival="random")
    yield change("index_only_background", "token", "alignment")
    yield change("class_prompt_change", "class", "alignment")
    yield change("class_similarity_change", "class", "similarity")
    yield change("unrelated_change", "unrelated", "alignment")
    pairs = [[each[f"unrelated.{key}"].embedding for key in ("shut", "base")] for each in drawn.values()]
    drift = np.concatenate([1 - (first * second).sum(1) for first, second in pairs])
    yield row("neurons.index_only_drift", bootstrap(drift, groups=groups("unrelated")), n=len(drift))


def rows(bench: Bench[NeuronsConfig, JudgedModel]) -> Iterator[Row]:
    """All claims, from what the workers kept."""
    yield from loss_rows(bench)
    yield from cross_rows(bench)
    yield from sample_rows(bench)


def small_rows(bench: Bench[NeuronsConfig, JudgedModel]) -> Iterator[Row]:
    """The losses of the preset, under names of their own."""
    return (replace(each, claim=each.claim.replace("neurons.", SMALL)) for each in loss_rows(bench))


SMALL_BATCH = NeuronsConfig(seeds=(0, 1, 2), randoms=10, search=ConceptNeuronsConfig(binary=True, batch=4))

BENCHMARKS = (
    Benchmark(
        "concept-neurons-small-batch", __doc__, SMALL_BATCH, replace(QUICK, search=replace(SHORT, binary=True)),
        SMALL_CLAIMS, small_rows, gates, measure,
        open=lambda config, cache: JudgedModel(config.model, cache), seeds=(*SMALL_BATCH.seeds, UNSEEN),
        folder="customisation",
    ),
    Benchmark(
        "concept-neurons", __doc__, NeuronsConfig(), QUICK, CLAIMS, rows, cases, measure,
        open=lambda config, cache: JudgedModel(config.model, cache), seeds=(*NeuronsConfig().seeds, SEED, UNSEEN),
        folder="customisation",
    ),
)  # fmt: skip
