"""Inversion: a drawn picture is found again, tuning brings what latents cannot, and one edit holds both and comes off."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from photopic.core.errors import ModelError
from photopic.core.events import finished
from photopic.data.pictures import png_bytes
from photopic.data.pixels import to_pixels
from photopic.models.generator import Generator
from photopic.tune.latent.inversion import InversionConfig, inversion, inverted
from tests.method_cases import tiny_generator

SEARCH = InversionConfig(start="mean", steps=150, lr=0.1, usual=0.0, tuning_steps=0)


def drawn(model: Generator) -> torch.Tensor:
    return model.synthesize(model.map(model.sample_z(1, seed=9)))


def test_a_drawn_picture_is_found_again_and_nothing_is_tuned():
    model = tiny_generator()
    found = finished(inverted(model, drawn(model), SEARCH))
    assert found.errors["search"] < 0.02 * found.errors["start"]
    assert found.errors["tuning"] == found.errors["search"] and found.errors["drift"] == 0.0


def test_tuning_draws_what_latents_cannot_and_holds_other_pictures():
    model = tiny_generator()
    target = drawn(model)
    target[:, :, 5:9, 5:9] += 1.0  # a patch that no latent draws
    config = InversionConfig(start="mean", steps=40, lr=0.1, tuning_steps=80, tuning_lr=0.005)
    held, free = (finished(inverted(model, target, InversionConfig(**{**vars(config), "held": h}))) for h in (0.1, 0.0))
    assert held.errors["tuning"] < 0.7 * held.errors["search"]
    assert held.errors["drift"] < 0.5 * free.errors["drift"]


def test_the_edit_draws_the_picture_at_truncation_0_and_comes_off(tmp_path: Path):
    model = tiny_generator()
    before, plain = model.digest(), model.generate(2)
    file = tmp_path / "face.png"
    file.write_bytes(png_bytes(to_pixels(drawn(model))[0]))
    edit = inversion(model, str(file), config=InversionConfig(start="mean", steps=80, lr=0.1, tuning_steps=5))
    target = torch.tensor(to_pixels(drawn(model))[0]).permute(2, 0, 1)[None].float() / 127.5 - 1
    with model.edits.applied(edit), torch.no_grad():
        picture = model.synthesize(model.map(model.sample_z(2, seed=0), 0.0))
    torch.testing.assert_close(picture[0], picture[1])
    error = float((picture[:1] - target).square().mean())
    assert error == pytest.approx(edit.provenance["errors"]["tuning"], abs=1e-5)
    assert model.digest() == before and (model.generate(2) == plain).all()


def test_a_picture_of_another_size_is_refused():
    model = tiny_generator()
    with pytest.raises(ModelError, match=r"expected pictures of \(n, 3, 16, 16\)"):
        finished(inverted(model, torch.zeros(1, 3, 8, 8), SEARCH))
