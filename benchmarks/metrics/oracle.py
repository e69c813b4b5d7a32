"""How good the judge is: the oracle on fresh real scenes, where the truth is known.

    python -m benchmarks.metrics.oracle            # about 3 minutes; writes benchmarks/results/oracle.json
    python -m benchmarks.metrics.oracle --quick    # a quarter of the scenes, prints only

Scenes come from ``sample_scene`` with seeds no recipe uses. Subjects are held-out concepts in the held-out style:
neither was seen in training. What the oracle misses here bounds what it can say about generated pictures.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness.ledger import ROOT, Row, write_result
from photopic.core.runs import write_atomically
from photopic.data import emoji_world, scenes, splits
from photopic.metrics.intervals import Interval, wilson
from photopic.metrics.oracle import Oracle, Scores
from photopic.metrics.ranking import auroc_interval

KNOWN = tuple(sorted(splits.KNOWN))
DRAWN = ("noto", "twemoji")  # the styles emoji-diffusion draws
SEED = 7_000_001
CARD = ROOT / "recipes" / "emoji-oracle" / "card.json"
ONE, TWO = (1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0)


def draw(count: int, salt: int, concepts: Sequence[str] = KNOWN, **options: object) -> list[scenes.Scene]:
    """``count`` scenes; ``salt`` keeps the questions apart."""
    choice = scenes.SceneOptions(tuple(concepts), **options)  # type: ignore[arg-type]
    return [scenes.sample_scene(choice, (SEED, salt, index)) for index in range(count)]


def pixels(drawn: Sequence[scenes.Scene]) -> np.ndarray:
    """Their pictures, (n, size, size, 3)."""
    return np.stack([scene.image for scene in drawn])


def proportion(claim: str, right: Sequence[bool] | np.ndarray, target: str | None = None, note: str = "") -> Row:
    """A row for the share of true entries with its Wilson interval."""
    value, low, high = (round(number, 4) for number in wilson(int(np.sum(right)), len(right)))
    return Row(claim, value, low, high, target=target, n=len(right), note=note)


def single_rows(oracle: Oracle, count: int) -> list[Row]:
    """Concept, style and background of one known object."""
    drawn = draw(count, 1, styles=DRAWN, objects=ONE)
    scores = oracle.score(pixels(drawn))
    names = [scene.placements[0].concept for scene in drawn]
    backgrounds = oracle.background(scores)
    everywhere = draw(count, 2, styles=emoji_world.TRAINING_STYLES, objects=ONE)
    elsewhere = oracle.score(pixels(everywhere))
    tinted = draw(count // 2, 3, styles=DRAWN, objects=ONE, tinted=1.0)
    tinted = [scene for scene in tinted if scene.placements[0].tint]
    tints = [next(iter(facts)) for facts in tint_facts(oracle, tinted)]
    return [
        proportion(
            "oracle.concept_top1",
            equal(oracle.concept(scores), names),
            ">= 0.97",
            f"one object in the styles emoji-diffusion draws, among {len(KNOWN)} known names",
        ),
        proportion(
            "oracle.concept_top1_unrestricted",
            equal(oracle.concept(scores, oracle.config.concepts), names),
            note=f"the same pictures, among all {len(oracle.config.concepts)} names it was trained on",
        ),
        proportion(
            "oracle.concept_top1_all_styles",
            equal(oracle.concept(elsewhere), [scene.placements[0].concept for scene in everywhere]),
            note="six training styles, two of them line art",
        ),
        proportion("oracle.style", equal(oracle.style(elsewhere), [s.placements[0].style for s in everywhere])),
        proportion("oracle.background", equal([b.colour for b in backgrounds], [s.background.colour for s in drawn])),
        proportion("oracle.background_kind", equal([b.kind for b in backgrounds], [s.background.kind for s in drawn])),
        proportion("oracle.colour", np.array(tints) > 0.5, note="probability of an object's stated tint above 0.5"),
    ]


def tint_facts(oracle: Oracle, drawn: Sequence[scenes.Scene]) -> list[tuple[float]]:
    """Probability the oracle gives to the tint of each scene's object."""
    judged = oracle.caption_facts(pixels(drawn), [scene.caption for scene in drawn])
    return [
        (facts[f"{scene.placements[0].tint} {scene.placements[0].concept}"],)
        for facts, scene in zip(judged, drawn, strict=True)
    ]


