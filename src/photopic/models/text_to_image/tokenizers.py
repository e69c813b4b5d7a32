"""A pipeline's tokenizers, by the names of the text encoders they belong to."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping

from diffusers import DiffusionPipeline
from transformers import PreTrainedTokenizerBase

TOKENIZER_OF = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}


class PipelineTokenizers(MutableMapping[str, PreTrainedTokenizerBase]):
    """The pipeline's tokenizers under the names of their text encoders; setting one replaces the pipeline's."""

    def __init__(self, pipeline: DiffusionPipeline):
        self.pipeline = pipeline

    def __getitem__(self, encoder: str) -> PreTrainedTokenizerBase:
        if encoder not in TOKENIZER_OF or getattr(self.pipeline, encoder, None) is None:
            raise KeyError(encoder)
        return getattr(self.pipeline, TOKENIZER_OF[encoder])

    def __setitem__(self, encoder: str, tokenizer: PreTrainedTokenizerBase) -> None:
        setattr(self.pipeline, TOKENIZER_OF[encoder], tokenizer)

    def __delitem__(self, encoder: str) -> None:
        raise TypeError(f"{encoder}: a pipeline cannot lose a tokenizer")

    def __iter__(self) -> Iterator[str]:
        return (encoder for encoder in TOKENIZER_OF if getattr(self.pipeline, encoder, None) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)
