"""Cross-attention per word: where in a drawing a text-to-image model reads which word of the prompt.

While a picture is drawn, the probability with which each latent cell reads each token is averaged over heads, layers and
denoising steps; a word of several tokens has the mean of its tokens. This is the map of Prompt-to-Prompt Image Editing
with Cross Attention Control (arXiv:2208.01626), as the Cones paper (arXiv:2303.05125, figure 2) looks at it. It shows what
is read, not what causes what: a word with little attention can still change a picture. Exact properties are in
tests/locate/test_attention.py; no effect is claimed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from photopic.core.errors import ModelError
from photopic.core.results import Map, provenance
from photopic.data.overlays import overlay, stretched
from photopic.models.text_to_image.word_attention import draw_and_read, words_of

if TYPE_CHECKING:
    from photopic.models.text_to_image.handle import TextToImage


def attention_map(model: TextToImage, prompt: str, words: Sequence[str] | None = None, **options: object) -> Map:
    """Where each word is read while a picture is drawn; takes the options of ``attention_picture``.

    Args:
        model: The model, with or without edits applied.
        prompt: What to draw.
        words: Words or phrases of the prompt; None takes every word of it.
        options: See ``attention_picture``.

    Returns:
        For every word the share of each latent cell's attention that it gets, 0 to 1.

    Raises:
        ModelError: If a word is not in the prompt, or no layer fits.

    Example:
        >>> attention_map(model, "a bear on a red background", ["bear"]).values.shape  # doctest: +SKIP
        (1, 16, 16)
    """
    return attention_picture(model, prompt, words, **options)[0]  # type: ignore[arg-type]


def attention_picture(
    model: TextToImage,
    prompt: str,
    words: Sequence[str] | None = None,
    *,
    seed: int = 0,
    steps: int = 30,
    guidance: float = 5.0,
    layers: str = "*",
    resolution: int | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> tuple[Map, UInt8[np.ndarray, "height width 3"]]:
    """The map of ``attention_map`` with the picture that was drawn.

    Args:
        model: The model, with or without edits applied.
        prompt: What to draw.
        words: Words or phrases of the prompt; None takes every word of it.
        seed: Of the picture; the same as for ``model.generate``.
        steps: Denoising steps; the map is the mean over them.
        guidance: Classifier-free guidance scale; the map is of the half that reads the prompt.
        layers: Name pattern of the layers to average, such as ``"up_blocks.*"``.
        resolution: Height in latent cells of the layers to average; None takes all, enlarged to the largest.
        on_step: Called with (steps done, steps in all).

    Raises:
        ModelError: If the prompt has no word, a word is not in it, or no layer fits.

    Example:
        >>> found, image = attention_picture(model, "a bear on a red background")  # doctest: +SKIP
        >>> found.labels  # doctest: +SKIP
        ('a', 'bear', 'on', 'red', 'background')
    """
    chosen = words_of(prompt) if words is None else tuple(dict.fromkeys(words))
    if not chosen or not words_of(prompt):
        raise ModelError(f"prompt {prompt!r}: expected a word to look for, found none; write one, or name it")
    values, image = draw_and_read(
        model,
        prompt,
        chosen,
        seed=seed,
        steps=steps,
        guidance=guidance,
        layers=layers,
        resolution=resolution,
        on_step=on_step,
    )
    how = {"layers": layers, "resolution": resolution, "steps": steps, "guidance": guidance}
    edits = list(model.edits.names())
    facts = provenance("locate.attention", prompt=prompt, seed=seed, config=how, model=model.name, edits=edits)
    return Map(values, chosen, facts), image


def overlays(found: Map, image: UInt8[np.ndarray, "height width 3"]) -> dict[str, UInt8[np.ndarray, "height width 3"]]:
    """The picture in grey under the map of each word, every map from its own lowest value to its own highest.

    Args:
        found: What ``attention_picture`` returned.
        image: The picture it returned.

    Example:
        >>> sorted(overlays(Map(np.eye(2)[None], ("bear",)), np.zeros((8, 8, 3), np.uint8)))
        ['bear']
    """
    return {word: overlay(image, stretched(values)) for word, values in zip(found.labels, found.values, strict=True)}
