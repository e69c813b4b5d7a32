"""Read and rewrite the attention of diffusers UNets, cross and self, and what their transformer blocks hand on; always undone.

Of transformers ``capture_joint_attention`` and ``joint_attention`` do the same for what pictures read of text.

`capture_attention` collects probabilities of cross-attention and changes nothing; `rewrite_attention` lets a function change the
scores before the softmax, or queries, keys and values; `rewrite_blocks` changes what a block hands on. They work inside one
another, in either order, and nested.
"""

from photopic.core.nn.attention.blocks import rewrite_blocks
from photopic.core.nn.attention.capture import AttentionMaps, announce_guidance, capture_attention, is_doubled
from photopic.core.nn.attention.joint import JointCall, capture_joint_attention, is_watched, joint_attention
from photopic.core.nn.attention.layers import KINDS, Grid, Kind, attention_layers, cross_attention, uncompiled
from photopic.core.nn.attention.rewrite import Place, Rewrite, RewriteQKV, rewrite_attention

__all__ = [
    "KINDS",
    "AttentionMaps",
    "Grid",
    "JointCall",
    "Kind",
    "Place",
    "Rewrite",
    "RewriteQKV",
    "announce_guidance",
    "attention_layers",
    "capture_attention",
    "capture_joint_attention",
    "cross_attention",
    "is_doubled",
    "is_watched",
    "joint_attention",
    "rewrite_attention",
    "rewrite_blocks",
    "uncompiled",
]
