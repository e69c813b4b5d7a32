"""The edits of a plain diffusers pipeline or module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from photopic.core.edits.stack import EditStack


def attach(model: Any, *, component: str = "model", name: str = "model") -> EditStack:
    """The edits of a plain diffusers pipeline or ``nn.Module``; always the same stack for the same object.

    Args:
        model: A pipeline, whose components keep their names, or a module.
        component: What a module is called in the names of its tensors, such as ``unet``.
        name: What to call the model in messages.

    Example:
        >>> attach(nn.Linear(2, 2)).names()
        ()
    """
    known = model.__dict__.get("_photopic_edits")
    if known is not None and known[0] is model:
        return known[1]
    if isinstance(model, nn.Module):
        stack = EditStack({component: model}, name=name)
    else:
        stack = EditStack(_Components(model), _TokenizersOf(model), name)
    model.__dict__["_photopic_edits"] = (model, stack)  # beside the object, so that a copy of it gets its own
    return stack


class _Components:
    """A pipeline's modules as they are now; an object rather than a function, so that a copy is of the copied pipeline."""

    def __init__(self, pipeline: Any):
        self.pipeline = pipeline

    def __call__(self) -> dict[str, nn.Module]:
        return {key: part for key, part in self.pipeline.components.items() if isinstance(part, nn.Module)}


class _TokenizersOf(Mapping[str, PreTrainedTokenizerBase]):
    """A pipeline's tokenizers as they are now."""

    def __init__(self, pipeline: Any):
        self.pipeline = pipeline

    def __getitem__(self, key: str) -> PreTrainedTokenizerBase:
        found = self.pipeline.components.get(key)
        if not isinstance(found, PreTrainedTokenizerBase):
            raise KeyError(key)
        return found

    def __iter__(self) -> Iterator[str]:
        return (key for key, part in self.pipeline.components.items() if isinstance(part, PreTrainedTokenizerBase))

    def __len__(self) -> int:
        return sum(1 for _ in self)
