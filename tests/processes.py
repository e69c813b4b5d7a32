"""Processes forked from this one, which has imported torch and all the rest already: starting anew takes seconds each."""

from __future__ import annotations

import io
import multiprocessing
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any


def started(work: Callable[..., Any], *arguments: Any) -> tuple[BaseProcess, Connection]:
    """A process that does ``work(connection, *arguments)``, and the end where what it sends arrives."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=work, args=(there, *arguments), daemon=True)
    with warnings.catch_warnings():  # Python 3.12 warns of the threads that the test runner has
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    there.close()  # so that a process that dies is seen as an end of its messages
    return process, here


def printed(code: str) -> str:
    """What code prints in a process that has forgotten photopic, and the type checks with it, but not the libraries below."""
    process, connection = started(_print, code)
    try:
        return str(connection.recv())
    finally:
        process.join(60)


def _print(connection: Connection, code: str) -> None:
    sys.meta_path[:] = [finder for finder in sys.meta_path if not type(finder).__module__.startswith("jaxtyping")]
    for name in [name for name in sys.modules if name.partition(".")[0] == "photopic"]:
        del sys.modules[name]
    with redirect_stdout(io.StringIO()) as out:
        exec(code, {})
    connection.send(out.getvalue())
