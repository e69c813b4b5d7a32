"""The models of a studio: those that come with photopic and those it was started with, by name; the worker alone holds them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from photopic.calls.problems import line_of
from photopic.core.errors import ModelError
from photopic.models.files import (
    CAPTIONER,
    CLASSIFIER,
    DIFFUSION,
    DUAL_ENCODER,
    GENERATOR,
    INDEX,
    MASKED_AUTOENCODER,
    SEGMENTER,
    TEXT_TO_IMAGE,
    bundled_names,
    found_source,
    kind_of,
)
from photopic.models.loading import HANDLES
from photopic.studio.refusals import Refused
from photopic.studio.stream import Stream

if TYPE_CHECKING:
    from photopic.models.handle import Handle
    from photopic.models.text_to_image.handle import TextToImage

FAMILIES = {
    TEXT_TO_IMAGE: "text_to_image", DIFFUSION: "diffusion", DUAL_ENCODER: "dual_encoder", CLASSIFIER: "classifier",
    CAPTIONER: "captioner", MASKED_AUTOENCODER: "masked_autoencoder", SEGMENTER: "segmenter",
    GENERATOR: "generator",
}  # fmt: skip
ANY = "photopic.models.handle:Handle"


class Models:
    """What can be loaded, and what is.

    A browser names a model and never a path: a model in a folder of one's own is given to the command that starts the studio.

    Args:
        stream: Where changes are told.
        first: The text-to-image model to begin with: a bundled name, a folder or a hub id.
        others: Further ones of any kind.
        device: Where to compute; None takes the fastest.

    Raises:
        ModelError: If a word leads to no model, or the first to one that does not draw. What is there and cannot be loaded is told
            once it is tried.
    """

    def __init__(self, stream: Stream, first: str, others: Sequence[str] = (), device: str | None = None):
        self.stream, self.device = stream, device
        given = {Path(word).name if Path(word).is_dir() else word: word for word in (first, *others)}
        self._words = {name: name for name in bundled_names()} | given
        self._kinds: dict[str, str] = {}  # by name, once looked for
        self.wanted = next(name for name, word in given.items() if word == first)
        for name in given:
            self._kind(name)  # a wrong word is refused before anything is opened
        if self._kind(self.wanted) != TEXT_TO_IMAGE:
            raise ModelError(
                f"--model {first}: expected {TEXT_TO_IMAGE}, found another kind of model; add it with --also"
            )
        self.state: dict[str, Any] = {
            "name": self.wanted,
            "status": "loading",
            "error": None,
            "size": None,
            "family": None,
        }
        self._current: TextToImage | None = None
        self._other: tuple[str, Handle] | None = None  # one more, so that a second job on it need not load it again

    def names(self, kind: str = ANY) -> list[str]:
        """The names of models of a class, given as the manifest gives it."""
        return [name for name in self._words if kind in (ANY, HANDLES.get(self._kind(name)))]

    def all(self) -> list[dict[str, str]]:
        """Every model with its family: ``text_to_image``, ``dual_encoder``, ``classifier``, ``captioner``, ``diffusion`` or
        ``masked_autoencoder``."""
        return [{"name": name, "family": FAMILIES.get(self._kind(name), "unknown")} for name in self._words]

    def check(self, name: str, kind: str = ANY) -> str:
        """A name that can be loaded.

        Raises:
            Refused: If there is none of that name and class.
        """
        if name not in (known := self.names(kind)):
            fix = "start photopic studio with --model or --also to add one"
            raise Refused(400, f"model: expected one of {', '.join(known)}, found {name!r}; {fix}", field="model")
        return name

    def _kind(self, name: str) -> str:
        if name not in self._kinds:
            self._kinds[name] = _kind_of(self._words[name])
        return self._kinds[name]

    def load_first(self) -> None:
        """Load the model to begin with; where that fails the page says why, and all that needs no model works."""
        try:
            self.load(self.wanted)
        except Exception:
            return  # `load` has told it

    def load(self, name: str) -> None:
        """Make a text-to-image model the current one.

        Raises:
            Exception: Whatever the loader raises, told before.
        """
        self._tell(name, "loading")
        self._current = None  # before the next: two would need twice the memory
        try:
            from photopic.models.text_to_image.handle import TextToImage

            self._current = model = TextToImage.load(self._words[name], device=self.device)
        except Exception as error:
            self._tell(name, "failed", error=line_of(error) or f"{type(error).__name__}: {error}")
            raise
        self._tell(name, "ready", size=model.image_size, family=type(model.pipeline).__name__)

    def _tell(self, name: str, status: str, **more: Any) -> None:
        self.state = {"name": name, "status": status, "error": None, "size": None, "family": None, **more}
        self.stream.publish("model", self.state)

    @property
    def current(self) -> TextToImage:
        """The model that draws.

        Raises:
            ModelError: If it could not be loaded; says why.
        """
        if self._current is None:
            raise ModelError(self.state["error"] or f"{self.state['name']}: is not loaded; choose a model")
        return self._current

    def of(self, kind: Any, name: str) -> Handle:
        """A model of a class by its name: the current one, or one that is loaded for this."""
        if self._current is not None and name == self.state["name"] and isinstance(self._current, kind):
            return self._current
        if self._other is None or self._other[0] != name or not isinstance(self._other[1], kind):
            self._other = None
            self._other = (name, _loaded(kind, self._words[name], self.device))
        return self._other[1]


def _kind_of(word: str) -> str:
    """Which kind of model a word leads to; a pipeline that is damaged is one, and says what is wrong once it is loaded."""
    source = found_source(word)
    try:
        return kind_of(source)
    except ModelError:
        if isinstance(source, Path) and (source / INDEX).is_file():
            return TEXT_TO_IMAGE
        raise


def _loaded(kind: Any, word: str, device: str | None) -> Handle:
    from inspect import isabstract

    found: Handle = (
        import_module("photopic.models.loading").load(word, device) if isabstract(kind) else kind.load(word, device)
    )
    return found
