"""The diffusion classifier: a text-to-image model names what is in a picture by which words let it see through noise best.

    argmin over c of the mean over (t, e) of |e - e_theta(x_t, c)|^2

All classes of a picture meet the same timesteps and noise, so that what the noise alone costs cancels between them. Classes drop
out in stages: each stage looks at more timesteps for fewer classes.

Paper: Your Diffusion Model is Secretly a Zero-Shot Classifier (arXiv:2303.16203). Changed: each timestep has a noise of its own,
drawn from the seed and the picture's place. Claims: ``diffusion_classifier.*`` of benchmarks/measure/perception.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor

from photopic.core.config import Config, Flags, Sentence
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.results import Report
from photopic.core.view import Section, Table, Text, View
from photopic.data.class_folder import ClassFolder
from photopic.measure._common import preprocessing_of
from photopic.metrics.intervals import wilson
from photopic.models.preprocessing import Images, batched
from photopic.models.text_to_image.conditioning import Conditioning
from photopic.models.text_to_image.handle import TextToImage
from photopic.models.text_to_image.transformer_conditioning import TransformerConditioning

BATCH = 64  # timesteps and classes at a time
SHOWN = 40  # pictures in the table of a page


@dataclass(frozen=True, kw_only=True)
class DiffusionClassifierConfig(Config):
    """How often to look, at how many classes."""

    samples: Annotated[tuple[int, ...], Ge(1)] = (
        2,
        8,
        64,
    )  # timesteps that each stage has looked at in the end, commas between
    keep: Annotated[tuple[int, ...], Ge(1)] = (
        8,
        3,
    )  # classes that are left after each stage but the last, commas between
    template: Annotated[str, Sentence()] = "a {}"  # sentence with {} where a class name goes
    seed: Annotated[int, Ge(0)] = 0  # seed of the noise


def classifier_view(report: Report) -> View:
    """How many were right and what it cost, and each picture with its two best classes."""
    values, rows = report.values, report.rows
    saved = values["naive_calls"] / values["calls"]
    lines = [f"{values['calls']:,} network calls, {saved:.1f} times fewer than all classes at all timesteps"]
    if values["accuracy"] is not None:
        low, high = values["interval"]
        lines.insert(
            0, f"{values['accuracy']:.1%} named right ({low:.1%} to {high:.1%}), chance {1 / values['classes']:.1%}"
        )
    table = [[row["picture"], row["named"], row["second"], f"{row['margin']:.4f}", row["true"] or ""] for row in rows]
    shown = Table(["picture", "named", "second", "margin", "true class"], table[:SHOWN], "Pictures, by their place")
    return View("Diffusion classifier", [Section("", [*map(Text, lines), shown])])


@method(
    paper="arXiv:2303.16203",
    claims="diffusion_classifier.",
    command="measure diffusion-classifier",
    examples=(
        "Example: photopic measure diffusion-classifier pictures/ --class bear --class fox --model emoji-diffusion",
    ),
    view=classifier_view,
    allow_edits=True,
)
def diffusion_classifier(
    model: TextToImage,
    images: ClassFolder | Images,
    *,
    classes: Annotated[Sequence[str] | None, Flags("--class")] = None,
    config: DiffusionClassifierConfig = DiffusionClassifierConfig(),
) -> Steps[Report]:
    """Name what is in pictures by a text-to-image model, without training anything.

    Args:
        model: A text-to-image model, with or without edits in force.
        images: A folder, one sub-folder a class where accuracy is asked for; or pictures.
        classes: What to choose from, two or more; by default the sub-folders.
        config: How often to look, at how many classes.

    Returns:
        A row a picture: ``named``, ``second``, the ``margin`` between their errors, the ``true`` class; ``values`` hold the
        accuracy with its interval, network ``calls``, and ``naive_calls`` of looking at all classes at all timesteps.

    Raises:
        DataError: If there is no picture, fewer than two classes, or stages that do not narrow.

    Example:
        >>> diffusion_classifier(model, images, classes=["bear", "fox"]).rows[0]["named"]  # doctest: +SKIP
        'bear'
    """
    images = batched(images)
    folders = images.classes if isinstance(images, ClassFolder) else None
    names = tuple(classes or sorted({each.replace("_", " ") for each in folders or ()}))
    _check(images, names, config)
    said = model.encode_prompts([config.template.format(name) for name in names])
    prepare = preprocessing_of(model)
    rows: list[dict[str, Any]] = []
    calls = 0
    for number in range(len(images)):
        with torch.no_grad():
            latents = model.encode_images(prepare(images[number : number + 1]).to(model.device, model.dtype))
            means, called = eliminated(model, latents, said, config, number)
        first, second, *_ = sorted(means, key=lambda place: means[place])
        true = folders[number].replace("_", " ") if folders else None
        margin = round(means[second] - means[first], 6)
        rows.append({"picture": number, "named": names[first], "second": names[second], "margin": margin, "true": true})
        calls += called
        yield Event("looking", number + 1, len(images))
    right = [row["named"] == row["true"] for row in rows] if folders else []
    share = wilson(sum(right), len(right)) if right else None
    values = {
        "accuracy": None if share is None else share.value,
        "interval": None if share is None else [share.low, share.high],
        "classes": len(names),
        "calls": calls,
        "naive_calls": len(images) * len(names) * config.samples[-1],
    }
    return Report("diffusion classifier", values, tuple(rows), {"images": len(images)})


def eliminated(
    model: TextToImage,
    latents: Float[Tensor, "1 c h w"],
    said: Conditioning | TransformerConditioning,
    config: DiffusionClassifierConfig,
    number: int,
) -> tuple[Mapping[int, float], int]:
    """The mean error of each class that is left at the last stage, and how often the network was asked.

    Args:
        model: The model.
        latents: Of one picture.
        said: One row a class.
        config: The stages.
        number: Of the picture, for its noise.
    """
    grid = timesteps(model.timesteps, config.samples[-1])
    errors: dict[int, list[float]] = {place: [] for place in range(len(said))}
    left, seen, calls = list(errors), set[int](), 0
    for stage, count in enumerate(config.samples):
        # what earlier stages saw is not looked at again; they are spread otherwise and may have seen all of it
        if places := [place for place in spread(len(grid), count) if place not in seen]:
            seeds = [(config.seed, number, place) for place in places]
            found = noise_errors(model, latents, said[left], [grid[place] for place in places], seeds)
            for column, each in enumerate(left):
                errors[each] += found[:, column].tolist()
            seen.update(places)
            calls += len(places) * len(left)
        if stage < len(config.keep):
            means = {each: sum(errors[each]) / len(errors[each]) for each in left}
            left = sorted(left, key=lambda each: means[each])[: max(2, config.keep[stage])]
    return {each: sum(errors[each]) / len(errors[each]) for each in left}, calls


def noise_errors(
    model: TextToImage,
    latents: Float[Tensor, "1 c h w"],
    said: Conditioning | TransformerConditioning,
    times: Sequence[int],
    seeds: Sequence[Sequence[int]],
) -> Float[Tensor, "timesteps classes"]:
    """|e - e_theta(x_t, c)|^2, a mean over entries, of each class at each timestep with the noise of its seed.

    Of a network that predicts velocity that is (1 - sigma)^2 |v - v_theta|^2, as x_t is the same for all classes.

    Example:
        >>> noise_errors(model, latents, said, [100, 500], [(0, 1), (0, 2)]).shape  # doctest: +SKIP
        torch.Size([2, 40])
    """
    states = [int(np.random.SeedSequence(seed).generate_state(1)[0]) for seed in seeds]
    draws = [torch.randn(latents.shape, generator=torch.Generator().manual_seed(state)) for state in states]
    noise, time = torch.cat(draws).to(latents), torch.tensor(times, device=latents.device)
    noisy = model.schedule.add_noise(latents.expand_as(noise), noise, time)  # (timesteps, c, h, w), for all classes
    found = []
    # few classes are left when most timesteps are looked at, so that a batch goes over both
    for pairs in torch.cartesian_prod(torch.arange(len(times)), torch.arange(len(said))).split(BATCH):
        rows, columns = pairs.T  # (batch,) of timesteps, and of classes
        predicted = model.forward(noisy[rows], time[rows], said[columns])
        implied = model.schedule.to_noise(predicted, noisy[rows], time[rows])
        found.append((implied.float() - noise[rows].float()).square().flatten(1).mean(1).cpu())
    return torch.cat(found).view(len(times), len(said))


def timesteps(total: int, count: int) -> list[int]:
    """Uniform over the process, in the middle of equal intervals.

    Example:
        >>> timesteps(1000, 4)
        [125, 375, 625, 875]
    """
    return [int((place + 0.5) * total / count) for place in range(count)]


def spread(length: int, count: int) -> list[int]:
    """``count`` places evenly over so many, the middle of each interval.

    Example:
        >>> spread(64, 2), spread(4, 4)
        ([16, 48], [0, 1, 2, 3])
    """
    return [int((place + 0.5) * length / count) for place in range(min(count, length))]


def _check(images: Any, names: Sequence[str], config: DiffusionClassifierConfig) -> None:
    if len(images) == 0:
        raise DataError("images: expected at least one, found none")
    if len(set(names)) < 2:
        raise DataError(
            f"--class: expected two or more to choose from, found {len(set(names))}; name them, or sort the pictures"
        )
    if len(config.keep) != len(config.samples) - 1 or list(config.samples) != sorted(set(config.samples)):
        raise DataError(
            f"--samples and --keep: expected rising samples and one keep less, such as 2,8,64 and 8,3, found {config.samples} "
            f"and {config.keep}"
        )
