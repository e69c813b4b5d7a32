"""Where something was made: the machine and the versions, with nothing that names a host, a user or a path."""

from __future__ import annotations

import os
import platform
import re
import sys
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
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    """The model name on Linux, where ``platform.processor`` has none."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return found[1] if found else platform.processor() or platform.machine()
