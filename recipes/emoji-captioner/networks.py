"""The captioner: the picture tower of ``emoji-clip-vit`` before pooling, and two decoder layers that read its patches."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn import functional as F
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    VisionEncoderDecoderModel,
)

from photopic.data import renderings
from photopic.knowledge.compact_caption import SPECIAL, vocabulary, word
from photopic.models.dual_encoder import TEMPLATES, DualEncoder

sys.path.append(str(Path(__file__).parents[1]))  # recipes/, which holds _common
ENCODER = "emoji-clip-vit"
DIM = 128  # of both towers
LONGEST = 48  # words of a text, with its start and its end
PAD, START, END, UNKNOWN = range(len(SPECIAL))
SEED = 0
NAME_SPREAD = 0.05  # of a name's embedding at first; the other words begin at GPT-2's 0.02


def tokenizer() -> PreTrainedTokenizerFast:
    """A word between blanks is a token."""
    words = Tokenizer(models.WordLevel({text: i for i, text in enumerate(vocabulary())}, unk_token=SPECIAL[UNKNOWN]))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    pad, start, end, unknown = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=pad, bos_token=start, eos_token=end, unk_token=unknown,
        model_max_length=LONGEST, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def build() -> VisionEncoderDecoderModel:
    """The network at its initial weights: the encoder's are those of ``emoji-clip-vit``, names lie as its text tower puts them."""
    clip = DualEncoder.load(ENCODER, device="cpu")
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        decoder = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=len(vocabulary()), n_positions=LONGEST, n_embd=DIM, n_layer=2, n_head=4, n_inner=3 * DIM,
                add_cross_attention=True, is_decoder=True, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
                bos_token_id=START, eos_token_id=END, pad_token_id=PAD,
            )
        )  # fmt: skip
    tower = type(clip.image_tower)(clip.image_tower.config)
    tower.load_state_dict(clip.image_tower.state_dict())
    network = VisionEncoderDecoderModel(encoder=tower.requires_grad_(True), decoder=decoder)
    for config in (network.config, network.generation_config):
        config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = START, PAD, END
    rows = clip.class_features(renderings.classes(), TEMPLATES) @ clip.network.visual_projection.weight  # (names, 128)
    places = {text: i for i, text in enumerate(vocabulary())}
    names = torch.tensor([places[word(name)] for name in renderings.classes()])
    with torch.no_grad():  # each name where a patch that shows it would be projected to
        decoder.transformer.wte.weight[names] = F.normalize(rows - rows.mean(0), dim=-1) * NAME_SPREAD * DIM**0.5
    return network
