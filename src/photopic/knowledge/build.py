"""A folder of pictures becomes a knowledge graph: what is in each, what its caption says, which belong and look together.

Paper: UKnow, a unified knowledge protocol with multimodal knowledge graph datasets (arXiv:2302.06891). Its five families of
relations and three phases are as published; the relations, thresholds and files are ours, since the paper's were never published.
Claims: ``uknow.build_seconds``, ``uknow.query_seconds`` and ``uknow.rebuilt_equal`` of benchmarks/knowledge/graph_building.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le

from photopic.core.config import Flags
from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.files import what_is_there, write_atomically
from photopic.core.method import method
from photopic.core.results import Report
from photopic.core.runs import Run
from photopic.core.view import Bars, Section, Table, View
from photopic.knowledge.graph.assemble import WORK, Assembly, assemble
from photopic.knowledge.graph.extracted import Extracted
from photopic.knowledge.graph.extraction import LISTING, Listed, Shard, extract, read_listings
from photopic.knowledge.graph.extractor import extractors_named
from photopic.knowledge.graph.graph import Graph
from photopic.knowledge.graph.neighbours import SimilarityConfig
from photopic.knowledge.graph.records import Found, Node
from photopic.knowledge.graph.schema import relation_id
from photopic.knowledge.graph.tables import CARD, database
from photopic.knowledge.graph.thing import Things
from photopic.knowledge.graph.things import things_of
from photopic.models.dual_encoder import DualEncoder

URIS = "listing/1"  # source of where each picture lies
SHOWN = 3  # unreadable files in a note


@dataclass(frozen=True, kw_only=True)
class BuildConfig(SimilarityConfig):
    """What is extracted, and how edges are parted for measuring."""

    extractors: Annotated[tuple[str, ...] | None, Flags("--extractor")] = (
        None  # name or module:function, several times; all that fit
    )
    licence: str | None = None  # of pictures whose files tell none; unknown otherwise
    split: tuple[str, ...] = ("mentions",)  # relation whose edges are parted by base concept; several times
    valid: Annotated[float, Ge(0), Le(0.5)] = 0.1  # share of base concepts whose edges are for validation
    test: Annotated[float, Ge(0), Le(0.5)] = 0.1  # share of base concepts whose edges are for test
    seed: Annotated[int, Ge(0)] = 0  # chooses which base concepts; the same seed chooses the same


def build_view(report: Report) -> View:
    """Counts by kind, family and source."""
    values = report.values
    kinds = [[kind, count] for kind, count in values["kinds"].items()]
    families = [(row["relation"], row["share"], f"{row['edges']:,} of family {row['family']}") for row in report.rows]
    sources = [[source, count] for source, count in values["sources"].items()]
    licences = [[licence, count] for licence, count in values["licences"].items()]
    unread = [[each["uri"], each["problem"]] for each in values["unreadable"]]
    blocks: list[Any] = [
        Table(["nodes", ""], kinds),
        Bars(families, "Edges by relation"),
        Table(["edges from", ""], sources),
        Table(["licence of pictures", ""], licences),
        *([Table(["not read", "why"], unread)] if unread else []),
    ]
    return View("A knowledge graph", [Section("", blocks)], f"{values['nodes']:,} nodes, {values['edges']:,} edges.")


@method(
    paper="arXiv:2302.06891",
    claims="uknow.build_ uknow.query_ uknow.rebuilt_",
    command="knowledge build",
    page=False,
    view=build_view,
    examples=(
        "Example: photopic knowledge build pictures/ --encoder emoji-clip-vit -o my.graph",
        "Several processes: accelerate launch -m photopic knowledge build pictures/ -o my.graph",
    ),
    after=("next: photopic knowledge query {graph} WORD",),
)
def build(
    folder: Annotated[str, Flags("FOLDER")],
    *,
    output: Annotated[str, Flags("--output", "-o", "--out")],
    encoder: Annotated[DualEncoder | None, Flags("--encoder")] = None,
    config: BuildConfig = BuildConfig(),
) -> Steps[Report]:
    """Build a knowledge graph of a folder of pictures, or bring one up to date.

    The same command goes on after a kill, and takes in pictures that came, went or changed; what was extracted from a content is
    not extracted again. Unreadable files are listed and end nothing.

    Args:
        folder: Folder of pictures, in sub-folders or not, with captions beside them or not; or emoji-world for its concept table,
            or emoji-scenes:500 for composed scenes.
        output: Folder of the graph; one that is there is brought up to date.
        encoder: Model whose features say which pictures and texts are alike: a bundled name, a folder or a hub id; none leaves
            those edges out.
        config: What is extracted and compared.

    Returns:
        One row a relation; counts, licences and unreadable files in the values.

    Raises:
        DataError: If there is no picture, the output is another folder, or it holds features of another encoder.

    Example:
        >>> build("pictures/", output="my.graph").values["nodes"]  # doctest: +SKIP
        214
    """
    place, shard = Path(output), Shard.of_process()
    things = things_of(folder)
    extractors = extractors_named(config.extractors or things.extractors)
    for name in config.split:
        relation_id(name)  # refuses an unknown one before anything takes time
    made_by = None if encoder is None else {"name": encoder.name, "fingerprint": encoder.digest()}
    _check_place(place, made_by)
    run = Run(place / WORK)
    with run.held():
        if shard.number == 0:
            for stale in run.folder.glob(LISTING.format("*")):
                stale.unlink()
        _together(shard)
        kept = Extracted(run.folder, (made_by or {}).get("fingerprint", ""))
        yield from extract(things, extractors, kept, encoder, shard)
        _together(shard)
        if shard.number > 0:  # one merges what all extracted
            return Report("a share of a graph", {"things": len(things.uris())})
        card = yield from _merge(
            things, kept, place, shard.count, made_by, config, [each.source for each in extractors]
        )
    return _report(card, place)


def _merge(
    things: Things,
    kept: Extracted,
    place: Path,
    shards: int,
    encoder: Mapping[str, str] | None,
    config: BuildConfig,
    sources: Sequence[str],
) -> Steps[dict[str, Any]]:
    """One graph of what all processes extracted."""
    listed, problems = read_listings(kept.folder, shards)
    if not listed:
        raise DataError(
            f"{place}: expected at least one readable picture, found none; the first problem: {problems[0][1]}"
        )
    for warning in _notes(listed, problems):
        yield Event("numbering", warning=warning)
    uris = kept.folder / "uris.json"
    write_atomically(uris, "".join(_uri_line(each) for each in listed if things.one_picture).encode())
    wanted = {(source, content) for each in listed for source, content in each.wanted} | {
        (URIS, each.uri) for each in listed
    }
    parts = Assembly(
        lines=[*kept.lines(), uris],
        wanted=sorted(wanted),
        features={} if encoder is None else {kind: kept.rows(kind) for kind in ("image", "text")},
        encoder=encoder,
        facts={
            "extractors": list(sources),
            "unreadable": [{"uri": uri, "problem": problem} for uri, problem in problems],
        },
        licence=config.licence,
        similarity=config,
        split_relations=config.split,
        shares=(config.valid, config.test),
        seed=config.seed,
    )
    card: dict[str, Any] = yield from assemble(parts, place)
    return card


def _uri_line(each: Listed) -> str:
    """Where a picture lies."""
    node = Node("image", each.key, each.uri, (each.uri,))
    return Found((node,)).line(URIS, each.uri) + "\n"


def _notes(listed: Sequence[Listed], problems: Sequence[tuple[str, str]]) -> list[str]:
    found = []
    if problems:
        more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        found.append(f"not read: {'; '.join(problem for _, problem in problems[:SHOWN])}{more}")
    if not any(
        source.startswith(("captions/", "scenes/", "emoji_concepts/")) for each in listed for source, _ in each.wanted
    ):
        found.append("no picture has a caption: only what pictures alone say is in the graph")
    names: dict[str, list[str]] = {}
    for each in listed:
        names.setdefault(each.key, []).append(each.uri)
    twice = [uris for uris in names.values() if len(uris) > 1]
    if twice:
        found.append(
            f"{len(twice)} pictures lie under several names, such as {' and '.join(twice[0][:2])}: one node each"
        )
    return found


def _check_place(place: Path, encoder: Mapping[str, str] | None) -> None:
    """Refuse a folder of something else, and a graph of another encoder."""
    there = what_is_there(place)
    if there not in ("nothing", "a folder"):
        raise DataError(
            f"{place}: expected a folder to write the graph into, found {there or 'a file'}; choose another name"
        )
    if there == "a folder" and any(place.iterdir()) and not ((place / CARD).exists() or (place / WORK).is_dir()):
        raise DataError(
            f"{place}: expected a new folder or a graph, found a folder of something else; choose another name"
        )
    database().close()  # tells a package that is missing before anything takes time
    if not (place / CARD).exists():
        return
    before = Graph(place).card["encoder"]
    if before is not None and (encoder is None or encoder["fingerprint"] != before["fingerprint"]):
        asked = "no encoder" if encoder is None else f"{encoder['name']} ({encoder['fingerprint'][:12]})"
        raise DataError(
            f"{place}: holds features of {before['name']} ({before['fingerprint'][:12]}), asked for {asked}; give that encoder, or "
            "build into another folder"
        )


def _together(shard: Shard) -> None:
    """Wait for all processes."""
    if shard.count > 1:
        from accelerate import PartialState

        PartialState(cpu=True).wait_for_everyone()  # gloo: nothing but the waiting is shared


def _report(card: Mapping[str, Any], place: Path) -> Report:
    relations = json.loads((place / "relations.json").read_text())
    rows = tuple(
        {"relation": each["name"], "family": each["family"], "edges": count, "share": count / max(card["edges"], 1)}
        for each in relations
        if (count := card["relations"][each["name"]])
    )
    return Report("knowledge graph", dict(card), rows, {"graph": str(place)})
