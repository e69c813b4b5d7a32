"""A killed run ends with the weights of one that was not, two processes do what one does, and bad input stops without loss."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel

from photopic.cli import main
from photopic.core.errors import DataError, ModelError
from photopic.core.runs import Run, RunMismatchError
from photopic.data.pixels import from_pixels, to_pixels
from photopic.models.diffusion import Diffusion, Pyramid, Schedule
from photopic.models.diffusion.dimensionality import DimensionalityConfig, dimensionality_varying
from photopic.models.diffusion.loading import read_process
from photopic.models.diffusion.model import DiffusionModel
from photopic.models.diffusion.shared_timesteps import SharedTimestepsConfig, shared
from photopic.train.diffusion.training import TrainingConfig, TrainingError, train_events
from tests.processes import be_one_of_two, both_at_work, started

LINEAR = Schedule.of_kind("linear", 100)
PLAIN = Diffusion(LINEAR)
FADING = dimensionality_varying(LINEAR, DimensionalityConfig(turning=(50,)))
CONFIG = TrainingConfig(steps=6, batch=4, learning_rate=1e-3, warmup=2)
IMAGES = torch.randint(0, 256, (10, 16, 16, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def network() -> UNet2DModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UNet2DModel(
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D",) * 2,
            up_block_types=("UpBlock2D",) * 2,
            layers_per_block=1,
            norm_num_groups=4,
            add_attention=False,
        )


def trained(folder: Path, process: Diffusion = PLAIN, config: TrainingConfig = CONFIG, **options) -> dict:
    list(train_events(network(), process, IMAGES, folder, config, **options))
    found = Run(folder).load()
    assert found is not None
    return found[0]


def close(one: dict, other: dict) -> bool:
    """To a tenth of one of Adam's steps, which a sum in another order moves an entry by where its gradient is nearly nothing."""
    return all(torch.allclose(one[name].float(), value.float(), rtol=1e-3, atol=1e-4) for name, value in other.items())


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def train_and_tell(connection: Connection, folder: Path, config: TrainingConfig, save_every: int) -> None:
    """In a process of its own: the number of each step, as soon as it is done."""
    for event in train_events(network(), FADING, IMAGES, folder, config, save_every=save_every):
        connection.send(event.done)


def train_as_one_of_two(connection: Connection, rank: int, folder: Path) -> None:
    """In a process of its own."""
    be_one_of_two(rank, connection.recv())
    train_and_tell(connection, folder, replace(CONFIG, steps=4), 4)
    torch.distributed.destroy_process_group()


def command_as_one_of_two(connection: Connection, rank: int, folder: Path) -> None:
    """In a process of its own: the status of the command."""
    be_one_of_two(rank, connection.recv())
    typed = "train diffusion emoji-scenes:4 --size 16 --channels 8 --steps 2 --batch 4 --measured 0 --samples 1 -o"
    try:
        main.app([*typed.split(), str(folder)])
    except SystemExit as left:
        connection.send(left.code)
    torch.distributed.destroy_process_group()


def test_a_run_that_is_killed_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", FADING, replace(CONFIG, steps=12))
    victim, connection = started(train_and_tell, tmp_path / "killed", replace(CONFIG, steps=12), 2)
    after = 3 + int(time.time()) % 6  # any step will do
    while connection.recv() < after:
        pass
    victim.kill(), victim.join(60)
    left = Run(tmp_path / "killed").load()
    assert left is not None and 2 <= left[1]["step"] < 12
    again = trained(tmp_path / "killed", FADING, replace(CONFIG, steps=12), save_every=2)
    assert same(whole, again)
    steps = [
        line.split('"step": ')[1].split(",")[0] for line in (tmp_path / "killed/log.jsonl").read_text().splitlines()
    ]
    assert steps == [str(step) for step in range(1, 13)]


def test_two_processes_compute_what_one_does(tmp_path: Path) -> None:
    alone = trained(tmp_path / "alone", FADING, replace(CONFIG, steps=4))
    both = both_at_work(train_as_one_of_two, tmp_path / "two")
    found = Run(tmp_path / "two").load()
    assert found is not None and found[1]["step"] == 4
    for connection in both:  # each took every step, and there were two of them
        assert [connection.recv() for _ in range(4)] == [1, 2, 3, 4]
    assert close(found[0], alone)


def test_the_command_in_two_processes_writes_one_model(tmp_path: Path) -> None:
    assert [each.recv() for each in both_at_work(command_as_one_of_two, tmp_path / "two")] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["two"]  # no run folder is left, and no second model
    assert DiffusionModel.load(tmp_path / "two").provenance["pictures"] == 4


