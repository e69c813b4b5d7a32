"""What fails where two or three never-seen subjects are to stand in one picture, and what mends it; judged by the oracle.

    python -m benchmarks composition         # writes benchmarks/results/composition.json

Held-out subjects of the race, each located and tuned in company (2 % of the keys and values, ``tune located --beside 4``), in
pairs and triples of different nouns; prompts name all with new words, "left of" between two. Ways, all of one seed and prompt
(triples in five of them):

- ``nouns``: the base with known nouns in the same layout, what it can at best; ``beside``: one subject beside the other's noun,
  under its own edit alone; ``rows``: new words without edits (control);
- ``composed``: all edits in force, no layout; ``arranged``: with the layout that the prompt asks for (``--arrange``);
  ``swapped``: with the boxes of that exchanged (control); ``regions``: each edit in its region too (``--in-region``); ``own``: and
  each region read from a sentence of its own (``--own-prompts``);
- ``attention``: as regions, edits tuned with attention drawn to their places; ``joint``: as arranged, the edits tuned together
  on collages of the subjects (``tune together --beside 4``), ``joint_alone``: without the collages (a control that was added when
  all the others had been seen).

Settings were chosen on polar bear, tiger and violin, which are not measured. Present is as in the race: the place most like a
subject is taken for it, and not for its noun or another of the group. That is a choice between few, which a blot of the right
colour may win, so the similarity of that place (cosine of the oracle) stands beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.code import code_of
from benchmarks.harness.subjects import JudgedModel
from benchmarks.tune.race.plan import TEST, group_prompts, groups, phrase
from benchmarks.tune.race.presence import found, judge
from benchmarks.tune.race.subject_case import Given
from photopic.core.config import Config
from photopic.core.edits import Edit, compose
from photopic.core.sampling import Control
from photopic.data.layout import Layout
from photopic.data.scenes import with_article
from photopic.data.splits import SUBJECTS
from photopic.generate.guidance.layout_guidance import LayoutGuidance
from photopic.generate.guidance.regional_edits import RegionalEdits
from photopic.generate.guidance.regional_prompts import RegionalPrompts
from photopic.knowledge.prompt_layout import layout_of_prompt
from photopic.locate.concept_neurons import ConceptNeuronsConfig, concept_neurons
from photopic.metrics.intervals import bootstrap, paired_bootstrap
from photopic.tune.subject.joint_tuning import JointTuningConfig, joint_tuning
from photopic.tune.subject.located_weights import LocatedWeightsConfig, located_weights

SEED = 12_000_000  # of the samples
LEARNING = "photopic.tune.subject.located_weights", "photopic.tune.subject.joint_tuning"
WAYS = (
    "nouns",
    "beside",
    "composed",
    "regions",
    "own",
    "arranged",
    "rows",
    "swapped",
    "joint",
    "joint_alone",
    "attention",
)
TRIPLE_WAYS = ("nouns", "composed", "arranged", "regions", "own")
SUBJECTS_MEASURED = TEST[:4]  # of the race's test subjects
GAINS = (  # claim, way, what it is compared with
    ("arranged_gain", "arranged", "composed"),
    ("arranged_vs_swapped", "arranged", "swapped"),
    ("regions_gain", "regions", "arranged"),
    ("own_prompts_gain", "own", "regions"),
    ("attention_gain", "attention", "regions"),
    ("joint_gain", "joint", "arranged"),
    ("joint_vs_alone", "joint", "joint_alone"),
)
CLAIMS = (
    Claim("composition.base_both_present", "", "known nouns in the layout of the prompt: both seen by the oracle"),
    Claim("composition.one_beside_known", "", "a subject under its own edit beside a known thing: it is there"),
    Claim("composition.rows_present", "", "new words without edits, in the layout: all subjects there"),
    *(
        Claim(
            f"composition.two_present_{way}", "", f"share of pictures with both subjects in a place of their own, {way}"
        )
        for way in WAYS
        if way not in ("nouns", "beside", "rows")
    ),
    Claim(
        "composition.base_three_present", "", "three known nouns in the layout of the prompt: all seen by the oracle"
    ),
    *(
        Claim(
            f"composition.three_present_{way}",
            "",
            f"share of pictures with three subjects in places of their own, {way}",
        )
        for way in TRIPLE_WAYS[1:]
    ),
    *(
        Claim(f"composition.{name}", "low > 0", f"pairs, all present: {way} minus {other}")
        for name, way, other in GAINS
    ),
    *(
        Claim(f"composition.{name}_similarity", "", f"pairs, similarity at the subjects' places: {way} minus {other}")
        for name, way, other in GAINS
    ),
    Claim("composition.leaked", "", "pairs, regions: a place in one's box is taken for the other"),
)


@dataclass(frozen=True)
class CompositionConfig(Config):
    """How much is measured."""

    pairs: Annotated[int, Ge(1)] = 6  # of different nouns, each subject about as often
    triples: Annotated[int, Ge(1)] = 4  # likewise
    samples: Annotated[int, Ge(1)] = 6  # pictures of each group and way
    steps: Annotated[int, Ge(1)] = 120  # of tuning each subject in company
    together: Annotated[int, Ge(1)] = 40  # of tuning a pair together
    attention: Annotated[float, Ge(0)] = 0.3  # weight of the attention drawn to places, in ``attention``
    model: str = "emoji-diffusion"  # a bundled name or a folder


@dataclass(frozen=True)
class Drawing:
    """One group drawn in one way."""

    group: tuple[str, ...]
    way: str
    samples: int
    steps: int
    together: int
    attention: float


def everything(config: CompositionConfig) -> list[Drawing]:
    """Way by way, those that take longest at the end; a setting is said where it decides something."""
    made = []
    for way in WAYS:
        together, attention = config.together * way.startswith("joint"), config.attention * (way == "attention")
        pairs = groups(SUBJECTS_MEASURED, 2, config.pairs)
        made += [Drawing(group, way, config.samples, config.steps, together, attention) for group in pairs]
    triples = groups(SUBJECTS_MEASURED, 3, config.triples)
    return made + [Drawing(each, way, config.samples, config.steps, 0, 0.0) for way in TRIPLE_WAYS for each in triples]


def located(judged: JudgedModel, name: str) -> Edit:
    """The concept neurons of a subject under its own word, kept."""
    given, config = Given.of(name), ConceptNeuronsConfig(binary=True, density=0.02, evaluation=0)
    key = {"located": given.digest, "config": config, "of": judged.digest, "code": code_of(*LEARNING)}
    return judged.cache.edit(
        key, lambda: concept_neurons(judged.model, given.pictures, noun=given.noun, token=given.token, config=config)
    )


def tuned(judged: JudgedModel, name: str, steps: int, attention: float) -> Edit:
    """Its weights tuned in company, kept; at the rate that the race chose."""
    given = Given.of(name)
    config = LocatedWeightsConfig(steps=steps, lr=1e-2, beside=4, attention=attention, evaluation=0)
    key = {"tuned": given.digest, "config": config, "of": judged.digest, "code": code_of(*LEARNING)}
    return judged.cache.edit(
        key, lambda: located_weights(judged.model, located(judged, name), given.pictures, config=config)
    )


def joined(judged: JudgedModel, drawing: Drawing) -> Edit:
    """The edits of a group tuned together on collages, kept; at the rate that was better for tiger and violin."""
    beside = 4 if drawing.way == "joint" else 0
    config = JointTuningConfig(steps=drawing.together, lr=1e-2, beside=beside, overlap="ties", evaluation=0)
    key = {
        "joined": drawing.group,
        "config": config,
        "steps": drawing.steps,
        "of": judged.digest,
        "code": code_of(*LEARNING),
    }
    edits = [tuned(judged, name, drawing.steps, 0.0) for name in drawing.group]
    data = [Given.of(name).pictures for name in drawing.group]
    return judged.cache.edit(key, lambda: joint_tuning(judged.model, edits, data, config=config))


def measure(bench: Bench[Any, JudgedModel], drawing: Drawing) -> dict[str, Any]:
    """Draw a group in one way and ask the oracle what is there.

    Returns:
        For each picture ``present`` (all are), and of the subjects that are asked for ``subjects``, ``similarity`` and ``leaked``.
    """
    judged, group, way = bench.subject, drawing.group, drawing.way
    prompts, seeds = group_prompts(group, drawing.samples), range(SEED, SEED + drawing.samples)
    if way == "nouns":
        images = drawn(judged, [plain(prompt, group) for prompt in prompts], seeds, arranged=True)
        seen = judged.oracle.presence(images, [SUBJECTS[name] for name in group]) > 0.5
        return {"present": seen.all(1).astype(float).tolist(), "subjects": seen.astype(float).tolist()}
    if way == "beside":
        columns = []
        for number, name in enumerate(group):
            edit = tuned(judged, name, drawing.steps, 0.0)
            said = [plain(prompt, [other for other in group if other != name]) for prompt in prompts]
            with judged.model.edits.applied(edit):
                images = drawn(judged, said, seeds, arranged=True)
            columns.append(found(judged, judged.oracle.score(images), group).there[number].astype(float))
        return {"subjects": np.stack(columns, 1).tolist()}
    images = with_edits(judged, drawing, prompts, seeds)
    told = judge(
        found(judged, judged.oracle.score(images), group),
        [each.bounds for each in layout_of_prompt(prompts[0]).regions],
    )
    return {
        "present": told.present.astype(float).tolist(),
        "subjects": told.subjects.astype(float).tolist(),
        "similarity": told.similarity.tolist(),
        "leaked": told.leaked.tolist(),
    }


def with_edits(judged: JudgedModel, drawing: Drawing, prompts: list[str], seeds: range) -> np.ndarray:
    """The pictures of a way that has new words."""
    way, model = drawing.way, judged.model
    if way == "rows":
        edits = [Given.of(name).row_edit(model, judged.base) for name in drawing.group]
    else:
        weight = drawing.attention if way == "attention" else 0.0
        edits = [tuned(judged, name, drawing.steps, weight) for name in drawing.group]
    with ExitStack() as stack:
        if way in ("regions", "own", "attention"):
            return drawn(judged, prompts, seeds, arranged=True, own=way == "own", inside=edits)
        # values start from zero, where the sum of two changes would turn a weight's sign: as in the race
        whole = (
            joined(judged, drawing)
            if way.startswith("joint")
            else compose(*edits, overlap="ties", base=model.components)
        )
        stack.enter_context(model.edits.applied(whole))
        return drawn(judged, prompts, seeds, arranged=way != "composed", swapped=way == "swapped")


def drawn(
    judged: JudgedModel, prompts: list[str], seeds: range,
    *, arranged: bool = False, own: bool = False, swapped: bool = False, inside: list[Edit] | None = None,
) -> np.ndarray:  # fmt: skip
    """One picture a prompt and seed, (n, h, w, 3); prompts of a group differ in their ground alone, and so have one layout."""
    if own:  # sentences of their own have the ground of their prompt
        each = [drawn_in(judged, [prompt], [seed], layout_of_prompt(prompt, own_prompts=True), inside)
                for prompt, seed in zip(prompts, seeds, strict=True)]  # fmt: skip
        return np.concatenate(each)
    layout = layout_of_prompt(prompts[0]) if arranged else None
    if layout is not None and swapped:
        places = [each.box for each in layout.regions][::-1]
        layout = Layout(tuple(replace(each, box=box) for each, box in zip(layout.regions, places, strict=True)))
    return drawn_in(judged, prompts, seeds, layout, inside)


def drawn_in(
    judged: JudgedModel, prompts: list[str], seeds: Sequence[int], layout: Layout | None, inside: list[Edit] | None
) -> np.ndarray:
    """Pictures with a layout or none, in its regions edits and prompts of their own."""
    controls: list[Control] = []
    if layout is not None:
        controls += [LayoutGuidance(layout)]
        controls += [RegionalPrompts(layout)] if any(each.prompt for each in layout.regions) else []
        controls += [RegionalEdits(layout, inside)] if inside else []
    return judged.drawn(prompts, seeds, controls=controls)


def plain(prompt: str, names: Any) -> str:
    """The prompt with the class nouns of some subjects in place of their words."""
    for name in names:
        prompt = prompt.replace(phrase(name), with_article(SUBJECTS[name]))
    return prompt


def rows(bench: Bench[CompositionConfig, JudgedModel]) -> Iterator[Row]:
    """All claims."""
    cases = bench.cases

    def column(way: str, field: str, size: int = 2) -> np.ndarray:
        values = [np.array(bench.found(case)[field]) for case in cases if case.way == way and len(case.group) == size]
        return np.concatenate([each.reshape(len(each), -1).mean(1) for each in values])

    pairs = [number for number in range(bench.config.pairs) for _ in range(bench.config.samples)]
    n = len(pairs)
    base = column("nouns", "present")
    yield row("composition.base_both_present", bootstrap(base, groups=pairs), n=n)
    together = {way: f"{column(way, 'subjects').mean():.2f}" for way in ("arranged", "regions", "own")}
    note = f"each of two in one picture: {', '.join(f'{way} {share}' for way, share in together.items())}"
    yield row("composition.one_beside_known", bootstrap(column("beside", "subjects"), groups=pairs), n=n, note=note)
    control = column("rows", "present")
    yield row("composition.rows_present", bootstrap(control, groups=pairs), n=n)
    for way in WAYS:
        if way not in ("nouns", "beside", "rows"):
            note = f"similarity {column(way, 'similarity').mean():.3f}, leaked {column(way, 'leaked').mean():.3f}"
            values = bootstrap(column(way, "present"), groups=pairs)
            yield row(
                f"composition.two_present_{way}", values, n=n, baseline=base.mean(), control=control.mean(), note=note
            )
    triples = [number for number in range(bench.config.triples) for _ in range(bench.config.samples)]
    base = column("nouns", "present", 3)
    yield row("composition.base_three_present", bootstrap(base, groups=triples), n=len(triples))
    for way in TRIPLE_WAYS[1:]:
        note = f"similarity {column(way, 'similarity', 3).mean():.3f}, leaked {column(way, 'leaked', 3).mean():.3f}"
        values = bootstrap(column(way, "present", 3), groups=triples)
        yield row(f"composition.three_present_{way}", values, n=len(triples), baseline=base.mean(), note=note)
    for name, way, other in GAINS:
        for suffix, field in (("", "present"), ("_similarity", "similarity")):
            gain = paired_bootstrap(column(way, field), column(other, field), groups=pairs)
            yield row(f"composition.{name}{suffix}", gain, n=n, baseline=column(other, field).mean())
    yield row(
        "composition.leaked",
        bootstrap(column("regions", "leaked"), groups=pairs),
        n=n,
        baseline=column("arranged", "leaked").mean(),
    )


BENCHMARKS = (
    Benchmark(
        "composition", __doc__, CompositionConfig(),
        CompositionConfig(pairs=2, triples=1, samples=2, steps=2, together=1), CLAIMS, rows, everything, measure,
        open=lambda config, cache: JudgedModel(config.model, cache), seeds=(0, SEED),
    ),
)  # fmt: skip
