"""What the methods that look at words share: the words of a prompt, and drawing while attention is read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from photopic.core.events import Steps, finished
from photopic.models.text_to_image.generate_config import GenerateConfig
from photopic.models.text_to_image.handle import TextToImage
from photopic.models.text_to_image.words import words_of

START, END = "[start]", "[end]"  # the token before the words, and those after them


def positions_of(model: TextToImage, prompt: str, words: Sequence[str]) -> list[list[int]]:
    """Token positions of each word; ``[start]`` and ``[end]`` are what surrounds the prompt.

    Raises:
        ModelError: If a word is not in the prompt or is cut off.
    """
    around = {START: [0]}  # the start token takes what no word asks for
    if END in words:  # otherwise the prompt may be longer than what is read of it
        last = max(max(model.token_positions(prompt, word)) for word in words_of(prompt))
        around[END] = list(range(last + 1, next(iter(model.tokenizers.values())).model_max_length))
    return [around.get(word) or model.token_positions(prompt, word) for word in words]


def draw_and_read_steps(
    model: TextToImage,
    prompt: str,
    words: Sequence[str],
    config: GenerateConfig,
    *,
    seed: int,
    layers: str = "*",
    resolution: int | None = None,
) -> Steps[tuple[Float[np.ndarray, "words h w"], UInt8[np.ndarray, "height width 3"]]]:
    """Draw one picture and the mean share of attention that each word gets in each latent cell meanwhile.

    Args:
        model: The model, with or without edits in force.
        prompt: What to draw.
        words: Those to look for, ``[start]`` and ``[end]`` among them if wanted.
        config: How to draw.
        seed: Of the picture.
        layers: Name pattern of the layers to average.
        resolution: Average only layers with that many rows of cells; None takes all, enlarged to the finest.

    Raises:
        ModelError: If a word is not in the prompt, or no layer fits.
    """
    with model.text_maps(positions_of(model, prompt, words)) as maps:
        for event in model.drawing([prompt], [seed], config):
            if event.result is None:
                yield event
            else:
                image = event.result.images[0]
    return maps.mean(resolution, layers).numpy(), image  # (words, h, w), (height, width, 3)


def draw_and_read(
    model: TextToImage, prompt: str, words: Sequence[str], *, seed: int, steps: int, guidance: float
) -> tuple[Float[np.ndarray, "words h w"], UInt8[np.ndarray, "height width 3"]]:
    """The same at once, over all layers."""
    return finished(
        draw_and_read_steps(model, prompt, words, GenerateConfig(steps=steps, guidance=guidance), seed=seed)
    )
