"""A detector that is told in words what to look for: OWL-ViT, Grounding DINO and their kin, from a folder of transformers.

One class a call: asked for several at once such models lose objects and merge their names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from photopic.core.errors import ModelError
from photopic.models.classifier_files import CONFIG, PREPROCESSOR, check_files, read_preprocessor
from photopic.models.files import first_line, no_progress_bars, quiet
from photopic.models.preprocessing import Preprocessing

TOKENIZER = "tokenizer_config.json"


class ZeroShotDetector:
    """Boxes of one class after the other.

    Args:
        network: A model of transformers whose output has ``logits`` and ``pred_boxes``.
        tokenizer: Of its texts.
        preprocess: Of its pictures.
        threshold: Probability that a box must exceed, 0 to 1; the published .25.
    """

    def __init__(self, network: Any, tokenizer: Any, preprocess: Preprocessing, *, threshold: float = 0.25):
        self.network, self.tokenizer, self.preprocess = network.eval().requires_grad_(False), tokenizer, preprocess
        self.threshold = threshold

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> ZeroShotDetector:
        """Read a folder as ``save_pretrained`` writes it: model, tokenizer and image processor.

        Raises:
            ModelError: If it holds no zero-shot detector, or lacks a file.
        """
        name, source = str(folder), Path(folder)
        check_files(name, source, "zero-shot detector", (CONFIG, PREPROCESSOR, TOKENIZER), "copy the whole model")
        preprocess = Preprocessing.of(read_preprocessor(name, source), f"{name}: {PREPROCESSOR}")
        with quiet(), no_progress_bars():
            from transformers import AutoModelForZeroShotObjectDetection, AutoTokenizer

            try:
                network = AutoModelForZeroShotObjectDetection.from_pretrained(
                    source, dtype=torch.float32, use_safetensors=True
                )
                tokenizer = AutoTokenizer.from_pretrained(source)
            except Exception as error:  # transformers and safetensors each raise their own kinds
                raise ModelError(f"{name}: cannot be loaded as a zero-shot detector: {first_line(error)}") from error
        return cls(network.to(device), tokenizer, preprocess)

    @torch.no_grad()
    def boxes(
        self, image: UInt8[np.ndarray, "height width 3"], name: str
    ) -> tuple[Float[np.ndarray, "n 4"], Float[np.ndarray, " n"]]:
        """Boxes (left, top, right, bottom) in pixels of everything called so, and their probabilities, the surest first."""
        device = next(self.network.parameters()).device
        words = self.tokenizer([f"{name}."], return_tensors="pt").to(device)
        found = self.network(pixel_values=self.preprocess(image[None]).to(device), **words)
        # (1, places, tokens or queries) -> (places,): a phrase is as sure as its surest token
        surest = found.logits[0].sigmoid().amax(-1)
        kept = [int(place) for place in surest.argsort(descending=True) if surest[place] > self.threshold]
        return _corners(found.pred_boxes[0, kept], *image.shape[:2]), surest[kept].cpu().double().numpy()


def _corners(boxes: Float[Tensor, "n 4"], height: int, width: int) -> Float[np.ndarray, "n 4"]:
    """Centre and size as shares of the picture -> corners in pixels, inside the picture."""
    middle, size = boxes.cpu().double()[:, :2], boxes.cpu().double()[:, 2:]  # (n, 2) each: x, y
    corners = torch.cat([middle - size / 2, middle + size / 2], 1).clamp(0, 1)
    return (corners * torch.tensor([width, height, width, height])).numpy()
