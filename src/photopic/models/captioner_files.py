"""From a name to the parts of a captioner: the bundled one, or a local transformers folder of a vision-language model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel

from photopic.core.errors import ModelError
from photopic.data.pixels import Images, arrays
from photopic.models.classifier_files import CONFIG, PREPROCESSOR, check_files, read_preprocessor
from photopic.models.files import first_line, no_progress_bars, quiet, read_json
from photopic.models.preprocessing import Preprocessing

TOKENIZER = "tokenizer_config.json"
PROCESSORS = ("processor_config.json", PREPROCESSOR, TOKENIZER)  # files that may name a processor of transformers


class PlainReader:
    """A captioner that begins with the picture alone: photopic's own preprocessing and a tokenizer."""

    takes_prompts = False

    def __init__(self, preprocess: Preprocessing, tokenizer: Any):
        self.preprocess, self.tokenizer = preprocess, tokenizer

    def inputs(self, images: Images, prompt: str) -> dict[str, Tensor]:
        """Pixel values."""
        return {"pixel_values": self.preprocess(images)}

    def texts(self, found: Tensor, given: Tensor | None, prompt: str) -> list[str]:
        """Tokens (n, tokens) as words, special ones left out."""
        return [str(text) for text in self.tokenizer.batch_decode(found, skip_special_tokens=True)]


class ProcessorReader:
    """A vision-language model with its processor, which puts pictures and prompts together as the model was trained on them."""

    takes_prompts = True

    def __init__(self, processor: Any):
        self.processor = processor

    def inputs(self, images: Images, prompt: str) -> dict[str, Tensor]:
        """Pixel values with the tokens of the prompt, in the form of a chat where the model was trained on chats."""
        pictures = [Image.fromarray(each) for each in arrays(images)]
        text = self._asked(prompt)
        given = {} if text is None else {"text": [text] * len(pictures), "padding": True}
        return dict(self.processor(images=pictures, **given, return_tensors="pt"))

    def _asked(self, prompt: str) -> str | None:
        if getattr(self.processor, "chat_template", None):
            said = [{"type": "image"}, {"type": "text", "text": prompt}]
            return str(
                self.processor.apply_chat_template([{"role": "user", "content": said}], add_generation_prompt=True)
            )
        return prompt or None

    def texts(self, found: Tensor, given: Tensor | None, prompt: str) -> list[str]:
        """Tokens as words; a model that goes on with its prompt repeats it, as tokens or as words."""
        begun = 0 if given is None else given.shape[1]
        if given is not None and torch.equal(found[:, :begun], given):
            found = found[:, begun:]
        texts: Sequence[str] = self.processor.batch_decode(found, skip_special_tokens=True)
        said = prompt.strip()
        # uncased tokenizers give the prompt back in small letters
        return [text.strip()[len(said) :].strip() if said and text.strip().lower().startswith(said.lower()) else text.strip()
                for text in texts]  # fmt: skip


Reader = PlainReader | ProcessorReader  # how a captioner reads pictures and prompts, and how its tokens are read


def read(name: str, source: Path | str) -> tuple[PreTrainedModel, Reader]:
    """Read network, processor or tokenizer and preprocessing.

    Args:
        name: What was asked for, for messages.
        source: The folder, or the id on the hub.

    Raises:
        ModelError: If the model is incomplete or no captioner.
    """
    fix = "save its model and its processor into one folder"
    check_files(name, source, "captioner", (CONFIG, TOKENIZER), fix)
    named = any((read_json(source, file) or {}).get("processor_class") for file in PROCESSORS)
    if not named:  # else the processor's own file may hold how pictures are prepared
        check_files(name, source, "captioner", (PREPROCESSOR,), fix)
    with quiet(), no_progress_bars():
        from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

        try:
            network, report = AutoModelForImageTextToText.from_pretrained(
                source, dtype=torch.float32, use_safetensors=True, output_loading_info=True
            )
            part = AutoProcessor.from_pretrained(source) if named else AutoTokenizer.from_pretrained(source)
        except Exception as error:  # transformers, safetensors and the hub each raise their own kinds
            raise ModelError(f"{name}: cannot be loaded as a captioner: {first_line(error)}") from error
    if lacking := sorted(str(key) for key in report["missing_keys"]):
        raise ModelError(f"{name}: is not a whole captioner: its weights lack {lacking[0]}; copy the whole model")
    if named:
        return network, ProcessorReader(part)
    preprocess = Preprocessing.of(read_preprocessor(name, source), f"{name}: {PREPROCESSOR}")
    return network, PlainReader(preprocess, part)
