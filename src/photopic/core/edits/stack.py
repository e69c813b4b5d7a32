"""Edits on a live model: exact revert in any order.

Nothing is ever subtracted. On any change the base entries kept aside are put back, the base entries of all positions the remaining
edits touch are kept aside, and the edits are written in the order they were added.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from weakref import WeakKeyDictionary, WeakSet

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from photopic.core.edits.activations import InitialNoise
from photopic.core.edits.edit import Edit
from photopic.core.edits.file import load as load_file
from photopic.core.edits.overlap import Writes, check_overlap, resolved
from photopic.core.edits.positions import Positions, apply, read_entries, union, write_entries
from photopic.core.edits.runtime import LiveHooks, LiveTokens
from photopic.core.edits.stack_item import LoadedEdit, LoadOverlapPolicy, Weight, checked_weight
from photopic.core.edits.token_rows import TokenEmbedding
from photopic.core.errors import EditError
from photopic.core.fingerprint import Fingerprint, difference, fingerprint, named_tensors
from photopic.core.fingerprint_cache import LoadedDigest

_OF_MODULE: WeakKeyDictionary[nn.Module, WeakSet[EditStack]] = WeakKeyDictionary()  # the stacks that may write to it


class EditStack:
    """The edits applied to one model.

    Of several stacks on one model, or on a model and a part of it, only one at a time may hold edits: each keeps aside what it
    overwrites, and what another one wrote is not the base.

    Args:
        modules: Component name to module.
        tokenizers: Tokenizers by the name of their text encoder, or by that name with ``tokenizer`` for ``text_encoder``. While a
            token is active, its place in this mapping holds a copy that knows the token; afterwards the original object.
        name: What to call the model in messages.
        loaded: The digest of the files the model was loaded from; spares hashing it.

    Example:
        >>> from photopic.core.edits.sparse import ZeroedWeights
        >>> linear = nn.Linear(2, 2)
        >>> base = fingerprint({"m": linear}, "tiny", ["m.weight"])
        >>> stack = EditStack({"m": linear})
        >>> with stack.applied(Edit((ZeroedWeights({"m.weight": torch.tensor([0])}),), base)):
        ...     linear.weight[0, 0].item()
        0.0
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        tokenizers: MutableMapping[str, PreTrainedTokenizerBase] | None = None,
        name: str = "model",
        loaded: LoadedDigest | None = None,
    ):
        self.modules = modules
        self.name = name
        self._tokens = LiveTokens(modules, {} if tokenizers is None else tokenizers, name)
        self._hooks = LiveHooks(modules, name)
        self._active: dict[str, LoadedEdit] = {}
        self._writes: dict[str, Writes] = {}  # of each edit
        self._stash: dict[str, tuple[Positions, Tensor]] = {}  # positions and base entries
        self._loaded = loaded
        self._digest: str | None = None  # of the base
        self._left: dict[str, tuple[int, int, torch.dtype]] | None = None  # how the last change left the tensors
        self._others: WeakSet[EditStack] = WeakSet()  # that write to the same modules
        for part in {part for module in modules.values() for part in module.modules()}:
            for other in _OF_MODULE.setdefault(part, WeakSet()):
                self._others.add(other)
                other._others.add(self)
            _OF_MODULE[part].add(self)

    @property
    def tokenizers(self) -> MutableMapping[str, PreTrainedTokenizerBase]:
        """The tokenizers as they are now, new tokens included."""
        return self._tokens.tokenizers

    def load(
        self,
        edit: Edit | str | Path,
        *,
        name: str | None = None,
        weight: Weight = 1.0,
        force: bool = False,
        overlap: LoadOverlapPolicy = "error",
    ) -> str:
        """Apply an edit on top of those already there.

        Args:
            edit: Made for this model, or for the same weights at another precision; or the path of its file.
            weight: 0 leaves the model as it is, 1 is the edit itself; between, entries are interpolated. A mapping gives one weight
                a shell-style pattern of tensor names: the first that matches counts, 1 elsewhere. Tokens are added in full
                unless it is 0.
            name: What to call it; a free name is made from its token or file otherwise.
            force: Apply it to a different base whose touched tensors have the same shapes; it is then listed as forced.
            overlap: What to do where it and an earlier edit touch the same entry and one of them sets or adds values: refuse, or
                write it last.

        Returns:
            The name, for `unload`.

        Raises:
            EditError: For another base, unknown tensors, a name or token in use, an overlap, or a weight that is not a number.
            EditFileError: If the file is not an edit.
        """
        if not isinstance(edit, Edit):
            name = self._free(Path(edit).stem) if name is None else name
            edit = load_file(edit)
        label = self._label(edit, name)
        self._check_others()
        with self._base_state() as tensors:
            forced = self._check_base(edit, force, tensors)
            active = LoadedEdit(label, edit, checked_weight(edit, weight), forced=forced, overlap=overlap)
            self._check_parts(edit)
            writes = resolved(edit, tensors, self.name, self.modules)
            check_overlap(active, writes, self._before(active, self._active), tensors)
            self._active[label], self._writes[label] = active, writes
        return label

    def unload(self, *names: str) -> None:
        """Take edits away; the others stay.

        Raises:
            EditError: If no edit has this name.
        """
        self._check_names(names)
        with self._base_state():
            for name in names:
                del self._active[name], self._writes[name]

    def clear(self) -> None:
        """Take all edits away: every byte is the base's again."""
        self.unload(*self._active)

    def enable(self, *names: str) -> None:
        """Put disabled edits in force again; all of them if none is named."""
        self._switch(names, True)

    def disable(self, *names: str) -> None:
        """Take edits out of force but keep them loaded; all of them if none is named."""
        self._switch(names, False)

    def set_weights(self, weights: Mapping[str, Weight]) -> None:
        """Change the weights of loaded edits, by name.

        Raises:
            EditError: If no edit has a name, a weight is not a number, or one that was 0 brings an overlap back.
        """
        self._check_names(weights)
        changed = {
            name: replace(self._active[name], weight=checked_weight(self._active[name].edit, weight))
            for name, weight in weights.items()
        }
        self._change(changed)

    def list(self) -> tuple[LoadedEdit, ...]:
        """The loaded edits, first to last."""
        return tuple(self._active.values())

    def names(self) -> tuple[str, ...]:
        """The names of the loaded edits, first to last."""
        return tuple(self._active)

    @property
    def forced(self) -> tuple[str, ...]:
        """The names of the edits in force that were made for another base."""
        return tuple(each.name for each in self._active.values() if each.forced and each.is_on)

    def fuse(self) -> None:
        """Make the edits in force part of the model for good and unload all; there is no way back but loading the model again.

        Raises:
            EditError: If an edit in force adds a token, hooks a module or sets the start noise, which no weight can hold.
        """
        for each in self._active.values():
            kinds = {part.kind for part in each.edit.parts if not part.names()}
            if each.is_on and kinds:
                raise EditError(
                    f"{each.name}: expected only changes of weights to fuse, found {', '.join(sorted(kinds))}"
                )
        self._active, self._writes, self._stash = {}, {}, {}
        self._digest, self._left = None, None

    @contextmanager
    def applied(
        self, *edits: Edit | str | Path, weight: Weight = 1.0, force: bool = False, overlap: LoadOverlapPolicy = "error"
    ) -> Iterator[EditStack]:
        """Apply edits inside a ``with`` block; afterwards those that were there before remain."""
        added: list[str] = []
        try:
            for edit in edits:
                added.append(self.load(edit, weight=weight, force=force, overlap=overlap))
            yield self
        finally:
            with self._base_state():
                for name in added:
                    self._active.pop(name, None)
                    self._writes.pop(name, None)

    def fingerprint(self, *tensors: str) -> Fingerprint:
        """The fingerprint of the base model, whatever is applied; hashed again only if somebody else changed the weights.

        Raises:
            EditError: If another stack holds edits of the model.
        """
        self._check_others()
        with self._base_state():
            return self._base(tensors)

    @property
    def has_start_noise(self) -> bool:
        """Whether an edit in force says what to start sampling from."""
        return any(each.edit.of(InitialNoise) for each in self._active.values() if each.is_on)

    def start_noise(self, drawn: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c h w"]:
        """The noise to start sampling from, given what the seeds drew."""
        for each in self._active.values():
            for part in each.edit.of(InitialNoise) if each.is_on else ():
                drawn = part.blend(drawn, each.weight_at("noise"))
        return drawn

    def _switch(self, names: tuple[str, ...], enabled: bool) -> None:
        self._check_names(names)
        self._change({name: replace(self._active[name], enabled=enabled) for name in names or self._active})

    def _change(self, changed: dict[str, LoadedEdit]) -> None:
        after = self._active | changed
        with self._base_state() as tensors:
            for each in after.values():
                check_overlap(each, self._writes[each.name], self._before(each, after), tensors)
            self._active = after

    def _before(self, later: LoadedEdit, among: Mapping[str, LoadedEdit]) -> dict[str, Writes]:
        """What the edits in force before one of them write."""
        names = [*itertools.takewhile(lambda name: name != later.name, among)]
        return {name: self._writes[name] for name in names if among[name].is_on}

    def _base(self, tensors: Iterable[str]) -> Fingerprint:
        if self._digest is None and self._loaded is not None:
            self._digest = self._loaded.find()
        found = fingerprint(self.modules, self.name, tensors, digest=self._digest)
        self._digest = found.digest
        return found

    @contextmanager
    def _base_state(self) -> Iterator[dict[str, Tensor]]:
        """The base model inside the block; on leaving, what is active then is written."""
        tensors = named_tensors(self.modules)
        if self._left != _state(tensors):
            self._digest = None  # somebody else wrote to the model, so it has to be hashed again
        self._restore(tensors)
        try:
            yield tensors
        finally:
            self._write(tensors)
            self._left = _state(tensors)

    def _restore(self, tensors: Mapping[str, Tensor]) -> None:
        for name, (positions, entries) in self._stash.items():
            write_entries(tensors[name], positions, entries, is_cold=True)
        self._stash = {}

    def _write(self, tensors: Mapping[str, Tensor]) -> None:
        active = [each for each in self._active.values() if each.is_on]
        try:
            pending: Writes = {}
            for each in active:
                for name, writes in self._writes[each.name].items():
                    weighted = [replace(write, weight=each.weight_at(write.name)) for write in writes]
                    pending.setdefault(name, []).extend(write for write in weighted if write.weight != 0)
            for name, writes in pending.items():
                if writes:
                    positions = union([write.indices for write in writes])
                    self._stash[name] = (positions, read_entries(tensors[name], positions))
                for write in writes:  # right after they were read, while they are in the cache
                    apply(tensors[name], write)
            self._tokens.set([part for each in active for part in each.edit.of(TokenEmbedding)])
            hooked = [(part, each) for each in active for part in each.edit.parts if part.modules()]
            self._hooks.set([(self._tokens.as_read(part), each.weight_at) for part, each in hooked])
        except BaseException:  # Ctrl-C in the middle leaves the base, not half an edit
            self._restore(tensors)
            self._active, self._writes = {}, {}
            self._tokens.set([])
            self._hooks.set([])
            raise

    def _check_base(self, edit: Edit, force: bool, tensors: Mapping[str, Tensor]) -> bool:
        """Whether it had to be forced."""
        if self._digest is not None and edit.base.digest == self._digest:
            return False
        found = self._base(name for name in edit.base.sketches if name in tensors)
        reason = difference(edit.base, found)
        if reason and not force:
            raise EditError(
                f"made for base {edit.base.name} ({edit.base.digest[:12]}), "
                f"but this model is {self.name} ({found.digest[:12]}): {reason}"
            )
        return bool(reason)

    def _check_parts(self, edit: Edit) -> None:
        for part in edit.of(TokenEmbedding):
            if any(part.token in each.edit.tokens for each in self._active.values()):  # also if it is disabled now
                raise EditError(f"token {part.token!r} is already added by another edit; unload that one first")
            self._tokens.check(part)
        for part in edit.parts:
            self._hooks.check(part)

    def _check_others(self) -> None:
        for other in self._others:
            if other._active:
                held = ", ".join(other._active)
                raise EditError(
                    f"{self.name}: another stack holds edits of it ({held}); unload them there, or use that one"
                )

    def _check_names(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self._active:
                raise EditError(f"no edit {name!r} is applied; applied: {', '.join(self._active) or 'none'}")

    def _label(self, edit: Edit, name: str | None) -> str:
        if name is None:
            return self._free("+".join(edit.tokens) or "edit")
        if name in self._active:
            raise EditError(f"an edit {name!r} is already applied; remove it first or choose another name")
        return name

    def _free(self, stem: str) -> str:
        number = 1
        while (label := stem if number == 1 else f"{stem}-{number}") in self._active:
            number += 1
        return label


def _state(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, int, torch.dtype]]:
    return {name: (tensor.data_ptr(), tensor._version, tensor.dtype) for name, tensor in tensors.items()}
