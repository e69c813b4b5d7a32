"""Does a reward's gradient through the chain of denoising raise it faster than policy gradient, and does the oracle agree?

    python -m benchmarks reward                    # writes benchmarks/results/reward.json

Protocol, written before the run; rates were chosen by the reward of training on other prompts (for DDPO of 1e-3 and 3e-3 the
first, for the gradient 3e-3 alone was tried). Five seeds, each with 8 prompts of two known things and a relation to learn on, and
8 others. The reward is the text alignment of the bundled dual encoder; every way draws as many pictures (8 a step) with as many
denoising steps. Ways: the gradient through a random number of the last steps; through all of them (first seed alone); through the
random number where prompts are dealt among the pictures anew at each step (negative control: what training without a meaningful
reward does); policy gradient (DDPO); and no tuning. Measured on 3 fresh noises of each of the 16 prompts, under the edit as it is
stored: the reward, and the oracle's text alignment, which no way has seen. Seconds are of the processor, drawing included. Seeds
are resampled whole.

    python -m benchmarks reward-parameters         # what learns: low-rank products, located weights or a residual

The same seeds, prompts and noises with the gradient through a random number of steps and what learns as the way. Rates were chosen
on seed 100's rewards of training: located of 1e-3, 3e-3 and 1e-2, residual (of the word background) of 1e-2, 3e-2 and 1e-1.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.cache import NotMeasured
from benchmarks.harness.ledger import ROOT
from benchmarks.harness.subjects import COLOURS, JudgedModel
from photopic.core.config import Config
from photopic.core.edits.file import to_bytes
from photopic.core.files import write_atomically
from photopic.data import scenes, splits
from photopic.data.pictures import contact_sheet, png_bytes
from photopic.metrics.intervals import paired_bootstrap
from photopic.models.dual_encoder import DualEncoder
from photopic.tune.reward._common import TextAlignment
from photopic.tune.reward.policy_gradient import PolicyGradientConfig, policy_gradient
from photopic.tune.reward.reward_backpropagation import RewardBackpropagationConfig, reward_backpropagation

SEED = 9_800_000  # of the samples
PROMPTS, NOISES = 8, 3  # to learn on, and as many others; pictures of each that are measured
WAYS = ("random", "off", "dealt", "ddpo", "none")
LEARNED: dict[str, dict[str, Any]] = {
    "located": {"learned": "located", "lr": 1e-2},
    "residual": {"learned": "residual", "words": "background", "lr": 1e-1},
}
CLAIMS = (
    Claim(
        "alignprop.reward_vs_ddpo", "low > 0", "reward after as many training pictures, minus that of DDPO", "cosine"
    ),
    Claim(
        "alignprop.per_second_vs_ddpo",
        "low > 0",
        "reward gained a minute of training, minus that of DDPO",
        "cosine/min",
    ),
    Claim("alignprop.reward_gain", "low > 0", "reward, minus that of the model untuned", "cosine"),
    Claim("alignprop.reward_vs_dealt", "low > 0", "reward, minus that of training on dealt prompts", "cosine"),
    Claim(
        "alignprop.unseen_gain",
        "low > 0",
        "reward of prompts not trained on, minus that of the model untuned",
        "cosine",
    ),
    Claim("alignprop.oracle_gain", "low > 0", "the oracle's text alignment, minus that of the model untuned"),
    Claim("alignprop.oracle_vs_ddpo", "", "the oracle's text alignment, minus that of DDPO"),
    Claim(
        "alignprop.full_reward",
        "",
        "reward with the gradient through all steps, minus through a random number",
        "cosine",
    ),
    Claim("alignprop.full_oracle", "", "the oracle's text alignment, all steps minus a random number"),
    Claim("ddpo.reward_gain", "low > 0", "reward of DDPO, minus that of the model untuned", "cosine"),
)


PARAMETER_CLAIMS = (
    Claim(
        "alignprop.*_reward_gain", "low > 0", "what learns as named; reward, minus that of the model untuned", "cosine"
    ),
    Claim(
        "alignprop.*_oracle_gain",
        "",
        "what learns as named; the oracle's text alignment, minus that of the model untuned",
    ),
    Claim("alignprop.*_vs_low_rank", "", "what learns as named; reward, minus that of low-rank products", "cosine"),
)


@dataclass(frozen=True)
class RewardBenchConfig(Config):
    """How much is measured."""

    seeds: Annotated[int, Ge(1)] = 5  # of prompts and noise
    gradient: RewardBackpropagationConfig = field(
        default_factory=RewardBackpropagationConfig
    )  # of the reward's gradient
    # of policy gradient
    policy: PolicyGradientConfig = field(default_factory=lambda: PolicyGradientConfig(steps=12))
    model: str = "emoji-diffusion"  # a bundled name or a folder


QUICK = RewardBenchConfig(
    1, RewardBackpropagationConfig(steps=1, drawing_steps=2), PolicyGradientConfig(steps=1, drawing_steps=2)
)


@dataclass(frozen=True)
class Case:
    """One seed in one way."""

    seed: int
    way: str
    gradient: RewardBackpropagationConfig
    policy: PolicyGradientConfig


class Dealt(TextAlignment):
    """The same reward of other prompts than the pictures', dealt anew at each call."""

    calls = 0

    def __call__(self, pictures: Tensor, prompts: Sequence[str]) -> Tensor:
        self.calls += 1
        order = np.random.default_rng(self.calls).permutation(len(prompts))
        return super().__call__(pictures, [prompts[at] for at in order])


