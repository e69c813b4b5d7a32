"""Read and rewrite the cross-attention of diffusers UNets, per text token and resolution; always undone.

`capture_attention` collects probabilities and changes nothing; `rewrite_attention` lets a function change the scores before the
softmax. They work inside one another, in either order, and nested.
"""

from photopic.core.nn.attention.capture import AttentionMaps, announce_guidance, capture_attention
from photopic.core.nn.attention.layers import Grid, cross_attention, uncompiled
from photopic.core.nn.attention.rewrite import Place, Rewrite, rewrite_attention

__all__ = [
    "AttentionMaps",
    "Grid",
    "Place",
    "Rewrite",
    "announce_guidance",
    "capture_attention",
    "cross_attention",
    "rewrite_attention",
    "uncompiled",
]
