"""Processes forked from this one, which has imported torch and all the rest already: starting anew takes seconds each."""

from __future__ import annotations

import io
import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from socket import socket
from typing import Any

from accelerate.state import AcceleratorState


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


def be_one_of_two(rank: int, port: str) -> None:
    """Make the surroundings that ``accelerate launch`` makes for processes on a CPU."""
    AcceleratorState._reset_state(reset_partial_state=True)  # what the forked process knew of its own
    os.environ |= {"ACCELERATE_USE_CPU": "true", "WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}


def both_at_work(work: Callable[..., None], folder: Path) -> list[Connection]:
    """Two processes that end well, and what they told."""
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    both = [started(work, rank, folder) for rank in (0, 1)]
    for _, connection in both:
        connection.send(port)
    for process, _ in both:
        process.join(120)
    assert [process.exitcode for process, _ in both] == [0, 0]
    return [connection for _, connection in both]