def prompts(seed: int) -> list[str]:
    """Those to learn on and then as many others: two known things, a relation and a background."""
    rng = np.random.default_rng((17, seed))
    names = rng.choice(sorted(splits.KNOWN), (2 * PROMPTS, 2), replace=False)
    return [
        f"{scenes.with_article(str(first))} {scenes.RELATIONS[number % 4]} {scenes.with_article(str(second))} on "
        f"{scenes.with_article(COLOURS[int(rng.integers(12))] + ' background')}"
        for number, (first, second) in enumerate(names)
    ]


def measure(bench: Bench[Any, JudgedModel], case: Case) -> dict[str, Any]:
    """Tune, draw and judge: one number a picture, those of the prompts learnt on first."""
    judge, said, config = bench.subject, prompts(case.seed), case.gradient
    encoder = DualEncoder.load(DualEncoder.default_name)
    began, edits, learnt = time.process_time(), [], said[:PROMPTS]
    if case.way == "ddpo":
        edits = [policy_gradient(judge.model, learnt, encoder=encoder, config=replace(case.policy, seed=case.seed))]
    elif case.way != "none":
        config = replace(config, **LEARNED.get(case.way, {}))
        config = replace(config, seed=case.seed, truncation="off" if case.way == "off" else "random")
        dealt = Dealt(encoder)
        reward = (lambda pictures, said: dealt(pictures, said)) if case.way == "dealt" else "alignment"
        edits = [reward_backpropagation(judge.model, learnt, reward=reward, encoder=encoder, config=config)]
    seconds = time.process_time() - began
    asked = [each for each in said for _ in range(NOISES)]
    seeds = [SEED + 1000 * case.seed + number for number in range(len(asked))]
    drawing = {"steps": config.drawing_steps, "guidance": config.guidance, "scheduler": "ddim", "batch": 16}
    with judge.model.edits.applied(*edits):
        drawn = judge.drawn(asked, seeds, **drawing)
    pixels = torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        rewards = TextAlignment(encoder)(pixels, asked)
    bench.array({"pictures": case}, lambda: drawn[: NOISES * PROMPTS : 2])
    return {
        "reward": rewards.tolist(),
        "oracle": judge.oracle.text_alignment(judge.oracle.score(drawn), asked).tolist(),
        "curve": edits[0].provenance["rewards"] if edits else [],
        "seconds": seconds,
        "bytes": len(to_bytes(edits[0])) if edits else 0,
    }


def cases(config: RewardBenchConfig) -> list[Case]:
    """Every seed in every way; all steps of the gradient for the first seed alone."""
    asked = [(seed, way) for seed in range(config.seeds) for way in WAYS if way != "off" or seed == 0]
    asked.sort(
        key=lambda each: ("none", "random", "ddpo", "dealt", "off").index(each[1]) // 3
    )  # the claim by itself first
    return [Case(seed, way, config.gradient, config.policy) for seed, way in asked]


