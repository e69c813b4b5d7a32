"""``photopic guard serve``: a fitted guard behind HTTP.

photopic guard serve emoji.guard --port 8000
curl --data-binary @picture.png http://127.0.0.1:8000/check
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from photopic.calls.inputs import places
from photopic.cli.careful import DeviceOption, ModelOption
from photopic.cli.says import say
from photopic.core.errors import PhotopicError

if TYPE_CHECKING:
    from photopic.guard.guarded import GuardedModel
    from photopic.serve.limits import Limits

EPILOG = (
    "Example: photopic guard serve emoji.guard --port 8000    "
    "then: curl --data-binary @picture.png http://127.0.0.1:8000/check"
)


def serve(
    guard: Annotated[
        str, typer.Argument(help="A file of photopic guard fit; or, with --clean, a model to fit a guard on now.")
    ],
    model: ModelOption = None,
    clean: Annotated[
        Path | None,
        typer.Option(
            help="Folder with one sub-folder of clean pictures a class, to fit a guard on; a few hundred.",
            callback=places,
        ),
    ] = None,
    backdoor: Annotated[
        bool,
        typer.Option("--backdoor", help="With --clean: also look for backdoor triggers, as guard fit --backdoor does."),
    ] = False,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 is every one of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 takes a free one.")] = 8000,
    device: DeviceOption = "cpu",
    max_bytes: Annotated[int, typer.Option(min=1024, help="Largest body of a request, in bytes.")] = 8 * 2**20,
    max_pixels: Annotated[int, typer.Option(min=1, help="Largest picture, in pixels.")] = 16_000_000,
    send_seconds: Annotated[
        float, typer.Option(min=0.1, help="Time for a sender's headers, and again for its body.")
    ] = 10.0,
    answer_seconds: Annotated[float, typer.Option(min=0.1, help="Time from there to the answer.")] = 30.0,
    max_requests: Annotated[
        int, typer.Option(min=1, help="Requests that may wait for an answer; more are told to come back.")
    ] = 32,
    max_connections: Annotated[int, typer.Option(min=1, help="Connections open at a time.")] = 128,
) -> None:
    """Answer POST /check with accept or reject, the prediction, the scores and the reason.

    One PNG, JPEG or WebP picture a request, as the body or as a file of a form. GET /health and GET /metrics (Prometheus) say
    how it does. Ctrl-C or SIGTERM finishes what is running. There is no password: put it behind what has one.
    """
    check_guard(guard, clean)  # before the server's packages are asked for
    try:
        from photopic.serve.limits import Limits
    except ImportError as error:
        raise PhotopicError(
            f"guard serve: needs {error.name}, which is not installed; pip install 'photopic[serve]'"
        ) from None
    limits = Limits(
        body_bytes=max_bytes,
        pixels=max_pixels,
        send_seconds=send_seconds,
        answer_seconds=answer_seconds,
        requests=max_requests,
        connections=max_connections,
    )
    guarded = fitted(guard, model, clean, device, backdoor=backdoor)
    try:
        server(guarded, limits, host=host, port=port).run()
    except KeyboardInterrupt:  # uvicorn has finished what was running by then
        say("stopped", err=True)


def check_guard(guard: str, clean: Path | None) -> None:
    """Refuse a guard that is no file where none is to be fitted."""
    if clean is None and not Path(guard).is_file():
        raise PhotopicError(
            f"{guard}: expected a file that photopic guard fit wrote, found none; to fit one now give --clean FOLDER"
        )


def fitted(guard: str, model: str | None, clean: Path | None, device: str, *, backdoor: bool = False) -> GuardedModel:
    """The guard of a file, or the one that ``photopic guard fit`` makes of the same folder, fitted now.

    Raises:
        PhotopicError: If there is no such file or model, or the pictures do not fit it.
    """
    from photopic.guard.guarded import load_guarded
    from photopic.guard.guardfile import load
    from photopic.models.classifier import Classifier

    if clean is None:
        if backdoor:
            raise PhotopicError("--backdoor: expected --clean FOLDER beside it, found a guard that is fitted already")
        return load_guarded(guard, Classifier.load(model or load(guard).model, device))
    if model is not None:
        raise PhotopicError(
            f"--model {model}: expected the model as the argument where --clean is given; leave one out"
        )
    from photopic.data.class_folder import load_classes
    from photopic.guard.fitting import GuardConfig, fit_guard

    images = load_classes(clean)
    say(f"fitting on {len(images)} pictures of {clean}", err=True)
    return fit_guard(Classifier.load(guard, device), images, config=GuardConfig(backdoor=backdoor))


def server(guarded: GuardedModel, limits: Limits, *, host: str, port: int) -> Any:
    """The uvicorn server around a guard, not yet running.

    Args:
        guarded: The guard.
        limits: Of requests.
        host: Address to listen at.
        port: Port to listen at; 0 takes a free one.
    """
    import uvicorn

    from photopic.serve.app import service
    from photopic.serve.counts import Counts
    from photopic.serve.protocol import HEADER_BYTES, protocol

    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # it logs bytes of what it cannot read
    counts = Counts()
    config = uvicorn.Config(
        service(guarded, limits, counts),
        host=host,
        port=port,
        http=protocol(limits, counts),
        ws="none",
        loop="asyncio",
        lifespan="on",
        access_log=False,
        log_level="info",
        server_header=False,
        h11_max_incomplete_event_size=HEADER_BYTES,
        timeout_graceful_shutdown=int(limits.send_seconds + limits.answer_seconds) + 1,
    )
    return uvicorn.Server(config)
