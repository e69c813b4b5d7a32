"""What every command refuses before it looks at anything: empty words, numbers that are none, one option given twice."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from photopic.calls.problems import ran_out_of_memory
from photopic.core.errors import PhotopicError

LARGEST = 2**32 - 1  # of whole numbers: the largest seed that all generators of random numbers take
DEVICES = "cpu, cuda, mps, xpu, hpu, npu, mtia"  # kinds that torch may know; whether one is there is seen when a model goes to it
SMALLER = (
    "batch",
    "size",
    "resolution",
    "samples",
    "pictures",
    "frames",
    "rank",
)  # options by which a command needs less memory
DEVICE = "Where to compute: cpu, cuda, cuda:1, mps, ..."


class CarefulCommand(TyperCommand):
    """A command that takes each option once, and from the command line only what any option can be.

    Where memory runs out, whatever ran out of it, the command says what of its own makes it need less.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run the command.

        Raises:
            PhotopicError: If memory ran out.
        """
        try:
            return super().invoke(ctx)
        except Exception as error:
            if not ran_out_of_memory(error):
                raise
            raise PhotopicError(f"memory ran out; {self._smaller()}") from None

    def _smaller(self) -> str:
        """What to do where memory ran out, by the options that there are."""
        params: list[Any] = self.params
        flags = {each.name: max(each.opts, key=len) for each in params}
        options = " or ".join(flags[name] for name in SMALLER if name in flags)
        fixes = [f"lower {options}"] if options else []
        fixes += ["say with --memory how much there is"] if "memory" in flags else []
        return ", ".join([*fixes, "give smaller pictures or a smaller model"])

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the options, then look at what was typed.

        Raises:
            typer.BadParameter: Names the option, what was expected and what was found.
        """
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))  # each option as often as it stands there
        typed: Counter[Any] = Counter(each for each in order if each.param_type_name == "option")
        for param, times in typed.items():
            if times > 1 and not param.multiple:
                raise typer.BadParameter(f"expected once, found {times} times; leave all but one out", ctx, param)
        rest: list[str] = super().parse_args(ctx, args)
        params: list[Any] = self.params
        for param in params:
            if ctx.get_parameter_source(param.name).name == "COMMANDLINE":
                for value in _each(ctx.params.get(param.name)):
                    if problem := problem_of(value):
                        raise typer.BadParameter(problem, ctx, param)
        return rest


def problem_of(value: Any) -> str:
    """What is wrong with a typed value whatever it is for, or nothing.

    Example:
        >>> problem_of(""), problem_of(float("nan")), problem_of(3)
        ('expected a word, found nothing', 'expected a finite number, found nan', '')
    """
    if (isinstance(value, str | Path) and not str(value).strip()) or value == Path():
        return "expected a word, found nothing"
    if isinstance(value, float) and not math.isfinite(value):
        return f"expected a finite number, found {value}"
    if isinstance(value, int) and abs(value) > LARGEST:
        return f"expected {LARGEST} or less, found {value}"
    return ""


def between(above: int | float | None, below: int | float | None) -> Callable[[Any], Any]:
    """A check that a number, if there is one, lies between two that are not allowed themselves.

    Raises:
        typer.BadParameter: From the check.

    Example:
        >>> between(0, None)(0.5)
        0.5
    """

    def check(value: Any) -> Any:
        if value is not None and above is not None and not value > above:
            raise typer.BadParameter(f"expected more than {above}, found {value}")
        if value is not None and below is not None and not value < below:
            raise typer.BadParameter(f"expected less than {below}, found {value}")
        return value

    return check


def checked_device(word: str | None) -> str | None:
    """A device as torch names one.

    Raises:
        typer.BadParameter: If it is none.

    Example:
        >>> checked_device("cuda:1")
        'cuda:1'
    """
    if word and not re.fullmatch(rf"(?:{DEVICES.replace(', ', '|')})(?::\d{{1,4}})?", word):
        raise typer.BadParameter(f"expected one of {DEVICES}, perhaps with a number as in cuda:1, found {word!r}")
    return word


# what ``photopic guard check`` and ``serve`` both take
DeviceOption = Annotated[str, typer.Option(help=DEVICE, callback=checked_device)]
ModelOption = Annotated[
    str | None,
    typer.Option(help="The classifier it was fitted on: a name, a folder or a hub id.", show_default="as in the file"),
]


def _each(value: Any) -> Iterator[Any]:
    yield from value if isinstance(value, list | tuple) else (value,)
