"""How steep a denoiser is in time: how much its prediction changes from one timestep to the next.

Paper: Lipschitz Singularities in Diffusion Models (arXiv:2306.11251), whose K(t, t') this is. Claims: ``shared_timesteps.*`` of
benchmarks/train/shared_timesteps.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge

from photopic.core.config import Config
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.results import Report
from photopic.core.view import Lines, Section, Table, Text, View
from photopic.data.picture_set import PictureSet
from photopic.measure.denoiser import probed
from photopic.models.diffusion.process import Diffusion
from photopic.models.diffusion.shared_timesteps import slope_report, slopes
from photopic.models.handle import Handle


@dataclass(frozen=True, kw_only=True)
class SlopesConfig(Config):
    """Where to measure."""

    pictures: Annotated[int, Ge(1)] = 16  # pictures the slope is averaged over
    every: Annotated[int, Ge(0)] = 120  # measure every timestep below this one, where slopes are large
    apart: Annotated[int, Ge(1)] = 1  # timesteps between the two that are compared
    points: Annotated[int, Ge(1)] = 40  # timesteps measured above
    prompt: str = ""  # what a text-to-image model is told
    seed: Annotated[int, Ge(0)] = 0  # seed of the noise, the same at every timestep


def slopes_view(report: Report) -> View:
    """The page: the curve near 0, the whole curve, and the numbers."""
    values, about = report.values, report.provenance
    curve = [(row["timestep"], row["K"]) for row in report.rows]
    near = [each for index, each in enumerate(curve) if each[0] == curve[0][0] + index]  # one after the other
    positive = [(t + 1.0, value) for t, value in curve if value > 0]
    flat = values["flat"]
    blocks: list[Any] = [
        Text(
            "K(t, t') is the mean length of the change of the prediction from timestep t to t', on noisy pictures of "
            "timestep t, over t' - t. Where it is exactly 0 both timesteps tell the network one time."
        ),
        Lines([("K", [(float(t), value) for t, value in near])], "timestep", "K(t, t')", caption="Near t = 0."),
    ]
    if positive:
        left_out = f"; {flat} of {len(curve)} with K = 0 are left out." if flat else "."
        caption = f"All timesteps, both axes in decades{left_out}"
        blocks.append(Lines([("K", positive)], "timestep + 1", "K(t, t')", log_x=True, log_y=True, caption=caption))
    table = [(f"{t:,}", f"{value:.5g}") for t, value in curve]
    lead = f"Steepest at timestep {values['at']}: {values['largest']:.4g}."
    lead += f" Exactly flat at {flat} of {len(curve)} timesteps." if flat else ""
    facts = [("model", str(about["model"])), ("pictures", f"{about['pictures']} of {about['of']}")]
    facts += [(name, str(about["config"][name])) for name in ("apart", "seed", "prompt") if about["config"][name] != ""]
    sections = [Section("Slope in time", blocks), Section("Numbers", [Table(("timestep", "K"), table)])]
    return View(f"How steep {about['model']} is in time", sections, lead=lead, facts=facts)


@method(
    paper="arXiv:2306.11251",
    claims="shared_timesteps.",
    command="measure slopes",
    examples=(
        "Example: photopic measure slopes runs/plain pictures/ -o slopes.html",
        "A text-to-image model: photopic measure slopes emoji-diffusion emoji-scenes --prompt 'a cat'",
    ),
    view=slopes_view,
    allow_edits=True,
)
def denoiser_slopes(model: Handle, data: PictureSet, *, config: SlopesConfig = SlopesConfig()) -> Steps[Report]:
    """How much a denoiser's prediction changes from one timestep to the next: its slope in time.

    Near t = 0 the best prediction changes ever faster; `train diffusion --share` lets neighbouring timesteps share one time
    there, and then the slope is exactly 0 inside every interval.

    Args:
        model: A folder of `photopic train diffusion`; or a text-to-image model, which is a bundled name, a folder or a hub id.
        data: Pictures that the noisy ones are drawn around.
        config: Where to measure.

    Returns:
        K a timestep.

    Raises:
        ModelError: If the model is no denoiser, reads no text and a prompt is given, or no two timesteps are so far apart.
        DataError: If there is no picture.

    Example:
        >>> denoiser_slopes(model, PictureSet("emoji-scenes:16")).values["largest"]  # doctest: +SKIP
        71.3
    """
    found = probed(model, prompt=config.prompt)  # type: ignore[arg-type]  # what is no denoiser it refuses
    yield Event("preparing")
    clean = found.clean(data.read(found.size, scenes=config.pictures)[: config.pictures])
    timesteps = timesteps_of(found.process, config.every, config.points, config.apart)
    curve = []
    for each in slopes(found.process, found.denoiser, clean, timesteps, apart=config.apart, seed=config.seed):
        curve.append(each)
        yield Event("slopes", len(curve), len(timesteps), {"K": each.value})
    return slope_report(found.process, curve, of=data.word)


def timesteps_of(process: Diffusion, every: int, points: int, apart: int) -> list[int]:
    """All below ``every``, some above; none whose partner lies beyond a turning point or the end."""
    last = process.timesteps - apart
    if last < 1:
        return [0]  # refused by the probe, which says why
    above = range(every, last, max(1, (last - every) // points))
    return [t for t in (*range(min(every, last)), *above) if process.level(t) == process.level(t + apart)]
