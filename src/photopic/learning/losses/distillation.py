"""Learning beside a teacher: what the untuned model says of a batch, and the loss that compares with it."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from numpy import ndarray
from torch import Tensor
from torch.nn import functional as F

from photopic.models.dual_encoder import DualEncoder
from photopic.models.preprocessing import Images


def distillation(
    logits: Float[Tensor, "n classes"], teacher: Float[Tensor, "n classes"], temperature: float = 1.0
) -> Float[Tensor, ""]:
    """-T^2 mean_i sum_c softmax(z0 / T)_c log softmax(z / T)_c: its gradient is that of the divergence to the teacher.

    Args:
        logits: z, of what learns.
        teacher: z0.
        temperature: T, above 0.

    Example:
        >>> float(distillation(torch.zeros(1, 2), torch.zeros(1, 2)))  # log 2
        0.6931471824645996
    """
    # T^2 keeps the size of the gradient at any T
    return temperature**2 * F.cross_entropy(logits / temperature, F.softmax(teacher / temperature, dim=-1))


class Teacher:
    """Logits of a dual encoder as it is now, without gradients, for batches of training pictures.

    Args:
        model: Edits applied to it count.
        rows: Its classifier, one row of length 1 a class, on the model's device.
        images: The pictures, where each is always seen as it is: what the teacher says of them is then computed once.
            None where they are augmented, so that each batch is new.

    Example:
        >>> Teacher(model, rows)(pixels, index).shape  # doctest: +SKIP
        torch.Size([32, 50])
    """

    def __init__(self, model: DualEncoder, rows: Float[Tensor, "classes dim"], images: Images | None = None):
        self._model, self._rows = model, model.logit_scale * rows
        self._kept = None if images is None else model.image_features(images).to(model.device) @ self._rows.mT

    @torch.no_grad()
    def __call__(
        self, pixels: Float[Tensor, "n 3 height width"], index: Int64[ndarray, " n"]
    ) -> Float[Tensor, "n classes"]:
        """The logits of a batch.

        Args:
            pixels: As the model reads it.
            index: Which of the pictures they are.
        """
        if self._kept is not None:
            return self._kept[torch.from_numpy(index).to(self._kept.device)]
        return F.normalize(self._model.encode_pixels(pixels), dim=-1) @ self._rows.mT  # (n, dim) @ (dim, classes)
