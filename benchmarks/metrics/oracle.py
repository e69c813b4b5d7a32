"""How good the judge is: the oracle on fresh real scenes, where the truth is known.

    python -m benchmarks oracle            # about 3 minutes; writes benchmarks/results/oracle.json

Scenes come from ``sample_scene`` with seeds no recipe uses. Subjects are held-out concepts in the held-out style:
neither was seen in training. What the oracle misses here bounds what it can say about generated pictures.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row, share
from benchmarks.harness.ledger import ROOT
from photopic.core.config import Config
from photopic.core.runs import write_atomically
from photopic.data import emoji_world, scenes, splits
from photopic.metrics.oracle import Oracle, Scores
from photopic.metrics.ranking import auroc_interval

KNOWN = tuple(sorted(splits.KNOWN))
DRAWN = ("noto", "twemoji")  # the styles emoji-diffusion draws
SEED = 7_000_001
CARD = ROOT / "recipes" / "emoji-oracle" / "card.json"
VAE = ROOT / "src" / "photopic" / "models" / "bundled" / "emoji-diffusion" / "vae"
ONE, TWO = (1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0)
RESAMPLED = "subjects resampled"
CLAIMS = (
    Claim("oracle.concept_top1", ">= 0.97", "one object in the styles emoji-diffusion draws, among the known names"),
    Claim("oracle.concept_top1_unrestricted", "", "the same pictures, among all names it was trained on"),
    Claim("oracle.concept_top1_all_styles", "", "six training styles, two of them line art"),
    Claim("oracle.style"),
    Claim("oracle.background"),
    Claim("oracle.background_kind"),
    Claim("oracle.colour", "", "probability of an object's stated tint above 0.5"),
    Claim("oracle.two_present", "", "both objects of a two-object scene called present"),
    Claim("oracle.false_presence", "", "names that are not in the scene called present; lower is better"),
    Claim("oracle.relation"),
    Claim(
        "oracle.subject_retrieval",
        "",
        "nearest of the held-out subjects; pictures in the held-out style as the references",
    ),
    Claim(
        "oracle.subject_retrieval_other_style",
        "",
        "nearest of the held-out subjects; pictures in noto and twemoji, references in the held-out style",
    ),
    Claim("oracle.subject_auroc", "", f"same held-out subject against the other subjects; {RESAMPLED}"),
    Claim(
        "oracle.subject_vs_noun_auroc", "", f"subject against its class noun as emoji-diffusion draws it; {RESAMPLED}"
    ),
    Claim(
        "oracle.subject_vs_noun_same_style_auroc",
        "",
        f"subject against its class noun, both in the held-out style; {RESAMPLED}",
    ),
    Claim(
        "oracle.redrawn_subject_vs_noun_auroc",
        "",
        f"subject redrawn in a drawn style against its class noun there; {RESAMPLED}",
    ),
    Claim("oracle.text_alignment", "", "own caption above the caption of another scene"),
    Claim("oracle.text_alignment_mean", "", "mean score of own captions; control: captions of other scenes"),
    Claim("oracle.text_alignment_relation", "", "own caption above the same caption with the relation turned round"),
    Claim("oracle.concept_top1_reconstructed", "", "after encoding and decoding by emoji-diffusion's autoencoder"),
)


@dataclass(frozen=True)
class OracleConfig(Config):
    """How much is measured."""

    scenes: Annotated[int, Ge(64)] = 1024  # of one object; of the other questions a part
    weights: str | None = None  # a file of another oracle than the bundled one


def draw(count: int, salt: int, concepts: Sequence[str] = KNOWN, **options: Any) -> list[scenes.Scene]:
    """``count`` scenes; ``salt`` keeps the questions apart."""
    choice = scenes.SceneOptions(tuple(concepts), **options)
    return [scenes.sample_scene(choice, (SEED, salt, index)) for index in range(count)]


def pixels(drawn: Sequence[scenes.Scene]) -> np.ndarray:
    """Their pictures, (n, size, size, 3)."""
    return np.stack([scene.image for scene in drawn])


def single_rows(oracle: Oracle, count: int) -> Iterator[Row]:
    """Concept, style and background of one known object."""
    drawn = draw(count, 1, styles=DRAWN, objects=ONE)
    scores = oracle.score(pixels(drawn))
    names = [scene.placements[0].concept for scene in drawn]
    everywhere = draw(count, 2, styles=emoji_world.TRAINING_STYLES, objects=ONE)
    elsewhere = oracle.score(pixels(everywhere))
    named = [scene.placements[0].concept for scene in everywhere]
    yield share("oracle.concept_top1", equal(oracle.concept(scores), names))
    among_all = oracle.concept(scores, oracle.config.concepts)
    yield share("oracle.concept_top1_unrestricted", equal(among_all, names))
    yield share("oracle.concept_top1_all_styles", equal(oracle.concept(elsewhere), named))
    yield share("oracle.style", equal(oracle.style(elsewhere), [s.placements[0].style for s in everywhere]))
    for claim, field in (("background", "colour"), ("background_kind", "kind")):
        found = [getattr(each, field) for each in oracle.background(scores)]
        yield share(f"oracle.{claim}", equal(found, [getattr(scene.background, field) for scene in drawn]))
    tinted = draw(count // 2, 3, styles=DRAWN, objects=ONE, tinted=1.0)
    tinted = [scene for scene in tinted if scene.placements[0].tint]
    facts = zip(oracle.caption_facts(pixels(tinted), [scene.caption for scene in tinted]), tinted, strict=True)
    first = [(found, scene.placements[0]) for found, scene in facts]
    yield share("oracle.colour", [found[f"{item.tint} {item.concept}"] > 0.5 for found, item in first])


def pair_rows(oracle: Oracle, count: int) -> Iterator[Row]:
    """Presence and relation in scenes of two objects, and names that are not there as the control."""
    both, absent, relations = [], [], []
    rng = np.random.default_rng(SEED)
    for scene in draw(count, 4, styles=DRAWN, objects=TWO):
        scores = oracle.score(scene.image[None])
        names = [item.concept for item in scene.placements]
        others = [str(name) for name in rng.choice(KNOWN, 4, replace=False) if name not in names]
        both.append(bool((oracle.presence(scores, names) > 0.5).all()))
        absent.extend(oracle.presence(scores, others)[0] > 0.5)
        if scene.relations:
            relations.append(oracle.relation(scores, *names)[0] == scene.relations[0][1])
    yield share("oracle.two_present", both)
    yield share("oracle.false_presence", absent)
    yield share("oracle.relation", relations)


def subject_rows(oracle: Oracle, each: int) -> Iterator[Row]:
    """The embedding on subjects it never saw: 5 reference pictures a subject, ``each`` fresh pictures to judge."""
    style = emoji_world.HELD_OUT_STYLE
    subjects = [name for name in splits.SUBJECTS if style in emoji_world.concept(name).styles]
    nouns = [splits.SUBJECTS[name] for name in subjects]

    def fresh(salt: int, names: Sequence[str], styles: tuple[str, ...], count: int = each) -> list[Scores]:
        numbered = enumerate(names)
        return [oracle.score(pixels(draw(count, salt + k, (s,), styles=styles, objects=ONE))) for k, s in numbered]

    references = fresh(100, subjects, (style,), 5)
    same, redrawn = fresh(200, subjects, (style,)), fresh(300, subjects, DRAWN)
    same_table, cross_table = (
        np.stack([[oracle.subject_similarity(s, r) for r in references] for s in group]) for group in (same, redrawn)
    )  # (subjects, references, each)
    for claim, table in (("", same_table), ("_other_style", cross_table)):
        right = (table.argmax(1) == np.arange(len(subjects))[:, None]).ravel()
        yield share(f"oracle.subject_retrieval{claim}", right)
    own, cross = ([table[k, k].tolist() for k in range(len(subjects))] for table in (same_table, cross_table))
    other = [np.delete(same_table[:, k], k, 0).ravel().tolist() for k in range(len(subjects))]
    noun, noun_unseen = (
        [oracle.subject_similarity(s, r).tolist() for s, r in zip(group, references, strict=True)]
        for group in (fresh(400, nouns, DRAWN), fresh(500, nouns, (style,)))
    )
    for claim, positives, negatives in (
        ("subject_auroc", own, other), ("subject_vs_noun_auroc", own, noun),
        ("subject_vs_noun_same_style_auroc", own, noun_unseen), ("redrawn_subject_vs_noun_auroc", cross, noun),
    ):  # fmt: skip
        yield row(f"oracle.{claim}", auroc_interval(positives, negatives), n=sum(map(len, positives)))


def alignment_rows(oracle: Oracle, count: int) -> Iterator[Row]:
    """Does the true caption score above the caption of another scene?"""
    drawn = draw(count, 5, styles=DRAWN, tinted=0.1)
    scores, captions = oracle.score(pixels(drawn)), [scene.caption for scene in drawn]
    true = oracle.text_alignment(scores, captions)
    shuffled = oracle.text_alignment(scores, captions[1:] + captions[:1])
    yield share("oracle.text_alignment", true > shuffled)
    yield row("oracle.text_alignment_mean", true.mean(), control=shuffled.mean(), n=count)
    related = [scene for scene in draw(count, 6, styles=DRAWN, objects=TWO) if scene.relations]
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    words = [scene.relations[0][1] for scene in related]
    told = [scene.caption for scene in related]
    untrue = [said.replace(word, opposite[word]) for said, word in zip(told, words, strict=True)]
    pictures = oracle.score(pixels(related))
    right = oracle.text_alignment(pictures, told) > oracle.text_alignment(pictures, untrue)
    yield share("oracle.text_alignment_relation", right)


def reconstruction_row(oracle: Oracle, count: int) -> Row:
    """The same question after the autoencoder of emoji-diffusion: generated pictures look like its output."""
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(VAE, torch_dtype=torch.float32)
    drawn = draw(count, 7, styles=DRAWN, objects=ONE)
    images = torch.from_numpy(pixels(drawn)).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        rebuilt = torch.cat([vae.decode(vae.encode(part).latent_dist.mean).sample for part in images.split(32)])
    right = equal(oracle.concept(rebuilt.clamp(-1, 1)), [scene.placements[0].concept for scene in drawn])
    return share("oracle.concept_top1_reconstructed", right)


def equal(found: Sequence[object], true: Sequence[object]) -> np.ndarray:
    """Which entries agree."""
    return np.array([a == b for a, b in zip(found, true, strict=True)])


def rows(bench: Bench[OracleConfig, Oracle]) -> Iterator[Row]:
    """Every row."""
    oracle, count = bench.subject, bench.config.scenes
    yield from single_rows(oracle, count)
    yield from pair_rows(oracle, count // 2)
    yield from subject_rows(oracle, max(4, count // 64))
    yield from alignment_rows(oracle, count // 2)
    yield reconstruction_row(oracle, count // 2)


def write_card(_: Bench[OracleConfig, Oracle], rows: Sequence[Row]) -> None:
    """Put the numbers reached into the recipe's card."""
    card = json.loads(CARD.read_text()) if CARD.exists() else {}
    card["reached"] = {row.claim: [row.value, row.low, row.high, row.n, row.note] for row in rows}
    write_atomically(CARD, (json.dumps(card, indent=1, sort_keys=True) + "\n").encode())


def opened(config: OracleConfig, cache: Any) -> Oracle:
    """The bundled oracle, or another one."""
    return Oracle.load(Path(config.weights) if config.weights else None)


BENCHMARKS = (
    Benchmark(
        "oracle",
        __doc__,
        OracleConfig(),
        OracleConfig(256),
        CLAIMS,
        rows,
        open=opened,
        seeds=(SEED,),
        finish=write_card,
    ),
)
