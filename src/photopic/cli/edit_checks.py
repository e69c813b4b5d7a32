"""Do a prompt, edits and their weights fit together?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from photopic.core.errors import PhotopicError

if TYPE_CHECKING:
    from photopic.core.edits import Edit
    from photopic.models.text_to_image import TextToImage


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
            stands_for_noun = edit.provenance.get("method") == "token_residual"
            noun = "" if stands_for_noun else edit.provenance.get("noun", "")
            wanted = f"{edit.tokens[0]} {noun}".strip()
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
