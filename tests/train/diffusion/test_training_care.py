"""What training must not do silently: save broken weights, forget randomness, lose precision, or take settings it ignores."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers import DDPMPipeline, ScoreSdeVeScheduler, UNet2DModel

from photopic.core.errors import ModelError, PhotopicError
from photopic.core.runs import Run, RunInUseError, RunMismatchError, read_log
from photopic.models.diffusion import Diffusion, Pyramid, Schedule
from photopic.models.diffusion.dimensionality import DimensionalityConfig, dimensionality_varying
from photopic.models.diffusion.model import DiffusionModel
from photopic.models.diffusion.shared_timesteps import continuous_time, slopes
from photopic.models.diffusion.solvers import _clipped, draw_events
from photopic.train.diffusion.training import TrainingError, train_events
from tests.train.diffusion.test_training import CONFIG, FADING, IMAGES, LINEAR, PLAIN, network, same, trained


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Iterator[None]:
    """accelerate keeps one precision a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


class Explosive(torch.autograd.Function):
    """The identity, whose gradient is infinite."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("inf")


class Breaking(torch.nn.Module):
    """Fine for two steps; then only its gradient is not finite."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.calls = 0

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x * (self.scale if self.calls <= 2 else Explosive.apply(self.scale))


@pytest.mark.parametrize("every", [1, 3])
def test_a_gradient_that_is_not_finite_never_reaches_a_checkpoint(every: int, tmp_path: Path) -> None:
    words = "checkpoint of step 2 is kept" if every == 1 else "no checkpoint yet"
    with pytest.raises(
        TrainingError, match=f"at step 3 the loss is [0-9.]+ and its gradient has length (nan|inf).*{words}"
    ):
        list(train_events(Breaking(), PLAIN, IMAGES, tmp_path, replace(CONFIG, steps=3), save_every=every))
    found = Run(tmp_path).load()
    assert (found is None) == (every == 3)
    assert found is None or all(each.isfinite().all() for each in found[0].values())


def test_a_diverged_run_makes_room_for_its_corrected_settings(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="checkpoint of step 2 is kept"):
        list(train_events(Breaking(), PLAIN, IMAGES, tmp_path, replace(CONFIG, steps=3), save_every=1))
    lower = replace(CONFIG, steps=3, learning_rate=1e-5)
    assert list(train_events(network(), PLAIN, IMAGES, tmp_path, lower))[-1].done == 3
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2, 3]


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    first = train_events(network(), PLAIN, IMAGES, tmp_path, CONFIG)
    next(first)
    with pytest.raises(RunInUseError, match="another process is writing this run"):
        next(train_events(network(), PLAIN, IMAGES, tmp_path, CONFIG))
    first.close()  # type: ignore[attr-defined]
    assert list(train_events(network(), PLAIN, IMAGES, tmp_path, CONFIG))[-1].result is not None


def test_where_names_only_what_went_wrong(tmp_path: Path) -> None:
    class Partly(Breaking):
        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return x * self.scale * torch.where(t > 50, float("nan"), 1.0)[:, None, None, None]

    with pytest.raises(TrainingError) as raised:
        list(train_events(Partly(), FADING, IMAGES, tmp_path, CONFIG))
    said = str(raised.value)
    named = [int(each) for each in said.split("at timesteps ")[1].split(", pictures")[0].split(", ")]
    assert named and min(named) > 50 and "halved 1 times" in said


def with_dropout() -> UNet2DModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UNet2DModel.from_config(dict(network().config), dropout=0.3)


def test_dropout_goes_on_exactly_and_is_off_where_pictures_are_drawn(tmp_path: Path) -> None:
    def run(folder: Path, steps: int) -> DiffusionModel:
        for event in train_events(with_dropout(), PLAIN, IMAGES, folder, CONFIG, save_every=3):
            torch.rand(3)  # the caller's own randomness is neither read nor set
            if event.done == steps:
                break
        assert event.result is not None
        return event.result

    state = torch.get_rng_state()
    list(train_events(with_dropout(), PLAIN, IMAGES, tmp_path / "quiet", replace(CONFIG, steps=1)))
    assert torch.equal(torch.get_rng_state(), state)
    model = run(tmp_path / "whole", 6)
    run(tmp_path / "parts", 3)
    torch.manual_seed(123)
    run(tmp_path / "parts", 6)
    one, two = (Run(tmp_path / each).load() for each in ("whole", "parts"))
    assert one is not None and two is not None and same(one[0], two[0])
    assert not model.network.training and (model.draw([1], steps=3) == model.draw([1], steps=3)).all()


