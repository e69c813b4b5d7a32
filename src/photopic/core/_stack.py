"""Edits on a live model: exact revert in any order.

Nothing is ever subtracted. On any change the base entries kept aside are put back, the base entries of all positions the remaining
edits touch are kept aside, and the edits are written in the order they were added.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from photopic.core._edit import Edit, union
from photopic.core._entries import Write, apply, check_tensor, common, first_names, once, put, take
from photopic.core._parts import Shut, TokenRows
from photopic.core._tokens import AddedTokens, check_new_token, input_embedding
from photopic.core.errors import EditError
from photopic.core.fingerprint import Fingerprint, difference, fingerprint, named_tensors


@dataclass(frozen=True)
class _Active:
    edit: Edit
    weight: float
    writes: Mapping[str, list[Write]]  # by the first name of a shared parameter

    def touched(self, name: str) -> Tensor:
        return union([write.indices for write in self.writes[name]])


class EditStack:
    """The edits applied to one model.

    Args:
        modules: Component name to module.
        tokenizers: Tokenizers by the name of their text encoder, or by that name with ``tokenizer`` for ``text_encoder``. While a
            token is active, its place in this mapping holds a copy that knows the token; afterwards the original object.
        name: What to call the model in messages.

    Example:
        >>> linear = nn.Linear(2, 2)
        >>> base = fingerprint({"m": linear}, "tiny", ["m.weight"])
        >>> stack = EditStack({"m": linear})
        >>> with stack.applied(Edit((Shut({"m.weight": torch.tensor([0])}),), base)):
        ...     linear.weight[0, 0].item()
        0.0
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        tokenizers: MutableMapping[str, PreTrainedTokenizerBase] | None = None,
        name: str = "model",
    ):
        self.modules = modules
        self.tokenizers: MutableMapping[str, PreTrainedTokenizerBase] = {} if tokenizers is None else tokenizers
        self.name = name
        self._active: dict[str, _Active] = {}
        self._stash: dict[str, tuple[Tensor, Tensor]] = {}  # positions and base entries
        self._originals: dict[str, PreTrainedTokenizerBase] = {}
        self._added: list[AddedTokens] = []
        self._tokens: list[TokenRows] = []
        self._digest: str | None = None  # of the base
        self._left: dict[str, tuple[int, int, torch.dtype]] | None = None  # how the last change left the tensors

    def add(
        self,
        edit: Edit,
        *,
        weight: float = 1.0,
        name: str | None = None,
        force: bool = False,
        overlap: Literal["error", "last"] = "error",
    ) -> str:
        """Apply an edit on top of those already there.

        Args:
            edit: Made for this model, or for the same weights at another precision.
            weight: 0 leaves the model as it is, 1 is the edit itself; between, entries are interpolated. Tokens are added in full
                unless it is 0.
            name: What to call it; a free name is made from its token otherwise.
            force: Apply it to a different base whose touched tensors have the same shapes.
            overlap: What to do where it and an earlier edit touch the same entry and one of them sets values: refuse, or write it
                last.

        Returns:
            The name, for `remove`.

        Raises:
            EditError: For another base, unknown tensors, a name or token in use, an overlap, or a weight that is not a number.
        """
        if not math.isfinite(weight):
            raise EditError(f"weight: expected a finite number, found {weight}")
        label = self._label(edit, name)
        with self._base_state():
            self._check_base(edit, force)
            active = _Active(edit, float(weight), self._resolve(edit))
            if overlap == "error":
                self._check_overlap(label, active)
            self._check_tokens(edit)
            self._active[label] = active
        return label

    def remove(self, name: str) -> None:
        """Take one edit away; the others stay.

        Raises:
            EditError: If no edit has this name.
        """
        if name not in self._active:
            raise EditError(f"no edit {name!r} is applied; applied: {', '.join(self._active) or 'none'}")
        with self._base_state():
            del self._active[name]

    def clear(self) -> None:
        """Take all edits away: every byte is the base's again."""
        with self._base_state():
            self._active.clear()

    def names(self) -> tuple[str, ...]:
        """The names of the applied edits, first to last."""
        return tuple(self._active)

    @contextmanager
    def applied(self, *edits: Edit, weight: float = 1.0, force: bool = False) -> Iterator[EditStack]:
        """Apply edits inside a ``with`` block; afterwards those that were there before remain."""
        added: list[str] = []
        try:
            for edit in edits:
                added.append(self.add(edit, weight=weight, force=force))
            yield self
        finally:
            with self._base_state():
                for name in added:
                    self._active.pop(name, None)

    def fingerprint(self, *tensors: str) -> Fingerprint:
        """The fingerprint of the base model, whatever is applied; hashed again only if somebody else changed the weights."""
        with self._base_state():
            return self._base(tensors)

    def _base(self, tensors: Iterable[str]) -> Fingerprint:
        found = fingerprint(self.modules, self.name, tensors, digest=self._digest)
        self._digest = found.digest
        return found

    @contextmanager
    def _base_state(self) -> Iterator[None]:
        """The base model inside the block; on leaving, what is active then is written."""
        if self._left != self._state():
            self._digest = None  # somebody else wrote to the model, so it has to be hashed again
        self._restore()
        try:
            yield
        finally:
            self._write()
            self._left = self._state()

    def _state(self) -> dict[str, tuple[int, int, torch.dtype]]:
        return {n: (t.data_ptr(), t._version, t.dtype) for n, t in named_tensors(self.modules).items()}

    def _restore(self) -> None:
        tensors = named_tensors(self.modules)
        for name, (positions, entries) in self._stash.items():
            put(tensors[name], positions, entries)
        self._stash = {}

    def _write(self) -> None:
        tensors = named_tensors(self.modules)
        active = [each for each in self._active.values() if each.weight != 0]
        try:
            for name in sorted({name for each in active for name in each.writes}):
                positions = union([each.touched(name) for each in active if name in each.writes])
                self._stash[name] = (positions, take(tensors[name], positions))
            for each in active:
                for name, writes in each.writes.items():
                    for write in writes:
                        apply(tensors[name], write, each.weight)
            self._set_tokens([part for each in active for part in each.edit.parts if isinstance(part, TokenRows)])
        except BaseException:  # Ctrl-C in the middle leaves the base, not half an edit
            self._restore()
            self._active.clear()
            self._set_tokens([])
            raise

    def _set_tokens(self, tokens: list[TokenRows]) -> None:
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

    def _tokenizer_key(self, component: str) -> str:
        for key in (component, component.replace("text_encoder", "tokenizer")):
            if key in self.tokenizers and component in self.modules:
                return key
        raise EditError(
            f"{self.name}: has no text encoder {component} with a tokenizer; found {', '.join(self.tokenizers) or 'none'}"
        )

    def _check_base(self, edit: Edit, force: bool) -> None:
        if force:
            return
        known = named_tensors(self.modules)
        found = self._base(name for name in edit.base.sketches if name in known)
        reason = difference(edit.base, found)
        if reason:
            raise EditError(
                f"made for base {edit.base.name} ({edit.base.digest[:12]}), "
                f"but this model is {self.name} ({found.digest[:12]}): {reason}"
            )

    def _check_overlap(self, label: str, new: _Active) -> None:
        for other_label, other in self._active.items():
            if new.weight == 0 or other.weight == 0:
                continue
            for name in new.writes.keys() & other.writes.keys():
                pairs = [(a, b) for a in new.writes[name] for b in other.writes[name]]
                clashing = sum(common(a, b) for a, b in pairs if a.values is not None or b.values is not None)
                if clashing:
                    raise EditError(
                        f"{label} and {other_label} both touch {clashing} entries of {name} and disagree on their values; "
                        "pass overlap='last' to let the later one win"
                    )

    def _check_tokens(self, edit: Edit) -> None:
        for part in edit.parts:
            if isinstance(part, TokenRows):
                for component, row in part.rows.items():
                    key = self._tokenizer_key(component)
                    if any(part.token == other.token for other in self._tokens):
                        raise EditError(f"token {part.token!r} is already added by another edit; remove that one first")
                    check_new_token(self._originals.get(key, self.tokenizers[key]), part.token)
                    dim = input_embedding(self.modules[component]).weight.shape[-1]
                    if len(row) != dim:
                        raise EditError(f"token {part.token!r}: {component}: expected a row of {dim}, found {len(row)}")

    def _resolve(self, edit: Edit) -> dict[str, list[Write]]:
        """What to write, with every shared parameter under one name and its positions once."""
        tensors = named_tensors(self.modules)
        first = first_names(tensors)
        gathered: dict[str, list[Write]] = {}
        for part in edit.parts:
            if isinstance(part, TokenRows):
                continue
            for name, positions in part.indices.items():
                check_tensor(name, tensors.get(name), edit.base.shapes[name], self.name)
                values = None if isinstance(part, Shut) else part.values[name]
                gathered.setdefault(first[name], []).append(Write(positions, values))
        return {name: once(name, writes) for name, writes in sorted(gathered.items())}

    def _label(self, edit: Edit, name: str | None) -> str:
        if name is not None:
            if name in self._active:
                raise EditError(f"an edit {name!r} is already applied; remove it first or choose another name")
            return name
        stem = "+".join(edit.tokens) or "edit"
        number = 1
        while (label := stem if number == 1 else f"{stem}-{number}") in self._active:
            number += 1
        return label
