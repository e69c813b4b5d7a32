"""Concept neurons in joint attention: emoji-flow, whose text keys and values are matrices of their own beside the picture's.

    python -m benchmarks flow-neurons                  # writes benchmarks/results/flow-neurons.json

What it draws is judged as the bundled model's: fresh captions, one seed each, no picking; baseline: the oracle on the real scenes.
Neurons of five held-out subjects, five pictures each, found by the default search (5 % of the text keys and values, 200 steps):
losses on a fixed stratified set with preservation scenes that no search saw; controls are random masks of the same sizes in each
matrix. Free samples compare the located weights, tuned from the shut state, with as many random weights of each matrix tuned
alike; and a token residual with a random one of the same length in each text encoder; paired seeds. Two never-seen subjects in
one picture are another benchmark, ``flow-composition``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge

from benchmarks.harness.benchmark import ROOT, Bench, Benchmark, Claim, Row, row, share
from benchmarks.harness.cache import content_of
from benchmarks.harness.code import code_of
from benchmarks.harness.subjects import TOKEN, JudgedModel, reference, shut, token_prompts, unrelated_prompts
from benchmarks.locate.mask_losses import Gate, gate, loss_of
from benchmarks.models.bundled_model import Chunk, Drawn, chunks, pictures, several_row
from photopic.core.config import Config
from photopic.core.edits import Edit, TokenResidual
from photopic.data import splits
from photopic.data.captioned import CaptionedImages
from photopic.locate.concept_neurons import ConceptNeuronsConfig
from photopic.metrics.intervals import bootstrap, paired_bootstrap, ratio_bootstrap
from photopic.models.text_to_image.attention_weights import attention_weights, random_positions, with_zeros
from photopic.models.text_to_image.handle import TextToImage
from photopic.tune.subject.located_weights import LocatedWeightsConfig
from photopic.tune.subject.token_residual import TokenResidualConfig, token_residual

FOLDER = "recipes/emoji-flow/checkpoint"
SEED = 6_700_000  # of the samples
FIVE = ("panda", "zebra", "parrot", "strawberry", "violin")
WAYS: dict[str, dict[str, Any]] = {"tuned": {}, "random": {"where": "random"}}
CLAIMS = (
    Claim("flow.concept_top1", ">= 0.75", "one thing, among 216 known names"),
    Claim("flow.background", "", "its colour"),
    Claim("flow.two_present", "", "both named objects present"),
    Claim("flow.neurons.loss_drop", "low > 0", "relative drop of the loss on the subject; control: random masks"),
    Claim("flow.neurons.loss_drop_over_random", "low > 0", "minus the drop under the best of the random masks"),
    Claim("flow.neurons.preservation_rise", "<= 0.02", "relative rise of the loss on scenes the search never saw"),
    Claim("flow.neurons.identifier_gap_ratio", "low > 1", "growth of the identifier gap; subjects are resampled"),
    Claim("flow.neurons.identifier_gap_gain", "low > 0", "growth of the identifier gap, in units of the loss"),
    Claim("flow.neurons.identifier_gap_over_random", "low > 0", "minus the growth under random masks"),
    Claim(
        "flow.neurons.similarity_vs_random", "low > 0", "subject similarity, minus that of random weights tuned alike"
    ),
    Claim(
        "flow.neurons.similarity_gain", "low > 0", "subject similarity of the shut weights alone, minus the token's row"
    ),
    Claim(
        "flow.residual.similarity_vs_random", "low > 0", "subject similarity, minus that of a random residual as long"
    ),
    Claim("flow.residual.similarity_vs_noun", "low > 0", "minus that of the noun alone"),
    Claim("flow.neurons.drift.*", "", "1 - cosine of the oracle embeddings of unrelated prompts, same seeds"),
)


@dataclass(frozen=True)
class FlowNeuronsConfig(Config):
    """How much is measured, and how the model draws."""

    single: Annotated[int, Ge(1)] = 256  # pictures of one object
    pairs: Annotated[int, Ge(1)] = 128  # pictures of two
    subjects: tuple[str, ...] = FIVE  # held-out concepts
    problems: Annotated[int, Ge(1)] = 48  # of each part of the evaluation set
    randoms: Annotated[int, Ge(1)] = 10  # random masks of each search
    samples: Annotated[int, Ge(1)] = 16  # pictures of the token prompt of each subject and way
    others: Annotated[int, Ge(1)] = 8  # pictures of unrelated prompts
    search: ConceptNeuronsConfig = field(default_factory=lambda: ConceptNeuronsConfig(evaluation=0))
    tuning: LocatedWeightsConfig = field(default_factory=lambda: LocatedWeightsConfig(steps=80, evaluation=0))
    residual: TokenResidualConfig = field(default_factory=lambda: TokenResidualConfig(evaluation=0))  # its learning
    steps: Annotated[int, Ge(1)] = 20  # of denoising
    guidance: float = 6.0  # chosen among 2.5, 4 and 6 on other prompts
    model: str = FOLDER  # a folder


QUICK = FlowNeuronsConfig(
    32, 16, ("panda",), 4, 2, 2, 2,
    ConceptNeuronsConfig(steps=4, batch=2, preservation_count=8, evaluation=0),
    LocatedWeightsConfig(steps=2, batch=2, preservation_count=8, evaluation=0), TokenResidualConfig(steps=2, evaluation=0), 4,
)  # fmt: skip


@dataclass(frozen=True)
class Samples:
    """Free samples of a subject."""

    name: str
    search: ConceptNeuronsConfig
    tuning: LocatedWeightsConfig
    samples: int
    others: int


@dataclass(frozen=True)
class Gaps:
    """Losses of a subject with and without its token, under a few random masks."""

    name: str
    search: ConceptNeuronsConfig
    problems: int
    randoms: int


@dataclass(frozen=True)
class Residual:
    """Free samples under a token residual."""

    name: str
    config: TokenResidualConfig
    samples: int


Case = Chunk | Gate | Samples | Gaps | Residual


def gates(config: FlowNeuronsConfig) -> list[Gate]:
    """A search of every subject."""
    return [Gate(name, config.search, config.problems, config.randoms, 1) for name in config.subjects]


def sampled(config: FlowNeuronsConfig) -> list[Samples]:
    """Every subject drawn."""
    return [Samples(name, config.search, config.tuning, config.samples, config.others) for name in config.subjects]


def gaps(config: FlowNeuronsConfig) -> list[Gaps]:
    """Three random masks of every subject."""
    return [Gaps(name, config.search, config.problems, min(3, config.randoms)) for name in config.subjects]


def residuals(config: FlowNeuronsConfig) -> list[Residual]:
    """A token residual of every subject."""
    return [Residual(name, config.residual, config.samples) for name in config.subjects]


def cases(config: FlowNeuronsConfig) -> list[Case]:
    """Everything slow."""
    one = chunks(config, ("single", "pairs"))  # type: ignore[arg-type]  # it reads these two fields alone
    return [*one, *gates(config), *sampled(config), *gaps(config), *residuals(config)]


def measure(bench: Bench[Any, JudgedModel], case: Case) -> Any:
    """Any of the five kinds."""
    if isinstance(case, Chunk):
        return len(pictures(bench, case))
    if isinstance(case, Gaps):
        return random_gaps(bench.subject, case)
    if isinstance(case, Residual):
        return residual_samples(bench.subject, case)
    return gate(bench.subject, case) if isinstance(case, Gate) else samples(bench.subject, case)


def samples(judge: JudgedModel, case: Samples) -> dict[str, list[float]]:
    """Similarity of the token's row alone, of the shut set and of both tuned ones; their drift."""
    edits = {"row": judge.token_only(case.name, case.search), "shut": judge.located(case.name, case.search)}
    for way, options in WAYS.items():
        edits[way] = judge.tuned(case.name, case.search, replace(case.tuning, **options))
    words, others = token_prompts(case.name, case.samples), unrelated_prompts(case.name, case.others)
    seeds, other_seeds = list(range(SEED, SEED + len(words))), list(range(SEED, SEED + len(others)))
    plain = judge.judged(None, others, other_seeds)
    found: dict[str, list[float]] = {}
    for way, edit in edits.items():
        found[way] = judge.similarity(case.name, judge.judged(edit, words, seeds)).tolist()
        if way != "row":
            moved = judge.judged(edit, others, other_seeds)
            found[f"drift.{way}"] = (1 - (plain.embedding * moved.embedding).sum(1)).tolist()
    return found


