"""The controls of the benchmark of concept neurons, on a tiny real pipeline."""

from __future__ import annotations

import pytest
import torch

from benchmarks.harness.subjects import class_prompts, reference, token_prompts, unrelated_prompts
from benchmarks.locate.mask_losses import anti_selected
from photopic.learning.losses.denoising import ConceptLoss, encode_examples
from photopic.models.text_to_image.attention_weights import attention_weights, random_positions, with_zeros
from photopic.models.text_to_image.handle import TextToImage
from tests.tiny import IMAGE_SIZE, tiny_pipeline


@pytest.fixture(scope="module")
def loss() -> ConceptLoss:
    model = TextToImage(tiny_pipeline(), "tiny")
    images = torch.rand(2, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    examples = encode_examples(model, images, ["a bear", "a cat"])
    return ConceptLoss(model, examples, examples, None, batch=8)


def test_the_anti_selected_set_is_as_large_in_every_layer_and_harms_most(loss: ConceptLoss) -> None:
    weights = attention_weights(loss.model)
    positions = random_positions({name: torch.arange(30 + i) for i, name in enumerate(weights)}, weights, 0)
    worst = anti_selected(loss, weights, positions, draws=6)
    assert {name: len(index) for name, index in worst.items()} == {name: len(i) for name, i in positions.items()}
    assert all((index.diff() > 0).all() and index.max() < weights[name].numel() for name, index in worst.items())

    def drop(chosen: dict[str, torch.Tensor]) -> float:
        return loss.evaluate_concept({}, 24) - loss.evaluate_concept(with_zeros(weights, chosen), 24)

    randoms = [drop(random_positions(positions, weights, seed)) for seed in range(1, 6)]
    assert drop(worst) < min(0.0, *randoms)


def test_references_name_noun_and_token_and_prompts_do_as_they_say() -> None:
    given = reference("panda")
    assert given.images.shape == (5, 3, 64, 64) and "<mine>" in given.captions[0]
    assert torch.equal(given.images, reference("panda").images)
    assert all("<mine>" in prompt for prompt in token_prompts("panda", 3))
    assert not any("<mine>" in prompt for prompt in class_prompts("panda", 3) + unrelated_prompts("panda", 3))