def pair_rows(oracle: Oracle, count: int) -> list[Row]:
    """Presence and relation in scenes of two objects, and names that are not there as the control."""
    drawn = draw(count, 4, styles=DRAWN, objects=TWO)
    both, absent, relations = [], [], []
    rng = np.random.default_rng(SEED)
    for scene in drawn:
        scores = oracle.score(scene.image[None])
        names = [item.concept for item in scene.placements]
        others = [str(name) for name in rng.choice(KNOWN, 4, replace=False) if name not in names]
        both.append(bool((oracle.presence(scores, names) > 0.5).all()))
        absent.extend(oracle.presence(scores, others)[0] > 0.5)
        if scene.relations:
            relations.append(oracle.relation(scores, *names)[0] == scene.relations[0][1])
    return [
        proportion("oracle.two_present", both, note="both objects of a two-object scene called present"),
        proportion(
            "oracle.false_presence", absent, note="names that are not in the scene called present; lower is better"
        ),
        proportion("oracle.relation", relations),
    ]


def subject_rows(oracle: Oracle, each: int) -> list[Row]:
    """The embedding on subjects it never saw: 5 reference pictures a subject, ``each`` fresh pictures to judge."""
    style = emoji_world.HELD_OUT_STYLE
    subjects = [name for name in splits.SUBJECTS if style in emoji_world.concept(name).styles]
    references = [
        oracle.score(pixels(draw(5, 100 + k, (s,), styles=(style,), objects=ONE))) for k, s in enumerate(subjects)
    ]

    def fresh(salt: int, names: Sequence[str], styles: tuple[str, ...]) -> list[Scores]:
        return [
            oracle.score(pixels(draw(each, salt + k, (name,), styles=styles, objects=ONE)))
            for k, name in enumerate(names)
        ]

    nouns = [splits.SUBJECTS[name] for name in subjects]
    same, redrawn = fresh(200, subjects, (style,)), fresh(300, subjects, DRAWN)
    noun, noun_unseen = fresh(400, nouns, DRAWN), fresh(500, nouns, (style,))
    tables = [
        np.stack([[oracle.subject_similarity(s, r) for r in references] for s in group]) for group in (same, redrawn)
    ]
    rows = []
    for claim, table, what in zip(
        ("oracle.subject_retrieval", "oracle.subject_retrieval_other_style"),
        tables,
        ("held-out style as the references", f"{' and '.join(DRAWN)}, references in the held-out style"),
        strict=True,
    ):
        right = (table.argmax(1) == np.arange(len(subjects))[:, None]).ravel()  # (subjects, references, each)
        rows.append(proportion(claim, right, note=f"nearest of {len(subjects)} held-out subjects; pictures in {what}"))
    diagonal = [[float(x) for x in table[k, k]] for table in tables for k in range(len(subjects))]
    positive, cross = diagonal[: len(subjects)], diagonal[len(subjects) :]
    other = [[float(x) for x in np.delete(tables[0][:, k], k, 0).ravel()] for k in range(len(subjects))]
    against = [
        [[float(x) for x in oracle.subject_similarity(s, r)] for s, r in zip(group, references, strict=True)]
        for group in (noun, noun_unseen)
    ]
    return [
        *rows,
        area("oracle.subject_auroc", positive, other, "same held-out subject against the other subjects"),
        area(
            "oracle.subject_vs_noun_auroc",
            positive,
            against[0],
            "subject against its class noun as emoji-diffusion draws it",
        ),
        area(
            "oracle.subject_vs_noun_same_style_auroc",
            positive,
            against[1],
            "subject against its class noun, both in the held-out style",
        ),
        area(
            "oracle.redrawn_subject_vs_noun_auroc",
            cross,
            against[0],
            "subject redrawn in a drawn style against its class noun there",
        ),
    ]


