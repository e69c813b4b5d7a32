"""``photopic generate``: pictures from a prompt, with edits applied.

photopic generate "a <mine> bear on a red background" --with bear.edit -n 8 -o out/
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from photopic import __version__
from photopic.cli.layout import InRegion, LayoutFile, LayoutStrength, Repeats, layout_request
from photopic.cli.main import INTERRUPTED
from photopic.cli.overlap import Overlap
from photopic.core.errors import PhotopicError
from photopic.edit.applying import check_tokens, check_unknown_tokens, check_words, in_force, notes, weights_of

if TYPE_CHECKING:
    from photopic.models.text_to_image.handle import TextToImage

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
    negative: Annotated[
        str | None,
        typer.Option(help="What the pictures should lead away from, such as 'blurred'; needs --guidance above 1."),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="Sampler: ddim, ddpm, dpm++, dpm++-sde, euler, euler-ancestral, heun (two calls a step) or lms.",
            show_default="the model's own",
        ),
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(help="A picture to start from instead of noise; its central square is used.", show_default="none"),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(
            help="How far to go from --image: above 0, which keeps it, to 1, which keeps nothing.",
            show_default="0.8, or 1 with --mask",
        ),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            help="A black and white picture of the size of --image: white is drawn anew, black stays to the bit.",
            show_default="none",
        ),
    ] = None,
    layout: LayoutFile = None,
    layout_strength: LayoutStrength = None,
    repeats: Repeats = None,
    in_region: InRegion = False,
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
    overlap: Annotated[
        Overlap, typer.Option(help="What entries become that several edits set, as in photopic compose.")
    ] = Overlap.ERROR,
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
    if image is None and (mask is not None or strength is not None):
        raise PhotopicError("--mask and --strength: expected a picture to start from; add --image")
    weights = weights_of(weight or [1.0], len(paths))

    import photopic
    from photopic.core.edits.file import load
    from photopic.data.pictures import contact_sheet, next_number, png_bytes
    from photopic.report.progress import bars, console

    loaded = [load(path) for path in paths]
    check_tokens(prompt, paths, loaded)
    check_words(prompt, paths, loaded)
    if in_region and overlap is not Overlap.ERROR:
        raise PhotopicError(
            f"--overlap {overlap.value}: expected no policy with --in-region, where each edit has its own place; leave one out"
        )
    placed = layout_request(layout, layout_strength, repeats, in_region, force, loaded)
    with console().status(f"loading {model}"):
        handle = photopic.load(model, device=device)
    check_unknown_tokens(prompt, handle, loaded)
    options = _drawing_options(negative, scheduler, image, strength, mask, handle.image_size)
    images: list[Any] = []
    try:
        with ExitStack() as stack, bars() as shown:
            if placed is not None and placed.in_region:
                for edit, each in zip(loaded, weights, strict=True):
                    placed.apply(stack, handle, edit, each)
            else:
                for note in notes(loaded, [path.name for path in paths], handle.components):
                    typer.echo(f"note: {note}", err=True)
                stack.enter_context(in_force(handle, paths, loaded, weights, force=force, overlap=overlap.value))
            for name in handle.edits.forced:
                typer.echo(f"note: {name} was made for another base than {handle.name}; the pictures say so", err=True)
            settings = _settings(prompt, handle, steps, guidance, list(zip(paths, weights, strict=True)))
            settings |= {} if overlap is Overlap.ERROR else {"overlap": overlap.value}
            settings |= _drawing_settings(negative, scheduler, image, strength, mask)
            if placed is not None:
                settings |= placed.settings()
                options["controls"] = placed.controls(handle, prompt)
            task = shown.add_task("drawing", total=None, remark="")
            events = handle.generate_events(
                [prompt] * count,
                seeds=range(seed, seed + count),
                steps=steps,
                guidance=guidance,
                batch=batch,
                on_step=lambda done, total: shown.update(task, completed=done, total=total),
                **options,
            )
            output.mkdir(parents=True, exist_ok=True)
            first = next_number(output)
            for event in events:
                for drawn in event.images:
                    place = output / f"{first + len(images):04d}.png"
                    _write(place, png_bytes(drawn, settings | {"seed": seed + len(images)}))
                    images.append(drawn)
    except KeyboardInterrupt:
        typer.echo(f"photopic: interrupted; {len(images)} of {count} pictures are in {output}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    last = first + count - 1
    sheet = output / f"sheet-{first:04d}-{last:04d}.png"
    settings |= {"seeds": [seed, count]}
    scale = max(1, 256 // handle.image_size)
    _write(sheet, png_bytes(contact_sheet(images, scale=scale), settings))
    if placed is not None:
        _write(output / f"layout-{first:04d}-{last:04d}.png", png_bytes(placed.preview(images, scale), settings))
    typer.echo(f"{output}: {first:04d}.png to {last:04d}.png, and {sheet.name} with all of them")


def _write(path: Path, content: bytes) -> None:
    from photopic.core.runs import write_atomically

    write_atomically(path, content)


def _drawing_options(
    negative: str | None,
    scheduler: str | None,
    image: Path | None,
    strength: float | None,
    mask: Path | None,
    size: int,
) -> dict[str, Any]:
    """Further arguments of ``generate_events``, pictures read."""
    from photopic.data.folder import load_mask, load_picture

    return {
        "negative_prompt": negative,
        "scheduler": scheduler,
        "image": image and load_picture(image, size),
        "strength": strength,
        "mask": mask and image and load_mask(mask, size, of=image),
    }


def _drawing_settings(
    negative: str | None, scheduler: str | None, image: Path | None, strength: float | None, mask: Path | None
) -> dict[str, Any]:
    """What was asked for, files by name and content."""
    asked: dict[str, Any] = {"negative": negative, "scheduler": scheduler, "strength": strength}
    asked |= {name: path and _named(path) for name, path in (("image", image), ("mask", mask))}
    return {name: value for name, value in asked.items() if value is not None}


def _named(path: Path) -> dict[str, str]:
    return {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


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
                **_named(path),
                "weight": weight,
                "forced": str(path) in model.edits.forced,
            }
            for path, weight in edits
        ],
        "photopic": __version__,
    }