def rows(bench: Bench[RewardBenchConfig, JudgedModel]) -> Iterator[Row]:
    """All claims, from what the workers kept."""
    found = {way: [bench.found(case) for case in bench.cases if case.way == way] for way in WAYS}
    learnt, others = slice(0, NOISES * PROMPTS), slice(NOISES * PROMPTS, None)

    def column(way: str, what: str, of: slice = learnt) -> np.ndarray:
        return np.array([each[what][of] for each in found[way]])  # (seeds, pictures)

    def gap(claim: str, one: np.ndarray, other: np.ndarray, control: np.ndarray | None = None, note: str = "") -> Row:
        groups = np.repeat(np.arange(len(one)), one[0].size)
        interval = paired_bootstrap(one.ravel(), other.ravel(), groups=list(groups))
        beside = None if control is None else control.mean()
        return row(claim, interval, baseline=other.mean(), control=beside, n=one.size, note=note)

    ours, policy, none, dealt = (column(way, "reward") for way in ("random", "ddpo", "none", "dealt"))
    seconds = {way: np.array([[each["seconds"]] for each in found[way]]) for way in WAYS}
    said = f"{seconds['random'].mean():.0f} s of training against {seconds['ddpo'].mean():.0f} s"
    yield gap("alignprop.reward_vs_ddpo", ours, policy, dealt, said)
    rates = [
        60 * (each - none).mean(1, keepdims=True) / seconds[way] for way, each in (("random", ours), ("ddpo", policy))
    ]
    yield gap("alignprop.per_second_vs_ddpo", rates[0], rates[1], note=said)
    yield gap("alignprop.reward_gain", ours, none, dealt)
    yield gap("alignprop.reward_vs_dealt", ours, dealt)
    yield gap("alignprop.unseen_gain", column("random", "reward", others), column("none", "reward", others))
    judged = {way: column(way, "oracle") for way in WAYS}
    yield gap("alignprop.oracle_gain", judged["random"], judged["none"], judged["dealt"])
    yield gap("alignprop.oracle_vs_ddpo", judged["random"], judged["ddpo"])
    said = "one seed, no interval over seeds: an illustration"
    for claim, whole, cut in (
        ("full_reward", column("off", "reward"), ours),
        ("full_oracle", judged["off"], judged["random"]),
    ):
        yield row(f"alignprop.{claim}", (whole[0] - cut[0]).mean(), baseline=cut[0].mean(), n=whole.size, note=said)
    yield gap("ddpo.reward_gain", policy, none)


def parameters(config: RewardBenchConfig) -> list[Case]:
    """Every seed with each of what may learn."""
    ways = ("none", "random", *LEARNED)
    return [Case(seed, way, config.gradient, config.policy) for seed in range(config.seeds) for way in ways]


def parameter_rows(bench: Bench[RewardBenchConfig, JudgedModel]) -> Iterator[Row]:
    """What each gains, and against low-rank products."""
    found = {
        way: [bench.found(each) for each in bench.cases if each.way == way] for way in ("none", "random", *LEARNED)
    }
    groups = [seed for seed in range(len(found["none"])) for _ in range(NOISES * PROMPTS)]

    def learnt(way: str, what: str) -> np.ndarray:
        return np.concatenate([each[what][: NOISES * PROMPTS] for each in found[way]])

    for way in ("random", *LEARNED):
        name = "low_rank" if way == "random" else way
        said = f"{np.mean([each['bytes'] for each in found[way]]) / 1000:.0f} kB"
        for what in ("reward", "oracle"):
            gain = paired_bootstrap(learnt(way, what), learnt("none", what), groups=groups)
            yield row(
                f"alignprop.{name}_{what}_gain", gain, baseline=learnt("none", what).mean(), n=len(groups), note=said
            )
        if way != "random":
            gain = paired_bootstrap(learnt(way, "reward"), learnt("random", "reward"), groups=groups)
            yield row(f"alignprop.{name}_vs_low_rank", gain, n=len(groups))


def missing() -> np.ndarray:
    """What stands for pictures that are not kept."""
    raise NotMeasured


def draw(bench: Bench[RewardBenchConfig, JudgedModel], rows: Any) -> None:
    """The picture of the page: one seed's pictures of the prompts learnt on, a row a way."""
    shown = [
        Case(0, way, bench.config.gradient, bench.config.policy) for way in ("none", "random", "off", "dealt", "ddpo")
    ]
    sheets = [bench.array({"pictures": case}, missing) for case in shown]  # (12, 64, 64, 3) each
    write_atomically(
        ROOT / "docs/images/reward.png", png_bytes(contact_sheet(list(np.concatenate(sheets)), columns=12))
    )


BENCHMARKS = (
    Benchmark(
        "reward", __doc__, RewardBenchConfig(), QUICK, CLAIMS, rows, cases, measure,
        open=lambda config, cache: JudgedModel(config.model, cache), seeds=(0, 1, 2, 3, 4, SEED),
        finish=draw,
    ),
    Benchmark(
        "reward-parameters", __doc__, RewardBenchConfig(), QUICK, PARAMETER_CLAIMS, parameter_rows, parameters, measure,
        open=lambda config, cache: JudgedModel(config.model, cache), seeds=(0, 1, 2, 3, 4, SEED),
    ),
)  # fmt: skip
