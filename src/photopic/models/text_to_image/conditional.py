"""A handle over a text-to-image pipeline that also reads conditions, by an adapter beside its UNet.

Use it as ``photopic.load("emoji-composer")``; without conditions it draws what its base draws, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor, nn

from photopic.core.errors import ModelError
from photopic.data.conditions import Conditions
from photopic.data.extraction import Embedded
from photopic.models.dual_encoder import DualEncoder
from photopic.models.files import forget_sources
from photopic.models.text_to_image.condition_encoder import ConditionEncoder, Encoded, Shape
from photopic.models.text_to_image.condition_files import About, write_encoder
from photopic.models.text_to_image.handle import TextToImage


class ConditionalTextToImage(TextToImage):
    """A text-to-image model and its adapter.

    Args:
        pipeline: Whose ``conditions`` are the adapter and what is known of it.
        name: What messages and files call the model.
        knows_emoji: As of ``TextToImage``.

    Example:
        >>> ConditionalTextToImage.load("emoji-composer").condition_encoder.shape.names  # doctest: +SKIP
        ('embedding', 'palette', 'sketch', 'instances', 'depth', 'intensity', 'masked')
    """

    def __init__(self, pipeline: Any, name: str = "model", *, knows_emoji: bool = False):
        super().__init__(pipeline, name, knows_emoji=knows_emoji)
        self.condition_encoder.to(self.device)

    @property
    def condition_encoder(self) -> ConditionEncoder:
        """The adapter, in float32."""
        found: ConditionEncoder = self.pipeline.conditions[0]
        return found

    @property
    def about(self) -> About:
        """What the model says of its adapter."""
        found: About = self.pipeline.conditions[1]
        return found

    @property
    def components(self) -> dict[str, nn.Module]:
        """The pipeline's networks, and ``conditions``, the adapter."""
        return {**super().components, "conditions": self.condition_encoder}

    @property
    def provenance(self) -> Mapping[str, Any]:
        """How the adapter was made."""
        return self.about.provenance

    def stamped(self, provenance: Mapping[str, Any]) -> ConditionalTextToImage:
        """The same model, which keeps in its folder how it was made, but for how long that took."""
        kept = {name: value for name, value in provenance.items() if name not in ("elapsed_s", "peak_bytes")}
        self.pipeline.conditions = (self.condition_encoder, replace(self.about, provenance=kept))
        return self

    def save(self, folder: Path) -> None:
        """Write the whole pipeline and the adapter's files."""
        super().save(folder)
        forget_sources(folder)
        write_encoder(folder, self.condition_encoder, replace(self.about, base=""))

    def encode_conditions(self, sets: Sequence[Conditions]) -> Encoded:
        """Encode sets of conditions, one a row; captions are the prompt's and are left out.

        Raises:
            ModelError: If a set has a condition that the model was not trained with, is of another size than the model's pictures,
                or holds an embedding of another encoder.
        """
        for each in sets:
            self.check_conditions(each)
        device = self.device
        with torch.no_grad():
            return self.condition_encoder(*batch_of(sets, self.condition_encoder.shape, device))

    def check_conditions(self, found: Conditions) -> None:
        """Refuse a set that this model does not read.

        Raises:
            ModelError: As ``encode_conditions``.
        """
        names = self.condition_encoder.shape.names
        if strange := [name for name in found.names if name not in (*names, "caption")]:
            raise ModelError(
                f"{self.name}: was not trained with {strange[0]}; it reads caption, {', '.join(names)}; leave it out"
            )
        if found.size != self.image_size:
            raise ModelError(
                f"{self.name}: expected conditions of {self.image_size} pixels, found {found.size}; make them with --size "
                f"{self.image_size}"
            )
        if found.encoder and found.encoder != self.about.encoder_digest:
            raise ModelError(
                f"{self.name}: reads embeddings of {self.about.encoder} ({self.about.encoder_digest[:12]}), found one of another "
                f"encoder ({found.encoder[:12]}); make it with --encoder {self.about.encoder}"
            )

    def conditioned(self, encoded: Encoded | Callable[[int], Encoded]) -> AbstractContextManager[None]:
        """A block in which the network reads conditions."""
        return self.condition_encoder.acting(self.unet, encoded)


def embedded(encoder: DualEncoder, images: Sequence[UInt8[np.ndarray, "h w 3"]]) -> list[Embedded]:
    """Embeddings of pictures, of length 1, with the digest of whose they are."""
    features = encoder.image_features(list(images))
    unit = torch.nn.functional.normalize(features.float(), dim=1).half().cpu().numpy()
    return [Embedded(vector, encoder.digest()) for vector in unit]


def batch_of(
    sets: Sequence[Conditions], shape: Shape, device: torch.device | str = "cpu"
) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
    """Values and presence, by name, as a ``ConditionEncoder`` takes them."""
    values, kept = {}, {}
    for name in shape.names:
        there: Bool[np.ndarray, " n"] = np.array([name in each.values for each in sets])
        kept[name] = torch.from_numpy(there).float().to(device)
        if there.any():
            rows = [each.channels(name) for each in sets if name in each.values]
            full = np.zeros((len(sets), *rows[0].shape), np.float32)
            full[there] = np.stack(rows)
            values[name] = torch.from_numpy(full).to(device)
    return values, kept
