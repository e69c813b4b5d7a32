"""What emoji-diffusion draws, as the oracle sees it: fresh captions, one seed each, no picking.

    python -m benchmarks bundled-model            # 1,280 pictures; writes benchmarks/results/bundled-model.json and the sheet
    python -m benchmarks bundled-model --model recipes/emoji-diffusion-128/checkpoint       # another one, any size of 64 or 128

The baseline of every row is the oracle on the real scene of the same caption: what a perfect model would score. The judge is the
one of the model's size; at 128 px things have 24 to 96 pixels, as the second edition learns them. Captions that the text encoder
would cut are not asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge
from jaxtyping import Bool, UInt8
from PIL import Image

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row, share
from benchmarks.harness.ledger import ROOT
from benchmarks.harness.subjects import JudgedModel
from photopic.core.config import Config
from photopic.core.runs import write_atomically
from photopic.data import scenes, splits
from photopic.metrics.intervals import bootstrap
from photopic.metrics.oracle import Scores

KNOWN = tuple(sorted(splits.KNOWN))
SEED = 8_000_001
SHEET = ROOT / "docs" / "images" / "emoji-diffusion-samples.png"
DRAWN = ("noto", "twemoji")  # the styles the model learnt
BACKGROUNDS = (0.7, 0.15, 0.15)  # as it was trained
ONE, TWO = (1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0)
SIDES = {64: None, 128: (24 / 128, 96 / 128)}  # of things, as shares of the picture; None: the usual layouts
KINDS: dict[str, dict[str, Any]] = {
    "single": {"objects": ONE},
    "pairs": {"objects": TWO},
    "tinted": {"objects": ONE, "tinted": 1.0},
    "threes": {"objects": (0.0, 0.0, 1.0, 0.0)},
    "fours": {"objects": (0.0, 0.0, 0.0, 1.0)},
}
CHUNK = 32  # pictures drawn together
CLAIMS = (
    Claim("model.concept_top1", ">= 0.80", f"among {len(KNOWN)} known names"),
    Claim("model.concept_top1_unrestricted", "", "among all names the oracle knows"),
    Claim("model.background", ">= 0.90", "colour; of a gradient the one at the top"),
    Claim("model.background_kind"),
    Claim("model.style", "", "prompts that name the style"),
    Claim("model.text_alignment", "", "baseline: real scenes; control: captions of other prompts"),
    Claim("model.two_present", ">= 0.60", "both named objects present"),
    Claim("model.three_present", "", "all three present; the model of 64 pixels was never shown three"),
    Claim("model.four_present", "", "all four"),
    Claim("model.relation", "", "both present and the relation as the prompt says"),
    Claim("model.colour", "", "a coloured object such as 'a red bear'; 4 % of the training captions have one"),
)


@dataclass(frozen=True)
class BundledModelConfig(Config):
    """How many pictures of each kind, and how they are drawn."""

    single: Annotated[int, Ge(1)] = 512  # pictures of one object
    pairs: Annotated[int, Ge(1)] = 256  # pictures of two
    tinted: Annotated[int, Ge(1)] = 128  # pictures of one that the prompt colours
    threes: Annotated[int, Ge(1)] = 192  # pictures of three
    fours: Annotated[int, Ge(1)] = 192  # pictures of four
    steps: Annotated[int, Ge(1)] = 30  # of denoising
    guidance: float = 5.0  # classifier-free guidance
    model: str = "emoji-diffusion"  # a bundled name or a folder


@dataclass(frozen=True)
class Chunk:
    """Pictures drawn together."""

    kind: str
    first: int
    count: int


def chunks(config: BundledModelConfig, kinds: Sequence[str] = tuple(KINDS)) -> list[Chunk]:
    """All pictures of some kinds."""
    counts = {kind: getattr(config, kind) for kind in kinds}
    return [
        Chunk(kind, first, min(CHUNK, count - first))
        for kind, count in counts.items()
        for first in range(0, count, CHUNK)
    ]


def real_scenes(judge: JudgedModel, chunk: Chunk) -> list[scenes.Scene]:
    """The scenes whose captions are drawn; another is drawn in place of one whose caption is too long."""
    side, tokenizer = judge.model.image_size, judge.model.pipeline.tokenizer
    choice = scenes.SceneOptions(
        KNOWN, DRAWN, size=side, backgrounds=BACKGROUNDS, sides=SIDES[side], **KINDS[chunk.kind]
    )
    salt = list(KINDS).index(chunk.kind)

    def scene(index: int) -> scenes.Scene:
        tries = (scenes.sample_scene(choice, (SEED, salt, index, *again)) for again in ((), *((k,) for k in range(9))))
        return next(each for each in tries if len(tokenizer(each.caption).input_ids) <= tokenizer.model_max_length)

    return [scene(chunk.first + index) for index in range(chunk.count)]


def pictures(bench: Bench[Any, JudgedModel], chunk: Chunk) -> UInt8[np.ndarray, "n side side 3"]:
    """What the model draws for the captions of a chunk; kept."""
    first = SEED + 100_000 * list(KINDS).index(chunk.kind) + chunk.first
    judge = bench.subject
    said = [scene.caption for scene in real_scenes(judge, chunk)]
    key = {"drawn": chunk, "steps": judge.steps, "guidance": judge.guidance}
    return bench.array(key, lambda: judge.drawn(said, range(first, first + chunk.count), batch=CHUNK))


def measure(bench: Bench[Any, JudgedModel], chunk: Chunk) -> int:
    """Draw a chunk."""
    return len(pictures(bench, chunk))


class Drawn:
    """Captions of one kind with the real scene of each, and what the model drew for it.

    Attributes:
        real: The scenes.
        images: (n, side, side, 3).
        scores: The oracle's, of the images and of the real scenes.
    """

    def __init__(self, bench: Bench[BundledModelConfig, JudgedModel], kind: str):
        parts = chunks(bench.config, [kind])
        self.real = [scene for each in parts for scene in real_scenes(bench.subject, each)]
        self.images = np.concatenate([pictures(bench, each) for each in parts])
        oracle = bench.subject.oracle
        self.scores: tuple[Scores, Scores] = (
            oracle.score(self.images),
            oracle.score(np.stack([s.image for s in self.real])),
        )

    @property
    def concepts(self) -> list[str]:
        """Name of the first object of each scene."""
        return [scene.placements[0].concept for scene in self.real]

    @property
    def captions(self) -> list[str]:
        """What was asked for."""
        return [scene.caption for scene in self.real]


Pair = tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]  # of the images, of the real scenes


def single_rows(bench: Bench[Any, JudgedModel], drawn: Drawn) -> Iterator[Row]:
    """Concept, background and style of pictures of one object."""
    oracle = bench.subject.oracle

    def both(question: Any, true: Sequence[object]) -> Pair:
        one, other = (np.array([a == b for a, b in zip(question(each), true, strict=True)]) for each in drawn.scores)
        return one, other

    def compared(claim: str, pair: Pair) -> Row:
        return share(f"model.{claim}", pair[0], ceiling=pair[1])

    styles = [scene.placements[0].style for scene in drawn.real]
    colours, kinds = ([getattr(scene.background, field) for scene in drawn.real] for field in ("colour", "kind"))
    yield compared("concept_top1", both(oracle.concept, drawn.concepts))
    among_all = both(lambda scores: oracle.concept(scores, oracle.config.concepts), drawn.concepts)
    yield compared("concept_top1_unrestricted", among_all)
    yield compared("background", both(lambda scores: [b.colour for b in oracle.background(scores)], colours))
    yield compared("background_kind", both(lambda scores: [b.kind for b in oracle.background(scores)], kinds))
    pairs = zip(drawn.captions, styles, strict=True)
    named = np.array([scenes.STYLE_WORDS[style] in caption.split() for caption, style in pairs])
    one, other = both(oracle.style, styles)
    yield compared("style", (one[named], other[named]))
    shuffled = drawn.captions[1:] + drawn.captions[:1]
    alignment, ceiling = (oracle.text_alignment(each, drawn.captions) for each in drawn.scores)
    control = oracle.text_alignment(drawn.scores[0], shuffled).mean()
    yield row("model.text_alignment", bootstrap(alignment), baseline=ceiling.mean(), control=control, n=len(alignment))


def pair_rows(bench: Bench[Any, JudgedModel], drawn: Drawn) -> Iterator[Row]:
    """Presence and relation in pictures of two objects."""
    present, related = [], []
    for scores in drawn.scores:
        facts = list(zip(bench.subject.oracle.caption_facts(scores, drawn.captions), drawn.real, strict=True))
        present.append(np.array([min(f[item.concept] for item in s.placements) > 0.5 for f, s in facts]))
        related.append(np.array([f[s.relations[0][1]] > 0.5 for f, s in facts if s.relations]))
    yield share("model.two_present", present[0], ceiling=present[1])
    yield share("model.relation", related[0], ceiling=related[1])


def several_row(bench: Bench[Any, JudgedModel], claim: str, drawn: Drawn) -> Row:
    """Presence of all things of pictures of three or four."""
    found = []
    for scores in drawn.scores:
        facts = zip(bench.subject.oracle.caption_facts(scores, drawn.captions), drawn.real, strict=True)
        found.append(
            np.array([min(stated[item.concept] for item in scene.placements) > 0.5 for stated, scene in facts])
        )
    return share(claim, found[0], ceiling=found[1])


def tint_row(bench: Bench[Any, JudgedModel], drawn: Drawn) -> Row:
    """Colour of an object the prompt colours."""
    answers = []
    for scores in drawn.scores:
        facts = zip(bench.subject.oracle.caption_facts(scores, drawn.captions), drawn.real, strict=True)
        first = [(found, scene.placements[0]) for found, scene in facts]
        answers.append(np.array([found[f"{item.tint} {item.concept}"] > 0.5 for found, item in first if item.tint]))
    return share("model.colour", answers[0], ceiling=answers[1])


def rows(bench: Bench[BundledModelConfig, JudgedModel]) -> Iterator[Row]:
    """All claims."""
    yield from single_rows(bench, Drawn(bench, "single"))
    yield from pair_rows(bench, Drawn(bench, "pairs"))
    yield tint_row(bench, Drawn(bench, "tinted"))
    yield several_row(bench, "model.three_present", Drawn(bench, "threes"))
    yield several_row(bench, "model.four_present", Drawn(bench, "fours"))


def write_sheet(bench: Bench[BundledModelConfig, JudgedModel], _: Sequence[Row]) -> None:
    """A square sheet of the first pictures, row by row, and a text file with their captions."""
    drawn = Drawn(bench, "single")
    side = min(16, int(len(drawn.images) ** 0.5))
    tiles = drawn.images[: side * side]
    size = tiles.shape[1]
    sheet = tiles.reshape(side, side, size, size, 3).swapaxes(1, 2).reshape(side * size, side * size, 3)
    SHEET.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).quantize(128, dither=Image.Dither.NONE).save(SHEET, optimize=True)
    captions = [f"{i // side + 1},{i % side + 1} {said}" for i, said in enumerate(drawn.captions[: side * side])]
    write_atomically(SHEET.with_suffix(".txt"), ("\n".join(captions) + "\n").encode())


def opened(config: BundledModelConfig, cache: Any) -> JudgedModel:
    """The model with the steps and the guidance of the config."""
    return JudgedModel(config.model, cache, steps=config.steps, guidance=config.guidance)


BENCHMARKS = (
    Benchmark(
        "bundled-model", __doc__, BundledModelConfig(), BundledModelConfig(100, 48, 24, 24, 24, 20), CLAIMS, rows, chunks, measure,
        opened, seeds=(SEED,), finish=write_sheet,
    ),
)  # fmt: skip
