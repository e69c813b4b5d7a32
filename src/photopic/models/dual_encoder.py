"""A handle over a model that reads pictures and texts into one space: CLIP and its kin, as transformers has them.

Use it as ``DualEncoder.load("emoji-clip-vit").zero_shot(images, ["mug", "bear"])``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from photopic.core.config import Flags, Sentence, check_value
from photopic.core.errors import DataError, ModelError
from photopic.core.nn.evaluating import evaluating
from photopic.models.classifier_files import write
from photopic.models.dual_encoder_files import bundled_dual_encoders, read
from photopic.models.files import DUAL_ENCODER
from photopic.models.handle import Handle
from photopic.models.networks import check_finite, put_on
from photopic.models.preprocessing import OneOrMore, Preprocessing, batched, starts

__all__ = ["TEMPLATES", "DualEncoder", "Templates", "bundled_dual_encoders"]

TEMPLATES = ("a photo of a {}.",)  # CLIP's plain one
Templates = Annotated[Sequence[Annotated[str, Sentence()]], Flags("--template")]  # of a method, given several times
COMPONENT = "network"  # what edits call the model


class DualEncoder(Handle):
    """Everything photopic asks of a CLIP-like model, whatever its towers.

    The network is put into evaluation mode and its parameters stop requiring gradients. It must have ``vision_model``,
    ``get_image_features`` and ``get_text_features``, as CLIPModel, SiglipModel and VisionTextDualEncoderModel do.

    Args:
        network: The model.
        tokenizer: Of its texts.
        preprocess: Maps pictures to pixel values; ``models.preprocessing.Preprocessing`` or any function.
        name: What messages and files call the model.

    Raises:
        ModelError: If the network is no such model, or a weight is not finite.

    Example:
        >>> model = DualEncoder.load("emoji-clip-vit")  # doctest: +SKIP
        >>> model.zero_shot(images, ["mug", "bear"]).argmax(1)  # doctest: +SKIP
    """

    described: ClassVar[str] = DUAL_ENCODER
    default_name: ClassVar[str] = "emoji-clip-vit"

    def __init__(
        self,
        network: PreTrainedModel,
        *,
        tokenizer: PreTrainedTokenizerBase,
        preprocess: Callable[[OneOrMore], Tensor],
        name: str = "model",
    ):
        lacking = [
            part for part in ("vision_model", "get_image_features", "get_text_features") if not hasattr(network, part)
        ]
        if lacking:
            raise ModelError(
                f"{name}: expected a CLIP-like model, but {type(network).__name__} has no {lacking[0]}; "
                "give a model that was saved with both its encoders"
            )
        check_finite(network, name)
        self.network: Any = network.eval().requires_grad_(False)
        self.tokenizer: Any = tokenizer
        self.name = name
        self._preprocess = preprocess

    @classmethod
    def _read(cls, name: str, source: Path | str, device: str | torch.device, dtype: torch.dtype | None) -> DualEncoder:
        found = read(name, source)
        put_on(found.network, device)
        called = source.name if isinstance(source, Path) else source
        return cls(found.network.to(dtype=dtype), tokenizer=found.tokenizer, preprocess=found.preprocess, name=called)

    def save(self, folder: Path) -> None:
        """Write a folder as transformers reads it: network with the edits in force, tokenizer and preprocessing.

        Args:
            folder: Created if missing.

        Raises:
            ModelError: If pictures are prepared by a function of one's own, which no file can hold.

        Example:
            >>> with model.edits.applied(edit):  # doctest: +SKIP
            ...     model.save(Path("mine"))
        """
        write(folder, self.network, self._preprocess, self.name)
        self.tokenizer.save_pretrained(folder)

    @property
    def components(self) -> dict[str, nn.Module]:
        """The network, by the name that edits call it; its tensors are ``network.<parameter name>``."""
        return {COMPONENT: self.network}

    @property
    def image_tower(self) -> nn.Module:
        """The image encoder before its projection, ``vision_model`` in the network."""
        return self.network.vision_model

    @property
    def logit_scale(self) -> float:
        """What cosines are multiplied with: exp of the learnt scale, an inverse temperature."""
        return float(self.network.logit_scale.detach().float().exp())

    @property
    def image_size(self) -> int:
        """Side in pixels of the pictures it reads, the longer one; 224 where its files do not say."""
        size = getattr(self._preprocess, "size", None)
        return max(size) if size else int(getattr(self.network.config.vision_config, "image_size", 224))

    # -- pictures

    def preprocess(self, images: OneOrMore) -> Float[Tensor, "n 3 height width"]:
        """Pixel values of pictures, as the network reads them.

        Args:
            images: uint8 (n, h, w, 3), or a list of PIL images and uint8 (h, w, 3) arrays.

        Raises:
            DataError: If a picture is not 8-bit RGB, or there is none.
        """
        return self._preprocess(images).to(self.device, self.dtype)

    def encode_images(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n dim"]:
        """Features of pictures of 0 to 1, projected, of any length; gradients flow to the pictures.

        Raises:
            ModelError: If pictures are prepared by a function of one's own, through which no gradient is known to flow.
        """
        if not isinstance(self._preprocess, Preprocessing):
            raise ModelError(f"{self.name}: prepares pictures by a function of its own; give a Preprocessing")
        return self.encode_pixels(self._preprocess.differentiable(images).to(self.device, self.dtype))

    def encode_pixels(self, pixels: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n dim"]:
        """Features of pixel values, projected, of any length; gradients flow to the pixels and to what requires them."""
        with evaluating(self.network):
            return _features(self.network.get_image_features(pixel_values=pixels))

    def forward(self, pixels: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n dim"]:
        """The same as ``encode_pixels``."""
        return self.encode_pixels(pixels)

    @torch.no_grad()
    def image_features(self, images: OneOrMore, *, batch: int = 64) -> Float[Tensor, "n dim"]:
        """Features of pictures, of length 1, float32 in main memory, without gradients.

        Args:
            images: As ``preprocess`` takes them.
            batch: Pictures read at a time.

        Raises:
            DataError: If a picture is not 8-bit RGB, or there is none.
        """
        several = batched(images)
        rows = [
            self.encode_pixels(self.preprocess(several[start : start + batch])).float().cpu()
            for start in starts(len(several), batch)
        ]
        return F.normalize(torch.cat(rows), dim=-1)

    # -- texts

    @property
    def longest_text(self) -> int:
        """How many tokens of a text are read, with those at its beginning and end."""
        return min(self.tokenizer.model_max_length, self._positions())

    def encode_texts(self, texts: Sequence[str]) -> Float[Tensor, "n dim"]:
        """Features of texts, projected, of any length; gradients flow to what requires them.

        Texts longer than the model reads are cut, as CLIP's own code does.

        Raises:
            DataError: If there is none, or one has no token of its own.
        """
        if not texts:
            raise DataError("texts: expected one or more, found none")
        longest = self.longest_text
        alone = self.tokenizer(list(texts), add_special_tokens=False, truncation=True, max_length=longest).input_ids
        for text, ids in zip(texts, alone, strict=True):
            if not len(ids):
                raise DataError(
                    f"text {text!r}: expected words, found none that {self.name} has a token for; give a name"
                )
        found = self.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=longest, return_tensors="pt"
        ).to(self.device)
        with evaluating(self.network):
            read = self.network.get_text_features(
                input_ids=found["input_ids"], attention_mask=found.get("attention_mask")
            )
        return _features(read)

    @torch.no_grad()
    def text_features(self, texts: Sequence[str], *, batch: int = 256) -> Float[Tensor, "n dim"]:
        """Features of texts, of length 1, float32 in main memory, without gradients; raises as ``encode_texts``."""
        rows = [self.encode_texts(texts[start : start + batch]).float().cpu() for start in starts(len(texts), batch)]
        return F.normalize(torch.cat(rows), dim=-1)

    def class_features(
        self, labels: Sequence[str], templates: Sequence[str] = TEMPLATES
    ) -> Float[Tensor, "classes dim"]:
        """The classifier that names make: one row of length 1 a label, the mean over the templates.

        Args:
            labels: Class names; underscores become spaces.
            templates: Sentences with ``{}`` where the name goes.

        Raises:
            DataError: If there is no label, one is empty or has no token, or a template has no place for the name.

        Example:
            >>> model.class_features(["mug", "bear"]).shape  # doctest: +SKIP
            torch.Size([2, 128])
        """
        for template in templates:
            check_value("template", template, Annotated[str, Sentence()])
        if not templates:
            raise DataError("templates: expected one or more, found none")
        names = [label.replace("_", " ").strip() for label in labels]
        self.text_features(names)  # refuses a name without tokens, which its sentence would hide
        rows = [self.text_features([template.format(name) for name in names]) for template in templates]
        return F.normalize(torch.stack(rows).mean(0), dim=-1)

    def zero_shot(
        self, images: OneOrMore, labels: Sequence[str], templates: Sequence[str] = TEMPLATES, *, batch: int = 64
    ) -> Float[Tensor, "n classes"]:
        """Logits of pictures by the names of classes alone: scaled cosines.

        Args:
            images: As ``preprocess`` takes them.
            labels: Class names.
            templates: As ``class_features`` takes them.
            batch: Pictures read at a time.

        Raises:
            DataError: As ``image_features`` and ``class_features``.
        """
        return self.logit_scale * self.image_features(images, batch=batch) @ self.class_features(labels, templates).mT

    def _positions(self) -> int:
        config = self.network.text_model.config
        return int(getattr(config, "max_position_embeddings", 10**9))


def _features(output: Any) -> Tensor:
    """What transformers 5 returns is an output whose ``pooler_output`` is projected; before it was that tensor."""
    return output if isinstance(output, Tensor) else output.pooler_output
