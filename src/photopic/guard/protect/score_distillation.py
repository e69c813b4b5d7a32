"""Protection against imitation by diffusion models: a small change of a picture that misleads the encoder of whoever imitates it.

Whoever tunes a model on a protected picture or redraws it image-to-image works from latents that no longer show it. The gradient
of the denoising loss is taken without the Jacobian of the network, as score distillation does: half the network's work.

Paper: Toward effective protection against diffusion-based mimicry through score distillation (ICLR 2024, arXiv:2311.12832).
Its baselines are here too: textural (PhotoGuard and Mist) and semantic (AdvDM). Changed: several timesteps a step, so that the
shared pass through the encoder counts less; the ball is of whole levels, so that the saved PNG lies in it. Claims ``sds.*`` of
benchmarks/guard/protection.py; exact facts in tests/guard/protect/.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Le, Lt
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from photopic.core.config import Existing, Flags
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.results import Report
from photopic.core.sampling import standard_noise
from photopic.core.view import Note, Section, Table, View
from photopic.data.picture_file import read_picture
from photopic.guard.protect._common import (
    BallConfig,
    Levels,
    as_model_reads,
    ascended,
    batches_of_one_size,
    places_for,
    read_pictures,
    seeded,
    signal_to_noise,
    write_png,
)
from photopic.models.text_to_image.autoencoder import latents_of
from photopic.models.text_to_image.handle import TextToImage

Objective = Literal["sds-", "sds+", "semantic-", "semantic+", "textural"]


@dataclass(frozen=True, kw_only=True)
class ProtectConfig(BallConfig):
    """How to protect."""

    # sds- and semantic- make the picture easy to denoise, so that what is drawn from it is smooth and lost its detail; sds+ and
    # semantic+ make it hard. sds leaves the network's Jacobian out, semantic (AdvDM) does not, at twice the cost. textural draws
    # the latents to those of another picture
    objective: Objective = "sds-"
    draws: Annotated[int, Ge(1)] = 4  # timesteps and noises a step; textural has none
    lowest: Annotated[float, Ge(0), Lt(1)] = 0.2  # timesteps are drawn from this share of the schedule on
    highest: Annotated[float, Gt(0), Le(1)] = 0.8  # and up to this share
    prompt: str = ""  # what the model is told of the picture
    batch: Annotated[int, Ge(1)] = 16  # pictures worked on together


def protect_view(report: Report) -> View:
    """What was written, and how far it lies from the original."""
    table = Table(
        ("picture", "written", "largest change", "PSNR in dB"),
        [(row["picture"], row["written"], row["largest_change"], f"{row['psnr_db']:.1f}") for row in report.rows],
    )
    values = report.values
    note = Note(
        f"Encoder: {values['encoder_amplification']:.2f} times the change of the pixels; denoiser: "
        f"{values['denoiser_amplification']:.2f} times that of the latents. JPEG, resizing and other models weaken a protection: "
        "docs/methods/protect.md says how much."
    )
    return View("Protected", [Section("", [table, note])])


@method(
    paper="arXiv:2311.12832",
    claims="sds.",
    presets={"paper": ProtectConfig(steps=100, step_size=1.0, draws=1, lowest=0.0, highest=1.0)},
    command="guard protect",
    examples=("Example: photopic guard protect drawings/ -o protected/",),
    view=protect_view,
    page=False,
)
def protect(
    model: TextToImage,
    pictures: Annotated[str, Flags("PICTURES"), Existing()],
    *,
    output: Annotated[str, Flags("--output", "-o", "--out")],
    target: Annotated[str | None, Existing()] = None,
    overwrite: bool = False,
    config: ProtectConfig = ProtectConfig(),
) -> Steps[Report]:
    """Change your pictures a little, so that diffusion models imitate them badly.

    Args:
        model: A text-to-image model whose kind is feared: a bundled name, a folder of diffusers, or a hub id.
        pictures: A picture of your own, or a folder of pictures.
        output: The PNG to write; for a folder of pictures the folder to write PNGs of the same names into.
        target: For textural the picture to draw the latents to; a chequered one by default.
        overwrite: Replace pictures that are there.
        config: How to protect.

    Returns:
        One row a picture: where it was written, its largest change in levels of 255 and its distance in decibels. ``values``: how
        much the encoder and the denoiser amplify the change, root mean squares over root mean squares.

    Raises:
        DataError: If there is no picture, or something is there already.

    Example:
        >>> protect(model, "drawing.png", output="protected.png").rows[0]["largest_change"]  # doctest: +SKIP
        16
    """
    read = read_pictures(pictures)
    places = places_for(list(read), output, overwrite=overwrite)
    images, aim = list(read.values()), None if target is None else np.array(read_picture(target))
    rows: list[dict[str, Any]] = [{} for _ in images]
    shifts: list[dict[str, float]] = []
    for numbers in batches_of_one_size(images, config.batch):
        clean = np.stack([images[number] for number in numbers])
        changed = yield from protected(model, clean, numbers, config, aim)
        shifts += [vulnerability(model, clean, changed, numbers, config)] * len(numbers)
        for number, before, after in zip(numbers, clean, changed, strict=True):
            write_png(after, places[number])
            largest = int(abs(before.astype(int) - after).max())
            names = {"picture": list(read)[number].name, "written": str(places[number])}
            rows[number] = {**names, "largest_change": largest, "psnr_db": signal_to_noise(before, after)}
        yield Event("written", sum(map(bool, rows)), len(rows))
    values = {name: float(np.mean([each[name] for each in shifts])) for name in shifts[0]}
    return Report("protected", {"pictures": len(rows), **values}, tuple(rows))


def protected(
    model: TextToImage,
    pictures: UInt8[np.ndarray, "n h w 3"],
    numbers: Sequence[int],
    config: ProtectConfig = ProtectConfig(),
    target: UInt8[np.ndarray, "h2 w2 3"] | None = None,
    where: Float[Tensor, "n 1 h w"] | float = 1.0,
) -> Steps[UInt8[np.ndarray, "n h w 3"]]:
    """Protected pictures of one size.

    Args:
        model: The model whose kind is feared.
        pictures: RGB.
        numbers: One a picture, of its noise.
        config: How to protect.
        target: Of textural; a chequered picture by default.
        where: 1 where pixels may change, 0 elsewhere.
    """
    generators, size = seeded(config.seed, numbers), model.image_size
    aim = None
    if config.objective == "textural":
        levels = torch.from_numpy(chequered(size) if target is None else target).permute(2, 0, 1)[None].float()
        aim = model.encode_images(as_model_reads(levels, size))
    conditioning = model.encode_prompts([config.prompt] * len(pictures))

    def slope(levels: Levels, step: int) -> Levels:
        with torch.enable_grad():
            leaf = levels.detach().requires_grad_()
            latents = latents_of(model.pipeline, as_model_reads(leaf, size))  # (n, c, h2, w2)
        still = latents.detach()
        if aim is not None:
            direction = aim - still
        else:
            direction = torch.zeros_like(still)
            for _ in range(config.draws):
                timesteps = _timesteps(model, config, generators)
                noise = standard_noise(generators, still)
                jacobian = config.objective.startswith("semantic")
                direction += noise_error_slope(model, still, noise, timesteps, conditioning, jacobian=jacobian)
            if config.objective.endswith("-"):
                direction = -direction
        return torch.autograd.grad(latents, leaf, direction)[0].cpu()

    return ascended(pictures, slope, config, generators, where)


def noise_error_slope(
    model: TextToImage,
    latents: Float[Tensor, "n c h w"],
    noise: Float[Tensor, "n c h w"],
    timesteps: Int[Tensor, " n"],
    conditioning: Any,
    *,
    jacobian: bool,
) -> Float[Tensor, "n c h w"]:
    """Gradient by the latents of half the squared error of the predicted noise, summed over each picture.

    Args:
        model: With epsilon its predicted noise.
        latents: Clean.
        noise: Standard normal.
        timesteps: One each.
        conditioning: The encoded prompts.
        jacobian: True: the whole gradient (AdvDM). False: alpha_t (epsilon(z_t) - noise), as if the network's Jacobian were the
            identity (Eq. 8 of the paper); no graph of the network is kept.
    """
    schedule = model.schedule
    with torch.set_grad_enabled(jacobian):
        leaf = latents.detach().requires_grad_(jacobian)
        noisy = schedule.add_noise(leaf, noise, timesteps)  # z_t = alpha_t z + sigma_t e
        error = schedule.to_noise(model.predict(noisy, timesteps, conditioning), noisy, timesteps) - noise
        if jacobian:
            return torch.autograd.grad(error.square().sum() / 2, leaf)[0]
    return schedule.scales(latents, timesteps)[0] * error


@torch.no_grad()
def vulnerability(
    model: TextToImage,
    clean: UInt8[np.ndarray, "n h w 3"],
    changed: UInt8[np.ndarray, "n h w 3"],
    numbers: Sequence[int],
    config: ProtectConfig = ProtectConfig(),
) -> dict[str, float]:
    """How much encoder and denoiser amplify a change: latent shift over input shift, and noise shift over latent shift.

    Args:
        model: The model.
        clean: Pictures.
        changed: The same, changed.
        numbers: Of their noise.
        config: ``draws`` timesteps a picture are averaged; the prompt is told.

    Returns:
        ``encoder_amplification`` and ``denoiser_amplification``, root mean squares over root mean squares (pixels in -1 to 1,
        latents in the network's scale); 0 where nothing was changed.
    """
    levels = [torch.from_numpy(each).permute(0, 3, 1, 2).float() for each in (clean, changed)]
    read = [as_model_reads(each, model.image_size) for each in levels]
    latents = [model.encode_images(each) for each in read]
    generators, conditioning = seeded(config.seed + 1, numbers), model.encode_prompts([config.prompt] * len(clean))
    shifts = []
    for _ in range(config.draws):
        timesteps = _timesteps(model, config, generators)
        noise = standard_noise(generators, latents[0])
        noisy = [model.schedule.add_noise(each, noise, timesteps) for each in latents]
        told = [
            model.schedule.to_noise(model.predict(each, timesteps, conditioning), each, timesteps) for each in noisy
        ]
        shifts.append((_rms(told[1] - told[0]), _rms(noisy[1] - noisy[0])))
    by_pixels, by_latents = _rms(read[1] - read[0]), _rms(latents[1] - latents[0])
    noise_shift, noisy_shift = np.sqrt(np.square(shifts).mean(0)).tolist()
    return {
        "encoder_amplification": by_latents / by_pixels if by_pixels else 0.0,
        "denoiser_amplification": noise_shift / noisy_shift if noisy_shift else 0.0,
    }


def chequered(size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Black and white squares, an eighth of the side each: a pattern whose latents are far from any drawing's."""
    squares = (np.indices((size, size)) * 8 // size).sum(0) % 2 * 255  # (size, size)
    return np.repeat(squares[..., None], 3, -1).astype(np.uint8)


def _timesteps(model: TextToImage, config: ProtectConfig, generators: Sequence[torch.Generator]) -> Int[Tensor, " n"]:
    first, end = int(config.lowest * model.timesteps), int(config.highest * model.timesteps)
    return torch.stack([torch.randint(first, max(end, first + 1), (), generator=each) for each in generators])


def _rms(values: Tensor) -> float:
    return float(values.float().square().mean().sqrt())
