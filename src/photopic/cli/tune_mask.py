"""``photopic tune mask``: learn which weights of an image encoder to switch off, from a few labelled pictures.

photopic tune mask pictures/ --model emoji-clip-vit --shots 4 -o pictures.edit
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from photopic.cli.outputs import check_output, run_folder
from photopic.core.errors import DataError
from photopic.data.sources import DATA_HELP, read_task
from photopic.report.terminal import Score, show_scores

if TYPE_CHECKING:
    from photopic.data.few_shot import LabelledImages
    from photopic.learning.classifiers import Tuned

MUCH = 0.06  # more was switched off only where few steps reached far, and then for the worse

EPILOG = (
    "Example: photopic tune mask emoji:held-out-style --shots 4 -o style.edit    "
    "Your pictures: photopic tune mask pictures/ --model openai/clip-vit-base-patch32 --shots 16 -o mine.edit    "
    "Look inside: photopic inspect mine.edit"
)


def mask(
    data: Annotated[str, typer.Argument(help=DATA_HELP)],
    output: Annotated[Path, typer.Option("--output", "-o", "--out", help="The edit file to write.")],
    model: Annotated[
        str, typer.Option(help="A bundled dual encoder, a folder with one of transformers, or a hub id.")
    ] = "emoji-clip-vit",
    shots: Annotated[
        int, typer.Option(min=1, help="Pictures of each class to learn from; the others are measured on.")
    ] = 16,
    which: Annotated[
        Literal["attention", "mlp", "all"],
        typer.Option(
            help="Weights that may be switched off: matrices of attention, of the MLPs, or both. Convolution kernels always."
        ),
    ] = "attention",
    dropout: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="How much the model as it is may veto steps against what it knows: 1 keeps the most of it, lower fits your "
            "pictures more, 0 does not ask it and takes half the time.",
        ),
    ] = 1.0,
    steps: Annotated[int, typer.Option(min=1, help="Steps of learning; more chooses better and takes longer.")] = 300,
    reach: Annotated[
        float,
        typer.Option(
            help="How much is switched off: the way all steps can go, in distances from on to off. Up to 1 nothing is, at 4 about "
            "one to four weights in a hundred.",
        ),
    ] = 4.0,
    lr: Annotated[
        float | None,
        typer.Option(min=0.0, help="Size of a step, in place of --reach; published: 8e-5.", show_default="by --reach"),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Pictures a step; few, in many steps, choose better.")] = 16,
    augment: Annotated[bool, typer.Option(help="Crop pictures at random while learning.")] = True,
    flip: Annotated[bool, typer.Option(help="Also mirror them at random, where left and right do not matter.")] = False,
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
        typer.Option(help="Folder for checkpoints, kept afterwards.", show_default="OUTPUT.run, removed at the end"),
    ] = None,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, mps, ...")] = "cpu",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output file if it exists.")] = False,
) -> None:
    """Teach a CLIP-like model your classes by switching a few of its weights off: nothing is added, no weight is changed.

    The file says which weights, in less than a bit for each there is; without it every byte of the model is as before. Interrupted
    with Ctrl-C, the same command goes on where it stopped.
    """
    check_output(output, overwrite=overwrite)
    from photopic.core.edits.file import save
    from photopic.core.runs import Run
    from photopic.learning.classifiers import TextClassifier
    from photopic.models.dual_encoder import TEMPLATES, DualEncoder
    from photopic.report.progress import bars, console, follow
    from photopic.tune.few_shot.mask_tuning import MaskTuningConfig, tune

    config = MaskTuningConfig(
        which=which,
        lr=MaskTuningConfig.lr if lr is None else lr,
        reach=reach if lr is None else None,
        steps=steps,
        batch=batch,
        dropout=dropout,
        augment=augment,
        flip=flip,
        seed=seed,
    )
    templates = tuple(template) if template else TEMPLATES
    with run_folder(run, output) as folder:
        train, rest = read_task(data, shots, seed, classes)
        with console().status(f"loading {model}"):
            handle = DualEncoder.load(model, device)
        before = TextClassifier(handle, handle.class_features(train.names, templates))
        with bars() as shown:
            events = tune(handle, train, config=config, templates=templates, run=Run(folder))
            last = follow(events, shown, "tuning")
        if last.edit is None:
            raise DataError(f"{output.name}: {last.warning}")
        save(last.edit, output)
    show_scores([_score("names alone (zero-shot)", before, rest), _score("with the mask", last.tuned, rest)])
    if last.share > MUCH:
        note = f"note: {last.share:.0%} of the weights is a lot to switch off; more --steps or a smaller --reach choose better"
        typer.secho(note, fg="yellow", err=True)
    size, bits = output.stat().st_size, last.tuned.trainable
    typer.echo(
        f"{output}: {last.share:.2%} of {bits:,} weights switched off, {size:,} bytes "
        f"(a bit for each: {-(-bits // 8):,}); look inside with: photopic inspect {output}"
    )


def _score(name: str, classifier: Tuned, rest: LabelledImages) -> Score:
    if not len(rest):
        return Score(name, 0, 0)
    named = classifier.logits(rest.images).argmax(1).numpy()
    return Score(name, int((named == rest.labels).sum()), len(rest))
