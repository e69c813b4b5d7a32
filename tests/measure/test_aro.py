"""ARO of real tiny models: guessing, ties, a stranger's folder, and shares against the scores they are of."""

from __future__ import annotations

from pathlib import Path

from photopic.core.edits import DenseDelta, Edit
from photopic.data.aro import aro_case
from photopic.measure.aro import AroConfig, aro
from photopic.models.dual_encoder import DualEncoder
from tests.tiny_encoders import saved_dual_encoder, tiny_dual_encoder

QUICK = AroConfig(pairs=40)


def test_captions_that_a_model_reads_alike_are_not_found() -> None:
    model = tiny_dual_encoder()
    model.network.text_projection.weight.zero_()  # every text at the origin
    assert set(aro(model, config=QUICK).values.values()) == {0.0}


def test_the_share_is_that_of_pictures_whose_caption_is_the_nearest() -> None:
    model, config = tiny_dual_encoder(), AroConfig(pairs=30, parts=("order",), seed=3)
    report = aro(model, config=config)
    right = []
    for number in range(30):
        case = aro_case("order", (3, number))
        scores = model.text_features(case.captions) @ model.image_features([case.image])[0]
        right.append(int(scores.argmax()) == 0)
    assert report.values["order"] == sum(right) / 30 == report.rows[0]["share"] and 0 < sum(right) < 30
    alone = report.rows[1:]  # each shuffle alone against the caption is easier than all of them
    assert len(alone) == 4 and all(row["share"] >= report.values["order"] for row in alone)
    assert [row["cases"] for row in alone] == [30] * 4


def test_a_transformers_folder_is_asked_and_other_pictures_are_those_of_the_case_before(tmp_path: Path) -> None:
    report = aro(DualEncoder.load(str(saved_dual_encoder(tmp_path))), config=AroConfig(pairs=8, parts=("relation",)))
    assert report.rows == aro(tiny_dual_encoder(), config=AroConfig(pairs=8, parts=("relation",))).rows
    cases = [aro_case("relation", (0, number)) for number in range(8)]
    model, right = tiny_dual_encoder(), 0
    for before, case in zip([cases[-1], *cases[:-1]], cases, strict=True):
        true, false = model.text_features(case.captions) @ model.image_features([before.image])[0]
        right += bool(true > false)
    assert report.rows[0]["other_picture"] == right / 8
    assert report.rows[0]["low"] < report.values["relation"] < report.rows[0]["high"] or right in (0, 8)


def test_an_edit_in_force_is_measured() -> None:
    model, name = tiny_dual_encoder(), "network.text_projection.weight"
    before = aro(model, config=QUICK)
    edit = Edit((DenseDelta({name: -2 * model.parameters(name)[name]}),), model.fingerprint(name))
    with model.edits.applied(edit):  # every caption is as far as it was near
        assert aro(model, config=QUICK).values["relation"] == 1 - before.values["relation"]
