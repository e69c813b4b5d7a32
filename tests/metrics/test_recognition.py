import numpy as np
import pytest
import torch
import torch.nn.functional as F

from photopic.core.errors import DataError
from photopic.metrics.oracle_scores import Scores
from photopic.metrics.recognition import Recognised, recognise

RED, BLUE, PINK = (np.eye(128, dtype=np.float32)[[index]] for index in range(3))  # embeddings of one picture each


def _scores(*placed: tuple[np.ndarray, int, int], amount: float = 1.0) -> Scores:
    """One picture of 8x8 cells: things of 3x3 cells around a cell, on nothing."""
    cells, foreground = torch.zeros(1, 128, 8, 8), torch.zeros(1, 8, 8)
    for embedding, row, column in placed:
        cells[0, :, row - 1 : row + 2, column - 1 : column + 2] = torch.from_numpy(embedding[0])[:, None, None]
        foreground[0, row - 1 : row + 2, column - 1 : column + 2] = amount
    nothing = torch.zeros(1, 1)
    moments = torch.zeros(1, 1, 8, 8)
    return Scores(
        F.normalize(cells, dim=1), foreground, cells[..., ::2, ::2], foreground[:, ::2, ::2], moments, *[nothing] * 3
    )


def test_subjects_are_found_where_they_are_and_told_from_what_they_could_be_mistaken_for() -> None:
    seen = recognise(_scores((RED, 4, 1), (PINK, 4, 6)), [RED, BLUE], [PINK])
    assert seen.there.tolist() == [[True], [False]]
    assert seen.taken[0, 4, 1] == 0 and seen.taken[0, 4, 6] == 2
    row, column = seen.peaks[0, 0]  # any window that sees enough of it and nothing else
    assert seen.taken[0, row, column] == 0 and column < 4 and seen.maps[0, 0].max() == pytest.approx(1)


def test_where_there_is_nothing_nobody_is() -> None:
    assert (recognise(_scores(), [RED], [BLUE]).taken == -1).all()
    faint = recognise(_scores((RED, 4, 4), amount=0.05), [RED], [BLUE])
    assert not faint.there.any() and (faint.taken == -1).all()


def test_the_same_thing_in_one_place_is_not_two() -> None:
    def peaks(first: tuple[int, int], second: tuple[int, int]) -> Recognised:
        return Recognised(
            np.zeros((2, 1, 8, 8)), np.zeros((1, 8, 8), int), np.array([[first], [second]]), np.ones((2, 1), bool)
        )

    assert peaks((4, 1), (4, 3)).all_apart().all() and peaks((1, 1), (3, 1)).all_apart().all()
    assert not peaks((4, 1), (5, 2)).all_apart().any()


@pytest.mark.parametrize(
    "subjects, others", [([], [RED]), ([np.zeros((0, 128), np.float32)], []), ([RED], [np.zeros((0, 128), np.float32)])]
)
def test_nothing_to_look_for_is_refused(subjects: list[np.ndarray], others: list[np.ndarray]) -> None:
    with pytest.raises(DataError, match="at least one subject"):
        recognise(_scores(), subjects, others)
