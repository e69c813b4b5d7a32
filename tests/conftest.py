"""What holds for every test: shapes are checked, one torch thread, no network, no window, a cache of its own.

The jaxtyping hook checks every annotated argument and result of photopic with beartype; it must come before photopic
is imported.  Only where a shape is named does a call keep the sizes of its dimensions, which takes twenty times as long.
"""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from functools import partial, wraps
from tempfile import mkdtemp
from types import FunctionType
from typing import Any, ParamSpecArgs, get_args, get_type_hints

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["PHOTOPIC_CACHE"] = mkdtemp(prefix="photopic-cache-")  # not the user's

import jaxtyping
import pytest
import torch
from jaxtyping import AbstractArray, install_import_hook

shapes_checked = jaxtyping.jaxtyped
ALL_CHECKED, CHECKED_LATER = 500, 20  # a function's first calls in a process are all checked, then one in so many


def names_shapes(hint: Any) -> bool:
    """Whether a type is an array of a named shape, or made of some; arguments handed on are what beartype alone refuses."""
    if isinstance(hint, ParamSpecArgs) or (isinstance(hint, type) and issubclass(hint, AbstractArray)):
        return True
    return any(map(names_shapes, hint if isinstance(hint, list) else get_args(hint)))  # a list in Callable[[...], ...]


def checked_now(function: FunctionType, typechecker: Callable[[Any], Any]) -> Callable[..., Any]:
    """Shapes and types where shapes are named or a name is imported for its type alone; types alone elsewhere."""
    try:
        plain = not any(map(names_shapes, get_type_hints(function).values()))
    except NameError:
        plain = False
    return typechecker(function) if plain else shapes_checked(function, typechecker=typechecker)


def checked(function: Any = None, *, typechecker: Callable[[Any], Any]) -> Any:
    """What stands for ``jaxtyped``: the checks are made when a function is first called, and most never are."""
    if function is None:
        return partial(checked, typechecker=typechecker)
    if is_dataclass(function) and isinstance(vars(function).get("__init__"), FunctionType):
        function.__init__ = checked(function.__init__, typechecker=typechecker)
        return function
    # beartype alone keeps functions made within functions for ever, and with them all that they hold
    if not isinstance(function, FunctionType) or "<locals>" in function.__qualname__:
        return shapes_checked(function, typechecker=typechecker)
    made: list[Callable[..., Any]] = []
    calls = 0

    @wraps(function)
    def lazily(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        __tracebackhide__ = True
        if torch.compiler.is_compiling():  # which looks into the function itself, and not into how it is checked
            return function(*args, **kwargs)
        calls += 1
        if calls > ALL_CHECKED and calls % CHECKED_LATER:
            return function(*args, **kwargs)
        if not made:
            made.append(checked_now(function, typechecker))
        return made[0](*args, **kwargs)

    return lazily


jaxtyping.jaxtyped = checked
install_import_hook("photopic", "beartype.beartype")
gc.disable()  # until everything is imported
torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """Libraries and tests stay for good: the garbage collector need not look through them again, a second each time."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _no_cache_left() -> Iterator[None]:
    yield
    shutil.rmtree(os.environ["PHOTOPIC_CACHE"], ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _few_drawing_steps() -> Iterator[None]:
    """Of the pictures that tiny random models draw of what must not change, which are noise after any number of steps."""
    from photopic.learning.subject import collage, preservation

    with pytest.MonkeyPatch.context() as patch:
        for module in (collage, preservation):
            patch.setattr(module, "DRAWING_STEPS", 2)
        yield


@pytest.fixture(scope="module")
def model() -> Any:
    """A tiny random text-to-image model for the tests of one file, which leave it as it was."""
    from photopic.models.text_to_image.handle import TextToImage
    from tests.tiny import tiny_pipeline

    return TextToImage(tiny_pipeline(), "tiny")
