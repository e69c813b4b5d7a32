"""A handle over an image classifier: any of transformers, or a plain ``nn.Module`` with its preprocessing.

Use it as ``Classifier.load("emoji-resnet-64-0").logits(images)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from photopic.core.errors import ModelError
from photopic.core.nn.evaluating import evaluating
from photopic.core.nn.hooks import match, tap
from photopic.models.classifier_files import PREPROCESSOR, bundled_classifiers, read, read_preprocessor
from photopic.models.classifier_layers import blocks_of, head_name
from photopic.models.factories import is_factory, made
from photopic.models.files import CLASSIFIER
from photopic.models.networks import check_finite, fastest, put_on
from photopic.models.picture_model import PictureModel
from photopic.models.preprocessing import OneOrMore, Preprocessing
from photopic.models.programs import (
    OnnxProgram,
    Program,
    TorchProgram,
    is_exported,
    is_program,
    labels_beside,
    read_program,
)

__all__ = ["Classifier", "bundled_classifiers"]


class Classifier(PictureModel):
    """Everything photopic asks of an image classifier, whatever its architecture.

    The network is put into evaluation mode and its parameters stop requiring gradients.

    Args:
        network: Maps pixel values (n, channels, height, width) to logits (n, classes), or to an output with ``.logits``. Of a
            ``Program`` only logits are seen.
        preprocess: Maps pictures to pixel values; ``models.preprocessing.Preprocessing`` or any function.
        labels: Name of each class, in the order of the logits.
        name: What messages and files call the model.
        head: Dotted name of the last linear layer; None finds it.
        blocks: Name patterns of the submodules that are "the layers"; None finds them.

    Raises:
        ModelError: If a weight is not finite, there is no such head, or its outputs are not as many as the labels.

    Example:
        >>> from photopic.models.preprocessing import Preprocessing
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> model = Classifier(network, preprocess=Preprocessing(resize=(4, 4)), labels=["cat", "dog"])
        >>> model.blocks, model.head.in_features
        (('1', '2'), 8)
    """

    described: ClassVar[str] = CLASSIFIER

    def __init__(
        self,
        network: nn.Module,
        *,
        preprocess: Callable[[OneOrMore], Tensor],
        labels: Sequence[str],
        name: str = "model",
        head: str | None = None,
        blocks: Sequence[str] | None = None,
    ):
        self.network = network.eval().requires_grad_(False)
        self.labels = tuple(labels)
        self.name = name
        self._preprocess = preprocess
        check_finite(network, name)
        self._head: nn.Linear | None = None
        self._blocks: tuple[str, ...] = ()
        self.head_name = ""
        if isinstance(network, Program):
            return
        self.head_name = head_name(network, len(self.labels), name) if head is None else head
        found = match(network, self.head_name)[self.head_name]
        if not isinstance(found, nn.Linear) or found.out_features != len(self.labels):
            outputs = found.out_features if isinstance(found, nn.Linear) else f"a {type(found).__name__}"
            raise ModelError(
                f"{name}: {len(self.labels)} labels but the head {self.head_name} has outputs: {outputs}; "
                "give one label a logit, in their order"
            )
        self._head = found
        self._blocks = self.layers(*blocks) if blocks is not None else blocks_of(network, self.head_name)

    @property
    def shows_layers(self) -> bool:
        """Whether there is more to see than logits; not of an exported program."""
        return self._head is not None

    @property
    def head(self) -> nn.Linear:
        """The last linear layer.

        Raises:
            ModelError: If the model is an exported program.
        """
        self.check_layers("this")
        assert self._head is not None
        return self._head

    @property
    def blocks(self) -> tuple[str, ...]:
        """The layers, by dotted name; raises as ``head``."""
        self.check_layers("this")
        return self._blocks

    def check_layers(self, what: str) -> None:
        """Refuse an exported program.

        Args:
            what: What needs layers or gradients, for the message.

        Raises:
            ModelError: If the model shows none.
        """
        if not self.shows_layers:
            raise ModelError(
                f"{self.name}: {what} needs its layers or gradients, and an exported program shows only logits; give the network "
                "itself: a folder of transformers, or module:factory"
            )

    @classmethod
    def _read(cls, name: str, source: Path | str, device: str | torch.device, dtype: torch.dtype | None) -> Classifier:
        found = read(name, source)
        put_on(found.network, device)
        called = source.name if isinstance(source, Path) else source
        return cls(found.network.to(dtype=dtype), preprocess=found.preprocess, labels=found.labels, name=called)

    @classmethod
    def load(cls, model: Any, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Classifier:
        """As ``Handle.load``; also ``module:factory``, a function that returns a classifier or what ``own`` takes, and an ONNX file
        with ``config.json`` and ``preprocessor_config.json`` beside it.

        Raises:
            ModelError: As ``Handle.load``, and if the function cannot be imported, fails, or returns something else.
        """
        name = str(model)
        if is_program(name):
            network, folder = read_program(name), Path(name).expanduser().parent
            preprocess = Preprocessing.of(read_preprocessor(name, folder), f"{name}: {PREPROCESSOR}")
            return cls.own((network, preprocess, labels_beside(name)), Path(name).name, device, dtype)
        return cls.own(made(name), name, device, dtype) if is_factory(name) else super().load(model, device, dtype)

    @classmethod
    def own(
        cls, model: Any, name: str, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Classifier:
        """A classifier of one's own, moved to its place.

        Args:
            model: A classifier, or (module, preprocess, labels); the module may be a program of ``torch.export``.
            name: What messages and files call it; a classifier keeps its name.
            device: Where to put it; None takes the GPU if there is one.
            dtype: Number format of the weights; None leaves it.

        Raises:
            ModelError: If it is neither, or the module is no classifier with such labels.

        Example:
            >>> from photopic.models.preprocessing import Preprocessing
            >>> network = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
            >>> Classifier.own((network, Preprocessing(resize=(4, 4)), ["cat", "dog"]), "mine", "cpu").labels
            ('cat', 'dog')
        """
        parts: Any = (model.network, None, ()) if isinstance(model, cls) else model
        if isinstance(parts, tuple) and parts and is_exported(parts[0]):
            parts = (TorchProgram(parts[0], name), *parts[1:])
        if not (isinstance(parts, tuple) and len(parts) == 3 and isinstance(parts[0], nn.Module)):
            raise ModelError(
                f"{name}: expected a Classifier or (module, preprocess, labels), found {type(model).__name__}; return one of them"
            )
        network, preprocess, labels = parts
        put_on(network, device or fastest())
        network.to(dtype)
        return model if isinstance(model, cls) else cls(network, preprocess=preprocess, labels=labels, name=name)

    def pictures(self, pixels: Float[Tensor, "n channels height width"]) -> UInt8[np.ndarray, "n height width 3"]:
        """What the network reads, as pictures to show; after a preprocessing of one's own each stretched from black to white."""
        if isinstance(self._preprocess, Preprocessing):
            return self._preprocess.pictures(pixels)
        colours = pixels if pixels.shape[1] == 3 else pixels.mean(1, keepdim=True).expand(-1, 3, -1, -1)
        low, high = colours.amin((1, 2, 3), True), colours.amax((1, 2, 3), True)
        values = (colours - low) / (high - low).clamp(min=1e-30) * 255  # (n, 3, height, width)
        return values.round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()

    def forward(self, pixels: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n classes"]:
        """Logits of pixel values; gradients flow to the pixels.

        Raises:
            ModelError: If the network refuses the size or puts out something else than a logit a label.
        """
        if isinstance(self.network, OnnxProgram) and pixels.requires_grad:
            self.check_layers("a gradient")
        try:
            with evaluating(self.network):
                output = self.network(pixels)
        except (RuntimeError, ValueError) as error:
            size = " x ".join(map(str, pixels.shape[2:]))
            line = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise ModelError(f"{self.name}: the network refuses images of {size} pixels: {line}") from error
        logits = getattr(output, "logits", output)
        if not isinstance(logits, Tensor) or logits.shape != (len(pixels), len(self.labels)):
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ModelError(
                f"{self.name}: expected logits of shape {(len(pixels), len(self.labels))} for {len(pixels)} images and "
                f"{len(self.labels)} labels, found {found}; give one label a logit"
            )
        return logits

    @torch.no_grad()
    def logits(self, images: OneOrMore, *, batch: int = 64) -> Float[Tensor, "n classes"]:
        """Logits of pictures, float32 in main memory, without gradients.

        Args:
            images: As ``preprocess`` takes them.
            batch: Pictures read at a time.

        Raises:
            DataError: If a picture is not 8-bit RGB, or there is none.
            ModelError: If the network refuses their size.
        """
        return torch.cat([self.forward(pixels).float().cpu() for pixels in self._batches(images, batch)])

    @torch.no_grad()
    def features(self, images: OneOrMore, *, batch: int = 64) -> Float[Tensor, "n width"]:
        """What enters the head, float32 in main memory; ``head(features) == logits``.

        Args, raises: as ``logits``; also a ModelError if the logits are not what the head puts out.
        """
        return torch.cat([self.read(pixels)[1].float().cpu() for pixels in self._batches(images, batch)])

    def read(
        self, pixels: Float[Tensor, "n channels height width"]
    ) -> tuple[Float[Tensor, "n classes"], Float[Tensor, "n inputs"]]:
        """Logits of pixel values, and what enters the head, from one pass.

        Raises:
            ModelError: As ``forward``, and if the logits are not what the head puts out, as those of an auxiliary head.
        """
        with tap(self.network, self.head_name, inputs=True) as seen:
            logits = self.forward(pixels)
        found = seen[self.head_name]
        of_head = self.head(found[0]) if len(found) == 1 else None  # (n, classes)
        if of_head is None or not torch.allclose(of_head, logits, 1e-4, 1e-5):
            if of_head is not None and torch.allclose(of_head.softmax(1), logits, 1e-3, 1e-5):
                raise ModelError(
                    f"{self.name}: expected logits, found probabilities; leave the softmax out of the network"
                )
            raise ModelError(
                f"{self.name}: its logits are not the output of {self.head_name}; name the last linear layer (head=...)"
            )
        return logits, found[0]

    def class_indices(self, names: Sequence[str]) -> list[int]:
        """Which logits are those of the named classes.

        Raises:
            ModelError: If there is no such class; the message says which one is nearest.

        Example:
            >>> model.class_indices(["bear"])  # doctest: +SKIP
            [17]
        """
        unknown = [name for name in names if name not in self.labels]
        if unknown:
            nearest = (get_close_matches(unknown[0], self.labels, n=1, cutoff=0.0) or self.labels)[0]
            raise ModelError(f"{self.name}: has no class {unknown[0]!r}; nearest: {nearest}")
        return [self.labels.index(name) for name in names]

    def layers(self, *patterns: str) -> tuple[str, ...]:
        """Dotted names of the submodules that match any pattern, in the network's order.

        Raises:
            ModelError: If a pattern matches nothing.

        Example:
            >>> model.layers("resnet.encoder.stages.?")  # doctest: +SKIP
            ('resnet.encoder.stages.0', 'resnet.encoder.stages.1', 'resnet.encoder.stages.2')
        """
        return tuple(match(self.network, *patterns))