def test_parts_of_a_batch_add_up_to_the_batch(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", FADING)
    parts = trained(tmp_path / "parts", FADING, replace(CONFIG, accumulation=2))
    assert close(parts, whole)
    assert not close(trained(tmp_path / "fewer", FADING, replace(CONFIG, batch=2)), whole)


def test_nothing_dropped_and_nothing_shared_train_bit_equal_to_the_plain_process(tmp_path: Path) -> None:
    plain = trained(tmp_path / "plain")
    none = dimensionality_varying(LINEAR, DimensionalityConfig(turning=()))
    assert same(plain, trained(tmp_path / "none", none))
    assert same(plain, trained(tmp_path / "all", shared(PLAIN, SharedTimestepsConfig(20, 20))))
    assert not same(plain, trained(tmp_path / "shared", shared(PLAIN, SharedTimestepsConfig(50, 2))))


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    config = replace(CONFIG, steps=60, batch=8, learning_rate=3e-3)
    losses = [event.numbers["loss"] for event in train_events(network(), FADING, IMAGES, tmp_path, config)]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    class Breaking(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))
            self.calls = 0

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return x * self.scale * (float("nan") if self.calls > 4 else 1)

    with pytest.raises(
        TrainingError,
        match=r"at step 5 the loss is nan .*\(4 pictures, at timesteps \d+, .*checkpoint of step 4 is kept",
    ):
        list(train_events(Breaking(), PLAIN, IMAGES, tmp_path, CONFIG, save_every=2))
    found = Run(tmp_path).load()
    assert found is not None and found[1]["step"] == 4 and all(each.isfinite().all() for each in found[0].values())


@pytest.mark.parametrize("changed", ["process", "network", "pictures", "learning_rate"])
def test_a_folder_of_another_run_is_refused_and_says_what_differs(changed: str, tmp_path: Path) -> None:
    trained(tmp_path)
    process, images, config = PLAIN, IMAGES, CONFIG
    net: torch.nn.Module = network()
    if changed == "process":
        process = shared(PLAIN, SharedTimestepsConfig(50, 2))
    elif changed == "network":
        net = UNet2DModel.from_config(network().config, block_out_channels=(8, 8))
    elif changed == "pictures":
        images = IMAGES.flip(0)
    else:
        config = replace(CONFIG, learning_rate=2e-3)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    with pytest.raises(RunMismatchError, match=changed):
        list(train_events(net, process, images, tmp_path, config))
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


def test_bad_settings_are_named(tmp_path: Path) -> None:
    for make, words in (
        (lambda: TrainingConfig(steps=0), "steps"),
        (lambda: TrainingConfig(ema=1.0), "ema"),
        (lambda: trained(tmp_path, config=replace(CONFIG, accumulation=3)), "multiple of 3"),
        (lambda: trained(tmp_path, config=replace(CONFIG, timesteps=(50, 200))), "50 to 200"),
        (lambda: trained(tmp_path, Diffusion(LINEAR, pyramid=Pyramid(5), turning=(1, 2, 3, 4, 5))), "16 x 16"),
    ):
        with pytest.raises((DataError, ModelError), match=words):
            make()
    assert not (tmp_path / "config.json").exists()


def test_a_model_is_read_as_it_was_saved_and_a_damaged_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = shared(FADING, SharedTimestepsConfig(20, 4))
    model = DiffusionModel(network().eval(), process, 16)
    model.save(tmp_path / "m")
    said: list[logging.LogRecord] = []
    watching = logging.Handler()
    monkeypatch.setattr(watching, "emit", said.append)
    logging.getLogger("diffusers").addHandler(watching)
    again = DiffusionModel.load(tmp_path / "m")
    logging.getLogger("diffusers").removeHandler(watching)
    assert not said
    drawn = model.draw([3, 4], steps=5)
    assert (again.draw([3, 4], steps=5) == drawn).all() and drawn.shape == (2, 16, 16, 3)
    assert (again.draw([4], steps=5)[0].astype(int) - drawn[1]).max() <= 1  # whatever is drawn with it
    read, size = read_process(tmp_path / "m/process.safetensors")
    assert size == 16 and torch.equal(read._signal, process._signal) and torch.equal(read.time_map, process.time_map)
    (tmp_path / "m/process.safetensors").write_bytes(b"\x08" * 40)
    with pytest.raises(ModelError, match="damaged"):
        DiffusionModel.load(tmp_path / "m")
    with pytest.raises(ModelError, match=r"no config\.json"):
        DiffusionModel.load(tmp_path)


def test_pixels_survive_the_way_there_and_back() -> None:
    assert (to_pixels(from_pixels(IMAGES)) == IMAGES.numpy()).all()
