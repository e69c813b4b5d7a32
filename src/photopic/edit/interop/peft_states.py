"""Edits as peft adapters: SHiRA (sparse changes of linear layers) and TrainableTokens (rows of the input embedding).

The layout of both is that of peft 0.18 to 0.21: ``adapter_config.json`` and ``adapter_model.safetensors`` in one folder a
component, for ``peft.PeftModel.from_pretrained(pipeline.unet, folder / "unet")``. peft itself is not needed to write them.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AddedToken

from photopic.core.edits import Edit, TokenEmbedding, check_new_token
from photopic.core.errors import EditError
from photopic.core.results import Report, provenance
from photopic.core.runs import write_atomically
from photopic.edit.interop._changes import base_tensors, change, left_out_parts, parts_by_weight, write_tensors
from photopic.models.text_to_image.handle import TextToImage

_PREFIX = "base_model.model."
_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def export_peft_shira(edit: Edit, folder: str | Path, model: TextToImage) -> Report:
    """Write the changed linear layers of an edit as peft SHiRA adapters, one a component.

    SHiRA adds values to single weights; they are the new weights minus the base's. peft wants r x (inputs + outputs) of them in
    every layer, for one r, so that layers with fewer changes are filled up with zeros. Only linear layers fit; convolutions,
    biases, norms and tokens are left out, and the report names them.

    Args:
        edit: Made for the model.
        folder: Gets a folder for each changed component, such as ``unet``.
        model: Its base, with no edits applied.

    Returns:
        One row a layer with its ``changed`` entries and the ``stored`` ones; in the values the ``r`` of each component and what was
        ``left_out``.

    Raises:
        EditError: If the model is not the edit's base, no linear layer is changed, or one is changed in more entries than SHiRA
        can hold.

    Example:
        >>> export_peft_shira(edit, "bear", model).values["r"]  # doctest: +SKIP
        {'unet': 1}
        >>> peft.PeftModel.from_pretrained(model.unet, "bear/unet")  # doctest: +SKIP
    """
    folder = Path(folder)
    tensors, parts = base_tensors(edit, model), parts_by_weight(edit)
    rows, ranks, left_out = [], {}, left_out_parts(edit)
    for component, module in model.components.items():
        changes = {}
        linear = {f"{component}.{path}.weight" for path, each in module.named_modules() if isinstance(each, nn.Linear)}
        for name in (name for name in parts if name.startswith(f"{component}.")):
            if name not in linear:
                left_out.append(name)
            elif bool((changed := change(name, parts[name], tensors[name])).any()):
                changes[name] = changed
        if changes:
            ranks[component] = max(_rank(folder / component, name, each) for name, each in changes.items())
            rows += _write_shira(folder / component, component, changes, ranks[component])
    if not rows:
        raise EditError(
            f"{folder}: this edit changes no linear layer, which is all SHiRA holds; found {', '.join(left_out)}"
        )
    facts = {"edit": dict(edit.provenance)}
    return Report(
        "export_peft_shira", {"r": ranks, "left_out": left_out}, tuple(rows), provenance("interop.shira", **facts)
    )


def _rank(folder: Path, name: str, changed: Float[Tensor, "out inner"]) -> int:
    """The smallest r with r x (inputs + outputs) >= entries."""
    count, (out, inner) = int(changed.count_nonzero()), changed.shape
    rank = -(-count // (out + inner))
    if rank * (out + inner) > out * inner:
        raise EditError(
            f"{folder}: {name}: SHiRA holds at most {out * inner // (out + inner) * (out + inner)} of {out * inner} entries, "
            f"found {count} changed; export it as a LoRA instead"
        )
    return rank


def _write_shira(folder: Path, component: str, changes: Mapping[str, Tensor], rank: int) -> list[dict[str, Any]]:
    state, rows, layers = {}, [], []
    for name, changed in changes.items():
        out, inner = changed.shape
        stored = rank * (out + inner)
        if stored > out * inner:
            raise EditError(
                f"{folder}: {name}: another layer needs r={rank}, with which SHiRA keeps {stored} entries of this one, "
                f"found only {out * inner} in it; export it as a LoRA instead"
            )
        positions = _filled_up(changed.reshape(-1), stored)  # (stored,), flat
        layer = name.removeprefix(f"{component}.").removesuffix(".weight")
        state[f"{_PREFIX}{layer}.shira_weight"] = changed.reshape(-1)[positions]
        # (2, stored)
        state[f"{_PREFIX}{layer}.shira_indices"] = torch.stack([positions // inner, positions % inner]).int()
        rows.append({"tensor": name, "changed": int(changed.count_nonzero()), "stored": stored})
        layers.append(re.escape(layer))
    target = "|".join(layers)  # one expression for whole names; peft takes names in a list for endings
    _write_adapter(folder, state, "SHIRA", r=rank, mask_type="random", init_weights=True, target_modules=target)
    return rows


def _filled_up(changed: Float[Tensor, " size"], count: int) -> Int[Tensor, " count"]:
    """The changed positions and, up to ``count``, the first others, sorted."""
    order = torch.argsort((changed == 0).int(), stable=True)  # changed ones first, each group in order
    return order[:count].sort().values


def export_peft_trainable_tokens(edit: Edit, folder: str | Path, model: TextToImage) -> Report:
    """Write the embedding rows of an edit as peft TrainableTokens adapters, one a text encoder.

    These are its new tokens and the rows of the input embedding in which it changes any entry. peft needs the tokenizer to know a
    new token and the embedding to have a row for it first: ``tokenizer.add_tokens(token)`` and
    ``text_encoder.resize_token_embeddings(len(tokenizer))``.

    Args:
        edit: Made for the model.
        folder: Gets a folder for each text encoder.
        model: Its base, with no edits applied.

    Returns:
        One row a token with its ``component`` and ``id``, and the ``token`` of new ones; in the values what was ``left_out``.

    Raises:
        EditError: If the model is not the edit's base, already has a token, or the edit has neither tokens nor embedding rows.

    Example:
        >>> report = export_peft_trainable_tokens(edit, "bear", model)  # doctest: +SKIP
        >>> [(row["token"], row["id"]) for row in report.rows]  # doctest: +SKIP
        [('<mine>', 49408)]
    """
    folder = Path(folder)
    tensors, parts = base_tensors(edit, model), parts_by_weight(edit)
    rows, used = [], set()
    for component in model.tokenizers:
        embedding = _embedding_name(model.components[component])
        name = f"{component}.{embedding}.weight"
        values = _new_rows(edit, component, model)
        if name in parts:
            used.add(name)
            changed = change(name, parts[name], tensors[name])
            changed_ids = changed.any(1).nonzero().flatten().tolist()
            values |= {number: (None, tensors[name][number].detach().cpu() + changed[number]) for number in changed_ids}
        if not values:
            continue
        ids = sorted(values)
        state = {
            f"{_PREFIX}{embedding}.trainable_tokens_delta": torch.stack([values[number][1].float() for number in ids])
        }
        target = re.escape(embedding)
        _write_adapter(
            folder / component, state, "TRAINABLE_TOKENS", token_indices=ids, init_weights=True, target_modules=target
        )
        rows += [{"component": component, "token": values[number][0], "id": number} for number in ids]
    left_out = [
        *sorted(parts.keys() - used),
        *(words for words in left_out_parts(edit) if not words.startswith("token ")),
    ]
    if not rows:
        raise EditError(
            f"{folder}: this edit has no tokens and changes no input embedding; found {', '.join(left_out)}"
        )
    facts = {"edit": dict(edit.provenance)}
    return Report(
        "export_peft_tokens", {"left_out": left_out}, tuple(rows), provenance("interop.trainable_tokens", **facts)
    )


def _new_rows(edit: Edit, component: str, model: TextToImage) -> dict[int, tuple[str | None, Tensor]]:
    """The new tokens of one encoder by the id a tokenizer will give them, added in the edit's order."""
    tokenizer = copy.deepcopy(model.tokenizers[component])
    found: dict[int, tuple[str | None, Tensor]] = {}
    for part in edit.of(TokenEmbedding):
        if component in part.rows:
            check_new_token(tokenizer, part.token)
            tokenizer.add_tokens([AddedToken(part.token, normalized=False, special=False)])
            found[tokenizer.convert_tokens_to_ids(part.token)] = (part.token, part.rows[component])
    return found


def _embedding_name(encoder: Any) -> str:
    embedding = encoder.get_input_embeddings()
    return next(name for name, module in encoder.named_modules() if module is embedding)


def _write_adapter(folder: Path, state: dict[str, Tensor], kind: str, **config: Any) -> None:
    """The configuration comes last: a folder without one is no adapter."""
    content = {"peft_type": kind, "task_type": None, "base_model_name_or_path": None, "inference_mode": True, **config}
    try:
        (folder / _CONFIG).unlink(missing_ok=True)
        write_tensors(folder / _WEIGHTS, state, {"format": "pt"})
        write_atomically(folder / _CONFIG, json.dumps(content, indent=2, sort_keys=True).encode())
    except OSError as error:
        raise EditError(f"{folder}: cannot be written ({error.strerror}); choose another place") from error
