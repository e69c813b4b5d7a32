"""A made file put to use and taken away again by the library it is published for, with what is left of the base counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.tune.race.peers import ADAPTER
from photopic.models.text_to_image.handle import TextToImage

ROW, DENSE, CUSTOM = "row.safetensors", "unet.safetensors", "custom_diffusion.safetensors"


@dataclass
class Applied:
    """What applying cost; the last two are known once it is reverted.

    Attributes:
        apply_s: CPU seconds from the file on disk to a model that can draw.
        revert_s: CPU seconds back.
        exact: Share of the entries of the UNet and text encoder with the base's bits afterwards.
    """

    apply_s: float = 0.0
    revert_s: float = 0.0
    exact: float = 0.0


def state(model: TextToImage) -> dict[str, Tensor]:
    """The tensors an edit or a peer may touch, not copied."""
    return {
        f"{part}.{name}": tensor
        for part in ("unet", "text_encoder")
        for name, tensor in model.components[part].state_dict().items()
    }


def share_equal(model: TextToImage, base: dict[str, Tensor]) -> float:
    """Share of all entries that have the base's bits."""
    now = state(model)
    if now.keys() != base.keys():
        return 0.0
    same = sum(
        int((now[n].view(torch.int32) == base[n].view(torch.int32)).sum()) if now[n].is_floating_point()
        else int((now[n] == base[n]).sum())
        for n in base if now[n].shape == base[n].shape
    )  # fmt: skip
    return same / sum(tensor.numel() for tensor in base.values())


@contextmanager
def applied(
    model: TextToImage, base: dict[str, Tensor], folders: Sequence[Path], rows: Sequence[Path], base_file: Path,
    *, merge: tuple[str, float, float | None] | None = None,
) -> Iterator[Applied]:  # fmt: skip
    """A peer's files in force on ``model``, by diffusers and peft; afterwards the base's bits are put back, whatever was left.

    Args:
        model: With the base's weights.
        base: Copies of ``state(model)``.
        folders: What ``peers.train`` wrote; several are merged.
        rows: A textual-inversion file for each token that is not trained.
        base_file: The base UNet on disk, from which a dense peer goes back.
        merge: For several adapters: combination type, weight of each, density.
    """
    measured = Applied()
    began = time.process_time()
    undo: list[Callable[[], object]] = []
    pipeline = model.pipeline
    trained = [folder / ROW for folder in folders if (folder / ROW).exists()]
    for row in trained or rows:
        pipeline.load_textual_inversion(str(row))
        undo.append(partial(pipeline.unload_textual_inversion, next(iter(load_file(row)))))
    if (folders[0] / ADAPTER).exists():
        undo.append(merged_adapters(model, folders, merge))
    elif (folders[0] / CUSTOM).exists():
        before = dict(model.unet.attn_processors)
        model.unet.load_attn_procs(str(folders[0]), weight_name=CUSTOM, use_safetensors=True)
        undo.append(lambda: model.unet.set_attn_processor(before))
    elif (folders[0] / DENSE).exists():
        model.unet.load_state_dict(load_file(folders[0] / DENSE))
        undo.append(lambda: model.unet.load_state_dict(load_file(base_file)))
    measured.apply_s = time.process_time() - began
    try:
        yield measured
    finally:
        began = time.process_time()
        for call in reversed(undo):
            call()
        measured.revert_s = time.process_time() - began
        measured.exact = share_equal(model, base)
        with torch.no_grad():
            for name, tensor in state(model).items():
                tensor.copy_(base[name])
        model.unet.requires_grad_(False)


def merged_adapters(
    model: TextToImage, folders: Sequence[Path], merge: tuple[str, float, float | None] | None
) -> Callable[[], object]:
    """Load adapters of peft, merge them if they are several, and fuse; the way back unfuses and unloads."""
    from peft import PeftModel

    adapted: Any = PeftModel.from_pretrained(model.network, str(folders[0]), adapter_name="s0")
    names = ["s0"]
    for folder in folders[1:]:
        names.append(f"s{len(names)}")
        adapted.load_adapter(str(folder), adapter_name=names[-1])
    if merge is not None:
        kind, weight, density = merge
        adapted.add_weighted_adapter(names, [weight] * len(names), "merged", combination_type=kind, density=density)
        adapted.set_adapter("merged")
    adapted.merge_adapter()

    def back() -> None:
        adapted.unmerge_adapter()
        adapted.unload()

    return back


@contextmanager
def edits_applied(model: TextToImage, base: dict[str, Tensor], files: Sequence[Path]) -> Iterator[Applied]:
    """Edit files in force, by this library."""
    measured = Applied()
    began = time.process_time()
    with ExitStack() as stack:
        names = [model.edits.load(file, name=f"s{number}") for number, file in enumerate(files)]
        stack.callback(model.edits.unload, *names)
        measured.apply_s = time.process_time() - began
        yield measured
        began = time.process_time()
    measured.revert_s = time.process_time() - began
    measured.exact = share_equal(model, base)