def area(claim: str, positives: list[list[float]], negatives: list[list[float]], note: str) -> Row:
    """A row for an AUROC, subjects resampled."""
    interval: Interval = auroc_interval(positives, negatives)
    count = sum(map(len, positives))
    value, low, high = (round(number, 4) for number in interval)
    return Row(claim, value, low, high, n=count, note=f"{note}; subjects resampled")


def alignment_rows(oracle: Oracle, count: int) -> list[Row]:
    """Does the true caption score above the caption of another scene?"""
    drawn = draw(count, 5, styles=DRAWN, tinted=0.1)
    scores, captions = oracle.score(pixels(drawn)), [scene.caption for scene in drawn]
    true = oracle.text_alignment(scores, captions)
    shuffled = oracle.text_alignment(scores, captions[1:] + captions[:1])
    swapped_scenes = [scene for scene in draw(count, 6, styles=DRAWN, objects=TWO) if scene.relations]
    told = [scene.caption for scene in swapped_scenes]
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    untrue = [
        c.replace(s.relations[0][1], opposite[s.relations[0][1]]) for c, s in zip(told, swapped_scenes, strict=True)
    ]
    pictures = oracle.score(pixels(swapped_scenes))
    return [
        proportion("oracle.text_alignment", true > shuffled, note="own caption above the caption of another scene"),
        Row(
            "oracle.text_alignment_mean",
            round(float(true.mean()), 4),
            control=round(float(shuffled.mean()), 4),
            n=count,
            note="mean score of own captions; control: captions of other scenes",
        ),
        proportion(
            "oracle.text_alignment_relation",
            oracle.text_alignment(pictures, told) > oracle.text_alignment(pictures, untrue),
            note="own caption above the same caption with the relation turned round",
        ),
    ]


def reconstruction_rows(oracle: Oracle, count: int) -> list[Row]:
    """The same question after the autoencoder of emoji-diffusion: generated pictures look like its output."""
    from diffusers import AutoencoderKL

    folder = ROOT / "src" / "photopic" / "models" / "bundled" / "emoji-diffusion" / "vae"
    if not folder.exists():
        return []
    vae = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32)
    drawn = draw(count, 7, styles=DRAWN, objects=ONE)
    images = torch.from_numpy(pixels(drawn)).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        rebuilt = torch.cat([vae.decode(vae.encode(part).latent_dist.mean).sample for part in images.split(32)]).clamp(
            -1, 1
        )
    right = equal(oracle.concept(rebuilt), [scene.placements[0].concept for scene in drawn])
    return [
        proportion(
            "oracle.concept_top1_reconstructed",
            right,
            note="after encoding and decoding by emoji-diffusion's autoencoder",
        )
    ]


def equal(found: Sequence[object], true: Sequence[object]) -> np.ndarray:
    """Which entries agree."""
    return np.array([a == b for a, b in zip(found, true, strict=True)])


def measure(oracle: Oracle, count: int) -> list[Row]:
    """Every row."""
    return [
        *single_rows(oracle, count),
        *pair_rows(oracle, count // 2),
        *subject_rows(oracle, max(4, count // 64)),
        *alignment_rows(oracle, count // 2),
        *reconstruction_rows(oracle, count // 2),
    ]


def write_card(rows: Sequence[Row]) -> None:
    """Put the numbers reached into the recipe's card."""
    card = json.loads(CARD.read_text()) if CARD.exists() else {}
    card["reached"] = {row.claim: [row.value, row.low, row.high, row.n, row.note] for row in rows}
    write_atomically(CARD, (json.dumps(card, indent=1, sort_keys=True) + "\n").encode())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a quarter of the scenes; print only")
    parser.add_argument("--weights", type=Path, help="another oracle than the bundled one; print only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    rows = measure(Oracle.load(options.weights), 256 if options.quick else 1024)
    for row in rows:
        print(f"{row.claim:45} {row.value:.4f}  [{row.low}, {row.high}]  n={row.n}  {row.note}")
    if not (options.quick or options.weights):
        write_card(rows)
        elapsed = time.monotonic() - started
        write_result("oracle", rows, command="python -m benchmarks.metrics.oracle", seeds=[SEED], elapsed_s=elapsed)


if __name__ == "__main__":
    main()
