"""``photopic locate``: find where a model keeps a thing.

photopic locate neurons photos/ --noun bear --token "<mine>" -o bear.edit
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from photopic.cli import locate_explain
from photopic.cli.outputs import check_output, run_folder

if TYPE_CHECKING:
    from photopic.core.edits import Edit

app = typer.Typer(
    help="Find where a model keeps a thing, and save it as a small edit.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def locate() -> None:
    """Find where a model keeps a thing, and save it as a small edit."""


app.command(epilog=locate_explain.EPILOG)(locate_explain.explain)


@app.command(
    epilog="Example: photopic locate neurons photos/ --noun bear --token '<mine>' -o bear.edit    "
    "Then: photopic generate 'a <mine> bear on a red background' --with bear.edit"
)
def neurons(
    images: Annotated[
        Path,
        typer.Argument(
            help="Folder with 1 to 10 pictures of the thing: PNG, JPEG, WebP, ... A text file of the same name "
            "(bear-1.txt beside bear-1.jpg) holds a picture's caption; captions help to tell thing from background."
        ),
    ],
    noun: Annotated[str, typer.Option(help="What kind of thing it is, as a word the model knows, such as bear.")],
    token: Annotated[str, typer.Option(help="A new word for your thing; prompts say it before the noun.")] = "<mine>",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The edit file to write.", show_default="NOUN.edit")
    ] = None,
    model: Annotated[
        str, typer.Option(help="A bundled model, a folder with a diffusers pipeline, or a hub id.")
    ] = "emoji-diffusion",
    steps: Annotated[int, typer.Option(min=1, help="Steps of the search; more finds more and takes longer.")] = 200,
    batch: Annotated[int, typer.Option(min=1, help="Pictures a step; lower it when memory is short.")] = 8,
    layers: Annotated[Literal["cross", "self", "all"], typer.Option(help="Attention layers to search.")] = "cross",
    optimizer: Annotated[
        Literal["adam", "sgd", "paper"],
        typer.Option(help="How the search descends; 'paper' is the published loop to the letter."),
    ] = "adam",
    binary: Annotated[
        bool,
        typer.Option(
            "--binary", help="Shut weights while searching too: closer to the thing, and more of the noun with it."
        ),
    ] = False,
    density: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Share of the weights to shut, 0 to 1; more draws the thing more closely and spills over more.",
            show_default="0.05; with 'paper' the best of five",
        ),
    ] = None,
    preservation: Annotated[
        Literal["scenes", "class", "both"],
        typer.Option(help="What must keep looking as it does: diverse scenes, the noun's class, or both."),
    ] = "both",
    tune: Annotated[
        int,
        typer.Option(min=0, help="Steps that then train the located weights; 0 keeps the edit a list of positions."),
    ] = 0,
    bits: Annotated[
        Literal["32", "16", "2"], typer.Option(help="Precision the trained values are kept at; needs --tune.")
    ] = "16",
    preservation_count: Annotated[
        int,
        typer.Option(min=1, help="Pictures of what must not change; a model that draws them itself takes its time."),
    ] = 200,
    seed: Annotated[int, typer.Option(help="Seed of everything random; the same seed finds the same weights.")] = 0,
    run: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the log and checkpoints, kept afterwards.", show_default="OUTPUT.run, removed at the end"
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, mps, ...", show_default="the fastest there is")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output file if it exists.")] = False,
) -> None:
    """Find the weights that keep a model from drawing your thing, and shut them.

    No weight is learnt: the edit says which attention weights become zero, and gives the thing a new word.
    Interrupted with Ctrl-C, the same command goes on where it stopped.
    """
    output = output or Path(f"{noun.replace(' ', '-')}.edit")
    check_output(output, overwrite=overwrite)
    options = {
        "layers": layers,
        "optimizer": optimizer,
        "preservation": preservation,
        "preservation_count": preservation_count,
        "steps": steps,
        "batch": batch,
        "density": density,
        "binary": binary,
        "seed": seed,
    }
    with run_folder(run, output) as folder:
        edit = _search(images, noun, token, model, device, folder, options, tune, int(bits))
        from photopic.core.edits.file import save

        save(edit, output)
    _tell(edit, output, noun, token)


def _search(
    images: Path,
    noun: str,
    token: str,
    model_name: str,
    device: str | None,
    folder: Path,
    options: dict[str, Any],
    tune_steps: int,
    bits: int,
) -> Edit:
    import photopic
    from photopic.core.edits import check_new_token
    from photopic.core.runs import Run
    from photopic.data.folder import load_folder
    from photopic.learning.subject.examples import subject
    from photopic.learning.subject.new_token import check_noun, new_rows
    from photopic.learning.subject.preservation import preservation_events
    from photopic.locate.concept_neurons import ConceptNeuronsConfig, locate
    from photopic.report.progress import bars, console, follow
    from photopic.tune.subject.located_weights import LocatedWeightsConfig, tune

    with console().status(f"loading {model_name}"):
        handle = photopic.load(model_name, device=device)
    for tokenizer in handle.tokenizers.values():
        check_new_token(tokenizer, token)
    check_noun(handle, noun)
    found = load_folder(images, handle.image_size)
    config = ConceptNeuronsConfig(**options)
    captions = [caption or f"a {noun}" for caption in found.captions] if any(found.captions) else None
    rows = new_rows(handle, token, noun, start=config.token_start)
    subject(handle, found.images, captions, noun=noun, rows=rows, preservation=None)  # refuses before the slow part
    kept, count = config.preservation, config.preservation_count
    with bars() as shown:
        preparing = preservation_events(
            handle, noun, kind=kept, count=count, seed=config.seed, run=Run(folder / "preservation")
        )
        preservation = follow(preparing, shown, "preparing what must not change").examples
        common: dict[str, Any] = {"captions": captions, "preservation": preservation}
        search = locate(
            handle, found.images, noun=noun, token=token, config=config, run=Run(folder / "locate"), **common
        )
        edit = follow(search, shown, "locating").edit
        if tune_steps:
            tuning = LocatedWeightsConfig(
                steps=tune_steps,
                bits=cast(Literal[32, 16, 2], bits),
                batch=config.batch,
                preservation=kept,
                preservation_count=count,
                seed=config.seed,
            )
            events = tune(handle, found.images, edit, config=tuning, run=Run(folder / "tune"), **common)
            edit = follow(events, shown, "tuning").edit
    return edit


def _tell(edit: Edit, output: Path, noun: str, token: str) -> None:
    shut = sum(len(indices) for part in edit.parts for indices in getattr(part, "indices", {}).values())
    typer.echo(f"{output}: {shut:,} weights, {output.stat().st_size:,} bytes")
    typer.echo(f'next: photopic generate "a {token} {noun} on a red background" --with {output} -n 8 -o out/')
