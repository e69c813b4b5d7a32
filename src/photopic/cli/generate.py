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
from photopic.cli.careful import DEVICE, checked_device
from photopic.cli.inputs import files
from photopic.cli.overlap import Overlap
from photopic.cli.places import check_folder
from photopic.cli.says import INTERRUPTED, say
from photopic.core.errors import PhotopicError
from photopic.edit.applying import check_tokens, check_unknown_tokens, check_words, in_force, notes, weights_of

if TYPE_CHECKING:
    from photopic.core.edits import Edit
    from photopic.data.layout import Layout
    from photopic.models.text_to_image.generate_config import GenerateConfig
    from photopic.models.text_to_image.handle import TextToImage

CHECKED_SIDE = 8  # pixels to which a picture is read to see that it is one
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
        typer.Option(
            "--with", help="An edit file to apply; repeat it for several.", show_default="none", callback=files
        ),
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
        typer.Option(
            help="A picture to start from instead of noise; its central square is used.",
            show_default="none",
            callback=files,
        ),
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
            callback=files,
        ),
    ] = None,
    layout: Annotated[
        Path | None,
        typer.Option(
            help="JSON with a box or a painted mask for each subject; see docs/methods/layout_guidance.md.",
            show_default="none",
            callback=files,
        ),
    ] = None,
    layout_strength: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="How strongly a subject is drawn into its region, where the layout does not say.",
            show_default="2.5",
        ),
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(
            min=1, help="With --layout: how often each step is done, for as many times the time.", show_default="1"
        ),
    ] = None,
    in_region: Annotated[
        bool,
        typer.Option("--in-region", help="With --layout: let each edit change its own region of the picture only."),
    ] = False,
    control: Annotated[
        list[str] | None,
        typer.Option(
            help="What steers the sampler, as name:key=value,key=value, such as adaptive_guidance:threshold=0.99; repeat it for "
            "several. The pages of the methods list their keys.",
            show_default="none",
        ),
    ] = None,
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
        str | None, typer.Option(help=DEVICE, callback=checked_device, show_default="the fastest there is")
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
    _check_layout(layout, layout_strength, repeats, in_region, force, overlap)

    from photopic.cli.controls import read_control
    from photopic.core.edits.file import load
    from photopic.data.folder import load_mask, load_picture
    from photopic.data.pictures import contact_sheet, png_bytes, write_next
    from photopic.generate.guidance.layout_guidance import LayoutGuidance, LayoutGuidanceConfig
    from photopic.generate.guidance.regional_edits import RegionalEdits, RegionalEditsConfig
    from photopic.models.text_to_image.generate_config import GenerateConfig
    from photopic.models.text_to_image.handle import TextToImage
    from photopic.report.progress import bars, waiting

    check_folder(output)
    if image is not None:  # before the model takes time; its size is not known yet
        load_picture(image, CHECKED_SIDE)
        if mask is not None:
            load_mask(mask, CHECKED_SIDE, of=image)
    loaded = [load(path) for path in paths]
    check_tokens(prompt, paths, loaded)
    check_words(prompt, paths, loaded)
    placed = _read_layout(layout, loaded) if layout else None
    config = GenerateConfig(
        steps=steps, guidance=guidance, batch=batch, negative_prompt=negative, scheduler=scheduler, strength=strength
    )
    with waiting(f"loading {model}"):
        handle = TextToImage.load(model, device=device)
    controls: list[Any] = [read_control(word, handle) for word in control or []]
    if placed is not None:
        chosen: dict[str, Any] = {"strength": layout_strength, "repeats": repeats}
        asked = LayoutGuidanceConfig(**{name: value for name, value in chosen.items() if value is not None})
        controls.append(LayoutGuidance(placed, config=asked))
        if in_region:
            controls += [
                RegionalEdits(placed, [edit], config=RegionalEditsConfig(weight=each))
                for edit, each in zip(loaded, weights, strict=True)
            ]
    with ExitStack() as trial:  # controls may bring words of their own
        for each in controls:
            trial.enter_context(each.applied(handle))
        check_unknown_tokens(prompt, handle, loaded)
    images: list[Any] = []
    numbers: list[int] = []
    try:
        with ExitStack() as stack, bars() as shown:
            if not in_region:
                for note in notes(loaded, [path.name for path in paths], handle.components):
                    say(f"note: {note}", err=True)
                stack.enter_context(in_force(handle, paths, loaded, weights, force=force, overlap=overlap.value))
            for name in handle.edits.forced:
                say(f"note: {name} was made for another base than {handle.name}; the pictures say so", err=True)
            settings = _settings(prompt, handle, config, list(zip(paths, weights, strict=True)))
            settings |= {} if overlap is Overlap.ERROR else {"overlap": overlap.value}
            settings |= {name: _named(path) for name, path in (("image", image), ("mask", mask)) if path is not None}
            settings |= {"controls": control} if control else {}
            if layout is not None:
                said = {"strength": layout_strength, "repeats": repeats or 1, "in_region": in_region}
                settings["layout"] = _named(layout) | said
            task = shown.add_task("drawing", total=None, remark="")
            events = handle.generate_events(
                [prompt] * count,
                seeds=range(seed, seed + count),
                config=config,
                controls=controls,
                image=load_picture(image, handle.image_size) if image else None,
                mask=load_mask(mask, handle.image_size, of=image) if mask and image else None,
                on_step=lambda done, total: shown.update(task, completed=done, total=total),
            )
            for event in events:
                output.mkdir(parents=True, exist_ok=True)  # only now: a run that is refused leaves no folder
                for drawn in event.images:
                    own = png_bytes(drawn, settings | {"seed": seed + len(images)})
                    numbers.append(write_next(output, own))
                    images.append(drawn)
    except KeyboardInterrupt:
        say(f"photopic: interrupted; {len(images)} of {count} pictures are in {output}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    span = f"{numbers[0]:04d}-{numbers[-1]:04d}"  # the first number is this run's alone, and so are names that hold it
    sheet = output / f"sheet-{span}.png"
    settings |= {"seeds": [seed, count]}
    scale = max(1, 256 // handle.image_size)
    _write(sheet, png_bytes(contact_sheet(images, scale=scale), settings))
    if placed is not None:
        over = contact_sheet([placed.preview(image, scale=scale) for image in images])
        _write(output / f"layout-{span}.png", png_bytes(over, settings))
    say(f"{output}: {numbers[0]:04d}.png to {numbers[-1]:04d}.png, and {sheet.name} with all of them")


def _check_layout(
    path: Path | None, strength: float | None, repeats: int | None, in_region: bool, force: bool, overlap: Overlap
) -> None:
    """Options that need a layout, or exclude each other."""
    if path is None and (strength is not None or repeats is not None or in_region):
        raise PhotopicError("--layout-strength, --repeats and --in-region: expected a layout; add --layout")
    if in_region and overlap is not Overlap.ERROR:
        raise PhotopicError(
            f"--overlap {overlap.value}: expected no policy with --in-region, where each edit has its own place; leave one out"
        )
    if in_region and force:
        raise PhotopicError("--in-region: expected edits made for this model, found --force; leave one of the two out")


def _read_layout(path: Path, edits: Sequence[Edit]) -> Layout:
    """The layout, in which each edit's word has a region of its own."""
    from photopic.data.layout_file import read_layout

    layout = read_layout(path)
    layout.place_of([token for edit in edits for token in edit.subjects])
    return layout


def _write(path: Path, content: bytes) -> None:
    from photopic.core.files import write_atomically

    write_atomically(path, content, new=True)


def _named(path: Path) -> dict[str, str]:
    return {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _settings(
    prompt: str, model: TextToImage, config: GenerateConfig, edits: Sequence[tuple[Path, float]]
) -> dict[str, Any]:
    """What a picture says of how it was made, files by name and content."""
    asked = {"negative": config.negative_prompt, "scheduler": config.scheduler, "strength": config.strength}
    return {
        "prompt": prompt,
        "steps": config.steps,
        "guidance": config.guidance,
        "model": model.name,
        "edits": [
            {**_named(path), "weight": weight, "forced": str(path) in model.edits.forced} for path, weight in edits
        ],
        "photopic": __version__,
    } | {name: value for name, value in asked.items() if value is not None}
