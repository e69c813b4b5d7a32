"""A vision transformer that reads some of the patches only, with a decoder that fills in the others: ViTMAE of transformers.

The pieces are apart so that a method can mask before the encoder, within it, or not at all: ``embed``, ``encode``, ``decode``.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.embeddings import get_2d_sincos_pos_embed
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from photopic.core.errors import ModelError

HEAD = 32  # channels of an attention head
POSITIONS = ("vit.embeddings.position_embeddings", "decoder.decoder_pos_embed")  # fixed, never learnt


def maskable_vit(
    size: int,
    patch: int,
    *,
    width: int = 96,
    depth: int = 4,
    decoder_width: int = 64,
    decoder_depth: int = 1,
    seed: int = 0,
) -> ViTMAEForPreTraining:
    """A network with random weights and the fixed sine and cosine positions of the paper.

    Args:
        size: Side of a picture in pixels, a multiple of ``patch``.
        patch: Side of a patch in pixels.
        width: Channels of the encoder, a multiple of 32, which is a head.
        depth: Layers of the encoder.
        decoder_width: Channels of the decoder, likewise.
        decoder_depth: Layers of the decoder.
        seed: Of the weights.

    Raises:
        ModelError: If a number is no multiple of what it has to be.

    Example:
        >>> maskable_vit(48, 4).vit.embeddings.position_embeddings.shape
        torch.Size([1, 145, 96])
    """
    for name, value, unit in (("size", size, patch), ("width", width, HEAD), ("decoder width", decoder_width, HEAD)):
        if value % unit:
            raise ModelError(f"{name}: expected a multiple of {unit}, found {value}")
    config = ViTMAEConfig(
        image_size=size,
        patch_size=patch,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=width // HEAD,
        intermediate_size=4 * width,
        decoder_hidden_size=decoder_width,
        decoder_num_hidden_layers=decoder_depth,
        decoder_num_attention_heads=decoder_width // HEAD,
        decoder_intermediate_size=4 * decoder_width,
        norm_pix_loss=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = ViTMAEForPreTraining(config)
        with torch.no_grad():
            # transformers 5.23 leaves the positions of a new network at zero: neither half would know where a patch is
            for name in POSITIONS:
                held = network.get_parameter(name)
                side = size // patch
                held[0] = get_2d_sincos_pos_embed(held.shape[2], side, True, extra_tokens=1, base_size=side)
            # as the authors draw them: a spread of 0.02, which transformers takes, hardly moves a narrow network at first
            for module in network.modules():
                if isinstance(module, nn.Linear | nn.Conv2d):
                    nn.init.xavier_uniform_(module.weight.view(len(module.weight), -1))
            for token in (network.vit.embeddings.cls_token, network.decoder.mask_token):
                nn.init.normal_(token, std=0.02)
    return network


def embed(network: Any, pixels: Float[Tensor, "n 3 side side"]) -> Float[Tensor, "n patches width"]:
    """Every patch with its position, as the encoder reads it."""
    parts = network.vit.embeddings
    found: Tensor = parts.patch_embeddings(pixels) + parts.position_embeddings[:, 1:]
    return found


def encode(network: Any, tokens: Float[Tensor, "n some width"]) -> Float[Tensor, "n encoded width"]:
    """Some patches through the encoder, behind the class token; what is not among them costs nothing."""
    parts = network.vit
    first = parts.embeddings.cls_token + parts.embeddings.position_embeddings[:, :1]
    found: Tensor = torch.cat([first.expand(len(tokens), -1, -1), tokens], dim=1)
    for layer in parts.layers:
        found = layer(found)
    return parts.layernorm(found)


def decode(
    network: Any, tokens: Float[Tensor, "n encoded width"], places: Int64[Tensor, "n some"]
) -> Float[Tensor, "n patches values"]:
    """A value for each pixel of every patch; encoded tokens stand at their places, the mask token at all others."""
    parts = network.decoder
    small = parts.decoder_embed(tokens)  # (n, 1 + some, decoder width)
    count = parts.decoder_pos_embed.shape[1] - 1
    whole = parts.mask_token.to(small.dtype).expand(len(small), count, -1)
    whole = whole.scatter(1, places[..., None].expand(-1, -1, small.shape[2]), small[:, 1:])
    found = torch.cat([small[:, :1], whole], dim=1) + parts.decoder_pos_embed
    for layer in parts.decoder_layers:
        found = layer(found)
    return parts.decoder_pred(parts.decoder_norm(found))[:, 1:]


def at_places(
    tokens: Float[Tensor, "n patches width"], places: Int64[Tensor, "n some"]
) -> Float[Tensor, "n some width"]:
    """The tokens at some places.

    Example:
        >>> at_places(torch.arange(3.0)[None, :, None], torch.tensor([[2, 0]])).flatten()
        tensor([2., 0.])
    """
    return tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[2]))


def visible_places(masked: Bool[Tensor, "n patches"]) -> Int64[Tensor, "n visible"]:
    """Where patches are not masked, in their order.

    Raises:
        ModelError: If pictures differ in how many are.

    Example:
        >>> visible_places(torch.tensor([[True, False, False], [False, True, False]]))
        tensor([[1, 2],
                [0, 2]])
    """
    counts = (~masked).sum(1)
    if bool((counts != counts[0]).any()):
        raise ModelError(f"masks: expected as many visible patches in every picture, found {counts.unique().tolist()}")
    return (~masked).nonzero()[:, 1].view(len(masked), -1)


def patches_of(pixels: Float[Tensor, "n 3 side side"], patch: int) -> Float[Tensor, "n patches values"]:
    """The pixels of each patch in a row, in the order of transformers: row, column, channel.

    Example:
        >>> patches_of(torch.zeros(1, 3, 48, 48), 4).shape
        torch.Size([1, 144, 48])
    """
    n, channels, height, width = pixels.shape
    parts = pixels.reshape(n, channels, height // patch, patch, width // patch, patch)
    return parts.permute(0, 2, 4, 3, 5, 1).reshape(n, -1, patch * patch * channels)
