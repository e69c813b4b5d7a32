"""What went wrong, as the one line that a person reads: a mistake they can mend, or None for a bug of ours."""

from __future__ import annotations

import errno
import os
import re
import sys

from photopic.core.errors import PhotopicError

REMEDIES = {  # of the operating system's refusals, those a user can mend
    errno.ENOSPC: "free some space or choose another folder",
    errno.EDQUOT: "free some space or choose another folder",
    errno.EFBIG: "raise the limit on file sizes or choose another folder",
    errno.EROFS: "choose a folder that can be written",
    errno.EACCES: "choose a file or folder you may use",
    errno.EPERM: "choose a file or folder you may use",
    errno.ELOOP: "name a file that is there, not a link that leads to itself",
    errno.ENOENT: "check the spelling",
    errno.EISDIR: "name a file, not a folder",
    errno.ENOTDIR: "name a folder, not a file",
    errno.EEXIST: "choose another name",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def line_of(error: BaseException) -> str | None:
    """The line for an error a user can cause, or None for a bug of ours.

    Example:
        >>> line_of(OSError(28, "No space left on device", "out/0.png"))
        'out/0.png: no space left on device; free some space or choose another folder'
    """
    if isinstance(error, PhotopicError):
        return " ".join(str(error).split())
    code = _os_error_code(error)
    if code not in REMEDIES:
        return None
    name = getattr(error, "filename", None)
    return f"{f'{name}: ' if name else ''}{os.strerror(code).lower()}; {REMEDIES[code]}"


def _os_error_code(error: BaseException) -> int | None:
    """The number of the operating system's refusal; safetensors reports one only in its text."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error)) if type(error).__name__ == "SafetensorError" else None
    return int(found[1]) if found else None


def ran_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error is that memory ran out, or was raised because it did.

    Example:
        >>> ran_out_of_memory(MemoryError()), ran_out_of_memory(ValueError())
        (True, False)
    """
    if error is None:
        return False
    torch = sys.modules.get("torch")
    kinds = (MemoryError,) if torch is None else (MemoryError, torch.OutOfMemoryError)
    of_system = isinstance(error, OSError) and error.errno == errno.ENOMEM
    # torch has a type for accelerators alone, and a library that finds no room is an ImportError as any other
    said = isinstance(error, RuntimeError | ImportError) and re.search(
        r"DefaultCPUAllocator|map segment from .*object$", str(error)
    )
    return (
        isinstance(error, kinds) or of_system or bool(said) or ran_out_of_memory(error.__cause__ or error.__context__)
    )
