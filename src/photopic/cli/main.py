"""The ``photopic`` command: its verbs, and the one place where an error becomes a line and an exit status.

Verbs and commands are listed from words that are known beforehand and built when they are called, so that help stays light.
A command by hand is a function named like it in ``cli/<words>.py`` beside ``EPILOG``, the last lines of its help; all others are
derived from the manifest.
"""

from __future__ import annotations

import gc
import re
import warnings
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from photopic import __version__
from photopic.calls.methods import read_manifest
from photopic.calls.problems import line_of
from photopic.cli.careful import CarefulCommand
from photopic.cli.derive import callback, epilog
from photopic.cli.says import INTERRUPTED, USER_ERROR, say

VERBS = {  # verb: the line that `photopic --help` shows
    "locate": "Find where a model keeps a thing, and save it as a small edit.",
    "tune": "Learn an edit from a few pictures, or go on learning one.",
    "train": "Train a model, or go on training one: diffusion, CLIP-like, classifiers, masked pictures.",
    "generate": "Make pictures, with edits applied.",
    "edit": "Look into edits, compare, check, combine and exchange them.",
    "inspect": "Show what an edit file changes, how it was found and what it costs.",
    "diff": "Show how two edit files differ.",
    "compose": "Make one edit of several.",
    "guard": "Decide which inputs of a classifier to trust.",
    "verify": "Check that an edit does to a model what it says, and nothing else.",
    "measure": "Look inside a classifier, or compare methods that learn from few pictures.",
    "knowledge": "Say what pictures show and how it hangs together, and ask, draw and link by it.",
    "demo": "One new subject from its pictures to new scenes, as one report.",
    "studio": "See, draw and compare without typing, in your browser.",
}
SHORT = {verb: f"edit {verb}" for verb in ("inspect", "diff", "compose", "verify")}  # commands that are verbs as well
BY_HAND = {  # command: the line that its group shows
    "generate": VERBS["generate"],
    "demo": VERBS["demo"],
    "studio": VERBS["studio"],
    "guard check": "Accept or reject each picture, with the score, the threshold and the reason.",
    "knowledge draw": "Draw a bag of concepts, each object in its box.",
    "guard serve": "Answer POST /check with accept or reject, the prediction, the scores and the reason.",
}
USAGE_ERROR: Any = typer.BadParameter.__bases__[0]  # of what typer brings along under changing names
NO_OPTIONS = "photopic.no_options"  # key of a context: nothing stands before the verb
COLLECT_AFTER = 50_000  # new objects between two looks for garbage; Python's own is 700


class VerbGroup(TyperGroup):
    """Lists what it holds without importing it, and builds what is called.

    Attributes:
        words: Of the group, such as ``tune``; none for the root.
    """

    def __init__(self, words: str = "", **settings: Any):
        super().__init__(**settings)
        self.words = words
        self.commands = {name: TyperCommand(name, help=line) for name, line in lines(words).items()}  # enough to list

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The real command in the place of the listed one, imported now that it is called."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, load_command(f"{self.words} {args[0]}".strip()), rest


class RootGroup(VerbGroup):
    """Turns what a user can cause into one line on stderr; ``explain`` tells which errors those are."""

    def make_context(self, *args: Any, **extra: Any) -> Any:
        """Read the options before the verb."""
        try:
            return super().make_context(*args, **extra)
        except USAGE_ERROR as error:
            raise _refused(error) from None

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Options before the verb are read only where there are some: reading their types takes longer than all the rest."""
        ctx.meta[NO_OPTIONS] = bool(args) and not args[0].startswith("-")
        rest: list[str] = super().parse_args(ctx, args)
        return rest

    def get_params(self, ctx: Any) -> list[Any]:
        """The options before the verb."""
        return [] if ctx.meta.get(NO_OPTIONS) else super().get_params(ctx)

    def invoke(self, ctx: Any) -> Any:
        """Run a verb; warnings are notes."""
        # imports make a million objects that all stay: to look through them as often as Python does is a tenth of the start
        gc.set_threshold(COLLECT_AFTER)
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _note  # type: ignore[assignment]  # it needs no more of a warning
                return super().invoke(ctx)
        except KeyboardInterrupt:
            say("photopic: interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            raise _refused(error) from None


def _refused(error: Any) -> Exception:
    """What to raise for an error: the exit status once its line is printed, or a bug of ours and a page of help as they are."""
    line = explain(error)
    if line is None:
        return error
    say(f"photopic: {line}", err=True)
    return typer.Exit(USER_ERROR)


def lines(verb: str = "") -> dict[str, str]:
    """What a group lists: each command with the line that says what it does.

    Args:
        verb: Of the group; none for the verbs themselves.

    Example:
        >>> lines("guard")["check"]
        'Accept or reject each picture, with the score, the threshold and the reason.'
    """
    if not verb:
        return VERBS
    found = {command: entry["help"] for command, entry in read_manifest().items() if entry["result"] != "Control"}
    return {
        command.partition(" ")[2]: line for command, line in (found | BY_HAND).items() if command.startswith(f"{verb} ")
    }


def load_command(words: str) -> Any:
    """The click command of some words: a group, a command written by hand, or one derived from its method.

    Args:
        words: Such as ``tune``, ``tune mask`` or ``inspect``.

    Example:
        >>> load_command("inspect").name
        'inspect'
    """
    words = SHORT.get(words, words)
    name = words.rpartition(" ")[2]
    if words in BY_HAND:
        module = import_module(f"photopic.cli.{words.replace(' ', '_')}")
        return _built(name, getattr(module, name), None, module.EPILOG)
    if words in VERBS:
        return VerbGroup(words, name=words, help=VERBS[words], no_args_is_help=True, rich_markup_mode=None)
    entry = read_manifest()[words]
    return _built(name, callback(words, entry), entry["help"], epilog(entry))


def _built(name: str, function: Any, text: str | None, last_lines: str) -> Any:
    """A command as typer makes it of a function's signature; help is plain text, which is there in half the time of panels."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    paragraphs = "\n\n".join(re.split(r"\s{4,}", last_lines))  # a line each
    app.command(name, cls=CarefulCommand, help=text, epilog=paragraphs)(function)
    return typer.main.get_command(app)


def explain(error: Exception) -> str | None:
    """The line for an error a user can cause, or None for a bug of ours, which keeps its traceback.

    Example:
        >>> explain(OSError(28, "No space left on device", "out/0.png"))
        'out/0.png: no space left on device; free some space or choose another folder'
    """
    if isinstance(error, USAGE_ERROR) and type(error).show is USAGE_ERROR.show:  # a page of help shows itself
        where = f"; see {error.ctx.command_path} --help" if error.ctx else ""
        return " ".join(error.format_message().split()).rstrip(".") + where
    return line_of(error)


def _note(message: Warning | str, *_: Any) -> None:
    """A warning without the place in the code."""
    say(f"note: {message}", err=True)


def _print_version(asked: bool) -> bool:
    if asked:
        typer.echo(f"photopic {__version__}")
        raise typer.Exit
    return asked


app = typer.Typer(
    cls=RootGroup, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)


@app.callback()
def photopic(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Find where a pretrained vision model keeps what it knows, and change it in small, exact, reversible edits."""
