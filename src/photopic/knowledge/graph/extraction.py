"""The first phase of a graph: every extractor over every thing of this process's share, kept as it goes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.files import write_atomically
from photopic.knowledge.graph.extracted import Extracted, Named
from photopic.knowledge.graph.extractor import Extractor
from photopic.knowledge.graph.thing import Thing, Things

if TYPE_CHECKING:
    from photopic.models.dual_encoder import DualEncoder

BLOCK = 64  # things between two writes; a kill costs no more
BATCH = (
    32  # pictures or texts that an encoder reads at once: always so many, so that no row depends on who shares a batch
)
LISTING = "listing-{}.json"


@dataclass(frozen=True)
class Listed:
    """One thing and what was found in it.

    Attributes:
        uri: What the user calls it.
        key: Of its picture's node.
        wanted: (source, content) of all that was found.
    """

    uri: str
    key: str
    wanted: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Shard:
    """A share of the things: those whose place modulo ``count`` is ``number``.

    Attributes:
        number: Of this process, from 0.
        count: Processes in all.
    """

    number: int = 0
    count: int = 1

    @classmethod
    def of_process(cls) -> Shard:
        """As ``accelerate launch`` numbers the processes; one alone otherwise."""
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


def extract(
    things: Things, extractors: Sequence[Extractor], kept: Extracted, encoder: DualEncoder | None, shard: Shard
) -> Steps[None]:
    """Read the things of a share, and leave a listing of them beside what was found.

    Args:
        things: All of them.
        extractors: The first one finds the picture's node.
        kept: What was found before, by content; nothing of it is done again.
        encoder: Makes features of pictures and texts, or None.
        shard: Which share.
    """
    uris = list(things.uris())[shard.number :: shard.count]
    listed: list[Listed] = []
    problems: list[tuple[str, str]] = list(things.problems) if shard.number == 0 else []
    for start in range(0, len(uris), BLOCK):
        block = [_read(things, uri, extractors, kept, problems) for uri in uris[start : start + BLOCK]]
        read = [each for each in block if each is not None]
        listed += [each for _, each, _ in read]
        if encoder is not None:
            _encode(things, [(thing, named) for thing, _, named in read], kept, encoder)
        kept.flush()
        yield Event("extracting", min(start + BLOCK, len(uris)), len(uris))
    content = {"listed": [[each.uri, each.key, each.wanted] for each in listed], "problems": problems}
    write_atomically(kept.folder / LISTING.format(shard.number), json.dumps(content).encode())


def read_listings(folder: Path, count: int) -> tuple[list[Listed], list[tuple[str, str]]]:
    """The things and problems of all shares, by uri.

    Args:
        folder: Where the shares left their listings.
        count: Of shares.
    """
    found = [json.loads((folder / LISTING.format(number)).read_bytes()) for number in range(count)]
    listed = [
        Listed(uri, key, tuple((source, content) for source, content in wanted))
        for each in found
        for uri, key, wanted in each["listed"]
    ]
    problems = [(uri, problem) for each in found for uri, problem in each["problems"]]
    return sorted(listed, key=lambda each: each.uri), sorted(problems)


def _read(
    things: Things, uri: str, extractors: Sequence[Extractor], kept: Extracted, problems: list[tuple[str, str]]
) -> tuple[Thing, Listed, Named] | None:
    """One thing through all extractors; None where the first cannot read it."""
    try:
        thing = things.read(uri)
    except DataError as error:
        problems.append((uri, str(error)))
        return None
    wanted: list[tuple[str, str]] = []
    pictures: list[str] = []
    texts: list[str] = []
    for extractor in extractors:
        content = extractor.reads(thing)
        if content is None:
            continue
        try:
            named = kept.found(extractor.source, content) or kept.add(
                extractor.source, content, extractor.extract(thing)
            )
        except DataError as error:
            problems.append((uri, str(error)))
            if not thing.key:  # without its picture there is nothing to tie the rest to
                return None
            continue
        wanted.append((extractor.source, content))
        pictures += named.pictures
        texts += named.texts
        thing = thing if thing.key else replace(thing, key=named.pictures[0])
    return thing, Listed(uri, thing.key, tuple(wanted)), Named(tuple(pictures), tuple(texts))


def _encode(things: Things, read: Sequence[tuple[Thing, Named]], kept: Extracted, encoder: DualEncoder) -> None:
    """Features of what has none yet."""
    drawn = {key: draw for thing, _ in read for key, draw in things.pictures(thing).items() if kept.lacks("image", key)}
    texts = dict.fromkeys(key for _, named in read for key in named.texts if kept.lacks("text", key))
    _add(kept, "image", drawn, lambda keys: encoder.image_features([drawn[key]() for key in keys], batch=BATCH))
    _add(kept, "text", texts, lambda keys: encoder.text_features(list(keys), batch=BATCH))


def _add(
    kept: Extracted, kind: str, keys: Mapping[str, Any] | Iterable[str], encode: Callable[[Sequence[str]], Any]
) -> None:
    several = list(keys)
    for start in range(0, len(several), BATCH):
        chosen = several[start : start + BATCH]
        full = [*chosen, *chosen[:1] * (BATCH - len(chosen))]
        features = np.asarray(encode(full), np.float16)[: len(chosen)]  # (chosen, dim)
        kept.add_features(kind, chosen, features)
