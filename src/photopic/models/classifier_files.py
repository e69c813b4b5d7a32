"""From a name to the parts of a classifier: a bundled one, a local transformers folder, or an id on the hub."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from photopic.core.errors import ModelError
from photopic.models.loading import BUNDLED, INDEX, _first_line, _no_progress_bars, _quiet
from photopic.models.preprocessing import Images, Preprocessing

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"


class Loaded(NamedTuple):
    """What a folder holds."""

    network: nn.Module
    preprocess: Callable[[Images], Tensor]
    labels: tuple[str, ...]
    name: str


def bundled_classifiers() -> tuple[str, ...]:
    """Names of the classifiers that come with photopic.

    Example:
        >>> "emoji-diffusion" in bundled_classifiers()
        False
    """
    found = (path.parent for path in BUNDLED.glob(f"*/{PREPROCESSOR}"))
    return tuple(sorted(folder.name for folder in found if not (folder / "tokenizer_config.json").is_file()))


def read(name: str) -> Loaded:
    """Read network, preprocessing and labels.

    Args:
        name: A bundled name, else a folder, else a hub id.

    Raises:
        ModelError: If there is no such model, or it is incomplete or no image classifier.
    """
    folder, local = found(name, "classifier", bundled_classifiers(), (CONFIG, PREPROCESSOR), "copy the whole model")
    network = _network(name, str(folder) if local else name)
    config: Any = network.config
    preprocess = Preprocessing.of(_preprocessor(name, folder if local else None), f"{name}: {PREPROCESSOR}")
    if any("position_embeddings" in key for key, _ in network.named_parameters()):
        _check_size(name, config, preprocess)
    labels = tuple(str(config.id2label[index]) for index in range(config.num_labels))
    return Loaded(network, preprocess, labels, folder.name if local else name)


def found(name: str, kind: str, bundled: Sequence[str], files: Sequence[str], fix: str) -> tuple[Path, bool]:
    """Where a model of transformers is: its folder and True, or an id on the hub and False.

    Args:
        name: A bundled name, else a folder, else a hub id.
        kind: What messages call such a model.
        bundled: Names that come with photopic.
        files: What its folder must hold.
        fix: What to do where one is missing.

    Raises:
        ModelError: If there is no such model, or its folder lacks a file.
    """
    folder = BUNDLED / name if name in bundled else Path(name).expanduser()
    if folder.is_file():
        raise ModelError(f"{name}: is a file, expected a folder as save_pretrained of transformers writes it")
    if not folder.is_dir():
        if not re.fullmatch(r"\w[\w.-]*/[\w.-]+", name):
            names = ", ".join(bundled) or "none in this installation"
            raise ModelError(f"{name}: no such {kind}; give a bundled name ({names}), a folder, or a hub id owner/name")
        return folder, False
    for file in files:
        if not (folder / file).is_file():
            other = " (it is a text-to-image model)" if (folder / INDEX).is_file() else ""
            raise ModelError(f"{folder}: is not the folder of a whole {kind}{other}: it has no {file}; {fix}")
    return folder, True


def _network(name: str, source: str) -> nn.Module:
    with _quiet(), _no_progress_bars():
        import torch
        from transformers import AutoModelForImageClassification

        try:
            network, report = AutoModelForImageClassification.from_pretrained(
                source, dtype=torch.float32, use_safetensors=True, output_loading_info=True
            )
        except Exception as error:  # transformers, safetensors and the hub each raise their own kinds
            raise ModelError(f"{name}: cannot be loaded as an image classifier: {_first_line(error)}") from error
    lacking = sorted(str(key) for key in (*report["missing_keys"], *report.get("mismatched_keys", ())))
    if lacking:
        raise ModelError(
            f"{name}: is not a whole classifier: its weights lack {lacking[0]}"
            + (f" and {len(lacking) - 1} more" if len(lacking) > 1 else "")
            + "; give a model that was saved with its classification head"
        )
    return network


def _preprocessor(name: str, folder: Path | None) -> dict[str, Any]:
    try:
        if folder is None:
            from huggingface_hub import hf_hub_download

            path = Path(hf_hub_download(name, PREPROCESSOR))
        else:
            path = folder / PREPROCESSOR
        config = json.loads(path.read_text())
    except Exception as error:  # the hub raises its own kinds, JSON a ValueError
        raise ModelError(f"{name}: {PREPROCESSOR} cannot be read: {_first_line(error)}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{name}: {PREPROCESSOR} should be a JSON object, found {type(config).__name__}")
    return config


def _check_size(name: str, config: Any, preprocess: Preprocessing) -> None:
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
