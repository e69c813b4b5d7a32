"""The text of a bag of concepts: written and read back, exactly where it is whole."""

from typing import Any

from hypothesis import given, settings

from photopic.data.scenes import SceneOptions, sample_scene
from photopic.knowledge.caption_text import parse, write
from photopic.knowledge.scene_bags import bag_of_scene
from tests.knowledge.strategies import DRAFTS, bag_of


@given(DRAFTS)
@settings(max_examples=300, deadline=None)
def test_every_bag_survives_print_and_parse(draft: Any) -> None:
    bag = bag_of(draft)
    parsed = parse(write(bag))
    assert parsed.bag == bag
    assert parsed.repairs == ()


def test_a_scene_survives_as_text() -> None:
    options = SceneOptions(("cat", "fox", "guitar"), objects=(0.25,) * 4, tinted=0.5, repeated=0.5)
    for seed in range(50):
        scene = sample_scene(options, seed)
        bag = parse(write(bag_of_scene(scene))).bag
        assert [item.concept for item in bag.objects] == [item.concept for item in scene.placements]
        assert [list(item.box or (0, 0, 0, 0)) for item in bag.objects] == scene.boxes.tolist()
        names = [item.name for item in bag.objects]
        told = {(names.index(each.subject), each.predicate, names.index(each.object)) for each in bag.relations}
        inverse = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
        assert told | {(second, inverse[word], first) for first, word, second in told} == set(scene.relations)
