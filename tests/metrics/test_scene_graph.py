"""Scores of scene graphs: what holds exactly, and the slips of the published ones."""

import random
from dataclasses import replace
from itertools import pairwise

import pytest

from photopic.data.scenes import SceneOptions, sample_scene
from photopic.knowledge.bag_of_concepts import BagOfConcepts, ConceptObject, Relation
from photopic.knowledge.scene_bags import bag_of_scene
from photopic.metrics.scene_graph import Comparison, Tally, compare, means
from photopic.metrics.scene_graph_published import ObjectScores, detection, planning, triples_right

OPTIONS = SceneOptions(("cat", "fox", "guitar"), objects=(0.1, 0.3, 0.3, 0.3), tinted=0.5, repeated=0.5)
SCENES = [bag_of_scene(sample_scene(OPTIONS, seed)) for seed in range(20)]
FIELDS = ("objects", "relations", "attributes", "attributes_of_matched", "located", "located_relations")


@pytest.mark.parametrize("bag", SCENES[:8])
def test_a_graph_is_all_of_itself_and_nothing_is_none_of_it(bag: BagOfConcepts) -> None:
    itself = compare(bag, bag)
    for name in FIELDS:
        tally = getattr(itself, name)
        assert (tally.precision, tally.recall, tally.f1) == (1.0, 1.0, 1.0)
    assert itself.mean_iou == 1.0
    nothing = compare(BagOfConcepts(), bag).objects
    assert (nothing.precision, nothing.recall, nothing.f1) == (0.0, 0.0, 0.0)
    assert compare(BagOfConcepts(), BagOfConcepts()).objects.f1 == 1.0


def test_the_order_and_the_direction_of_what_is_told_do_not_count() -> None:
    inverse = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    for seed, (bag, other) in enumerate(pairwise(SCENES)):
        objects, relations = list(bag.objects), list(bag.relations)
        random.Random(seed).shuffle(objects)
        turned = [Relation(each.object, inverse[each.predicate], each.subject) for each in relations[::-1]]
        shuffled = replace(bag, objects=tuple(objects), relations=tuple(turned))
        assert compare(shuffled, other) == compare(bag, other)
        assert compare(other, shuffled) == compare(other, bag)


def test_what_is_said_twice_counts_once() -> None:
    owl = ConceptObject("owl 1", box=(0, 0, 8, 8))
    truth = BagOfConcepts(objects=(owl,))
    twice = BagOfConcepts(objects=(owl, replace(owl, name="owl 2")))
    found = compare(twice, truth)
    assert found.objects == found.located == Tally(1, 2, 1)


def test_matching_prefers_one_more_pair_to_a_better_one() -> None:
    # a greedy match gives the first prediction the truth that both overlap, and the second none
    truth = BagOfConcepts(
        objects=(ConceptObject("owl 1", box=(0, 0, 10, 10)), ConceptObject("owl 2", box=(3, 0, 13, 10)))
    )
    predicted = BagOfConcepts(
        objects=(ConceptObject("owl 1", box=(2, 0, 12, 10)), ConceptObject("owl 2", box=(5, 0, 15, 10)))
    )
    assert compare(predicted, truth).located == Tally(2, 2, 2)


def test_a_located_relation_needs_its_ends_where_they_are() -> None:
    left, right = (0, 0, 8, 8), (20, 0, 28, 8)
    cats = (ConceptObject("cat 1", box=left), ConceptObject("cat 2", box=right))
    truth = BagOfConcepts(objects=cats, relations=(Relation("cat 1", "looks at", "cat 2"),))
    renamed = (ConceptObject("cat 2", box=left), ConceptObject("cat 1", box=right))
    right_way = BagOfConcepts(objects=renamed, relations=(Relation("cat 2", "looks at", "cat 1"),))
    wrong_way = BagOfConcepts(objects=renamed, relations=(Relation("cat 1", "looks at", "cat 2"),))
    assert compare(right_way, truth).located_relations == Tally(1, 1, 1)
    assert compare(wrong_way, truth).located_relations == Tally(0, 1, 1)
    assert compare(wrong_way, truth).relations == Tally(1, 1, 1)  # by concepts alone they are the same


def test_attributes_are_those_of_matched_objects() -> None:
    truth = BagOfConcepts(objects=(ConceptObject("owl 1", colour=("white",)), ConceptObject("cat 1", colour=("red",))))
    predicted = BagOfConcepts(
        objects=(ConceptObject("owl 1", colour=("white", "big")), ConceptObject("dog 1", colour=("red",)))
    )
    found = compare(predicted, truth)
    assert found.attributes == Tally(1, 3, 2) and found.attributes_of_matched == Tally(1, 2, 1)


def test_means_are_over_all_pictures_and_sums_over_all_objects() -> None:
    comparisons = [compare(SCENES[0], SCENES[0]), compare(BagOfConcepts(), SCENES[1])]
    assert means(comparisons, "objects") == {"precision": 0.5, "recall": 0.5, "f1": 0.5}
    total = sum(comparisons, Comparison())
    assert total.objects == Tally(*(len(SCENES[0].objects),) * 2, len(SCENES[0].objects) + len(SCENES[1].objects))


# --- the published scores, whose slips these tests are the record of


def test_published_a_picture_without_predictions_leaves_both_means() -> None:
    predicted, truth = [SCENES[0], BagOfConcepts()], [SCENES[0], SCENES[1]]
    assert detection(predicted, truth) == ObjectScores(1.0, 1.0, 1.0, left_out=1)
    honest = [compare(own, true) for own, true in zip(predicted, truth, strict=True)]
    assert means(honest, "located")["recall"] == 0.5


def test_published_relations_are_a_count_that_more_pictures_raise() -> None:
    related = [bag for bag in SCENES if bag.relations]
    assert triples_right(related, related) == sum(len(bag.relations) for bag in related)
    once = Relation("cat 1", "near", "cat 2")
    cats = (ConceptObject("cat 1", box=(0, 0, 8, 8)), ConceptObject("cat 2", box=(20, 0, 28, 8)))
    truth, twice = BagOfConcepts(objects=cats, relations=(once,)), BagOfConcepts(objects=cats, relations=(once, once))
    assert triples_right([twice], [truth]) == 1  # multiplicity is respected


def test_published_baselines_keyed_by_phrase_keep_one_of_five_apples() -> None:
    apples = tuple(ConceptObject(f"apple {k}", box=(20 * k, 0, 20 * k + 10, 10)) for k in range(1, 6))
    truth = BagOfConcepts(objects=apples)
    by_phrase = {item.concept: item for item in apples}  # what the comparison did with a detector's five boxes
    keyed = BagOfConcepts(objects=tuple(by_phrase.values()))
    assert detection([keyed], [truth]).recall == 1 / 5
    assert detection([truth], [truth]).recall == 1.0


def test_published_planning_averages_over_wrong_pairs_too() -> None:
    apples = (ConceptObject("apple 1", box=(0, 0, 10, 10)), ConceptObject("apple 2", box=(50, 0, 60, 10)))
    bag = BagOfConcepts(objects=apples)
    assert planning(bag, bag) == (1.0, 1.0, 0.5)  # a perfect plan: two pairs overlap wholly, two not at all
