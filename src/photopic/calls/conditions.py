"""``--condition palette=a.png``, ``--minus`` and ``--task``: what pictures give to a drawing, from the words of a user."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from photopic.core.errors import DataError, PhotopicError
from photopic.core.files import check_file
from photopic.data.condition_file import SUFFIX, load_conditions
from photopic.data.conditioned_pictures import ConditionedPictures
from photopic.data.conditions import Conditions
from photopic.data.extraction import from_picture
from photopic.data.folder import load_mask, load_picture
from photopic.generate.conditions import (
    TASKS,
    ComposedConditions,
    Task,
    kept_part,
    of_task,
    one_of,
    read_set,
    read_words,
)
from photopic.metrics.conditions import condition_errors
from photopic.models.dual_encoder import DualEncoder
from photopic.models.text_to_image.conditional import ConditionalTextToImage

UNITS = {
    "embedding": "1 - cosine", "palette": "L1", "sketch": "1 - F1", "instances": "1 - IoU", "depth": "1 - rank correlation",
    "intensity": "mean difference", "masked": "mean difference",
}  # fmt: skip


def inverts(task: str | None) -> bool:
    """Whether a task walks its picture back, which DDIM alone can."""
    return task in TASKS and TASKS[task].inverted


@dataclass(frozen=True)
class Given:
    """What was typed, files by their paths; see ``calls.drawing.Asked``."""

    conditions: Sequence[str] = ()
    minus: Sequence[str] = ()
    task: str | None = None
    other: Path | None = None
    share: float | None = None
    image: Path | None = None
    mask: Path | None = None


@dataclass(eq=False)
class Composed:
    """What other pictures give.

    Attributes:
        wanted: File by condition.
        away: The same of what pictures are led away from.
        task: What is kept of the first picture, if there is one.
        given: What was typed.
        caption: Of a file given for it; the prompt where there is none.
        target: The set that was drawn with, once it was.
    """

    wanted: dict[str, Path]
    away: dict[str, Path]
    task: Task | None
    given: Given
    caption: str = ""
    target: Conditions | None = field(default=None, repr=False)

    def control(self, model: Any) -> ComposedConditions:
        """What steers the sampler.

        Raises:
            PhotopicError: If the model reads no conditions, or a picture lacks one.
        """
        if not isinstance(model, ConditionalTextToImage):
            raise PhotopicError(
                f"{model.name}: reads no conditions; use --model emoji-composer, or one of photopic train conditions"
            )
        asked, encoder = self.given, DualEncoder.load(model.about.encoder)
        wanted, away = (
            _joined(
                model.image_size, [one_of(name, path, read_set(path, model, encoder)) for name, path in each.items()]
            )
            for each in (self.wanted, self.away)
        )
        own = None if self.task is None or asked.image is None else read_set(asked.image, model, encoder)
        if self.task is not None and own is not None:
            second = None if asked.other is None else read_set(asked.other, model, encoder)
            wanted = of_task(self.task, own, second, 0.5 if asked.share is None else asked.share).joined(wanted)
        if asked.image is not None and asked.mask is not None and "masked" not in wanted.values:
            image = load_picture(asked.image, model.image_size)
            wanted = wanted.joined(kept_part(image, load_mask(asked.mask, model.image_size, of=asked.image)))
        self.target = wanted
        walked: dict[str, Any] = {}
        if self.task is not None and self.task.inverted and own is not None and asked.image is not None:
            said = str(own.values.get("caption", ""))
            walked = {"of": np.stack([load_picture(asked.image, model.image_size)]), "own": [own], "prompts": [said]}
        return ComposedConditions([wanted], [away] if away.names else [], **walked)

    def kept(self, images: Sequence[UInt8[np.ndarray, "h w 3"]]) -> list[str]:
        """How far the pictures are from each condition, in the mean; 0 is kept."""
        if self.target is None or not self.target.names:
            return []
        each = [condition_errors(from_picture(image), self.target, image) for image in images]
        return [
            f"  {name}: {np.mean([found[name] for found in each]):.3f} from what was wanted ({UNITS[name]}; 0 is kept)"
            for name in each[0]
        ]

    def said(self) -> dict[str, Any]:
        """What a picture says of its conditions: files by name and content."""
        return {
            kind: {name: named(path) for name, path in each.items()}
            for kind, each in (("wanted", self.wanted), ("away", self.away))
            if each
        }


def read_composed(asked: Given) -> Composed | None:
    """What is asked for, files looked for; None where nothing is.

    Raises:
        PhotopicError: If options exclude each other, or a file is missing.
    """
    if not asked.conditions and asked.task is None:
        if asked.minus or asked.other is not None or asked.share is not None:
            raise PhotopicError("--minus, --other and --share: expected --condition or --task, found neither; add one")
        return None
    wanted, away = read_words(asked.conditions), read_words(asked.minus)
    for path in (*wanted.values(), *away.values()):
        check_file(path, DataError)
    if "caption" in away:
        raise PhotopicError("--minus caption: is what --negative says; write the words there")
    if asked.task is not None and asked.task not in TASKS:
        raise PhotopicError(f"--task: expected one of {', '.join(TASKS)}, found {asked.task!r}")
    task = None if asked.task is None else TASKS[asked.task]
    if task is not None:
        _check_task(asked, task)
    said = _caption(wanted["caption"]) if "caption" in wanted else ""
    return Composed({name: path for name, path in wanted.items() if name != "caption"}, away, task, asked, said)


def named(path: Path) -> dict[str, str]:
    """A file by its name and content."""
    return {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _check_task(asked: Given, task: Task) -> None:
    if asked.image is None:
        raise PhotopicError(f"--task {asked.task}: expected a picture, found none; add --image")
    if task.region and asked.mask is None:
        raise PhotopicError(f"--task {asked.task}: expected a mask of where to draw, found none; add --mask")
    if bool(task.second) != (asked.other is not None):
        found, fix = ("none", "add --other") if task.second else ("--other", "leave it out")
        raise PhotopicError(
            f"--task {asked.task}: expected {'another picture' if task.second else 'one picture'}, found {found}; {fix}"
        )
    if asked.share is not None and not task.mixed:
        raise PhotopicError(f"--share: is for --task interpolation, found {asked.task}; leave it out")
    if task.inverted and asked.mask is not None:
        raise PhotopicError(f"--task {asked.task}: draws the whole picture again, found --mask; leave it out")


def _caption(path: Path) -> str:
    """Of a ``.conditions`` file, or of the text file beside a picture."""
    if path.suffix == SUFFIX:
        return str(one_of("caption", path, load_conditions(path)).values["caption"])
    return str(one_of("caption", path, next(iter(ConditionedPictures(str(path)).read(8)))[2]).values["caption"])


def _joined(size: int, sets: Sequence[Conditions]) -> Conditions:
    found = Conditions(size, {})
    for each in sets:
        found = found.joined(each)
    return found
