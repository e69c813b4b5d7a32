"""What a long computation on a model reports while it runs, and what it writes down about itself."""

from __future__ import annotations

import hashlib
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from photopic.core.provenance import versions
from photopic.core.runs import Run, RunMismatchError

if TYPE_CHECKING:
    from photopic.core.edits import Edit
    from photopic.learning.subject.examples import Captioned
    from photopic.models.text_to_image.handle import TextToImage


@dataclass(frozen=True)
class Progress:
    """One event of a long loop; the last one carries the result.

    Attributes:
        stage: What is going on, such as ``preparing``, ``drawing``, ``locating``, ``tuning`` or ``done``.
        step: Steps done.
        steps: Steps in all.
        concept_loss: L_rec of the step, 0 where there is none yet.
        prior_loss: L_pre of the step, 0 where there is none.
        share: Share of the weights selected so far, 0 to 1.
        elapsed_s: Seconds since this process began.
        eta_s: Seconds still to go by the pace so far.
        warning: One line the user should see, or empty.
        edit: What was located or tuned, with the last event only.
        examples: The pictures and captions that were prepared, with the last event only.
    """

    stage: str
    step: int = 0
    steps: int = 0
    concept_loss: float = 0.0
    prior_loss: float = 0.0
    share: float = 0.0
    elapsed_s: float = 0.0
    eta_s: float = 0.0
    warning: str = ""
    edit: Edit | None = None
    examples: Captioned | None = None


def data_digest(images: Tensor, captions: Sequence[str]) -> str:
    """Hex sha256 of pictures and captions."""
    digest = hashlib.sha256(images.detach().cpu().contiguous().float().numpy().tobytes())
    digest.update("\n".join(captions).encode())
    return digest.hexdigest()


def peak_bytes(device: torch.device) -> int:
    """The largest memory this process ever held: on the device, or of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def environment(model: TextToImage) -> dict[str, Any]:
    """Versions and device, for the provenance of a result."""
    dtype = str(model.dtype).removeprefix("torch.")
    return {"versions": versions(), "device": str(model.device), "dtype": dtype}


def load_matching(run: Run, identity: str) -> tuple[dict[str, Tensor], int] | None:
    """The last checkpoint as (tensors, steps done), or None before the first.

    Raises:
        RunMismatchError: If it belongs to a computation with another identity.
    """
    found = run.load()
    if found is None:
        return None
    tensors, state = found
    if state["identity"] != identity:
        raise RunMismatchError(f"{run.folder}: holds another run (images, model or options differ); use another folder")
    return tensors, int(state["step"])
