"""``photopic generate``: numbered pictures that carry their settings; nothing overwritten; bad input is one line."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import photopic
from photopic.core.errors import DataError
from photopic.data.folder import load_mask, load_picture
from photopic.data.pictures import contact_sheet, png_bytes, read_settings
from photopic.models.text_to_image.schedulers import SCHEDULERS
from tests.cli.conftest import refusal, run
from tests.tiny import IMAGE_SIZE

PROMPT = "a <mine> bear on a red background"


def draw(model: Path, out: Path, *more: object, prompt: str = PROMPT, count: int = 3) -> str:
    return run("generate", prompt, "-n", count, "-o", out, "--steps", 2, "--model", model, *more).stdout


def pixels(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def test_writes_numbered_pictures_with_their_settings_and_a_sheet(tmp_path: Path, model: Path, edit: Path) -> None:
    said = draw(model, tmp_path, "--with", edit, "--seed", 7)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "0001.png", "0002.png", "0003.png", "sheet-0001-0003.png"
    ]  # fmt: skip
    assert "0001.png to 0003.png" in said
    settings = read_settings(tmp_path / "0002.png")
    assert settings["prompt"] == PROMPT and settings["seed"] == 8 and settings["steps"] == 2
    assert settings["model"] == "tiny" and settings["edits"][0]["file"] == "bear.edit"
    assert settings["edits"][0]["weight"] == 1 and len(settings["edits"][0]["sha256"]) == 64
    assert pixels(tmp_path / "0001.png").shape == (IMAGE_SIZE, IMAGE_SIZE, 3)


def test_numbers_go_on_and_nothing_is_overwritten(tmp_path: Path, model: Path) -> None:
    draw(model, tmp_path, prompt="a bear", count=2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    draw(model, tmp_path, prompt="a cat", count=1)
    assert (tmp_path / "0003.png").exists()
    assert all((tmp_path / name).read_bytes() == content for name, content in before.items())


def test_the_edit_matters_and_weight_zero_is_the_base(tmp_path: Path, model: Path, edit: Path) -> None:
    draw(model, tmp_path / "with", "--with", edit, count=1)
    draw(model, tmp_path / "half", "--with", edit, "--weight", 0.5, count=1)
    draw(model, tmp_path / "again", "--with", edit, count=1)
    first, half, again = (pixels(tmp_path / name / "0001.png") for name in ("with", "half", "again"))
    assert (first == again).all() and (first != half).any()
    handle = photopic.load(str(model), device="cpu")
    from photopic.core.edits.file import load

    with handle.edits.applied(load(edit)):
        assert (handle.generate([PROMPT], seeds=[0], steps=2)[0] == first).all()


def test_a_picture_does_not_depend_on_the_batch(tmp_path: Path, model: Path) -> None:
    draw(model, tmp_path / "one", "--batch", 1, prompt="a bear")
    draw(model, tmp_path / "all", prompt="a bear")
    for name in ("0001.png", "0003.png"):
        difference = pixels(tmp_path / "one" / name).astype(int) - pixels(tmp_path / "all" / name)
        assert abs(difference).max() <= 1


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers with NumPy 2
def test_how_it_is_drawn_reaches_the_model_and_the_settings(tmp_path: Path, model: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8)
    mask = np.zeros_like(picture)
    mask[20:30, 30:50] = 255
    for name, content in (("photo.png", picture), ("mask.png", mask), ("wide.png", mask[:20])):
        (tmp_path / name).write_bytes(png_bytes(content))
    named = ("--negative", "a dog", "--scheduler", "euler", "--image", tmp_path / "photo.png", "--strength", 0.9)
    draw(model, tmp_path / "out", *named, "--mask", tmp_path / "mask.png", prompt="a bear", count=1)
    handle = photopic.load(str(model), device="cpu")
    photo = load_picture(tmp_path / "photo.png", IMAGE_SIZE)
    region = load_mask(tmp_path / "mask.png", IMAGE_SIZE, of=tmp_path / "photo.png")
    assert region.any() and not region.all()
    expected = handle.generate(
        ["a bear"],
        seeds=[0],
        steps=2,
        negative_prompt="a dog",
        scheduler="euler",
        image=photo,
        strength=0.9,
        mask=region,
    )
    assert (pixels(tmp_path / "out/0001.png") == expected[0]).all()
    settings = read_settings(tmp_path / "out/0001.png")
    assert settings["negative"] == "a dog" and settings["scheduler"] == "euler" and settings["strength"] == 0.9
    assert settings["image"]["file"] == "photo.png" and len(settings["mask"]["sha256"]) == 64
    draw(model, tmp_path / "plain", prompt="a bear", count=1)
    assert not {"negative", "scheduler", "image", "mask", "strength"} & set(read_settings(tmp_path / "plain/0001.png"))

    def bad(*more: object) -> str:
        line = refusal("generate", "a bear", "-o", tmp_path / "bad", "--steps", 2, "--model", model, *more)
        assert not (tmp_path / "bad").exists()
        return line

    assert "add --image" in bad("--mask", tmp_path / "mask.png")
    assert "wide.png: expected a mask of 80 x 48" in bad(*named, "--mask", tmp_path / "wide.png")
    assert "absent.png" in bad("--image", tmp_path / "absent.png")
    assert "expected one of ddim, ddpm" in bad("--scheduler", "x")
    assert "guidance above 1" in bad("--negative", "a dog", "--guidance", 1)


def test_the_help_names_every_sampler() -> None:
    said = {word.strip(",;.") for word in run("generate", "--help").stdout.split()}
    assert set(SCHEDULERS) <= said


def test_prompts_and_edits_that_do_not_fit_are_refused(tmp_path: Path, model: Path, edit: Path) -> None:
    def bad(prompt: str, *more: object) -> str:
        line = refusal("generate", prompt, "-o", tmp_path / "out", "--steps", 2, "--model", model, *more)
        assert not (tmp_path / "out").exists()
        return line

    line = bad("a bear on a red background", "--with", edit)
    assert "bear.edit" in line and "<mine>" in line and "'<mine> bear'" in line
    assert "--with" in bad("a <mine> bear")
    assert "another --token" in bad(PROMPT, "--with", edit, "--with", edit)
    assert "--weight" in bad(PROMPT, "--with", edit, "--weight", 1, "--weight", 0.5)
    assert "absent.edit" in bad(PROMPT, "--with", tmp_path / "absent.edit")
    (tmp_path / "x.edit").write_bytes(b"nonsense")
    assert "x.edit" in bad(PROMPT, "--with", tmp_path / "x.edit")


@pytest.mark.filterwarnings("default")
def test_what_is_cut_from_a_prompt_is_a_note_of_one_line(tmp_path: Path, model: Path) -> None:
    prompt = " ".join(["a bear on a red background"] * 6)
    said = run("generate", prompt, "-o", tmp_path, "-n", 1, "--steps", 1, "--model", model).stderr
    assert said.count("note: ") == 1 and "UserWarning" not in said and ".py" not in said


def test_an_edit_of_another_model_is_refused_with_both_names(tmp_path: Path, edit: Path) -> None:
    from tests.tiny import tiny_pipeline

    tiny_pipeline(seed=5).save_pretrained(tmp_path / "other")
    arguments = ("generate", PROMPT, "-o", tmp_path / "out", "-n", 1, "--steps", 1, "--model", tmp_path / "other")
    line = refusal(*arguments, "--with", edit)
    assert "tiny" in line and "other" in line
    said = run(*arguments, "--with", edit, "--force").stderr
    assert "note: " in said and "bear.edit was made for another base than other" in said
    for name in ("0001.png", "sheet-0001-0001.png"):
        assert read_settings(tmp_path / "out" / name)["edits"][0]["forced"]


def test_force_marks_nothing_that_needed_no_force(tmp_path: Path, model: Path, edit: Path) -> None:
    said = run(
        *("generate", PROMPT, "-o", tmp_path, "-n", 1, "--steps", 1, "--model", model, "--with", edit, "--force")
    )
    assert "note" not in said.stderr
    assert not read_settings(tmp_path / "0001.png")["edits"][0]["forced"]


def test_a_full_disk_is_one_line_and_leaves_no_half_written_picture(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    line = refusal("generate", "a bear", "-o", tmp_path / "out", "-n", 1, "--steps", 1, "--model", model)
    assert "no space left" in line
    assert not list((tmp_path / "out").iterdir())


def test_black_pictures_are_never_written(tmp_path: Path) -> None:
    from tests.tiny import tiny_pipeline

    pipeline = tiny_pipeline()
    pipeline.vae.decoder.conv_in.weight.data[0, 0, 0, 0] = float("nan")
    pipeline.save_pretrained(tmp_path / "model")
    given = ("generate", "a bear", "-o", tmp_path / "out", "-n", 1, "--steps", 2, "--model", tmp_path / "model")
    assert "vae: the decoded images: expected finite numbers" in refusal(*given)
    assert "--guidance" in run(*given, "--guidance", "nan", status=2).stderr
    assert "DDIMScheduler cannot do 1000" in refusal(*given[:-4], "--steps", 1000, *given[-2:])
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file_or_a_wrong_device_is_refused(tmp_path: Path, model: Path) -> None:
    (tmp_path / "out").write_text("hello")
    assert "out" in refusal("generate", "a bear", "-o", tmp_path / "out", "-n", 1, "--steps", 1, "--model", model)
    assert "no-such-device" in refusal("generate", "a bear", "--model", model, "--device", "no-such-device")


def test_settings_survive_and_foreign_pictures_are_refused(tmp_path: Path) -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    (tmp_path / "a.png").write_bytes(png_bytes(image, {"prompt": "ein Bär"}))
    assert read_settings(tmp_path / "a.png") == {"prompt": "ein Bär"}
    assert png_bytes(image, {"b": 1, "a": 2}) == png_bytes(image, {"a": 2, "b": 1})
    (tmp_path / "b.png").write_bytes(png_bytes(image))
    for name in ("b.png", "absent.png"):
        with pytest.raises(DataError, match=name):
            read_settings(tmp_path / name)


def test_a_contact_sheet_holds_every_picture_in_order() -> None:
    images = [np.full((4, 4, 3), value, np.uint8) for value in range(5)]
    sheet = contact_sheet(images, columns=3, scale=2, gap=1)
    assert sheet.shape == (2 * 9 + 1, 3 * 9 + 1, 3)
    assert [int(sheet[1 + 9 * (i // 3), 1 + 9 * (i % 3), 0]) for i in range(5)] == list(range(5))
    assert (sheet[-3, -3] == 255).all() and (sheet[0] == 255).all()
