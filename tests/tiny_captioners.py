"""Tiny random captioners of real transformers classes, built in memory or saved as their folders are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessorPil,
    BlipProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    VisionEncoderDecoderModel,
)

from photopic.models.captioner import Captioner
from photopic.models.captioner_files import PlainReader
from photopic.models.preprocessing import Preprocessing

SIDE = 16  # pixels
DIM = 8
LONGEST = 6  # tokens of a text
SPECIAL = ("<pad>", "<start>", "<end>", "<unknown>")
WORDS = (*SPECIAL, "describe", "this", "picture", "noto", "flat", "red", "owl", "bear", "3", "9")
SIZES: dict[str, Any] = dict(hidden_size=DIM, intermediate_size=DIM, num_hidden_layers=1, num_attention_heads=2)


def word_tokenizer(*, classifying: bool = False) -> PreTrainedTokenizerFast:
    """A word between blanks is a token; ``classifying``: a text lies between a start and an end, as BERT has it."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unknown>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if classifying:
        words.post_processor = processors.TemplateProcessing("<start> $A <end>", None, [("<start>", 1), ("<end>", 2)])
    pad, start, end, unknown = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=pad, bos_token=start, eos_token=end, unk_token=unknown, sep_token=end,
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


def tiny_captioner(seed: int = 0) -> Captioner:
    """A ViT and a GPT-2 of one layer each, which begin with the picture alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vision = CLIPVisionModel(CLIPVisionConfig(**SIZES, image_size=SIDE, patch_size=8))
        decoder = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=len(WORDS), n_positions=LONGEST + 2, n_embd=DIM, n_layer=1, n_head=2, n_inner=DIM,
                add_cross_attention=True, is_decoder=True, bos_token_id=1, eos_token_id=2, pad_token_id=0,
            )
        )  # fmt: skip
    network = VisionEncoderDecoderModel(encoder=vision, decoder=decoder)
    for config in (network.config, network.generation_config):
        config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 1, 0, 2
    network.generation_config.max_new_tokens = LONGEST
    return Captioner(network, reader=PlainReader(Preprocessing(resize=(SIDE, SIDE)), word_tokenizer()), name="tiny")


def save_plain(folder: Path) -> Path:
    """The folder of ``tiny_captioner``, laid out as the bundled one."""
    model = tiny_captioner()
    model.network.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": {"height": SIDE, "width": SIDE}}))
    return folder


def save_blip(folder: Path) -> Path:
    """A BLIP with its processor, a vision-language model that takes prompts."""
    words = dict(vocab_size=len(WORDS), encoder_hidden_size=DIM, max_position_embeddings=32, bos_token_id=1,
                 eos_token_id=2, sep_token_id=2, pad_token_id=0)  # fmt: skip
    config = BlipConfig(
        text_config=SIZES | words, vision_config=SIZES | {"image_size": SIDE, "patch_size": 8}, projection_dim=DIM
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BlipForConditionalGeneration(config).save_pretrained(folder)
    size = {"height": SIDE, "width": SIDE}
    BlipProcessor(BlipImageProcessorPil(size=size), word_tokenizer(classifying=True)).save_pretrained(folder)
    return folder
