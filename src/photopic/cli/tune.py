"""``photopic tune``: learn an edit from a few pictures, or go on learning one.

photopic tune residual photos/ --noun bear -o bear.edit
photopic tune together bear.edit mug.edit --images bears/ --images mugs/ -o both.edit
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from photopic.cli.outputs import check_output, run_folder
from photopic.cli.overlap import Overlap
from photopic.core.errors import PhotopicError

if TYPE_CHECKING:
    from photopic.core.edits import Edit
    from photopic.models.text_to_image.handle import TextToImage

app = typer.Typer(
    help="Learn an edit from a few pictures, or go on learning one.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Bits = Literal["32", "16", "2"]
Output = Annotated[Path, typer.Option("--output", "-o", help="The edit file to write.")]
ModelName = Annotated[str, typer.Option(help="A bundled model, a folder with a diffusers pipeline, or a hub id.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random; the same seed learns the same.")]
RunFolder = Annotated[
    Path | None,
    typer.Option(
        help="Folder for the log and checkpoints, kept afterwards.", show_default="OUTPUT.run, removed at the end"
    ),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps, ...", show_default="the fastest there is")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output file if it exists.")]
Preserved = Annotated[
    Literal["scenes", "class", "both"],
    typer.Option(help="What must keep looking as it does: diverse scenes, the noun's class, or both."),
]
BitsKept = Annotated[Bits, typer.Option(help="Precision the values are kept at.")]


@app.callback()
def tune() -> None:
    """Learn an edit from a few pictures, or go on learning one."""


@app.command(
    epilog="Example: photopic tune residual photos/ --noun bear -o bear.edit    "
    "Then: photopic generate 'a bear on a red background' --with bear.edit"
)
def residual(
    images: Annotated[
        Path,
        typer.Argument(help="Folder with 1 to 10 pictures of the thing; a text file of the same name is a caption."),
    ],
    noun: Annotated[str, typer.Option(help="What kind of thing it is, one word or more the model knows: bear.")],
    output: Output,
    token: Annotated[
        str | None,
        typer.Option(
            help="A new word that stands for the noun where your thing is meant, such as '<mine>': several things of one noun "
            "then fit into one picture.",
            show_default="the noun itself means your thing",
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of learning; more takes longer.")] = 300,
    lr: Annotated[float, typer.Option(min=0.0, help="Size of a step.")] = 2e-4,
    batch: Annotated[int, typer.Option(min=1, help="Pictures a step; lower it when memory is short.")] = 4,
    preservation: Annotated[
        Literal["sentences", "bare-noun"],
        typer.Option(
            help="What the text encoder must go on saying: many sentences with the noun, or as in the published code the noun."
        ),
    ] = "sentences",
    model: ModelName = "emoji-diffusion",
    seed: Seed = 0,
    run: RunFolder = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Learn what to add to the meaning of a word so that it draws your thing: a file of a few kilobytes.

    A copy of the text encoder learns from your pictures and is thrown away; what it says differently at the noun is kept.
    Interrupted with Ctrl-C, the same command goes on where it stopped.
    """
    check_output(output, overwrite=overwrite)
    from photopic.report.progress import bars, follow

    with run_folder(run, output) as folder:
        handle = _loaded(model, device)
        pictures, captions = _pictures(images, noun, handle)
        from photopic.core.runs import Run
        from photopic.tune.subject.token_residual import TokenResidualConfig
        from photopic.tune.subject.token_residual import tune as learn

        config = TokenResidualConfig(preservation=preservation, steps=steps, lr=lr, batch=batch, seed=seed)
        with bars() as shown:
            events = learn(handle, pictures, noun=noun, token=token, captions=captions, config=config, run=Run(folder))
            edit = follow(events, shown, "learning").edit
        _save(edit, output)
    typer.echo(f'next: photopic generate "{edit.provenance["prompt"]}" --with {output} -n 8 -o out/')


