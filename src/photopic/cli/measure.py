"""``photopic measure``: what a classifier or a denoiser is like inside, and how fast methods learn from few pictures.

photopic measure rank emoji-resnet-64-0 pictures/ -o rank.html
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from photopic import __version__
from photopic.cli import measure_fewshot, measure_slopes
from photopic.cli.outputs import check_output, write_report
from photopic.core.errors import DataError

if TYPE_CHECKING:
    from photopic.core.results import Report
    from photopic.data.class_folder import ClassFolder
    from photopic.models.classifier import Classifier

app = typer.Typer(
    help="Look inside a classifier or a denoiser, or compare methods that learn from few pictures.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Model = Annotated[str, typer.Argument(help="A bundled classifier, a folder with one of transformers, or a hub id.")]
Images = Annotated[
    Path,
    typer.Argument(help="Folder of pictures; for what needs true classes, one sub-folder a class, named as the class."),
]
LabelledImages = Annotated[
    Path, typer.Argument(help="Folder with one sub-folder of pictures a class, named as the model names the class.")
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="The report to write.", show_default="MODEL-COMMAND.html")
]
Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, mps, ...")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the report if it exists.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Also print all numbers as JSON on stdout, and nothing else there.")
]


class ToolName(StrEnum):
    """What ``rank`` measures, as words on the command line."""

    JACOBIAN = "jacobian"
    PERTURBATION = "perturbation"
    CLASSIFICATION = "classification"


@app.callback()
def measure() -> None:
    """Look inside a classifier or a denoiser, or compare methods that learn from few pictures."""


app.command(epilog=measure_fewshot.EPILOG)(measure_fewshot.fewshot)
app.command(epilog=measure_slopes.EPILOG)(measure_slopes.slopes)


@app.command(
    epilog="Example: photopic measure rank emoji-resnet-64-0 pictures/ -o rank.html    "
    "Exact ranks: photopic measure rank emoji-resnet-64-0 pictures/ --precision float64 --tool jacobian"
)
def rank(
    model: Model,
    images: Images,
    output: Output = None,
    tool: Annotated[
        list[ToolName] | None,
        typer.Option(
            help="What to measure; may be given several times. jacobian: directions of the input that reach a layer. "
            "perturbation: directions in which a layer answers to small noise. classification: principal components "
            "of the features that keep the accuracy.",
            show_default="all three",
        ),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(help="Name pattern of layers, such as '*.layers.?'; several times.", show_default="every block"),
    ] = None,
    threshold: Annotated[
        list[float] | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Count singular values above this share of the largest; several times. The published one is always "
            "there too.",
            show_default="0.01, 0.001 and 1e-8",
        ),
    ] = None,
    precision: Annotated[
        Literal["float32", "float64"],
        typer.Option(help="Arithmetic while measuring. Thresholds below about 1e-4 need float64, which is slower."),
    ] = "float32",
    patch: Annotated[
        int,
        typer.Option(min=0, help="Side in pixels of the square that varies, at the centre; 0 frees the whole input."),
    ] = 16,
    background: Annotated[
        Literal["zero", "image"], typer.Option(help="What is around the square: zeros, as published, or the picture.")
    ] = "zero",
    pictures: Annotated[int, typer.Option(min=1, help="Pictures the Jacobian is averaged over.")] = 3,
    perturbed: Annotated[int, typer.Option(min=1, help="Pictures the noise is averaged over; published: 100.")] = 3,
    samples: Annotated[
        int, typer.Option(min=2, help="Noisy copies of each, the most dimensions noise can show; published: 5000.")
    ] = 1000,
    noise: Annotated[
        float, typer.Option(min=1e-12, help="Standard deviation of the noise, in normalised pixels.")
    ] = 1e-3,
    keep: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the accuracy the classification dimension keeps.")
    ] = 0.95,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the noise.")] = 0,
    device: Device = "cpu",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """How many dimensions survive at each layer, and how many the classification needs.

    A rank is a count of singular values above a threshold, so the report gives it at several; without sub-folders of classes
    the classification is judged by the model's own predictions.
    """
    output = _output(output, model, "rank", overwrite)
    from photopic.cli.measure_page import rank_page
    from photopic.measure.network_rank import TOOLS, NetworkRankConfig, trace_network_rank

    handle, found = _loaded(model, images, device)
    config = NetworkRankConfig(
        tools=tuple(each for each in TOOLS if tool is None or each in tool),
        layers=tuple(layer) if layer else None,
        thresholds=tuple(threshold) if threshold else NetworkRankConfig.thresholds,
        dtype=precision,
        patch=patch or None,
        background=background,
        images=pictures,
        perturbed_images=perturbed,
        samples=samples,
        noise=noise,
        keep=keep,
        seed=seed,
    )
    events = trace_network_rank(handle, found, labels=found.labels(handle.labels), config=config)
    report = _followed(events)
    write_report(output, rank_page(report, _facts(handle, images, found)), report, as_json=as_json)


@app.command(
    epilog="Example: photopic measure deficit emoji-resnet-64-0 pictures/ -o deficit.html    "
    "Two classes only: photopic measure deficit emoji-resnet-64-0 pictures/ --class bear --class mug"
)
def deficit(
    model: Model,
    images: LabelledImages,
    output: Output = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class", help="A class to replace; several times.", show_default="all with three pictures or more"
        ),
    ] = None,
    keep: Annotated[int, typer.Option(min=1, help="Other classes that may replace one.")] = 10,
    rate: Annotated[
        float | None,
        typer.Option(min=0.0, help="Step size of the published descent. Default 1e-5, less where that would diverge."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the published descent.")] = 5000,
    penalty: Annotated[float, typer.Option(min=0.0, help="Its weight of the l1 norm.")] = 20.0,
    held_out: Annotated[
        float,
        typer.Option(min=0.01, max=0.9, help="Share of each class's pictures that no fit sees and all are judged on."),
    ] = 0.25,
    seed: Annotated[int, typer.Option(min=0, help="Seed of that split.")] = 0,
    device: Device = "cpu",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """How well a few other classes' logits replace each class's own.

    The published fit looks at pictures of the class alone; beside it stand exact sparse fits on the same pictures and on all,
    every one judged on pictures it has not seen.
    """
    output = _output(output, model, "deficit", overwrite)
    from photopic.cli.measure_page import deficit_page
    from photopic.measure.independence_deficit import DeficitConfig, trace_independence_deficit

    handle, found = _loaded(model, images, device)
    labels = found.labels(handle.labels)
    if labels is None:
        raise DataError(
            f"{images}: expected one sub-folder of pictures a class, found pictures without classes; "
            f"sort them into folders such as {handle.labels[0]}"
        )
    config = DeficitConfig(keep=keep, rate=rate, steps=steps, penalty=penalty, held_out=held_out, seed=seed)
    chosen = _class_numbers(handle, classes) if classes else None
    events = trace_independence_deficit(handle, found, labels, classes=chosen, config=config)
    report = _followed(events)
    write_report(output, deficit_page(report, _facts(handle, images, found)), report, as_json=as_json)


@app.command(
    epilog="Example: photopic measure dependencies emoji-resnet-64-0 pictures/ -o dependencies.html    "
    "Between networks: photopic measure dependencies emoji-resnet-64-0 pictures/ --other emoji-vit-64-0"
)
def dependencies(
    model: Model,
    images: Images,
    output: Output = None,
    other: Annotated[
        str | None,
        typer.Option(help="Another classifier whose classes are the predictors.", show_default="the model itself"),
    ] = None,
    error: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, help="A class depends on others if they leave at most this share of its variance."
        ),
    ] = 0.05,
    lambdas: Annotated[int, typer.Option(min=1, help="Penalties tried, from no predictor to many.")] = 20,
    centring: Annotated[
        Literal["standardised", "centred", "raw"],
        typer.Option(help="What is done to each class's logits before: mean 0 and variance 1, mean 0, or nothing."),
    ] = "standardised",
    gauge: Annotated[
        bool, typer.Option("--gauge", help="Subtract each picture's mean logit first, which the softmax does not see.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split into fitted, choosing and judging pictures.")] = 0,
    device: Device = "cpu",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Which classes are sums of a few others, inside one network or of another network's classes.

    Give five times as many pictures as there are classes; with sub-folders of classes the report also says what accuracy is
    left when a class's logit is replaced by the sum.
    """
    output = _output(output, model, "dependencies", overwrite)
    from photopic.cli.measure_page import dependencies_page
    from photopic.measure.neural_dependencies import DependencyConfig, trace_dependencies

    handle, found = _loaded(model, images, device)
    second = None if other is None else _loaded(other, images, device)[0]
    config = DependencyConfig(error=error, lambdas=lambdas, centring=centring, gauge=gauge, seed=seed)
    events = trace_dependencies(handle, found, labels=found.labels(handle.labels), other=second, config=config)
    facts = _facts(handle, images, found) + ([("other model", second.name)] if second else [])
    report = _followed(events)
    write_report(output, dependencies_page(report, facts), report, as_json=as_json)


