"""Probes of an edit: their numbers are those of the parts they look at, and the model is as it was afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from photopic.core.edits import Edit, SparseWeights, ZeroedWeights
from photopic.core.edits.file import to_bytes
from photopic.core.errors import EditError
from photopic.core.view import PictureRows
from photopic.data.captioned import CaptionedImages
from photopic.edit.explain._common import ProbeSettings, SubjectWords
from photopic.edit.explain._explain_view import explain_view
from photopic.edit.explain.explain import explain
from photopic.edit.explain.probes import attention_before_after, precision_ladder, with_and_without_identifier
from photopic.edit.explain.weight_probes import COLOURS, disentanglement, touched_weights
from photopic.learning.subject.new_token import new_rows
from photopic.models.text_to_image.attention_weights import attention_weights
from photopic.models.text_to_image.handle import TextToImage
from photopic.report.html import page
from tests.tiny import IMAGE_SIZE, tiny_pipeline

QUICK = ProbeSettings(seed=5, pictures=2, steps=1)
K = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
V = K.replace("to_k", "to_v")
PROMPT = "a <mine> bear on a red background"


@pytest.fixture(autouse=True)
def unchanged(model: TextToImage) -> Iterator[None]:
    before = model.digest()
    yield
    assert model.digest() == before and not model.edits.names()


def images() -> Tensor:
    return torch.rand(2, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1


def make(model: TextToImage, token: str = "<mine>", positions: tuple[int, ...] = (0, 33, 70)) -> Edit:
    part = ZeroedWeights({K: torch.tensor(positions), V: torch.tensor([1])})
    facts = {"noun": "bear", "token": token, "method": "concept_neurons"}
    return Edit((part, new_rows(model, token, "bear", start="random")), model.edits.fingerprint(K, V), facts)


def half_shut(model: TextToImage) -> Edit:
    """Every second cross-attention weight, so that pictures differ."""
    weights = attention_weights(model)
    part = ZeroedWeights({name: torch.arange(0, weight.numel(), 2) for name, weight in weights.items()})
    return replace(make(model), parts=(part, make(model).parts[1]), base=model.edits.fingerprint(*weights))


def tuned(model: TextToImage, bits: int = 16) -> Edit:
    positions = {K: torch.arange(64)}
    values = torch.linspace(-1, 1, 64)
    part = SparseWeights.rounded(positions, {K: values}, bits)
    return replace(make(model), parts=(part, make(model).parts[1]))


def test_touched_weights_count_by_block_and_projection(model: TextToImage) -> None:
    probe = touched_weights(make(model))
    shape = model.unet.get_parameter(K.removeprefix("unet.")).numel()
    assert [(row["block"], row["projection"], row["count"], row["size"]) for row in probe.rows] == [
        ("mid", "k", 3, shape),
        ("mid", "v", 1, shape),
    ]
    assert probe.values == {"count": 4, "size": 2 * shape, "share_k": 3 / shape, "share_v": 1 / shape}


def test_attention_before_and_after_reads_the_same_prompt_from_the_same_noise(model: TextToImage) -> None:
    probe = attention_before_after(model, half_shut(model), config=QUICK)
    assert probe.values["prompt"] == PROMPT
    words = ("[start]", "a", "<mine>", "bear", "on", "red", "background", "[end]")
    assert tuple(row["word"] for row in probe.rows) == words == probe.maps["before"].labels
    assert probe.rows[2]["before"] == pytest.approx(probe.maps["before"].values[0, 2].mean())
    assert not np.allclose(probe.maps["before"].values, probe.maps["with"].values)
    nothing = replace(make(model), parts=make(model).parts[1:])  # the word alone: before and after are the same model
    same = attention_before_after(model, nothing, config=QUICK)
    assert np.array_equal(same.maps["before"].values, same.maps["with"].values)
    assert all(row["correlation"] == pytest.approx(1) for row in same.rows)
    np.testing.assert_array_equal(same.maps["before"].values, probe.maps["before"].values)


def test_start_words_and_end_cover_all_attention(model: TextToImage) -> None:
    probe = attention_before_after(model, make(model), config=QUICK)
    values = dict(zip(probe.maps["with"].labels, probe.maps["with"].values[0], strict=True))
    length = 24
    tokens = {"a": 2, "[end]": length - 8}  # the prompt has 7 tokens, one word twice
    total = sum(tokens.get(word, 1) * each for word, each in values.items())
    np.testing.assert_allclose(total, 1, atol=1e-5)


def test_four_cells_differ_where_the_edit_or_the_word_does(model: TextToImage) -> None:
    probe = with_and_without_identifier(
        model, half_shut(model), images=CaptionedImages(images()), config=QUICK, evaluation=4
    )
    assert [(row["edit"], row["word"]) for row in probe.rows] == [
        ("before", "with word"),
        ("before", "without"),
        ("with", "with word"),
        ("with", "without"),
    ]
    assert probe.rows[1]["prompt"] == "a bear on a red background"
    losses = [row["loss"] for row in probe.rows]
    assert len(set(losses)) == 4
    assert probe.values["gap_with"] == pytest.approx(losses[3] - losses[2])
    plain = model.generate("a bear on a red background", seeds=[5, 6], steps=1)
    assert np.array_equal(probe.pictures["before/without"], plain)
    assert not np.array_equal(probe.pictures["with/without"], plain)


def test_without_pictures_there_is_no_loss(model: TextToImage) -> None:
    probe = with_and_without_identifier(model, make(model), config=QUICK)
    assert {row["loss"] for row in probe.rows} == {None} and probe.values == {"gap_before": None, "gap_with": None}


@pytest.mark.parametrize(("bits", "rungs"), [(32, ["32 bits", "16 bits", "8 bits", "2 bits"]), (2, ["2 bits"])])
def test_the_ladder_goes_down_from_what_is_stored(model: TextToImage, bits: int, rungs: list[str]) -> None:
    edit = tuned(model, bits)
    probe = precision_ladder(model, edit, images=CaptionedImages(images()), config=QUICK, evaluation=4)
    assert [row["rung"] for row in probe.rows] == [*rungs, "shut", "before"]
    sizes = [row["bytes"] for row in probe.rows]
    assert sizes[0] == len(to_bytes(edit)) and sizes == sorted(sizes, reverse=True)
    shut = replace(edit, parts=(ZeroedWeights({K: torch.arange(64)}), edit.parts[1]))
    cells = with_and_without_identifier(model, shut, images=CaptionedImages(images()), config=QUICK, evaluation=4)
    assert probe.rows[-2]["loss"] == cells.rows[2]["loss"] and probe.rows[-1]["loss"] == cells.rows[0]["loss"]
    assert probe.rows[0]["loss"] != probe.rows[-2]["loss"]


def test_disentanglement_counts_and_colours_who_touches_what(model: TextToImage) -> None:
    probe = disentanglement([make(model), make(model, "<other>", (33, 70, 71, 99))], ["one", "two"])
    row = next(row for row in probe.rows if row["tensor"] == K)
    size = model.unet.get_parameter(K.removeprefix("unet.")).numel()
    assert (row["pair"], row["only"], row["shared"]) == ("one + two", [1, 2], 2)
    assert row["expected"] == pytest.approx(3 * 4 / size) and row["ratio"] == pytest.approx(2 * size / 12)
    assert probe.values["pairs"]["one + two"]["shared"] == 3  # and the one of the other matrix
    flat = probe.pictures[K][0].reshape(-1, 3)
    nobody, shared, first, second = COLOURS[:4]
    for position, colour in ((1, nobody), (0, first), (33, shared), (70, shared), (71, second), (99, second)):
        assert np.array_equal(flat[position], colour), position


def test_explain_runs_the_probes_that_an_edit_allows(model: TextToImage) -> None:
    *events, last = explain.events(model, tuned(model), [make(model, "<other>")], config=QUICK)
    names = ["touched weights", "attention", "identifier", "precision", "disentanglement"]
    assert [event.stage.removeprefix("explaining: ") for event in events] == names
    report = last.result
    assert report is not None and list(report.to_dict()["probes"]) == names  # type: ignore[attr-defined]
    wordless = replace(make(model), parts=make(model).parts[:1])
    assert list(explain(model, wordless).to_dict()["probes"]) == ["touched weights"]


def test_the_page_has_a_section_a_probe_with_its_pictures(model: TextToImage) -> None:
    view = explain_view(explain(model, half_shut(model), [make(model, "<other>")], config=QUICK))
    assert view.title == "What <mine> does" and ("model", "tiny") in view.facts
    assert [section.title for section in view.sections] == [
        "",
        "Where the words are read",
        "The edit and its word",
        "Beside other edits",
        "Which weights",
    ]
    rows = next(block for block in view.sections[2].blocks if isinstance(block, PictureRows)).rows
    assert [len(pictures) for _, pictures in rows] == [2, 2, 2, 2]
    assert "<h1>What &lt;mine&gt; does</h1>" in page(view)


def test_errors_say_what_is_missing(model: TextToImage) -> None:
    wordless = replace(make(model), parts=make(model).parts[:1])
    with pytest.raises(EditError, match="expected the new word of a subject, found none"):
        with_and_without_identifier(model, wordless, config=QUICK)
    with pytest.raises(EditError, match="expected the class noun of <mine>"):
        attention_before_after(model, replace(make(model), provenance={}), config=QUICK)
    with pytest.raises(EditError, match="expected an edit that holds values, found none; tune it first"):
        precision_ladder(model, make(model), config=QUICK)
    with pytest.raises(EditError, match="at least two edits, found 1"):
        disentanglement([make(model)])
    with pytest.raises(EditError, match="two to 4 edits, found 5"):
        disentanglement([make(model)] * 5)
    other = TextToImage(tiny_pipeline(seed=1), "other")
    with pytest.raises(EditError, match="made for base tiny"):
        attention_before_after(other, make(model), config=QUICK)


def test_a_word_that_stands_for_its_noun_is_said_alone() -> None:
    alone, before = SubjectWords("<tom>", "cat", True), SubjectWords("<tom>", "cat")
    assert alone.prompt == "a <tom> on a red background" and before.prompt == "a <tom> cat on a red background"
    assert alone.without(alone.prompt) == before.without(before.prompt) == "a cat on a red background"
    given = ["a Cat on a mat", "a <tom> asleep"]
    assert alone.captions(2, given) == (["a <tom> on a mat", "a <tom> asleep"], ["a Cat on a mat", "a cat asleep"])
    assert alone.captions(1, None) == (["a <tom>"], ["a cat"])
    owl = SubjectWords("<tom>", "owl", True), SubjectWords("<tom>", "owl")
    assert [each.captions(1, None)[1] for each in owl] == [["an owl"], ["an owl"]]
