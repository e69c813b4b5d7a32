"""Decide whether to trust what a classifier says of an input. ``photopic.guard(model, ...)`` calls this package.

The name is that of the package and of its one verb, so the package can be called: the arguments are those of
``photopic.guard.guarded.guard``. Nothing heavy is imported before that.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from photopic.guard.guarded import GuardedModel


class _Guard(ModuleType):
    """The package as a function."""

    def __call__(self, *arguments: Any, **options: Any) -> GuardedModel:
        from photopic.guard.guarded import guard

        return guard(*arguments, **options)


sys.modules[__name__].__class__ = _Guard
