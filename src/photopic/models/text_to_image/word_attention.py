"""What the methods that look at words share: the words of a prompt, and drawing while attention is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8

from photopic.core.nn.attention import capture_attention

if TYPE_CHECKING:
    from photopic.models.text_to_image.handle import TextToImage

START, END = "[start]", "[end]"  # the token before the words, and those after them


def words_of(prompt: str) -> tuple[str, ...]:
    """The words of a prompt in their order, each once; a token such as ``<mine>`` is one.

    Example:
        >>> words_of("a <mine> bear, on a red sofa")
        ('a', '<mine>', 'bear', 'on', 'red', 'sofa')
    """
    return tuple(dict.fromkeys(re.findall(r"<[^<>\s]+>|\w+(?:[-'’]\w+)*", prompt)))


def positions_of(model: TextToImage, prompt: str, words: Sequence[str]) -> list[list[int]]:
    """Token positions of each word; ``[start]`` and ``[end]`` are what surrounds the prompt.

    Raises:
        ModelError: If a word is not in the prompt or is cut off.
    """
    around = {START: [0]}
    if END in words:  # otherwise the prompt may be longer than what is read of it
        last = max(max(model.token_positions(prompt, word)) for word in words_of(prompt))
        around[END] = list(range(last + 1, next(iter(model.tokenizers.values())).model_max_length))
    return [around.get(word) or model.token_positions(prompt, word) for word in words]


def draw_and_read(
    model: TextToImage,
    prompt: str,
    words: Sequence[str],
    *,
    seed: int,
    steps: int,
    guidance: float,
    layers: str = "*",
    resolution: int | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> tuple[Float[np.ndarray, "words h w"], UInt8[np.ndarray, "height width 3"]]:
    """Draw one picture and the mean share of attention that each word gets in each latent cell meanwhile."""
    with capture_attention(model.unet, positions_of(model, prompt, words)) as maps:
        image = model.generate([prompt], seeds=[seed], steps=steps, guidance=guidance, on_step=on_step)[0]
    return maps.mean(resolution, layers).numpy(), image
