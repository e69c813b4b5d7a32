"""``photopic tune tuners``: small branches in a vision transformer and a classifier, from a few pictures a class, as one file.

photopic tune tuners pictures/ --model emoji-clip-vit --shots 8 --preset dual --out pets.edit
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from photopic.cli.outputs import check_output, run_folder
from photopic.report.terminal import Score, show_scores

if TYPE_CHECKING:
    from photopic.data.few_shot import LabelledImages
    from photopic.learning.classifiers import Tuned

DATA_HELP = (
    "Folder with one sub-folder of pictures a class; or emoji:held-out-style, emoji:held-out-concepts, emoji:groups."
)
EPILOG = (
    "Example: photopic tune tuners emoji:held-out-style --shots 8 -o style.edit    "
    "Your pictures: photopic tune tuners pictures/ --model openai/clip-vit-base-patch32 --shots 16 -o mine.edit    "
    "Look inside: photopic inspect mine.edit"
)


def tuners(
    data: Annotated[str, typer.Argument(help=DATA_HELP)],
    output: Annotated[Path, typer.Option("--out", "--output", "-o", help="The edit file to write.")],
    model: Annotated[
        str, typer.Option(help="A bundled dual encoder, a folder with one of transformers, or a hub id.")
    ] = "emoji-clip-vit",
    shots: Annotated[
        int, typer.Option(min=1, help="Pictures of each class to learn from; the others are measured on.")
    ] = 16,
    preset: Annotated[
        Literal["linear", "single", "dual", "tri"],
        typer.Option(
            help="Branches: none, an adapter beside the attention, one beside the MLP too, and a prefix beside the block too."
        ),
    ] = "dual",
    length: Annotated[
        int, typer.Option(min=1, help="Width of an adapter's bottleneck, or number of keys of a prefix.")
    ] = 10,
    scaling: Annotated[
        Literal["none", "scalar", "channel", "input"], typer.Option(help="What each branch is multiplied with.")
    ] = "channel",
    init: Annotated[
        Literal["zero", "xavier"],
        typer.Option(help="Start with branches that change nothing, or with random ones."),
    ] = "zero",
    head: Annotated[
        Literal["text", "zeros"], typer.Option(help="Start the classifier at the class names, or at nothing.")
    ] = "text",
    steps: Annotated[int, typer.Option(min=1, help="Steps of learning; more takes longer.")] = 200,
    lr: Annotated[float, typer.Option(min=0.0, help="Size of a step.")] = 3e-3,
    batch: Annotated[int, typer.Option(min=1, help="Pictures a step; lower it when memory is short.")] = 32,
    augment: Annotated[bool, typer.Option(help="Crop pictures at random while learning.")] = True,
    template: Annotated[
        list[str] | None,
        typer.Option(help="Sentence with {} where a class name goes; several times.", show_default="a photo of a {}."),
    ] = None,
    classes: Annotated[
        int | None, typer.Option(min=2, help="Classes of an emoji task.", show_default="as the task has it")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random; the same seed learns the same.")] = 0,
    run: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the log and checkpoints, kept afterwards.", show_default="OUTPUT.run, removed at the end"
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, mps, ...")] = "cpu",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output file if it exists.")] = False,
) -> None:
    """Learn branches beside the operations of the image encoder, and a classifier, from a few pictures a class.

    No weight of the model changes; branches and classifier are one file. Interrupted with Ctrl-C, the same command goes on where it
    stopped.
    """
    check_output(output, overwrite=overwrite)
    from photopic.core.runs import Run
    from photopic.learning.classifiers import TextClassifier
    from photopic.models.dual_encoder import TEMPLATES, DualEncoder
    from photopic.report.progress import bars, console, follow
    from photopic.tune.few_shot.unified_tuners import UnifiedTunersConfig, tune
    from photopic.tune.few_shot.unified_tuners import preset as branches

    config = UnifiedTunersConfig(
        tuners=branches(preset, length=length, scaling=scaling),
        init=init,
        head=head,
        steps=steps,
        lr=lr,
        batch=batch,
        augment=augment,
        seed=seed,
    )
    templates = tuple(template) if template else TEMPLATES
    with run_folder(run, output) as folder:
        from photopic.data.sources import read_task

        train, rest = read_task(data, shots, seed, classes)
        with console().status(f"loading {model}"):
            handle = DualEncoder.load(model, device)
        with bars() as shown:
            events = tune(handle, train, config=config, templates=templates, run=Run(folder))
            classifier = follow(events, shown, "learning").tuned
        classifier.save(output)
    before = TextClassifier(handle, handle.class_features(train.names, templates))
    show_scores([_score("names alone (zero-shot)", before, rest), _score("with what was learnt", classifier, rest)])
    typer.echo(
        f"{output}: {classifier.trainable:,} trained numbers, {output.stat().st_size:,} bytes; look inside with: "
        f"photopic inspect {output}"
    )


def _score(name: str, classifier: Tuned, rest: LabelledImages) -> Score:
    if not len(rest):
        return Score(name, 0, 0)
    named = classifier.logits(rest.images).argmax(1).numpy()
    return Score(name, int((named == rest.labels).sum()), len(rest))
