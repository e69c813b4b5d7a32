"""Put conditions together: the palette of one picture, the outline of another, the words of a third, in one new picture.

Two sets of conditions act on a run. ``wanted`` is what the picture should obey, ``away`` what it is led away from:
``e = w e(x_t, wanted) + (1 - w) e(x_t, away)``, so that a condition of one set alone weighs w or 1 - w, one of both 1, and an empty
``away`` is ordinary guidance. A picture may also be walked back to its noise under its own conditions and drawn again under others.

Paper: *Composer: Creative and Controllable Image Synthesis with Composable Conditions* (arXiv:2302.09778). Changed: none. Claims
``composer.*`` of benchmarks/generate/composer.py.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from photopic.core.errors import DataError, ModelError
from photopic.core.sampling import Control, Sampling, Step, invert
from photopic.data.condition_file import SUFFIX, load_conditions
from photopic.data.conditioned_pictures import ConditionedPictures
from photopic.data.conditions import KINDS, Conditions, check_known
from photopic.data.extraction import masked
from photopic.data.pixels import from_pixels
from photopic.models.depth_network import with_depth
from photopic.models.dual_encoder import DualEncoder
from photopic.models.text_to_image.condition_encoder import Encoded
from photopic.models.text_to_image.conditional import ConditionalTextToImage, embedded

REFINEMENTS = 2  # network calls a step of an inversion beyond the first


class ComposedConditions(Control):
    """Draw under conditions.

    Args:
        wanted: What the pictures should obey: one set for all, or one for each of a batch. The prompt is read, not its captions.
        away: What they are led away from, likewise; none is ordinary guidance.
        of: A picture that is walked back to its noise under the sets ``own`` and drawn again from there, or one each; the
            sampler is DDIM. None: drawing begins at noise.
        own: Its conditions, all of them for the best reconstruction.
        prompts: What it shows, where known; by default nothing.
        refinements: Network calls a step of the walk back beyond the first.

    Raises:
        DataError: If there is no set.
        ModelError: In a run, if the model reads no conditions or not these, or sets and pictures differ in number.

    Example:
        >>> control = ComposedConditions([palette.joined(sketch)])  # doctest: +SKIP
        >>> model.generate("a fox", seeds=[0], guidance=2, controls=[control])  # doctest: +SKIP
    """

    def __init__(
        self,
        wanted: Sequence[Conditions],
        away: Sequence[Conditions] = (),
        *,
        of: UInt8[np.ndarray, "n size size 3"] | None = None,
        own: Sequence[Conditions] = (),
        prompts: Sequence[str] = ("",),
        refinements: int = REFINEMENTS,
    ):
        if not wanted or (of is None) != (not own):
            raise DataError("conditions: expected one set or more, and a picture with its own, found none; give them")
        self.wanted, self.away, self.of, self.own = list(wanted), list(away), of, list(own)
        self.prompts, self.refinements = list(prompts), refinements
        self.count, self.guided, self.walking = 0, False, False

    def applied(self, model: Any) -> AbstractContextManager[None]:
        """Encode the sets; around a batch the network reads them."""
        if not isinstance(model, ConditionalTextToImage):
            raise ModelError(
                f"{model.name}: reads no conditions; load emoji-composer, or what photopic train conditions has written"
            )
        if self.away and len(self.away) == len(self.wanted) and all(map(_are_same, self.wanted, self.away)):
            warnings.warn(
                "conditions: what pictures should obey and what they are led away from are the same, so guidance has no effect; "
                "leave one out",
                stacklevel=2,
            )
        empty = [Conditions(self.wanted[0].size, {})]
        self.encoded, self.other, self.back = (
            model.encode_conditions(each or empty) for each in (self.wanted, self.away, self.own)
        )
        if self.of is not None:
            self.clean = model.encode_images(from_pixels(self.of).to(model.device))
            self.told = model.encode_prompts(self.prompts)
        return self._acting(model)

    @contextmanager
    def _acting(self, model: ConditionalTextToImage) -> Iterator[None]:
        with model.conditioned(self._rows):
            yield

    def start(self, sampling: Sampling) -> None:
        """Refuse numbers of sets that are not those of the batch."""
        for what in (self.wanted, self.away, self.own):
            if len(what) > 1 and len(what) != len(sampling.generators):
                raise ModelError(
                    f"conditions: expected one set, or one for each of {len(sampling.generators)} pictures of a batch, "
                    f"found {len(what)}"
                )

    def start_noise(self, noise: Float[Tensor, "batch c h w"], sampling: Sampling) -> Float[Tensor, "batch c h w"]:
        """The noise that leads to the picture under its own conditions."""
        if self.of is None:
            return noise
        rows = [0] * len(noise) if len(self.told) == 1 else list(range(len(noise)))
        alone = replace(
            sampling, conditioning=self.told[rows], unconditional=None, controls=(self,), differentiable=False
        )
        self.walking = True
        try:
            with torch.no_grad():
                return invert(alone, self.clean.expand_as(noise).contiguous(), refinements=self.refinements)
        finally:
            self.walking = False

    def model_input(self, latents: Float[Tensor, "batch c h w"], step: Step) -> Float[Tensor, "batch c h w"]:
        """The latents as they are; how many there are is what the rows follow."""
        self.count, self.guided = len(latents), step.guided
        return latents

    def _rows(self, calls: int) -> Encoded:
        """A row for each of the network's, the other set's first in a guided step."""
        own = _expanded(self.back if self.walking else self.encoded, self.count)
        found = _expanded(self.other, self.count).joined(own) if self.guided else own
        if len(found.any) != calls:
            raise ModelError(f"conditions: expected {len(found.any)} rows, found {calls}; a control changed the batch")
        return found


def _are_same(one: Conditions, other: Conditions) -> bool:
    return one.names == other.names and all(np.array_equal(one.values[name], other.values[name]) for name in one.names)


def _expanded(encoded: Encoded, count: int) -> Encoded:
    return encoded if len(encoded.any) == count else encoded.rows([0] * count)


# -- tasks


@dataclass(frozen=True)
class Task:
    """What of which picture is kept.

    Attributes:
        first: Conditions of the first picture; ``all`` but its mask.
        second: Conditions of the other picture.
        inverted: Whether the first is walked back to its noise, so that what is not told stays too.
        mixed: Whether embedding and palette lie between those of both.
        region: Whether a mask says where to draw; outside the first picture stays to the bit.
        what: In words.
    """

    first: tuple[str, ...] = ()
    second: tuple[str, ...] = ()
    inverted: bool = False
    mixed: bool = False
    region: bool = False
    what: str = ""


LAYOUT = ("sketch", "instances", "depth")
ALL = tuple(name for name in KINDS if name not in ("masked", "skeleton"))
TASKS: dict[str, Task] = {
    "variation": Task(("embedding", "palette"), what="another picture like it"),
    "interpolation": Task(
        ("embedding", "palette", *LAYOUT), ("embedding", "palette"), mixed=True, what="between two pictures"
    ),
    "reconfiguration": Task(ALL, inverted=True, what="the same picture with conditions replaced by --condition"),
    "region-edit": Task((), region=True, what="a part drawn anew"),
    "palette-colouring": Task(("intensity",), ("palette",), what="grey values of one, colours of the other"),
    "style-transfer": Task(LAYOUT, ("embedding",), what="lines and objects of one, embedding of the other"),
    "translation": Task(ALL, inverted=True, what="the same picture with other words"),
    "pose-transfer": Task(("instances",), ("embedding",), what="place and shape of one, things of the other"),
    "try-on": Task((), ("embedding",), region=True, what="a part drawn anew as the other picture"),
}


def of_task(task: Task, first: Conditions, second: Conditions | None = None, share: float = 0.5) -> Conditions:
    """What a task wants of one or two pictures.

    Args:
        task: Of ``TASKS``.
        first: Of the first picture.
        second: Of the other.
        share: How far between both, 0 to 1, for a task that is mixed.

    Raises:
        DataError: If the task needs another picture.

    Example:
        >>> grey = Conditions(4, {"intensity": np.zeros((1, 4, 4), np.uint8), "caption": "a bear"})
        >>> of_task(TASKS["palette-colouring"], grey, Conditions(4, {})).names
        ('intensity',)
    """
    if task.second and second is None:
        raise DataError("task: expected another picture, found none; add --other")
    found = first.only(task.first)
    if second is None:
        return found
    if not task.mixed:
        return found.joined(second.only(task.second))
    between = {name: _between(name, first.values[name], second.values[name], share) for name in task.second}
    return found.joined(Conditions(first.size, between, dict.fromkeys(between, f"mixed, {share:g}"), first.encoder))


def _between(name: str, one: np.ndarray, other: np.ndarray, share: float) -> np.ndarray:
    """On the great circle for embeddings, on the line for palettes."""
    if name == "palette":
        return ((1 - share) * one + share * other).astype(np.float32)
    first, second = (each.astype(np.float64) / np.linalg.norm(each.astype(np.float64)) for each in (one, other))
    angle = np.arccos(np.clip(first @ second, -1, 1))
    if angle < 1e-6:
        return one
    return ((np.sin((1 - share) * angle) * first + np.sin(share * angle) * second) / np.sin(angle)).astype(np.float16)


# -- words of the user


def read_set(path: str | Path, model: ConditionalTextToImage, encoder: DualEncoder | None = None) -> Conditions:
    """The conditions of a picture, or those of a ``.conditions`` file.

    Args:
        path: Of either.
        model: That will read them: at its size, with its encoder.
        encoder: Its encoder; None loads it.

    Raises:
        DataError: If there is neither.
        ModelError: If the file's are none that the model reads.
    """
    path = Path(path)
    names = model.condition_encoder.shape.names
    if path.suffix == SUFFIX:
        found = load_conditions(path)
        return found.only([name for name in found.names if name in (*names, "caption")])
    _, image, found = next(iter(ConditionedPictures(str(path)).read(model.image_size)))
    if "depth" in names:
        found = with_depth(found, image)
    if "embedding" in names:
        (vector,) = embedded(encoder or DualEncoder.load(model.about.encoder), [image])
        found = found.joined(Conditions(found.size, {"embedding": vector.vector}, {}, vector.encoder))
    return found.only([name for name in found.names if name in (*names, "caption")])


def read_words(words: Sequence[str]) -> dict[str, Path]:
    """``palette=a.png`` and so on as files by condition.

    Raises:
        DataError: If one is no condition with a file, or a condition is given twice.

    Example:
        >>> read_words(["palette=a.png", "sketch=b.png"])
        {'palette': PosixPath('a.png'), 'sketch': PosixPath('b.png')}
    """
    found: dict[str, Path] = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not equals or not path:
            raise DataError(f"--condition {word}: expected such as palette=picture.png, found no file; write NAME=FILE")
        check_known(name)
        if name in found:
            raise DataError(f"--condition {name}: expected one file, found {found[name]} and {path}; leave one out")
        found[name] = Path(path)
    return found


def one_of(name: str, path: Path, found: Conditions) -> Conditions:
    """One condition of a set.

    Raises:
        DataError: If the set lacks it.
    """
    if name not in found.values:
        raise DataError(
            f"{path}: has no {name}; make a .conditions file with one: photopic measure conditions {path.name} --help"
        )
    return found.only([name])


def kept_part(image: UInt8[np.ndarray, "size size 3"], drawn: Bool[np.ndarray, "h w"]) -> Conditions:
    """The condition that says what stays of a picture of which a part is drawn anew."""
    return Conditions(len(image), {"masked": masked(image, drawn)}, {"masked": "given"})
