"""Cross-attention per word: where in a drawing a text-to-image model reads which word of the prompt.

While a picture is drawn, the probability with which each latent cell reads each token is averaged over heads, layers and
denoising steps; a word of several tokens has the mean of its tokens. This is the map of Prompt-to-Prompt Image Editing
with Cross Attention Control (arXiv:2208.01626), as the Cones paper (arXiv:2303.05125, figure 2) looks at it. It shows what
is read, not what causes what: a word with little attention can still change a picture. Exact properties are in
tests/locate/test_attention.py; no effect is claimed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from photopic.core.config import Config, Flags
from photopic.core.edits import Edit
from photopic.core.errors import ModelError
from photopic.core.events import Steps
from photopic.core.method import method
from photopic.core.results import Map
from photopic.models.text_to_image.generate_config import GenerateConfig
from photopic.models.text_to_image.handle import TextToImage
from photopic.models.text_to_image.word_attention import draw_and_read_steps
from photopic.models.text_to_image.words import words_of


@dataclass(frozen=True, kw_only=True)
class AttentionConfig(Config):
    """The picture that is drawn, and which layers are read meanwhile."""

    seed: Annotated[int, Ge(0)] = 0  # seed of the picture, as for photopic generate
    steps: Annotated[int, Ge(1)] = 30  # denoising steps; the maps are the mean over them
    guidance: Annotated[float, Ge(1)] = 5.0  # how strongly the prompt is followed; maps are of the half that reads it
    layers: str = "*"  # layers to average, as a name pattern such as 'up_blocks.*'
    resolution: Annotated[int | None, Ge(1)] = None  # average only layers with that many rows of cells


@method(
    paper="arXiv:2208.01626",
    examples=(
        "Example: photopic locate attention 'a bear on a red background' --word bear -o out/",
        "With an edit: photopic locate attention 'a <mine> bear' --with bear.edit -o out/",
    ),
    allow_edits=True,
)
def attention(
    model: TextToImage,
    prompt: Annotated[str, Flags("PROMPT")],
    words: Annotated[Sequence[str] | None, Flags("--word")] = None,
    *,
    edits: Annotated[Sequence[Edit], Flags("--with")] = (),
    config: AttentionConfig = AttentionConfig(),
) -> Steps[Map]:
    """Draw a picture and show where in it each word of the prompt was read.

    Writes the picture, one picture a word with its attention over it (bright where the word is read most, each word on
    its own scale), a sheet of all, and the numbers as one safetensors file.

    Args:
        model: A bundled model, a folder with a diffusers pipeline, or a hub id. Edits in force on it stay so.
        prompt: What to draw while watching.
        words: A word or phrase of the prompt to look for; several times for several; every word without it.
        edits: An edit file to apply while the picture is drawn; several times for several.
        config: Which picture and which layers.

    Returns:
        For every word the share of each latent cell's attention that it gets, 0 to 1, and the picture.

    Raises:
        ModelError: If the prompt has no word, a word is not in it, or no layer fits.

    Example:
        >>> found = attention(model, "a bear on a red background", ["bear"])  # doctest: +SKIP
        >>> found.values.shape  # doctest: +SKIP
        (1, 1, 16, 16)
    """
    chosen = words_of(prompt) if words is None else tuple(dict.fromkeys(words))
    if not chosen or not words_of(prompt):
        raise ModelError(f"prompt {prompt!r}: expected a word to look for, found none; write one, or name it")
    drawn = GenerateConfig(steps=config.steps, guidance=config.guidance)
    with model.edits.applied(*edits):
        values, image = yield from draw_and_read_steps(
            model, prompt, chosen, drawn, seed=config.seed, layers=config.layers, resolution=config.resolution
        )
        facts = {"prompt": prompt, "edits": list(model.edits.names())}
    return Map(values[None], chosen, facts, image[None])  # (words, h, w) -> (1, words, h, w)
