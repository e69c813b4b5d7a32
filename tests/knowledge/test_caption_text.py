"""The text of a bag of concepts: written and read back, exactly where it is whole, and without silent loss where it is damaged."""

from __future__ import annotations

import json
import random
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.knowledge.random_bags import damaged, lost_words, odd_text, plain_text, random_bag
from photopic.core.errors import DataError
from photopic.data.scenes import SceneOptions, sample_scene
from photopic.knowledge.bag_of_concepts import BagOfConcepts, ConceptObject, Relation
from photopic.knowledge.bag_record import BagRecord, from_json, to_json
from photopic.knowledge.caption_text import parse, write
from photopic.knowledge.scene_bags import bag_of_scene
from tests.knowledge.captions import HARBOUR, MARKET, POSITIONS, STARRED

SEEDS = st.integers(0, 2**63)
WHOLE = write(BagOfConcepts()).partition("%%Part2")[0]
OWL = "<owl 1> (Living; foreground; it sleeps.; Color information: white.)"


@given(SEEDS)
@settings(max_examples=1000, deadline=None)
def test_every_bag_survives_print_and_parse(seed: int) -> None:
    bag = random_bag(random.Random(seed))
    text = write(bag)
    parsed = parse(text)
    assert parsed.bag == bag and parsed.repairs == ()
    assert parse(text, strict=True).bag == bag
    assert from_json(json.loads(json.dumps(to_json(BagRecord(bag))))).bag == bag


@given(SEEDS)
@settings(max_examples=1000, deadline=None)
def test_damage_is_repaired_and_told_or_refused_in_one_line(seed: int) -> None:
    draw = random.Random(seed)
    text = damaged(write(random_bag(draw, draw.choice((odd_text, plain_text)))), draw)
    try:
        parsed = parse(text)
    except DataError as error:
        assert "\n" not in str(error)
        return
    assert lost_words(text, parsed) == Counter()
    assert parse(write(parsed.bag)).bag == parsed.bag


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


@pytest.mark.parametrize("text", [HARBOUR, MARKET], ids=["harbour", "market"])
def test_a_text_cut_anywhere_loses_objects_one_by_one_and_never_more(text: str) -> None:
    before = 0
    for end in range(len(text) + 1):
        try:
            parsed = parse(text[:end])
        except DataError:
            assert before == 0
            continue
        assert len(parsed.bag.objects) >= before
        assert parsed.repairs or end == len(text) or end > text.index("%%Part3: Relationships%%")
        before = len(parsed.bag.objects)
    assert before == (7 if text == HARBOUR else 10)


# --- the published form


def test_the_published_form_is_read_with_and_without_positions() -> None:
    plain = parse(HARBOUR).bag
    assert [item.name for item in plain.objects][:3] == ["Fisherman 1", "Boat 1", "Boat 2"]
    assert plain.style == "A documentary photograph with soft <morning light> and long shadows"
    assert plain.background[1].endswith('read "Fresh fish; cold ice. Open"')  # quotation and decimal part nothing
    assert plain.objects[1].description == (
        "The boat's hull shows fresh paint, its mast (bare, 6.5 m tall) leans to the left",
    )
    assert plain.objects[5].description == ("The lighthouse's lamp is off", "its gallery has a railing")
    assert [each.subject for each in plain.relations] == [
        "Fisherman 1", "Fisherman 1", "Boat 1", "Boat 2", "Gull 1", "Crate 1", "Lighthouse 1", "Clouds",
    ]  # fmt: skip
    assert [each.external for each in plain.relations] == [False, True, True, True, False, False, True, True]
    assert Counter(repair.kind for repair in parse(HARBOUR).repairs) == {"plural": 1, "extra field": 1}
    placed = parse(HARBOUR + POSITIONS).bag
    assert [item.box for item in placed.objects] == [
        (60, 200, 180, 460), (180, 250, 390, 440), (400, 230, 500, 320), (70, 380, 200, 460), (330, 210, 360, 250),
        (440, 60, 480, 210), None,
    ]  # fmt: skip
    starred = parse(HARBOUR + STARRED).bag
    assert [item.box for item in starred.objects[:3]] == [(60, 200, 180, 460), (180, 250, 390, 440), None]


def test_a_text_in_one_line_is_read_like_any_other() -> None:
    parsed = parse(MARKET)
    assert (len(parsed.bag.objects), len(parsed.bag.relations), parsed.repairs) == (10, 10, ())
    assert parse(MARKET, strict=True).bag == parsed.bag


