"""A live model with edits in it: writes them, puts the base back, knows the base's fingerprint and notices what others change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from photopic.core.edits.branches import Branches
from photopic.core.edits.edit import Edit
from photopic.core.edits.overlap import Writes
from photopic.core.edits.overwritten import Overwritten, tensors_of
from photopic.core.edits.runtime import LiveHooks, LiveTokens
from photopic.core.edits.stack_item import LoadedEdit
from photopic.core.edits.token_rows import TokenEmbedding
from photopic.core.errors import EditError
from photopic.core.fingerprint import fingerprint, modules_in
from photopic.core.fingerprint_cache import LoadedDigest
from photopic.core.frozen import frozen_weights
from photopic.core.identity import Fingerprint, difference

Modules = Mapping[str, nn.Module]  # component name to module


class LiveModel:
    """The model of an `EditStack`; the arguments are the stack's."""

    def __init__(
        self,
        modules: Modules | Callable[[], Modules],
        tokenizers: Mapping[str, PreTrainedTokenizerBase],
        name: str,
        loaded: LoadedDigest | None,
    ):
        self._modules, self.name, self._loaded = modules, name, loaded
        self.tokens, self._hooks, self._overwritten = LiveTokens(tokenizers, name), LiveHooks(name), Overwritten()
        self._branches = Branches()
        self._held: dict[str, nn.Module] = {}  # the components while edits are loaded
        self._digest: str | None = None  # of the base
        self._left: dict[str, tuple[int, int, torch.dtype]] | None = None  # how the last change left the tensors

    @property
    def modules(self) -> Modules:
        """The components as they are now."""
        return self._modules() if callable(self._modules) else self._modules

    def tensors(self, loaded: Iterable[str]) -> dict[str, Tensor]:
        """The tensors by name, as they were left.

        Args:
            loaded: The names of the edits, for the message.

        Raises:
            EditError: If somebody else changed them while edits are loaded.
        """
        modules, names = self.modules, ", ".join(loaded)
        tensors = tensors_of(modules)
        replaced = [key for key, module in self._held.items() if _plain(modules.get(key)) is not _plain(module)]
        changed = f"{replaced[0]} was replaced" if replaced else self._overwritten.changed(tensors)
        if changed and names:
            raise EditError(
                f"{self.name}: {changed}, changed by something else while edits are loaded ({names}); "
                "undo that change to unload them, or keep it with edits.forget(), which writes nothing"
            )
        if changed or self._left != _state(tensors):
            self._digest = None  # somebody else wrote to the model, so it has to be hashed again
        return tensors

    def put_back(self, tensors: Mapping[str, Tensor]) -> None:
        """The base's entries; what is put around the weights stays until `write`."""
        self._overwritten.put_back(tensors)

    def write(self, tensors: dict[str, Tensor], loaded: Sequence[LoadedEdit], written: Mapping[str, Writes]) -> None:
        """Put edits in force on the base, first to last.

        Args:
            tensors: Those of the model.
            loaded: The edits.
            written: What each writes, by its name.
        """
        modules, active = self.modules, [each for each in loaded if each.is_on]
        self._held = dict(modules) if loaded else {}
        pending: Writes = {}
        for each in active:
            for name, writes in written[each.name].items():
                weighted = [(write, each.weight_at(write.name)) for write in writes]
                pending.setdefault(name, []).extend(
                    write if weight == 1 else replace(write, weight=weight) for write, weight in weighted if weight != 0
                )
        pending = {name: writes for name, writes in pending.items() if writes}
        frozen = frozen_weights(modules, pending)
        self._overwritten.write(tensors, {name: writes for name, writes in pending.items() if name not in frozen})
        self._branches.set({name: writes for name, writes in pending.items() if name in frozen}, active, modules)
        self.tokens.set([part for each in active for part in each.edit.of(TokenEmbedding)], modules)
        hooked = [(part, each) for each in active for part in each.edit.parts if part.modules()]
        self._hooks.set([(self.tokens.as_read(part, modules), each.weight_at) for part, each in hooked], modules)
        _fuse_again(modules)
        self._overwritten.remember(tensors)
        self._left = _state(tensors)

    def forget(self) -> None:
        """Keep the weights as they are as those of another model; words and hooks go."""
        self._overwritten.forget()
        self._branches.clear()
        self.tokens.set([], self._held)
        self._hooks.set([], self._held)
        self._held, self._digest, self._left, self._loaded = {}, None, None, None

    def base(self, tensors: Iterable[str]) -> Fingerprint:
        """The fingerprint of the base, which must stand in the model now; hashed if it is not known."""
        if self._digest is None and self._loaded is not None:
            self._digest = self._loaded.find()
        found = fingerprint(self.modules, self.name, tensors, digest=self._digest)
        self._digest = found.digest
        return found

    def check_base(self, edit: Edit, force: bool, tensors: Mapping[str, Tensor]) -> bool:
        """Whether the edit has to be forced, as it was made for another base.

        Raises:
            EditError: If it has to and may not be.
        """
        if self._digest is not None and edit.base.digest == self._digest:
            return False
        if any(".base_layer." in name for name in tensors):  # also where the last adapter was deleted and not unloaded
            raise EditError(f"{self.name}: an adapter of peft is loaded; unload it, or load the edit before it")
        known = tensors.keys() | frozen_weights(self.modules, edit.base.sketches).keys()
        found = self.base(name for name in edit.base.sketches if name in known)
        reason = difference(edit.base, found)
        if reason and not force:
            raise EditError(
                f"made for base {edit.base.name} ({edit.base.digest[:12]}), "
                f"but this model is {self.name} ({found.digest[:12]}): {reason}"
            )
        return bool(reason)

    def check_parts(self, edit: Edit, loaded: Iterable[LoadedEdit]) -> None:
        """Refuse words that are there already, and modules that are not.

        Raises:
            EditError: Names the word or the module.
        """
        modules, taken = self.modules, {token for each in loaded for token in each.edit.tokens}
        for token in edit.of(TokenEmbedding):
            if token.token in taken:  # also if that edit is disabled now
                raise EditError(f"token {token.token!r} is already added by another edit; unload that one first")
            self.tokens.check(token, modules)
        for part in edit.parts:
            self._hooks.check(part, modules)


def _plain(module: nn.Module | None) -> nn.Module | None:
    return getattr(module, "_orig_mod", module)


def _fuse_again(modules: Modules) -> None:
    """What diffusers' ``fuse_qkv_projections`` made of the weights is made anew of those that stand there now."""
    parts = [part for each in modules.values() for _, part in modules_in(each)]
    fused = {id(part): part for part in parts if part.__dict__.get("fused_projections")}
    if fused:
        with torch.random.fork_rng():  # making a layer draws numbers
            for part in fused.values():
                part.fuse_projections()  # type: ignore[operator]


def _state(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, int, torch.dtype]]:
    return {
        name: (tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version, tensor.dtype)
        for name, tensor in tensors.items()
    }
