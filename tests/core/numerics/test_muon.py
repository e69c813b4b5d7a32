"""Muon: updates are near-orthogonal at a known scale, a resumed run goes on exactly, processes agree with one."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from photopic.core.numerics.muon import Muon, muon_and_adamw, orthogonalise
from photopic.core.runs import load_optimizer, optimizer_tensors
from tests.processes import started


def train(_: object, rank: int, processes: int, folder: Path) -> None:
    """Two steps, shared with other processes that meet in the folder."""
    if processes > 1:
        meet = f"file://{folder}/meet"
        torch.distributed.init_process_group("gloo", init_method=meet, rank=rank, world_size=processes)
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(*shape, generator=generator).requires_grad_() for shape in [(4, 3), (6, 2, 3, 3), (3, 5)]]
    optimizer = Muon(weights, lr=0.1)
    for _ in range(2):
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator)
        optimizer.step()
    save_file({str(i): weight.detach() for i, weight in enumerate(weights)}, folder / f"{processes}.{rank}")


def gradient(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(8, 20), (20, 8), (12, 3, 3, 3)])
@pytest.mark.parametrize("scale", ["adam", "spectral"])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_an_update_is_near_orthogonal_at_its_scale(shape: tuple[int, ...], scale: str, bfloat16: bool) -> None:
    weight = nn.Parameter(torch.zeros(shape))
    weight.grad = gradient(*shape)
    Muon([weight], lr=0.5, scale=scale, bfloat16=bfloat16).step()
    rows, columns = weight.flatten(1).shape
    factor = {"adam": 0.2 * max(rows, columns) ** 0.5, "spectral": max(1, rows / columns) ** 0.5}[scale]
    update = -weight.detach().flatten(1) / (0.5 * factor)
    singular = torch.linalg.svdvals(update)
    assert singular.min() > 0.6 and singular.max() < 1.3
    u, _, v = torch.linalg.svd(weight.grad.flatten(1), full_matrices=False)
    assert torch.cosine_similarity(update.flatten(), (u @ v).flatten(), dim=0) > 0.97


def test_several_matrices_are_orthogonalised_apart() -> None:
    pair = gradient(2, 5, 3)
    assert torch.allclose(orthogonalise(pair), torch.stack([orthogonalise(each) for each in pair]), atol=1e-5)


def test_decay_shrinks_a_weight_and_no_gradient_leaves_it() -> None:
    still, decayed = nn.Parameter(torch.eye(3)), nn.Parameter(torch.eye(3))
    decayed.grad = torch.zeros(3, 3)
    Muon([still, decayed], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(still, torch.eye(3))
    assert torch.equal(decayed, torch.eye(3) * (1 - 0.1 * 0.5))


def test_a_resumed_run_takes_the_same_step() -> None:
    whole = nn.Parameter(gradient(4, 6))
    optimizer = Muon([whole], lr=0.1)
    whole.grad = gradient(4, 6, seed=1)
    optimizer.step()
    saved = {name: tensor.clone() for name, tensor in optimizer_tensors(optimizer).items()}
    assert set(saved) == {"optimizer.0.momentum"}  # checkpoints hold this name
    resumed = nn.Parameter(whole.detach().clone())
    again = Muon([resumed], lr=0.1)
    load_optimizer(again, saved)
    for weight, stepper in ((whole, optimizer), (resumed, again)):
        weight.grad = gradient(4, 6, seed=2)
        stepper.step()
    assert torch.equal(whole, resumed)


def test_inner_matrices_are_muons_and_everything_else_is_adamws() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 3), nn.Linear(4, 2))
    muon, adamw = muon_and_adamw(model, 1e-3, ("0.", "3."))
    assert [id(p) for p in muon.param_groups[0]["params"]] == [id(model[2].weight)]
    assert len(adamw.param_groups[0]["params"]) == len(list(model.parameters())) - 1


def test_two_processes_share_the_work_and_end_as_one(tmp_path: Path) -> None:
    train(None, 0, 1, tmp_path)
    both = [started(train, rank, 2, tmp_path)[0] for rank in (0, 1)]
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    alone, *shared = [load_file(tmp_path / name) for name in ("1.0", "2.0", "2.1")]
    assert all(torch.equal(weights[name], alone[name]) for weights in shared for name in alone)
