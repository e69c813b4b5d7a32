"""From a name to the parts of a classifier: a bundled one, a local transformers folder, or an id on the hub."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from photopic.core.errors import ModelError
from photopic.core.files import share_as_usual, write_atomically
from photopic.models.files import BUNDLED, first_line, no_progress_bars, quiet, read_json
from photopic.models.preprocessing import Preprocessing

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"


def bundled_classifiers() -> tuple[str, ...]:
    """Names of the classifiers that come with photopic.

    Example:
        >>> "emoji-diffusion" in bundled_classifiers()
        False
    """
    found = (path.parent for path in BUNDLED.glob(f"*/{PREPROCESSOR}"))
    return tuple(sorted(folder.name for folder in found if not (folder / "tokenizer_config.json").is_file()))


class Loaded(NamedTuple):
    """What a folder holds."""

    network: nn.Module
    preprocess: Preprocessing
    labels: tuple[str, ...]


def read(name: str, source: Path | str) -> Loaded:
    """Read network, preprocessing and labels.

    Args:
        name: What was asked for, for messages.
        source: The folder, or the id on the hub.

    Raises:
        ModelError: If the model is incomplete or no image classifier.
    """
    check_files(name, source, "classifier", (CONFIG, PREPROCESSOR), "copy the whole model")
    network = pretrained(name, str(source), "AutoModelForImageClassification", "an image classifier")
    config: Any = network.config
    preprocess = Preprocessing.of(read_preprocessor(name, source), f"{name}: {PREPROCESSOR}")
    if any("position_embeddings" in key for key, _ in network.named_parameters()):
        check_size(name, config, preprocess)
    return Loaded(network, preprocess, tuple(str(config.id2label[index]) for index in range(config.num_labels)))


def write(folder: Path, network: Any, preprocess: Any, name: str) -> None:
    """Write network and preprocessing as transformers reads them.

    Args:
        folder: Made if missing.
        network: With the edits in force.
        preprocess: A ``Preprocessing``.
        name: What messages call the model.

    Raises:
        ModelError: If the network is no model of transformers, or the preprocessing another function.
    """
    if not isinstance(preprocess, Preprocessing) or not hasattr(network, "save_pretrained"):
        raise ModelError(
            f"{name}: expected a model of transformers with a Preprocessing, found {type(network).__name__} with "
            f"{type(preprocess).__name__}, which no folder holds; keep the edit and load it onto the model"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with quiet(), no_progress_bars():
        network.save_pretrained(folder)
    share_as_usual(*folder.glob("*.safetensors"))
    config = json.dumps(preprocess.config(), indent=2, sort_keys=True) + "\n"
    write_atomically(folder / PREPROCESSOR, config.encode())


def check_files(name: str, source: Path | str, kind: str, files: Sequence[str], fix: str) -> None:
    """Refuse a folder that lacks a file.

    Args:
        name: What was asked for.
        source: The folder, or an id on the hub, of which nothing is known yet.
        kind: What messages call such a model.
        files: What its folder must hold.
        fix: What to do where one is missing.

    Raises:
        ModelError: Names the file.
    """
    for file in files if isinstance(source, Path) else ():
        if not (source / file).is_file():  # type: ignore[operator]
            raise ModelError(f"{name}: is not the folder of a whole {kind}: it has no {file}; {fix}")


def pretrained(name: str, source: str, kind: str, described: str) -> nn.Module:
    """A network of transformers, whole.

    Args:
        name: What was asked for.
        source: The folder, or the id on the hub.
        kind: The class of transformers that reads it.
        described: What messages call it, with its article.

    Raises:
        ModelError: If it cannot be read or lacks weights.
    """
    with quiet(), no_progress_bars():
        import torch
        import transformers

        try:
            network, report = getattr(transformers, kind).from_pretrained(
                source, dtype=torch.float32, use_safetensors=True, output_loading_info=True
            )
        except Exception as error:  # transformers, safetensors and the hub each raise their own kinds
            raise ModelError(f"{name}: cannot be loaded as {described}: {first_line(error)}") from error
    lacking = sorted(str(key) for key in (*report["missing_keys"], *report.get("mismatched_keys", ())))
    if lacking:
        raise ModelError(
            f"{name}: is not a whole model: its weights lack {lacking[0]}"
            + (f" and {len(lacking) - 1} more" if len(lacking) > 1 else "")
            + "; give a model that was saved with its head"
        )
    return network


def read_preprocessor(name: str, source: Path | str) -> dict[str, Any]:
    """The configuration of the image preprocessing.

    Raises:
        ModelError: If there is none or it is damaged.
    """
    try:
        found = read_json(source, PREPROCESSOR)
    except ModelError as error:
        raise ModelError(f"{name}: the preprocessing cannot be read: {error}") from error
    if found is None:
        raise ModelError(f"{name}: {PREPROCESSOR} cannot be read: there is none; copy the whole model")
    return found


def check_size(name: str, config: Any, preprocess: Preprocessing) -> None:
    """A network with learnt positions reads one size; anything else reads any."""
    wanted = getattr(config, "image_size", None)
    if wanted is None or preprocess.size is None:
        return
    size = (wanted, wanted) if isinstance(wanted, int) else tuple(wanted)
    if size != preprocess.size:
        raise ModelError(
            f"{name}: the network reads images of {size} pixels, but {PREPROCESSOR} makes {preprocess.size}; "
            "correct one of the two files"
        )
