"""``photopic locate attention``: where a model reads the words of a prompt, as pictures and numbers.

photopic locate attention "a bear on a red background" --word bear --output out/
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

EPILOG = (
    "Example: photopic locate attention 'a bear on a red background' --word bear -o out/    "
    "With an edit: photopic locate attention 'a <mine> bear' --with bear.edit -o out/"
)
SHOWN = 256  # pixels of a picture's side, or the nearest whole multiple of its own


def attention(
    prompt: Annotated[str, typer.Argument(help="What to draw while watching.")],
    words: Annotated[
        list[str] | None,
        typer.Option(
            "--word",
            help="A word or phrase of the prompt to look for; repeat it for several.",
            show_default="every word of the prompt",
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder for the pictures; made if missing, nothing in it is overwritten."),
    ] = Path("out"),
    edits: Annotated[
        list[Path] | None,
        typer.Option("--with", help="An edit file to apply; repeat it for several.", show_default="none"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the picture, as for photopic generate.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps; the maps are the mean over them.")] = 30,
    guidance: Annotated[float, typer.Option(min=1.0, help="How strongly the prompt is followed.")] = 5.0,
    layers: Annotated[
        str, typer.Option(help="Layers to average, as a name pattern such as 'up_blocks.*'.", show_default="all")
    ] = "*",
    resolution: Annotated[
        int | None,
        typer.Option(min=1, help="Average only layers with that many rows of cells.", show_default="all, enlarged"),
    ] = None,
    model: Annotated[
        str, typer.Option(help="A bundled model, a folder with a diffusers pipeline, or a hub id.")
    ] = "emoji-diffusion",
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, mps, ...", show_default="the fastest there is")
    ] = None,
) -> None:
    """Draw a picture and show where in it each word of the prompt was read.

    Writes the picture, one picture a word with its attention over it (bright where the word is read most, each word on
    its own scale), a sheet of all, and the numbers as one safetensors file.
    """
    import photopic
    from photopic.core.edits.file import load
    from photopic.core.mapfile import save
    from photopic.core.runs import write_atomically
    from photopic.data.overlays import enlarged, labelled
    from photopic.data.pictures import contact_sheet, next_number, png_bytes
    from photopic.locate.attention import attention_picture, overlays
    from photopic.report.progress import bars, console

    loaded = [load(path) for path in edits or []]
    with console().status(f"loading {model}"):
        handle = photopic.load(model, device=device)
    with ExitStack() as stack, bars() as shown:
        for path, edit in zip(edits or [], loaded, strict=True):
            stack.callback(handle.edits.unload, handle.edits.load(edit, name=str(path)))
        task = shown.add_task("drawing", total=None, remark="")
        found, image = attention_picture(
            handle,
            prompt,
            words or None,
            seed=seed,
            steps=steps,
            guidance=guidance,
            layers=layers,
            resolution=resolution,
            on_step=lambda done, total: shown.update(task, completed=done, total=total),
        )
    output.mkdir(parents=True, exist_ok=True)
    number, settings = f"{next_number(output):04d}", dict(found.provenance)
    pictures = {"picture": enlarged(image, SHOWN)} | {
        word: picture for word, picture in overlays(found, enlarged(image, SHOWN)).items()
    }
    for index, (name, picture) in enumerate(pictures.items()):
        file = output / (f"{number}-picture.png" if not index else f"{number}-{index:02d}-{_plain(name)}.png")
        write_atomically(file, png_bytes(picture, settings | ({"word": name} if index else {})))
    sheet = contact_sheet([labelled(picture, name) for name, picture in pictures.items()], gap=6)
    write_atomically(output / f"{number}-sheet.png", png_bytes(sheet, settings | {"words": list(found.labels)}))
    save(found, output / f"{number}-attention.safetensors")
    typer.echo(f"{output}: {number}-sheet.png with the picture and {len(found.labels)} words, one PNG each")
    for word, values in zip(found.labels, found.values, strict=True):
        typer.echo(f"  {word}: {values.mean():.1%} of all attention, {values.max():.1%} at its brightest")


def _plain(word: str) -> str:
    """A word as part of a file name."""
    return re.sub(r"\W+", "-", word).strip("-")[:40] or "word"
