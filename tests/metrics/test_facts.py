import pytest

from photopic.core.errors import DataError
from photopic.data import emoji_world, scenes
from photopic.metrics.facts import ObjectFact, parse

NAMES = tuple(item.name for item in emoji_world.concepts() if not item.is_variant and ": " not in item.name)


def test_every_caption_of_the_grammar_reads_back():
    options = scenes.SceneOptions(NAMES, emoji_world.STYLES, style_named=0.5, tinted=0.3, repeated=0.2)
    for seed in range(100):
        scene = scenes.sample_scene(options, seed)
        stated = parse(scene.caption)
        assert [item.concept for item in stated.objects] == list(dict.fromkeys(p.concept for p in scene.placements))
        assert stated.background == scene.background
        if stated.count:
            assert stated.count == len(scene.placements)
            continue
        colours = [p.tint for p in scene.placements]
        assert [item.colour for item in stated.objects] == colours
        if len(scene.placements) == 2 and scene.relations:
            assert stated.relation == scene.relations[0][1]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a <mine> bear on a red background", ObjectFact("bear", token="<mine>")),
        ("a red <mine> bear", ObjectFact("bear", colour="red", token="<mine>")),
        ("a red apple on a red background", ObjectFact("red apple")),
        ("an openmoji black bear", ObjectFact("bear", style="openmoji-black")),
        ("an umbrella on ground on a blue background", ObjectFact("umbrella on ground")),
        ("a bow and arrow", ObjectFact("bow and arrow")),
    ],
)
def test_single_phrases(caption, expected):
    assert parse(caption).objects == (expected,)


@pytest.mark.parametrize(
    "caption", ["a blorp", "a bear on a beige background", "a bear beside a cat", "", "a bear left of"]
)
def test_what_cannot_be_read_is_quoted(caption):
    with pytest.raises(DataError, match="cannot read"):
        parse(caption)