@app.command(epilog="Example: photopic tune located bear.edit photos/ -o bear-tuned.edit")
def located(
    edit: Annotated[Path, typer.Argument(help="What photopic locate neurons wrote.")],
    images: Annotated[Path, typer.Argument(help="Folder with the pictures it was located from.")],
    output: Output,
    steps: Annotated[int, typer.Option(min=1, help="Steps of learning; more takes longer.")] = 100,
    lr: Annotated[float, typer.Option(min=0.0, help="Size of a step.")] = 1e-3,
    batch: Annotated[int, typer.Option(min=1, help="Pictures a step; lower it when memory is short.")] = 8,
    bits: BitsKept = "16",
    beside: Annotated[
        int,
        typer.Option(
            min=0,
            help="Also learn from so many collages a picture, where your thing stands small beside another: "
            "for drawing several things in one picture. 4 is good; then double the steps.",
        ),
    ] = 0,
    preservation: Preserved = "both",
    preservation_count: Annotated[int, typer.Option(min=1, help="Pictures of what must not change.")] = 200,
    model: ModelName = "emoji-diffusion",
    seed: Seed = 0,
    run: RunFolder = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Train the weights that an edit shuts, and nothing else: closer to your thing, for a larger file."""
    check_output(output, overwrite=overwrite)
    from photopic.core.edits.file import load
    from photopic.report.progress import bars, follow

    shut = load(edit)
    with run_folder(run, output) as folder:
        handle = _loaded(model, device)
        pictures, captions = _pictures(images, str(shut.provenance.get("noun", "")), handle)
        from photopic.core.runs import Run
        from photopic.tune.subject.located_weights import LocatedWeightsConfig
        from photopic.tune.subject.located_weights import tune as learn

        config = LocatedWeightsConfig(
            bits=_bits(bits),
            steps=steps,
            lr=lr,
            batch=batch,
            beside=beside,
            preservation=preservation,
            preservation_count=preservation_count,
            seed=seed,
        )
        with bars() as shown:
            events = learn(handle, pictures, shut, captions=captions, config=config, run=Run(folder))
            tuned = follow(events, shown, "tuning").edit
        _save(tuned, output)


@app.command(
    epilog="Example: photopic tune together bear.edit mug.edit --images bears/ --images mugs/ -o both.edit    "
    "Back again: photopic tune apart both.edit -o parents/"
)
def together(
    edits: Annotated[list[Path], typer.Argument(help="Two or more located edits of one base model.")],
    images: Annotated[
        list[Path], typer.Option(help="Folder with the pictures of an edit's thing: one for each edit, in order.")
    ],
    output: Output,
    steps: Annotated[
        int, typer.Option(min=0, help="Steps of learning; 0 only composes, so that it can be taken apart again.")
    ] = 60,
    lr: Annotated[float, typer.Option(min=0.0, help="Size of a step.")] = 1e-3,
    batch: Annotated[int, typer.Option(min=1, help="Pictures of each thing a step.")] = 4,
    bits: BitsKept = "16",
    overlap: Annotated[
        Overlap, typer.Option(help="What entries start from that several edits touch, as in photopic compose.")
    ] = Overlap.UNION,
    preservation: Preserved = "both",
    preservation_count: Annotated[
        int, typer.Option(min=1, help="Pictures of what must not change, for each thing.")
    ] = 100,
    model: ModelName = "emoji-diffusion",
    seed: Seed = 0,
    run: RunFolder = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Make one edit of several and train their weights for a few steps on all their pictures, so that they get on.

    Only weights that one of them touches change. The file remembers its parents: photopic tune apart gives them back.
    """
    check_output(output, overwrite=overwrite)
    if len(edits) < 2 or len(images) != len(edits):
        raise PhotopicError(
            f"tune together: expected two or more edits and an --images for each, found {len(edits)} and {len(images)}"
        )
    from photopic.core.edits.file import load
    from photopic.report.progress import bars, follow

    loaded = [load(path) for path in edits]
    with run_folder(run, output) as folder:
        handle = _loaded(model, device)
        found = [
            _pictures(path, str(edit.provenance.get("noun", "")), handle)
            for path, edit in zip(images, loaded, strict=True)
        ]
        from photopic.core.runs import Run
        from photopic.tune.subject.joint_tuning import TogetherConfig
        from photopic.tune.subject.joint_tuning import tune as learn

        config = TogetherConfig(
            overlap=overlap.value,
            bits=_bits(bits),
            steps=steps,
            lr=lr,
            batch=batch,
            preservation=preservation,
            preservation_count=preservation_count,
            seed=seed,
        )
        with bars() as shown:
            events = learn(
                handle,
                loaded,
                [pictures for pictures, _ in found],
                captions=[captions for _, captions in found],
                config=config,
                run=Run(folder),
            )
            both = follow(events, shown, "tuning").edit
        _save(both, output)
    typer.echo(f'next: photopic generate "{both.provenance["prompt"]}" --with {output} -n 8 -o out/')


@app.command(epilog="Example: photopic tune apart both.edit -o parents/")
def apart(
    edit: Annotated[Path, typer.Argument(help="What photopic tune together wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for one edit a parent; made if missing.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace edits that are there.")] = False,
) -> None:
    """Take an edit that was tuned together apart again: each parent's weights, with the values they have now."""
    from photopic.core.edits import take_apart
    from photopic.core.edits.file import load
    from photopic.core.errors import EditError

    try:
        found = take_apart(load(edit))
    except EditError as error:
        raise EditError(f"{edit.name}: {error}") from None
    output.mkdir(parents=True, exist_ok=True)
    names = [_file_name(number, each) for number, each in enumerate(found, 1)]
    for name in names:
        check_output(output / name, overwrite=overwrite)
    for name, each in zip(names, found, strict=True):
        _save(each, output / name)


def _loaded(name: str, device: str | None) -> TextToImage:
    import photopic
    from photopic.report.progress import console

    with console().status(f"loading {name}"):
        return photopic.load(name, device=device)


def _pictures(path: Path, noun: str, handle: TextToImage) -> tuple[Any, Sequence[str] | None]:
    """The pictures of a folder, and their captions if there is any; a picture without one is the noun."""
    from photopic.data.folder import load_folder
    from photopic.data.scenes import with_article

    found = load_folder(path, handle.image_size)
    captions = [caption or (noun and with_article(noun)) for caption in found.captions] if any(found.captions) else None
    return found.images, captions


def _save(edit: Edit, output: Path) -> None:
    from photopic.core.edits.file import save

    save(edit, output)
    typer.echo(f"{output}: {output.stat().st_size:,} bytes; look inside with: photopic inspect {output}")


def _bits(bits: str) -> Literal[32, 16, 2]:
    return cast(Literal[32, 16, 2], int(bits))


def _file_name(number: int, edit: Edit) -> str:
    """``<mine>`` -> ``mine.edit``; a number where the token has no letters."""
    letters = "".join(letter for letter in "".join(edit.tokens[:1]) if letter.isalnum() or letter in "-_")
    return f"{number}-{letters}.edit" if letters else f"{number}.edit"
