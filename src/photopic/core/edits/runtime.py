"""What edits put around a live model besides its weights: new tokens, and hooks on modules."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedTokenizerBase

from photopic.core.edits.part import Hook, Part, Weights
from photopic.core.edits.runtime_tokens import AddedTokens, check_new_token, input_embedding
from photopic.core.edits.token_rows import TokenEmbedding
from photopic.core.errors import EditError


class LiveTokens:
    """The new tokens of one model; while any is there, its tokenizers are copies that know them.

    Args:
        modules: Component name to module.
        tokenizers: By the name of their text encoder, or with ``tokenizer`` for ``text_encoder``.
        name: What to call the model in messages.
    """

    def __init__(
        self, modules: Mapping[str, nn.Module], tokenizers: MutableMapping[str, PreTrainedTokenizerBase], name: str
    ):
        self.modules, self.tokenizers, self.name = modules, tokenizers, name
        self._originals: dict[str, PreTrainedTokenizerBase] = {}
        self._added: list[AddedTokens] = []
        self._tokens: list[TokenEmbedding] = []

    def set(self, tokens: list[TokenEmbedding]) -> None:
        """Make these the new tokens, whichever there were."""
        if [id(part) for part in tokens] == [id(part) for part in self._tokens]:
            return
        for added in reversed(self._added):
            added.undo()
        self.tokenizers.update(self._originals)
        self._added, self._originals, self._tokens = [], {}, tokens  # before the loop, so that a broken one is undone
        for component in sorted({component for part in tokens for component in part.rows}):
            key = self._tokenizer_key(component)
            rows = [(part.token, part.rows[component]) for part in tokens if component in part.rows]
            added = AddedTokens(self.modules[component], self.tokenizers[key], rows)
            self._added.append(added)
            self._originals[key] = self.tokenizers[key]
            self.tokenizers[key] = added.tokenizer
        _forget_compiled(self.modules)

    def check(self, part: TokenEmbedding) -> None:
        """Refuse a token that is there already or does not fit.

        Raises:
            EditError: Names the token and what is wrong.
        """
        for component, row in part.rows.items():
            key = self._tokenizer_key(component)
            check_new_token(self._originals.get(key, self.tokenizers[key]), part.token)
            dim = input_embedding(self.modules[component]).weight.shape[-1]
            if len(row) != dim:
                raise EditError(f"token {part.token!r}: {component}: expected a row of {dim}, found {len(row)}")

    def as_read(self, part: Part) -> Part:
        """A residual at new tokens with the ids these have now, which depend on the other tokens there; any other part as it is."""

        def ids_of(component: str, words: list[str]) -> tuple[int, ...]:
            return tuple(self.tokenizers[self._tokenizer_key(component)].convert_tokens_to_ids(words))

        return part.with_ids({each.token for each in self._tokens}, ids_of)

    def _tokenizer_key(self, component: str) -> str:
        for key in (component, component.replace("text_encoder", "tokenizer")):
            if key in self.tokenizers and component in self.modules:
                return key
        raise EditError(
            f"{self.name}: has no text encoder {component} with a tokenizer; found {', '.join(self.tokenizers) or 'none'}"
        )


class LiveHooks:
    """The hooks of one model, in the order of the edits.

    Args:
        modules: Component name to module.
        name: What to call the model in messages.
    """

    def __init__(self, modules: Mapping[str, nn.Module], name: str):
        self.modules, self.name = modules, name
        self._handles: list[RemovableHandle] = []

    def set(self, parts: Sequence[tuple[Part, Weights]]) -> None:
        """Make these the hooks, whichever there were; each comes with its weight by module name."""
        if not parts and not self._handles:
            return
        for handle in self._handles:
            handle.remove()
        self._handles = []
        for part, weight in parts:
            for name, hook in part.hooks(weight, self._module):
                handle = self._module(name).register_forward_hook(with_names(hook), with_kwargs=True)
                self._handles.append(handle)
        _forget_compiled(self.modules)

    def check(self, part: Part) -> None:
        """Refuse a part for a module that is not there.

        Raises:
            EditError: Names the module.
        """
        for name in part.needs():
            self._module(name)

    def _module(self, name: str) -> nn.Module:
        component, _, path = name.partition(".")
        module = self.modules.get(component)
        try:
            if module is not None:
                return getattr(module, "_orig_mod", module).get_submodule(path)
        except AttributeError:
            pass
        raise EditError(f"{self.name}: has no module {name}, which this edit hooks")


def with_names(hook: Hook) -> Callable[..., Any]:
    """A forward hook as torch calls it with keyword arguments, from one that gets all arguments by name."""

    def call(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        signature = inspect.signature(type(module).forward)
        given = signature.bind(module, *args, **kwargs).arguments
        named: dict[str, Any] = {}
        for name, value in list(given.items())[1:]:
            kind = signature.parameters[name].kind
            many = (
                {f"{name}.{i}": each for i, each in enumerate(value)} if kind is kind.VAR_POSITIONAL else {name: value}
            )
            named |= value if kind is kind.VAR_KEYWORD else many
        return hook(module, named, output)

    return call


def _forget_compiled(modules: Mapping[str, nn.Module]) -> None:
    """Compiled code does not look for new hooks and embeddings."""
    parts = (part for module in modules.values() for part in module.modules())
    if any(hasattr(part, "_orig_mod") or part._compiled_call_impl is not None for part in parts):
        torch.compiler.reset()
