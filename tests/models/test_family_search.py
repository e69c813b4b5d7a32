"""Transformer pipelines, a tiny random one of each class: searches touch text keys and values, and new words are read."""

from __future__ import annotations

import pytest
import torch

from photopic.core.edits import ZeroedWeights
from photopic.data.captioned import CaptionedImages
from photopic.locate.concept_neurons import ConceptNeuronsConfig, concept_neurons
from photopic.models.text_to_image.attention_weights import attention_rows, attention_weights
from photopic.models.text_to_image.families import FAMILIES
from photopic.models.text_to_image.transformer_handle import TransformerTextToImage
from tests.tiny_transformers import shared_handle, tensors_of

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of diffusers, importing its own old names
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # of its DPM solver
]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> TransformerTextToImage:
    return shared_handle(request.param)


SEARCH = ConceptNeuronsConfig(steps=3, batch=1, evaluation=1, controls=1, density=0.1)


def test_three_steps_of_a_search_touch_only_text_keys_and_values(model: TransformerTextToImage) -> None:
    before = {name: tensor.clone() for name, tensor in model.parameters().items()}
    pictures = torch.rand(2, 3, model.image_size, model.image_size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    kept = CaptionedImages(pictures[1:], ("a cat",))
    edit = concept_neurons(model, CaptionedImages(pictures[:1]), noun="bear", preserved=kept, config=SEARCH)
    (zeroed,) = (part for part in edit.parts if isinstance(part, ZeroedWeights))
    weights, rows = attention_weights(model), attention_rows(model)
    for name, index in zeroed.indices.items():
        inside = rows.get(name, range(len(weights[name])))
        found = index // weights[name].shape[1]  # flat positions -> rows
        assert inside.start <= int(found.min()) and int(found.max()) < inside.stop
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.parameters().items())
    with model.edits.applied(edit):  # the new word is one token, and its row acts
        own_word = [model.encode_prompts(f"a {word} bear") for word in ("<mine>", "red")]
    assert any(
        not torch.equal(first, second)
        for first, second in zip(*(tensors_of(each.rows[0]) for each in own_word), strict=True)
        if first.shape == second.shape
    )