def _output(output: Path | None, model: str, command: str, overwrite: bool) -> Path:
    output = output or Path(f"{Path(model).name}-{command}.html")
    check_output(output, overwrite=overwrite)
    return output


def _loaded(model: str, images: Path, device: str) -> tuple[Classifier, ClassFolder]:
    from photopic.data.class_folder import load_classes
    from photopic.models.classifier import Classifier
    from photopic.report.progress import console

    found = load_classes(images)
    with console().status(f"loading {model}"):
        return Classifier.load(model, device), found


def _class_numbers(handle: Classifier, names: list[str]) -> list[int]:
    unknown = [name for name in names if name not in handle.labels]
    if unknown:
        raise DataError(
            f"--class {unknown[0]}: expected a class of {handle.name}, such as {handle.labels[0]}; check the spelling"
        )
    return [handle.labels.index(name) for name in names]


def _followed(events: Iterator[Any]) -> Report:
    """Show the events of a measurement, one bar a stage, and return its report."""
    from photopic.report.progress import bars

    last: Any = None
    with bars() as shown:
        tasks: dict[str, Any] = {}
        for last in events:
            if last.warning:
                shown.console.print(f"note: {last.warning}", style="yellow", markup=False)
            if last.stage not in tasks:
                tasks[last.stage] = shown.add_task(last.stage, total=None, remark="")
            shown.update(tasks[last.stage], completed=last.done, total=last.total or None)
    report: Report = last.report
    return report


def _facts(handle: Classifier, images: Path, found: ClassFolder) -> list[tuple[str, str]]:
    classes = "without classes" if found.classes is None else f"in {len(set(found.classes)):,} classes"
    return [
        ("model", f"{handle.name}, {len(handle.labels):,} classes, {handle.parameter_count:,} weights"),
        ("pictures", f"{len(found):,} of {images.absolute().name}, {classes}"),
        ("photopic", __version__),
    ]
