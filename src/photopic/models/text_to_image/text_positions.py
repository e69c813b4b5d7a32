"""Where the words of a prompt stand in what a transformer reads, whatever template, padding, order or doubling its pipeline has.

Found by following tokens and not from a table: a text encoder's hidden states are replaced by the number of each token, the
pipeline runs up to its transformer as when it is captured, and the numbers are read from what the transformer is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from photopic.core.edits.runtime_tokens import input_embeddings
from photopic.core.errors import ModelError
from photopic.models.text_to_image.words import spans_of

TEXTS = ("encoder_hidden_states", "cap_feats", "text_bth")  # what transformers call the text they are told
BYTES = ("encoder_hidden_states_2", "encoder_attention_mask_2")  # of Hunyuan-Image: what stands in quotes, and its mask
BASE = 64  # numbers are given in two digits, so that bfloat16 holds them
HALF = 128  # likewise, where every entry is one digit and a second run gives the other


@dataclass(frozen=True)
class Followed:
    """The tokens of one prompt in one text encoder.

    Attributes:
        ids: Those that the encoder was given, template and padding included.
        places: For each of them where it stands in the transformer's text; several times, or nowhere.
    """

    ids: tuple[int, ...]
    places: Mapping[int, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class Traced:
    """Where the numbers that a text encoder puts out for one prompt stand in what the transformer is told.

    Attributes:
        ids: The tokens that the encoder was given, template and padding included.
        tokens: Argument of the transformer to the number of the token behind each entry, -1 for none, of the argument's shape.
        channels: And to that of the channel.
    """

    ids: tuple[int, ...]
    tokens: Mapping[str, Tensor]
    channels: Mapping[str, Tensor]


def positions_of_word(
    prompt: str, word: str, tokenizers: Mapping[str, Any], follow: Callable[[str], Followed | None], name: str
) -> list[int]:
    """Positions of a word, all occurrences in all encoders, in the text part of the transformer's attention.

    Args:
        prompt: The whole prompt.
        word: A word, several words or a token such as ``<mine>``, as in ``spans_of``.
        tokenizers: By the names of their text encoders.
        follow: The tokens of the prompt in one of them; None where it is not asked.
        name: What messages call the model.

    Raises:
        ModelError: If the word is not in the prompt, or nothing of it reaches the transformer.
    """
    spans = spans_of(prompt, word)
    if not spans:
        raise ModelError(f"{word!r} is not a word of the prompt {prompt!r}; name a word as it is written there")
    found: set[int] = set()
    for encoder, tokenizer in tokenizers.items():
        followed = follow(encoder)
        if followed is None or not followed.places:
            continue
        for place, (begin, end) in own_tokens(tokenizer, prompt, followed.ids).items():
            if any(begin < last and first < end for first, last in spans):
                found.update(followed.places.get(place, ()))
    if not found:
        raise ModelError(
            f"{name}: no token of {word!r} in {prompt!r} reaches its transformer: it is beyond what the text encoders read, or the "
            "pipeline spells it out; shorten the prompt, or leave quotes out"
        )
    return sorted(found)


def own_tokens(tokenizer: Any, prompt: str, ids: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Which of the tokens that an encoder was given are the prompt's own, and which characters of it they stand for.

    The prompt is aligned with them from the end, because templates come before it; where a pipeline changes capitals, without them.

    Args:
        tokenizer: That made them.
        prompt: The whole prompt.
        ids: With template and padding.
    """
    best: dict[int, tuple[int, int]] = {}
    for text in dict.fromkeys((prompt, prompt.lower())):
        own, offsets = tokenized(tokenizer, text)
        matcher = SequenceMatcher(None, own[::-1], list(ids)[::-1], autojunk=False)
        found: dict[int, tuple[int, int]] = {}
        for first, second, size in matcher.get_matching_blocks():
            for step in range(size):
                found[len(ids) - 1 - second - step] = offsets[len(own) - 1 - first - step]
        best = max(best, found, key=len)
    return best


