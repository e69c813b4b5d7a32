"""How well a CLIP-like model matches attacked pictures and captions, on itself and on a model that the attack never saw.

Set-level guidance moves a picture's copies at several scales away from several captions of it, between two substitutions of a word.
What is learnt from sets fits the model less closely, so it carries over to others. Beside it: PGD on the picture alone; separate
attacks of picture and caption; and Co-Attack, which moves one picture away from one attacked caption.

Paper: Set-level guidance attack (ICCV 2023, arXiv:2307.14061); Co-Attack (arXiv:2206.09391). Changed: captions of the same picture
are rewordings by the grammar of scenes (the relation seen from the other thing, "a photo of"); a word is exchanged for one of
the captions' other words of its kind, the nearest by the model, in the place of BERT's. Claims ``sga.*`` of
benchmarks/guard/robustness.py; exact facts in tests/guard/protect/.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from photopic.core.config import Flags
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.numerics.neighbours import neighbours_of
from photopic.core.results import Report
from photopic.core.view import Note, Section, Table, View
from photopic.data.caption_swaps import phrases
from photopic.data.captioned_pictures import CaptionedPictures
from photopic.data.scenes import RELATIONS
from photopic.guard.protect._common import BallConfig, Levels, ascended, random_change, seeded
from photopic.models.dual_encoder import DualEncoder

Attack = Literal["random", "pgd", "separate", "co-attack", "set-level"]
ATTACKS: tuple[Attack, ...] = ("random", "pgd", "separate", "co-attack", "set-level")
MIRRORED = dict(zip(RELATIONS, ("right of", "left of", "below", "above"), strict=True))


@dataclass(frozen=True, kw_only=True)
class RobustnessConfig(BallConfig):
    """How hard to attack."""

    epsilon: Annotated[int, Ge(0), Le(255)] = 12  # largest change of a channel of a pixel, in levels of 255
    steps: Annotated[int, Ge(1)] = 10  # steps of projected gradient ascent
    step_size: Annotated[float, Gt(0)] = 3.0  # change of each channel in a step, in levels of 255
    attacks: tuple[Attack, ...] = ATTACKS  # what to attack with
    scales: tuple[float, ...] = (
        0.5,
        0.75,
        1.25,
        1.5,
    )  # sizes of the copies that set-level guidance moves with the picture
    words: Annotated[int, Ge(0)] = 5  # substitutes tried for each word of a caption; one word is exchanged; 0: none
    batch: Annotated[int, Ge(1)] = 32  # pictures worked on together


def robustness_view(report: Report) -> View:
    """Retrieval under each attack."""
    table = Table(
        ("model", "attack", "picture to caption", "caption to picture", "success of the attack"),
        [
            (r["model"], r["attack"], f"{r['to_caption']:.1%}", f"{r['to_picture']:.1%}", f"{r['success']:.1%}")
            for r in report.rows
        ],
    )
    note = Note(
        "Right first hits among all. Success: the share of those right before that are wrong after. Pictures are attacked as 8-bit "
        "files; other attacks may do more."
    )
    return View("Retrieval under attack", [Section("", [table, note])])


@method(
    paper="arXiv:2307.14061",
    claims="sga.",
    presets={"paper": RobustnessConfig(epsilon=2, step_size=0.5, words=10)},
    command="guard robustness",
    examples=("Example: photopic guard robustness emoji-scenes:256 --transfer emoji-clip-cnn --json",),
    view=robustness_view,
)
def robustness(
    model: DualEncoder,
    data: CaptionedPictures,
    *,
    transfer: Annotated[DualEncoder | None, Flags("--transfer")] = None,
    config: RobustnessConfig = RobustnessConfig(),
) -> Steps[Report]:
    """How well your CLIP-like model matches pictures and captions that were attacked.

    Args:
        model: The model that is attacked: a bundled dual encoder, a folder with one of transformers, or a hub id.
        data: Your captioned pictures.
        transfer: Another dual encoder, to see what attacks made on the first do to it.
        config: How hard to attack.

    Returns:
        One row a model and attack: shares of first hits in both directions, and of those right before that are wrong after.

    Raises:
        DataError: If no picture finds its caption even before.

    Example:
        >>> robustness(model, data).rows[-1]["success"]  # doctest: +SKIP
        0.9
    """
    models = [model] if transfer is None else [model, transfer]
    before = {each.name: hits(each, data.images, data.captions) for each in models}
    rows = [_row(each.name, "none", before[each.name], before[each.name]) for each in models]
    for attack in config.attacks:
        images, captions = yield from attacked(model, data, attack, config)
        after = {each.name: hits(each, images, captions) for each in models}
        rows += [_row(each.name, attack, before[each.name], after[each.name]) for each in models]
    values = {f"{row['attack']} on {row['model']}": row["success"] for row in rows if row["attack"] != "none"}
    return Report("robustness", values, tuple(rows), {"digest": model.digest(), "model": model.name})


def attacked(
    model: DualEncoder, data: CaptionedPictures, attack: Attack, config: RobustnessConfig = RobustnessConfig()
) -> Steps[tuple[UInt8[np.ndarray, "n h w 3"], tuple[str, ...]]]:
    """Pictures and captions after an attack.

    Args:
        model: Whose gradients are used.
        data: What is attacked.
        attack: ``random``: of the same size, aiming at nothing; ``pgd``: the picture away from its caption; ``separate``: the
            picture from itself, the caption from the picture; ``co-attack``; ``set-level``.
        config: How hard.
    """
    images, captions = data.images.copy(), list(data.captions)
    lexicon = substitutes(model, data.captions, config.words if attack != "pgd" else 0)
    for start in range(0, len(captions), config.batch):
        numbers = list(range(start, min(start + config.batch, len(captions))))
        clean, texts = data.images[numbers], [data.captions[number] for number in numbers]
        generators = seeded(config.seed, numbers)
        if attack == "random":
            images[numbers] = random_change(clean, config.epsilon, generators)
            rngs = [np.random.default_rng((config.seed, number)) for number in numbers]
            moved = [rng.choice([text, *exchanged(text, lexicon)]) for rng, text in zip(rngs, texts, strict=True)]
        else:
            own = model.image_features(clean)
            is_set, joint = attack == "set-level", attack in ("co-attack", "set-level")
            told = [rewordings(text) if is_set else [text] for text in texts]
            if joint:  # captions are attacked first, and guide the picture
                told = [
                    _farthest(model, several, [own[row]] * len(several), lexicon) for row, several in enumerate(told)
                ]
            aim = own if attack == "separate" else torch.stack([model.text_features(each).mean(0) for each in told])
            images[numbers] = yield from _moved(model, clean, aim, config, generators, config.scales if is_set else ())
            # set-level guidance substitutes against the attacked picture, the others against the true one
            seen = model.image_features(images[numbers]) if is_set else own
            moved = texts if attack == "pgd" else _farthest(model, texts, list(seen), lexicon)
        for number, text in zip(numbers, moved, strict=True):
            captions[number] = str(text)
        yield Event(attack, numbers[-1] + 1, len(captions))
    return images, tuple(captions)


def _moved(
    model: DualEncoder,
    clean: UInt8[np.ndarray, "n h w 3"],
    aim: Float[Tensor, "n dim"],
    config: RobustnessConfig,
    generators: Sequence[torch.Generator],
    scales: Sequence[float],
) -> Steps[UInt8[np.ndarray, "n h w 3"]]:
    """Pictures whose features, summed over their copies at several scales, have left ``aim`` (Eq. 6)."""
    aim = aim.to(model.device, model.dtype)

    def slope(levels: Levels, step: int) -> Levels:
        with torch.enable_grad():
            leaf = levels.detach().requires_grad_()
            copies = [leaf, *(rescaled(leaf, scale) for scale in scales)]
            found = [F.normalize(model.encode_images(each / 255), dim=-1) for each in copies]
            away = -torch.stack([(each * aim).sum() for each in found]).sum()
            return torch.autograd.grad(away, leaf)[0].cpu()

    return ascended(clean, slope, config, generators, stage="attacking")


def rescaled(levels: Levels, scale: float) -> Levels:
    """Pictures resized to a share of their size and back."""
    size = levels.shape[-2:]
    small = [max(1, round(side * scale)) for side in size]
    return F.interpolate(
        F.interpolate(levels, small, mode="bicubic", antialias=True), size, mode="bicubic", antialias=True
    )


def rewordings(caption: str) -> list[str]:
    """Captions that are true of the same picture, the caption itself first.

    Example:
        >>> rewordings("a bear left of a cat on a red background")[1]
        'a cat right of a bear on a red background'
    """
    found = [caption]
    pattern = rf"(.+?) ({'|'.join(RELATIONS)}) (.+?)( on an? .+)?"
    if match := re.fullmatch(pattern, caption):
        first, relation, second, where = match.groups()
        found.append(f"{second} {MIRRORED[relation]} {first}{where or ''}")
    return [*found, f"a photo of {caption}", f"a picture of {caption}"]


def substitutes(model: DualEncoder, captions: Sequence[str], count: int) -> dict[tuple[str, bool], list[str]]:
    """For each word of the captions, by whether it is the noun of its phrase, the nearest other words of that kind.

    Args:
        model: Whose text features say what is near.
        captions: The vocabulary.
        count: How many; 0 for none.
    """
    kinds: dict[bool, set[str]] = {True: set(), False: set()}
    for caption in captions if count else ():
        words = caption.split()
        for begin, end in phrases(words):
            for place in range(begin, end):
                kinds[place == end - 1].add(words[place])
    found: dict[tuple[str, bool], list[str]] = {}
    for is_noun, several in kinds.items():
        words = sorted(several)
        if len(words) < 2:
            continue
        near = neighbours_of(model.text_features(words), min(count, len(words) - 1))
        found |= {
            (word, is_noun): [words[index] for index in row] for word, row in zip(words, near.tolist(), strict=True)
        }
    return found


def exchanged(caption: str, lexicon: dict[tuple[str, bool], list[str]]) -> list[str]:
    """Every caption that differs in one word of content.

    Example:
        >>> exchanged("a bear", {("bear", True): ["cat", "dog"]})
        ['a cat', 'a dog']
    """
    words, found = caption.split(), []
    for begin, end in phrases(words):
        for place in range(begin, end):
            for other in lexicon.get((words[place], place == end - 1), ()):
                found.append(" ".join([*words[:place], other, *words[place + 1 :]]))
    return found


def _farthest(
    model: DualEncoder,
    texts: Sequence[str],
    aims: Sequence[Float[Tensor, " dim"]],
    lexicon: dict[tuple[str, bool], list[str]],
) -> list[str]:
    """Each text with the one word exchanged that takes it farthest from its picture (Eq. 5); itself where none does."""
    several = [[text, *exchanged(text, lexicon)] for text in texts]
    features = model.text_features([text for each in several for text in each])
    found, start = [], 0
    for each, aim in zip(several, aims, strict=True):
        found.append(each[int((features[start : start + len(each)] @ aim).argmin())])
        start += len(each)
    return found


def hits(model: DualEncoder, images: UInt8[np.ndarray, "n h w 3"], captions: Sequence[str]) -> Bool[np.ndarray, "2 n"]:
    """Whether each picture's first caption is its own, and each caption's first picture; equal captions count as one."""
    scores = model.image_features(images) @ model.text_features(captions).mT  # (pictures, captions)
    same = torch.tensor([[one == other for other in captions] for one in captions])
    best = scores.masked_fill(~same, -2).amax(1), scores.masked_fill(~same, -2).amax(0)
    others = scores.masked_fill(same, -2)
    return torch.stack([best[0] > others.amax(1), best[1] > others.amax(0)]).numpy()


def successes(before: Bool[np.ndarray, "2 n"], after: Bool[np.ndarray, "2 n"]) -> Float[np.ndarray, "n"]:
    """For each picture the share of directions right before that are wrong after; nan where none was right before.

    Example:
        >>> successes(np.array([[True, False], [True, False]]), np.array([[False, False], [True, False]])).tolist()
        [0.5, nan]
    """
    counts = before.sum(0)
    with np.errstate(invalid="ignore"):
        return (before & ~after).sum(0) / np.where(counts, counts, np.nan)


def _row(model: str, attack: str, before: Bool[np.ndarray, "2 n"], after: Bool[np.ndarray, "2 n"]) -> dict[str, object]:
    if not before.any():
        raise DataError(f"{model}: expected some pictures that find their captions, found none; give other captions")
    right = {"to_caption": float(after[0].mean()), "to_picture": float(after[1].mean())}
    return {"model": model, "attack": attack, **right, "success": float(np.nanmean(successes(before, after)))}
