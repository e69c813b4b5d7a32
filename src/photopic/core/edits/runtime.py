"""What edits put around a live model besides its weights: new tokens, and hooks on modules.

Both are plain objects, so that a model in whose modules they stand can be copied and pickled.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from photopic.core.edits.part import Hook, Part, Weights
from photopic.core.edits.runtime_tokens import AddedTokens, check_new_token, input_embedding
from photopic.core.edits.token_rows import TokenEmbedding
from photopic.core.errors import EditError

Modules = Mapping[str, nn.Module]  # component name to module


class LiveTokens:
    """The new tokens of one model; its tokenizers know them while they are there.

    Args:
        tokenizers: By the name of their text encoder, or with ``tokenizer`` for ``text_encoder``.
        name: What to call the model in messages.
    """

    def __init__(self, tokenizers: Mapping[str, PreTrainedTokenizerBase], name: str):
        self.tokenizers, self.name = tokenizers, name
        self._added: dict[str, AddedTokens] = {}  # by component
        self._tokens: list[TokenEmbedding] = []

    def set(self, tokens: list[TokenEmbedding], modules: Modules) -> None:
        """Make these the new tokens, whichever there were; a word that stays keeps its id."""
        if not tokens and not self._added:
            return
        wanted = {component for part in tokens for component in part.rows}
        for component in sorted(wanted - self._added.keys()):  # registered before anything is put there
            self._added[component] = AddedTokens(
                modules[component], self.tokenizers[self._tokenizer_key(component, modules)]
            )
        for component, added in self._added.items():
            added.set([(part.token, part.rows[component]) for part in tokens if component in part.rows])
        self._tokens = tokens
        self._added = {component: added for component, added in self._added.items() if component in wanted}
        _forget_compiled(modules)

    def check(self, part: TokenEmbedding, modules: Modules) -> None:
        """Refuse a token that is there already or does not fit.

        Raises:
            EditError: Names the token and what is wrong.
        """
        for component, row in part.rows.items():
            check_new_token(self.tokenizers[self._tokenizer_key(component, modules)], part.token)
            dim = input_embedding(modules[component]).weight.shape[-1]
            if len(row) != dim:
                raise EditError(f"token {part.token!r}: {component}: expected a row of {dim}, found {len(row)}")

    def as_read(self, part: Part, modules: Modules) -> Part:
        """A residual at new tokens with the ids these have now, which depend on the other tokens there; any other part as it is."""

        def ids_of(component: str, words: list[str]) -> tuple[int, ...]:
            return tuple(self.tokenizers[self._tokenizer_key(component, modules)].convert_tokens_to_ids(words))

        return part.with_ids({each.token for each in self._tokens}, ids_of)

    def _tokenizer_key(self, component: str, modules: Modules) -> str:
        for key in (component, component.replace("text_encoder", "tokenizer")):
            if key in self.tokenizers and component in modules:
                return key
        raise EditError(
            f"{self.name}: has no text encoder {component} with a tokenizer; found {', '.join(self.tokenizers) or 'none'}"
        )


class LiveHooks:
    """The hooks of one model, in the order of the edits.

    Args:
        name: What to call the model in messages.
    """

    def __init__(self, name: str):
        self.name = name
        self._parts: Sequence[tuple[Part, Weights]] = ()
        self._modules: dict[str, nn.Module] = {}  # those that the parts hook or call, by name
        self._placed: list[tuple[nn.Module, _Slot]] = []
        self._hooks: list[tuple[str, Callable[..., Any]]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_hooks": None}  # made again from the parts

    def set(self, parts: Sequence[tuple[Part, Weights]], modules: Modules) -> None:
        """Make these the hooks, whichever there were; each comes with its weight by module name."""
        if not parts and not self._placed:
            return
        for module, slot in self._placed:
            _take_off(module, slot)
        self._placed, self._parts, self._hooks = [], parts, None
        self._modules = {name: self._module(name, modules) for part, _ in parts for name in part.needs()}
        for number, (name, _) in enumerate(self.hooks()):
            self._placed.append((self._modules[name], _Slot(self, number)))  # an interrupt after this line finds it
            self._modules[name].register_forward_hook(self._placed[-1][1], with_kwargs=True)
        _forget_compiled(modules)

    def hooks(self) -> list[tuple[str, Callable[..., Any]]]:
        """Every hook with the name of its module."""
        if self._hooks is None:
            found = [each for part, weight in self._parts for each in part.hooks(weight, self._modules.__getitem__)]
            self._hooks = [(name, with_names(hook)) for name, hook in found]
        return self._hooks

    def check(self, part: Part, modules: Modules) -> None:
        """Refuse a part for a module that is not there.

        Raises:
            EditError: Names the module.
        """
        for name in part.needs():
            self._module(name, modules)

    def _module(self, name: str, modules: Modules) -> nn.Module:
        component, _, path = name.partition(".")
        module = modules.get(component)
        if module is not None:
            module = getattr(module, "_orig_mod", module)
            try:
                return module.get_submodule(path)
            except AttributeError:  # under a part that torch.compile or peft wrapped
                for found, part in module.named_modules():
                    if found.replace("_orig_mod.", "").replace("base_layer.", "") == path:
                        return part
        raise EditError(f"{self.name}: has no module {name}, which this edit hooks")


class _Slot:
    """One of the hooks as a module holds it; unlike a closure it can be pickled."""

    def __init__(self, live: LiveHooks, number: int):
        self.live, self.number = live, number
        self._hook: Callable[..., Any] | None = live.hooks()[number][1]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_hook": None}  # a closure; looked up at the first call of the copy

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        if self._hook is None:
            self._hook = self.live.hooks()[self.number][1]
        return self._hook(module, args, kwargs, output)


def _take_off(module: nn.Module, slot: _Slot) -> None:
    """Remove a hook by what it is, as an interrupt may have lost its handle."""
    for key in [key for key, hook in module._forward_hooks.items() if hook is slot]:
        module._forward_hooks_with_kwargs.pop(key, None)
        del module._forward_hooks[key]


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


def _forget_compiled(modules: Modules) -> None:
    """Compiled code does not look for new hooks and embeddings."""
    parts = (part for module in modules.values() for part in module.modules())
    if any(hasattr(part, "_orig_mod") or part._compiled_call_impl is not None for part in parts):
        torch.compiler.reset()