@pytest.mark.parametrize("kind", ["pool", "wavelet", "dct"])
def test_at_mixed_precision_the_process_stays_exact(kind: str, tmp_path: Path) -> None:
    process = dimensionality_varying(LINEAR, DimensionalityConfig(turning=(50,), kind=kind))
    read: dict[str, list[torch.Tensor]] = {"no": [], "bf16": []}

    class Reading(Breaking):
        def __init__(self, kept: list[torch.Tensor]) -> None:
            super().__init__()
            self.kept = kept

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            self.kept.append(x.detach().clone())
            return x * self.scale

    for precision, kept in read.items():
        config = replace(CONFIG, precision=precision, steps=1, batch=8)
        AcceleratorState._reset_state(reset_partial_state=True)
        list(train_events(Reading(kept), process, IMAGES, tmp_path / precision, config))
    assert len(read["no"]) == 2
    for exact, mixed in zip(*read.values(), strict=True):
        assert mixed.dtype == torch.float32 and torch.equal(exact, mixed)


@pytest.mark.parametrize(
    ("given", "config", "words"),
    [
        ({"mixed_precision": "fp16"}, {"precision": "fp16"}, "fp16 needs a GPU"),
        ({"mixed_precision": "bf16"}, {}, "accelerator of bf16"),
        ({"gradient_accumulation_steps": 4}, {}, "4 steps"),
    ],
)
def test_settings_that_would_be_ignored_are_refused(given, config, words: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=words):
        trained(tmp_path / "run", config=replace(CONFIG, **config), accelerator=Accelerator(**given))
    assert not list(tmp_path.iterdir())


def test_a_frozen_network_is_trained(tmp_path: Path) -> None:
    frozen = network().requires_grad_(False)
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    list(train_events(frozen, PLAIN, IMAGES, tmp_path, replace(CONFIG, steps=2)))
    assert any(not torch.equal(value, before[name]) for name, value in frozen.state_dict().items())


def test_a_damaged_run_and_another_process_are_told_in_words(tmp_path: Path) -> None:
    trained(tmp_path)
    words = r"process='epsilon, 100 timesteps \(\w+\)', asked for .*turning points 50 \(pool, fading\)"
    with pytest.raises(RunMismatchError, match=words):
        trained(tmp_path, FADING)
    (tmp_path / "checkpoint.safetensors").write_bytes(b"damaged")
    with pytest.raises(PhotopicError, match=r"checkpoint\.safetensors: is damaged"):
        trained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(PhotopicError, match=r"config\.json: is damaged"):
        trained(tmp_path)


def test_a_run_that_is_done_tells_its_last_loss(tmp_path: Path) -> None:
    first = list(train_events(network(), PLAIN, IMAGES, tmp_path, CONFIG))
    (again,) = train_events(network(), PLAIN, IMAGES, tmp_path, CONFIG)
    assert again.numbers["loss"] == first[-1].numbers["loss"] > 0 and again.stage == "done"


def save_pipeline(folder: Path, net: UNet2DModel, scheduler: object) -> Path:
    DDPMPipeline(net, scheduler).save_pretrained(folder)
    return folder


