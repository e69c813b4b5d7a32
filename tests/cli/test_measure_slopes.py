"""``photopic measure slopes`` on trained folders and a pipeline: a page, JSON, and one line for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import DDPMPipeline

from photopic.core.view import Lines
from photopic.data.pixels import from_pixels
from photopic.measure.denoiser import probed
from photopic.measure.slopes import timesteps_of
from photopic.models.diffusion import Diffusion, Schedule
from photopic.models.diffusion.dimensionality import dimensionality_varying
from photopic.models.diffusion.model import DiffusionModel
from photopic.models.diffusion.networks import unet
from photopic.models.diffusion.shared_timesteps import SharedTimestepsConfig, shared, slopes
from photopic.report.axes import Axes
from tests.cli.conftest import refusal, run

QUICK = ("emoji-scenes:2", "--pictures", 2, "--every", 24, "--points", 3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with random weights and shared timesteps."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    process = shared(Diffusion(Schedule.of_kind("linear")), SharedTimestepsConfig(20, 2))
    DiffusionModel(unet(16, (8, 16)), process, 16).save(folder / "model")
    return folder


def test_a_page_and_numbers_where_timesteps_share(trained: Path, tmp_path: Path) -> None:
    done = run("measure", "slopes", trained, *QUICK, "-o", tmp_path / "page.html", "--json")
    report = json.loads(done.stdout)
    found = {row["timestep"]: row["K"] for row in report["rows"]}
    assert [found[t] for t in range(20) if t not in (9, 19)] == [0.0] * 18 and found[9] > 0 and found[19] > 0
    assert report["values"]["flat"] == 18 and report["provenance"]["model"] == "mine"
    page = (tmp_path / "page.html").read_text()
    assert "How steep mine is in time" in page and "18 of" in page
    assert "overwrite" in refusal("measure", "slopes", trained, *QUICK, "-o", tmp_path / "page.html")


def test_what_is_probed_is_the_model_on_its_own_pictures(trained: Path) -> None:
    found = probed(trained / "model")
    model = DiffusionModel.load(trained / "model")
    images = torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8)
    clean = found.clean(images)
    assert found.name == "mine" and torch.equal(clean, from_pixels(images))
    own = [each.value for each in slopes(model.process, model, clean, [9, 50])]
    assert [each.value for each in slopes(found.process, found.denoiser, clean, [9, 50])] == own


def test_a_text_to_image_model_is_asked_in_its_latents_at_its_prompt() -> None:
    images = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    plain, prompted = probed("emoji-diffusion"), probed("emoji-diffusion", prompt="a cat on a red background")
    clean = plain.clean(images)
    assert clean.shape[-1] < 64 and plain.process.timesteps == 1000
    values = [next(slopes(each.process, each.denoiser, clean, [300])).value for each in (plain, prompted)]
    assert values[0] > 0 and values[0] != values[1]


def test_an_unconditional_pipeline_of_diffusers_is_probed(tmp_path: Path) -> None:
    network = unet(16, (8, 16))
    DDPMPipeline(network, Schedule.of_kind("linear").scheduler("DDPMScheduler")).save_pretrained(tmp_path / "theirs")
    found = probed(tmp_path / "theirs")
    clean = found.clean(torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8))
    model = DiffusionModel(network.eval(), Diffusion(Schedule.of_kind("linear")), 16)
    own = next(slopes(model.process, model, clean, [40])).value
    assert next(slopes(found.process, found.denoiser, clean, [40])).value == pytest.approx(own, rel=1e-4)


def test_no_pair_crosses_a_turning_point() -> None:
    process = dimensionality_varying(Schedule.of_kind("linear"))
    found = timesteps_of(process, 302, 700, 1)
    assert 299 in found and 300 not in found and 301 in found and 600 not in found and found[-1] == 998


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("emoji-scenes:none",), "none"),
        (("emoji-scenes:0",), "'0'"),
        (("emoji-scenes:2", "--apart", 1000), "1000"),
        (("emoji-scenes:2", "--prompt", "a cat"), "reads no text"),
        (("nowhere",), "nowhere"),
    ],
)
def test_bad_input_is_one_line(trained: Path, options: tuple[object, ...], words: str, tmp_path: Path) -> None:
    assert words in refusal("measure", "slopes", trained, *options, "-o", tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_ticks_of_a_short_logarithmic_axis_are_round() -> None:
    def texts(*values: float) -> list[str]:
        return [text for _, text in Axes(Lines([("", [(0.0, each) for each in values])], log_y=True)).y_ticks()]

    assert texts(0.0413297, 0.379752) == ["0.05", "0.1", "0.2"]
    assert texts(3.14159, 3.9876) == ["3.1", "4"]
    assert texts(0.5, 2000.0) == ["1", "10", "100", "1000"]
