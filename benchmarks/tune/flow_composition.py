"""Two never-seen subjects in one picture of emoji-flow: edits composed, with and without a layout, against merged LoRAs.

    python -m benchmarks flow-composition --workers 2      # writes benchmarks/results/flow-composition.json

Subjects, pairs, prompts, boxes, judge and rules are the race's (``benchmarks/tune/race``): ten pairs of five held-out subjects,
two others for every choice. Ours: located weights (2 % of the text keys and values of joint attention, 100 steps), tuned in company
for 200 steps from the shut state, composed; their layout shifts the scores of text tokens in joint attention. Peers: LoRA r=4 on
the layers of diffusers' DreamBooth script for Stable Diffusion 3, merged by peft; taught alone for 100 steps as such files are,
and once in company for 200 with the layout, as ours. All have the same first row of the new word, pictures, loss and seeds.
Learning rates are chosen on the first tuning subject among the documented one and ten times it, weights of layouts and of merges
on the pair of both, all by similarity. Intervals resample pairs. Class nouns in the subjects' stead say what the base can do.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge

from benchmarks.harness.benchmark import ROOT, Bench, Benchmark, Claim, Row, row
from benchmarks.harness.cache import ResultCache
from benchmarks.harness.subjects import TOKEN, JudgedModel, token_prompts, unrelated_prompts
from benchmarks.locate.flow_neurons import FOLDER, opened
from benchmarks.tune.race import applying, making, own_methods, peers, presence
from benchmarks.tune.race.plan import (
    MERGE_GRID,
    MERGES,
    PEERS,
    TEST,
    TUNING_ON,
    VALUES,
    Tried,
    boxes,
    chosen,
    group_prompts,
    groups,
    phrase,
    token,
)  # fmt: skip
from benchmarks.tune.race.subject_case import Given
from photopic.core.config import Config
from photopic.core.edits import Edit, compose
from photopic.core.edits import file as edit_file
from photopic.core.files import write_atomically
from photopic.data.layout import Layout, Region
from photopic.data.overlays import enlarged, labelled
from photopic.data.pictures import contact_sheet, png_bytes
from photopic.data.scenes import with_article
from photopic.data.splits import SUBJECTS
from photopic.generate.guidance.layout_guidance import LayoutGuidance, LayoutGuidanceConfig
from photopic.metrics.intervals import bootstrap, paired_bootstrap
from photopic.models.text_to_image.handle import TextToImage

SEED = 6_800_000  # of the samples; of what chooses 1,000,000 more
LAYOUT_WEIGHTS = (0.3, 1.0)  # the default, and more
LORAS = (*(f"lora_{merge}" for merge in MERGES), "lora_cat_layout", "lora_company_layout")
OURS = ("nouns", "nouns_layout", "rows", "edits", "edits_layout")
SHOWN = {  # the rows of the sheet
    "nouns": "the nouns", "lora_linear": "LoRAs merged", "lora_company_layout": "in company, layout", "edits": "edits",
    "edits_layout": "edits, layout",
}  # fmt: skip
PRESENT = "share of pictures with both subjects, each in a place of its own"
CLAIMS = (
    Claim("flow.compose.two_present", "", f"{PRESENT}; baseline: no layout; control: the tokens' rows alone"),
    *(Claim(f"flow.compose.vs_lora_{merge}", "low > 0", "ours with layout minus LoRAs merged") for merge in MERGES),
    Claim("flow.compose.vs_lora_no_layout", "", "neither has a layout; LoRA: cat"),
    Claim("flow.compose.vs_lora_with_layout", "", "both have a layout; LoRA: cat"),
    Claim("flow.compose.vs_lora_in_company", "", "both have company, steps and a layout; LoRA: cat"),
    Claim("flow.compose.layout_gain", "", "ours with a layout minus without"),
    *(Claim(f"flow.compose.{what}.*") for what in ("present", "each", "leaked", "obeyed", "similarity", "drift")),
)
PAIRS = {  # claim: ours, theirs
    **{f"vs_lora_{merge}": ("edits_layout", f"lora_{merge}") for merge in MERGES},
    "vs_lora_no_layout": ("edits", "lora_cat"),
    "vs_lora_with_layout": ("edits_layout", "lora_cat_layout"),
    "vs_lora_in_company": ("edits_layout", "lora_company_layout"),
    "layout_gain": ("edits_layout", "edits"),
}


@dataclass(frozen=True)
class FlowCompositionConfig(Config):
    """How much is measured."""

    test: tuple[str, ...] = TEST  # subjects
    tuning: tuple[str, ...] = TUNING_ON  # two others, on which everything is chosen
    pairs: Annotated[int, Ge(1)] = 10  # at most
    samples: Annotated[int, Ge(1)] = 24  # pictures of each pair and way
    others: Annotated[int, Ge(1)] = 4  # pictures of unrelated prompts of each pair and way
    tuning_samples: Annotated[int, Ge(1)] = 12  # pictures of each setting that is tried
    searching: Annotated[int, Ge(1)] = 100  # steps of the search, and of a LoRA alone
    company: tuple[int, int] = (4, 200)  # collages a picture, and steps of a training with them
    density: float = 0.02  # share of the text keys and values
    batch: Annotated[int, Ge(1)] = 8  # subject pictures a step, and as many preservation pictures
    preservation: Annotated[int, Ge(1)] = 200  # preservation pictures
    steps: Annotated[int, Ge(1)] = 20  # of denoising
    guidance: float = 6.0  # as in flow-neurons
    model: str = FOLDER  # a folder


QUICK = FlowCompositionConfig(
    ("zebra", "parrot"), pairs=1, samples=2, others=2, tuning_samples=2, searching=2, company=(1, 2), batch=2,
    preservation=8, steps=4,
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One pair drawn one way."""

    kind: str
    pair: tuple[str, ...]
    config: FlowCompositionConfig


