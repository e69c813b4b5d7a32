"""Transformer pipelines, a tiny random one of each class: edits go without a trace, and searches touch text keys and values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from photopic.core.edits import Edit, ZeroedWeights
from photopic.core.errors import ModelError
from photopic.learning.losses.denoising import ConceptLoss, Examples, Limits
from photopic.learning.losses.memory import step_bytes
from photopic.learning.parameters.soft_mask import WeightMask
from photopic.models.text_to_image import measured
from photopic.models.text_to_image.attention_weights import attention_rows, attention_weights, random_positions
from photopic.models.text_to_image.capture import Recorded
from photopic.models.text_to_image.denoiser import told_time
from photopic.models.text_to_image.families import FAMILIES
from photopic.models.text_to_image.transformer_drawing import call_arguments
from photopic.models.text_to_image.transformer_handle import TransformerTextToImage
from tests.tiny_transformers import handle_of, kind_of, shared_handle

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of diffusers, importing its own old names
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # of its DPM solver
]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> TransformerTextToImage:
    return shared_handle(request.param)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_edit_goes_without_a_trace(model: TransformerTextToImage, dtype: torch.dtype) -> None:
    edited = model if dtype == torch.float32 else handle_of(kind_of(model), dtype)
    before = {name: tensor.clone() for name, tensor in edited.parameters().items()}
    weights = attention_weights(edited)
    positions = random_positions({name: torch.arange(5) for name in weights}, weights, seed=0)
    with edited.edits.applied(Edit((ZeroedWeights(positions),), edited.fingerprint(*weights), {})):
        changed = {name for name, tensor in edited.parameters().items() if not torch.equal(tensor, before[name])}
        assert changed == set(weights)
    if dtype == torch.bfloat16:  # the network is told the time as the pipeline rounds it
        found = recorded(edited)
        for time, told in zip(found.timesteps, measured.told_times(found), strict=True):
            own = told_time(time.reshape(1), edited.family, told.dtype)[0]
            assert torch.equal(own, told) or (told.dtype == torch.float32 and abs(own - told) <= 1e-4 * abs(told))
    for name, tensor in edited.parameters().items():
        assert tensor.reshape(-1).view(torch.uint8).equal(before[name].reshape(-1).view(torch.uint8)), name


def recorded(model: TransformerTextToImage) -> Recorded:
    arguments = call_arguments(model.pipeline, model.family, ["a"], (model.image_size,) * 2, guidance=None, steps=7)
    arguments["generator"] = [torch.Generator().manual_seed(0)]
    answer = measured.ones_like_prediction(model.family)
    return measured.record(model.pipeline, arguments, steps=2, answer=answer, networks=model.family.networks)


@pytest.mark.parametrize("kind", ["StableDiffusion3Pipeline", "FluxPipeline", "Ideogram4Pipeline"])
def test_blocks_computed_again_give_the_same_gradients_in_less_memory(kind: str) -> None:
    """Of a network of two blocks little is saved, but some; nothing before the first searched matrix has a gradient."""
    model = shared_handle(kind)
    latents = model.encode_images(torch.zeros(1, 3, model.image_size, model.image_size))
    examples = Examples(latents, model.encode_prompts("a bear"), ("a bear",))
    weights = attention_weights(model)
    found, needed = [], []
    for recompute in (False, True):
        loss = ConceptLoss(model, examples, examples, None, batch=1, limits=Limits(1, recompute))
        leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
        found.append(loss.gradients(0, leaves, list(leaves.values()))[1])
        needed.append(step_bytes(loss, weights, recompute=recompute))
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(plain, again, rtol=1e-5, atol=1e-8)
    assert needed[1] < needed[0]
    assert not any(parameter.requires_grad for parameter in model.network.parameters())


@pytest.mark.parametrize(
    ("kind", "which", "expected"),
    [
        ("Flux2Pipeline", ("k", "v"), range(16, 48)),  # after 16 rows of queries, before those of the mlp
        ("Flux2Pipeline", ("v",), range(32, 48)),
        ("PRXPipeline", ("k", "v"), range(32)),
        ("PRXPipeline", ("k",), range(16)),
    ],
)
def test_fused_matrices_are_addressed_by_rows(kind: str, which: tuple[str, ...], expected: range) -> None:
    model = shared_handle(kind)
    rows = attention_rows(model, which)
    assert set(rows) == {name for name in attention_weights(model, which=which) if "kv" in name}
    assert set(rows.values()) == {expected}


def test_rows_of_a_fused_matrix_are_its_keys() -> None:
    """What the table calls keys makes the keys: without them the attention of the layer is even."""
    model = shared_handle("Flux2Pipeline")
    said, latents = model.encode_prompts("a bear"), torch.randn(1, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    seen: list[Tensor] = []

    class Scores(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is torch.nn.functional.scaled_dot_product_attention:
                seen.append(args[1] if len(args) > 1 else kwargs["key"])
            return function(*args, **(kwargs or {}))

    (name, rows), *_ = attention_rows(model, ("k",)).items()
    index = torch.arange(rows.start * 16, rows.stop * 16)
    edit = Edit((ZeroedWeights({name: index}),), model.fingerprint(name), {})
    with Scores(), model.edits.applied(edit), torch.no_grad():
        model.predict(latents, torch.tensor([500]), said)
    assert seen[0].any() and not seen[-1].any()  # the double block's, and the fused single block's


def test_a_mask_with_rows_leaves_all_others_alone() -> None:
    weights = {"w": torch.ones(6, 2), "other": torch.ones(1, 2)}
    mask = WeightMask(weights, optimizer="sgd", rows={"w": range(2, 4)}, lr=1.0)

    class Loss:
        def gradients(self, step: int, changed: Any, wanted: list[Tensor]) -> tuple[Any, list[Tensor]]:
            return None, [torch.ones_like(tensor) for tensor in wanted]

    mask.step(Loss(), 0)  # type: ignore[arg-type]
    assert mask.masks["w"].min(1).values.tolist() == [1, 1, 0, 0, 1, 1]
    assert {name: index.tolist() for name, index in mask.lowest(1.0).items()} == {"w": [4, 5, 6, 7], "other": [0, 1]}
    assert mask.share_below(0.5) == 1.0


def test_fused_projections_of_a_pipeline_are_refused() -> None:
    model = handle_of("FluxPipeline")
    for module in model.network.modules():
        if hasattr(module, "fuse_projections"):
            module.fuse_projections()
    with pytest.raises(ModelError, match="unfuse"):
        attention_weights(model)
