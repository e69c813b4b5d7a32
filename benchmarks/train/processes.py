"""The processes that ``recipes/emoji-processes`` trains: opened or trained, drawn from, and compared with held-out scenes."""

from __future__ import annotations

import hashlib
import importlib
import sys
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from rich.progress import Progress
from torch import Tensor

from benchmarks.harness.cache import ResultCache
from benchmarks.harness.code import code_of
from benchmarks.harness.ledger import ROOT
from photopic.core.fingerprint import fingerprint
from photopic.data.pixels import from_pixels
from photopic.metrics.frechet import frechet_distance
from photopic.metrics.radial_spectrum import radial_spectrum
from photopic.models.diffusion.dimensionality import detail_deviations
from photopic.models.diffusion.loading import process_bytes
from photopic.models.diffusion.model import DiffusionModel
from photopic.models.dual_encoder import DualEncoder

RECIPE = ROOT / "recipes" / "emoji-processes"
FOLDER = ROOT / "runs" / "emoji-processes"
ENCODER = "emoji-clip-vit"
BATCH = 32
DRAWING = ("photopic.models.diffusion.solvers", "photopic.models.diffusion.model")


def recipe(module: str) -> Any:
    """A module of the recipe."""
    sys.path.insert(0, str(RECIPE))
    try:
        return importlib.import_module(module)
    finally:
        sys.path.remove(str(RECIPE))


@dataclass(frozen=True)
class Drawing:
    """Pictures of a run, drawn in one way; with noise as strong as the dropped details where they return, if ``subspace``."""

    name: str
    solver: str
    steps: int
    count: int
    subspace: bool = False


class Processes:
    """Trained runs and what is kept of their pictures.

    Args:
        cache: Where pictures are kept.
        folder: Where the recipe trains them; a run that is not there is trained, which takes up to twenty minutes.
    """

    def __init__(self, cache: ResultCache, folder: Path = FOLDER):
        self.cache, self.folder = cache, folder

    @cache  # noqa: B019 (one object a process)
    def model(self, name: str) -> DiffusionModel:
        """A run's model, trained if it is not there, after the one it starts from."""
        path = self.folder / name / "model"
        if not DiffusionModel.is_saved(path):
            kind, seed = name.rsplit("-", 1)
            start = recipe("variants").VARIANTS[kind].start
            if start is not None:
                self.model(f"{start}-{seed}")
            with Progress() as progress:
                recipe("train").train(name, self.folder, progress)
        return DiffusionModel.load(path)

    def returning(self, name: str) -> DiffusionModel:
        """The same model, with noise that has the deviation of the dropped details where they return: Subspace Diffusion."""
        model = self.model(name)
        clean = from_pixels(self.scenes(model.size)[:512])
        process = replace(model.process, inserted=detail_deviations(clean, model.process.pyramid))
        return DiffusionModel(model.network, process, model.size)

    def scenes(self, size: int, *, held_out: bool = False) -> UInt8[Tensor, "n size size 3"]:
        """Scenes it learnt from, or others."""
        found: Tensor = recipe("variants").pictures(size, held_out)
        return found

    def drawn(self, drawing: Drawing) -> UInt8[np.ndarray, "count size size 3"]:
        """Pictures of the seeds 0, 1, ..."""
        model = self.returning(drawing.name) if drawing.subspace else self.model(drawing.name)
        asked = [drawing.solver, drawing.steps, drawing.count, drawing.subspace]

        def make() -> np.ndarray:
            print(*asked, flush=True)
            starts = range(0, drawing.count, BATCH)
            batches = [range(start, min(start + BATCH, drawing.count)) for start in starts]
            return np.concatenate([model.draw(each, solver=drawing.solver, steps=drawing.steps) for each in batches])

        return self.cache.array({"model": digest(model), "drawn": asked, "code": code_of(*DRAWING)}, make)

    @cached_property
    def encoder(self) -> DualEncoder:
        """Whose features pictures are compared in."""
        return DualEncoder.load(ENCODER)

    @cache  # noqa: B019
    def reference(self, size: int) -> Float[np.ndarray, "n d"]:
        """Features of the held-out scenes."""
        return self.encoder.image_features(self.scenes(size, held_out=True).numpy()).numpy()

    @cache  # noqa: B019
    def spectrum(self, size: int) -> Float[np.ndarray, " frequencies"]:
        """Radial power of the held-out scenes."""
        return radial_spectrum(self.scenes(size, held_out=True).numpy())

    def distance(self, pictures: UInt8[np.ndarray, "n size size 3"]) -> float:
        """Fréchet distance to all held-out scenes of that size."""
        return frechet_distance(self.encoder.image_features(pictures).numpy(), self.reference(pictures.shape[1]))

    def floor(self, size: int, count: int) -> float:
        """What as many real scenes have, of those learnt from."""
        return self.distance(self.scenes(size)[:count].numpy())


def digest(model: DiffusionModel) -> str:
    """Of a network's weights and of the process."""
    process = hashlib.sha256(process_bytes(model.process, model.size)).hexdigest()
    return fingerprint({"network": model.network}, "network").digest[:16] + process[:16]


def chart() -> Any:
    """pyplot, drawing to files."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"axes.grid": True, "grid.alpha": 0.3, "font.size": 9, "axes.spines.top": False,
                            "axes.spines.right": False})  # fmt: skip
    return pyplot
