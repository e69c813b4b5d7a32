"""From a name to the parts of a dual encoder: a bundled one, a local transformers folder, or an id on the hub."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from photopic.core.errors import ModelError
from photopic.models.classifier_files import CONFIG, PREPROCESSOR, _check_size, _preprocessor, found
from photopic.models.loading import BUNDLED, _first_line, _no_progress_bars, _quiet
from photopic.models.preprocessing import Images, Preprocessing

TOKENIZER = "tokenizer_config.json"


class Loaded(NamedTuple):
    """What a folder holds."""

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    preprocess: Callable[[Images], Tensor]
    name: str


def bundled_dual_encoders() -> tuple[str, ...]:
    """Names of the dual encoders that come with photopic.

    Example:
        >>> "emoji-diffusion" in bundled_dual_encoders()
        False
    """
    return tuple(sorted(path.parent.name for path in BUNDLED.glob(f"*/{TOKENIZER}")))


def read(name: str) -> Loaded:
    """Read network, tokenizer and preprocessing.

    Args:
        name: A bundled name, else a folder, else a hub id.

    Raises:
        ModelError: If there is no such model, or it is incomplete or no dual encoder.
    """
    fix = "save its model, its tokenizer and its image processor into one folder"
    folder, local = found(name, "dual encoder", bundled_dual_encoders(), (CONFIG, PREPROCESSOR, TOKENIZER), fix)
    network, tokenizer = _network(name, str(folder) if local else name)
    preprocess = Preprocessing.of(_preprocessor(name, folder if local else None), f"{name}: {PREPROCESSOR}")
    vision: Any = getattr(network.config, "vision_config", None)
    if vision is not None and any(
        "vision_model" in key and "position_embedding" in key for key in network.state_dict()
    ):
        _check_size(name, vision, preprocess)
    return Loaded(network, tokenizer, preprocess, folder.name if local else name)


def _network(name: str, source: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    with _quiet(), _no_progress_bars():
        import torch
        from transformers import AutoModel, AutoTokenizer

        try:
            network, report = AutoModel.from_pretrained(
                source, dtype=torch.float32, use_safetensors=True, output_loading_info=True
            )
            tokenizer = AutoTokenizer.from_pretrained(source)
        except Exception as error:  # transformers, safetensors and the hub each raise their own kinds
            raise ModelError(f"{name}: cannot be loaded as a dual encoder: {_first_line(error)}") from error
    lacking = sorted(str(key) for key in (*report["missing_keys"], *report.get("mismatched_keys", ())))
    if lacking:
        raise ModelError(
            f"{name}: is not a whole dual encoder: its weights lack {lacking[0]}"
            + (f" and {len(lacking) - 1} more" if len(lacking) > 1 else "")
        )
    return network, tokenizer
