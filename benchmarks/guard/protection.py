"""Does a protected picture mislead whoever draws from it, at what cost, and what undoes it?

    python -m benchmarks protection             # writes benchmarks/results/protection.json

Pictures of one known object each are protected in a ball of 16 levels in 20 steps of 2 levels; then everything is drawn from them
image-to-image (strength 0.3, their own captions, guidance 4, 16 steps). The effect is the drop of the oracle's similarity
between what is drawn and the true picture, against drawing from the unprotected one with the same seed. The control is a random
change of the same size. Settings were chosen on scenes of another seed (551), before the scenes of seed 7301 were drawn.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from jaxtyping import Float, UInt8
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch.profiler import ProfilerActivity, profile

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, row
from benchmarks.harness.ledger import ROOT
from benchmarks.harness.subjects import JudgedModel
from benchmarks.harness.timing import median_ratio, side_by_side
from photopic.core.config import Config
from photopic.data import splits
from photopic.data.pixels import from_pixels
from photopic.data.scenes import Scene, SceneOptions, sample_scene
from photopic.guard.protect._common import random_change, seeded, signal_to_noise
from photopic.guard.protect.score_distillation import (
    Objective,
    ProtectConfig,
    noise_error_slope,
    protected,
    vulnerability,
)
from photopic.metrics.intervals import bootstrap, paired_bootstrap, ratio_bootstrap
from photopic.models.text_to_image.autoencoder import latents_of

SEED, DRAWN, NOISE = 7301, 8_400_000, 77  # of the scenes, of what is drawn, of the control
SETTINGS = ProtectConfig()
STRENGTH, SIZE = 0.3, 16
WAYS = ("clean", "random", "blur", "sds-", "semantic-")
OTHER_ENCODER = ROOT / "recipes" / "emoji-diffusion-128" / "checkpoint" / "vae"
FOUND = "drop of the oracle's similarity to the true picture of what is drawn from the picture"
CLAIMS = (
    Claim("sds.effect", "low > 0", f"{FOUND}, sds-; baseline: its full gradient; control: random change of that size"),
    Claim("sds.effect_over_random", "low > 0", "the same minus that of the random change"),
    Claim("sds.effect_over_blur", "low > 0", "the same minus that of a blurred picture, clipped to the same ball"),
    Claim("sds.effect_ratio", ">= 0.95", "effect of sds- over that of semantic-, the same objective with its full gradient"),
    Claim("sds.effect_over_advdm", "low > 0", "effect of sds- minus that of semantic+ (AdvDM), which is the baseline"),
    Claim("sds.time_ratio", "<= 0.6", "processor time of a step over that with the full gradient, 4 timesteps a step"),
    Claim("sds.time_ratio_one_draw", "", "the same with 1 timestep a step, as published"),
    Claim("sds.memory_ratio", "<= 0.6", "peak of what a step allocates over that with the full gradient"),
    Claim("sds.encoder_over_denoiser", "> 1", "amplification of the change by the encoder over that by the denoiser"),
    Claim("sds.nearer_than_ascent", "low > 0", "PSNR in dB of sds- minus that of sds+"),
    Claim("sds.effect_of_*", "", f"{FOUND}, other objectives; control: random change"),
    Claim("sds.effect_after_*", "", f"{FOUND}, sds-, after the picture was changed again; control: random change"),
    Claim("sds.other_encoder_shift", "", "latent shift over that of a random change in another autoencoder; baseline: own"),
)  # fmt: skip


@dataclass(frozen=True)
class ProtectionConfig(Config):
    """How much is measured."""

    batches: Annotated[int, Ge(1)] = 16  # of 16 pictures
    others: Annotated[int, Ge(1)] = 4  # of them with the other objectives
    again: Annotated[int, Ge(1)] = 8  # of them changed again after protection
    rounds: Annotated[int, Ge(2)] = 9  # of timing
    model: str = "emoji-diffusion"  # a bundled name or a folder


@dataclass(frozen=True)
class Part:
    """A batch protected with one objective: ``clean`` is unchanged, ``random`` and ``blur`` aim at nothing."""

    number: int
    objective: str


def scenes_of(number: int) -> list[Scene]:
    """Single known objects, in the styles that the model draws."""
    options = SceneOptions(tuple(sorted(splits.KNOWN)), ("noto", "twemoji"), objects=(1.0, 0.0, 0.0, 0.0))
    return [sample_scene(options, (SEED, index)) for index in range(number * SIZE, (number + 1) * SIZE)]


def changed(judge: JudgedModel, part: Part, images: UInt8[np.ndarray, "n h w 3"]) -> UInt8[np.ndarray, "n h w 3"]:
    """The pictures of a batch as they are published."""
    numbers = list(range(part.number * SIZE, (part.number + 1) * SIZE))
    if part.objective == "clean":
        return images
    if part.objective == "blur":
        blurred = gaussian_filter(images.astype(float), (0, 1.5, 1.5, 0))
        return (images + (blurred - images).clip(-SETTINGS.epsilon, SETTINGS.epsilon)).round().astype(np.uint8)
    if part.objective == "random":
        return random_change(images, SETTINGS.epsilon, seeded(NOISE, numbers))
    objective: Objective = part.objective  # type: ignore[assignment]  # the cases name no other
    return last_of(protected(judge.model, images, numbers, replace(SETTINGS, objective=objective)))


def last_of(steps: Any) -> Any:
    """What a generator of events returns."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def similarity(judge: JudgedModel, published: UInt8[np.ndarray, "n h w 3"], number: int) -> Float[np.ndarray, "n"]:
    """Cosines of the oracle between what is drawn from published pictures and the true ones."""
    scenes = scenes_of(number)
    seeds = [DRAWN + number * SIZE + index for index in range(SIZE)]
    prompts = [scene.caption for scene in scenes]
    drawn = judge.drawn(prompts, seeds, image=list(published), strength=STRENGTH, batch=SIZE)
    truth = judge.oracle.score(np.stack([scene.image for scene in scenes])).embedding
    return (judge.oracle.score(drawn).embedding * truth).sum(1).numpy()


