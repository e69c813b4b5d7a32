"""Which start noises draw well whatever the prompt: many seeds are drawn with several prompts and ranked.

Every seed draws every prompt. A picture's score is how near its features come to the mean of its prompt's pictures, standardised
among them; a seed's score is the mean over prompts. Halves of the prompts rank apart, and seeds are told apart in pictures of
prompts that were not learnt from: both say whether the noise decides anything that a prompt does not.

Paper: *Good Seed Makes a Good Crop: Discovering Secret Seeds in Text-to-Image Diffusion Models* (arXiv:2405.14828). Changed: the
distance of a Fréchet distance's means ranks, picture by picture, since a seed has too few pictures here for covariances; the seed
classifier is the nearest mean of what is left of small pictures once the prompt's mean is taken away. Claims ``good_seed.*`` of
benchmarks/generate/good_seeds.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge
from jaxtyping import Bool, Float, Num, UInt8
from torch import Tensor

from photopic.core.config import Config, Flags
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.results import Report
from photopic.core.runs import Run
from photopic.core.view import Section, Table, View
from photopic.metrics.layout import foreground
from photopic.models.dual_encoder import DualEncoder
from photopic.models.text_to_image.generate_config import GenerateConfig
from photopic.models.text_to_image.handle import TextToImage

SIDE = 16  # of the small pictures that seeds are told apart in
ATTRIBUTES = ("brightness", "size", "x", "y")  # mean of all pixels, share, and centre of what stands out; 0 to 1
SHOWN = 10  # seeds at either end of the table


@dataclass(frozen=True, kw_only=True)
class SeedsConfig(Config):
    """Which seeds, and how they are drawn."""

    count: Annotated[int, Ge(3)] = 1000  # how many seeds
    seed: Annotated[int, Ge(0)] = 0  # the first of them
    steps: Annotated[int, Ge(1)] = 4  # denoising steps; what a noise decides is decided early
    # guidance of the pictures that rank; at 1, which costs half, the noise decides more
    guidance: Annotated[float, Ge(0)] = 1.0
    batch: Annotated[int, Ge(1)] = 50  # pictures drawn and kept together


def seeds_view(report: Report) -> View:
    """The first and the last seeds, and what halves of the prompts agree on."""
    values, names = report.values, tuple(report.rows[0])
    table = [[f"{row[name]:.3f}" if name != "seed" else row[name] for name in names] for row in report.rows]
    agreed = [[name, f"{values['rank_correlation_' + name]:.3f}"] for name in ATTRIBUTES]
    blocks = [
        Table(["", "rank correlation"], [["score", f"{values['rank_correlation']:.3f}"], *agreed], "Halves of prompts"),
        Table(names, table[:SHOWN], "Best"),
        Table(names, table[-SHOWN:], "Worst"),
    ]
    lead = f"{values['identified']:.1%} of pictures of other prompts are given to their seed, chance {values['chance']:.2%}."
    return View("Seeds", [Section("", blocks)], lead)


@method(
    paper="arXiv:2405.14828",
    claims="good_seed.",
    command="measure seeds",
    examples=(
        "Example: photopic measure seeds --model emoji-diffusion --prompt 'a bear' --prompt 'a mug' --json > seeds.json",
        "Then: photopic generate 'a fox' --control good_seeds:ranking=seeds.json",
    ),
    view=seeds_view,
    allow_edits=True,
)
def seeds(
    model: Annotated[TextToImage, Flags("--model", default="emoji-diffusion")],
    encoder: Annotated[DualEncoder, Flags("--encoder", default="emoji-clip-vit")],
    *,
    prompts: Annotated[Sequence[str], Flags("--prompt")],
    config: SeedsConfig = SeedsConfig(),
    run: Run | None = None,
) -> Steps[Report]:
    """Rank start noises by what they draw, prompt after prompt; an interrupted ranking goes on from its pictures.

    Args:
        model: A text-to-image model, with or without edits in force.
        encoder: A dual encoder, whose features compare the pictures.
        prompts: What is drawn, given several times; the first, third and so on are one half, the others the other.
        config: Which seeds, and how they are drawn.
        run: A run folder that keeps every batch of pictures.

    Returns:
        A row a seed, best first: ``score``, ``half_1``, ``half_2``, and means of brightness, size and place. ``values`` hold the
        rank correlation of the halves' scores, and of each attribute; ``identified``, how often the nearest seed of the first half
        is that of a picture of the second, and ``chance``.

    Raises:
        DataError: If there are fewer than two prompts.

    Example:
        >>> seeds(model, encoder, prompts=["a bear", "a mug"]).rows[0]["seed"]  # doctest: +SKIP
        17
    """
    if len(prompts) < 2:
        raise DataError(f"--prompt: expected two or more, found {len(prompts)}; halves of them are compared")
    numbers = range(config.seed, config.seed + config.count)
    chunks = [numbers[start : start + config.batch] for start in range(0, len(numbers), config.batch)]
    drawn = GenerateConfig(steps=config.steps, guidance=config.guidance, batch=config.batch)
    scores, traits, small = [], [], []
    for number, prompt in enumerate(prompts):
        features, seen, thumbs = [], [], []
        for place, chunk in enumerate(chunks):
            part = None if run is None else run.part(f"prompt-{number:03}").part(f"seeds-{place:04}")
            pictures = _drawn(model, prompt, chunk, drawn, part)
            features.append(encoder.image_features(pictures))
            seen.append(attributes_of(pictures))
            thumbs.append(thumbnails(pictures))
            yield Event("drawing", number * len(chunks) + place + 1, len(prompts) * len(chunks))
        scores.append(standardised(typicality(torch.cat(features))))
        traits.append(np.concatenate(seen))
        small.append(np.concatenate(thumbs))
    return _report(numbers, np.stack(scores), np.stack(traits), np.stack(small))


def _drawn(
    model: TextToImage, prompt: str, numbers: Sequence[int], config: GenerateConfig, part: Run | None
) -> UInt8[np.ndarray, "n h w 3"]:
    """The pictures of some seeds, from the folder where they are kept."""
    if part is not None and (found := part.resume()) is not None:
        return found[0]["pictures"].numpy()
    pictures = model.generate(prompt, seeds=numbers, config=config)
    if part is not None:
        part.checkpoint({"pictures": torch.from_numpy(pictures)}, 1)
    return pictures


def _report(
    numbers: range,
    scores: Float[np.ndarray, "prompts seeds"],
    traits: Float[np.ndarray, "prompts seeds traits"],
    small: Float[np.ndarray, "prompts seeds cells"],
) -> Report:
    one, two = scores[::2].mean(0), scores[1::2].mean(0)  # (seeds,) each
    values: dict[str, Any] = {"seeds": len(numbers), "prompts": len(scores), "rank_correlation": spearman(one, two)}
    for column, name in enumerate(ATTRIBUTES):
        halves = (traits[start::2, :, column].mean(0) for start in (0, 1))
        values[f"rank_correlation_{name}"] = spearman(*halves)
    values |= {"identified": float(identified(small[::2], small[1::2]).mean()), "chance": 1 / len(numbers)}
    score, means = scores.mean(0), traits.mean(0)
    order = np.argsort(-score, kind="stable")
    rows = tuple(
        {"seed": numbers[k], "score": float(score[k]), "half_1": float(one[k]), "half_2": float(two[k])}
        | dict(zip(ATTRIBUTES, map(float, means[k]), strict=True))
        for k in map(int, order)
    )
    return Report("measure seeds", values, rows)


def typicality(features: Float[Tensor, "seeds dim"]) -> Float[np.ndarray, " seeds"]:
    """Cosine of each picture's features, of length 1, to the mean of all.

    Example:
        >>> typicality(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])).argmin().item()
        2
    """
    found: np.ndarray = (features @ F.normalize(features.mean(0), dim=0)).double().cpu().numpy()
    return found


def standardised(scores: Float[np.ndarray, " seeds"]) -> Float[np.ndarray, " seeds"]:
    """Less their mean, over their standard deviation; 0 where all are the same."""
    return (scores - scores.mean()) / (scores.std() or 1.0)


def attributes_of(pictures: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n 4"]:
    """Brightness of a picture, and share and centre (x, y) of what stands out from its border, all 0 to 1.

    Example:
        >>> picture = np.zeros((1, 8, 8, 3), np.uint8); picture[0, 4:6, 2:4] = 255
        >>> attributes_of(picture).round(4).tolist()
        [[0.0625, 0.0625, 0.375, 0.625]]
    """
    masks = foreground(pictures).astype(float)  # (n, h, w)
    area = masks.sum((1, 2))
    centres = [
        (masks.sum(axis) @ ((np.arange(masks.shape[other]) + 0.5) / masks.shape[other]))
        for axis, other in ((1, 2), (2, 1))
    ]
    places = [np.where(area > 0, centre / np.maximum(area, 1), 0.5) for centre in centres]
    return np.stack([pictures.mean((1, 2, 3)) / 255, masks.mean((1, 2)), *places], 1)


def thumbnails(pictures: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n cells"]:
    """Pictures of 16x16 cells as one row each, 0 to 1."""
    small = F.adaptive_avg_pool2d(torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255, SIDE)
    return small.flatten(1).double().numpy()  # (n, 3, 16, 16) -> (n, 768)


def identified(
    learnt: Num[np.ndarray, "prompts seeds cells"], shown: Num[np.ndarray, "others seeds cells"]
) -> Bool[np.ndarray, "others seeds"]:
    """Which pictures are given to their seed: the one whose mean over other prompts is nearest in direction.

    Each prompt's mean picture is taken away first, so that what is left is what the noise made of it.

    Args:
        learnt: Pictures that the means are of, the same seeds in the same order.
        shown: Pictures of other prompts.

    Example:
        >>> identified(np.eye(3)[None], 2 * np.eye(3)[None]).tolist()
        [[True, True, True]]
    """
    means = _without_prompt(learnt).mean(0)  # (seeds, cells)
    means /= np.linalg.norm(means, axis=1, keepdims=True).clip(1e-12)
    found = _without_prompt(shown) @ means.T  # (others, seeds, seeds)
    right: np.ndarray = found.argmax(-1) == np.arange(shown.shape[1])
    return right


def _without_prompt(pictures: Num[np.ndarray, "prompts seeds cells"]) -> Num[np.ndarray, "prompts seeds cells"]:
    return pictures - pictures.mean(1, keepdims=True)


def spearman(one: Float[np.ndarray, " n"], other: Float[np.ndarray, " n"]) -> float:
    """Rank correlation, -1 to 1; 0 where one of them is the same everywhere."""
    from scipy.stats import spearmanr

    return float(spearmanr(one, other)[0]) if np.ptp(one) > 0 and np.ptp(other) > 0 else 0.0
