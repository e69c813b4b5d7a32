"""``photopic generate``: pictures from a prompt, with edits applied.

photopic generate "a <mine> bear on a red background" --with bear.edit -n 8 -o out/
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from photopic.calls.inputs import files
from photopic.cli.careful import DEVICE, checked_device
from photopic.cli.generate_latents import generate_latents, is_generator
from photopic.cli.overlap import Overlap
from photopic.cli.places import check_folder
from photopic.cli.says import INTERRUPTED, say
from photopic.core.errors import PhotopicError
from photopic.edit.applying import weights_of

if TYPE_CHECKING:
    from photopic.calls.drawing import Drawn
    from photopic.core.events import Event

STEPS = 30  # of denoising
COMPOSED_GUIDANCE = 2.0  # with conditions, which say more than words
EPILOG = (
    "Example: photopic generate 'a <mine> bear on a red background' --with bear.edit -n 8 -o out/    "
    "Without an edit: photopic generate 'a cat left of a tree on a green background' -o out/    "
    "Without words: photopic generate --model emoji-gan -n 16 --seed 1 -o out/"
)


def generate(
    prompt: Annotated[
        str | None,
        typer.Argument(
            help="What to draw. With an edit, say its word before the noun: 'a <mine> bear on a red background'.",
            show_default="what --graph or --image says",
        ),
    ] = None,
    edits: Annotated[
        list[Path] | None,
        typer.Option(
            "--with", help="An edit file to apply; repeat it for several.", show_default="none", callback=files
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            "--count",
            "-n",
            min=1,
            help="How many pictures.",
            show_default="8, 16 without words, 1 with --style-of and --image",
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder for the pictures; made if missing, nothing in it is overwritten."),
    ] = Path("out"),
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the first picture; picture i uses seed + i, whatever the batch.")
    ] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps: more is finer and slower.")] = STEPS,
    guidance: Annotated[
        float | None,
        typer.Option(
            min=1.0,
            help="How strongly the prompt is followed; 1 is not at all beyond the model's own.",
            show_default="5, 2 with conditions, or 1 without a prompt",
        ),
    ] = None,
    negative: Annotated[
        str | None,
        typer.Option(help="What the pictures should lead away from, such as 'blurred'; needs --guidance above 1."),
    ] = None,
    width: Annotated[
        int | None, typer.Option(min=1, help="Of the pictures in pixels.", show_default="the model's own")
    ] = None,
    height: Annotated[
        int | None, typer.Option(min=1, help="Of the pictures in pixels.", show_default="the model's own")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="Sampler: ddim, ddpm, dpm++, dpm++-sde, euler, euler-ancestral, heun (two calls a step) or lms; for transformers "
            "dpm++, dpm++-sde, euler, heun or lcm.",
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
    style_of: Annotated[
        Path | None,
        typer.Option(
            help="A picture whose style is taken: --image is drawn again in it, or else what the prompt says.",
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
    graph: Annotated[
        Path | None,
        typer.Option(
            help="JSON Lines with one bag of concepts, in place of prompt and layout; see docs/methods/drawing_graphs.md.",
            show_default="none",
            callback=files,
        ),
    ] = None,
    arrange: Annotated[
        bool,
        typer.Option(
            "--arrange",
            help="Give each thing that the prompt names a place of its own, as 'left of' and 'above' say; the layout that is taken "
            "is told and written beside the pictures.",
        ),
    ] = False,
    own_prompts: Annotated[
        bool,
        typer.Option(
            "--own-prompts", help="As --arrange, and each place is drawn from a sentence about its own thing alone."
        ),
    ] = False,
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
            min=1,
            help="With a layout: how often each step is done, for as many times the time.",
            show_default="1",
        ),
    ] = None,
    in_region: Annotated[
        bool,
        typer.Option(
            "--in-region",
            help="Let each edit change its own region of the picture only: that of --layout or --graph, or else as --arrange.",
        ),
    ] = False,
    control: Annotated[
        list[str] | None,
        typer.Option(
            help="What steers the sampler, as name:key=value,key=value, such as adaptive_guidance:threshold=0.99; repeat it for "
            "several. The pages of the methods list their keys.",
            show_default="none",
        ),
    ] = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(
            help="What to take of another picture, such as palette=a.png or sketch=b.conditions; repeat it. Needs a model that "
            "reads conditions; see docs/methods/conditions.md.",
            show_default="none",
        ),
    ] = None,
    minus: Annotated[
        list[str] | None,
        typer.Option(
            help="A condition that the pictures are led away from, as --condition; repeat it.", show_default="none"
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="What to keep of --image and take of --other: variation, interpolation, reconfiguration, region-edit, "
            "palette-colouring, style-transfer, translation, pose-transfer or try-on.",
            show_default="none",
        ),
    ] = None,
    other: Annotated[
        Path | None,
        typer.Option(help="With --task: the other picture.", show_default="none", callback=files),
    ] = None,
    share: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="With --task interpolation: how far towards --other.", show_default="0.5"),
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
        str, typer.Option(help="A bundled model, a folder with a diffusers pipeline or a generator, or a hub id.")
    ] = "emoji-diffusion",
    batch: Annotated[int, typer.Option(min=1, help="Pictures drawn together; lower it when memory is short.")] = 16,
    truncation: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Of a generator without words, as emoji-gan: 1 draws all it can, less what is more usual, 0 its mean picture.",
            show_default="1",
        ),
    ] = None,
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
    weights = weights_of(weight or [1.0], len(edits or []))
    if is_generator(model):
        unfit = {
            "prompt": prompt, "--guidance": guidance, "--negative": negative, "--width": width, "--height": height,
            "--scheduler": scheduler, "--image": image, "--strength": strength, "--mask": mask, "--style-of": style_of,
            "--layout": layout, "--graph": graph, "--arrange": arrange or None, "--own-prompts": own_prompts or None,
            "--layout-strength": layout_strength, "--repeats": repeats, "--in-region": in_region, "--control": control,
            "--condition": condition, "--minus": minus, "--task": task, "--other": other, "--share": share,
            "--steps": None if steps == STEPS else steps,
        }  # fmt: skip
        check_folder(output)
        return generate_latents(
            model, list(zip(edits or [], weights, strict=True)), count or 16, output, seed,
            1.0 if truncation is None else truncation, device=device, force=force, overlap=overlap.value, unfit=unfit,
        )  # fmt: skip
    if truncation is not None:
        raise PhotopicError(
            f"--truncation: {model} draws of words; leave it out, or name a generator such as emoji-gan"
        )

    from photopic.calls.conditions import inverts
    from photopic.calls.drawing import Asked, draw_events, prepare
    from photopic.data.layout_file import as_json, described
    from photopic.data.pictures import contact_sheet, png_bytes, write_next
    from photopic.models.text_to_image.generate_config import GenerateConfig
    from photopic.models.text_to_image.handle import TextToImage
    from photopic.report.progress import waiting

    again = style_of is not None and image is not None  # one picture: nothing in it is drawn at random
    composed = bool(condition or task)
    if prompt is None and graph is None and not again and not composed:
        raise PhotopicError("prompt: expected words that say what to draw, found none; write them, or give --graph")
    count = count or (1 if again else 8)
    if guidance is None:
        guidance = COMPOSED_GUIDANCE if composed else 1.0 if prompt is None and graph is None else 5.0
    check_folder(output)
    config = GenerateConfig(
        steps=steps,
        guidance=guidance,
        batch=batch,
        negative_prompt=negative,
        scheduler=scheduler or ("ddim" if style_of or inverts(task) else None),  # the one that is walked backwards
        strength=strength,
        width=width,
        height=height,
    )
    prepared = prepare(
        Asked(
            prompt=prompt or "",  # with a graph it comes from there
            edits=list(zip(edits or [], weights, strict=True)),
            count=count,
            seed=seed,
            config=config,
            overlap=overlap.value,
            force=force,
            image=image,
            mask=mask,
            style_of=style_of,
            layout=layout,
            graph=graph,
            arrange=arrange,
            own_prompts=own_prompts,
            layout_strength=layout_strength,
            repeats=repeats,
            in_region=in_region,
            controls=control or (),
            conditions=condition or (),
            minus=minus or (),
            task=task,
            other=other,
            share=share,
        )
    )
    arranged = prepared.layout if prepared.asked.is_arranged else None
    if arranged is not None:
        say(f"layout from the prompt: {described(arranged)}", err=True)
    with waiting(f"loading {model}"):
        handle = TextToImage.load(model, device=device)
    images: list[Any] = []
    numbers: list[int] = []
    settings: dict[str, Any] = {}
    try:
        for drawn in _shown(draw_events(prepared, handle)):
            output.mkdir(parents=True, exist_ok=True)  # only now: a run that is refused leaves no folder
            numbers += [write_next(output, content) for content in drawn.files()]
            images += list(drawn.images)
            settings = {**drawn.settings, "seeds": [seed, count]}
    except KeyboardInterrupt:
        say(f"photopic: interrupted; {len(images)} of {count} pictures are in {output}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    span = f"{numbers[0]:04d}-{numbers[-1]:04d}"  # the first number is this run's alone, and so are names that hold it
    sheet = output / f"sheet-{span}.png"
    scale = max(1, 256 // handle.image_size)
    _write(sheet, png_bytes(contact_sheet(images, scale=scale), settings))
    if prepared.layout is not None:
        over = contact_sheet([prepared.layout.preview(image, scale=scale) for image in images])
        _write(output / f"layout-{span}.png", png_bytes(over, settings))
    if arranged is not None and (stated := as_json(arranged)):
        _write(output / f"layout-{span}.json", stated.encode())
    for line in prepared.kept(images):
        say(line)
    say(f"{output}: {numbers[0]:04d}.png to {numbers[-1]:04d}.png, and {sheet.name} with all of them")


def _shown(events: Iterator[Event[Drawn]]) -> Iterator[Drawn]:
    """The batches, with a bar of the steps and a note of each remark."""
    from photopic.report.progress import bars

    with bars() as shown:
        task = shown.add_task("drawing", total=None, remark="")
        for event in events:
            if event.warning:
                say(f"note: {event.warning}", err=True)
            shown.update(task, completed=event.done, total=event.total or None)
            if event.result is not None:
                yield event.result


def _write(path: Path, content: bytes) -> None:
    from photopic.core.files import write_atomically

    write_atomically(path, content, new=True)