def again() -> dict[str, Callable[[Image.Image], Image.Image]]:
    """What a picture meets on its way: compression, and resizing there and back."""

    def jpeg(quality: int, image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer).convert("RGB")

    def resized(share: float, image: Image.Image) -> Image.Image:
        small = image.resize((int(image.width * share),) * 2, Image.Resampling.BICUBIC)
        return small.resize(image.size, Image.Resampling.BICUBIC)

    return {
        "jpeg_90": lambda image: jpeg(90, image),
        "jpeg_50": lambda image: jpeg(50, image),
        "resizing_75": lambda image: resized(0.75, image),
        "resizing_50": lambda image: resized(0.5, image),
    }


def measure(bench: Bench[ProtectionConfig, JudgedModel], part: Part) -> dict[str, Any]:
    """Similarities, distances and amplifications of one batch, and for the main objectives those after further changes."""
    judge, numbers = bench.subject, list(range(part.number * SIZE, (part.number + 1) * SIZE))
    images = np.stack([scene.image for scene in scenes_of(part.number)])
    published = changed(judge, part, images)
    found: dict[str, Any] = {"similarity": similarity(judge, published, part.number).tolist()}
    if part.objective == "clean":
        return found
    found |= {"psnr": [signal_to_noise(*pair) for pair in zip(images, published, strict=True)]}
    found |= vulnerability(judge.model, images, published, numbers, SETTINGS)
    if part.objective in ("sds-", "random") and part.number < bench.config.again:
        found["other_encoder"] = other_encoder_shift(judge, images, published)
        found["own_encoder"] = found["encoder_amplification"]
        for name, change in again().items():
            moved = np.stack([np.asarray(change(Image.fromarray(each))) for each in published])
            found[name] = similarity(judge, moved, part.number).tolist()
    return found


@torch.no_grad()
def other_encoder_shift(judge: JudgedModel, images: np.ndarray, published: np.ndarray) -> float:
    """Latent shift over pixel shift in the autoencoder of another model, which reads pictures of 128 pixels."""
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(OTHER_ENCODER, torch_dtype=torch.float32)
    latents, pixels = [], []
    for each in (images, published):
        pixels.append(torch.nn.functional.interpolate(from_pixels(each), (128, 128), mode="bicubic", antialias=True))
        latents.append(vae.encode(pixels[-1]).latent_dist.mean)
    return float((latents[1] - latents[0]).square().mean().sqrt() / (pixels[1] - pixels[0]).square().mean().sqrt())


def cases(config: ProtectionConfig) -> list[Part]:
    """Everything that is protected."""
    main = [Part(number, name) for number in range(config.batches) for name in WAYS]
    return main + [Part(number, name) for number in range(config.others) for name in ("sds+", "semantic+", "textural")]


class Effects:
    """What the workers kept, by objective."""

    def __init__(self, bench: Bench[ProtectionConfig, JudgedModel]):
        self.bench = bench

    def of(self, name: str, count: int, key: str = "similarity") -> np.ndarray:
        """One number a picture."""
        return np.concatenate([self.bench.found(Part(number, name))[key] for number in range(count)])

    def numbers(self, name: str, count: int, key: str) -> np.ndarray:
        """One number a batch."""
        return np.array([self.bench.found(Part(number, name))[key] for number in range(count)])

    def drop(self, name: str, count: int, key: str = "similarity") -> np.ndarray:
        """The effect on each picture."""
        return self.of("clean", count) - self.of(name, count, key)


