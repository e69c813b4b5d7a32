"""What other programs call the layers of transformers: the original layouts, where one matrix may be several of diffusers'.

The kohya scripts, musubi and ComfyUI write the original names, ai-toolkit those of diffusers or the original ones behind
``diffusion_model.``. A fused matrix of queries, keys and values is several matrices here; each has its rows of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

# original name -> diffusers' names in the order of the rows; ``*`` is the number of the block
_TWO_STREAMS = {
    "double_blocks.*.img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "double_blocks.*.txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "double_blocks.*.img_attn.proj": ("attn.to_out.0",),
    "double_blocks.*.txt_attn.proj": ("attn.to_add_out",),
    "double_blocks.*.img_mod.lin": ("norm1.linear",),
    "double_blocks.*.txt_mod.lin": ("norm1_context.linear",),
}
_LAST: dict[str, tuple[str, ...]] = {
    "final_layer.linear": ("proj_out",),
    "final_layer.adaLN_modulation.1": ("norm_out.linear",),
}


def _embedders(within: str, **named: str) -> dict[str, tuple[str, ...]]:
    """What comes before the blocks of Flux: the layers that take pictures and texts in, and small networks of two layers."""
    first: dict[str, tuple[str, ...]] = {"img_in": ("x_embedder",), "txt_in": ("context_embedder",)}
    return first | {
        f"{old}_in.{layer}": (f"{within}.{new}.linear_{number}",)
        for old, new in named.items()
        for layer, number in (("in_layer", 1), ("out_layer", 2))
    }


_GUIDED = {"time": "timestep_embedder", "guidance": "guidance_embedder"}
_FLUX = (
    _TWO_STREAMS
    | _LAST
    | _embedders("time_text_embed", **_GUIDED, vector="text_embedder")
    | {
        "double_blocks.*.img_mlp.0": ("ff.net.0.proj",),
        "double_blocks.*.img_mlp.2": ("ff.net.2",),
        "double_blocks.*.txt_mlp.0": ("ff_context.net.0.proj",),
        "double_blocks.*.txt_mlp.2": ("ff_context.net.2",),
        "single_blocks.*.linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
        "single_blocks.*.linear2": ("proj_out",),
        "single_blocks.*.modulation.lin": ("norm.linear",),
    }
)
_FLUX2 = (
    _TWO_STREAMS
    | _LAST
    | _embedders("time_guidance_embed", **_GUIDED)
    | {
        "double_stream_modulation_img.lin": ("double_stream_modulation_img.linear",),
        "double_stream_modulation_txt.lin": ("double_stream_modulation_txt.linear",),
        "single_stream_modulation.lin": ("single_stream_modulation.linear",),
        "double_blocks.*.img_mlp.0": ("ff.linear_in",),
        "double_blocks.*.img_mlp.2": ("ff.linear_out",),
        "double_blocks.*.txt_mlp.0": ("ff_context.linear_in",),
        "double_blocks.*.txt_mlp.2": ("ff_context.linear_out",),
        "single_blocks.*.linear1": ("attn.to_qkv_mlp_proj",),  # fused in diffusers too, in the same order
        "single_blocks.*.linear2": ("attn.to_out",),
    }
)
_SD3 = (
    {
        f"joint_blocks.*.{stream}_block.{old}": tuple(new.format(*parts) for new in names)
        for stream, parts in {
            "x": ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "ff", "norm1"),
            "context": (
                "attn.add_q_proj",
                "attn.add_k_proj",
                "attn.add_v_proj",
                "attn.to_add_out",
                "ff_context",
                "norm1_context",
            ),
        }.items()
        for old, names in {
            "attn.qkv": ("{0}", "{1}", "{2}"),
            "attn.proj": ("{3}",),
            "mlp.fc1": ("{4}.net.0.proj",),
            "mlp.fc2": ("{4}.net.2",),
            "adaLN_modulation.1": ("{5}.linear",),
        }.items()
    }
    | {
        "joint_blocks.*.x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
        "joint_blocks.*.x_block.attn2.proj": ("attn2.to_out.0",),
        "x_embedder.proj": ("pos_embed.proj",),
        "t_embedder.mlp.0": ("time_text_embed.timestep_embedder.linear_1",),
        "t_embedder.mlp.2": ("time_text_embed.timestep_embedder.linear_2",),
        "y_embedder.mlp.0": ("time_text_embed.text_embedder.linear_1",),
        "y_embedder.mlp.2": ("time_text_embed.text_embedder.linear_2",),
    }
    | _LAST
)
_BLOCKS = {
    "double_blocks": "transformer_blocks",
    "single_blocks": "single_transformer_blocks",
    "joint_blocks": "transformer_blocks",
}
_LAYERS = ("layers", "context_refiner", "noise_refiner")


def _one_stream(attention: str) -> dict[str, tuple[str, ...]]:
    """Lumina 2 and Z-Image: blocks keep their names, queries, keys and values are one."""
    projections = tuple(f"{attention}.to_{each}" for each in "qkv")
    return {
        name: parts
        for layers in _LAYERS
        for name, parts in {
            f"{layers}.*.attention.qkv": projections,
            f"{layers}.*.attention.out": (f"{attention}.to_out.0",),
        }.items()
    }


ORIGINAL: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "FluxPipeline": _FLUX,
    "ChromaPipeline": _FLUX,
    "Flux2Pipeline": _FLUX2,
    "Flux2KleinPipeline": _FLUX2,
    "StableDiffusion3Pipeline": _SD3,
    "Lumina2Pipeline": _one_stream("attn"),
    "ZImagePipeline": _one_stream("attention"),
}


class Fused(NamedTuple):
    """One original matrix.

    Attributes:
        name: As the original layout has it, such as ``double_blocks.0.img_attn.qkv``.
        weights: Of diffusers' transformer, in the order of the rows.
        exchanged: Whether the halves of its rows are the other way round in diffusers: shift before scale, scale before shift.
    """

    name: str
    weights: tuple[str, ...]
    exchanged: bool = False


def fused_layers(kind: str, weights: Iterable[str]) -> dict[str, Fused]:
    """The original layers of a pipeline class by their names; nothing for a class whose original names are diffusers' own.

    Args:
        kind: The class of the pipeline.
        weights: Names of the weights of its transformer, ``transformer.<path>.weight``.

    Example:
        >>> names = [f"transformer.transformer_blocks.3.attn.to_{each}.weight" for each in "qkv"]
        >>> found = fused_layers("FluxPipeline", names)["double_blocks.3.img_attn.qkv"]
        >>> found.weights == tuple(names)
        True
    """
    known = set(weights)
    table = ORIGINAL.get(kind, {})
    blocks = sorted({match[0] for name in known if (match := re.match(r"transformer\.(\w+)\.(\d+)\.", name))})
    found: dict[str, Fused] = {}
    last = max((int(block.split(".")[2]) for block in blocks if ".transformer_blocks." in block), default=0)
    for original, parts in table.items():
        group, _, inner = original.partition(".*.")
        if not inner:  # outside of the blocks
            names = tuple(f"transformer.{part}.weight" for part in parts)
            if known.issuperset(names):
                found[original] = Fused(original, names, parts == ("norm_out.linear",))
            continue
        for block in blocks:
            _, there, number, _ = block.split(".")
            names = tuple(f"{block}{part}.weight" for part in parts)
            if there == _BLOCKS.get(group, group) and known.issuperset(names):
                # the last block of Stable Diffusion 3 is left by the text, whose modulation is as that of the last layer then
                turned = inner == "context_block.adaLN_modulation.1" and int(number) == last
                found[f"{group}.{number}.{inner}"] = Fused(f"{group}.{number}.{inner}", names, turned)
    return found
