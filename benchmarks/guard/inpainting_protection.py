"""Does a protected picture spoil what an inpainting model draws around it, with masks that nobody had when it was protected?

    python -m benchmarks inpainting-protection             # writes benchmarks/results/inpainting-protection.json

A known object is kept and everything around it drawn anew by a prompt that names it, another object, where they are, and another
background. Protected with the object dilated by 2 pixels as the mask; edited with that mask (seen) and with two others: the object
eroded by 2 pixels, and the ellipse of its box. Judge: the oracle's text alignment of the whole edit, and of the bundled ViT dual
encoder the cosine to the prompt. Baselines at the same ball, steps and step size: the encoder attack (latents to those of grey,
PhotoGuard) and AdvDM (one timestep a step, on emoji-diffusion). Control: a random change of that size. Edits: 10 steps, guidance 4.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from jaxtyping import Bool, UInt8
from scipy.ndimage import binary_dilation, binary_erosion

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from photopic.core.config import Config
from photopic.core.sampling import Sampling, sample, standard_noise
from photopic.data import scenes, splits
from photopic.data.pixels import to_pixels
from photopic.guard.protect._common import random_change, seeded
from photopic.guard.protect.noisiest_step import InpaintingProtectionConfig, protected_region
from photopic.guard.protect.score_distillation import ProtectConfig, protected
from photopic.metrics.intervals import bootstrap, paired_bootstrap
from photopic.metrics.oracle import Oracle
from photopic.models.dual_encoder import DualEncoder
from photopic.models.text_to_image.handle import TextToImage
from photopic.models.text_to_image.inpainter import Inpainter, InpaintingDrawer
from photopic.models.text_to_image.unet_drawing import encode

SEED, DRAWN, NOISE, SIZE = 8201, 9_400_000, 78, 16
SETTINGS = InpaintingProtectionConfig()
WAYS = ("clean", "random", "encoder", "advdm", "one-mask", "masks")
UNSEEN = ("eroded", "ellipse")
COLOURS = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink", "brown", "gray")
CLAIMS = (
    Claim(
        "diffusionguard.unseen_mask_gain", "low > 0",
        "text alignment of edits with unseen masks under the better of encoder attack and AdvDM, minus under DiffusionGuard",
    ),
    Claim("diffusionguard.augmentation_gain", "low > 0", "the same without random contours minus with, unseen masks"),
    Claim("diffusionguard.effect_*", "", "text alignment of edits of unprotected pictures minus protected; control: random"),
    Claim("diffusionguard.clip_gain", "", "cosine of prompt and edit, better of the two baselines minus DiffusionGuard"),
    Claim("diffusionguard.norm", "", "norm of the first output, protected over unprotected, unseen masks; control: random"),
)  # fmt: skip


@dataclass(frozen=True)
class InpaintingConfig(Config):
    """How much is measured."""

    batches: Annotated[int, Ge(1)] = 16  # of 16 pictures, each edited with one seen and two unseen masks
    first: Annotated[int, Ge(0)] = 0  # batch to begin with


@dataclass(frozen=True)
class Part:
    """A batch changed in one way."""

    number: int
    way: str


class Subject:
    """The models and judges."""

    def __init__(self) -> None:
        self.inpainter, self.plain = (
            Inpainter.load("emoji-inpainting", "cpu"),
            TextToImage.load("emoji-diffusion", "cpu"),
        )
        self.oracle, self.encoder = Oracle.load(), DualEncoder.load("emoji-clip-vit", "cpu")
        self.digest = self.inpainter.digest()


@dataclass(frozen=True)
class Task:
    """A picture, what an editor wants of it, and masks of what is kept."""

    image: UInt8[np.ndarray, "64 64 3"]
    prompt: str
    kept: dict[str, Bool[np.ndarray, "64 64"]]


def task(index: int) -> Task:
    """One object at the left or the right."""
    rng, names = np.random.default_rng((SEED, index)), sorted(splits.KNOWN)
    first, second = (str(name) for name in rng.choice(names, 2, replace=False))
    before, after = (str(name) for name in rng.choice(COLOURS, 2, replace=False))
    is_left = bool(rng.random() < 0.5)
    place = scenes.Placement(first, "noto", (0.28 if is_left else 0.72, 0.5), 0.42)
    scene = scenes.compose([place], scenes.Background(before))
    mask, (left, top, right, bottom) = scene.masks[0], scene.boxes[0]
    rows, columns = np.indices(mask.shape) + 0.5
    across, down = (right - left) / 2, (bottom - top) / 2
    ellipse = ((columns - left - across) / across) ** 2 + ((rows - top - down) / down) ** 2 <= 1
    relation = "left of" if is_left else "right of"
    told = f"{scenes.with_article(first)} {relation} {scenes.with_article(second)}"
    kept = {
        "seen": binary_dilation(mask, iterations=2),
        "eroded": binary_erosion(mask, iterations=2),
        "ellipse": ellipse,
    }
    return Task(scene.image, f"{told} on {scenes.with_article(after + ' background')}", kept)


def last_of(steps: Any) -> Any:
    """What a generator of events returns."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def changed(subject: Subject, part: Part, tasks: list[Task]) -> UInt8[np.ndarray, "n 64 64 3"]:
    """The pictures as they are published: nothing outside the seen mask is changed."""
    images, kept = np.stack([each.image for each in tasks]), np.stack([each.kept["seen"] for each in tasks])
    numbers = list(range(part.number * SIZE, part.number * SIZE + len(tasks)))
    ball: dict[str, Any] = {
        "epsilon": SETTINGS.epsilon,
        "steps": SETTINGS.steps,
        "step_size": SETTINGS.step_size,
        "draws": 1,
    }
    where = torch.from_numpy(kept)[:, None].float()
    if part.way == "random":
        return np.where(kept[..., None], random_change(images, SETTINGS.epsilon, seeded(NOISE, numbers)), images)
    if part.way == "encoder":
        textural, grey = ProtectConfig(objective="textural", **ball), np.full((64, 64, 3), 128, np.uint8)
        return last_of(protected(subject.plain, images, numbers, textural, grey, where))
    if part.way == "advdm":
        ascent = ProtectConfig(objective="semantic+", lowest=0.0, highest=1.0, **ball)
        return last_of(protected(subject.plain, images, numbers, ascent, where=where))
    if part.way == "clean":
        return images
    config = SETTINGS if part.way == "masks" else replace(SETTINGS, shrink=0.0)
    return last_of(protected_region(subject.inpainter, images, kept, numbers, config))


