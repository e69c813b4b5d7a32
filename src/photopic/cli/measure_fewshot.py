"""``photopic measure fewshot``: learning curves of methods that learn from few pictures, as one report.

photopic measure fewshot pictures/ --model emoji-clip-vit --methods zero-shot,lora,full --shots 1,4,16
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from photopic import __version__
from photopic.cli.outputs import check_output, run_folder, write_report
from photopic.core.errors import DataError

if TYPE_CHECKING:
    from photopic.core.results import Report
    from photopic.data.few_shot import LabelledImages

EPILOG = (
    "Example: photopic measure fewshot emoji:held-out-style --methods zero-shot,tip-adapter,lora,mask --shots 1,4,16    "
    "Your pictures: photopic measure fewshot pictures/ --model openai/clip-vit-base-patch32"
)
TASK = "emoji:"
METHODS = "zero-shot,linear-probe,coop,tip-adapter,lora,bitfit,full,mask,tuners"


def fewshot(
    data: Annotated[
        str,
        typer.Argument(
            help="Folder with one sub-folder of pictures a class, named as the class; or emoji:held-out-style, "
            "emoji:held-out-concepts, emoji:groups."
        ),
    ],
    model: Annotated[
        str, typer.Option(help="A bundled dual encoder, a folder with one of transformers, or a hub id.")
    ] = "emoji-clip-vit",
    methods: Annotated[
        list[str] | None,
        typer.Option(
            help="Methods, with commas between: zero-shot, linear-probe, linear-adam, coop, tip-adapter, tip-adapter-f, lora, "
            "bitfit, full, mask, mask-plain, tuners.",
            show_default=METHODS,
        ),
    ] = None,
    shots: Annotated[
        str, typer.Option(help="Pictures of each class to learn from, with commas between.")
    ] = "1,2,4,8,16",
    seeds: Annotated[int, typer.Option(min=1, help="How often each is repeated, every time with other shots.")] = 3,
    base_to_new: Annotated[
        bool, typer.Option("--base-to-new", help="Learn the first half of the classes by name, measure on both halves.")
    ] = False,
    steps: Annotated[int, typer.Option(min=1, help="Steps of every method that takes steps.")] = 200,
    batch: Annotated[int, typer.Option(min=1, help="Pictures a step.")] = 32,
    augment: Annotated[bool, typer.Option(help="Crop pictures at random while learning.")] = True,
    rate: Annotated[
        float,
        typer.Option(help="Multiplies the learning rates, which fit the bundled encoders; larger models need less."),
    ] = 1.0,
    template: Annotated[
        list[str] | None,
        typer.Option(help="Sentence with {} where a class name goes; several times.", show_default="a photo of a {}."),
    ] = None,
    classes: Annotated[
        int | None, typer.Option(min=2, help="Classes of an emoji task.", show_default="as the task has it")
    ] = None,
    test_share: Annotated[
        float, typer.Option(min=0.01, max=0.99, help="Share of a folder's pictures of each class that is measured on.")
    ] = 0.5,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The report to write.", show_default="MODEL-fewshot.html")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Folder for what is done, kept afterwards.", show_default="OUTPUT.run, removed at the end"),
    ] = None,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, mps, ...")] = "cpu",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the report if it exists.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Also print all numbers as JSON on stdout, and nothing else there.")
    ] = False,
) -> None:
    """How well methods do with 1, 2, 4, ... pictures of each class, on the same shots and test pictures.

    Interrupted with Ctrl-C, the same command goes on where it stopped. With --run, more shots or methods can be added later.
    """
    names = _listed(",".join(methods) if methods else METHODS)
    counts = _numbers(shots)
    output = output or Path(f"{Path(model).name}-fewshot.html")
    check_output(output, overwrite=overwrite)
    from photopic.cli.measure_fewshot_page import fewshot_page
    from photopic.measure.few_shot import LearningCurveConfig, trace_learning_curve
    from photopic.models.dual_encoder import TEMPLATES, DualEncoder
    from photopic.report.progress import console
    from photopic.tune.few_shot.methods import able, learner

    templates = tuple(template) if template else TEMPLATES
    setup = {"steps": steps, "batch": batch, "augment": augment, "rate": rate, "templates": list(templates)}
    learners = {
        name: learner(name, steps=steps, batch=batch, augment=augment, rate=rate, templates=templates) for name in names
    }
    config = LearningCurveConfig(
        shots=counts, seeds=tuple(range(seeds)), protocol="base-to-new" if base_to_new else "all"
    )
    train, test = _data(data, max(counts), classes, test_share)
    with run_folder(run, output, done="cells/*.json") as folder:
        with console().status(f"loading {model}"):
            handle = DualEncoder.load(model, device)
        if methods is None:
            learners = {name: learners[name] for name in able(names, handle)}
        events = trace_learning_curve(
            handle, train, test, methods=learners, config=config, folder=folder, settings=setup
        )
        report = _followed(events)
        facts = [
            ("model", f"{handle.name}, {handle.parameter_count:,} weights"),
            ("pictures", f"{Path(data).name}, {len(train.names):,} classes, {len(test):,} to measure on"),
            ("learning", f"{steps:,} steps of {batch} pictures, {'cropped at random' if augment else 'as they are'}"),
            ("photopic", __version__),
        ]
        write_report(output, fewshot_page(report, facts), report, as_json=as_json)


def _followed(events: Iterator[Any]) -> Report:
    """Show the cells on one bar and the method at work on another, with its running accuracy; the report at the end."""
    from photopic.report.progress import bars

    last: Any = None
    with bars() as shown:
        cells = shown.add_task("cells", total=None, remark="")
        within = shown.add_task("learning", total=None, remark="")
        for last in events:
            if last.warning:
                shown.console.print(f"note: {last.warning}", style="yellow", markup=False)
            said = "" if last.accuracy is None else f", {last.accuracy:.1%} right"
            shown.update(cells, completed=last.done, total=last.total)
            shown.update(within, completed=last.step, total=last.steps or None, remark=f"{last.cell}{said}")
    report: Report = last.report
    return report


def _data(data: str, shots: int, classes: int | None, test_share: float) -> tuple[LabelledImages, LabelledImages]:
    from photopic.data.emoji_tasks import emoji_task
    from photopic.data.few_shot import labelled_folder, split

    if data.startswith(TASK):
        return emoji_task(data.removeprefix(TASK), classes=classes, train_per_class=max(16, shots))
    if classes is not None:
        raise DataError("--classes: is for emoji tasks; a folder has the classes it has, so leave it out")
    return split(labelled_folder(data), test_share, seed=0)


def _listed(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(each.strip() for each in text.split(",") if each.strip()))
    if not found:
        raise DataError("--methods: expected one or more names with commas between, found none")
    return found


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(each) for each in text.split(","))
    except ValueError:
        raise DataError(
            f"--shots: expected whole numbers with commas between, such as 1,4,16, found {text!r}"
        ) from None
