"""What every check of a guard looks at: the unchanged network's answers to a batch, and the weights these belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from photopic.core.errors import ModelError
from photopic.core.nn.evaluating import parts_of
from photopic.core.nn.replay import recorded
from photopic.models.classifier import Classifier


@dataclass(frozen=True, eq=False)
class Plain:
    """One batch as the network sees it.

    Attributes:
        pixels: What went in.
        logits: What came out, float32.
        features: What entered the head, float32, or the logits of an exported program; None where nobody asked.
        kept: What modules put out, by name, for runs that go on from there.
    """

    pixels: Float[Tensor, "n channels height width"]
    logits: Float[Tensor, "n classes"]
    features: Float[Tensor, "n inputs"] | None
    kept: Mapping[str, Any]


def plain_pass(
    model: Classifier,
    pixels: Float[Tensor, "n channels height width"],
    *,
    keep: Sequence[str] = (),
    written: set[str] | None = None,
    features: bool = False,
) -> Plain:
    """Run the network as it is, once.

    Args:
        model: The classifier.
        pixels: As ``Classifier.preprocess`` gives them.
        keep: Names of the modules whose outputs are kept.
        written: As ``recorded`` takes it.
        features: Whether to keep what enters the head.

    Raises:
        ModelError: As ``Classifier.forward`` and ``Classifier.read``.
    """
    entered: Tensor | None = None
    with torch.no_grad(), recorded(model.network, keep, set() if written is None else written) as kept:
        if features and model.shows_layers:
            logits, entered = model.read(pixels)
        else:
            logits = model.forward(pixels)
            entered = logits if features else entered
    return Plain(pixels, logits.float(), None if entered is None else entered.float(), kept)


class BoundWeights:
    """The weights a check was fitted on: told apart by place and version, and where these differ by content.

    Args:
        model: The classifier, as it is now.
    """

    def __init__(self, model: Classifier):
        self._model, self._state, self._digest = model, _state(model), model.digest()

    def moved(self) -> bool:
        """Whether the same numbers stand elsewhere now, as after ``.to(device)``.

        Raises:
            ModelError: If they are other numbers: a check says nothing about them.
        """
        state = _state(self._model)
        if state == self._state:
            return False
        if self._model.digest() != self._digest:
            raise ModelError(
                f"{self._model.name}: other weights than those the guard was fitted on; take the change back, or fit again"
            )
        self._state = state
        return True


def _state(model: Classifier) -> list[tuple[int, int]]:
    """Where each tensor lies and how often it was written to; inference tensors do not count that."""
    parts = parts_of(model.network)
    tensors = [each for part in parts for own in (part._parameters, part._buffers) for each in own.values()]
    return [(each.data_ptr(), 0 if each.is_inference() else each._version) for each in tensors if each is not None]
