"""A pipeline's tokenizers, by the names of the text encoders they belong to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from diffusers import DiffusionPipeline
from transformers import PreTrainedTokenizerBase

TOKENIZER_OF = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2", "text_encoder_3": "tokenizer_3"}


def tokenizer_of(pipeline: object, encoder: str) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a text encoder: a part of the pipeline, or a part of its processor; None where it has none."""
    found = getattr(pipeline, TOKENIZER_OF[encoder], None)
    if found is None and encoder == "text_encoder":
        found = getattr(pipeline, "processor", None)
    return getattr(found, "tokenizer", found)


class PipelineTokenizers(Mapping[str, PreTrainedTokenizerBase]):
    """The pipeline's tokenizers under the names of their text encoders, as they are now."""

    def __init__(self, pipeline: DiffusionPipeline):
        self.pipeline = pipeline

    def __getitem__(self, encoder: str) -> PreTrainedTokenizerBase:
        if encoder not in TOKENIZER_OF or getattr(self.pipeline, encoder, None) is None:
            raise KeyError(encoder)
        found = tokenizer_of(self.pipeline, encoder)
        if found is None:
            raise KeyError(encoder)
        return found

    def __iter__(self) -> Iterator[str]:
        return (encoder for encoder in TOKENIZER_OF if getattr(self.pipeline, encoder, None) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)
