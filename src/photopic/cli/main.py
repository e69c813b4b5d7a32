"""The ``photopic`` command: its verbs, and the one place where an error becomes a line and an exit status.

A verb is imported when it is called, not when it is listed, so ``photopic --help`` stays light. The file
``cli/<verb>.py`` holds either ``app``, a Typer application with its commands, or a function named like the verb beside
``EPILOG``, the last line of its help.
"""

from __future__ import annotations

import errno
import os
import re
import warnings
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from photopic import __version__
from photopic.cli.derive import add_derived
from photopic.core.errors import PhotopicError

VERBS = {  # verb: the line that `photopic --help` shows
    "locate": "Find where a model keeps a thing, and save it as a small edit.",
    "tune": "Learn an edit from a few pictures, or go on learning one.",
    "train": "Train a diffusion model of your own, with less work.",
    "generate": "Make pictures, with edits applied.",
    "edit": "Look into edits, compare, check, combine and exchange them.",
    "inspect": "Show what an edit file changes, how it was found and what it costs.",
    "diff": "Show how two edit files differ.",
    "compose": "Make one edit of several.",
    "guard": "Decide which inputs of a classifier to trust.",
    "verify": "Check that an edit does to a model what it says, and nothing else.",
    "measure": "Look inside a classifier, or compare methods that learn from few pictures.",
    "demo": "One new subject from its pictures to new scenes, as one report.",
}
SHORT = {verb: f"edit {verb}" for verb in ("inspect", "diff", "compose", "verify")}  # commands that are verbs as well
USER_ERROR = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
REMEDIES = {  # of the operating system's refusals, those a user can mend
    errno.ENOSPC: "free some space or choose another folder",
    errno.EDQUOT: "free some space or choose another folder",
    errno.EFBIG: "raise the limit on file sizes or choose another folder",
    errno.EROFS: "choose a folder that can be written",
    errno.EACCES: "choose a file or folder you may use",
    errno.EPERM: "choose a file or folder you may use",
    errno.ENOENT: "check the spelling",
    errno.EISDIR: "name a file, not a folder",
    errno.ENOTDIR: "name a folder, not a file",
    errno.EEXIST: "choose another name",
    errno.ENAMETOOLONG: "choose a shorter name",
}


class VerbGroup(TyperGroup):
    """Lists the verbs without importing them and turns what a user can cause into one line on stderr."""

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        self.commands = {verb: TyperCommand(verb, help=line) for verb, line in VERBS.items()}  # enough to be listed

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The real command in the place of the listed one, imported now that it is called."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, load_verb(args[0]), rest

    def invoke(self, ctx: Any) -> Any:
        """Run a verb; ``explain`` tells which errors become one line, and warnings are notes."""
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _note
                return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("photopic: interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            line = explain(error)
            if line is None:
                raise
            typer.echo(f"photopic: {line}", err=True)
            raise typer.Exit(USER_ERROR) from None


def load_verb(verb: str) -> Any:
    """The click command of a verb: what ``photopic.cli.<verb>`` has by hand, and what is derived from the methods.

    Args:
        verb: A key of ``VERBS``.

    Returns:
        A group where the module holds ``app``, else the command made of the function named like the verb.

    Example:
        >>> load_verb("inspect").name
        'inspect'
    """
    if verb in SHORT:
        group, _, name = SHORT[verb].partition(" ")
        return load_verb(group).commands[name]
    by_hand = find_spec(f"photopic.cli.{verb}") is not None
    module = import_module(f"photopic.cli.{verb}") if by_hand else None
    app = getattr(module, "app", None)
    if app is not None or module is None:
        if app is None:
            app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
            app.callback(help=VERBS[verb])(lambda: None)  # a group even while it holds one command
        add_derived(app, verb)
        made = typer.main.get_group(app)
        made.name = verb
        return made
    single = typer.Typer(add_completion=False)
    single.command(verb, epilog=module.EPILOG)(getattr(module, verb))
    return typer.main.get_command(single)


def explain(error: Exception) -> str | None:
    """The line for an error a user can cause, or None for a bug of ours, which keeps its traceback.

    Example:
        >>> explain(OSError(28, "No space left on device", "out/0.png"))
        'out/0.png: no space left on device; free some space or choose another folder'
    """
    if isinstance(error, PhotopicError):
        return " ".join(str(error).split())
    code = _os_error_code(error)
    if code not in REMEDIES:
        return None
    name = getattr(error, "filename", None)
    return f"{f'{name}: ' if name else ''}{os.strerror(code).lower()}; {REMEDIES[code]}"


def _os_error_code(error: Exception) -> int | None:
    """The number of the operating system's refusal; safetensors reports one only in its text."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error)) if type(error).__name__ == "SafetensorError" else None
    return int(found[1]) if found else None


def _note(message: Warning | str, *_: Any) -> None:
    """A warning without the place in the code; names of files may hold control characters."""
    typer.echo("note: " + "".join(letter if letter.isprintable() else "?" for letter in str(message)), err=True)


def _print_version(asked: bool) -> bool:
    if asked:
        typer.echo(f"photopic {__version__}")
        raise typer.Exit
    return asked


app = typer.Typer(cls=VerbGroup, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def photopic(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Find where a pretrained vision model keeps what it knows, and change it in small, exact, reversible edits."""
