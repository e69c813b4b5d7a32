"""Many sentences with a noun in them: what a text encoder must go on reading as it did while it learns a subject.

The order is fixed and colours and other things turn at their own pace, so that the first hundred already hold every frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from photopic.data.scenes import COLOURS, RELATIONS, TEXTURES, with_article
from photopic.learning.subject.preservation import THINGS

if TYPE_CHECKING:
    from photopic.models.text_to_image.handle import TextToImage

FRAMES = (
    "{a}",
    "a photo of {a}",
    "{a} on {ground}",
    "{a} {relation} {thing} on {ground}",
    "{thing} {relation} {a} on {ground}",
    "{a} and {thing} on {ground}",
    "{thing} and {a}",
    "{coloured}",
    "{a} on a {texture} {colour} background",
    "a painting of {a} in {colour}",
    "the {noun} next to {thing}",
    "a close photo of the {noun}",
    "{a} in the rain",
    "a small {noun} in front of {thing}",
    "a big {colour} {noun} on a {texture} background",
    "a drawing of {a} and {thing}",
    "two photos of the same {noun}",
    "{a} seen from above",
    "my {noun} at home",
    "{thing} behind the {noun}",
    "{a} at night",
    "an old photo of {a} with {thing}",
    "the {colour} {noun} {relation} {thing}",
    "a sketch of one {noun}",
)
LARGEST = 5_000  # tries before the frames are said to be used up


def sentences_with(noun: str, count: int) -> list[str]:
    """Different sentences that name a noun once.

    Args:
        noun: One word or several.
        count: How many; fewer come only if the frames are used up.

    Returns:
        The sentences; the first is the noun with its article.

    Example:
        >>> sentences_with("owl", 3)
        ['an owl', 'a photo of an owl', 'an owl on a yellow background']
    """
    colours, things = list(COLOURS), [with_article(each) for each in THINGS if noun not in each and each not in noun]
    found: dict[str, None] = {}
    for index in range(LARGEST):
        if len(found) == count:
            break
        turn = index // len(FRAMES)  # rounds through all frames; each shifts colours and things by another step
        found.setdefault(
            FRAMES[index % len(FRAMES)].format(
                a=with_article(noun),
                noun=noun,
                colour=(colour := colours[(index + turn) % len(colours)]),
                coloured=with_article(f"{colour} {noun}"),
                ground=with_article(f"{colour} background"),
                texture=TEXTURES[(index + turn) % len(TEXTURES)],
                relation=RELATIONS[turn % len(RELATIONS)],
                thing=things[(index + 7 * turn) % len(things)],
            )
        )
    return list(found)


def fitting(model: TextToImage, sentences: list[str]) -> list[str]:
    """Those that every text encoder of a model reads to their end, in their order."""
    return [
        sentence
        for sentence in sentences
        # a sentence that is cut could lose the noun, and with it the position that is read
        if all(len(each(sentence).input_ids) <= each.model_max_length for each in model.tokenizers.values())
    ]
