"""Seeds: told apart and ranked where the noise decides, and not where it does not; pictures kept; noises that are another's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from photopic.core.edits.file import load, save
from photopic.core.errors import DataError
from photopic.core.runs import Run
from photopic.generate.guidance.good_seeds import GoodSeeds, GoodSeedsConfig
from photopic.generate.guidance.start_noise import StartNoiseConfig, start_noise
from photopic.measure.seeds import SeedsConfig, attributes_of, identified, seeds, standardised, typicality
from photopic.models.dual_encoder import DualEncoder
from photopic.models.text_to_image.handle import TextToImage
from tests.tiny_encoders import tiny_dual_encoder

PROMPTS = ["a bear", "a cat", "a red bear", "a blue cat"]


@pytest.fixture
def encoder() -> DualEncoder:
    return tiny_dual_encoder()


def test_seeds_are_told_where_noise_decides_and_at_chance_where_it_does_not() -> None:
    rng = np.random.default_rng(0)
    of_seed, of_prompt = rng.normal(size=(1, 20, 30)), rng.normal(size=(8, 1, 30))
    noise = rng.normal(size=(8, 20, 30))
    assert identified(*np.split(of_prompt + of_seed + 0.3 * noise, 2)).mean() > 0.9
    assert identified(*np.split(of_prompt + noise, 2)).mean() < 0.2


def test_the_odd_one_out_is_least_typical_and_scores_are_standardised() -> None:
    features = torch.nn.functional.normalize(torch.tensor([[1.0, 0.1], [1.0, 0.0], [1.0, -0.1], [0.0, 1.0]]), dim=1)
    found = typicality(features)
    assert found.argmin() == 3 and found[0] == pytest.approx(
        float(features[0] @ features.mean(0) / features.mean(0).norm())
    )
    assert standardised(found).mean() == pytest.approx(0) and standardised(found).std() == pytest.approx(1)
    assert (standardised(np.ones(3)) == 0).all()


def test_attributes_find_what_stands_out() -> None:
    pictures = np.full((2, 8, 16, 3), 100, np.uint8)
    pictures[1, 0:2, 12:16] = 250
    plain, found = attributes_of(pictures)
    assert plain.tolist() == [pytest.approx(100 / 255), 0.0, 0.5, 0.5]
    assert found[1:].tolist() == [8 / 128, 14 / 16, 1 / 8]


def test_a_ranking_goes_on_from_its_pictures_and_draws_the_rest_only(
    model: TextToImage, encoder: DualEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SeedsConfig(count=5, batch=2, steps=2)
    whole = seeds(model, encoder, prompts=PROMPTS, config=config)
    events = seeds.events(model, encoder, prompts=PROMPTS, config=config, run=Run(tmp_path))
    for _ in range(8):
        next(events)
    events.close()
    drawn: list[Any] = []
    generate = TextToImage.generate
    monkeypatch.setattr(
        TextToImage,
        "generate",
        lambda self, *given, **options: drawn.append(given) or generate(self, *given, **options),
    )
    again = seeds(model, encoder, prompts=PROMPTS, config=config, run=Run(tmp_path))
    assert len(drawn) == 12 - 8
    assert again.rows == whole.rows and again.values == whole.values
    assert sorted(row["seed"] for row in again.rows) == [0, 1, 2, 3, 4]
    assert [row["score"] for row in again.rows] == sorted((row["score"] for row in again.rows), reverse=True)
    for row in again.rows:
        assert row["score"] == pytest.approx((row["half_1"] + row["half_2"]) / 2)


def test_one_prompt_is_refused(model: TextToImage, encoder: DualEncoder) -> None:
    with pytest.raises(DataError, match="--prompt: expected two or more, found 1"):
        seeds(model, encoder, prompts=["a bear"])


def test_pictures_of_good_seeds_are_those_of_the_ranked_seeds_in_turn(model: TextToImage, tmp_path: Path) -> None:
    file = tmp_path / "seeds.json"
    file.write_text(json.dumps({"name": "measure seeds", "rows": [{"seed": seed} for seed in (41, 7, 99)]}))

    def drawn(seeds: list[int], **config: Any) -> np.ndarray:
        controls = [GoodSeeds(str(file), config=GoodSeedsConfig(**config))] if config else []
        return model.generate("a bear", seeds=seeds, steps=2, controls=controls)

    assert np.array_equal(drawn([0, 1, 2], top=2), drawn([41, 7, 41]))
    assert np.array_equal(drawn([0, 1], top=2, worst=True), drawn([99, 7]))
    assert np.array_equal(drawn([0, 1], top=0), drawn([0, 1]))  # nothing chosen, nothing changed
    with pytest.raises(DataError, match=r"seeds\.json: expected 4 seeds or more, found 3"):
        drawn([0], top=4)
    for said in ([], {"name": "measure seeds", "rows": []}, {"name": "layers", "rows": [{"seed": 1}]}):
        file.write_text(json.dumps(said))
        with pytest.raises(DataError, match=r"seeds\.json: expected what photopic measure seeds --json prints"):
            drawn([0], top=1)
    file.write_text(json.dumps({"name": "measure seeds", "rows": [{"seed": -1}]}))
    with pytest.raises(DataError, match=r"seeds\.json: expected whole numbers from 0 as seeds"):
        drawn([0], top=1)


def test_a_start_noise_edit_draws_what_the_ranked_seed_draws_and_is_turned_to_by_degrees(
    model: TextToImage, tmp_path: Path
) -> None:
    file = tmp_path / "seeds.json"
    file.write_text(json.dumps({"name": "measure seeds", "rows": [{"seed": seed} for seed in (41, 7)]}))
    edit = start_noise(str(file), model, config=StartNoiseConfig(place=2))
    save(edit, tmp_path / "seven.edit")

    def drawn(seed: int) -> np.ndarray:
        return model.generate("a bear", seeds=[seed], steps=2)

    own, ranked = drawn(0), drawn(7)
    with model.edits.applied(load(tmp_path / "seven.edit")):
        assert np.array_equal(drawn(0), ranked)
    with model.edits.applied(edit, weight=0.5):
        half = drawn(0)
    assert not np.array_equal(half, own) and not np.array_equal(half, ranked)
    assert np.array_equal(drawn(0), own)
    with pytest.raises(DataError, match=r"seeds\.json: expected 3 seeds or more, found 2"):
        start_noise(str(file), model, config=StartNoiseConfig(place=3))
