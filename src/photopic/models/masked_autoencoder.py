"""A handle over a masked autoencoder: ViTMAE of transformers, trained here or elsewhere.

Use it as ``photopic.load("mae").tokens(images)``: a vector for every patch, from the encoder alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from photopic.core.errors import ModelError
from photopic.core.files import finite, share_as_usual, write_atomically
from photopic.core.nn.evaluating import evaluating
from photopic.models.classifier_files import CONFIG, PREPROCESSOR, check_files, check_size, read_preprocessor
from photopic.models.files import MASKED_AUTOENCODER, first_line, no_progress_bars, quiet, read_json
from photopic.models.handle import Handle
from photopic.models.maskable_vit import at_places, decode, embed, encode, visible_places
from photopic.models.networks import check_finite, put_on
from photopic.models.preprocessing import OneOrMore, Preprocessing, batched, starts

PROVENANCE = "provenance.json"


@dataclass(frozen=True, eq=False)
class MaskedAutoencoder(Handle):
    """An encoder of patches and a decoder that fills in those that were masked.

    Attributes:
        network: A ``ViTMAEForPreTraining``.
        prepare: Of pictures.
        name: What messages and files call the model.
        provenance: How it was made, as JSON values; empty for a model from elsewhere.

    Raises:
        ModelError: If a weight is not finite.

    Example:
        >>> from photopic.models.maskable_vit import maskable_vit
        >>> model = MaskedAutoencoder(maskable_vit(48, 4), Preprocessing(resize=(48, 48)))
        >>> model.grid, model.tokens(torch.zeros(2, 48, 48, 3, dtype=torch.uint8)).shape
        (12, torch.Size([2, 144, 96]))
    """

    described: ClassVar[str] = MASKED_AUTOENCODER

    network: Any
    prepare: Preprocessing
    name: str = "model"
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_finite(self.network, self.name)
        self.network.eval().requires_grad_(False)

    @classmethod
    def _read(
        cls, name: str, source: Path | str, device: str | torch.device, dtype: torch.dtype | None
    ) -> MaskedAutoencoder:
        check_files(name, source, "masked autoencoder", (CONFIG, PREPROCESSOR), "copy the whole model")
        with quiet(), no_progress_bars():
            from transformers import ViTMAEForPreTraining

            try:
                network, report = ViTMAEForPreTraining.from_pretrained(
                    source, dtype=torch.float32, use_safetensors=True, output_loading_info=True
                )
            except Exception as error:  # transformers, safetensors and the hub each raise their own kinds
                raise ModelError(f"{name}: cannot be loaded as a masked autoencoder: {first_line(error)}") from error
        if lacking := sorted(str(key) for key in report["missing_keys"]):
            raise ModelError(
                f"{name}: is not a whole masked autoencoder: its weights lack {lacking[0]}; copy the whole model"
            )
        prepare = Preprocessing.of(read_preprocessor(name, source), f"{name}: {PREPROCESSOR}")
        check_size(name, network.config, prepare)
        put_on(network, device)
        called = source.name if isinstance(source, Path) else source
        known = (read_json(source, PROVENANCE) or {}) if isinstance(source, Path) else {}
        return cls(network.to(dtype=dtype), prepare, called, known)

    @property
    def components(self) -> dict[str, nn.Module]:
        """The network, by the name that edits call it."""
        return {"network": self.network}

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return int(self.network.config.patch_size)

    @property
    def grid(self) -> int:
        """Patches along a side."""
        return int(self.network.config.image_size) // self.patch

    def preprocess(self, images: OneOrMore) -> Float[Tensor, "n 3 side side"]:
        """Pixel values of pictures, as the network reads them.

        Raises:
            DataError: If a picture is not 8-bit RGB or gray, or there is none.
        """
        return self.prepare(batched(images)).to(self.device, self.dtype)

    def forward(
        self, pixels: Float[Tensor, "n 3 side side"], masked: Bool[Tensor, "n patches"]
    ) -> Float[Tensor, "n patches values"]:
        """What the decoder says of every patch, from those that are not masked; gradients flow where they are wanted.

        Raises:
            ModelError: If pictures differ in how many patches are masked.
        """
        with evaluating(self.network):
            places = visible_places(masked)
            return decode(self.network, encode(self.network, at_places(embed(self.network, pixels), places)), places)

    @torch.no_grad()
    def tokens(self, images: OneOrMore, *, batch: int = 64) -> Float[Tensor, "n patches width"]:
        """A vector for every patch of whole pictures, row by row, float32 in main memory; the class token is left out.

        Args:
            images: uint8 (n, h, w, 3), or a list of PIL images and uint8 (h, w, 3) arrays.
            batch: Pictures read at a time.

        Raises:
            DataError: If there is no picture, or one is not 8-bit RGB.
        """
        several = batched(images)
        with evaluating(self.network):
            parts = [
                encode(self.network, embed(self.network, self.preprocess(several[start : start + batch])))[:, 1:]
                for start in starts(len(several), batch)
            ]
        return torch.cat([each.float().cpu() for each in parts])

    def save(self, folder: Path) -> None:
        """Write a folder as transformers reads it: network with the edits in force, and preprocessing."""
        folder.mkdir(parents=True, exist_ok=True)
        with quiet(), no_progress_bars():
            self.network.save_pretrained(folder)
        share_as_usual(*folder.glob("*.safetensors"))
        files = {PREPROCESSOR: self.prepare.config()} | (
            {PROVENANCE: finite(self.provenance)} if self.provenance else {}
        )
        for name, content in files.items():
            write_atomically(folder / name, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())
