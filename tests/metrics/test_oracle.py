import numpy as np
import pytest
import torch

from photopic.core.errors import DataError, ModelError
from photopic.data import emoji_world, scenes, splits
from photopic.metrics.oracle import Oracle

KNOWN = tuple(sorted(splits.KNOWN))
ONE, TWO = (1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def oracle():
    return Oracle.load()


def drawn(count, salt, concepts=KNOWN, **options):
    choice = scenes.SceneOptions(tuple(concepts), **{"styles": ("noto", "twemoji"), "objects": ONE} | options)
    found = [scenes.sample_scene(choice, (424242, salt, index)) for index in range(count)]
    return found, np.stack([scene.image for scene in found])


def share(found, true):
    return np.mean([a == b for a, b in zip(found, true, strict=True)])


def test_no_held_out_concept_or_style_was_trained(oracle):
    assert all(emoji_world.concept(name).split != "held_out" for name in oracle.config.concepts)
    assert emoji_world.HELD_OUT_STYLE not in oracle.config.styles
    assert set(KNOWN) <= set(oracle.config.concepts)


def test_names_concept_style_and_background_of_real_scenes(oracle):
    found, images = drawn(128, 1)
    scores = oracle.score(images)
    assert share(oracle.concept(scores), [s.placements[0].concept for s in found]) >= 0.93
    assert share(oracle.style(scores), [s.placements[0].style for s in found]) >= 0.8
    assert share([b.colour for b in oracle.background(scores)], [s.background.colour for s in found]) >= 0.95
    assert share([b.kind for b in oracle.background(scores)], [s.background.kind for s in found]) >= 0.93


def test_sees_both_objects_their_relation_and_no_third(oracle):
    found, images = drawn(48, 2, objects=TWO)
    rng = np.random.default_rng(0)
    both, absent, related = [], [], []
    for scene, image in zip(found, images, strict=True):
        names = [item.concept for item in scene.placements]
        scores = oracle.score(image[None])
        both.append((oracle.presence(scores, names) > 0.5).all())
        absent.extend(oracle.presence(scores, [str(n) for n in rng.choice(KNOWN, 3) if n not in names])[0] > 0.5)
        if scene.relations:
            related.append(oracle.relation(scores, *names)[0] == scene.relations[0][1])
    assert np.mean(both) >= 0.75 and np.mean(absent) <= 0.05 and np.mean(related) >= 0.9


def test_true_captions_score_above_shuffled_ones(oracle):
    found, images = drawn(64, 3, objects=(0.5, 0.3, 0.1, 0.1))
    captions = [scene.caption for scene in found]
    scores = oracle.score(images)
    true, shuffled = oracle.text_alignment(scores, captions), oracle.text_alignment(scores, captions[1:] + captions[:1])
    assert true.shape == (64,) and ((true >= 0) & (true <= 1)).all()
    assert np.mean(true > shuffled) >= 0.95


def test_a_turned_relation_costs_text_alignment(oracle):
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    found = [scene for scene in drawn(12, 7, objects=TWO)[0] if scene.relations]
    captions = [scene.caption for scene in found]
    turned = [c.replace(s.relations[0][1], opposite[s.relations[0][1]]) for c, s in zip(captions, found, strict=True)]
    scores = oracle.score(np.stack([scene.image for scene in found]))
    assert np.mean(oracle.text_alignment(scores, captions) > oracle.text_alignment(scores, turned) + 0.1) >= 0.8


def test_embedding_knows_subjects_nobody_trained_it_on(oracle):
    subjects = list(splits.SUBJECTS)[:12]
    style = (emoji_world.HELD_OUT_STYLE,)
    references = [oracle.score(drawn(5, 10 + k, [name], styles=style)[1]) for k, name in enumerate(subjects)]
    fresh = [oracle.score(drawn(4, 50 + k, [name], styles=style)[1]) for k, name in enumerate(subjects)]
    table = np.stack([[oracle.subject_similarity(f, r).mean() for r in references] for f in fresh])
    assert np.mean(table.argmax(1) == np.arange(12)) >= 0.8


def test_references_name_a_concept_nobody_trained_it_on(oracle):
    references, fresh = (drawn(5, salt, ["panda"], styles=("fluent-modern",))[1] for salt in (30, 31))
    assert share(oracle.concept(fresh, also={"panda": references}), ["panda"] * 5) >= 0.6
    _, images = drawn(32, 32, [name for name in KNOWN if name != "bear"])
    assert share(oracle.concept(images, also={"panda": references}), ["panda"] * 32) <= 0.1


def test_the_background_does_not_count_in_the_embedding(oracle):
    place = scenes.Placement("bear", "noto", (0.5, 0.5), 0.7)
    images = [scenes.compose([place], scenes.Background(colour)).image for colour in ("red", "blue", "white", "green")]
    similarity = oracle.subject_similarity(np.stack(images[:1]), np.stack(images[1:]))
    assert similarity[0] > 0.8


def test_subject_is_found_beside_another_object(oracle):
    panda, cat = (
        scenes.Placement(n, "fluent-modern", c, 0.45) for n, c in (("panda", (0.26, 0.5)), ("cat", (0.74, 0.5)))
    )
    alone = scenes.compose(
        [scenes.Placement("panda", "fluent-modern", (0.5, 0.5), 0.7)], scenes.Background("blue")
    ).image
    blue = scenes.Background("blue")
    both, without = scenes.compose([panda, cat], blue).image, scenes.compose([cat], blue).image
    found = oracle.subject_presence(np.stack([both, without]), alone[None])
    assert found[0] > found[1]


def test_answers_do_not_depend_on_batch_or_call(oracle):
    _, images = drawn(10, 4)
    whole, alone = oracle.score(images), oracle.score(images, batch=3)
    again = oracle.score(images)
    assert torch.equal(whole.cells, again.cells)
    torch.testing.assert_close(whole.cells, alone.cells, atol=1e-5, rtol=1e-4)


def test_takes_floats_and_other_sizes(oracle):
    found, images = drawn(4, 5)
    floats = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    large = torch.nn.functional.interpolate(floats, scale_factor=4.0, mode="bilinear")
    torch.testing.assert_close(oracle.score(floats).cells, oracle.score(images).cells)
    assert share(oracle.concept(large), [s.placements[0].concept for s in found]) >= 0.75


def test_a_customised_subject_is_not_judged_as_its_noun(oracle):
    _, images = drawn(1, 6)
    assert set(oracle.caption_facts(images, ["a <mine> bear on a striped red background"])[0]) == {
        "red background",
        "striped background",
    }


@pytest.mark.parametrize(
    "call",
    [
        lambda o: o.score(np.zeros((0, 64, 64, 3), np.uint8)),
        lambda o: o.score(np.zeros((1, 64, 64, 3), np.float64)),
        lambda o: o.score(torch.zeros(1, 4, 64, 64)),
        lambda o: o.presence(np.zeros((1, 64, 64, 3), np.uint8), ["panda"]),
        lambda o: o.text_alignment(np.zeros((2, 64, 64, 3), np.uint8), ["a bear"]),
        lambda o: o.text_alignment(np.zeros((1, 64, 64, 3), np.uint8), ["a blorp"]),
    ],
)
def test_bad_input_is_one_line(oracle, call):
    with pytest.raises(DataError) as error:
        call(oracle)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_oracle_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="not an oracle"):
        Oracle.load(path)


def test_the_judge_of_128_pixels_finds_small_things_in_cells_of_its_own() -> None:
    judge = Oracle.load(side=128)
    items = [
        scenes.Placement("bear", "noto", (0.25, 0.3), 0.22),
        scenes.Placement("pizza", "twemoji", (0.72, 0.7), 0.45),
    ]
    scene = scenes.compose(items, scenes.Background("teal"), size=128)
    scores = judge.score(scene.image[None])
    assert scores.cells.shape == (1, 128, 16, 16) and scores.coarse_cells.shape == (1, 128, 8, 8)
    assert (judge.presence(scores, ["bear", "pizza"]) > 0.5).all()
    assert (judge.presence(scores, ["cat", "rabbit"]) < 0.5).all()
    assert judge.relation(scores, "bear", "pizza")[0] in ("left of", "above")
    where = judge.presence_maps(scores, ["bear"])[0, 0]
    row, column = divmod(int(where.argmax()), 16)
    assert row < 8 and column < 8
