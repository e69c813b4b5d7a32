"""``photopic generate``: pictures from a prompt, with edits applied.

photopic generate "a <mine> bear on a red background" --with bear.edit -n 8 -o out/
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from photopic import __version__
from photopic.cli.main import INTERRUPTED
from photopic.core.errors import PhotopicError

if TYPE_CHECKING:
    from photopic.core.edits import Edit
    from photopic.models.text_to_image import TextToImage

EPILOG = (
    "Example: photopic generate 'a <mine> bear on a red background' --with bear.edit -n 8 -o out/    "
    "Without an edit: photopic generate 'a cat left of a tree on a green background' -o out/"
)


def generate(
    prompt: Annotated[
        str,
        typer.Argument(
            help="What to draw. With an edit, say its word before the noun: 'a <mine> bear on a red background'."
        ),
    ],
    edits: Annotated[
        list[Path] | None,
        typer.Option("--with", help="An edit file to apply; repeat it for several.", show_default="none"),
    ] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many pictures.")] = 8,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder for the pictures; made if missing, nothing in it is overwritten."),
    ] = Path("out"),
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the first picture; picture i uses seed + i, whatever the batch.")
    ] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps: more is finer and slower.")] = 30,
    guidance: Annotated[
        float,
        typer.Option(min=1.0, help="How strongly the prompt is followed; 1 is not at all beyond the model's own."),
    ] = 5.0,
    weight: Annotated[
        list[float] | None,
        typer.Option(
            "--weight",
            min=0.0,
            max=1.0,
            help="How far an edit goes, 0 to 1: one for all, or one for each --with in order.",
            show_default="1",
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(help="A bundled model, a folder with a diffusers pipeline, or a hub id.")
    ] = "emoji-diffusion",
    batch: Annotated[int, typer.Option(min=1, help="Pictures drawn together; lower it when memory is short.")] = 16,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, mps, ...", show_default="the fastest there is")
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Apply an edit made for another base model of the same shape; the pictures say that it was."
        ),
    ] = False,
) -> None:
    """Draw pictures of a prompt, with edits applied.

    Writes numbered PNG files that carry their settings, and a contact sheet of them all.
    Numbers go on after the highest in the folder, so nothing is ever overwritten.
    Finished pictures stay when you press Ctrl-C.
    """
    paths = edits or []
    weights = _weights(weight or [1.0], len(paths))

    import photopic
    from photopic.cli.progress import bars, console
    from photopic.core.editfile import load
    from photopic.data.pictures import contact_sheet, next_number, png_bytes

    loaded = [load(path) for path in paths]
    _check_tokens(prompt, paths, loaded)
    with console().status(f"loading {model}"):
        handle = photopic.load(model, device=device)
    _check_unknown_tokens(prompt, handle, loaded)
    output.mkdir(parents=True, exist_ok=True)
    first = next_number(output)
    images: list[Any] = []
    try:
        with ExitStack() as stack, bars() as shown:
            for path, edit, each in zip(paths, loaded, weights, strict=True):
                stack.callback(handle.edits.unload, handle.edits.load(edit, weight=each, name=str(path), force=force))
            for name in handle.edits.forced:
                typer.echo(f"note: {name} was made for another base than {handle.name}; the pictures say so", err=True)
            settings = _settings(prompt, handle, steps, guidance, list(zip(paths, weights, strict=True)))
            task = shown.add_task("drawing", total=None, remark="")
            events = handle.generate_events(
                [prompt] * count,
                seeds=range(seed, seed + count),
                steps=steps,
                guidance=guidance,
                batch=batch,
                on_step=lambda done, total: shown.update(task, completed=done, total=total),
            )
            for event in events:
                for image in event.images:
                    place = output / f"{first + len(images):04d}.png"
                    _write(place, png_bytes(image, settings | {"seed": seed + len(images)}))
                    images.append(image)
    except KeyboardInterrupt:
        typer.echo(f"photopic: interrupted; {len(images)} of {count} pictures are in {output}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    last = first + count - 1
    sheet = output / f"sheet-{first:04d}-{last:04d}.png"
    _write(
        sheet,
        png_bytes(contact_sheet(images, scale=max(1, 256 // handle.image_size)), settings | {"seeds": [seed, count]}),
    )
    typer.echo(f"{output}: {first:04d}.png to {last:04d}.png, and {sheet.name} with all of them")


def _write(path: Path, content: bytes) -> None:
    from photopic.core.runs import write_atomically

    write_atomically(path, content)


def _weights(given: Sequence[float], edits: int) -> list[float]:
    if len(given) not in (1, edits):
        raise PhotopicError(f"--weight: expected one, or one for each of {edits} --with, found {len(given)}")
    return list(given) * edits if len(given) == 1 else list(given)


def _check_tokens(prompt: str, paths: Sequence[Path], edits: Sequence[Edit]) -> None:
    """Each edit must be named in the prompt, or its subject cannot appear."""
    seen: dict[str, Path] = {}
    for path, edit in zip(paths, edits, strict=True):
        for token in edit.tokens:
            if token in seen:
                raise PhotopicError(
                    f"{path}: its word {token} is also that of {seen[token]}; locate one again with another --token"
                )
            seen[token] = path
        if edit.tokens and not any(token in prompt for token in edit.tokens):
            noun = edit.provenance.get("noun", "")
            wanted = f"{edit.tokens[0]} {noun}".strip()
            raise PhotopicError(
                f"{path}: expected its word {edit.tokens[0]} in the prompt, found {prompt!r}; say '{wanted}' in it"
            )


def _check_unknown_tokens(prompt: str, model: TextToImage, edits: Sequence[Edit]) -> None:
    known = {token for edit in edits for token in edit.tokens}
    for token in re.findall(r"<[^<>\s]+>", prompt):
        if token not in known and not any(token in each.get_vocab() for each in model.tokenizers.values()):
            raise PhotopicError(
                f"prompt: {token} is no word of {model.name} or of a loaded edit; add its file with --with"
            )


def _settings(
    prompt: str, model: TextToImage, steps: int, guidance: float, edits: Sequence[tuple[Path, float]]
) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "steps": steps,
        "guidance": guidance,
        "model": model.name,
        "edits": [
            {
                "file": path.name,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "weight": weight,
                "forced": str(path) in model.edits.forced,
            }
            for path, weight in edits
        ],
        "photopic": __version__,
    }
