"""``photopic train diffusion`` trains, goes on, writes samples and a model that can be read, and names what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline
from PIL import Image
from typer.testing import CliRunner

from photopic.cli.main import app
from photopic.core.errors import ModelError
from photopic.data.picture_set import PictureSet
from photopic.metrics.frechet import frechet_distance
from photopic.models.diffusion import Schedule
from photopic.models.diffusion.model import DiffusionModel
from photopic.models.diffusion.networks import unet
from photopic.models.dual_encoder import DualEncoder

SMALL = ["--size", "16", "--channels", "8", "--channels", "16", "--batch", "4", "--samples", "2", "--measured", "0"]


def train(*options: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["train", "diffusion", *options])
    return done.exit_code, done.output


def test_a_run_ends_with_a_model_and_goes_on_from_where_it_was(tmp_path: Path) -> None:
    command = [
        "emoji-scenes:12",
        *SMALL,
        *"--turning 500 --share 100 --save-every 2 --run".split(),
        str(tmp_path / "run"),
    ]
    code, said = train(*command, "--steps", "3", "-o", str(tmp_path / "model"))
    assert code == 0 and "trained on 12 pictures; loss " in said, said
    assert sorted(path.name for path in (tmp_path / "run/samples").iterdir()) == ["000002.png", "000003.png"]
    model = DiffusionModel.load(tmp_path / "model")
    assert model.process.turning == (500,) and model.process.time_map is not None
    assert model.draw([0], steps=4).shape == (1, 16, 16, 3)
    assert model.provenance["config"]["steps"] == 3 and model.provenance["method"] == "train.diffusion.diffusion"
    code, said = train(*command, "--steps", "3", "-o", str(tmp_path / "again"))  # nothing is left to do
    again = DiffusionModel.load(tmp_path / "again").network.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.network.state_dict().items())
    code, said = train(*command, "--steps", "4", "-o", str(tmp_path / "more"))
    assert code == 2 and "holds another run" in said


def test_without_a_run_folder_only_the_model_stays(tmp_path: Path) -> None:
    assert train("emoji-scenes:4", "-o", str(tmp_path / "model"), *SMALL, "--steps", "1")[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_going_on_keeps_network_and_process_and_adds_what_is_asked_for(tmp_path: Path) -> None:
    made = [*SMALL, *"--schedule cosine --prediction velocity --turning 500 --steps 2".split()]
    for seed in ("0", "1"):
        assert train("emoji-scenes:12", "-o", str(tmp_path / seed), *made, "--seed", seed)[0] == 0
    plain = DiffusionModel.load(tmp_path / "0")
    quick = "--batch 2 --samples 2 --measured 0 --steps 1 --only-below 100 --lr 0".split()
    on = ["emoji-scenes:12", *quick, "--share", "100", "--run", str(tmp_path / "run"), "--start"]
    code, said = train(*on, str(tmp_path / "0"), "-o", str(tmp_path / "on"))
    assert code == 0, said
    model = DiffusionModel.load(tmp_path / "on")
    assert model.size == 16 and model.process.prediction == "velocity" and model.process.turning == (500,)
    assert torch.equal(model.process.schedule.alphas, plain.process.schedule.alphas)
    assert torch.equal(model.process.attenuation, plain.process.attenuation)
    assert model.process.time_map is not None and plain.process.time_map is None
    before, after = plain.network.state_dict(), model.network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())  # the rate was 0
    turned = [*quick, "--turning", "400", "--decomposition", "dct", "--start", str(tmp_path / "on")]
    code, said = train("emoji-scenes:12", "-o", str(tmp_path / "turned"), *turned)
    assert code == 0, said
    both = DiffusionModel.load(tmp_path / "turned").process
    assert both.turning == (400,) and both.pyramid.kind == "dct" and torch.equal(both.time_map, model.process.time_map)
    code, said = train(*on, str(tmp_path / "1"), "-o", str(tmp_path / "other"))
    assert code == 2 and "holds another run" in said  # the folder is of a run that started from other weights


def test_an_unconditional_pipeline_of_diffusers_is_retrofitted(tmp_path: Path) -> None:
    network, schedule = unet(16, (8, 16)), Schedule.of_kind("cosine")
    DDPMPipeline(network, schedule.scheduler("DDPMScheduler", "velocity")).save_pretrained(tmp_path / "theirs")
    found = DiffusionModel.load(tmp_path / "theirs")
    assert found.size == 16 and found.process.prediction == "velocity" and not found.network.training
    assert torch.allclose(found.process.schedule.alphas, schedule.alphas, atol=1e-6)
    options = ["--batch", "2", "--samples", "2", "--measured", "0", "--steps", "1", "--share", "100"]
    code, said = train("emoji-scenes:4", "-o", str(tmp_path / "on"), *options, "--start", str(tmp_path / "theirs"))
    assert code == 0, said
    assert DiffusionModel.load(tmp_path / "on").process.time_map[99] == 80
    both = ["-o", str(tmp_path / "both"), *options, "--start", str(tmp_path / "theirs"), "--schedule", "cosine"]
    code, said = train("emoji-scenes:4", *both)
    assert code == 2 and "--schedule or --start" in said and not (tmp_path / "both").exists()
    (tmp_path / "theirs/unet/diffusion_pytorch_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="cannot be loaded"):
        DiffusionModel.load(tmp_path / "theirs")


def test_pictures_of_a_folder_and_a_budget_for_the_turning_points(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for index in range(3):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(tmp_path / f"pictures/{index}.png")
    code, said = train(
        str(tmp_path / "pictures"), "-o", str(tmp_path / "run"), *SMALL, "--budget", "0.2", "--steps", "1"
    )
    assert code == 0 and "turning points" in said and "3 pictures" in said


def test_every_checkpoint_is_judged_on_the_way(tmp_path: Path) -> None:
    options = [*SMALL[:-1], "3", "--steps", "4", "--save-every", "2"]
    run = tmp_path / "run"
    code, said = train("emoji-scenes:12", "-o", str(tmp_path / "model"), "--run", str(run), *options)
    assert code == 0, said
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    judged = {line["step"]: line["distance"] for line in lines if "distance" in line}
    assert sorted(judged) == [2, 4] and sorted(line["step"] for line in lines if "loss" in line) == [1, 2, 3, 4]
    model = DiffusionModel.load(tmp_path / "model")
    encoder = DualEncoder.load("emoji-clip-vit")
    drawn, real = model.draw(range(3), solver="dpm++", steps=15), PictureSet("emoji-scenes:12").read(16)[:3].numpy()
    wanted = frechet_distance(encoder.image_features(drawn).numpy(), encoder.image_features(real).numpy())
    assert judged[4] == pytest.approx(wanted, rel=1e-6) and f"distance {wanted:.4f} from 3 pictures" in said
    before = (run / "log.jsonl").read_text()
    (run / "log.jsonl").write_text(before + '{"elapsed_s": 1.5, "st')  # a kill in the middle of a line
    code, again = train("emoji-scenes:12", "-o", str(tmp_path / "again"), "--run", str(run), *options)
    assert code == 0 and f"distance {wanted:.4f}" in again and (run / "log.jsonl").read_text() == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["emoji-scenes:many"], "many"),
        (["emoji-scenes:4", "--turning", "600", "--turning", "300"], "rising"),
        (["emoji-scenes:4", "--turning", "300", "--budget", "0.1"], "leave one out"),
        (["emoji-scenes:4", "--lowest", "0.1"], "add --turning"),
        (["emoji-scenes:4", "--decomposition", "dct"], "add --turning"),
        (["emoji-scenes:4", "--intervals", "3"], "add --share"),
        (["emoji-scenes:4", "--size", "18"], "a side that"),
        (["emoji-scenes:4", "--share", "5", "--intervals", "9"], "intervals"),
        (["no-such-folder"], "no-such-folder"),
    ],
)
def test_bad_input_is_one_line(options: list[str], words: str, tmp_path: Path) -> None:
    settings = [*(SMALL[2:] if "--size" in options else SMALL), *options[1:]]
    if "--size" in options:
        settings += ["--turning", "300"]
    code, said = train(options[0], "-o", str(tmp_path / "x"), *settings, "--steps", "1")
    assert code == 2 and words in said, said
    assert not list(tmp_path.iterdir())


def test_a_start_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    code, said = train("emoji-scenes:4", "-o", str(tmp_path / "x"), "--start", "nowhere", "--steps", "1")
    assert code == 2 and "nowhere: no such model" in said, said


def test_the_command_line_is_a_module_too_as_accelerate_starts_it() -> None:
    done = subprocess.run([sys.executable, "-m", "photopic", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("photopic")
