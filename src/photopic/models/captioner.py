"""A handle over a model that writes a text about a picture: the bundled captioner, or any vision-language model of transformers.

Use it as ``Captioner.load("emoji-captioner").write(images)``; a larger model is told in a prompt what to write.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from photopic.core.errors import DataError
from photopic.core.nn.evaluating import evaluating
from photopic.models.captioner_files import Reader, read
from photopic.models.files import CAPTIONER, quiet
from photopic.models.handle import Handle
from photopic.models.networks import check_finite, put_on
from photopic.models.preprocessing import OneOrMore, batched, starts

COMPONENT = "network"  # what edits call the model


class Captioner(Handle):
    """Everything photopic asks of a model that reads pictures and writes text.

    The network is put into evaluation mode and its parameters stop requiring gradients.

    Args:
        network: A model of transformers that has ``generate`` and takes pixel values.
        reader: Makes of pictures and a prompt what the network takes, and of tokens a text.
        name: What messages and files call the model.

    Raises:
        ModelError: If a weight is not finite.

    Example:
        >>> Captioner.load("emoji-captioner").write(images)  # doctest: +SKIP
        ['noto flat red owl 7 20 25 44 bear 36 21 60 43 #1 left_of #2']
    """

    described: ClassVar[str] = CAPTIONER
    default_name: ClassVar[str] = "emoji-captioner"

    def __init__(self, network: PreTrainedModel, *, reader: Reader, name: str = "model"):
        check_finite(network, name)
        self.network: Any = network.eval().requires_grad_(False)
        self.reader, self.name = reader, name

    @classmethod
    def _read(cls, name: str, source: Path | str, device: str | torch.device, dtype: torch.dtype | None) -> Captioner:
        network, reader = read(name, source)
        put_on(network, device)
        called = source.name if isinstance(source, Path) else source
        return cls(network.to(dtype=dtype), reader=reader, name=called)

    @property
    def components(self) -> dict[str, nn.Module]:
        """The network, by the name that edits call it; its tensors are ``network.<parameter name>``."""
        return {COMPONENT: self.network}

    @property
    def takes_prompts(self) -> bool:
        """Whether it can be told what to write; not a decoder that begins with nothing but the picture."""
        return self.reader.takes_prompts

    def forward(
        self, pixels: Float[Tensor, "n 3 height width"], ids: Int[Tensor, "n tokens"]
    ) -> Float[Tensor, "n tokens vocabulary"]:
        """The logits of each next token of texts; gradients flow to what requires them."""
        words = "decoder_input_ids" if self.network.config.is_encoder_decoder else "input_ids"
        with evaluating(self.network):
            logits: Tensor = self.network(pixel_values=pixels, **{words: ids}).logits
        return logits

    @torch.no_grad()
    def write(self, images: OneOrMore, prompt: str = "", *, longest: int | None = None, batch: int = 32) -> list[str]:
        """One text a picture, by the most probable next token each time.

        Args:
            images: uint8 (n, h, w, 3), or a list of PIL images and uint8 (h, w, 3) arrays.
            prompt: What to write, for a model that takes prompts; "" asks nothing.
            longest: Tokens of a text at most; None: as the model's own configuration says.
            batch: Pictures read at a time.

        Raises:
            DataError: If there is no picture, one is not 8-bit RGB, or the model takes no prompts and is given one.
        """
        if prompt and not self.takes_prompts:
            raise DataError(
                f"{self.name}: takes no prompt, found {prompt[:40]!r}; leave it out, it writes what it learnt to"
            )
        several, texts = batched(images), []
        limit = {} if longest is None else {"max_new_tokens": longest}
        for start in starts(len(several), batch):
            given = self.reader.inputs(several[start : start + batch], prompt)
            given = {key: self._placed(value) for key, value in given.items()}
            # greedy: the same picture gives the same text on every machine
            with quiet():  # transformers takes texts that have ended for a mask that was forgotten
                found = self.network.generate(**given, do_sample=False, num_beams=1, **limit)  # (n, tokens)
            texts += self.reader.texts(found, given.get("input_ids"), prompt)
        return texts

    def _placed(self, value: Tensor) -> Tensor:
        """On the model's device; pixel values in its number format too."""
        return value.to(self.device, self.dtype if value.is_floating_point() else value.dtype)
