"""``photopic demo``: one new subject from five pictures to new scenes, then two in one scene, as one HTML report.

photopic demo --out demo/
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from photopic.cli.places import check_folder, say_interrupted
from photopic.cli.says import INTERRUPTED, say

EPILOG = "Example: photopic demo --out demo/    Then open demo/index.html in a browser."


def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the report and everything it was made from.")
    ] = Path("demo"),
    subject: Annotated[
        str, typer.Option(help="A thing of the emoji world that no bundled model has seen: panda, zebra, rocket, ...")
    ] = "panda",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the search and of the pictures.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the search.")] = 50,
    tune: Annotated[int, typer.Option(min=1, help="Steps of the tuning that follows.")] = 150,
    pictures: Annotated[int, typer.Option(min=2, help="Pictures a prompt.")] = 8,
    sampling_steps: Annotated[int, typer.Option(min=1, help="Denoising steps a picture.")] = 25,
    pair: Annotated[
        bool, typer.Option(help="End with a second thing and both in one scene, beside LoRAs of the same two.")
    ] = True,
    model: Annotated[
        str, typer.Option(help="A bundled model, or a folder with a diffusers pipeline.")
    ] = "emoji-diffusion",
) -> None:
    """Teach the bundled model a thing it has never seen, report what happened, and put it beside a second one.

    Takes a few minutes on two processor cores and no network.
    Interrupted with Ctrl-C, the same command goes on.
    At the end it prints the path of one HTML page; nothing is opened.
    """
    from photopic.core.errors import PhotopicError
    from photopic.data.splits import SUBJECTS

    if subject not in SUBJECTS:
        raise PhotopicError(f"--subject {subject}: expected a held-out thing, one of {', '.join(sorted(SUBJECTS))}")
    check_folder(out)
    settings = {
        "subject": subject,
        "noun": SUBJECTS[subject],
        "steps": steps,
        "tune_steps": tune,
        "pictures": pictures,
        "sampling_steps": sampling_steps,
        "seed": seed,
    }
    try:
        path = _run(out, model, settings, pair)
    except KeyboardInterrupt:
        say_interrupted(out)
        raise typer.Exit(INTERRUPTED) from None
    say(str(path))


def _run(out: Path, model: str, settings: dict[str, Any], with_pair: bool) -> Path:
    from photopic.core.events import with_result
    from photopic.core.files import write_atomically
    from photopic.demo.report import report_events
    from photopic.demo.teach import DemoConfig
    from photopic.models.text_to_image.handle import TextToImage
    from photopic.report.progress import bars, follow_events, waiting

    with waiting(f"loading {model}"):
        handle = TextToImage.load(model)
    with bars() as shown:
        events = report_events(handle, out, DemoConfig(**settings), with_pair=with_pair)
        page = follow_events(with_result(events), shown)
    path = out / "index.html"
    write_atomically(path, page.encode())
    return path.absolute()
