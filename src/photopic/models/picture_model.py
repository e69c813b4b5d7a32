"""What handles over one network that reads pictures share: preparing, batches, and folders of transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn

from photopic.models.classifier_files import write
from photopic.models.handle import Handle
from photopic.models.preprocessing import OneOrMore, batched, starts


class PictureModel(Handle):
    """A network that maps pixel values to whatever its kind says.

    Attributes:
        network: The network.
    """

    network: nn.Module
    _preprocess: Callable[[OneOrMore], Tensor]

    @property
    def components(self) -> dict[str, nn.Module]:
        """The network, by the name that edits call it."""
        return {"network": self.network}

    def preprocess(self, images: OneOrMore) -> Float[Tensor, "n channels height width"]:
        """Pixel values of pictures, as the network reads them; a single picture is a batch of one.

        Args:
            images: uint8 (n, h, w, 3) or (n, 3, h, w), one picture, or a list of PIL images and arrays, gray ones among them; a
                preprocessing of one's own gets them as given.

        Raises:
            DataError: If a picture is not 8-bit RGB or gray, or there is none.
        """
        return self._preprocess(batched(images)).to(self.device, self.dtype)

    def save(self, folder: Path) -> None:
        """Write a folder as transformers reads it: the network with the edits in force, and the preprocessing.

        Args:
            folder: Created if missing.

        Raises:
            ModelError: If the network is no model of transformers, or pictures are prepared by a function of one's own: no file
                holds these; keep the edit, which goes with them.

        Example:
            >>> with model.edits.applied(edit):  # doctest: +SKIP
            ...     model.save(Path("mine"))
        """
        write(folder, self.network, self._preprocess, self.name)

    def _batches(self, images: OneOrMore, batch: int) -> Iterator[Float[Tensor, "n channels height width"]]:
        several = batched(images)
        for start in starts(len(several), batch):
            yield self.preprocess(several[start : start + batch])
