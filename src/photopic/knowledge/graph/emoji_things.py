"""Scenes of the emoji world and the concepts of its table, as things that a graph is built from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from importlib import resources

from PIL import Image

from photopic.data import emoji_world, renderings
from photopic.data.picture_set import SCENES, SEED
from photopic.data.scenes import Scene, SceneOptions, sample_scene
from photopic.knowledge.graph.thing import CONCEPTS, Thing


class DrawnScenes:
    """Scenes of the emoji world, of which everything is known.

    Args:
        count: How many.
    """

    extractors: tuple[str, ...] = ("scenes",)
    one_picture = True
    problems: Sequence[tuple[str, str]] = ()

    def __init__(self, count: int):
        self.count = count
        self._options = SceneOptions(concepts=renderings.classes(), tinted=0.2, repeated=0.1)

    def uris(self) -> list[str]:
        """``scene-00000`` and so on."""
        return [f"scene-{number:05d}" for number in range(self.count)]

    def read(self, uri: str) -> Thing:
        """One scene, drawn."""
        scene: Scene = sample_scene(self._options, (SEED, int(uri.rpartition("-")[2])))
        content = hashlib.sha256(scene.image.tobytes() + repr((scene.caption, scene.placements)).encode()).hexdigest()
        return Thing(uri, SCENES, content, scene)

    def pictures(self, thing: Thing) -> dict[str, Callable[[], Image.Image]]:
        """The scene."""
        return {thing.key: lambda: Image.fromarray(thing.subject.image)}


class NamedConcepts:
    """The concept table of the emoji world; each concept is a thing with a picture in every style that draws it."""

    extractors: tuple[str, ...] = ("emoji_concepts",)
    one_picture = False
    problems: Sequence[tuple[str, str]] = ()

    def __init__(self) -> None:
        table = resources.files("photopic.data").joinpath("emoji", "concepts.csv").read_bytes()
        self._table = hashlib.sha256(table).hexdigest()  # keywords count by how often they stand in all of it

    def uris(self) -> list[str]:
        """Names of concepts."""
        return sorted(each.name for each in emoji_world.concepts())

    def read(self, uri: str) -> Thing:
        """One concept."""
        content = hashlib.sha256(f"{self._table} {uri}".encode()).hexdigest()
        return Thing(uri, CONCEPTS, content, emoji_world.concept(uri))

    def pictures(self, thing: Thing) -> dict[str, Callable[[], Image.Image]]:
        """Its drawings over white."""
        return {f"{style}/{thing.uri}": _drawn(thing.uri, style) for style in thing.subject.styles}


def _drawn(name: str, style: str) -> Callable[[], Image.Image]:
    return lambda: Image.fromarray(renderings.pictures([(name, style)])[0])
