"""The benchmarks of diffusion processes: what is drawn and kept, how detail is measured, what the rows make of numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.harness.cache import ResultCache
from benchmarks.train import dvdp, shared_timesteps
from benchmarks.train.processes import Drawing, Processes
from photopic.metrics.radial_spectrum import radial_spectrum
from photopic.models.diffusion import Diffusion, Schedule
from photopic.models.diffusion.dimensionality import DimensionalityConfig, dimensionality_varying
from photopic.models.diffusion.model import DiffusionModel
from photopic.models.diffusion.networks import unet


@pytest.fixture
def bench(tmp_path, monkeypatch) -> Processes:
    """Two random models of 16 pixels."""
    linear = Schedule.of_kind("linear")
    for name, process in {
        "plain-0": Diffusion(linear),
        "steady-0": dimensionality_varying(linear, DimensionalityConfig((300,), lowest=1.0)),
    }.items():
        DiffusionModel(unet(16, (8,), levels=1), process, 16).save(tmp_path / "runs" / name / "model")
    found = Processes(ResultCache(tmp_path / "kept"), tmp_path / "runs")
    scenes = torch.randint(0, 256, (20, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(found, "scenes", lambda size, held_out=False: scenes[10:] if held_out else scenes[:10])
    return found


def test_pictures_are_drawn_once_and_every_setting_is_its_own(bench: Processes, capsys) -> None:
    plain, steady = Drawing("plain-0", "ddim", 3, 2), Drawing("steady-0", "ddim", 3, 2)
    first = bench.drawn(plain)
    assert first.shape == (2, 16, 16, 3) and "ddim 3 2" in capsys.readouterr().out
    assert np.array_equal(bench.drawn(plain), first) and capsys.readouterr().out == ""
    assert np.array_equal(bench.model("plain-0").draw([0, 1], solver="ddim", steps=3), first)
    assert not np.array_equal(bench.drawn(replace(plain, solver="dpm++")), first)
    assert not np.array_equal(bench.drawn(replace(steady, subspace=True)), bench.drawn(steady))


def test_noise_that_returns_has_the_deviation_of_the_details_of_scenes(bench: Processes) -> None:
    (found,) = bench.returning("steady-0").process.inserted
    pictures = bench.scenes(16).permute(0, 3, 1, 2).double() / 127.5 - 1
    means = pictures.unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))
    detail = pictures - means.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert found == pytest.approx(float((detail.square().mean() / 0.75).sqrt()), rel=1e-4)


def test_the_detail_gap_sees_amplitude_and_only_the_fine_half() -> None:
    rng = np.random.default_rng(0)
    pictures = rng.normal(size=(40, 32, 32, 3))
    real = radial_spectrum(pictures)
    assert dvdp.gap_of(pictures, real) == pytest.approx(0, abs=1e-9)
    assert dvdp.gap_of(pictures / 2, real) == pytest.approx(2 * np.log10(2), abs=1e-9)
    assert dvdp.gap_of(pictures + 1, real) == pytest.approx(0, abs=1e-9)  # the mean is not detail


def test_what_is_drawn_covers_every_way_and_both_sizes() -> None:
    found = dvdp.cases(dvdp.DvdpConfig())
    assert len(found) == len(set(found)) == 3 * 2 + 2 + 2
    assert {each.name for each in found if each.subspace} == {"steady-0"}
    solvers = [each for each in shared_timesteps.cases(shared_timesteps.SharedConfig()) if isinstance(each, Drawing)]
    assert len(solvers) == len(set(solvers)) == 3 * (2 * 2 + 4)


def test_a_gain_is_paired_by_seed_and_null_where_its_interval_holds_zero() -> None:
    by_kind = {
        "plain": [0.3, 0.4, 0.5],
        "shared": [0.2, 0.31, 0.39],
        "continued": [0.3] * 3,
        "retrofit": [0.2, 0.4, 0.3],
    }
    found = shared_timesteps.gain("a.b", by_kind, "plain", "shared", "8 pictures")
    assert found.value == pytest.approx(0.1) and found.low > 0 and found.baseline == pytest.approx(0.4)
    assert "0.3000, 0.4000, 0.5000" in found.note
    null = shared_timesteps.gain("a.c", by_kind, "continued", "retrofit", "")
    assert null.value == pytest.approx(0) and null.low < 0 and "before both 0.4000" in null.note


def test_flat_steps_are_counted_in_the_worst_seed() -> None:
    plain = {t: 10.0 / (1 + t) for t in shared_timesteps.CURVE}
    good = plain | {t: 0.0 for t in range(99) if t % 20 != 19}
    curves = {"plain-0": plain, "plain-1": plain, "shared-0": good, "shared-1": good | {3: 1e-9}}
    early, spike, flat = shared_timesteps.spikes((0, 1), curves.__getitem__)
    late = np.mean([10.0 / (1 + t) for t in shared_timesteps.CURVE if 400 <= t < 600])
    assert early.value == pytest.approx(np.mean([10.0 / (1 + t) for t in range(100)]) / late, rel=1e-5)
    assert spike.value == pytest.approx(501)
    assert flat.value == 94 and flat.control == 0
    curves["shared-1"] = good
    assert [*shared_timesteps.spikes((0, 1), curves.__getitem__)][2].value == 95
