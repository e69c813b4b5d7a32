"""What other libraries call the layers of a text-to-image model: diffusers, kohya, and the original (LDM) layout."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import nn

from photopic.models.text_to_image.handle import TextToImage

# the components that LoRA files know
ADAPTED = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
NETWORKS = ("unet", "transformer")
_BLOCK = re.compile(
    r"(?P<block>(?:down_blocks|up_blocks)\.\d+\.(?:resnets|attentions|downsamplers|upsamplers)\.\d+"
    r"|mid_block\.(?:resnets|attentions)\.\d+)\.(?P<inner>.+)"
)
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_MIDDLE = {"resnets.0": "0", "attentions.0": "1", "resnets.1": "2"}


def layers(model: TextToImage) -> dict[str, nn.Linear | nn.Conv2d]:
    """The linear layers and convolutions that a LoRA file can change, by the name of their weight."""
    return {
        f"{component}.{path.replace('_orig_mod.', '')}.weight": module
        for component in ADAPTED
        if component in model.components
        for path, module in model.components[component].named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }


def kohya_prefix(component: str, model: TextToImage) -> str:
    """What kohya puts before the layers of a component; it numbers several text encoders, and calls a transformer unet."""
    if component in NETWORKS:
        return "lora_unet_"
    if component != "text_encoder":
        return f"lora_te{component[-1]}_"
    return "lora_te1_" if "text_encoder_2" in model.components else "lora_te_"


def kohya_name(name: str, model: TextToImage) -> str:
    """The kohya name of a layer, from the name of its weight or bias.

    The UNet's layers are called as in diffusers, which diffusers, ComfyUI and the kohya scripts read; the two layers that
    diffusers would misread (it takes their last number for a counter) are called as in the original layout.

    Example:
        >>> kohya_name("unet.mid_block.attentions.0.proj_in.weight", model)  # doctest: +SKIP
        'lora_unet_mid_block_attentions_0_proj_in'
    """
    component, path = name.rsplit(".", 1)[0].split(".", 1)
    if component not in NETWORKS:
        path = with_text_model(path)
    elif path.startswith("add_embedding."):
        path = _OUTSIDE[path]
    return kohya_prefix(component, model) + path.replace(".", "_")


def sd_scripts_reads(name: str) -> bool:
    """Whether the kohya scripts build a module for a layer; they pass over others without a word.

    Example:
        >>> sd_scripts_reads("unet.conv_in.weight")
        False
    """
    if name.startswith("unet."):
        return bool(_BLOCK.fullmatch(name.removeprefix("unet.")))
    return ".self_attn." in name or ".mlp." in name


def with_text_model(path: str) -> str:
    """A layer of a text encoder as LoRA files call it; newer versions of transformers wrap CLIP in no ``text_model``."""
    return f"text_model.{path}" if path.startswith(("encoder.layers.", "embeddings.", "final_layer_norm")) else path


def kohya_names(model: TextToImage, names: Iterable[str]) -> dict[str, str]:
    """Every kohya name a file may use, in diffusers' layout or the original one, to the name of the weight it means.

    Args:
        model: Whose layers.
        names: Names of weights, as `layers` gives them.
    """
    names = list(names)
    original = original_names(name.split(".", 1)[1].rsplit(".", 1)[0] for name in names if name.startswith("unet."))
    found: dict[str, str] = {}
    for name in names:
        component, path = name.rsplit(".", 1)[0].split(".", 1)
        if component in NETWORKS:
            own = (path, original.get(path, path))
            spellings = [f"{prefix}_{spelling}" for prefix in ("lora_unet", "lycoris") for spelling in own]
            spellings += [f"lora_transformer_{path}"] if component == "transformer" else []
        else:
            prefixes = ["lora_te_", "lora_te1_"] if component == "text_encoder" else [f"lora_te{component[-1]}_"]
            spellings = [prefix + with_text_model(path) for prefix in prefixes]
        found |= {spelling.replace(".", "_"): name for spelling in spellings}
    return found


def original_names(paths: Iterable[str]) -> dict[str, str]:
    """The layers of a diffusers UNet by their names in the original (LDM) layout, which SDXL LoRA files use.

    Args:
        paths: Layers of the whole UNet as diffusers calls them; the numbering depends on which blocks there are.

    Example:
        >>> original_names(["conv_in", "down_blocks.0.resnets.0.conv1"])
        {'conv_in': 'input_blocks.0.0', 'down_blocks.0.resnets.0.conv1': 'input_blocks.1.0.in_layers.2'}
    """
    paths = list(paths)
    blocks = _block_names({match["block"] for path in paths if (match := _BLOCK.fullmatch(path))})
    found = {}
    for path in paths:
        match = _BLOCK.fullmatch(path)
        if path in _OUTSIDE:
            found[path] = _OUTSIDE[path]
        elif match and match["block"] in blocks:
            found[path] = f"{blocks[match['block']]}.{_inner(match['block'], match['inner'])}"
    return found


def _inner(block: str, inner: str) -> str:
    if ".resnets." in block:
        return _RESNET[inner]
    return "op" if ".downsamplers." in block else inner


def _block_names(blocks: set[str]) -> Mapping[str, str]:
    """Blocks are numbered one after the other over all levels; a downsampler is a block of its own, an upsampler ends one."""
    found = {f"mid_block.{part}": f"middle_block.{number}" for part, number in _MIDDLE.items()}
    number, level = 1, 0  # block 0 is conv_in
    while f"down_blocks.{level}.resnets.0" in blocks:
        layer = 0
        while (resnet := f"down_blocks.{level}.resnets.{layer}") in blocks:
            found |= {resnet: f"input_blocks.{number}.0"}
            found |= {f"down_blocks.{level}.attentions.{layer}": f"input_blocks.{number}.1"}
            number, layer = number + 1, layer + 1
        if (sampler := f"down_blocks.{level}.downsamplers.0") in blocks:
            found[sampler] = f"input_blocks.{number}.0"
            number += 1
        level += 1
    number = level = 0
    while f"up_blocks.{level}.resnets.0" in blocks:
        layer = 0
        while (resnet := f"up_blocks.{level}.resnets.{layer}") in blocks:
            attention = f"up_blocks.{level}.attentions.{layer}"
            found |= {resnet: f"output_blocks.{number}.0", attention: f"output_blocks.{number}.1"}
            after = 2 if attention in blocks else 1
            found[f"up_blocks.{level}.upsamplers.0"] = f"output_blocks.{number}.{after}"
            number, layer = number + 1, layer + 1
        level += 1
    return found
