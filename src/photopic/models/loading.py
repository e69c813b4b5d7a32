"""``photopic.load``: from a name to a handle, whatever the model is: bundled, a local folder, an id on the hub, or a module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from photopic.core.errors import ModelError
from photopic.models.factories import is_factory
from photopic.models.files import (
    CAPTIONER,
    CLASSIFIER,
    DIFFUSION,
    DUAL_ENCODER,
    GENERATOR,
    MASKED_AUTOENCODER,
    SEGMENTER,
    SKELETON_NETWORK,
    TEXT_TO_IMAGE,
    VOLUME_GENERATOR,
    bundled_names,
    found_source,
    kind_of,
)

if TYPE_CHECKING:
    import torch

    from photopic.models.handle import Handle

__all__ = ["bundled_names", "load"]

HANDLES = {  # kind: its class, imported when one is loaded
    TEXT_TO_IMAGE: "photopic.models.text_to_image.handle:TextToImage",
    DIFFUSION: "photopic.models.diffusion.model:DiffusionModel",
    DUAL_ENCODER: "photopic.models.dual_encoder:DualEncoder",
    CLASSIFIER: "photopic.models.classifier:Classifier",
    CAPTIONER: "photopic.models.captioner:Captioner",
    MASKED_AUTOENCODER: "photopic.models.masked_autoencoder:MaskedAutoencoder",
    SEGMENTER: "photopic.models.segmenter:Segmenter",
    GENERATOR: "photopic.models.generator:Generator",
    VOLUME_GENERATOR: "photopic.models.volume_generator:VolumeGenerator",
    SKELETON_NETWORK: "photopic.models.skeleton_network:SkeletonNetwork",
}


def load(
    model: Any,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    *,
    preprocess: Callable[..., Any] | None = None,
    labels: Sequence[str] | None = None,
) -> Handle:
    """Load a model as the handle of its kind: text-to-image pipeline, diffusion model, dual encoder, classifier, captioner,
    segmentation model, masked autoencoder, skeleton network or style-based generator.

    Args:
        model: A bundled name, else a local folder as diffusers, transformers or ``photopic train`` writes it, else a hub id such as
            ``owner/name``; or a diffusers pipeline in memory, which stays where it is; or an ``nn.Module``, a classifier of one's
            own with its ``preprocess`` and ``labels``; or ``module:factory``, a function that returns a classifier or (module,
            preprocess, labels); or an ONNX file, or a loaded program of ``torch.export``, of which only logits are seen.
        device: Where to put it; None takes the GPU if there is one.
        dtype: Number format of the weights; None is float32.
        preprocess: For a module or program: maps pictures to pixel values.
        labels: For a module or program: the name of each class, in the order of its logits.

    Raises:
        ModelError: If there is no such model or device, or the model is incomplete or of no kind that photopic takes.

    Example:
        >>> model = load("emoji-diffusion")  # doctest: +SKIP
    """
    import torch

    from photopic.models.programs import is_exported, is_program, read_program

    is_file = isinstance(model, str | Path) and is_program(str(model))
    if isinstance(model, torch.nn.Module) or is_exported(model):
        return _own(model, device, dtype, preprocess, labels)
    if is_file and (preprocess is not None or labels is not None):
        return _own(read_program(str(model)), device, dtype, preprocess, labels, Path(str(model)).name)
    is_pipeline = any(each.__name__ == "DiffusionPipeline" for each in type(model).__mro__)  # diffusers is not imported
    if preprocess is not None or labels is not None:
        said = type(model).__name__ if is_pipeline else model
        raise ModelError(f"{said}: has its own preprocessing and labels; they go with a module in its place")
    if is_pipeline:
        pipelines = import_module(HANDLES[TEXT_TO_IMAGE].partition(":")[0])
        handle: Handle = pipelines.handle_of(model, device, dtype)
        return handle
    kind = CLASSIFIER if is_file or is_factory(str(model)) else kind_of(found_source(str(model)))
    module, _, name = HANDLES[kind].partition(":")
    found: Handle = getattr(import_module(module), name).load(model, device, dtype)
    return found


def _own(
    network: Any,
    place: Any,
    dtype: Any,
    preprocess: Callable[..., Any] | None,
    labels: Sequence[str] | None,
    name: str = "",
) -> Handle:
    """A module of the user's as a classifier."""
    from photopic.models.classifier import Classifier

    if preprocess is None or labels is None:
        raise ModelError(
            f"{type(network).__name__}: a module says neither how it reads pictures nor what its classes are called; give "
            "preprocess=... and labels=..."
        )
    return Classifier.own((network, preprocess, labels), name or type(network).__name__, place, dtype)
