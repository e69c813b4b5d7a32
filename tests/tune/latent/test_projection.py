"""Deep generative projection: its losses, what each stage may change, and what it leaves behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from photopic.core.config import hints_of
from photopic.core.edits.file import load
from photopic.core.errors import DataError, ModelError
from photopic.core.events import finished
from photopic.data.collage import Collage
from photopic.data.picture_file import read_picture
from photopic.data.sprite_people import sprite_collage
from photopic.tune.latent.projection import (
    OUTSIDE,
    STAGES,
    Losses,
    ProjectionConfig,
    edit_of,
    pattern_names,
    project,
    projection,
    seam,
)
from tests.method_cases import tiny_generator

QUICK = ProjectionConfig(projection_steps=3, semantic_steps=3, pattern_steps=3, draws=4)
PATTERNS = get_args(hints_of(ProjectionConfig)["pattern_params"])


@pytest.fixture(scope="module")
def collage() -> Collage:
    found = sprite_collage((0, 3), 16)
    front, residual = torch.zeros(2, 16, 16, dtype=torch.bool)
    front[12:, :4], residual[12:, 6:9] = True, True
    return replace(found, inner=found.inner & ~front & ~residual, front=front, residual=residual)


def test_losses_of_a_picture_that_is_the_generators_own_are_nothing() -> None:
    model = tiny_generator()
    w = model.in_layers(model.map(model.sample_z(1, 5)))
    own, none = model.synthesize(w), torch.zeros(16, 16, dtype=torch.bool)
    inner = none.clone()
    inner[4:9, 4:9] = True
    losses = Losses(model, Collage(own[0], inner, none, none), replace(QUICK, realism=0.0))
    assert losses.projection(own, w) == 0 and losses.search(own, w, own) == 0
    assert losses.projection(model.synthesize(w + 1), w) > 0


def test_every_term_has_its_weight_and_place(collage: Collage) -> None:
    model = tiny_generator()
    w = model.in_layers(model.mean_w[None] + 2 * model.std_w[None])
    losses = Losses(model, collage, replace(QUICK, realism=0.5))
    wanted, first = collage.pasted[None], torch.zeros(1, 3, 16, 16)
    share = {name: getattr(collage, name).float().mean() for name in ("inner", "front")}
    found = losses.terms(wanted + 1, w, wanted)
    assert found["realism"].item() == pytest.approx(0.5 * 4, rel=1e-4)  # two standard deviations, squared
    assert found["piece"].item() == pytest.approx(share["inner"].item(), rel=1e-5)
    assert found["front"].item() == pytest.approx(share["front"].item(), rel=1e-5)
    assert found["outside"].item() == pytest.approx(OUTSIDE * (1 - share["inner"] - share["front"]).item(), rel=1e-5)
    total = sum(each.item() for each in losses.terms(first, w, first).values())
    assert losses.search(first, w, first).item() == pytest.approx(total)
    judged = Losses(
        model, collage, replace(QUICK, realism=2.0), discriminator=lambda picture: picture.mean((1, 2, 3)) * 0
    )
    assert judged.terms(first, w)["realism"].item() == pytest.approx(2 * np.log(2), rel=1e-5)  # softplus(0)


@pytest.mark.parametrize("params", PATTERNS)
def test_each_stage_changes_its_own_and_nothing_of_the_model(collage: Collage, params: Any) -> None:
    model = tiny_generator()
    before = {name: each.clone() for name, each in model.parameters().items()}
    found = finished(project(model, collage, replace(QUICK, pattern_params=params)))
    assert all(torch.equal(each, before[name]) for name, each in model.parameters().items())  # stored values stay
    assert not torch.equal(found.w["start"], found.w["projection"]) and not torch.equal(
        found.w["projection"], found.w["semantic"]
    )
    assert torch.equal(found.w["pattern"], found.w["semantic"])
    assert found.changed and set(found.changed) <= set(pattern_names(model, params))
    kinds = {"noise": "noise", "late_convs": "convs", "torgb": "to_rgb"}
    assert all(kinds[params] in name or (params == "late_convs" and "to_rgb" in name) for name in found.changed)
    edit = edit_of(model, found)
    with model.edits.applied(edit):
        assert torch.allclose(model.synthesize(found.w["pattern"]), found.pictures["pattern"], atol=1e-5)
    assert all(torch.equal(each, before[name]) for name, each in model.parameters().items())  # and comes off again


def test_gradients_of_what_is_frozen_are_none(collage: Collage) -> None:
    model = tiny_generator()
    losses = Losses(model, collage, QUICK)
    w = model.in_layers(model.mean_w[None]).clone().requires_grad_()
    losses.projection(model.synthesize(w), w).backward()
    assert w.grad is not None and all(each.grad is None for each in model.parameters().values())
    seen: list[torch.Tensor] = []
    whole = model.functional

    def watched(weights: Any) -> Any:
        def forward(w: torch.Tensor) -> torch.Tensor:
            seen.append(w)
            return whole(weights)(w)

        return forward

    object.__setattr__(model, "functional", watched)
    finished(project(model, collage, QUICK))
    assert seen and not any(each.requires_grad for each in seen)  # of the third stage


def test_what_lies_in_the_residual_changes_no_bit_of_projection(collage: Collage) -> None:
    model, config = tiny_generator(), replace(QUICK, semantic_steps=0, pattern_steps=0)
    other = replace(collage, pasted=torch.where(collage.residual, -collage.pasted, collage.pasted))
    pairs = [finished(project(model, each, config)) for each in (collage, other)]
    for stage in ("start", "projection"):
        assert torch.equal(pairs[0].w[stage], pairs[1].w[stage])
    elsewhere = replace(collage, pasted=torch.where(collage.residual, collage.pasted, -collage.pasted))
    assert not torch.equal(pairs[0].w["projection"], finished(project(model, elsewhere, config)).w["projection"])


def test_a_seam_is_a_step_across_the_outline() -> None:
    inner = torch.zeros(8, 8, dtype=torch.bool)
    inner[2:6, 2:6] = True
    assert seam(torch.where(inner, 1.0, -1.0).expand(1, 3, 8, 8), inner) == 2
    assert seam(torch.where(inner.roll(1, 0), 1.0, -1.0).expand(1, 3, 8, 8), inner) < 2
    assert seam(torch.zeros(1, 3, 8, 8), inner) == 0


def test_files_hold_what_the_report_says(tmp_path: Path, collage: Collage) -> None:
    model, out = tiny_generator(), tmp_path / "out"
    report = projection(model, collage, output=str(out), config=QUICK)
    assert [row["stage"] for row in report.rows] == list(STAGES) and report.rows[1]["drift_outside"] == 0
    assert report.rows[3]["w_distance"] == report.rows[2]["w_distance"]
    w = load_file(out / "latents.safetensors")
    assert set(w) == set(STAGES) and w["pattern"].shape == (1, model.layers, 6)
    with Image.open(out / "stages.png") as shown:
        assert shown.size == (16 * 5, 16)
    edit, written = load(out / "pattern.edit"), np.asarray(read_picture(out / "pattern.png"))
    with model.edits.applied(edit):
        drawn = ((model.synthesize(w["pattern"])[0] + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    assert np.abs(drawn.astype(int) - written.astype(int)).max() <= 1
    with pytest.raises(DataError, match="expected a new name"):
        projection(model, collage, output=str(out), config=QUICK)


def test_sizes_and_missing_noise_are_named(collage: Collage) -> None:
    model = tiny_generator()
    with pytest.raises(ModelError, match="draws pictures of 16 pixels, found a collage of 32"):
        finished(project(model, sprite_collage((0, 0), 32), QUICK))
    from photopic.models.generator import Generator, GeneratorConfig

    plain = Generator.fresh(GeneratorConfig(resolution=16, channels=(4, 4, 4), z_width=4, w_width=4, noise="none"))
    with pytest.raises(ModelError, match="has no noise to search patterns in"):
        finished(project(plain, collage, replace(QUICK, pattern_params="noise")))
