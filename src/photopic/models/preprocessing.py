"""From pictures of any size to what a classifier reads, by the values of its ``preprocessor_config.json``.

transformers has a processor class for every architecture, the fast ones over torchvision; what they do to a picture is
always the same few steps, done here with PIL and numpy: resize, crop the centre, scale, normalise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from photopic.core.errors import DataError, ModelError
from photopic.data.pixels import Images, OneOrMore, arrays, batched

__all__ = ["Images", "OneOrMore", "Preprocessing", "arrays", "batched", "starts"]

UNKNOWN = ("do_pad", "rescale_offset", "do_color_quantize", "do_thumbnail", "do_align_long_axis")


@dataclass(frozen=True)
class Preprocessing:
    """Resize, crop the centre, scale to 0..1 and normalise; as a function of pictures.

    Attributes:
        resize: (height, width) after resizing, or the length of the shorter side, or None for no resizing.
        crop: (height, width) of the centre that is kept, or None for all.
        scale: Factor on the pixel values 0 to 255.
        mean: Of each channel, taken off after scaling.
        std: Of each channel, divided by after that.
        resample: Pillow's number of the filter: 2 bilinear, 3 bicubic.
        blue_first: Whether the network reads the channels in the order blue, green, red.

    Example:
        >>> Preprocessing(resize=(4, 4))(np.zeros((2, 8, 6, 3), np.uint8)).shape
        torch.Size([2, 3, 4, 4])
    """

    resize: tuple[int, int] | int | None = None
    crop: tuple[int, int] | None = None
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    resample: int = 2
    blue_first: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any], source: str = "preprocessor_config.json") -> Preprocessing:
        """Read the values of a ``preprocessor_config.json``.

        Args:
            config: Its content.
            source: What messages call it.

        Raises:
            ModelError: If it asks for a step that is not done here, or gives no usable size.

        Example:
            >>> Preprocessing.of({"size": {"height": 32, "width": 32}, "do_normalize": False}).resize
            (32, 32)
        """
        for step in UNKNOWN:
            if config.get(step):
                raise ModelError(
                    f"{source}: asks for {step}, which is not done here; give your own preprocess function"
                )
        resize = _size(config.get("size"), source) if config.get("do_resize", True) else None
        crop = _size(config.get("crop_size"), source) if config.get("do_center_crop", False) else None
        if isinstance(crop, int):
            crop = (crop, crop)
        share = config.get("crop_pct")
        if isinstance(resize, int) and share is not None:  # ConvNext's rule, which ResNet shares
            crop, resize = ((resize, resize), int(resize / share)) if resize < 384 else (None, (resize, resize))
        normalised = config.get("do_normalize", True)
        return cls(
            resize=resize,
            crop=crop,
            scale=float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0,
            mean=tuple(config["image_mean"]) if normalised and "image_mean" in config else cls.mean,
            std=tuple(config["image_std"]) if normalised and "image_std" in config else cls.std,
            resample=int(config.get("resample", 2)),
            blue_first=bool(config.get("do_flip_channel_order", False)),
        )

    def config(self) -> dict[str, Any]:
        """The values of a ``preprocessor_config.json``; ``of`` is the inverse.

        Example:
            >>> steps = Preprocessing(resize=(32, 48), crop=(32, 32), std=(0.5,) * 3)
            >>> Preprocessing.of(steps.config()) == steps
            True
        """
        found: dict[str, Any] = {
            "do_resize": self.resize is not None,
            "do_center_crop": self.crop is not None,
            "do_rescale": True,
            "do_normalize": True,
            "rescale_factor": self.scale,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "resample": self.resample,
            "do_flip_channel_order": self.blue_first,
        }
        if self.resize is not None:
            sides = self.resize if isinstance(self.resize, tuple) else None
            found["size"] = (
                dict(zip(("height", "width"), sides, strict=True)) if sides else {"shortest_edge": self.resize}
            )
        if self.crop is not None:
            found["crop_size"] = dict(zip(("height", "width"), self.crop, strict=True))
        return found

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) of what comes out, where it is the same for every picture."""
        return self.crop or (self.resize if isinstance(self.resize, tuple) else None)

    def __call__(self, images: OneOrMore) -> Float[Tensor, "n 3 height width"]:
        """Prepare pictures.

        Raises:
            DataError: If there is none, one is not 8-bit RGB, or they differ in size where nothing makes them equal.
        """
        pixels = [self._shaped(array) for array in arrays(images)]
        sizes = sorted({array.shape[:2] for array in pixels})
        if len(sizes) > 1:
            raise DataError(
                f"images: expected one size, found {sizes[0]} and {sizes[1]}; this model's preprocessing does not "
                "resize to one size, do it before"
            )
        batch = torch.from_numpy(np.stack(pixels)).float().mul_(self.scale)  # (n, h, w, 3), a copy
        batch = batch.sub_(torch.tensor(self.mean)).div_(torch.tensor(self.std)).permute(0, 3, 1, 2)  # (n, 3, h, w)
        return (batch.flip(1) if self.blue_first else batch).contiguous()

    def differentiable(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 height width"]:
        """The same of pictures as tensors of 0 to 1, through which gradients flow; resizing is bilinear or bicubic, antialiased.

        Example:
            >>> steps, picture = Preprocessing(mean=(0.5,) * 3), np.full((1, 2, 2, 3), 7, np.uint8)
            >>> torch.allclose(steps.differentiable(torch.full((1, 3, 2, 2), 7 / 255)), steps(picture))
            True
        """
        target = self.resize
        if isinstance(target, int):
            short = min(images.shape[2:])
            target = (int(target * images.shape[2] / short), int(target * images.shape[3] / short))
        if target is not None and target != tuple(images.shape[2:]):
            mode = "bicubic" if self.resample == 3 else "bilinear"
            images = F.interpolate(images, target, mode=mode, antialias=True).clamp(0, 1)  # as 8 bits are
        if self.crop is not None:
            top, left = ((has - wanted) // 2 for wanted, has in zip(self.crop, images.shape[2:], strict=True))
            images = images[..., top : top + self.crop[0], left : left + self.crop[1]]
        mean, std = (torch.tensor(each, device=images.device)[:, None, None] for each in (self.mean, self.std))
        batch = (images * (255 * self.scale) - mean) / std
        return batch.flip(1) if self.blue_first else batch

    def pictures(self, pixels: Float[Tensor, "n 3 height width"]) -> UInt8[np.ndarray, "n height width 3"]:
        """What the network reads as pictures: scaling and normalising undone, resizing and cropping kept.

        Example:
            >>> steps, picture = Preprocessing(mean=(0.5,) * 3, blue_first=True), np.full((1, 2, 2, 3), 7, np.uint8)
            >>> bool((steps.pictures(steps(picture)) == picture).all())
            True
        """
        values = (pixels.flip(1) if self.blue_first else pixels).float().cpu()
        values = (values * torch.tensor(self.std)[:, None, None] + torch.tensor(self.mean)[:, None, None]) / self.scale
        return values.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()  # (n, height, width, 3)

    def _shaped(self, array: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
        height, width = array.shape[:2]
        target = self.resize
        if isinstance(target, int):  # the shorter side, as transformers rounds it
            short, long = min(height, width), max(height, width)
            other = int(target * long / short)
            target = (target, other) if height <= width else (other, target)
        if target is not None and target != (height, width):
            picture = Image.fromarray(array).resize(target[::-1], Image.Resampling(self.resample))
            array = np.asarray(picture)
        return array if self.crop is None else _centre(array, self.crop)


def starts(count: int, batch: int) -> range:
    """Where batches of a list begin; an empty list has one batch too, which reaches whoever says that it is empty.

    Raises:
        DataError: If a batch would hold nothing.

    Example:
        >>> list(starts(5, 2)), list(starts(0, 2))
        ([0, 2, 4], [0])
    """
    if batch < 1:
        raise DataError(f"batch: expected 1 or more, found {batch}")
    return range(0, max(1, count), batch)


def _centre(array: UInt8[np.ndarray, "h w 3"], crop: tuple[int, int]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The middle of a picture; one that is smaller gets a black rim, as transformers does it."""
    short = [max(0, wanted - has) for wanted, has in zip(crop, array.shape[:2], strict=True)]
    if any(short):
        rim = [(-(-less // 2), less // 2) for less in short]
        array = np.pad(array, (*rim, (0, 0)))
    top, left = ((has - wanted) // 2 for wanted, has in zip(crop, array.shape[:2], strict=True))
    return array[top : top + crop[0], left : left + crop[1]]


def _size(size: Any, source: str) -> tuple[int, int] | int:
    if isinstance(size, int):
        return (size, size)
    if isinstance(size, Mapping) and {"height", "width"} <= size.keys():
        return (int(size["height"]), int(size["width"]))
    if isinstance(size, Mapping) and "shortest_edge" in size:
        return int(size["shortest_edge"])
    raise ModelError(f"{source}: expected a size with height and width or shortest_edge, found {size!r}")
