"""What commands that learn from few labelled pictures have in common: reading the task, and the table at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from photopic.core.errors import DataError

if TYPE_CHECKING:
    from photopic.data.few_shot import LabelledImages

TASK = "emoji:"  # before the name of a task of the emoji world
DATA_HELP = (
    "Folder with one sub-folder of pictures a class, named as the class; or emoji:held-out-style, emoji:held-out-concepts, "
    "emoji:groups to try it without pictures."
)


class Score(NamedTuple):
    """How many test pictures a model named right."""

    name: str
    right: int
    of: int


def read_task(data: str, shots: int, seed: int, classes: int | None = None) -> tuple[LabelledImages, LabelledImages]:
    """What to learn from and what to measure on.

    Args:
        data: A folder, or a task of the emoji world after ``emoji:``.
        shots: Pictures of each class to learn from.
        seed: Of the draw, and of an emoji task.
        classes: Of an emoji task.

    Returns:
        ``shots`` pictures a class; the pictures of a folder that were not drawn, or those an emoji task tests on.

    Raises:
        DataError: If there is no such folder or task, one class only, or a class with fewer pictures.
    """
    from photopic.data.emoji_tasks import emoji_task
    from photopic.data.few_shot import labelled_folder

    if data.startswith(TASK):
        train, test = emoji_task(data.removeprefix(TASK), classes=classes, train_per_class=max(16, shots), seed=seed)
        return train.shots(shots, seed), test
    if classes is not None:
        raise DataError("--classes: is for emoji tasks; a folder has the classes it has, so leave it out")
    return labelled_folder(Path(data)).draw(shots, seed)


def show_scores(scores: Sequence[Score]) -> None:
    """Accuracy of each on the pictures not trained on, with its 95 % interval; a line that says so if there is none."""
    import typer
    from rich.console import Console

    from photopic.cli.tables import table
    from photopic.metrics.intervals import wilson

    if not scores or not scores[0].of:
        typer.echo("accuracy: not measured, since every picture was learnt from; lower --shots to keep some apart")
        return
    made = table(f"accuracy on {scores[0].of:,} pictures not learnt from", "", ">accuracy", ">95 % interval")
    for score in scores:
        share, low, high = wilson(score.right, score.of)
        made.add_row(score.name, f"{share:.1%}", f"{low:.1%} to {high:.1%}")
    Console(highlight=False).print(made)
