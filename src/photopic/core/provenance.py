"""Where something was made: the machine and the versions, with nothing that names a host, a user or a path."""

from __future__ import annotations

import os
import platform
import re
import resource
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("photopic", "torch", "diffusers", "transformers", "accelerate", "safetensors", "peft", "numpy", "pillow")


def machine() -> dict[str, Any]:
    """Processor, cores this process may use, memory, accelerator and system.

    Example:
        >>> sorted(machine())
        ['accelerator', 'cores', 'memory_gib', 'processor', 'system']
    """
    torch = sys.modules.get("torch")  # what has not imported torch has used no accelerator
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(pages / 2**30, 1),
        "accelerator": torch.cuda.get_device_name(0) if torch is not None and torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Versions of Python and of those of ``PACKAGES`` that are installed.

    Example:
        >>> versions()["photopic"]
        '0.1.0'
    """
    return dict(_installed())


@cache
def _installed() -> dict[str, str]:
    """Read once: what is imported stays, and reading the metadata of nine packages takes longer than a small network's run."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def stamped(result: Any, provenance: Mapping[str, Any]) -> Any:
    """The result with its provenance; what its own body wrote there counts more."""
    if is_dataclass(result) and any(each.name == "provenance" for each in fields(result)):
        own: Any = result
        return replace(own, provenance={**provenance, **own.provenance})
    if hasattr(result, "stamped"):  # a model, which keeps it in its folder
        return result.stamped(provenance)
    return result


def peak_bytes(device: Any) -> int:
    """The largest memory this process ever held: on the device, or of the whole process on a CPU."""
    if device.type == "cuda":
        return int(sys.modules["torch"].cuda.max_memory_allocated(device))  # who has a device has imported torch
    unit = 1 if sys.platform == "darwin" else 1024  # kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _processor() -> str:
    """The model name on Linux, where ``platform.processor`` has none."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return found[1] if found else platform.processor() or platform.machine()
