"""``photopic measure``: the commands that are written by hand; the others are derived from their methods."""

from __future__ import annotations

import typer

from photopic.cli import measure_slopes

app = typer.Typer(
    help="Look inside a classifier or a denoiser, or compare methods that learn from few pictures.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def measure() -> None:
    """Look inside a classifier or a denoiser, or compare methods that learn from few pictures."""


app.command(epilog=measure_slopes.EPILOG)(measure_slopes.slopes)
