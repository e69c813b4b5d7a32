"""Peak memory of each training: a forked process runs three steps, and the growth of its resident set is read from Linux.

The preparation (pictures, captions and preservation pictures encoded) is the same for every method and is left out: the
mark is reset after the first step, and what is counted is the most that was resident in the next two beyond the loaded model.
"""

from __future__ import annotations

import ctypes
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


def peak_of(steps: Iterator[int]) -> int:
    """Bytes beyond what was resident before, at the most, in the second and third step of a training; Linux only.

    The training runs in a fork, so that this process stays as it is. It must hold no thread but its own.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            before = _resident("VmRSS")
            for step in steps:
                if step >= 1:  # steps before the first are the preparation
                    break
            ctypes.CDLL("libc.so.6").malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
            for _ in range(2):
                next(steps, None)
            os.write(writer, json.dumps(_resident("VmHWM") - before).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as stream:
        found = stream.read()
    os.waitpid(child, 0)
    if not found:
        raise RuntimeError("the measured training failed; its message is above")
    return int(json.loads(found))


def scratch() -> Path:
    """A folder for what the measured training writes."""
    return Path(tempfile.mkdtemp(prefix="race-"))


def _resident(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in the status of this process")