def test_json_is_read_if_it_is_a_record_and_refused_by_name_if_not() -> None:
    bag = parse(MARKET).bag
    text = json.dumps(to_json(BagRecord(bag)))
    assert parse(text).bag == parse(f"```json\n{text}\n```").bag == bag
    with pytest.raises(DataError, match='expected "format": "photopic scene graph 1", found'):
        parse('{"objects": []}')
    with pytest.raises(DataError, match="expected JSON, as the text begins like it"):
        parse('{"objects": [')


# --- recovery


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        ("&&Part1.4: Global", "Part1.4: Global", "heading"),
        ("foreground&&", "foreground", "heading"),
        ("%%Part2: List of objects%%", "Part2: List of objects", "heading"),
        ("%%Part2: List of objects%%", "## Part 2: List of objects", "heading"),
        ("%%Part2: List of objects%%", "%%Liste der Dinge%%", "heading"),
        ("&&Part1.2: Theme&&", "", "missing section"),
        ("%%Part3: Relationships%%", "%%Part3: Relationships%% %%Part3: Relationships%%", "repeated section"),
        ("Color information: It is green.)", "Color information: It is green.", "unclosed bracket"),
        ("Inanimate; foreground; The net's", "Inanimate; The net's", "missing field"),
        ("(Living; foreground; The gull's", "(Robot; foreground; The gull's", "missing field"),
        ("<Net 1> (", "Net 1> (", "half mark"),
        ("<Net 1> (", "<Net 1 (", "half mark"),
        ("[watches]", "[watches", "half mark"),
        ("[watches] <Net 1>", "[watches] <Net 1", "half mark"),
        ("[watches] <Net 1>", "watches] Net 1>", "half mark"),
        ("<Boat 2> (", "<Boat 1> (", "duplicate name"),
        ("[watches] <Net 1>", "[watches] <the net 1>", "other spelling"),
        ("<Gull 1> [watches] <Net 1>", "<Gull 1> [watches]", "incomplete relation"),
        ("<Gull 1> [watches] <Net 1>", "<Gull 1> [watches] <Net 1> [beside] <Crate 1>", "chained relation"),
        ("<Gull 1> [watches] <Net 1>", "The gull watches the net", "unread"),
        ("%%Part1", "Sure, here it is:\n%%Part1", "unread"),
        ("x: 60px", "x: left", "position"),
        ("x: 60px", "x: 60.5px", "position"),
        ("width: 120px", "width: -120px", "position"),
        ("Net 1 {", "Rope 1 {", "position"),
        ("Fresh fish", "Fresh\ufdd0fish", "letter"),
    ],
)  # fmt: skip
def test_each_damage_is_told_once_with_its_place_and_the_rest_is_kept(old: str, new: str, kind: str) -> None:
    whole = HARBOUR + POSITIONS
    assert old in whole
    parsed, usual = parse(whole.replace(old, new, 1)), parse(whole)
    told = Counter(each.kind for each in parsed.repairs) - Counter(each.kind for each in usual.repairs)
    assert told[kind] >= 1
    place = whole.index(old)
    told_there = [each for each in parsed.repairs if each.kind == kind and each.end >= place - 400]
    assert told_there and all(str(each).startswith(f"line {each.line}: {kind}: ") for each in told_there)
    assert len(parsed.bag.objects) == 7
    assert len(parsed.bag.relations) >= len(usual.bag.relations) - 1


def test_headings_in_another_language_are_read_by_their_order() -> None:
    words = iter(("概要", "风格", "主题", "背景", "前景", "物体", "关系"))
    translated = "".join(
        f"{piece[:2]}{next(words)}{piece[-2:]}" if piece[:2] in ("%%", "&&") else piece
        for piece in _split_headings(MARKET)
    )
    parsed = parse(translated)
    assert parsed.bag == parse(MARKET).bag
    assert {repair.kind for repair in parsed.repairs} == {"heading"} and len(parsed.repairs) == 7


def test_an_end_outside_the_list_is_kept_and_a_plural_stands_for_all() -> None:
    text = f"{WHOLE}%%Part2: List of objects%%{OWL}{OWL.replace('1', '2')}{OWL.replace('owl 1', 'man 1')}%%Part3: Relationships%%"
    bag = parse(text + "<owls> [see] <man 1>. <owl 2> [sees] <men>. <Owl> [near] <camera>. <owl 1> [near] <owl 1>.").bag
    assert [(each.subject, each.object, each.external) for each in bag.relations] == [
        ("owl 1", "man 1", False), ("owl 2", "man 1", False), ("owl 2", "man 1", False),
        ("owl 1", "camera", True), ("owl 2", "camera", True), ("owl 1", "owl 1", False),
    ]  # fmt: skip