def random_gaps(judge: JudgedModel, case: Gaps) -> list[float]:
    """The identifier gap under random masks of the located set's sizes."""
    positions = shut(judge.located(case.name, case.search))
    loss, weights = loss_of(judge, case.name), attention_weights(judge.model)
    sets = [random_positions(positions, weights, 5_000 + k) for k in range(case.randoms)]
    return [loss.evaluate(with_zeros(weights, each), case.problems).identifier_gap for each in sets]


def residual_samples(judge: JudgedModel, case: Residual) -> dict[str, list[float]]:
    """Similarity under the residual, under a random one as long in each encoder, and of the noun alone."""
    noun, given = splits.SUBJECTS[case.name], reference(case.name)
    # the token stands for the noun, so captions and prompts lose the noun
    said = [caption.replace(f"{TOKEN} {noun}", noun) for caption in given.captions]  # type: ignore[union-attr]

    def make() -> Edit:
        pictures = CaptionedImages(given.images, said)
        return token_residual(judge.model, pictures, noun=noun, token=TOKEN, config=case.config)

    key = {
        "residual": case,
        "data": given.digest(),
        "of": judge.digest,
        "code": code_of("photopic.tune.subject.token_residual"),
    }
    learnt = judge.cache.edit(key, make)
    draw = torch.Generator().manual_seed(17)

    def as_long(vectors: torch.Tensor) -> torch.Tensor:
        other = torch.randn(vectors.shape, generator=draw)
        return other * vectors.norm(dim=1, keepdim=True) / other.norm(dim=1, keepdim=True)

    parts = [
        TokenResidual(part.words, part.ids, {name: as_long(each) for name, each in part.residuals.items()})
        if isinstance(part, TokenResidual)
        else part
        for part in learnt.parts
    ]
    words = [prompt.replace(f"{TOKEN} {noun}", TOKEN) for prompt in token_prompts(case.name, case.samples)]
    plain = [prompt.replace(f"{TOKEN} {noun}", noun) for prompt in token_prompts(case.name, case.samples)]
    seeds = list(range(SEED, SEED + len(words)))
    random = Edit(tuple(parts), learnt.base, {"method": "random residual"})
    asked = {"learnt": (learnt, words), "random": (random, words), "noun": (None, plain)}
    truth, found = judge.truth(case.name), {}
    for way, (edit, prompts) in asked.items():

        def draw_them(edit: Edit | None = edit, prompts: Sequence[str] = prompts) -> np.ndarray:
            with judge.model.edits.applied(*([] if edit is None else [edit])):
                return judge.drawn(prompts, seeds, batch=24)

        kept = {"edit": content_of(edit.parts if edit else ()), "of": judge.digest}
        embedding = judge.oracle.score(judge.pictures(kept, draw_them, prompts, seeds)).embedding.numpy()
        found[way] = (embedding @ truth.T).mean(1).tolist()
    return found