def test_pipelines_of_other_kinds_are_refused(tmp_path: Path) -> None:
    linear = LINEAR.scheduler("DDPMScheduler")
    latent = save_pipeline(tmp_path / "latent", network(), linear)
    index = json.loads((latent / "model_index.json").read_text())
    (latent / "model_index.json").write_text(json.dumps(index | {"vqvae": ["diffusers", "VQModel"]}))
    classes = save_pipeline(
        tmp_path / "classes", UNet2DModel.from_config(dict(network().config), num_class_embeds=3), linear
    )
    grey = save_pipeline(
        tmp_path / "grey", UNet2DModel.from_config(dict(network().config), in_channels=1, out_channels=1), linear
    )
    sized = UNet2DModel.from_config(dict(network().config), sample_size=16)
    exploding = save_pipeline(tmp_path / "exploding", sized, ScoreSdeVeScheduler())
    for folder, words in (
        (latent, "latents or classes"),
        (classes, "latents or classes"),
        (grey, "1 channels"),
        (exploding, "alphas_cumprod"),
    ):
        with pytest.raises(ModelError, match=words):
            DiffusionModel.load(folder)


def test_a_run_folder_is_read_as_its_model(tmp_path: Path) -> None:
    assert not DiffusionModel.is_saved(tmp_path / "model")
    DiffusionModel(network().eval(), FADING, 16).save(tmp_path / "model")
    assert DiffusionModel.is_saved(tmp_path / "model") and DiffusionModel.load(tmp_path).process.turning == (50,)


@pytest.mark.parametrize(("kind", "clipped"), [("pool", True), ("wavelet", False), ("dct", False)])
def test_halved_pictures_are_clipped_only_where_their_values_are_bounded(kind: str, clipped: bool) -> None:
    process = Diffusion(LINEAR, "sample", Pyramid(1, kind), (50,))
    generators = [torch.Generator().manual_seed(0)]
    events = list(draw_events(process, lambda x, t: torch.full_like(x, 9.0), (3, 8, 8), generators, steps=4, clip=1.0))
    halved, whole = events[0].clean, events[-1].clean
    assert halved.shape[-1] == 4 and float(halved.max()) == (2.0 if clipped else 9.0)
    assert whole.shape[-1] == 8 and float(whole.max()) == 1.0


@pytest.mark.parametrize("kind", ["pool", "wavelet", "dct"])
def test_errors_in_faint_details_do_not_reach_the_coarse_part(kind: str) -> None:
    """A denoiser whose noise is a little wrong where a detail has faded to 1 %: the coarse part of its picture is still right."""
    process = dimensionality_varying(Schedule.of_kind("linear"), DimensionalityConfig((300,), kind=kind))
    at, rows = torch.tensor([299]), torch.Generator().manual_seed(0)
    picture = 0.3 * process.pyramid.up(process.pyramid.down(torch.ones(1, 3, 16, 16)))
    noise, wrong = (torch.randn(picture.shape, generator=rows) for _ in range(2))
    noisy = process.noised(picture, noise, at)
    said = noise + 0.1 * process.pyramid.detail(wrong)
    clean = process.to_sample(said, noisy, at)
    assert float(clean.abs().max()) > 5  # a tenth of an error over a hundredth of the detail
    clipped = _clipped(process, clean, 0, 1.0)
    assert torch.allclose(process.pyramid.down(clipped), process.pyramid.down(picture), atol=1e-3)
    assert float(clipped.abs().max()) < 2.5
    plain = Diffusion(process.schedule)
    assert torch.equal(_clipped(plain, clean, 0, 1.0), clean.clamp(-1, 1))
    steady = dimensionality_varying(process.schedule, DimensionalityConfig((300,), lowest=1.0))
    assert torch.equal(_clipped(steady, clean, 0, 1.0), clean.clamp(-1, 1))


def test_the_continuous_map_keeps_the_starts_of_its_intervals() -> None:
    for intervals in range(1, 40):
        for end in (0.1, 0.12, 0.07):
            t = torch.linspace(0, 0.3, 301)
            told = continuous_time(t, end, intervals)
            assert torch.equal(continuous_time(told, end, intervals), told) and bool((told <= t).all())
            assert float((t - told).max()) <= end / intervals + 1e-6


def test_slopes_of_no_timestep_are_refused() -> None:
    with pytest.raises(ModelError, match="7 apart"):
        list(slopes(Diffusion(Schedule.of_kind("linear")), lambda x, t: x, torch.zeros(1, 1, 2, 2), [], apart=7))