def tokenized(tokenizer: Any, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """The tokens of a text by itself, and the characters (begin, end) of each."""
    if getattr(tokenizer, "is_fast", False):
        made = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return list(made["input_ids"]), [tuple(each) for each in made["offset_mapping"]]
    # of which character each byte is, and the end; pieces are bytes, or words of ASCII that were added
    character = [index for index, letter in enumerate(text) for _ in letter.encode()] + [len(text)]
    pieces, begin, offsets = tokenizer.tokenize(text), 0, []
    for piece in pieces:
        size = len(piece) if piece in tokenizer.get_added_vocab() else 1
        offsets.append((character[begin], character[begin + size - 1] + 1))
        begin += size
    return list(tokenizer.convert_tokens_to_ids(pieces)), offsets


def followed_in(arguments: Mapping[str, Any], ids: Sequence[int], registers: int) -> Followed:
    """Read the numbers of an encoder's tokens from what a transformer was told.

    Args:
        arguments: Of a transformer's call with one row.
        ids: What the encoder was given.
        registers: How many tokens the transformer puts before its text.
    """
    told = [arguments[name] for name in TEXTS if name in arguments]
    text = _rows(told[0]) if told else torch.zeros(0, 1)
    shift = registers
    if BYTES[0] in arguments:  # what is valid of both comes first, bytes before words
        quoted = int(arguments[BYTES[1]].sum())
        from_bytes = _numbers(_rows(arguments[BYTES[0]]))
        if any(from_bytes):
            return Followed(tuple(ids), _places(from_bytes, registers))
        shift += quoted
    return Followed(tuple(ids), _places(_numbers(text), shift))


def _places(numbers: Sequence[int], shift: int) -> dict[int, tuple[int, ...]]:
    found: dict[int, tuple[int, ...]] = {}
    for row, number in enumerate(numbers):
        if number:
            found[number - 1] = (*found.get(number - 1, ()), row + shift)
    return found


def _rows(told: Any) -> Tensor:
    """The text of one row, (tokens, ...) -> (tokens, everything else)."""
    first = told[0] if isinstance(told, list) or told.ndim > 2 else told
    return first.flatten(1).float()


def _numbers(rows: Tensor) -> list[int]:
    """For each row the number of its token, counted from 1; 0 for what no token is behind."""
    low = rows.where(rows < BASE, 0).amax(1) if rows.numel() else rows.new_zeros(0)  # 1 and more
    high = rows.amax(1) if rows.numel() else low
    known = (low >= 1) & (high >= BASE)
    return [int(a - 1) * BASE + int(b - BASE) + 1 if sure else 0 for a, b, sure in zip(low, high, known, strict=True)]


def traced(encoders: Mapping[str, nn.Module], which: str, told: Callable[[], Mapping[str, Any]]) -> Traced | None:
    """Follow each number that a text encoder puts out; a pipeline only moves, repeats, cuts and pads them.

    Args:
        encoders: By name.
        which: The one that is followed.
        told: Runs the pipeline and gives the arguments of the transformer's call with one row.

    Returns:
        None where the encoder is not asked.
    """
    found, seen = [], []
    for part in range(4):
        with numbered(encoders, which, partial(_digit, part=part)) as given:
            row = told()
        if not given:
            return None
        seen = given[0]
        found.append({name: _as_one(row[name]).round().long() for name in (*TEXTS, BYTES[0]) if name in row})
    tokens, channels = (
        {name: torch.where(each > 0, (each - 1) * HALF + low[name] - 1, -1) for name, each in high.items()}
        for high, low in (found[:2], found[2:])
    )
    return Traced(tuple(seen), tokens, channels)


def _as_one(told: Any) -> Tensor:
    """The text of one row as one tensor, whether it is in a list."""
    return (told[0] if isinstance(told, list) else told).float()


@contextmanager
def numbered(
    encoders: Mapping[str, nn.Module], which: str, digits: Callable[[Tensor], Tensor] | None = None
) -> Iterator[list[list[int]]]:
    """Text encoders that answer with the number of each token, in one of them, and with nothing, in all others.

    Args:
        encoders: By name.
        which: The one that is followed.
        digits: What it answers in the place of hidden states (batch, tokens, dim); None: the number in two digits.

    Yields:
        The ids of the first prompt that it was given, a list a call.
    """
    seen: list[list[int]] = []

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = args[0] if args else kwargs["input"]
        seen.append(given.reshape(-1, given.shape[-1])[0].tolist())

    with ExitStack() as stack:
        for name, encoder in encoders.items():
            # the decoder's layers too: a pipeline may call them one by one
            parts = [
                encoder,
                *(layer for part in encoder.modules() if isinstance(part, nn.ModuleList) for layer in part),
            ]
            for part in parts:
                answer = _answer(digits or _digits) if name == which else _answer(torch.zeros_like)
                stack.callback(part.register_forward_hook(answer).remove)
        for table in input_embeddings(encoders[which]):
            stack.callback(table.register_forward_pre_hook(keep, with_kwargs=True).remove)
        yield seen


def _answer(digits: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        return _replaced(output, digits)

    return hook


def _replaced(output: Any, digits: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(output, Tensor):
        return digits(output) if output.ndim == 3 and output.is_floating_point() else output
    if isinstance(output, tuple):
        return tuple(_replaced(each, digits) for each in output)
    if hasattr(output, "to_tuple"):  # what models of transformers return
        for name in list(output.keys()):
            output[name] = _replaced(output[name], digits)
        if output.get("hidden_states"):  # the first are embeddings, which no residual is added to
            embedded, *layers = output["hidden_states"]
            output["hidden_states"] = (torch.zeros_like(embedded), *layers)
    return output


def _digit(hidden: Tensor, part: int) -> Tensor:
    """(batch, tokens, dim) of one digit, 1 and more: high and low of the token's number, then of the channel's."""
    size = hidden.shape[1 if part < 2 else 2]
    number = torch.arange(size, device=hidden.device)
    digit = (number % HALF if part % 2 else number // HALF) + 1  # up to 128, which bfloat16 holds
    return (digit[:, None] if part < 2 else digit).to(hidden.dtype).expand_as(hidden).clone()


def _digits(hidden: Tensor) -> Tensor:
    """(batch, tokens, dim) with the number of the token in two digits: the high one in the first half of the channels."""
    number = torch.arange(hidden.shape[1], device=hidden.device)
    high, low = number // BASE + 1, number % BASE + BASE  # 1 to 63, and 64 to 127
    digits = high[:, None].repeat(1, hidden.shape[2])  # (tokens, dim)
    digits[:, hidden.shape[2] // 2 :] = low[:, None]
    return digits.to(hidden.dtype).expand_as(hidden)
