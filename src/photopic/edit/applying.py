"""Edits put in force together: whether prompt, edits and weights fit, and what the edits would do to each other, said before."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from photopic.core.errors import OverlapError, PhotopicError
from photopic.models.text_to_image.words import spans_of

if TYPE_CHECKING:
    from photopic.core.edits import Edit, OverlapPolicy
    from photopic.models.handle import Handle
    from photopic.models.text_to_image.handle import TextToImage

OVER_CHANCE = 2.0  # times what independent edits of their sizes would share: from here on a warning
OPPOSED = 0.5  # share of the entries set twice that change with opposite signs: more is worse than unrelated changes


@contextmanager
def in_force(
    model: Handle,
    paths: Sequence[Path],
    edits: Sequence[Edit],
    weights: Sequence[float],
    *,
    force: bool,
    overlap: OverlapPolicy,
) -> Iterator[None]:
    """Put edits in force for a block; ``notes`` says before where they get in each other's way.

    Args:
        model: Without other edits.
        paths: Of the files, by which the edits are called.
        edits: What was in them.
        weights: How far each goes.
        force: Whether edits for another base are taken.
        overlap: What becomes of entries that several edits touch; ``error`` applies them one on top of the other and refuses
            entries with two values, anything else composes them first.

    Raises:
        PhotopicError: If entries clash, the bases differ, or what is composed is to be forced.
    """
    if overlap == "error" or len(edits) < 2:
        names = _apart(model, paths, edits, weights, force)
    else:
        names = [_composed(model, paths, edits, weights, force, overlap)]
    try:
        yield
    finally:
        model.edits.unload(*names)


def notes(edits: Sequence[Edit], names: Sequence[str], base: Mapping[str, Any] | None = None) -> list[str]:
    """One line for every pair of edits that share more than chance, change entries to different ends, or speak one word.

    Args:
        edits: Two or more, for one base; of others nothing can be said.
        names: What to call them.
        base: The base's modules, with no edit in force; without it signs of values that are set are not known.
    """
    from photopic.core.edits.interference import interference
    from photopic.core.identity import difference

    found = []
    for (name, edit), (other, another) in combinations(list(zip(names, edits, strict=True)), 2):
        pair = f"{name} and {other}"
        for words in sorted(_words(edit) & _words(another)):
            found.append(f"{pair} both change the word {words}, and their changes add up; learn one again with --token")
        if difference(edit.base, another.base):
            continue
        values = interference(edit, another, names=[name, other], spans=False).values
        if values["set_twice"] and base is not None:
            values = interference(edit, another, names=[name, other], spans=False, base=base).values
        ratio, opposite = values["over_chance"], values["opposite"]
        if values["set_twice"]:
            signs = f", {opposite:.0%} with opposite signs" if opposite is not None and opposite > OPPOSED else ""
            found.append(f"{pair} both set {values['set_twice']:,} entries{signs}; --overlap says what they become")
        elif ratio is not None and ratio > OVER_CHANCE:
            found.append(f"{pair} share {values['shared']:,} entries, {ratio:.1f} x chance; their things may mix")
    return found


def check_words(prompt: str, paths: Sequence[Path], edits: Sequence[Edit]) -> None:
    """Words that an edit gives another meaning must be in the prompt, or it does nothing.

    Raises:
        PhotopicError: Names the file and the word.
    """
    for path, edit in zip(paths, edits, strict=True):
        words = {each for each in _words(edit) if each.split()[0] not in edit.tokens}
        if words and not any(spans_of(prompt, each) for each in words):
            wanted = min(words)
            raise PhotopicError(
                f"{path}: expected its word {wanted} in the prompt, found {prompt!r}; say '{wanted}' in it"
            )


def weights_of(given: Sequence[float], edits: int) -> list[float]:
    """One weight for each edit, of one for all or one for each."""
    if len(given) not in (1, edits):
        raise PhotopicError(f"--weight: expected one, or one for each of {edits} --with, found {len(given)}")
    return list(given) * edits if len(given) == 1 else list(given)


def check_tokens(prompt: str, paths: Sequence[Path], edits: Sequence[Edit]) -> None:
    """Each edit must be named in the prompt, or its subject cannot appear."""
    seen: dict[str, Path] = {}
    for path, edit in zip(paths, edits, strict=True):
        for token in edit.tokens:
            if token in seen:
                raise PhotopicError(
                    f"{path}: its word {token} is also that of {seen[token]}; locate one again with another --token"
                )
            seen[token] = path
        if edit.tokens and not any(token in prompt for token in edit.tokens):
            wanted = edit.subject.said(edit.tokens[0]) if edit.subject else edit.tokens[0]
            raise PhotopicError(
                f"{path}: expected its word {edit.tokens[0]} in the prompt, found {prompt!r}; say '{wanted}' in it"
            )


def check_unknown_tokens(prompt: str, model: TextToImage, edits: Sequence[Edit]) -> None:
    """A word in angle brackets must be one the model or an edit knows."""
    known = {token for edit in edits for token in edit.tokens}
    for token in re.findall(r"<[^<>\s]+>", prompt):
        if token not in known and not any(token in each.get_vocab() for each in model.tokenizers.values()):
            raise PhotopicError(
                f"prompt: {token} is no word of {model.name} or of a loaded edit; add its file with --with"
            )


def _words(edit: Edit) -> set[str]:
    from photopic.core.edits import TokenResidual

    return {part.words for part in edit.of(TokenResidual)}


def _apart(
    model: Handle, paths: Sequence[Path], edits: Sequence[Edit], weights: Sequence[float], force: bool
) -> list[str]:
    names: list[str] = []
    try:
        for path, edit, weight in zip(paths, edits, weights, strict=True):
            names.append(model.edits.load(edit, weight=weight, name=str(path), force=force))
    except OverlapError as error:
        model.edits.unload(*names)
        advice = "add --overlap union, first, sum or ties to say what they become"
        raise PhotopicError(f"{error.overlapping}; {advice}") from None
    except PhotopicError:
        model.edits.unload(*names)
        raise
    return names


def _composed(
    model: Handle,
    paths: Sequence[Path],
    edits: Sequence[Edit],
    weights: Sequence[float],
    force: bool,
    overlap: OverlapPolicy,
) -> str:
    from photopic.core.edits import compose

    if force:
        raise PhotopicError("--overlap: expected edits for this model, found --force; leave one of the two out")
    needs_base = overlap in ("sum", "ties") or set(weights) != {1.0}
    made = compose(*edits, overlap=overlap, weights=weights, base=model.components if needs_base else None)
    return model.edits.load(made, name=" + ".join(map(str, paths)))