def rows(bench: Bench[FlowNeuronsConfig, JudgedModel]) -> Iterator[Row]:
    """All claims."""
    config, oracle = bench.config, bench.subject.oracle
    drawn = Drawn(bench, "single")  # type: ignore[arg-type]  # it reads the fields of this name
    right = [np.array(oracle.concept(scores)) == np.array(drawn.concepts) for scores in drawn.scores]
    yield share("flow.concept_top1", right[0], ceiling=right[1])
    colours = np.array([scene.background.colour for scene in drawn.real])
    same = [np.array([each.colour for each in oracle.background(scores)]) == colours for scores in drawn.scores]
    yield share("flow.background", same[0], ceiling=same[1])
    yield several_row(bench, "flow.two_present", Drawn(bench, "pairs"))  # type: ignore[arg-type]

    found = [bench.found(each) for each in gates(config)]
    names, n = list(config.subjects), len(config.subjects)

    def column(when: str, part: str) -> np.ndarray:
        return np.array([each[when][part] for each in found])

    before, after = column("before", "concept"), column("after", "concept")
    drop = 1 - after / before
    chance = 1 - np.array([each["random"] for each in found]) / before[:, None]  # (subjects, masks)
    note = f"smallest drop {drop.min():.3f}, largest of {chance.size} random masks {chance.max():.3f}"
    yield row("flow.neurons.loss_drop", bootstrap(drop, groups=names), control=chance.mean(), n=n, note=note)
    yield row("flow.neurons.loss_drop_over_random", paired_bootstrap(drop, chance.max(1), groups=names), n=n)
    rise = column("after", "prior") / column("before", "prior") - 1
    yield row("flow.neurons.preservation_rise", bootstrap(rise, groups=names), n=n)
    gap = [column(when, "class_prompt") - column(when, "concept") for when in ("before", "after")]
    ratio = ratio_bootstrap(gap[1], gap[0], groups=names) if gap[0].mean() > 0 else None
    note = f"gap {gap[0].mean():.5f} before and {gap[1].mean():.5f} after"
    yield row("flow.neurons.identifier_gap_ratio", ratio, n=n, note=note)

    yield row("flow.neurons.identifier_gap_gain", paired_bootstrap(gap[1], gap[0], groups=names), n=n)
    random = np.array([np.mean(bench.found(each)) for each in gaps(config)])
    yield row("flow.neurons.identifier_gap_over_random", paired_bootstrap(gap[1], random, groups=names), n=n)

    drawn_of = [bench.found(each) for each in sampled(config)]
    groups = [name for name in names for _ in range(config.samples)]
    others = [name for name in names for _ in range(config.others)]

    def every(what: str) -> np.ndarray:
        return np.concatenate([each[what] for each in drawn_of])

    note = "; ".join(f"{way} {every(way).mean():.3f}" for way in ("row", "shut", "random", "tuned"))
    gap_of = paired_bootstrap(every("tuned"), every("random"), groups=groups)
    yield row("flow.neurons.similarity_vs_random", gap_of, n=len(groups), note=note)
    gain = paired_bootstrap(every("shut"), every("row"), groups=groups)
    yield row("flow.neurons.similarity_gain", gain, n=len(groups))
    told = [bench.found(each) for each in residuals(config)]
    learnt, chance, noun = (np.concatenate([each[way] for each in told]) for way in ("learnt", "random", "noun"))
    note = f"learnt {learnt.mean():.3f}; random {chance.mean():.3f}; noun {noun.mean():.3f}"
    against = paired_bootstrap(learnt, chance, groups=groups)
    yield row("flow.residual.similarity_vs_random", against, n=len(groups), note=note)
    yield row("flow.residual.similarity_vs_noun", paired_bootstrap(learnt, noun, groups=groups), n=len(groups))
    for way in ("shut", *WAYS):
        yield row(f"flow.neurons.drift.{way}", bootstrap(every(f"drift.{way}"), groups=others), n=len(others))


def opened(config: Any, cache: Any) -> JudgedModel:
    """The model of the configuration's folder, which knows the emoji world as the bundled ones do."""
    model = TextToImage.load(str(ROOT / config.model))
    model.knows_emoji = True
    return JudgedModel(model, cache, steps=config.steps, guidance=config.guidance)


BENCHMARKS = (
    Benchmark(
        "flow-neurons", __doc__, FlowNeuronsConfig(), QUICK, CLAIMS, rows, cases, measure, opened,
        seeds=(0, SEED), folder="customisation",
    ),
)  # fmt: skip
