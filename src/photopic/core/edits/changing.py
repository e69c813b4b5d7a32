"""One change of the edits of a model at a time: all or nothing, whatever interrupts it and whichever thread asks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from photopic.core.edits.live_model import LiveModel
from photopic.core.edits.overlap import Writes
from photopic.core.edits.stack_item import LoadedEdit
from photopic.core.errors import EditError

Active = dict[str, LoadedEdit]
_OF_MODULE: WeakKeyDictionary[nn.Module, WeakSet[Changes]] = WeakKeyDictionary()  # those that may write to it


class Changes:
    """The edits loaded on a live model, and the lock that everything shares which changes the same modules."""

    def __init__(self, live: LiveModel):
        self._live = live
        self._active: Active = {}
        self._writes: dict[str, Writes] = {}  # of each edit
        self._join()

    def _join(self) -> None:
        """Find the other stacks of the same modules, and agree on one lock."""
        self._others: WeakSet[Changes] = WeakSet()
        self._lock: threading.RLock | None = threading.RLock()
        parts = {part for module in self.modules.values() for part in module.modules()}
        for other in {other for part in parts for other in _OF_MODULE.setdefault(part, WeakSet())}:
            self._others.add(other)
            other._others.add(self)
        for part in parts:
            _OF_MODULE[part].add(self)
        with ExitStack() as held:  # nobody is amid a change while several locks become one
            for lock in sorted({other._lock for other in self._others if other._lock is not None}, key=id):
                held.enter_context(lock)
                self._lock = lock
            for other in self._others:
                other._lock = self._lock

    def __getstate__(self) -> dict[str, Any]:
        return {"_live": self._live, "_active": self._active, "_writes": self._writes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy holds the same edits on the copy of the model, which may not be complete yet."""
        self.__dict__.update(state, _others=WeakSet(), _lock=None)

    @property
    def name(self) -> str:
        """What messages call the model."""
        return self._live.name

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """The components as they are now."""
        return self._live.modules

    @property
    def tokenizers(self) -> Mapping[str, PreTrainedTokenizerBase]:
        """The tokenizers, which know the words of the edits in force."""
        return self._live.tokens.tokenizers

    def _locked(self) -> threading.RLock:
        if self._lock is None:  # of a copy, used for the first time
            self._join()
        assert self._lock is not None
        return self._lock

    def _change(self, decide: Callable[[dict[str, Tensor]], Active]) -> None:
        """Put the base back, ask which edits are to be loaded, and write them; on a refusal those that were, else none.

        Twice ``finally``, because an interrupt may hit the first before it begins.
        """
        with self._locked():
            self._check_others()
            tensors, settled = self._live.tensors(self._active), False
            try:
                try:
                    self._live.put_back(tensors)
                    try:
                        self._active = decide(tensors)
                    except Exception:
                        self._write(tensors)
                        settled = True
                        raise
                    self._write(tensors)
                    settled = True
                finally:
                    if not settled:
                        self._drop(tensors)
            finally:
                if not settled:
                    self._drop(tensors)

    def _write(self, tensors: dict[str, Tensor]) -> None:
        self._writes = {name: self._writes[name] for name in self._active}
        self._live.write(tensors, tuple(self._active.values()), self._writes)

    def _drop(self, tensors: dict[str, Tensor]) -> None:
        """The base with nothing loaded, from wherever a change was interrupted."""
        self._live.put_back(tensors)
        self._active = {}
        self._write(tensors)

    def _check_others(self) -> None:
        for other in self._others:
            if other._active:
                held = ", ".join(other._active)
                raise EditError(
                    f"{self.name}: another stack holds edits of it ({held}); unload them there, or use that one"
                )
