"""From a name to the parts of a dual encoder: a bundled one, a local transformers folder, or an id on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from photopic.core.errors import ModelError
from photopic.models.classifier_files import CONFIG, PREPROCESSOR, check_files, check_size, read_preprocessor
from photopic.models.files import BUNDLED, DUAL_ENCODER, first_line, kind_of, no_progress_bars, quiet
from photopic.models.preprocessing import Preprocessing

TOKENIZER = "tokenizer_config.json"


def bundled_dual_encoders() -> tuple[str, ...]:
    """Names of the dual encoders that come with photopic.

    Example:
        >>> "emoji-diffusion" in bundled_dual_encoders()
        False
    """
    folders = (path.parent for path in BUNDLED.glob(f"*/{TOKENIZER}"))  # captioners have a tokenizer too
    return tuple(sorted(folder.name for folder in folders if kind_of(folder) == DUAL_ENCODER))


class Loaded(NamedTuple):
    """What a folder holds."""

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    preprocess: Preprocessing


def read(name: str, source: Path | str) -> Loaded:
    """Read network, tokenizer and preprocessing.

    Args:
        name: What was asked for, for messages.
        source: The folder, or the id on the hub.

    Raises:
        ModelError: If the model is incomplete or no dual encoder.
    """
    fix = "save its model, its tokenizer and its image processor into one folder"
    check_files(name, source, "dual encoder", (CONFIG, PREPROCESSOR, TOKENIZER), fix)
    network, tokenizer = _network(name, str(source))
    preprocess = Preprocessing.of(read_preprocessor(name, source), f"{name}: {PREPROCESSOR}")
    vision: Any = getattr(network.config, "vision_config", None)
    learnt = any("vision_model" in key and "position_embedding" in key for key in network.state_dict())
    if vision is not None and learnt:
        check_size(name, vision, preprocess)
    return Loaded(network, tokenizer, preprocess)


def _network(name: str, source: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    with quiet(), no_progress_bars():
        import torch
        from transformers import AutoModel, AutoTokenizer

        try:
            network, report = AutoModel.from_pretrained(
                source, dtype=torch.float32, use_safetensors=True, output_loading_info=True
            )
            tokenizer = AutoTokenizer.from_pretrained(source)
        except Exception as error:  # transformers, safetensors and the hub each raise their own kinds
            raise ModelError(f"{name}: cannot be loaded as a dual encoder: {first_line(error)}") from error
    lacking = sorted(str(key) for key in (*report["missing_keys"], *report.get("mismatched_keys", ())))
    if lacking:
        raise ModelError(
            f"{name}: is not a whole dual encoder: its weights lack {lacking[0]}"
            + (f" and {len(lacking) - 1} more" if len(lacking) > 1 else "")
        )
    return network, tokenizer
