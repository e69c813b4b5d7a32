"""What holds for every test: shapes are checked, one torch thread, no network, no window.

The jaxtyping hook checks every annotated argument and result of photopic with beartype; it must come before photopic
is imported.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["MPLBACKEND"] = "Agg"

import torch
from jaxtyping import install_import_hook

install_import_hook("photopic", "beartype.beartype")
torch.set_num_threads(1)
