"""Edits as ComfyUI patches: the whole difference of every changed weight, exact up to its rounding.

ComfyUI's LoRA loader (``comfy/lora.py``: ``load_lora``, ``model_lora_keys_unet``, ``model_lora_keys_clip``) adds ``<layer>.diff``
to a layer's weight and ``<layer>.diff_b`` to its bias. A layer of the UNet is ``lora_unet_`` and its diffusers name with
underscores (``utils.unet_to_diffusers`` lists them), one of a text encoder ``lora_te_``, ``lora_te1_`` or ``lora_te2_`` and its
name; of those it knows the projections of attention and the two layers of each MLP.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from photopic.core.edits import Edit
from photopic.core.errors import EditError
from photopic.core.results import Report, provenance
from photopic.edit.interop._changes import base_tensors, change, left_out_parts, parts_by_weight, write_tensors
from photopic.edit.interop._names import ADAPTED, kohya_name
from photopic.models.text_to_image.handle import TextToImage

_TEXT_LAYER = re.compile(r".*encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])\.(weight|bias)")
_ENDINGS = {"weight": "diff", "bias": "diff_b"}


def export_comfy(edit: Edit, path: str | Path, model: TextToImage, *, half: bool = True) -> Report:
    """Write what an edit changes as a file for ComfyUI's LoRA loader, every weight in full.

    Nothing is approximated but by rounding, so the file is as large as the changed weights. Embeddings, final norms of text
    encoders, the VAE and new tokens cannot go in; the report names them (`export_textual_inversion` writes tokens).

    Args:
        edit: Made for the model.
        path: A ``.safetensors`` file, replaced if it exists.
        model: Its base, with no edits applied.
        half: Whether differences are stored as float16, else as float32.

    Returns:
        One row a tensor with its ``key`` and ``relative_error`` of rounding; in the values what was ``left_out``.

    Raises:
        EditError: If the model is not the edit's base, nothing of the edit fits, or a difference is too large for float16.

    Example:
        >>> export_comfy(edit, "bear-comfy.safetensors", model).rows[0]["key"]  # doctest: +SKIP
        'lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.diff'
    """
    path = Path(path)
    tensors, parts = base_tensors(edit, model), parts_by_weight(edit)
    content: dict[str, Tensor] = {}
    rows, left_out = [], []
    for name in parts:
        if not _is_known(name):
            left_out.append(name)
            continue
        wanted = change(name, parts[name], tensors[name])
        key = f"{kohya_name(name, model)}.{_ENDINGS[name.rsplit('.', 1)[1]]}"
        content[key] = wanted.half() if half else wanted
        if not bool(torch.isfinite(content[key]).all()):
            raise EditError(
                f"{path.name}: {key}: expected differences below 65504, found {float(wanted.abs().max()):g}; pass half=False"
            )
        size = float(wanted.norm())
        error = float((content[key].float() - wanted).norm()) / size if size else 0.0
        rows.append({"tensor": name, "key": key, "relative_error": error})
    left_out += left_out_parts(edit)
    if not rows:
        raise EditError(f"{path.name}: nothing in this edit fits into ComfyUI differences: {', '.join(left_out)}")
    write_tensors(path, content, {"format": "pt"})
    facts = {"config": {"half": half}, "edit": dict(edit.provenance)}
    return Report("export_comfy", {"left_out": left_out}, tuple(rows), provenance("interop.export_comfy", **facts))


def _is_known(name: str) -> bool:
    component = name.split(".", 1)[0]
    if component not in ADAPTED or name.rsplit(".", 1)[1] not in _ENDINGS:
        return False
    return component == "unet" or bool(_TEXT_LAYER.fullmatch(name))