def rows(bench: Bench[ProtectionConfig, JudgedModel]) -> Iterator[Row]:
    """All claims, from what the workers kept and the clock."""
    config, effects = bench.config, Effects(bench)
    count, others, later = config.batches, config.others, config.again
    ours, full, chance = (effects.drop(name, count) for name in ("sds-", "semantic-", "random"))
    beside = {"baseline": full.mean(), "control": chance.mean(), "n": len(ours)}
    yield row("sds.effect", bootstrap(ours), **beside)
    yield row("sds.effect_over_random", paired_bootstrap(ours, chance), n=len(ours))
    blurred = effects.drop("blur", count)
    yield row("sds.effect_over_blur", paired_bootstrap(ours, blurred), n=len(ours), control=blurred.mean())
    yield row("sds.effect_ratio", ratio_bootstrap(ours, full), n=len(ours))
    few, advdm = effects.drop("sds-", others), effects.drop("semantic+", others)
    yield row("sds.effect_over_advdm", paired_bootstrap(few, advdm), n=len(few), baseline=advdm.mean())
    costs = bench.value({"costs": config.rounds}, lambda: costs_of(bench.subject, config.rounds))
    for draws, name in ((4, "sds.time_ratio"), (1, "sds.time_ratio_one_draw")):
        fast, slow = costs[f"seconds_{draws}"]
        yield row(name, median_ratio(fast, slow), n=len(fast), note=f"{np.median(fast) / SIZE * 1e3:.1f} ms a picture")
    low, high = costs["bytes"]
    yield row("sds.memory_ratio", low / high, note=f"{low / 1e6:.0f} and {high / 1e6:.0f} MB, batch of {SIZE}")
    encoder, denoiser = (effects.numbers("sds-", count, f"{part}_amplification") for part in ("encoder", "denoiser"))
    note = f"encoder {encoder.mean():.2f}, denoiser {denoiser.mean():.2f}"
    of_random = effects.numbers("random", count, "encoder_amplification").mean()
    yield row(
        "sds.encoder_over_denoiser",
        ratio_bootstrap(encoder, denoiser),
        n=count,
        note=note,
        control=of_random / effects.numbers("random", count, "denoiser_amplification").mean(),
    )
    nearer = paired_bootstrap(effects.of("sds-", others, "psnr"), effects.of("sds+", others, "psnr"))
    yield row("sds.nearer_than_ascent", nearer, n=others * SIZE)
    for name in ("sds+", "semantic+", "textural"):
        claim = f"sds.effect_of_{name.replace('+', '_ascent')}"
        yield row(
            claim, bootstrap(effects.drop(name, others)), n=others * SIZE, control=effects.drop("random", others).mean()
        )
    for name in again():
        drop, control = effects.drop("sds-", later, name), effects.drop("random", later, name).mean()
        yield row(
            f"sds.effect_after_{name}",
            bootstrap(drop),
            n=later * SIZE,
            baseline=ours[: later * SIZE].mean(),
            control=control,
        )
    other = effects.numbers("sds-", later, "other_encoder"), effects.numbers("random", later, "other_encoder")
    own = effects.numbers("sds-", later, "own_encoder").mean() / effects.numbers("random", later, "own_encoder").mean()
    yield row("sds.other_encoder_shift", ratio_bootstrap(*other), n=later, baseline=own)


def costs_of(judge: JudgedModel, rounds: int) -> dict[str, Any]:
    """Processor seconds of a step on a batch without and with the Jacobian, and the peaks of what it allocates."""
    model = judge.model
    images = from_pixels(np.stack([scene.image for scene in scenes_of(0)]))
    conditioning = model.encode_prompts([""] * SIZE)

    def step(draws: int, jacobian: bool) -> None:
        leaf = images.clone().requires_grad_()
        latents = latents_of(model.pipeline, leaf)
        still = latents.detach()
        noise, timesteps = torch.randn_like(still), torch.randint(200, 800, (SIZE,))
        slope = torch.zeros_like(still)
        for _ in range(draws):
            slope += noise_error_slope(model, still, noise, timesteps, conditioning, jacobian=jacobian)
        torch.autograd.grad(latents, leaf, slope)

    from time import process_time

    def both(draws: int) -> list[list[float]]:
        calls = [lambda: step(draws, False), lambda: step(draws, True)]
        return side_by_side(calls, rounds, warm_up=1, clock=process_time)

    found: dict[str, Any] = {f"seconds_{draws}": both(draws) for draws in (1, 4)}
    return found | {"bytes": [peak_of(lambda: step(1, False)), peak_of(lambda: step(1, True))]}


def peak_of(call: Callable[[], object]) -> int:
    """The most bytes that torch holds at once for a call, of those it asks for in it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        call()
    assert watched.profiler is not None and watched.profiler.kineto_results is not None
    events = [each for each in watched.profiler.kineto_results.events() if each.name() == "[memory]"]
    return int(np.cumsum([each.nbytes() for each in sorted(events, key=lambda each: each.start_ns())]).max())


BENCHMARKS = (
    Benchmark(
        "protection", __doc__, ProtectionConfig(), ProtectionConfig(1, 1, 1, 2), CLAIMS, rows, cases, measure,
        open=lambda config, cache: JudgedModel(config.model, cache), seeds=(SEED, DRAWN, NOISE),
    ),
)  # fmt: skip
