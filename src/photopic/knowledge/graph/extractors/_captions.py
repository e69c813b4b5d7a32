"""A caption as nodes and edges, for every extractor that has one."""

from __future__ import annotations

import re

from photopic.knowledge.graph.records import Edge, End, Found, Node, normalised

# words that name nothing: articles, pronouns, auxiliaries, prepositions, numbers and words of place
STOP_WORDS = frozenset(
    "a an the and or but of in on at to from by with without into onto over under above below left right between behind beside "
    "near is are was were be been being has have had do does did it its this that these those there here he she they them his "
    "her their as for not no one two three four five some any each all both up down out off very style background image picture "
    "photo".split()
)


def caption_found(picture: str, caption: str) -> Found:
    """A text that describes a picture and mentions its words.

    Args:
        picture: Key of the picture's node.
        caption: Any text.

    Example:
        >>> [edge.tail[1] for edge in caption_found("aa", "A bear on a red background").edges]
        ['aa', 'bear', 'red']
    """
    text: End = ("text", normalised(caption))
    words: list[End] = [("entity", word) for word in _words(text[1])]
    nodes = (Node(*text, caption), Node("image", picture), *(Node(*word) for word in words))
    edges = (Edge(text, "describes", ("image", picture)), *(Edge(text, "mentions", word) for word in words))
    return Found(nodes, edges)


def _words(text: str) -> list[str]:
    """The words that name something, each once, in order."""
    return list(dict.fromkeys(word for word in re.findall(r"[^\W\d_][\w'-]+", text) if word not in STOP_WORDS))
