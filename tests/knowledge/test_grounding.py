"""Grounding: candidates are the objects of a scene, matching follows its rules, boxes go back to the bag, bad input is one line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import OwlViTConfig, OwlViTForObjectDetection

from photopic.core.errors import DataError, ModelError
from photopic.data.scenes import Background, Placement, Scene, compose
from photopic.knowledge import _calibration
from photopic.knowledge._calibration import false_pairs, threshold_of
from photopic.knowledge._candidates import Candidate, components, finder_of
from photopic.knowledge._matching import GroundingConfig, crop, crop_on_white, match, scores_of
from photopic.knowledge._region_views import detection_view, grounding_view
from photopic.knowledge.bag_file import write_bags
from photopic.knowledge.bag_of_concepts import BagOfConcepts, ConceptObject
from photopic.knowledge.bag_record import BagRecord, ImageFile
from photopic.knowledge.detection import detect
from photopic.knowledge.grounding import bag_of_picture, ground, ground_objects, with_boxes
from photopic.knowledge.scene_bags import bag_of_scene
from photopic.metrics.scene_graph import compare
from photopic.models.dual_encoder import DualEncoder
from tests.tiny import tiny_tokenizer
from tests.tiny_encoders import tiny_dual_encoder

PAIR = [Placement("owl", "noto", (0.26, 0.5), 0.44), Placement("guitar", "noto", (0.74, 0.5), 0.44)]
LOW = GroundingConfig(threshold=-1.0)  # whatever the encoder says, everything is matched


def pair(background: Background | None = None) -> Scene:
    return compose(PAIR, background or Background("red"))


@pytest.mark.parametrize(
    "background",
    [
        Background("red"),
        Background("teal", "gradient", "white"),
        *(Background("blue", kind) for kind in ("striped", "dotted")),
    ],
)
def test_the_parts_that_stand_out_are_the_objects(background: Background) -> None:
    scene = pair(background)
    found = sorted(components(scene.image), key=lambda each: each.box)
    # soft edges count by contrast here and by half coverage there
    assert len(found) == 2 and np.abs(np.array([each.box for each in found]) - scene.boxes).max() <= 2
    overlap = [(each.pixels(64, 64) & mask).sum() / mask.sum() for each, mask in zip(found, scene.masks, strict=True)]
    assert min(overlap) > 0.5  # the red of the guitar is lost on red


def test_a_picture_without_a_plain_background_is_one_line() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    with pytest.raises(DataError, match=r"expected a plain background.*give a detector"):
        components(noise)


def test_views_are_the_box_with_a_margin_and_the_object_alone_on_white() -> None:
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    mask = np.zeros((4, 4), bool)
    mask[1, 1:3] = True
    candidate = Candidate((1, 1, 3, 2), mask)
    assert (crop(image, candidate) == image[1:2, 1:3]).all()
    white = crop_on_white(image, candidate)
    assert white.shape == (2, 2, 3) and (white[0] == image[1, 1:3]).all() and (white[1] == 255).all()


def test_a_score_is_the_weighted_mean_cosine_of_what_an_object_has() -> None:
    model, scene = tiny_dual_encoder(), pair()
    places = [Candidate(tuple(map(int, box)), mask) for box, mask in zip(scene.boxes, scene.masks, strict=True)]
    full = ConceptObject("owl 1", description=("noto style",), colour=("red",))
    config = GroundingConfig(views="crop")
    found = scores_of(model, scene.image, places, [full, ConceptObject("owl 2")], config)
    seen = model.image_features([crop(scene.image, each) for each in places])
    texts = ["a photo of a owl.", "the color of this image is red", "noto style"]
    cosines = (model.text_features(texts) @ seen.mT).numpy()  # (texts, candidates)
    assert found[0] == pytest.approx(np.array([0.4, 0.4, 0.2]) @ cosines, abs=1e-6)
    assert found[1] == pytest.approx(cosines[0], abs=1e-6)  # a name alone counts whole


def test_greedy_and_hungarian_matching() -> None:
    scores = np.array([[0.9, 0.8, -np.inf], [0.85, 0.1, 0.3]])
    assert match(scores, 0.2) == {0: 0, 1: 2}
    assert match(scores, 0.2, "hungarian") == {0: 1, 1: 0}
    assert match(scores, 0.9) == match(scores, 0.9, "hungarian") == {}


def test_the_threshold_is_the_quantile_of_false_pairs_and_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    model, config = tiny_dual_encoder(), GroundingConfig(quantile=0.8)
    monkeypatch.setattr(_calibration, "SCENES", 4)
    monkeypatch.setattr(_calibration, "false_pairs", lambda model, config: false_pairs(model, config, 4))
    pairs = false_pairs(model, config, 4)
    assert threshold_of(model, config) == pytest.approx(np.quantile(pairs, 0.8))
    monkeypatch.setattr(_calibration, "false_pairs", lambda *given: pytest.fail("measured again"))
    assert threshold_of(model, config) == pytest.approx(np.quantile(pairs, 0.8))
    assert threshold_of(model, replace(config, threshold=0.3)) == 0.3


def test_every_object_of_a_scene_is_found_by_the_bundled_encoder_and_goes_back_to_the_bag(tmp_path: Path) -> None:
    model, scene = DualEncoder.load("emoji-clip-vit", device="cpu"), pair()
    truth = bag_of_scene(scene)
    blind = replace(truth, objects=tuple(replace(item, box=None) for item in truth.objects))
    Image.fromarray(scene.image).save(tmp_path / "a.png")
    write_bags(
        tmp_path / "a.jsonl", [BagRecord(blind, ImageFile("a.png")), BagRecord(BagOfConcepts(), ImageFile("b.png"))]
    )
    found = ground(model, str(tmp_path / "a.png"), str(tmp_path / "a.jsonl"), config=GroundingConfig(threshold=0.3))
    assert compare(with_boxes(blind, found), truth).mean_iou > 0.9
    assert (found.values[0] > 0).any((1, 2)).all() and found.labels == ("owl 1", "guitar 1")
    view = grounding_view(found)
    assert view.lead.startswith("2 of 2 objects") and view.sections[0].blocks[0].figures[0].image.shape == (384, 384, 3)
    named = detect(model, str(tmp_path / "a.png"), ["owl", "guitar", "ship"], config=GroundingConfig(threshold=0.3))
    assert {each["name"] for each in named.provenance["found"]} == {"owl", "guitar"} and not named.values[0, 2].any()
    assert detection_view(named).lead.startswith("2 of 2 regions")


def test_a_detector_is_asked_for_each_class_and_its_regions_are_of_that_class_only() -> None:
    asked: list[str] = []

    def finder(image: np.ndarray, names: list[str]) -> list[Candidate]:
        asked.extend(names)
        return [Candidate((0, 0, 30, 60), None, "guitar"), Candidate((30, 0, 60, 60), None, "owl")]

    found = ground_objects(tiny_dual_encoder(), pair().image, bag_of_scene(pair()), finder=finder, config=LOW)
    assert asked == ["owl", "guitar"]
    assert found.provenance["boxes"] == {"owl 1": [30, 0, 60, 60], "guitar 1": [0, 0, 30, 60]}
    refused = ground_objects(
        tiny_dual_encoder(),
        pair().image,
        bag_of_scene(pair()),
        finder=finder,
        accepts=lambda crop, name: name == "owl",
        config=LOW,
    )
    assert refused.provenance["boxes"]["guitar 1"] is None and not refused.values[0, 1].any()


def test_a_zero_shot_detector_of_transformers_finds_candidates(tmp_path: Path) -> None:
    words = tiny_tokenizer()
    sizes = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    text = sizes | dict(vocab_size=len(words), max_position_embeddings=24, eos_token_id=words.eos_token_id,
                        bos_token_id=words.bos_token_id, pad_token_id=words.pad_token_id)  # fmt: skip
    config = OwlViTConfig(text_config=text, vision_config=sizes | dict(image_size=16, patch_size=8), projection_dim=16)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        OwlViTForObjectDetection(config).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"it has no preprocessor_config\.json; copy the whole model"):
        finder_of(str(tmp_path))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": {"height": 16, "width": 16}}))
    found = finder_of(str(tmp_path))(pair().image, ["owl", "guitar"])
    assert {each.name for each in found} == {"owl", "guitar"} and all(each.box[2] <= 64 for each in found)


def test_what_cannot_be_grounded_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="graph: expected objects to look for, found none"):
        ground_objects(tiny_dual_encoder(), pair().image, BagOfConcepts())
    record = BagRecord(bag_of_scene(pair()))
    write_bags(tmp_path / "two.jsonl", [record, record])
    with pytest.raises(DataError, match=r"two\.jsonl: expected one graph of a\.png, found 2 of 2; name the picture"):
        bag_of_picture(str(tmp_path / "two.jsonl"), "a.png")
    with pytest.raises(DataError, match="names: expected one or more, each once, found owl, owl"):
        detect(tiny_dual_encoder(), "a.png", ["owl", "owl"])
    with pytest.raises(DataError, match=r"template: expected a sentence with one \{\}"):
        GroundingConfig(template="a photo")
