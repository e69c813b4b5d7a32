"""Edits on a live model: exact revert in any order.

Nothing is ever subtracted. On any change the base entries kept aside are put back, the base entries of all positions the remaining
edits touch are kept aside, and the edits are written in the order they were added. Whatever interrupts a change leaves the base.
"""

from __future__ import annotations

import itertools
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from photopic.core.edits.activations import InitialNoise
from photopic.core.edits.changing import Active, Changes
from photopic.core.edits.edit import Edit
from photopic.core.edits.file import load as load_file
from photopic.core.edits.live_model import LiveModel, Modules
from photopic.core.edits.overlap import Writes, check_overlap, resolved
from photopic.core.edits.stack_item import LoadedEdit, LoadOverlapPolicy, Weight, checked_weight
from photopic.core.errors import EditError
from photopic.core.fingerprint_cache import LoadedDigest
from photopic.core.frozen import frozen_weights
from photopic.core.identity import Fingerprint


class EditStack(Changes):
    """The edits applied to one model.

    Of several stacks on one model, or on a model and a part of it, only one at a time may hold edits: each keeps aside what it
    overwrites, and what another one wrote is not the base. They share one lock, which every change takes and which ``applied``
    holds for its whole block, so that threads take turns.

    Args:
        modules: Component name to module, or a function that gives them as they are now and is called at every use.
        tokenizers: Tokenizers by the name of their text encoder, or by that name with ``tokenizer`` for ``text_encoder``. They
            know the words of the edits in force, and stay the same objects.
        name: What to call the model in messages.
        loaded: The digest of the files the model was loaded from; spares hashing it.

    Example:
        >>> from photopic.core.edits import ZeroedWeights
        >>> from photopic.core.fingerprint import fingerprint
        >>> linear = nn.Linear(2, 2)
        >>> base = fingerprint({"m": linear}, "tiny", ["m.weight"])
        >>> stack = EditStack({"m": linear})
        >>> with stack.applied(Edit((ZeroedWeights({"m.weight": torch.tensor([0])}),), base)):
        ...     linear.weight[0, 0].item()
        0.0
    """

    def __init__(
        self,
        modules: Modules | Callable[[], Modules],
        tokenizers: Mapping[str, PreTrainedTokenizerBase] | None = None,
        name: str = "model",
        loaded: LoadedDigest | None = None,
    ):
        super().__init__(LiveModel(modules, {} if tokenizers is None else tokenizers, name, loaded))

    def __del__(self) -> None:
        if self.__dict__.get("_active") and not sys.is_finalizing():
            try:
                self.clear()
            except EditError as error:
                warnings.warn(f"edits left in force: {error}", stacklevel=2)

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

        with self._locked():  # from the choice of a free name on
            read, label = self._named(edit, name)

            def with_it(tensors: Mapping[str, Tensor]) -> Active:
                forced = self._live.check_base(read, force, tensors)
                loaded = LoadedEdit(label, read, checked_weight(read, weight), forced=forced, overlap=overlap)
                self._live.check_parts(read, self._active.values())
                writes = resolved(read, tensors, self.name, self.modules)
                check_overlap(loaded, writes, self._before(loaded, self._active), tensors)
                self._writes[label] = writes
                return self._active | {label: loaded}

            self._change(with_it)
        return label

    def unload(self, *names: str) -> None:
        """Take edits away; the others stay.

        Raises:
            EditError: If no edit has this name.
        """
        self._check_names(names)
        self._change(lambda _: {name: each for name, each in self._active.items() if name not in names})

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
        self._reweight(changed)

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
        with self._locked():
            self._live.tensors(self._active)
            for each in self._active.values():
                kinds = {part.kind for part in each.edit.parts if not part.names()}
                beside = frozen_weights(self.modules, each.edit.base.shapes)
                if each.is_on and beside:
                    raise EditError(
                        f"{each.name}: expected plain weights to fuse, found quantised ones ({min(beside)}); leave it applied"
                    )
                if each.is_on and kinds:
                    raise EditError(
                        f"{each.name}: expected only changes of weights to fuse, found {', '.join(sorted(kinds))}"
                    )
            self.forget()

    def forget(self) -> None:
        """Unload all without writing a weight: what stands there now is the model. Words and hooks of edits go.

        For a model that somebody else wrote to while edits were in force, which is refused everywhere else because the base's
        entries would be written over theirs.
        """
        with self._locked():
            self._live.forget()
            self._active, self._writes = {}, {}

    @contextmanager
    def applied(
        self, *edits: Edit | str | Path, weight: Weight = 1.0, force: bool = False, overlap: LoadOverlapPolicy = "error"
    ) -> Iterator[EditStack]:
        """Apply edits inside a ``with`` block; afterwards those that were there before remain.

        No other thread can change the edits of the model, or enter such a block, before this one has left.
        """
        added: list[str] = []
        with self._locked():
            try:
                try:
                    for edit in edits:
                        edit, label = self._named(edit, None)
                        added.append(label)  # first, as an interrupt may come right after it was loaded
                        self.load(edit, name=label, weight=weight, force=force, overlap=overlap)
                    yield self
                finally:
                    self._take_away(added)
            finally:  # again: an interrupt may have come before the first could begin
                self._take_away(added)

    def fingerprint(self, *tensors: str) -> Fingerprint:
        """The fingerprint of the base model, whatever is applied; hashed again only if somebody else changed the weights.

        Raises:
            EditError: If another stack holds edits of the model.
        """
        found: list[Fingerprint] = []

        def look(*_: Any) -> Active:
            found.append(self._live.base(tensors))
            return self._active

        self._change(look)
        return found[0]

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
        self._reweight({name: replace(self._active[name], enabled=enabled) for name in names or self._active})

    def _reweight(self, changed: Active) -> None:
        def checked(tensors: Mapping[str, Tensor]) -> Active:
            after = self._active | changed
            for each in after.values():
                check_overlap(each, self._writes[each.name], self._before(each, after), tensors)
            return after

        self._change(checked)

    def _take_away(self, names: Iterable[str]) -> None:
        if gone := [name for name in names if name in self._active]:
            self.unload(*gone)

    def _before(self, later: LoadedEdit, among: Mapping[str, LoadedEdit]) -> dict[str, Writes]:
        """What the edits in force before one of them write."""
        names = [*itertools.takewhile(lambda name: name != later.name, among)]
        return {name: self._writes[name] for name in names if among[name].is_on}

    def _check_names(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self._active:
                raise EditError(f"no edit {name!r} is applied; applied: {', '.join(self._active) or 'none'}")

    def _named(self, edit: Edit | str | Path, name: str | None) -> tuple[Edit, str]:
        """An edit, read if it is a path, and what it will be called."""
        if name in self._active:
            raise EditError(f"an edit {name!r} is already applied; unload it first or choose another name")
        if isinstance(edit, Edit):
            return edit, name or self._free("+".join(edit.tokens) or "edit")
        return load_file(edit), name or self._free(Path(edit).stem)

    def _free(self, stem: str) -> str:
        number = 1
        while (label := stem if number == 1 else f"{stem}-{number}") in self._active:
            number += 1
        return label
