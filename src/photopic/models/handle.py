"""What every handle over a pretrained network offers, whatever the network is: edits, digests, parameters by name, a pure forward.

``photopic.load`` returns one; its kinds are text-to-image pipelines, dual encoders, classifiers, captioners,
diffusion models, masked autoencoders and style-based generators.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from photopic.core.errors import ModelError
from photopic.core.fingerprint import fingerprint, named_tensors
from photopic.core.identity import Fingerprint
from photopic.models.files import found_source, kind_of
from photopic.models.networks import check_device, fastest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from photopic.core.edits import EditStack
    from photopic.core.fingerprint_cache import LoadedDigest

H = TypeVar("H", bound="Handle")


class Handle(ABC):
    """A pretrained model as every method sees it.

    Attributes:
        described: What messages call the kind, with its article.
        default_name: The bundled model a command takes where none is named; empty for none.
        name: What messages and files call the model.
        loaded: The digest of the files the model came from, which spares hashing it; None for a model made otherwise.
    """

    described: ClassVar[str] = "a model"
    default_name: ClassVar[str] = ""
    name: str
    loaded: LoadedDigest | None = None

    @classmethod
    def load(cls: type[H], model: Any, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> H:
        """Load a model, refusing another kind before its weights are read.

        Args:
            model: As ``photopic.load`` takes it, but no module.
            device: Where to put it; None takes the GPU if there is one.
            dtype: Number format of the weights; None is float32.

        Raises:
            ModelError: As ``photopic.load``, and if the model is of another kind.
        """
        source = found_source(str(model))
        if (found := kind_of(source)) != cls.described:
            raise ModelError(f"{model}: expected {cls.described}, found {found}; name another model")
        check_device(device or fastest())
        return cls._read(str(model), source, device or fastest(), dtype)

    @classmethod
    @abstractmethod
    def _read(cls: type[H], name: str, source: Path | str, device: str | torch.device, dtype: torch.dtype | None) -> H:
        """Read a folder, or an id on the hub, that holds this kind of model; ``name`` is what was asked for."""

    @property
    @abstractmethod
    def components(self) -> Mapping[str, nn.Module]:
        """Its networks by the name that edits call them by, such as ``unet``; looked up at every use."""

    @abstractmethod
    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The prediction of the network that methods look into; gradients flow where the caller wants them."""

    @property
    def tokenizers(self) -> Mapping[str, PreTrainedTokenizerBase]:
        """Its tokenizers, by the names of their text encoders; none for a model that reads no words."""
        return {}

    @property
    def device(self) -> torch.device:
        """Where the first network is."""
        return self._first.device

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the first network."""
        return self._first.dtype

    @property
    def _first(self) -> Tensor:
        return next(next(iter(self.components.values())).parameters())

    @cached_property
    def edits(self) -> EditStack:
        """The edits in force on this model; add, remove, or use ``with model.edits.applied(edit):``."""
        from photopic.core.edits import EditStack

        return EditStack(_ComponentsOf(self), self.tokenizers, self.name, self.loaded)

    def fingerprint(self, *tensors: str) -> Fingerprint:
        """The base model, whatever edits are in force, as the base of an edit.

        Args:
            tensors: The tensors an edit touches, as ``<component>.<parameter>``.

        Raises:
            EditError: If another stack holds edits of the model.
            ModelError: If there is no such tensor.
        """
        return self.edits.fingerprint(*tensors)

    def save(self, folder: Path) -> None:
        """Write a folder that loads again, with the edits in force in its weights; kinds that can are those that say so.

        Raises:
            ModelError: If this kind is not written.
        """
        raise ModelError(
            f"{self.name}: is {self.described}, which is not written as a folder; keep the base and its edit files"
        )

    def digest(self) -> str:
        """Hex sha256 of every weight as it stands now, edits in force included."""
        if not self.edits.names():
            return self.edits.fingerprint().digest  # kept, or hashed if somebody wrote to the weights
        return fingerprint(self.components, self.name).digest

    def parameters(self, *patterns: str) -> dict[str, Tensor]:
        """Tensors by the names that edits use, ``<component>.<parameter>``.

        Args:
            patterns: Shell-style patterns of names, such as ``unet.*.attn2.to_k.weight``; none means all.

        Raises:
            ModelError: If a pattern matches nothing.

        Example:
            >>> model.parameters("unet.*.attn2.to_k.weight")  # doctest: +SKIP
        """
        found = named_tensors(self.components)
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in found):
                raise ModelError(f"{self.name}: has no tensor {pattern}; its first is {next(iter(found))}")
        return {
            name: tensor
            for name, tensor in found.items()
            if not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)
        }

    def functional(self, weights: Mapping[str, Tensor]) -> Callable[..., Tensor]:
        """``forward`` with other weights in the place of some; the model's own are never written.

        Args:
            weights: By the names of ``parameters``; gradients flow to them.

        Raises:
            ModelError: If there is no such tensor.

        Example:
            >>> model.functional({"network.1.weight": weight})(pixels)  # doctest: +SKIP
        """
        unknown = [name for name in weights if name not in named_tensors(self.components)]
        if unknown:
            raise ModelError(f"{self.name}: has no tensor {unknown[0]}; model.parameters() lists them")
        whole = _Whole(self)
        return lambda *args, **kwargs: functional_call(whole, dict(weights), args, kwargs)

    @cached_property
    def parameter_count(self) -> int:
        """Number of weights, those shared counted once."""
        return sum(each.numel() for part in self.components.values() for each in part.parameters())


class _ComponentsOf:
    """A handle's networks as they are now; an object rather than a function, so that a copy is of the copied handle."""

    def __init__(self, handle: Handle):
        self.handle = handle

    def __call__(self) -> Mapping[str, nn.Module]:
        return self.handle.components


class _Whole(nn.Module):
    """All components under the names that edits use, so that one call swaps any of their weights."""

    def __init__(self, handle: Handle):
        super().__init__()
        self._handle = handle
        for name, module in handle.components.items():
            self.add_module(name, module)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return self._handle.forward(*args, **kwargs)