class Composition:
    """The trainings, and the pictures of a pair under them; trainings are kept.

    Args:
        judge: The model with its judge.
        config: How much is measured.
    """

    def __init__(self, judge: JudgedModel, config: FlowCompositionConfig):
        self.judge, self.config, self.digest = judge, config, judge.digest
        self.code = making.code()  # of each method, read now: a file that is edited meanwhile changes no key
        self.cache: ResultCache = judge.cache
        self._rates: dict[str, float] = {}
        self._settings: dict[str, tuple[Any, float]] = {}

    @cached_property
    def peer(self) -> TextToImage:
        """A copy that only LoRAs touch."""
        return opened(self.config, self.cache).model

    @cached_property
    def base(self) -> dict[str, torch.Tensor]:
        """The weights of its transformer, copied."""
        return {name: tensor.clone() for name, tensor in self.peer.network.state_dict().items()}

    def made(self, method: str, name: str, rate: float, steps: int, beside: int = 0) -> Path:
        """The folder with a trained file; ``tuned`` goes on from the subject's located weights."""
        config, given = self.config, Given.of(name)
        sizes: dict[str, Any] = {"batch": config.batch, "preservation": config.preservation}
        key = {
            "made": method,
            "subject": given.digest,
            "of": self.digest,
            "rate": rate,
            "steps": steps,
            "beside": beside,
        }
        key |= sizes | {"density": config.density, "searching": config.searching, "code": self.code[method]}

        def make(path: Path) -> None:
            part = path.with_name(f"{path.name}.{os.getpid()}")
            if method == "lora4":
                told = given.in_company(self.peer, beside) if beside else given
                training = peers.train(
                    method, self.peer, told, self.judge.base, part, rate=rate, counts=[steps], **sizes
                )
            elif method == "neurons":
                training = own_methods.search(
                    self.judge.model, given, part, steps=steps, density=config.density, **sizes
                )
            else:
                located = self.made("neurons", name, 0.0, config.searching)
                training = own_methods.values(
                    self.judge.model, given, part, located, rate=rate, counts=[steps], bits=16, beside=beside, **sizes
                )
            for _ in training:
                pass
            shutil.rmtree(path, ignore_errors=True)
            os.replace(part / str(steps), path)
            shutil.rmtree(part)
            print(f"made {method} {name} {rate:g} {steps}", flush=True)

        return self.cache.file(key, ".made", make)

    def rate(self, method: str) -> float:
        """Of the method's grid, by the race's rule on the first tuning subject."""
        if method not in self._rates:
            name, config = self.config.tuning[0], self.config
            grid, tried = next(each for each in (*PEERS, VALUES) if each.name == method).rates, []
            words = [prompt.replace(TOKEN, token(name)) for prompt in token_prompts(name, config.tuning_samples)]
            others = unrelated_prompts(name, config.tuning_samples)
            seeds = list(range(SEED + 1_000_000, SEED + 1_000_000 + config.tuning_samples))
            plain = self.judge.judged(None, others, seeds).embedding
            for rate in grid:
                folder = self.made(method, name, rate, config.searching)
                with self.applied([folder], [name], ("linear", 1.0, None)) as model:
                    like, moved = (self.seen(model, prompts, seeds) for prompts in (words, others))
                like = (like @ self.judge.truth(name).T).mean(1)
                drift = 1 - (moved * plain).sum(1)
                tried.append(Tried(rate, config.searching, float(like.mean()), float(drift.mean())))
            self._rates[method] = chosen(tried).rate
            print(method, tried, flush=True)
        return self._rates[method]

    def seen(self, model: TextToImage, prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
        """The judge's embeddings of drawn pictures, (n, 128)."""
        return self.judge.oracle.score(self.draw(model, prompts, seeds)).embedding.numpy()

    def draw(self, model: TextToImage, prompts: Sequence[str], seeds: Sequence[int], **options: Any) -> np.ndarray:
        """Pictures, (n, h, w, 3)."""
        how: dict[str, Any] = {"steps": self.judge.steps, "guidance": self.judge.guidance, "batch": 24}
        return model.generate(prompts, seeds=seeds, **how, **options)

    @contextmanager
    def applied(self, folders: Sequence[Path], names: Sequence[str], merge: Any = None) -> Iterator[TextToImage]:
        """The model that draws with files: edits composed, or LoRAs merged beside the words' first rows; none: these alone."""
        rows = [Given.of(name).row_edit(self.judge.model, self.judge.base) for name in names]
        if not folders or (folders[0] / own_methods.EDIT).exists():
            edits: list[Edit] = [edit_file.load(folder / own_methods.EDIT) for folder in folders] or rows
            # both start from zero, where the sum of two changes would turn a weight's sign
            whole = compose(*edits, overlap="ties" if folders else "error", base=self.judge.model.components)
            with self.judge.model.edits.applied(whole):
                yield self.judge.model
            return
        base = self.base  # copied before anything is merged
        with self.peer.edits.applied(compose(*rows, base=self.peer.components)):
            back = applying.merged_adapters(self.peer, folders, merge)
            try:
                yield self.peer
            finally:
                back()
                self.peer.network.load_state_dict(base)

    def folders(self, kind: str, names: Sequence[str]) -> list[Path]:
        """The files of a kind."""
        alone, (beside, longer) = self.config.searching, self.config.company
        if kind.startswith("lora_company"):
            return [self.made("lora4", name, self.rate("lora4"), longer, beside) for name in names]
        if kind.startswith("lora"):
            return [self.made("lora4", name, self.rate("lora4"), alone) for name in names]
        tuned = kind.startswith("edits")
        return [self.made("tuned", name, self.rate("tuned"), longer, beside) for name in names] if tuned else []

    def setting(self, kind: str) -> tuple[Any, float]:
        """(merge, weight of the layout) of a kind: of its grid the one of highest similarity on the tuning pair."""
        if kind not in self._settings:
            merges: list[Any] = [None]
            if kind in ("lora_cat_layout", "lora_company_layout"):
                merges = [self.setting("lora_cat")[0]]
            elif kind.startswith("lora"):
                merge = kind.removeprefix("lora_")
                merges = [(merge, *each) for each in MERGE_GRID[merge]]
            weights = LAYOUT_WEIGHTS if kind.endswith("layout") else (0.0,)
            grid = [(each, weight) for each in merges for weight in weights]
            self._settings[kind] = grid[0] if len(grid) == 1 else self._best(kind, grid)
            print(kind, self._settings[kind], flush=True)
        return self._settings[kind]

    def _best(self, kind: str, grid: list[tuple[Any, float]]) -> tuple[Any, float]:
        pair, count = self.config.tuning, self.config.tuning_samples
        seeds = list(range(SEED + 1_000_000, SEED + 1_000_000 + count))
        values = []
        for setting in grid:
            with self.drawing(kind, pair, setting) as (model, controls, prompts):
                images = self.draw(model, prompts(count), seeds, controls=controls)
            values.append(float(self.judged(images, pair, nouns=kind.startswith("nouns")).similarity.mean()))
        return grid[values.index(max(values))]

    @contextmanager
    def drawing(
        self, kind: str, pair: Sequence[str], setting: tuple[Any, float]
    ) -> Iterator[tuple[Any, list[Any], Any]]:
        """The model with files in force, its controls, and what makes the prompts."""
        merge, weight = setting
        nouns = kind.startswith("nouns")
        words = [SUBJECTS[name] if nouns else f"{token(name)} {SUBJECTS[name]}" for name in pair]
        layout = Layout(tuple(Region(word, box) for word, box in zip(words, boxes(2), strict=True)))
        controls = [LayoutGuidance(layout, config=LayoutGuidanceConfig(weight=weight))] if weight else []

        def prompts(count: int) -> list[str]:
            said = group_prompts(pair, count)
            if nouns:
                for name in pair:
                    said = [prompt.replace(phrase(name), with_article(SUBJECTS[name])) for prompt in said]
            return said

        if nouns:
            yield self.judge.model, controls, prompts
            return
        with self.applied(self.folders(kind, pair), pair, merge) as model:
            yield model, controls, prompts

    def judged(self, images: np.ndarray, pair: Sequence[str], nouns: bool = False) -> presence.Judged:
        """What the oracle finds; of nouns, whether each noun is there and not the subject."""
        scores = self.judge.oracle.score(images)
        if not nouns:
            return presence.judge(presence.found(self.judge, scores, pair), boxes(2))
        truth = [presence.noun_truth(self.judge, SUBJECTS[name]) for name in pair]
        found = presence.recognise(scores, truth, [self.judge.truth(name) for name in pair])
        return presence.judge(found, boxes(2))

    def measured(self, case: Case) -> dict[str, Any]:
        """One pair drawn one way, and with which setting and rate."""
        config, kind = case.config, case.kind
        nouns = {SUBJECTS[name] for name in case.pair}
        others = [each for each in unrelated_prompts(case.pair[0], 3 * config.others) if not nouns & set(each.split())]
        others = others[: config.others]
        seeds = list(range(SEED, SEED + config.samples))
        with self.drawing(kind, case.pair, self.setting(kind)) as (model, controls, prompts):
            images = self.draw(model, prompts(config.samples), seeds, controls=controls)
            # unrelated prompts name no subject, so they have no layout
            moved = None if kind.startswith("nouns") else self.seen(model, others, [SEED] * len(others))
        judged = self.judged(images, case.pair, nouns=kind.startswith("nouns"))
        found = {
            what: np.asarray(getattr(judged, what), float) for what in ("present", "leaked", "obeyed", "similarity")
        }
        found["each"] = judged.subjects.mean(1)
        if moved is not None:
            plain = self.judge.judged(None, others, [SEED] * len(others)).embedding
            found["drift"] = 1 - (plain * moved).sum(1)
        told = {"setting": self.setting(kind), "rate": self._rates.get("lora4" if "lora" in kind else "tuned")}
        return {what: each.tolist() for what, each in found.items()} | told


def cases(config: FlowCompositionConfig) -> list[Case]:
    """Every pair in every way."""
    return [Case(kind, pair, config) for kind in (*OURS, *LORAS) for pair in groups(config.test, 2, config.pairs)]


def measure(bench: Bench[FlowCompositionConfig, Composition], case: Case) -> dict[str, Any]:
    """One pair drawn one way."""
    warnings.filterwarnings("ignore", category=UserWarning, module="peft")
    return Composition.measured(bench.subject, case)  # named, so that its code decides what is kept


def rows(bench: Bench[FlowCompositionConfig, Composition]) -> Iterator[Row]:
    """All claims."""
    every = [(case.kind, case.pair, bench.found(case)) for case in cases(bench.config)]

    def column(kind: str, what: str) -> np.ndarray:
        return np.concatenate([found[what] for each, _, found in every if each == kind])

    labels = [pair for kind, pair, found in every if kind == "rows" for _ in found["present"]]
    names = [" and ".join(pair) for pair in labels]
    present = {kind: column(kind, "present") for kind in (*OURS, *LORAS)}
    n = len(names)
    told = {kind: f"setting {found['setting']}, rate {found['rate']}" for kind, _, found in every}
    note = f"{len(set(names))} pairs; {told['edits_layout']}"
    without, alone = present["edits"].mean(), present["rows"].mean()
    ours = bootstrap(present["edits_layout"], groups=names)
    yield row("flow.compose.two_present", ours, n=n, baseline=without, control=alone, note=note)
    for claim, (one, other) in PAIRS.items():
        gap = paired_bootstrap(present[one], present[other], groups=names)
        yield row(f"flow.compose.{claim}", gap, n=n, baseline=present[other].mean(), note=f"{other}: {told[other]}")
    for kind in (*OURS, *LORAS):
        for what in ("present", "each", "leaked", "obeyed", "similarity"):
            yield row(f"flow.compose.{what}.{kind}", bootstrap(column(kind, what), groups=names), n=n)
        if not kind.startswith("nouns"):
            drift = [(pair, found["drift"]) for each, pair, found in every if each == kind]
            of = [" and ".join(pair) for pair, values in drift for _ in values]
            yield row(f"flow.compose.drift.{kind}", bootstrap(column(kind, "drift"), groups=of), n=len(of))


def sheet(bench: Bench[FlowCompositionConfig, Composition]) -> None:
    """docs/images/flow-composition.png: four pairs, two seeds each, in five ways; nothing is picked."""
    subject, found = bench.subject, []
    for kind, label in SHOWN.items():
        for pair in groups(bench.config.test, 2, bench.config.pairs)[::3]:
            with subject.drawing(kind, pair, subject.setting(kind)) as (model, controls, prompts):
                images = subject.draw(model, prompts(2), [SEED, SEED + 1], controls=controls)
            found += [labelled(enlarged(each, 128), label) for each in images]
    write_atomically(
        ROOT / "docs" / "images" / "flow-composition.png",
        png_bytes(contact_sheet(found, columns=len(found) // len(SHOWN))),
    )


BENCHMARKS = (
    Benchmark(
        "flow-composition", __doc__, FlowCompositionConfig(), QUICK, CLAIMS, rows, cases, measure,
        open=lambda config, cache: Composition(opened(config, cache), config),
        together=lambda case: "lora" if case.kind in LORAS else "ours", seeds=(0, SEED, SEED + 1_000_000),
        folder="customisation", finish=lambda bench, rows: sheet(bench),
    ),
)  # fmt: skip
