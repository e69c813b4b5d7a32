"""What holds for every test: shapes are checked, one torch thread, no network, no window, a cache of its own.

The jaxtyping hook checks every annotated argument and result of photopic with beartype; it must come before photopic
is imported.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from tempfile import mkdtemp

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["PHOTOPIC_CACHE"] = mkdtemp(prefix="photopic-cache-")  # not the user's

import pytest
import torch
from jaxtyping import install_import_hook

install_import_hook("photopic", "beartype.beartype")
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _no_cache_left() -> Iterator[None]:
    yield
    shutil.rmtree(os.environ["PHOTOPIC_CACHE"], ignore_errors=True)
