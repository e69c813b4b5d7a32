"""What emoji-diffusion draws, as the oracle sees it: fresh captions, one seed each, no picking.

    python -m benchmarks.models.bundled_model            # 512 + 256 + 128 pictures; writes
    benchmarks/results/bundled-model.json and the sheet
    python -m benchmarks.models.bundled_model --quick    # 96 + 48 + 24 pictures in fewer steps; prints and draws a small sheet

The baseline of every row is the oracle on the real scene of the same caption: what a perfect model would score.
Interrupted, it goes on from the pictures in ``runs/bundled-model`` if the model is the same.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.harness.ledger import ROOT, Row, write_result
from photopic.core.runs import Run, write_atomically
from photopic.data import scenes, splits
from photopic.metrics.intervals import bootstrap, wilson
from photopic.metrics.oracle import Oracle, Scores
from photopic.models.text_to_image.handle import TextToImage

KNOWN = tuple(sorted(splits.KNOWN))
SEED = 8_000_001
SHEET = ROOT / "docs" / "images" / "emoji-diffusion-samples.png"
DRAWN = ("noto", "twemoji")  # the styles the model learnt
BACKGROUNDS = (0.7, 0.15, 0.15)  # as it was trained
ONE, TWO = (1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0)


@dataclass(frozen=True)
class Settings:
    """How many pictures of each kind, and how they are drawn."""

    model: str = "emoji-diffusion"
    single: int = 512
    pairs: int = 256
    tinted: int = 128
    steps: int = 30
    guidance: float = 5.0


@dataclass(frozen=True)
class Drawn:
    """Captions with the real scene of each, and what the model drew for it."""

    real: list[scenes.Scene]
    truth: Scores  # of the real scenes
    images: np.ndarray  # (n, 64, 64, 3)
    scores: Scores  # of the images

    @property
    def concepts(self) -> list[str]:
        """Name of the first object of each scene."""
        return [scene.placements[0].concept for scene in self.real]


def draw(model: TextToImage, oracle: Oracle, settings: Settings, kind: str, count: int, **options: object) -> Drawn:
    """Fresh captions of one kind, drawn by the model; pictures are kept in the run folder as they come."""
    salt = ("single", "pairs", "tinted").index(kind)
    choice = scenes.SceneOptions(KNOWN, DRAWN, backgrounds=BACKGROUNDS, **options)  # type: ignore[arg-type]
    real = [scenes.sample_scene(choice, (SEED, salt, index)) for index in range(count)]
    run = Run(
        ROOT / "runs" / "bundled-model" / f"{model.digest()[:12]}-{kind}-{count}-{settings.steps}-{settings.guidance}",
        {
            "kind": kind,
            "count": count,
            "steps": settings.steps,
            "guidance": settings.guidance,
            "digest": model.digest(),
        },
    )
    saved = run.load()
    done = saved[0]["images"].numpy() if saved else np.zeros((0, model.image_size, model.image_size, 3), np.uint8)
    while len(done) < count:
        part = slice(len(done), min(count, len(done) + 32))
        images = model.generate(
            [scene.caption for scene in real[part]],
            seeds=[SEED + 100_000 * salt + index for index in range(part.start, part.stop)],
            steps=settings.steps,
            guidance=settings.guidance,
            batch=32,
        )
        done = np.concatenate([done, images])
        run.save({"images": torch.from_numpy(done)}, {"drawn": len(done)})
        print(f"{kind}: {len(done)} of {count}", flush=True)
    return Drawn(real, oracle.score(np.stack([scene.image for scene in real])), done, oracle.score(done))


def row(claim: str, right: np.ndarray, ceiling: np.ndarray, target: str | None = None, note: str = "") -> Row:
    """A proportion with its Wilson interval and what real scenes reach."""
    value, low, high = (round(number, 4) for number in wilson(int(right.sum()), len(right)))
    return Row(
        claim,
        value,
        low,
        high,
        target=target,
        baseline=round(float(ceiling.mean()), 4),
        n=len(right),
        note=note,
    )


def single_rows(oracle: Oracle, drawn: Drawn) -> list[Row]:
    """Concept, background and style of pictures of one object."""

    def agree(found: Sequence[object], true: Sequence[object]) -> np.ndarray:
        return np.array([a == b for a, b in zip(found, true, strict=True)])

    def both(question: object, true: Sequence[object]) -> tuple[np.ndarray, np.ndarray]:
        return agree(question(drawn.scores), true), agree(question(drawn.truth), true)  # type: ignore[operator]

    colours = [scene.background.colour for scene in drawn.real]
    kinds = [scene.background.kind for scene in drawn.real]
    styles = [scene.placements[0].style for scene in drawn.real]
    named = np.array(
        [scenes.STYLE_WORDS[style] in scene.caption.split() for scene, style in zip(drawn.real, styles, strict=True)]
    )
    style = [answer[named] for answer in both(oracle.style, styles)]
    captions = [scene.caption for scene in drawn.real]
    alignment = oracle.text_alignment(drawn.scores, captions)
    value, low, high = (round(number, 4) for number in bootstrap(alignment))
    return [
        row("model.concept_top1", *both(oracle.concept, drawn.concepts), ">= 0.80", f"among {len(KNOWN)} known names"),
        row(
            "model.concept_top1_unrestricted",
            *both(lambda scores: oracle.concept(scores, oracle.config.concepts), drawn.concepts),
            note=f"among all {len(oracle.config.concepts)} names the oracle knows",
        ),
        row(
            "model.background",
            *both(lambda scores: [b.colour for b in oracle.background(scores)], colours),
            ">= 0.90",
            "colour; of a gradient the one at the top",
        ),
        row("model.background_kind", *both(lambda scores: [b.kind for b in oracle.background(scores)], kinds)),
        row("model.style", style[0], style[1], note="prompts that name the style"),
        Row(
            "model.text_alignment",
            value,
            low,
            high,
            baseline=round(float(oracle.text_alignment(drawn.truth, captions).mean()), 4),
            control=round(float(oracle.text_alignment(drawn.scores, captions[1:] + captions[:1]).mean()), 4),
            n=len(captions),
            note="baseline: real scenes; control: captions of other prompts",
        ),
    ]


def pair_rows(oracle: Oracle, drawn: Drawn) -> list[Row]:
    """Presence and relation in pictures of two objects."""

    def judge(scores: Scores) -> tuple[np.ndarray, np.ndarray]:
        facts = oracle.caption_facts(scores, [scene.caption for scene in drawn.real])
        present = [min(f[i.concept] for i in s.placements) > 0.5 for f, s in zip(facts, drawn.real, strict=True)]
        related = [f[s.relations[0][1]] > 0.5 for f, s in zip(facts, drawn.real, strict=True) if s.relations]
        return np.array(present), np.array(related)

    (present, related), (real_present, real_related) = judge(drawn.scores), judge(drawn.truth)
    return [
        row("model.two_present", present, real_present, ">= 0.60", "both named objects present"),
        row("model.relation", related, real_related, note="both present and the relation as the prompt says"),
    ]


def tint_rows(oracle: Oracle, drawn: Drawn) -> list[Row]:
    """Colour of an object the prompt colours."""
    tinted = [index for index, scene in enumerate(drawn.real) if scene.placements[0].tint]
    answers = []
    for scores in (drawn.scores, drawn.truth):
        facts = oracle.caption_facts(scores, [scene.caption for scene in drawn.real])
        names = [f"{drawn.real[i].placements[0].tint} {drawn.concepts[i]}" for i in tinted]
        answers.append(np.array([facts[i][name] > 0.5 for i, name in zip(tinted, names, strict=True)]))
    return [
        row(
            "model.colour",
            answers[0],
            answers[1],
            note="a coloured object such as 'a red bear'; 4 % of the training captions have one",
        )
    ]


def write_sheet(drawn: Drawn, path: Path) -> None:
    """A square sheet of the first pictures, row by row, and a text file with their captions."""
    side = min(16, int(len(drawn.images) ** 0.5))
    tiles = drawn.images[: side * side]
    size = tiles.shape[1]
    sheet = tiles.reshape(side, side, size, size, 3).swapaxes(1, 2).reshape(side * size, side * size, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
    captions = [f"{i // side + 1},{i % side + 1} {scene.caption}" for i, scene in enumerate(drawn.real[: side * side])]
    write_atomically(path.with_suffix(".txt"), ("\n".join(captions) + "\n").encode())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few pictures, few steps; prints only")
    parser.add_argument(
        "--model", default=Settings.model, help="a bundled name or a local folder; another than the default prints only"
    )
    parser.add_argument(
        "--sheet", type=Path, default=None, help=f"where the sheet goes; default {SHEET.relative_to(ROOT)}"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = Settings(options.model, 100, 48, 24, 20) if options.quick else Settings(options.model)
    started = time.monotonic()
    model, oracle = TextToImage.load(settings.model), Oracle.load()
    single = draw(model, oracle, settings, "single", settings.single, objects=ONE)
    sheet = options.sheet or (ROOT / "out" / "bundled-model-quick.png" if options.quick else SHEET)
    write_sheet(single, sheet)
    rows = single_rows(oracle, single)
    rows += pair_rows(oracle, draw(model, oracle, settings, "pairs", settings.pairs, objects=TWO))
    rows += tint_rows(oracle, draw(model, oracle, settings, "tinted", settings.tinted, objects=ONE, tinted=1.0))
    for item in rows:
        print(
            f"{item.claim:32} {item.value:.4f}  [{item.low}, {item.high}]  real {item.baseline}  n={item.n} {item.note}"
        )
    if not options.quick and options.model == Settings.model:
        elapsed = time.monotonic() - started
        write_result(
            "bundled-model", rows, command="python -m benchmarks.models.bundled_model", seeds=[SEED], elapsed_s=elapsed
        )


if __name__ == "__main__":
    main()
