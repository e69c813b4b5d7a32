"""A memory budget: what a step has alive is counted, and the limits that fit are chosen; the search finds the same."""

from __future__ import annotations

import pytest
import torch

from photopic.core.errors import DataError, ModelError
from photopic.learning.losses import memory
from photopic.learning.losses.denoising import ConceptLoss, Limits, encode_examples
from photopic.learning.losses.memory import LiveBytes, bytes_of, limits_within, step_bytes
from photopic.models.text_to_image.attention_weights import attention_weights
from photopic.models.text_to_image.handle import TextToImage
from tests.tiny import IMAGE_SIZE, tiny_pipeline


@pytest.fixture(scope="module")
def loss() -> ConceptLoss:
    model = TextToImage(tiny_pipeline(), "tiny")
    images = torch.rand(2, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    examples = encode_examples(model, images, ["a bear", "a cat"])
    return ConceptLoss(model, examples, examples, examples, batch=4)


def test_what_lives_is_counted_and_what_is_gone_is_not() -> None:
    with LiveBytes() as count:
        kept = torch.zeros(100)  # 400 bytes
        for _ in range(3):
            assert (kept + 1).view(10, 10)[0].sum() == 10
    assert 800 <= count.peak <= 820 and count.now == 400


def test_a_pass_that_is_computed_again_keeps_less_alive(loss: ConceptLoss) -> None:
    weights = attention_weights(loss.model)
    plain, again = (step_bytes(loss, weights, recompute=each) for each in (False, True))
    assert again < 0.8 * plain
    assert loss.limits == Limits() and not loss.model.unet.is_gradient_checkpointing


def test_the_fastest_limits_that_fit_are_chosen(loss: ConceptLoss, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = attention_weights(loss.model)
    monkeypatch.setattr(memory, "held_bytes", lambda device: 0)  # of the model alone, not of the test process
    state = 24 * sum(weight.numel() for weight in weights.values())
    plain, again = (step_bytes(loss, weights, recompute=each) for each in (False, True))

    def found(counted: float) -> Limits:
        return limits_within(loss, weights, f"{(counted + state) / (1 - memory.KERNELS) / 1024:.3f}KiB")

    assert found(100 * plain) == Limits(8, False)  # no more than a step has
    assert found(2.5 * plain) == Limits(2, False)
    assert found((plain + again) / 2) == Limits(1, True)
    with pytest.raises(ModelError, match="for a step of one picture at a time"):
        found(0.9 * again)


@pytest.mark.parametrize("memory", ["6", "six GiB", "6GB", "-1GiB"])
def test_a_budget_that_is_no_size_is_refused(memory: str) -> None:
    assert bytes_of("1.5 MiB") == 3 * 2**19
    with pytest.raises(DataError, match="memory: expected a size such as 6GiB"):
        bytes_of(memory)
