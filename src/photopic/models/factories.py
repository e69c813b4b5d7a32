"""``module:factory``: a model that a function of the user's own makes, named as Python imports it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from photopic.core.errors import ModelError
from photopic.models.files import first_line

T = TypeVar("T")
FACTORY = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")


def is_factory(name: str) -> bool:
    """Whether a name says ``module:factory`` and is no folder.

    Example:
        >>> is_factory("my_models:digits"), is_factory("owner/name")
        (True, False)
    """
    return FACTORY.fullmatch(name) is not None and not Path(name).exists()


def made(name: str) -> Any:
    """What the function returns, called without arguments; its module is sought in the working directory last.

    Args:
        name: As ``is_factory`` takes it.

    Raises:
        ModelError: If there is no such module or function, or it fails; one line says which.

    Example:
        >>> made("builtins:dict")
        {}
    """
    return _of_user(name, lambda: function_named(name)())


def function_named(name: str) -> Callable[..., Any]:
    """A function of the user's own, which is code that runs with the user's rights; its module is sought as ``made`` does.

    Args:
        name: As ``is_factory`` takes it.

    Raises:
        ModelError: If there is no such module or function; one line says which.

    Example:
        >>> function_named("math:sqrt")(4.0)
        2.0
    """

    def find() -> Callable[..., Any]:
        module, _, function = name.partition(":")
        found = getattr(_imported(module), function, None)
        if not callable(found):
            raise ModelError(f"{name}: {module} has no function {function}; check the spelling")
        return found

    return _of_user(name, find)


def _of_user(name: str, run: Callable[[], T]) -> T:
    """What the user's code gives; what it raises as one line."""
    try:
        return run()
    except ModelError:
        raise
    except ModuleNotFoundError as error:
        raise ModelError(f"{name}: there is no module {error.name}; name one that Python finds from here") from error
    except Exception as error:  # whatever the user's code raises
        raise ModelError(f"{name}: failed with {type(error).__name__}: {first_line(error)}") from error


def _imported(module: str) -> Any:
    """An installed module comes first: a file here that is called like one does not hide it."""
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        return import_module(module)
    finally:
        sys.path.reverse()  # so that the one added last goes, if here was there before
        sys.path.remove(here)
        sys.path.reverse()