def test_plurals_that_multiply_without_end_are_refused() -> None:
    owls = "".join(OWL.replace("owl 1", f"owl {k}") for k in range(1, 120))
    with pytest.raises(DataError, match="expected at most 10,000 relations"):
        parse(f"{WHOLE}%%Part2: List of objects%%{owls}%%Part3: Relationships%%<owls> [near] <owls>.")


@pytest.mark.parametrize(
    "text", ["", "An owl sleeps on a branch.", "# A picture\n- owl\n- branch", "\x00\ud800", "%%", "Part 2"]
)
def test_what_is_no_bag_is_refused_and_nothing_invented(text: str) -> None:
    with pytest.raises(DataError, match="found no section of it"):
        parse(text)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[watches]", "[watches", r"line 24, column 10: expected <name> or .predicate., found"),
        ("%%Part3: Relationships%%", "%%Beziehungen%%", "expected .*Part3: Relationships"),
        ("(Living; foreground; The gull's", "(Robot; foreground; The gull's", "'Gull 1': expected Living or Inanimate"),
        ("<Gull 1> [watches] <Net 1>.", "<Gull 1> [watches] <Nets>.", "'Nets', which stands for Net 1"),
        ("<Boat 2> (", "<Boat 1> (", "two objects are called 'Boat 1'"),
    ],
)
def test_strictly_read_the_first_damage_is_an_error_with_its_place(old: str, new: str, message: str) -> None:
    whole = (
        HARBOUR.replace("lamp is off; its", "lamp is off, its")
        .replace("<Boats>", "<Boat 1> <Boat 2>")
        .replace(">, <", ">. <")
    )
    assert parse(whole, strict=True).bag == parse(whole).bag
    with pytest.raises(DataError, match=message):
        parse(whole.replace(old, new, 1), strict=True)


@pytest.mark.parametrize(
    "pattern",
    ["<", "(", '"', "“", "%%", "&& ", "%%Part1: ", " ", "\n", "[", "a {", "(x: 1)", "<a>[b]", "<a> (Living;", "a 1 (Living; ", "\\",
     "1", "#", "<a 1> (Living; ; ; )\n", "<a> [b] <c>.\n", "&&Style&&"],
)  # fmt: skip
@pytest.mark.parametrize("head", ["%%Part2: List of objects%%", "%%Part3: Relationships%%"])
def test_time_is_linear_in_the_text(head: str, pattern: str) -> None:
    def seconds(letters: int) -> float:
        text, best = head + pattern * (letters // len(pattern)), float("inf")
        for _ in range(2):
            began = time.process_time()
            parse(text)
            best = min(best, time.process_time() - began)
        return best

    # 8 times the text: 8 times the time if linear, 64 if quadratic; very short times prove nothing and cost nothing
    small, large = seconds(1_000), seconds(8_000)
    assert large < 24 * small or large < 0.05


def test_a_bag_refuses_what_it_could_not_write() -> None:
    with pytest.raises(DataError, match=r"two objects are called 'Owl 1'"):
        BagOfConcepts(objects=(ConceptObject("owl 1"), ConceptObject("Owl 1")))
    with pytest.raises(DataError, match="ends at 'owls', which stands for owl 1"):
        BagOfConcepts(objects=(ConceptObject("owl 1"),), relations=(Relation("owls", "near", "tree"),))
    with pytest.raises(DataError, match="single blanks between"):
        ConceptObject("owl  1")
    with pytest.raises(DataError, match="is empty or reversed"):
        ConceptObject("owl 1", box=(5, 0, 5, 9))


@pytest.mark.parametrize(
    ("name", "concept", "index"),
    [("owl 2", "owl", 2), ("Car 12", "Car", 12), ("MP3", "MP3", None), ("Boeing 747", "Boeing 747", None),
     ("owl 02", "owl 02", None), ("7", "7", None)],
)  # fmt: skip
def test_a_number_at_the_end_is_read_whole(name: str, concept: str, index: int | None) -> None:
    assert (ConceptObject(name).concept, ConceptObject(name).index) == (concept, index)


def _split_headings(text: str) -> list[str]:
    import re

    return re.split(r"(%%[^%]+%%|&&[^&]+&&)", text)
