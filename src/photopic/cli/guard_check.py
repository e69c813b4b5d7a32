"""``photopic guard check``: which pictures of a folder to trust.

photopic guard check emoji.guard pictures/
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from photopic.calls.inputs import files, places
from photopic.cli.careful import DeviceOption, ModelOption
from photopic.cli.says import REJECTED, say_json
from photopic.core.errors import DataError

if TYPE_CHECKING:
    from photopic.data.class_folder import ClassFolder
    from photopic.guard.guarded import GuardedModel, Prediction

EPILOG = "Example: photopic guard check emoji.guard pictures/    For a program: photopic guard check emoji.guard pictures/ --json"


def check(
    guard: Annotated[Path, typer.Argument(help="A file of photopic guard fit.", callback=files)],
    pictures: Annotated[
        Path,
        typer.Argument(help="A picture, a folder of pictures, or one of sub-folders of pictures.", callback=places),
    ],
    model: ModelOption = None,
    device: DeviceOption = "cpu",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print everything as JSON on stdout and nothing else.")
    ] = False,
) -> None:
    """Accept or reject each picture, with the score, the threshold and the reason.

    A score is higher the less usual a picture is; p is the share of clean pictures at least as unusual. Leaves with status 0 if
    every picture is accepted, 1 if one is rejected, 2 on trouble.
    """
    from photopic.guard.guarded import load_guarded
    from photopic.guard.verdicts import verdicts
    from photopic.models.classifier import Classifier
    from photopic.report.progress import waiting
    from photopic.report.terminal import plain

    found = _pictures(pictures)
    with waiting("loading") as status:
        made = load_guarded(guard, Classifier.load(model or _named(guard), device))
        judged: list[Prediction] = []
        for each in made.stream(found):
            judged += each
            status.update(plain(f"{made.model.name}: {len(judged):,} of {len(found):,} pictures"))
    names = [_name(file, pictures) for file in found.files]
    if as_json:
        say_json(verdicts(made, guard.name, names, judged))
    else:
        _print(made, names, judged)
    if not all(each.verdict.accepted for each in judged):
        raise typer.Exit(REJECTED)


def _named(guard: Path) -> str:
    """The model a guard was fitted on, where its name leads to it."""
    from photopic.guard.guardfile import load
    from photopic.models.classifier import bundled_classifiers

    name = load(guard).model
    if name not in bundled_classifiers() and "/" not in name:
        raise DataError(f"{guard}: was fitted on the folder {name}; say where it is: --model FOLDER")
    return name


def _pictures(path: Path) -> ClassFolder:
    from photopic.data.class_folder import ClassFolder, load_classes

    return ClassFolder((path,), None) if path.is_file() else load_classes(path)


def _name(file: Path, given: Path) -> str:
    return file.name if file == given else file.relative_to(given).as_posix()


def _print(made: GuardedModel, names: Sequence[str], judged: Sequence[Prediction]) -> None:
    from rich.console import Console

    from photopic.report.terminal import plain, table

    shown = Console(highlight=False)
    columns = [column for check in made.checks for column in (f">{check.replace('_', ' ')}", ">threshold")]
    made_of = table(plain(made.model.name), "picture", "", "taken for", ">probability", *columns, "because")
    for name, each in zip(names, judged, strict=True):
        evidence = each.verdict.evidence
        numbers = [f"{evidence[check][key]:.4g}" for check in made.checks for key in ("score", "threshold")]
        mark = "[green]accept[/]" if each.verdict.accepted else "[red]reject[/]"
        made_of.add_row(
            plain(name), mark, plain(each.label), f"{each.probability:.2f}", *numbers, plain(each.verdict.reason)
        )
    shown.print(made_of)
    rejected = sum(not each.verdict.accepted for each in judged)
    rate = made.expected_false_positive_rate
    promise = "" if rate is None else f"; of clean pictures at most {rate:.1%} are expected to be"
    shown.print(f"{rejected:,} of {len(judged):,} rejected{promise}")
    for caveat in made.caveats:
        shown.print(plain(f"mind: {caveat}"), style="dim")
