"""What a graph is built from, by a word of the user: a folder of pictures, scenes of the emoji world, or its concept table."""

from __future__ import annotations

from pathlib import Path

from photopic.core.errors import DataError
from photopic.data.picture_set import SCENES
from photopic.knowledge.graph.emoji_things import DrawnScenes, NamedConcepts
from photopic.knowledge.graph.picture_folder import PictureFolder
from photopic.knowledge.graph.thing import CONCEPTS, Things

ALONE = 10_000  # scenes where no number is given


def things_of(word: str) -> Things:
    """What the user means by a word.

    Args:
        word: A folder, ``emoji-world``, or ``emoji-scenes`` with or without a number.

    Raises:
        DataError: If it is no folder, or a folder without pictures.

    Example:
        >>> things_of("emoji-scenes:3").uris()
        ['scene-00000', 'scene-00001', 'scene-00002']
    """
    if word == CONCEPTS:
        return NamedConcepts()
    name, _, count = word.partition(":")
    if name == SCENES:
        if count and (not count.isdigit() or int(count) < 1):
            raise DataError(f"{word}: expected {SCENES} or {SCENES}:5000, found {count!r} for the number of scenes")
        return DrawnScenes(int(count or ALONE))
    return PictureFolder(Path(word))
