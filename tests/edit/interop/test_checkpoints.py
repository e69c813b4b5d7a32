"""Dense fine-tuned checkpoints as edits: the fine-tuned bytes come back exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from photopic.core.edits import DenseDelta, SparseWeights
from photopic.core.edits import file as edit_file
from photopic.core.errors import EditError
from photopic.edit.interop import import_checkpoint
from photopic.models.text_to_image.handle import TextToImage
from tests.edit.interop.examples import CONV, Q_PROJ, TO_K, TO_V, noise, some_positions, tiny_model
from tests.tiny import tiny_pipeline

NORM = "unet.conv_norm_out.bias"
UNET_FILE = "unet/diffusion_pytorch_model.safetensors"


def fine_tuned(dtype: torch.dtype = torch.float32) -> Any:
    """A pipeline with a few entries of one tensor changed, a small step on all of two others, and a sign of zero."""
    pipeline = tiny_pipeline(dtype=dtype)
    with torch.no_grad():
        unet, text = pipeline.unet.state_dict(), pipeline.text_encoder.state_dict()
        to_k = unet[TO_K.removeprefix("unet.")].view(-1)
        to_k[some_positions(50, 1024)] += noise(50).to(dtype)
        unet[TO_V.removeprefix("unet.")] *= 1 + 2.0**-7  # base and new within a factor of two: the difference is exact
        unet[CONV.removeprefix("unet.")].copy_(
            noise(16, 16, 3, 3, size=1e-5).abs()
        )  # far below the base: no difference gives it exactly
        text[Q_PROJ.removeprefix("text_encoder.")].view(-1)[:3] = 0.0
        unet[NORM.removeprefix("unet.")][:3] = -0.0  # which the base has as 0.0
    return pipeline


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_whole_import_gives_the_fine_tuned_bytes(dtype: torch.dtype, tmp_path: Path) -> None:
    pipeline = fine_tuned(dtype)
    pipeline.save_pretrained(tmp_path / "tuned")
    model = TextToImage(tiny_pipeline(dtype=dtype), "tiny")
    before = model.digest()
    edit = import_checkpoint(tmp_path / "tuned", model)
    assert edit.touched().keys() == {TO_K, TO_V, CONV, NORM, Q_PROJ}
    (dense,) = (part for part in edit.parts if isinstance(part, DenseDelta))
    assert TO_V in dense.deltas
    assert (CONV in dense.deltas) == (dtype == torch.float16)  # float32 arithmetic is exact enough for halves
    (sparse,) = (part for part in edit.parts if isinstance(part, SparseWeights) and TO_K in part.indices)
    assert len(sparse.indices[TO_K]) == 50
    assert sparse.bits == (16 if dtype == torch.float16 else 32)
    edit_file.save(edit, tmp_path / "tuned.edit")
    with model.edits.applied(edit_file.load(tmp_path / "tuned.edit")):
        assert model.digest() == TextToImage(pipeline, "tuned").digest()
    assert model.digest() == before


def test_a_unet_file_a_unet_folder_and_shards_are_read(tmp_path: Path) -> None:
    pipeline, model = fine_tuned(), tiny_model()
    pipeline.unet.save_pretrained(tmp_path / "whole")
    pipeline.unet.save_pretrained(tmp_path / "sharded/unet", max_shard_size="400KB")
    pipeline.unet.save_pretrained(tmp_path / "variant/unet", max_shard_size="400KB", variant="fp16")
    for folder in (tmp_path / "sharded/unet", tmp_path / "variant/unet"):
        assert len(list(folder.glob("*.safetensors"))) > 1
    wanted = edit_file.to_bytes(import_checkpoint(tmp_path / "whole", model)).partition(b"checksum")[2][-1000:]
    for path in (tmp_path / "whole/diffusion_pytorch_model.safetensors", tmp_path / "sharded", tmp_path / "variant"):
        edit = import_checkpoint(path, model)
        assert edit.touched().keys() == {TO_K, TO_V, CONV, NORM}
        assert edit_file.to_bytes(edit)[-1000:] == wanted


def test_keep_takes_the_largest_relative_changes(tmp_path: Path) -> None:
    pipeline, model = tiny_pipeline(), tiny_model()
    base = {name: tensor.clone() for name, tensor in pipeline.unet.state_dict().items()}
    with torch.no_grad():
        for tensor in pipeline.unet.state_dict().values():
            tensor += noise(*tensor.shape, size=0.01)
    pipeline.unet.save_pretrained(tmp_path)
    total = sum(tensor.numel() for tensor in base.values())
    edit = import_checkpoint(tmp_path, model, keep=0.01)
    (part,) = edit.parts
    assert isinstance(part, SparseWeights)
    assert part.count == round(0.01 * total)
    new = pipeline.unet.state_dict()
    scores = {}
    for name, tensor in base.items():
        size = tensor.square().mean().sqrt()
        scores[name] = ((new[name] - tensor).abs() / (size if size > 0 else new[name].square().mean().sqrt())).view(-1)
    kept = torch.cat([scores[name.removeprefix("unet.")][where] for name, where in part.indices.items()])
    assert kept.min() >= torch.cat(list(scores.values())).topk(part.count).values.min() * (1 - 1e-6)
    for name, positions in part.indices.items():
        assert torch.equal(part.values[name], new[name.removeprefix("unet.")].view(-1)[positions])


def test_what_is_no_checkpoint_of_this_base_is_refused(tmp_path: Path) -> None:
    pipeline, model = tiny_pipeline(), tiny_model()
    pipeline.unet.save_pretrained(tmp_path / "unet")
    path = tmp_path / UNET_FILE
    good = load_file(path)
    with pytest.raises(EditError, match=rf"{tmp_path.name}: is the same as tiny in all {len(good)} tensors"):
        import_checkpoint(tmp_path, model)
    lacking = {name: tensor for name, tensor in good.items() if name != "conv_in.bias"}
    cases = {
        r"conv_on\.bias: unknown in unet of the base": good | {"conv_on.bias": torch.ones(1)},
        r"lacks 1 tensors of unet: unet\.conv_in\.bias": lacking,
        r"conv_in\.bias: expected shape \(16,\), found \(17,\)": good | {"conv_in.bias": torch.ones(17)},
        r"conv_in\.bias: expected finite values": good | {"conv_in.bias": torch.full((16,), torch.inf)},
    }
    for message, tensors in cases.items():
        save_file(tensors, path)
        with pytest.raises(EditError, match=rf"diffusion_pytorch_model\.safetensors: {message}"):
            import_checkpoint(tmp_path, model)
    path.rename(path.with_suffix(".bin"))
    with pytest.raises(
        EditError, match=r"expected diffusion_pytorch_model\.safetensors or model\.safetensors, found none"
    ):
        import_checkpoint(tmp_path, model)
    with pytest.raises(EditError, match=r"nowhere: expected a fine-tuned checkpoint, found nothing"):
        import_checkpoint(tmp_path / "nowhere", model)
    with pytest.raises(EditError, match=r"keep: expected a share above 0 and up to 1, found 0"):
        import_checkpoint(tmp_path, model, keep=0.0)
