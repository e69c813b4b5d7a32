"""Drawing under conditions: two sets and their weights, pictures walked back, tasks as data, the words of the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from photopic.calls import conditions as calls
from photopic.calls.drawing import Asked, draw_events, prepare
from photopic.core.edits import Edit, ZeroedWeights
from photopic.core.errors import DataError, ModelError, PhotopicError
from photopic.core.sampling import Control
from photopic.data.conditioned_pictures import training_scene
from photopic.data.conditions import Conditions
from photopic.data.extraction import Embedded, from_scene
from photopic.data.layout import Layout, Region
from photopic.generate.conditions import TASKS, ComposedConditions, of_task, read_words
from photopic.generate.guidance.layout_guidance import LayoutGuidance
from photopic.models.text_to_image.conditional import ConditionalTextToImage
from photopic.models.text_to_image.generate_config import GenerateConfig
from tests.method_cases import WEIGHT
from tests.tiny import tiny_pipeline
from tests.tiny_conditional import tiny_conditional
from tests.tiny_encoders import tiny_dual_encoder


def everything(seed: int = 0) -> Conditions:
    vector = np.random.default_rng(seed).normal(size=16)
    embedded = Embedded((vector / np.linalg.norm(vector)).astype(np.float16), tiny_dual_encoder().digest())
    return from_scene(training_scene((seed,), 32), embedded=embedded)


@pytest.fixture(scope="module")
def model() -> ConditionalTextToImage:
    return tiny_conditional()


def drawn(
    model: ConditionalTextToImage, *controls: ComposedConditions, guidance: float = 1.0, count: int = 2
) -> np.ndarray:
    """Two pictures, the prompt empty, so that the two halves of guidance read the same words."""
    return model.generate(
        "", seeds=range(count), steps=3, guidance=guidance, scheduler="ddim", controls=list(controls), batch=count
    )


def test_an_empty_set_draws_what_the_base_draws(model: ConditionalTextToImage) -> None:
    empty = ComposedConditions([Conditions(32, {})])
    assert (drawn(model, empty) == drawn(model)).all()
    assert not (drawn(model, ComposedConditions([everything()])) == drawn(model)).all()


def test_guidance_weighs_two_sets(model: ConditionalTextToImage, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = everything().only(["palette", "sketch"]), everything(1).only(["intensity"])
    wanted, away, both = drawn(model, ComposedConditions([one])), drawn(model, ComposedConditions([other])), []
    for weight in (1.0, 0.0, 2.5):
        monkeypatch.setattr(  # e = w e(wanted) + (1 - w) e(away), for weights that the option does not let through
            ComposedConditions,
            "guidance",
            lambda self, c, u, scale, step, weight=weight: weight * c + (1 - weight) * u,
        )
        both.append(drawn(model, ComposedConditions([one], [other]), guidance=2.0))
    monkeypatch.undo()
    assert np.abs(both[0].astype(int) - wanted).max() <= 1 and np.abs(both[1].astype(int) - away).max() <= 1
    assert np.abs(drawn(model, ComposedConditions([one], [other]), guidance=2.5).astype(int) - both[2]).max() <= 1
    with pytest.warns(UserWarning, match="are the same, so guidance has no effect; leave one out"):
        alike = [drawn(model, ComposedConditions([one], [one]), guidance=each).astype(int) for each in (1.5, 6.0)]
    assert np.abs(alike[0] - alike[1]).max() <= 1  # both sets the same: whatever the weight


def test_each_picture_may_have_its_own_set_and_numbers_must_fit(model: ConditionalTextToImage) -> None:
    sets = [everything(), everything(1)]
    both = drawn(model, ComposedConditions(sets))
    first = drawn(model, ComposedConditions(sets[:1]), count=1)
    assert np.abs(both[0].astype(int) - first[0]).max() <= 1
    with pytest.raises(ModelError, match="found 2"):
        drawn(model, ComposedConditions(sets), count=3)
    with pytest.raises(DataError, match="one set or more"):
        ComposedConditions([])
    with pytest.raises(ModelError, match="reads no conditions; load emoji-composer"):
        from photopic.models.text_to_image.handle import TextToImage

        TextToImage(tiny_pipeline(), "tiny").generate("", seeds=[0], steps=1, controls=[ComposedConditions(sets[:1])])


def test_conditions_a_layout_and_an_edit_act_together(model: ConditionalTextToImage) -> None:
    layout = LayoutGuidance(Layout((Region("bear", (0.0, 0.0, 0.5, 1.0)),)))
    shut = Edit((ZeroedWeights({WEIGHT: torch.arange(400)}),), model.fingerprint(WEIGHT))
    given = ComposedConditions([everything().only(["palette", "embedding", "sketch"])])

    def pictures(controls: list[Control]) -> np.ndarray:
        return model.generate("a bear", seeds=[0], steps=3, guidance=2.0, scheduler="ddim", controls=controls)

    with model.edits.applied(shut):
        both, swapped = pictures([layout, given]), pictures([given, layout])
        assert (both == swapped).all()
        assert not (both == pictures([layout])).all() and not (both == pictures([given])).all()
    assert not (both == pictures([layout, given])).all()


def test_a_picture_walked_back_comes_again_the_better_the_more_steps_and_refinements() -> None:
    scene = training_scene((5,))
    model, image, own = (
        ConditionalTextToImage.load("emoji-composer", device="cpu"),
        scene.image[None],
        from_scene(scene),
    )

    def error(steps: int, refinements: int) -> float:
        control = ComposedConditions([own], of=image, own=[own], refinements=refinements)
        with control.applied(model):
            clean = control.clean
        seen: dict[str, torch.Tensor] = {}
        control.end = lambda latents: seen.setdefault("latents", latents)  # type: ignore[method-assign]
        model.generate("", seeds=[0], steps=steps, guidance=1.0, scheduler="ddim", controls=[control])
        return float((seen["latents"] - clean).norm() / clean.norm())

    assert error(16, 0) < error(4, 0) and error(4, 2) < error(4, 0) < 1


def test_tasks_are_data(model: ConditionalTextToImage) -> None:
    one, other = everything(), everything(1)
    assert of_task(TASKS["palette-colouring"], one, other).names == ("palette", "intensity")
    style = of_task(TASKS["style-transfer"], one, other)
    assert (style.values["embedding"] == other.values["embedding"]).all()
    assert (style.values["sketch"] == one.values["sketch"]).all() and "palette" not in style.values
    for share, near in ((0.0, one), (1.0, other)):
        mixed = of_task(TASKS["interpolation"], one, other, share)
        assert mixed.values["palette"] == pytest.approx(near.values["palette"])
        assert mixed.values["embedding"].astype(float) == pytest.approx(
            near.values["embedding"].astype(float), abs=2e-3
        )
    half = of_task(TASKS["interpolation"], one, other).values["embedding"].astype(float)
    assert np.linalg.norm(half) == pytest.approx(1, abs=2e-3)  # on the great circle
    with pytest.raises(DataError, match="add --other"):
        of_task(TASKS["try-on"], one)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for index, name in enumerate(("a", "b")):
        Image.fromarray(training_scene((index,), 32).image).save(tmp_path / f"{name}.png")
    (tmp_path / "a.txt").write_text("a bear")
    mask = np.zeros((32, 32), np.uint8)
    mask[:, 16:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    monkeypatch.setattr(calls.DualEncoder, "load", lambda name: tiny_dual_encoder())
    return tmp_path


def asked(folder: Path, **options: object) -> Asked:
    config = GenerateConfig(steps=2, guidance=2.0, scheduler="ddim")
    return Asked(prompt="", count=2, config=config, **options)  # type: ignore[arg-type]


def test_conditions_of_files_are_drawn_with_and_told(model: ConditionalTextToImage, folder: Path) -> None:
    words = [f"palette={folder / 'b.png'}", f"sketch={folder / 'a.png'}", f"caption={folder / 'a.png'}"]
    prepared = prepare(asked(folder, conditions=words, minus=[f"intensity={folder / 'b.png'}"]))
    assert prepared.asked.prompt == "a bear"
    results = [event.result for event in draw_events(prepared, model) if event.result is not None]
    said = results[0].settings["conditions"]
    assert said["wanted"]["palette"]["file"] == "b.png" and list(said["away"]) == ["intensity"]
    lines = prepared.kept(list(results[0].images))
    assert [line.split(":")[0].strip() for line in lines] == ["palette", "sketch"]


@pytest.mark.parametrize("task", TASKS)
def test_every_task_draws(model: ConditionalTextToImage, folder: Path, task: str) -> None:
    of = TASKS[task]
    options = {"other": folder / "b.png"} if of.second else {}
    options |= {"mask": folder / "mask.png"} if of.region else {}
    prepared = prepare(asked(folder, task=task, image=folder / "a.png", **options))
    (images,) = [event.result.images for event in draw_events(prepared, model) if event.result is not None]
    assert images.shape == (2, 32, 32, 3)
    if of.region:  # outside it is the picture, to the bit
        assert (images[:, :, :16] == training_scene((0,), 32).image[:, :16]).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"conditions": ["palette"]}, "found no file; write NAME=FILE"),
        ({"conditions": ["weather=a.png"]}, "expected one of caption"),
        ({"conditions": ["palette=a.png", "palette=b.png"]}, "expected one file"),
        ({"conditions": ["palette=none.png"]}, "expected a file"),
        ({"minus": ["palette=a.png"]}, "expected --condition or --task"),
        ({"task": "dance", "image": "a.png"}, "expected one of variation"),
        ({"task": "variation"}, "add --image"),
        ({"task": "try-on", "image": "a.png", "other": "b.png"}, "add --mask"),
        ({"task": "style-transfer", "image": "a.png"}, "add --other"),
        ({"task": "variation", "image": "a.png", "other": "b.png"}, "leave it out"),
        ({"task": "variation", "image": "a.png", "share": 0.5}, "--share: is for"),
        ({"conditions": ["palette=a.png"], "minus": ["caption=a.png"]}, "--negative"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_model_takes_time(
    folder: Path, options: dict[str, object], said: str
) -> None:
    paths = {name: folder / str(value) for name, value in options.items() if name in ("image", "other")}
    words = {
        name: [each.replace("=", f"={folder}/") if "=" in each else each for each in value]
        for name, value in options.items()
        if isinstance(value, list)
    }
    with pytest.raises(PhotopicError, match=said):
        prepare(asked(folder, **{**options, **paths, **words}))


def test_a_model_that_reads_none_is_refused(folder: Path) -> None:
    from photopic.models.text_to_image.handle import TextToImage

    prepared = prepare(asked(folder, conditions=[f"palette={folder / 'a.png'}"]))
    with pytest.raises(PhotopicError, match="use --model emoji-composer"):
        list(draw_events(prepared, TextToImage(tiny_pipeline(), "tiny")))
    assert read_words(["depth=x"]) == {"depth": Path("x")}
