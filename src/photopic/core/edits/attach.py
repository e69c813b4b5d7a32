"""The edits of a plain diffusers pipeline or module."""

from __future__ import annotations

from collections.abc import Mapping
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
    parts = {component: model} if isinstance(model, nn.Module) else dict(model.components)
    modules = {key: part for key, part in parts.items() if isinstance(part, nn.Module)}
    stack = EditStack(modules, _TokenizersOf(model, parts), name)
    model.__dict__["_photopic_edits"] = (model, stack)  # beside the object, so that a copy of it gets its own
    return stack


class _TokenizersOf(dict[str, PreTrainedTokenizerBase]):
    """A pipeline's tokenizers; what is put here is put there."""

    def __init__(self, pipeline: Any, parts: Mapping[str, Any]):
        super().__init__({key: part for key, part in parts.items() if isinstance(part, PreTrainedTokenizerBase)})
        self._pipeline = pipeline

    def __setitem__(self, key: str, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__setitem__(key, tokenizer)
        setattr(self._pipeline, key, tokenizer)

    def update(self, others: Mapping[str, PreTrainedTokenizerBase]) -> None:  # type: ignore[override]
        """Put several."""
        for key, tokenizer in others.items():
            self[key] = tokenizer
