"""``photopic measure slopes``: how steep a denoiser is in time, as one page.

photopic measure slopes runs/plain emoji-scenes:16 -o slopes.html
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from photopic import __version__
from photopic.cli.outputs import check_output, write_report

if TYPE_CHECKING:
    from photopic.core.results import Report

EPILOG = (
    "Example: photopic measure slopes runs/plain pictures/ -o slopes.html    "
    "A text-to-image model: photopic measure slopes emoji-diffusion emoji-scenes --prompt 'a cat'"
)


def slopes(
    model: Annotated[
        str,
        typer.Argument(
            help="A folder of `photopic train diffusion`; or a text-to-image model: a bundled name, a folder, a hub id."
        ),
    ],
    data: Annotated[
        str,
        typer.Argument(
            help="A folder of pictures, or emoji-scenes: scenes of the emoji world, emoji-scenes:5000 for so many."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The report to write.", show_default="MODEL-slopes.html")
    ] = None,
    pictures: Annotated[int, typer.Option(min=1, help="Pictures the slope is averaged over.")] = 16,
    every: Annotated[
        int, typer.Option(min=0, help="Measure every timestep below this one, where slopes are large.")
    ] = 120,
    apart: Annotated[int, typer.Option(min=1, help="Timesteps between the two that are compared.")] = 1,
    points: Annotated[int, typer.Option(min=1, help="Timesteps measured above.")] = 40,
    prompt: Annotated[str, typer.Option(help="What a text-to-image model is told.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Of the noise, the same at every timestep.")] = 0,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, mps, ...")] = "cpu",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the report if it exists.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Also print all numbers as JSON on stdout, and nothing else there.")
    ] = False,
) -> None:
    """How much a denoiser's prediction changes from one timestep to the next: its slope in time.

    Near t = 0 the best prediction changes ever faster; `train diffusion --share` lets neighbouring timesteps share one time
    there, and then the slope is exactly 0 inside every interval.
    """
    output = output or Path(f"{Path(model).absolute().name}-slopes.html")
    check_output(output, overwrite=overwrite)
    from photopic.measure.denoiser import probed
    from photopic.models.diffusion.shared_timesteps import slope_report
    from photopic.models.diffusion.shared_timesteps import slopes as measured
    from photopic.report.progress import bars, console

    with console().status(f"loading {model}"):
        found = probed(model, prompt=prompt, device=device)
        from photopic.data.sources import read_pictures

        clean = found.clean(read_pictures(data, found.size, scenes=pictures)[:pictures])
    timesteps = _timesteps(found.process, every, points, apart)
    curve = []
    with bars() as shown:
        task = shown.add_task("slopes", total=len(timesteps), remark="")
        for each in measured(found.process, found.denoiser, clean, timesteps, apart=apart, seed=seed):
            curve.append(each)
            shown.update(task, advance=1, remark=f"K({each.timestep}, {each.timestep + apart}) = {each.value:.4g}")
    report = slope_report(found.process, curve, model=found.name, apart=apart, seed=seed, prompt=prompt)
    facts = [("model", found.name), ("pictures", f"{len(clean)} of {data}"), ("photopic", __version__)]
    write_report(output, slopes_page(report, facts), report, as_json=as_json)


def _timesteps(process: Any, every: int, points: int, apart: int) -> list[int]:
    """All below ``every``, some above; none whose partner lies beyond a turning point or the end."""
    last = process.timesteps - apart
    if last < 1:
        return [0]  # refused by the probe, which says why
    above = range(every, last, max(1, (last - every) // points))
    return [t for t in (*range(min(every, last)), *above) if process.level(t) == process.level(t + apart)]


def slopes_page(report: Report, facts: list[tuple[str, str]]) -> str:
    """The page: the curve near 0, the whole curve, and the numbers.

    Args:
        report: What ``slope_report`` made.
        facts: (name, value) pairs for the foot of the page.
    """
    from photopic.core.view import Lines, Section, Table, Text
    from photopic.report.html import render

    curve = [(row["timestep"], row["K"]) for row in report.rows]
    near = [each for index, each in enumerate(curve) if each[0] == curve[0][0] + index]  # one after the other
    positive = [(t + 1.0, value) for t, value in curve if value > 0]
    flat = report.values["flat"]
    blocks: list[Any] = [
        Text(
            "K(t, t') is the mean length of the change of the prediction from timestep t to t', on noisy pictures of "
            "timestep t, over t' - t. Where it is exactly 0 both timesteps tell the network one time."
        ),
        Lines([("K", [(float(t), value) for t, value in near])], "timestep", "K(t, t')", caption="Near t = 0."),
    ]
    if positive:
        caption = "All timesteps, both axes in decades" + (
            f"; {flat} of {len(curve)} with K = 0 are left out." if flat else "."
        )
        blocks.append(Lines([("K", positive)], "timestep + 1", "K(t, t')", log_x=True, log_y=True, caption=caption))
    table = [(f"{t:,}", f"{value:.5g}") for t, value in curve]
    lead = f"Steepest at timestep {report.values['at']}: {report.values['largest']:.4g}."
    lead += f" Exactly flat at {flat} of {len(curve)} timesteps." if flat else ""
    told = [*facts, ("apart", str(report.provenance["apart"])), ("seed of the noise", str(report.provenance["seed"]))]
    if report.provenance["prompt"]:
        told.append(("prompt", report.provenance["prompt"]))
    sections = [Section("Slope in time", blocks), Section("Numbers", [Table(("timestep", "K"), table)])]
    return render(f"How steep {report.provenance['model']} is in time", sections, lead=lead, facts=told)
