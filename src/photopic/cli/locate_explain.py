"""``photopic locate explain``: what an edit does to its model, as one report.

photopic locate explain bear.edit --images photos/ --output report.html
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from photopic import __version__
from photopic.cli.outputs import check_output
from photopic.core.errors import PhotopicError

if TYPE_CHECKING:
    from photopic.edit.explain.probes import Probe

EPILOG = (
    "Example: photopic locate explain bear.edit --images photos/ -o report.html    "
    "Beside another edit: photopic locate explain bear.edit --beside mug.edit -o report.html"
)


def explain(
    edit: Annotated[Path, typer.Argument(help="The edit file to explain.")],
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder with pictures of the subject, as for photopic locate neurons; with it losses are measured.",
            show_default="none",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The report to write.", show_default="EDIT.html")
    ] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option(
            "--beside", help="Another edit of the same model to compare with; up to three.", show_default="none"
        ),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="What to draw.", show_default="the subject on a red background")
    ] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=12, help="Pictures of each kind.")] = 6,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first picture; picture i uses seed + i.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = 25,
    guidance: Annotated[float, typer.Option(min=1.0, help="How strongly the prompt is followed.")] = 5.0,
    model: Annotated[
        str, typer.Option(help="A bundled model, a folder with a diffusers pipeline, or a hub id.")
    ] = "emoji-diffusion",
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, mps, ...", show_default="the fastest there is")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the report if it exists.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Also print the numbers as JSON on stdout, and nothing else there.")
    ] = False,
) -> None:
    """Show what an edit does: a web page with pictures and numbers.

    Where the words are read before and with the edit; the edit with its word and without; its values at fewer bits; which
    weights it touches and which it shares with other edits.
    """
    output = output or edit.with_suffix(".html")
    if output.absolute() == edit.absolute():
        raise PhotopicError(f"{output}: is the edit itself; choose another --output")
    check_output(output, overwrite=overwrite)
    import photopic
    from photopic.cli.explain_page import page
    from photopic.core.edits.file import load
    from photopic.core.runs import write_atomically
    from photopic.data.folder import load_folder
    from photopic.edit.explain import probes
    from photopic.edit.explain.probes import ProbeSettings, SubjectWords
    from photopic.report.progress import bars, console

    paths = [edit, *(beside or [])]
    loaded = [load(path) for path in paths]
    with console().status(f"loading {model}"):
        handle = photopic.load(model, device=device)
    pictured: dict[str, Any] = {}
    if images is not None:
        found = load_folder(images, handle.image_size)
        noun = SubjectWords.of(loaded[0]).noun
        captions = [caption or f"a {noun}" for caption in found.captions] if any(found.captions) else None
        pictured = {"images": found.images, "captions": captions}
    results: dict[str, Probe] = {}
    with bars() as shown:
        task = shown.add_task("explaining", total=None, remark="")
        how = ProbeSettings(seed=seed, pictures=count, steps=steps, guidance=guidance)
        names = [path.stem for path in paths]
        for event in probes.explain(
            handle, loaded[0], loaded[1:], names=names, prompt=prompt, sampling=how, **pictured
        ):
            shown.update(task, completed=event.done, total=event.total, remark=event.name)
            if event.probe is not None:
                results[event.name] = event.probe
    write_atomically(output, page(edit.name, results, _facts(edit, handle.name, how, images)).encode())
    if as_json:
        typer.echo(json.dumps({name: probe.to_dict() for name, probe in results.items()}, indent=1, sort_keys=True))
    else:
        typer.echo(f"{output}: {output.stat().st_size:,} bytes; open it in a browser")


def _facts(edit: Path, model: str, how: Any, images: Path | None) -> Sequence[tuple[str, str]]:
    return [
        ("edit", edit.name),
        ("model", model),
        ("pictures of the subject", "none" if images is None else images.name),
        ("seeds", f"{how.seed} to {how.seed + how.pictures - 1}"),
        ("denoising", f"{how.steps} steps, guidance {how.guidance:g}"),
        ("photopic", __version__),
    ]
