"""photopic finds where a pretrained vision model keeps what it knows and changes it in small, exact, reversible edits.

Importing the package is light: torch is imported by the modules that need it, on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from photopic.guard.guarded import guarded
    from photopic.models import load

__version__ = "0.1.0"
__all__ = ["__version__", "guarded", "load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from photopic.models import load

        return load
    if name == "guarded":
        from photopic.guard.guarded import guarded

        return guarded
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
