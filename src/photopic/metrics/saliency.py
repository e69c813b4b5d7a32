"""How good a saliency map is: does it lie on the object, do its pixels matter, does it come from the weights?

Papers: the pointing game of Top-down Neural Attention by Excitation Backprop (arXiv:1608.00507), deletion and insertion of RISE
(arXiv:1806.07421), Sanity Checks for Saliency Maps (arXiv:1810.03292).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from statistics import mean

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from photopic.models.classifier import Classifier

SHARES = tuple(step / 10 for step in range(1, 10))  # of the pixels that are deleted or inserted
Maps = Float[np.ndarray, "maps height width"]
Masks = Bool[np.ndarray, "maps height width"]


def resized(values: Float[np.ndarray, "maps rows columns"], size: tuple[int, int]) -> Maps:
    """Maps at the size of a picture, bilinear."""
    return F.interpolate(torch.tensor(values)[None], size, mode="bilinear", align_corners=False)[0].numpy()


def points(maps: Maps, masks: Masks) -> Float[np.ndarray, " maps"]:
    """The pointing game: 1 where the brightest pixel of a map lies in its mask; a map without any is wrong.

    Example:
        >>> maps = np.array([[[0.0, 2.0]], [[0.0, 0.0]]])
        >>> points(maps, np.array([[[False, True]], [[True, True]]])).tolist()
        [1.0, 0.0]
    """
    brightest = maps.reshape(len(maps), -1).argmax(1)
    inside = masks.reshape(len(masks), -1)[np.arange(len(maps)), brightest]
    return (inside & (maps.max((1, 2)) > 0)).astype(float)


def energy(maps: Maps, masks: Masks) -> Float[np.ndarray, " maps"]:
    """The share of what is positive in each map that lies in its mask; of a map without any it is 0.

    Example:
        >>> energy(np.array([[[3.0, 1.0, -9.0]]]), np.array([[[True, False, False]]])).tolist()
        [0.75]
    """
    positive = maps.clip(0)
    return (positive * masks).sum((1, 2)) / positive.sum((1, 2)).clip(1e-30)


def centre_prior(size: tuple[int, int]) -> Float[np.ndarray, "height width"]:
    """A bump in the middle, whatever is asked for: what a map has to beat where objects are in the middle of pictures."""
    away = [(np.arange(side) + 0.5) / side - 0.5 for side in size]
    return np.exp(-(away[0][:, None] ** 2 + away[1] ** 2) / (2 * 0.25**2)).astype(np.float32)


@torch.no_grad()
def curves(
    model: Classifier,
    pixels: Float[Tensor, "1 channels height width"],
    index: int,
    order: Float[np.ndarray, "rows columns"],
) -> Mapping[str, Float[np.ndarray, " shares"]]:
    """Probability of a class while the brightest pixels of a map go (``deletion``), or come alone (``insertion``).

    Args:
        model: The classifier.
        pixels: One picture as it reads them; what is not seen has the picture's mean colour.
        index: Of the class.
        order: A map of any size.
    """
    size = (pixels.shape[-2], pixels.shape[-1])
    large = torch.from_numpy(resized(order[None].astype(np.float32), size)).flatten()
    rank = large.argsort(descending=True).argsort().view(1, 1, *size) / large.numel()  # 0 is the brightest
    inserted = torch.cat([(rank < share).float() for share in SHARES]).to(pixels)  # (shares, 1, height, width)
    masks = torch.cat([1 - inserted, inserted])
    seen = masks * pixels + (1 - masks) * pixels.mean((2, 3), keepdim=True)
    found = model.forward(seen).float().softmax(1)[:, index].cpu().numpy()  # (2 shares,)
    return {"deletion": found[: len(SHARES)], "insertion": found[len(SHARES) :]}


def randomised(model: Classifier, parts: int, seed: int) -> Classifier:
    """The classifier with the weights of its head and so many blocks less one before it drawn anew, at their own mean and spread.

    Args:
        model: Left as it is.
        parts: 1 is the head alone, ``len(model.blocks) + 1`` the head and every block.
        seed: Of the weights.
    """
    network = copy.deepcopy(model.network)
    generator = torch.Generator().manual_seed(seed)
    chosen = [model.head_name, *reversed(model.blocks)][:parts]
    for name, tensor in network.named_parameters():
        if tensor.numel() > 1 and any(name.startswith(f"{part}.") for part in chosen):
            drawn = torch.randn(tensor.shape, generator=generator).to(tensor)
            tensor.data.copy_(drawn * tensor.std() + tensor.mean())
    return Classifier(
        network,
        preprocess=model.preprocess,
        labels=model.labels,
        name=model.name,
        head=model.head_name,
        blocks=model.blocks,
    )


def rank_correlation(first: Maps, second: Maps) -> float:
    """Mean rank correlation of pairs of maps; a constant map has none.

    Example:
        >>> maps = np.array([[[1.0, 2.0, 3.0]]])
        >>> round(rank_correlation(maps, maps**3), 6), round(rank_correlation(maps, -maps), 6)
        (1.0, -1.0)
    """
    from scipy.stats import spearmanr

    pairs = [(a.ravel(), b.ravel()) for a, b in zip(first, second, strict=True)]
    return mean(float(spearmanr(a, b)[0]) if np.ptp(a) > 0 and np.ptp(b) > 0 else 0.0 for a, b in pairs)
