"""Ctrl-C that waits: inside a block it takes effect between two runs of a network, when nothing is half undone."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def interrupted_between_runs(network: nn.Module) -> Iterator[None]:
    """Inside the ``with`` block Ctrl-C takes effect before the network's next run, or at the end of the block.

    Python raises KeyboardInterrupt at any point of the main thread, also while something is being put back. Other threads get none.

    Args:
        network: Whose runs are waited for.

    Example:
        >>> with interrupted_between_runs(nn.Identity()):
        ...     pass
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    held: list[tuple[Any, Any]] = []  # (number, frame) of the signals that came meanwhile

    def deliver(*_: Any) -> None:
        if held:
            handler(*held.pop())

    signal.signal(signal.SIGINT, lambda number, frame: held.append((number, frame)))
    try:
        hook = network.register_forward_pre_hook(deliver)
        try:
            yield
        finally:
            hook.remove()
    finally:
        signal.signal(signal.SIGINT, handler)
        deliver()  # what came after the last run
