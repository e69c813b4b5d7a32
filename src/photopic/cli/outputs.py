"""What a command leaves behind, by the type of the result: an edit file, a page, pictures, a folder, a verdict."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from photopic.cli.places import check_output, put
from photopic.cli.says import REJECTED, json_text, say, say_json

if TYPE_CHECKING:
    from photopic.core.about import About
    from photopic.core.edits import Edit
    from photopic.core.edits.several import Edits
    from photopic.core.results import Map, Report, Verdict


class Wanted(NamedTuple):
    """How a result is to be written.

    Attributes:
        output: Where to; None only for what is shown.
        about: Of the method.
        as_json: Print the numbers and nothing else.
        overwrite: Replace what is there.
    """

    output: Path | None
    about: About
    as_json: bool = False
    overwrite: bool = False

    @property
    def place(self) -> Path:
        """Where to, for what is always written."""
        assert self.output is not None
        return self.output


def write(result: Any, wanted: Wanted) -> None:
    """Write a result and say on stdout where it is and what to do next."""
    writers: dict[str, Callable[[Any, Wanted], Path | None]] = {
        "Edit": _edit, "Edits": _edits, "Report": _report, "Map": _map, "Verdict": _verdict,
    }  # fmt: skip
    kinds = [each.__name__ for each in type(result).__mro__]  # a report of probes is a report
    place = writers.get(next((name for name in kinds if name in writers), ""), _saved)(result, wanted)
    about = wanted.about
    known = defaultdict(str, {**getattr(result, "provenance", {}), "output": place}) if not wanted.as_json else {}
    for line in about.after if not wanted.as_json else ():
        say(line.format_map(known))
    if getattr(result, "accepted", True) is False or (about.failed is not None and about.failed(result)):
        raise typer.Exit(REJECTED)


def _edit(edit: Edit, wanted: Wanted) -> Path:
    from photopic.core.edits.file import save

    place = put(partial(save, edit), wanted.place, overwrite=wanted.overwrite)
    _show(edit, wanted)
    say(f"{place}: {place.stat().st_size:,} bytes; look inside with: photopic inspect {place}")
    return place


def _edits(several: Edits, wanted: Wanted) -> Path:
    folder = wanted.output or Path(".")
    folder.mkdir(parents=True, exist_ok=True)
    places = {folder / f"{name}.edit": edit for name, edit in several.edits.items()}
    for place in places:  # all or none
        check_output(place, overwrite=wanted.overwrite)
    for place, edit in places.items():
        _edit(edit, wanted._replace(output=place))
    return folder


def _report(report: Report, wanted: Wanted) -> Path | None:
    place = _page(report, wanted)
    if place is not None and not wanted.as_json:
        shown = "all numbers as JSON" if place.suffix.lower() == ".json" else "open it in a browser"
        say(f"{place}: {place.stat().st_size:,} bytes; {shown}")
    return place


def _verdict(verdict: Verdict, wanted: Wanted) -> Path | None:
    place = _page(verdict, wanted)
    if not wanted.as_json:
        say(("accepted: " if verdict.accepted else "rejected: ") + verdict.reason)
    return place


def _page(result: Report | Verdict, wanted: Wanted) -> Path | None:
    """The page or its numbers in a file, if one is wanted; the numbers as JSON, or the view on the terminal where there is none."""
    place = None
    if wanted.output is not None:
        content = _content(result, wanted.output, wanted.about).encode()
        place = put(lambda path: path.write_bytes(content), wanted.output, overwrite=wanted.overwrite)
    if wanted.as_json:
        say_json(result.to_dict())
    elif place is None:
        _show(result, wanted)
    return place


def _content(result: Report | Verdict, output: Path, about: About) -> str:
    """What the file of a report holds: all numbers where its name ends in ``.json``, else the page."""
    if output.suffix.lower() == ".json":
        return json_text(result.to_dict()) + "\n"
    from photopic.report.html import page

    return page(about.view(result) if about.view else result)


def _map(found: Map, wanted: Wanted) -> Path:
    from photopic.report.html import page
    from photopic.report.pictures import write_map

    view = wanted.about.view
    for line in write_map(found, wanted.place, page(view(found)) if view else ""):
        say(line)
    return wanted.place


def _saved(model: Any, wanted: Wanted) -> Path:
    """A model in its folder, or what is one file."""
    place = put(model.save, wanted.place, overwrite=wanted.overwrite)
    _show(model, wanted)
    files = [each for each in (place, *place.rglob("*")) if each.is_file()]
    say(f"{place}: {sum(each.stat().st_size for each in files):,} bytes")
    return place


def _show(result: Any, wanted: Wanted) -> None:
    if wanted.about.view is not None:
        from photopic.report.terminal import show

        show(wanted.about.view(result))
