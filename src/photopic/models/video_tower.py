"""From frames to what videos are compared by: features of every frame, and a small transformer over time.

The transformer of CLIP-FSAR (arXiv 2303.02982) has no positional encoding: permuted frames come out permuted. A class's text
feature may stand beside the frames as one more token; what it becomes is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from photopic.core.errors import DataError, ModelError
from photopic.data.clips import Videos
from photopic.models.dual_encoder import DualEncoder

IMAGE_SIDE = ("vision_model.", "visual_projection.")  # parameters of the image tower and its projection


class TemporalTransformer(nn.Module):
    """Attention over the frames of one video, then a feed-forward network without its own normalisation.

    Args:
        width: Of features.
        heads: At most this many, fewer where the width is no multiple.
        hidden: Width inside the feed-forward network.
        depth: Layers.
        attention_dropout: On the output of attention.
        dropout: In the feed-forward network.

    Raises:
        ModelError: If a size is not positive.

    Example:
        >>> sum(each.numel() for each in TemporalTransformer(512).parameters())
        3149824
    """

    def __init__(
        self,
        width: int,
        *,
        heads: int = 8,
        hidden: int = 2048,
        depth: int = 1,
        attention_dropout: float = 0.2,
        dropout: float = 0.05,
    ):
        super().__init__()
        if min(width, heads, hidden, depth) < 1:
            raise ModelError(
                f"temporal transformer: expected sizes of 1 or more, found {width}, {heads}, {hidden}, {depth}"
            )
        self.heads = max(count for count in range(1, heads + 1) if width % count == 0)
        self.layers = nn.ModuleList(_Layer(width, self.heads, hidden, attention_dropout, dropout) for _ in range(depth))

    def forward(
        self, frames: Float[Tensor, "*batch t dim"], text: Float[Tensor, "*batch dim"] | None = None
    ) -> Float[Tensor, "*batch t dim"]:
        """The frames of each video in the light of each other, and of a text if there is one.

        Args:
            frames: Features of frames, of any length.
            text: One feature a video, of any length.
        """
        count = frames.shape[-2]
        tokens = frames if text is None else torch.cat([frames, text[..., None, :]], -2)
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens[..., :count, :]


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int, attention_dropout: float, dropout: float):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(attention_dropout)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width), nn.Dropout(dropout)
        )

    def forward(self, tokens: Float[Tensor, "*batch t dim"]) -> Float[Tensor, "*batch t dim"]:
        normed = self.norm(tokens)
        q, k, v = (self._split(part(normed)) for part in (self.to_q, self.to_k, self.to_v))
        weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)  # (*batch, heads, t, t)
        mixed = (weights @ v).transpose(-3, -2).flatten(-2)  # (*batch, t, dim)
        tokens = tokens + self.dropout(self.out(mixed))
        return tokens + self.feed_forward(tokens)

    def _split(self, tokens: Float[Tensor, "*batch t dim"]) -> Float[Tensor, "*batch heads t part"]:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(-3, -2)


def image_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a dual encoder's image side, by name.

    Example:
        >>> sorted(image_parameters(model.network))[0]  # doctest: +SKIP
        'vision_model.embeddings.class_embedding'
    """
    return {name: value for name, value in network.named_parameters() if name.startswith(IMAGE_SIDE)}


def frame_features(model: DualEncoder, videos: Videos, *, batch: int = 64) -> Float[Tensor, "n t dim"]:
    """Features of every frame of every video, projected, of any length, without gradients.

    Args:
        model: A dual encoder.
        videos: Each uint8 (t, h, w, 3), all of one t.
        batch: Frames read at a time, about.

    Raises:
        DataError: If there is no video, or they differ in their number of frames.

    Example:
        >>> frame_features(model, clips.videos[:2]).shape  # doctest: +SKIP
        torch.Size([2, 8, 128])
    """
    return torch.cat(list(frame_features_in_parts(model, videos, batch=batch)))


def frame_features_in_parts(
    model: DualEncoder, videos: Videos, *, batch: int = 64
) -> Iterator[Float[Tensor, "part t dim"]]:
    """``frame_features`` of a few videos after the other, for long ones; arguments and errors as there.

    Example:
        >>> sum(len(part) for part in frame_features_in_parts(model, clips.videos))  # doctest: +SKIP
        400
    """
    if not len(videos):
        raise DataError("videos: expected one or more, found none")
    frames = len(videos[0])
    together = max(1, batch // frames)
    for start in range(0, len(videos), together):
        chosen = [videos[place] for place in range(start, min(start + together, len(videos)))]
        for number, video in enumerate(chosen, start):
            if len(video) != frames:
                raise DataError(f"video {number}: expected {frames} frames as the first, found {len(video)}")
        with torch.no_grad():  # not around the loop: between two parts the caller may train
            found = model.encode_pixels(model.preprocess([frame for video in chosen for frame in video]))
        yield found.float().cpu().unflatten(0, (len(chosen), frames))


@torch.no_grad()
def text_features_of_any_length(
    model: DualEncoder, names: Sequence[str], template: str = "a photo of {}"
) -> Float[Tensor, "classes dim"]:
    """One feature a class name as the text encoder gives it, not brought to length 1.

    Args:
        model: A dual encoder.
        names: Class names; underscores become spaces.
        template: A sentence with ``{}`` where the name goes.

    Raises:
        DataError: If there is no name, one has no token, or the template has no place for it.

    Example:
        >>> text_features_of_any_length(model, ["bear sliding left"]).shape  # doctest: +SKIP
        torch.Size([1, 128])
    """
    if template.count("{}") != 1:
        raise DataError(f"template {template!r}: expected one {{}} where the name goes")
    words = [name.replace("_", " ").strip() for name in names]
    model.text_features(words)  # refuses a name without tokens, which its sentence would hide
    parts = [
        model.encode_texts([template.format(each) for each in words[at : at + 256]]) for at in range(0, len(words), 256)
    ]
    return torch.cat(parts).float().cpu()