@torch.no_grad()
def edited(
    model: Inpainter, images: np.ndarray, kept: np.ndarray, prompts: list[str], seeds: list[int]
) -> tuple[UInt8[np.ndarray, "n 64 64 3"], list[float]]:
    """What an editor gets, each picture with a mask of its own, and the norms of the network's first output."""
    told = InpaintingDrawer(model).told(images, ~kept)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    conditioning, unconditional = encode(model.pipeline, prompts, (64, 64), guided=True)
    noise = standard_noise(generators, torch.empty(len(images), 4, 16, 16))
    given = torch.cat([noise, told.told], 1)
    first = model.predict(given, torch.tensor(model.timesteps - 1), conditioning).flatten(1).norm(dim=1)
    run = Sampling(
        model.unet,
        model.pipeline.scheduler,
        conditioning,
        generators,
        unconditional,
        steps=10,
        scale=4.0,
        controls=(told,),
    )
    drawn = to_pixels(model.decode(sample(run, noise)))
    return np.where(kept[..., None], images, drawn), first.tolist()


def measure(bench: Bench[InpaintingConfig, Subject], part: Part) -> dict[str, Any]:
    """Alignment, cosine and norm of the edits of one batch, by mask."""
    subject, start = bench.subject, part.number * SIZE
    tasks = [task(index) for index in range(start, start + SIZE)]
    prompts, published = [each.prompt for each in tasks], changed(subject, part, tasks)
    texts, found = subject.encoder.text_features(prompts), {}
    for name in ("seen", *UNSEEN):
        kept = np.stack([each.kept[name] for each in tasks])
        pictures, norms = edited(subject.inpainter, published, kept, prompts, [DRAWN + start + k for k in range(SIZE)])
        scores = subject.oracle.text_alignment(subject.oracle.score(pictures), prompts)
        cosines = (subject.encoder.image_features(pictures) * texts).sum(1)
        found[name] = {"score": scores.tolist(), "cosine": cosines.tolist(), "norm": norms}
    return found


def cases(config: InpaintingConfig) -> list[Part]:
    """Every batch in every way."""
    return [Part(number, way) for number in range(config.first, config.first + config.batches) for way in WAYS]


def rows(bench: Bench[InpaintingConfig, Subject]) -> Iterator[Row]:
    """All claims, from what the workers kept; the edits of one picture are resampled together."""
    config = bench.config
    numbers = range(config.first, config.first + config.batches)

    def of(way: str, key: str, *masks: str) -> np.ndarray:
        return np.concatenate([bench.found(Part(number, way))[mask][key] for mask in masks for number in numbers])

    count = SIZE * config.batches
    groups = [*range(count)] * len(UNSEEN)
    scores = {way: of(way, "score", *UNSEEN) for way in WAYS}
    rival = min(("encoder", "advdm"), key=lambda way: scores[way].mean())
    gain = paired_bootstrap(scores[rival], scores["masks"], groups=groups)
    beside: dict[str, Any] = {"n": count, "note": f"better baseline: {rival}; {len(UNSEEN)} unseen masks a picture"}
    yield row(
        "diffusionguard.unseen_mask_gain",
        gain,
        baseline=scores[rival].mean(),
        control=scores["random"].mean(),
        **beside,
    )
    gain = paired_bootstrap(scores["one-mask"], scores["masks"], groups=groups)
    yield row("diffusionguard.augmentation_gain", gain, n=count, baseline=scores["one-mask"].mean())
    for way in WAYS[2:]:
        for name, masks in (("seen", ("seen",)), ("unseen", UNSEEN)):
            clean, own = of("clean", "score", *masks), of(way, "score", *masks)
            drop = paired_bootstrap(clean, own, groups=[*range(count)] * len(masks))
            control = (clean - of("random", "score", *masks)).mean()
            claim = f"diffusionguard.effect_{way.replace('-', '_')}_{name}"
            yield row(claim, drop, n=count, control=control, baseline=clean.mean())
    cosines = {way: of(way, "cosine", *UNSEEN) for way in WAYS}
    rival = min(("encoder", "advdm"), key=lambda way: cosines[way].mean())
    gain = paired_bootstrap(cosines[rival], cosines["masks"], groups=groups)
    yield row(
        "diffusionguard.clip_gain", gain, n=count, baseline=cosines[rival].mean(), control=cosines["random"].mean()
    )
    ratio = of("masks", "norm", *UNSEEN) / of("clean", "norm", *UNSEEN)
    control = (of("random", "norm", *UNSEEN) / of("clean", "norm", *UNSEEN)).mean()
    yield row("diffusionguard.norm", bootstrap(ratio, groups=groups), n=count, control=control)


BENCHMARKS = (
    Benchmark(
        "inpainting-protection", __doc__, InpaintingConfig(), InpaintingConfig(1, 1000), CLAIMS, rows, cases, measure,
        open=lambda config, cache: Subject(), seeds=(SEED, DRAWN, NOISE),
    ),
)  # fmt: skip
