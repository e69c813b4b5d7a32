"""The network of the oracle: one small residual CNN that reads a picture in cells of 8x8 pixels.

Every cell gets a foreground logit and an embedding on the unit sphere; concepts are prototypes on the same sphere (a
normalised softmax), so that the embedding also separates concepts nobody trained it on. Style and tint are read from
cells of an object, colours and kind of the background from the cells around it. ``recipes/emoji-oracle/train.py``
trains it and nothing else uses it as a loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

CELL = 8  # pixels along a side of a cell


@dataclass(frozen=True)
class OracleConfig:
    """What the network tells apart, and its widths."""

    concepts: tuple[str, ...]
    styles: tuple[str, ...]
    tints: tuple[str, ...]  # "none" and the tint colours
    colours: tuple[str, ...]  # of backgrounds
    kinds: tuple[str, ...]  # of backgrounds
    widths: tuple[int, int, int] = (32, 64, 160)  # channels at strides of 2, 4 and 8
    blocks: tuple[int, int, int] = (0, 1, 1)  # residual blocks on each
    embedding: int = 128
    side: int = 64  # pixels along a side of the pictures it learnt from


@dataclass(frozen=True)
class CellReading:
    """What the network says of each cell."""

    features: Float[Tensor, "batch width cells cells"]
    embedding: Float[Tensor, "batch embedding cells cells"]  # of length 1 in each cell
    foreground: Float[Tensor, "batch cells cells"]  # logit: an object is here
    moments: Float[Tensor, "batch moments cells cells"]  # mean and mean square of every channel of every level


class OracleNetwork(nn.Module):
    """Pictures in -1 to 1 to cell readings; the heads turn pooled cells into logits."""

    def __init__(self, config: OracleConfig):
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        channels = 3
        for level, (width, blocks) in enumerate(zip(config.widths, config.blocks, strict=True)):
            layers.append(_down(channels, width, kernel=5 if level == 0 else 3))
            layers.extend(_Residual(width) for _ in range(blocks))
            channels = width
        self.trunk = nn.Sequential(*layers)
        starts = [index for index, layer in enumerate(layers) if not isinstance(layer, _Residual)]
        self.level_ends = [*(index - 1 for index in starts[1:]), len(layers) - 1]
        self.to_embedding = nn.Conv2d(channels, config.embedding, 1)
        self.to_foreground = nn.Conv2d(channels, 1, 1)
        self.prototypes = nn.Parameter(0.1 * torch.randn(len(config.concepts), config.embedding))
        self.log_scale = nn.Parameter(torch.tensor(2.8))
        self.to_style = nn.Linear(channels, len(config.styles))
        self.to_tint = nn.Linear(channels, len(config.tints))
        self.background = nn.Sequential(nn.Linear(3 * channels, 128), nn.ReLU())
        self.to_top = nn.Linear(128, len(config.colours))
        self.to_bottom = nn.Linear(128, len(config.colours))
        self.to_kind = nn.Linear(128, len(config.kinds))
        outputs = len(config.styles) + len(config.tints)
        inputs = 2 * sum(config.widths) + config.embedding
        self.attributes = nn.Sequential(
            nn.BatchNorm1d(inputs), nn.Linear(inputs, 256), nn.ReLU(), nn.Dropout(0.1), nn.Linear(256, outputs)
        )

    def forward(self, images: Float[Tensor, "batch 3 side side"]) -> CellReading:
        """Read every cell of 8x8 pixels."""
        features, levels = images, []
        for index, layer in enumerate(self.trunk):
            features = layer(features)
            if index in self.level_ends:
                levels.append(features)
        cells = (features.shape[2], features.shape[3])
        moments = [F.adaptive_avg_pool2d(level**power, cells) for power in (1, 2) for level in levels]
        embedding = F.normalize(self.to_embedding(features), dim=1)
        return CellReading(features, embedding, self.to_foreground(features).squeeze(1), torch.cat(moments, 1))

    def concept_logits(self, embedding: Float[Tensor, "*batch embedding"]) -> Float[Tensor, "*batch concepts"]:
        """Cosine to each prototype times a learnt scale."""
        return self.log_scale.exp() * embedding @ F.normalize(self.prototypes, dim=1).T

    def attribute_logits(
        self, described: Float[Tensor, "batch described"]
    ) -> tuple[Float[Tensor, "batch styles"], Float[Tensor, "batch tints"]]:
        """Logits of (style, tint) of objects described by ``describe``."""
        style, tint = self.attributes(described).split([len(self.config.styles), len(self.config.tints)], 1)
        return style, tint

    def background_logits(self, reading: CellReading) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of (top colour, bottom colour, kind) from the upper, the lower and all rows, away from objects."""
        share = torch.sigmoid(-reading.foreground.detach()) + 0.05  # some weight everywhere: an object may fill it all
        cells = reading.features.shape[2]
        half = cells // 2
        pooled = [
            pool(reading.features[:, :, rows], share[:, rows])
            for rows in (slice(0, half), slice(half, cells), slice(0, cells))
        ]
        hidden = self.background(torch.cat(pooled, 1))
        return self.to_top(hidden), self.to_bottom(hidden), self.to_kind(hidden)


def describe(
    moments: Float[Tensor, "batch moments cells cells"],
    embedding: Float[Tensor, "batch embedding cells cells"],
    weights: Float[Tensor, "batch cells cells"],
) -> Float[Tensor, "batch described"]:
    """Mean and spread of every channel and the embedding where the weights are: what was drawn, and how it looks."""
    mean, square = pool(moments, weights).chunk(2, 1)
    spread = (square - mean**2).clamp_min(0).add(1e-6).sqrt()
    return torch.cat([mean, spread, F.normalize(pool(embedding, weights), dim=1)], 1)


def pool(
    cells: Float[Tensor, "batch channels rows columns"], weights: Float[Tensor, "batch rows columns"]
) -> Float[Tensor, "batch channels"]:
    """Weighted mean over the cells of each picture."""
    return torch.einsum("bcij,bij->bc", cells, weights) / weights.sum((1, 2))[:, None].clamp_min(1e-6)


class _Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, cells: Tensor) -> Tensor:
        return F.relu(cells + self.body(cells))


def _down(channels: int, width: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, kernel, stride=2, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )
