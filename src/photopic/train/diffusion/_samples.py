"""What is looked at with every checkpoint: a sheet of drawn pictures, and their distance from given ones."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from photopic.core.runs import Run, read_log, write_atomically
from photopic.data.pictures import contact_sheet, png_bytes
from photopic.metrics.frechet import frechet_distance
from photopic.models.diffusion.model import DiffusionModel
from photopic.models.dual_encoder import DualEncoder

TOGETHER = 32  # pictures drawn at once


class Samples:
    """Sheets and distances of the models of one run.

    Args:
        images: The pictures it is trained on.
        count: Pictures on a sheet.
        measured: Pictures drawn for the Fréchet distance to as many given ones; fewer than two: none.
        run: Where sheets and distances are kept; None keeps none.
    """

    def __init__(self, images: UInt8[Tensor, "n h w 3"], count: int, measured: int, run: Run | None):
        self.count, self.run = count, run
        self.encoder = DualEncoder.load("emoji-clip-vit") if min(measured, len(images)) > 1 else None
        self.real = None if self.encoder is None else self._features(images[:measured].numpy())  # (n, width)
        lines = [] if run is None else read_log(run.folder)
        self.known = {line["step"]: line["distance"] for line in lines if "distance" in line}  # of a resumed run

    def look(self, model: DiffusionModel, step: int) -> Mapping[str, float]:
        """Write the sheet of a step and measure the distance, by its name; nothing where none is wanted."""
        if self.run is not None:
            place = self.run.folder / "samples" / f"{step:06d}.png"
            place.parent.mkdir(exist_ok=True)
            write_atomically(place, png_bytes(contact_sheet(list(_drawn(model, 0, self.count)))))
        if self.real is None:
            return {}
        if step not in self.known:
            self.known[step] = self._distance(model)
            if self.run is not None:
                self.run.log(step=step, distance=self.known[step])
        return {"distance": self.known[step]}

    def _distance(self, model: DiffusionModel) -> float:
        assert self.real is not None
        count = len(self.real)
        parts = [_drawn(model, first, min(first + TOGETHER, count)) for first in range(0, count, TOGETHER)]
        return frechet_distance(self._features(np.concatenate(parts)), self.real)

    def _features(self, pictures: UInt8[np.ndarray, "n h w 3"]) -> np.ndarray:
        assert self.encoder is not None
        return self.encoder.image_features(pictures).numpy()


def _drawn(model: DiffusionModel, first: int, last: int) -> UInt8[np.ndarray, "n h w 3"]:
    return model.draw(range(first, last), solver="dpm++", steps=15)
