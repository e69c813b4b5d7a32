"""Where a module computes, also while its weights are elsewhere."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def device_of(module: nn.Module) -> torch.device:
    """The device of a module's parameters; of weights that accelerate offloads, where it brings them for a call.

    Example:
        >>> device_of(nn.Linear(1, 1))
        device(type='cpu')
    """
    found = next((each.device for each in module.parameters()), torch.device("cpu"))
    for part in module.modules() if found.type == "meta" else ():
        hook: Any = getattr(part, "_hf_hook", None)
        for each in getattr(hook, "hooks", (hook,)):
            if getattr(each, "execution_device", None) is not None:
                return torch.device(each.execution_device)
    return found
