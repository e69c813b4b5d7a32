"""What the formulas of the scorers imply, entry by entry."""

from __future__ import annotations

import torch
from torch import Tensor

from photopic.knowledge.links.scorers import SCORERS, Name


def vectors(name: Name, count: int = 5, dim: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    width = round(dim * SCORERS[name].relation_width)
    return tuple(torch.randn(count, each, generator=draw, dtype=torch.float64) for each in (dim, width, dim))  # type: ignore[return-value]


def as_complex(rows: Tensor) -> Tensor:
    return torch.complex(*rows.chunk(2, -1))


def test_each_score_is_its_formula() -> None:
    for name in SCORERS:
        h, r, t = vectors(name)
        formulas = {
            "transe": lambda h, r, t: -(h + r - t).norm(dim=-1),
            "distmult": lambda h, r, t: (h * r * t).sum(-1),
            "complex": lambda h, r, t: (as_complex(h) * as_complex(r) * as_complex(t).conj()).sum(-1).real,
            "rotate": lambda h, r, t: (
                -(as_complex(h) * torch.exp(1j * r) - as_complex(t)).abs().square().sum(-1).sqrt()
            ),
        }
        expected = torch.stack([formulas[name](h, r, each) for each in t], 1)  # (questions, tails)
        torch.testing.assert_close(SCORERS[name](h, r, t), expected)


def test_distmult_is_symmetric_and_complex_is_not() -> None:
    (h, r, t), symmetric = vectors("distmult"), {}
    for name in ("distmult", "complex"):
        symmetric[name] = torch.allclose(SCORERS[name](h, r, t).diagonal(), SCORERS[name](t, r, h).diagonal())
    assert symmetric == {"distmult": True, "complex": False}


def test_complex_with_real_vectors_is_distmult() -> None:
    halves = vectors("distmult")
    real = [torch.cat([each, torch.zeros_like(each)], -1) for each in halves]
    torch.testing.assert_close(SCORERS["complex"](*real), SCORERS["distmult"](*halves))


def test_transe_does_not_change_when_all_nodes_move_and_rotate_not_when_all_turn() -> None:
    h, r, t = vectors("transe")
    torch.testing.assert_close(SCORERS["transe"](h + 3, r, t + 3), SCORERS["transe"](h, r, t))
    h, r, t = vectors("rotate")
    turn = SCORERS["rotate"].question
    by = torch.full_like(r, 0.7)
    torch.testing.assert_close(SCORERS["rotate"](turn(h, by), r, turn(t, by)), SCORERS["rotate"](h, r, t))
