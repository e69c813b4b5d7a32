"""``photopic studio``: a local page over the same functions as the command line.

photopic studio --model emoji-diffusion
"""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from photopic.cli.careful import DEVICE, checked_device
from photopic.cli.places import check_folder
from photopic.cli.says import say
from photopic.core.errors import PhotopicError

EPILOG = "Example: photopic studio    It prints an address and opens it in your browser; Ctrl-C ends it."


def studio(
    model: Annotated[
        str, typer.Option(help="The model that draws: a bundled name, a folder with a diffusers pipeline, or a hub id.")
    ] = "emoji-diffusion",
    also: Annotated[
        list[str] | None,
        typer.Option(
            help="A further model that methods may use, of any kind; repeat it for several.",
            show_default="bundled ones",
        ),
    ] = None,
    workspace: Annotated[
        Path, typer.Option(help="Folder for edits, pictures and everything made; made if missing.")
    ] = Path("studio"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 takes a free one.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
    device: Annotated[
        str | None, typer.Option(help=DEVICE, callback=checked_device, show_default="the fastest there is")
    ] = None,
) -> None:
    """See, draw and compare without typing: a page for this machine's browser over all that photopic does.

    Nothing is sent anywhere: it listens at 127.0.0.1 only, and only to a browser that was shown the address it prints.
    Everything made stays in the workspace with its settings. Ctrl-C stops what runs; it can go on at the next start.
    """
    check_folder(workspace)
    try:
        from photopic.studio.app import open_studio
        from photopic.studio.server import serving
    except ImportError as error:
        raise PhotopicError(
            f"studio: needs {error.name}, which is not installed; pip install 'photopic[studio]'"
        ) from None
    made = open_studio(workspace, model, others=tuple(also or ()), device=device)
    with serving(made, port) as opened:
        say(f"photopic studio: {opened.address}")
        if browser:
            webbrowser.open(opened.address_once)
        opened.run()
    say("stopped", err=True)
