"""Masked autoencoders: what is masked is not read, the decoder knows where patches are, and folders are those of transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ViTImageProcessor, ViTMAEConfig, ViTMAEForPreTraining

import photopic
from photopic.core.errors import ModelError
from photopic.models.maskable_vit import decode, embed, encode, maskable_vit, patches_of, visible_places
from photopic.models.masked_autoencoder import MaskedAutoencoder
from photopic.models.preprocessing import Preprocessing

DRAW = torch.Generator().manual_seed(0)
PIXELS = torch.randn(3, 3, 24, 24, generator=DRAW)
MASKED = torch.stack([torch.randperm(144, generator=DRAW) >= 36 for _ in range(3)])


def tiny() -> MaskedAutoencoder:
    network = maskable_vit(24, 2, width=32, depth=2, decoder_width=32)
    return MaskedAutoencoder(network, Preprocessing(resize=(24, 24), mean=(0.5,) * 3, std=(0.5,) * 3), "tiny")


def test_it_computes_what_transformers_does_with_the_same_mask() -> None:
    model = tiny()
    theirs = model.network(PIXELS, noise=MASKED.float())  # the quarter of least noise stays; equal ones in any order
    assert torch.equal(theirs.mask.bool(), MASKED)
    assert torch.allclose(model.forward(PIXELS, MASKED), theirs.logits, atol=1e-5)
    assert torch.equal(patches_of(PIXELS, 2), model.network.patchify(PIXELS))


def test_what_is_masked_changes_nothing_that_is_said() -> None:
    model, hidden = tiny(), MASKED.view(3, 1, 12, 12).repeat_interleave(2, 2).repeat_interleave(2, 3)
    other = torch.where(hidden, 9.0, PIXELS)
    assert torch.equal(model.forward(PIXELS, MASKED), model.forward(other, MASKED))
    assert not torch.equal(model.forward(PIXELS, MASKED), model.forward(torch.where(hidden, PIXELS, 9.0), MASKED))


def test_the_decoder_puts_tokens_where_they_were_and_knows_where_the_others_are() -> None:
    network = tiny().network
    places = visible_places(MASKED)
    assert network.decoder.decoder_pos_embed.std() > 0.5 and network.vit.embeddings.position_embeddings.std() > 0.5
    tokens = encode(network, torch.randn(3, 36, 32, generator=DRAW))
    said = decode(network, tokens, places)
    order = torch.randperm(36, generator=DRAW)
    shuffled = torch.cat([tokens[:, :1], tokens[:, 1:][:, order]], dim=1)
    assert torch.allclose(said, decode(network, shuffled, places[:, order]), atol=1e-5)
    assert not torch.allclose(said, decode(network, shuffled, places), atol=1e-2)
    blank = said[0][MASKED[0]]  # of mask tokens alone: they differ by their positions
    assert torch.cdist(blank, blank).fill_diagonal_(1).min() > 1e-3


def test_the_encoder_reads_positions_too() -> None:
    network, flat = tiny().network, torch.zeros(1, 3, 24, 24)
    tokens = embed(network, flat)[0]
    assert torch.cdist(tokens, tokens).fill_diagonal_(1).min() > 1e-2


def test_it_saves_and_loads_as_a_folder_of_transformers(tmp_path: Path) -> None:
    model = tiny()
    model.save(tmp_path / "mae")
    again = photopic.load(tmp_path / "mae", device="cpu")
    assert isinstance(again, MaskedAutoencoder) and again.digest() == model.digest() and again.grid == 12
    theirs = ViTMAEForPreTraining.from_pretrained(tmp_path / "mae")
    assert torch.equal(theirs(PIXELS, noise=MASKED.float()).logits, model.network(PIXELS, noise=MASKED.float()).logits)


def test_a_strangers_folder_is_read(tmp_path: Path) -> None:
    config = ViTMAEConfig(
        image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        decoder_hidden_size=16, decoder_num_hidden_layers=1, decoder_num_attention_heads=2, decoder_intermediate_size=16,
    )  # fmt: skip
    ViTMAEForPreTraining(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"it has no preprocessor_config\.json"):
        photopic.load(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    model = photopic.load(tmp_path, device="cpu")
    assert isinstance(model, MaskedAutoencoder)
    assert model.tokens(np.zeros((2, 40, 30, 3), np.uint8)).shape == (2, 16, 16)


def test_bad_numbers_are_one_error() -> None:
    with pytest.raises(ModelError, match="size: expected a multiple of 5, found 24"):
        maskable_vit(24, 5)
    with pytest.raises(ModelError, match="width: expected a multiple of 32, found 40"):
        maskable_vit(24, 2, width=40)
    with pytest.raises(ModelError, match=r"as many visible patches in every picture, found \[1, 2\]"):
        visible_places(torch.tensor([[True, False], [False, False]]))
