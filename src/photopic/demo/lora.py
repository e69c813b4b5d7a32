"""The rival of the demo's last part: a LoRA of rank 4 for each subject, made and merged by peft.

It learns from the same pictures and collages, captions, preservation pictures and draws as the tuned edit, by the same loss, for
as many steps; targets, AdamW and clipping are those of the DreamBooth LoRA script of diffusers. The rate is ten times that script's
1e-4, since its steps are many more.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors.torch import load_file, save_file

from photopic.core.edits import TokenEmbedding
from photopic.core.events import Event, Steps
from photopic.core.files import share_as_usual
from photopic.demo.teach import Taught
from photopic.learning.subject.examples import subject

if TYPE_CHECKING:
    from photopic.models.text_to_image.handle import TextToImage

RANK = 4
RATE = 1e-3
SEED = 0  # of the first values of the adapter
TARGETS = ["to_k", "to_q", "to_v", "to_out.0"]
WEIGHTS = "adapter_model.safetensors"
Merge = Literal["linear", "cat"]  # factors added, or the two changes added exactly


def is_available() -> bool:
    """Whether peft is installed."""
    return find_spec("peft") is not None


def train(model: TextToImage, taught: Taught, folder: Path) -> Steps[None]:
    """Train a LoRA on the pictures and with the settings the edit was tuned with.

    Args:
        model: With no edits in force; it ends as it began.
        taught: What came of teaching the subject; the settings and the new word of its tuned edit are taken.
        folder: Gets what ``merged`` reads once training is done.
    """
    from peft import LoraConfig, get_peft_model

    tuned = taught.edits["tuned"]
    settings, noun = tuned.provenance["config"], tuned.subject.noun if tuned.subject else ""
    (rows,) = tuned.of(TokenEmbedding)
    chosen = subject(model, taught.pictures, noun=noun, rows=rows, preserved=taught.preserved)
    loss = chosen.loss(
        model, tuned.base, prior_weight=settings["prior_weight"], batch=settings["batch"], seed=settings["seed"]
    )
    config = LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=TARGETS)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        adapted: Any = get_peft_model(model.unet, config)
    try:
        parameters = [each for each in adapted.parameters() if each.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=1e-2)
        for step in range(settings["steps"]):
            optimizer.zero_grad(set_to_none=True)
            total = loss.step(step, {}).total
            total.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            yield Event(f"LoRA ({noun})", step + 1, settings["steps"], {"loss": total.item()})
        _save(adapted, folder)
    finally:
        adapted.unload()
        model.unet.requires_grad_(False)


@contextmanager
def merged(model: TextToImage, folders: Sequence[Path], merge: Merge) -> Iterator[None]:
    """LoRAs in force together at full weight, merged by peft; afterwards the model is as it was.

    Args:
        model: With the new words in force already.
        folders: What ``train`` wrote.
        merge: How peft merges them.
    """
    from peft import PeftModel

    names = [f"subject{number}" for number in range(len(folders))]
    adapted: Any = PeftModel.from_pretrained(model.unet, str(folders[0]), adapter_name=names[0])
    try:
        for name, folder in zip(names[1:], folders[1:], strict=True):
            adapted.load_adapter(str(folder), adapter_name=name)
        adapted.add_weighted_adapter(names, [1.0] * len(names), "merged", combination_type=merge)
        adapted.set_adapter("merged")
        yield
    finally:
        adapted.unload()
        model.unet.requires_grad_(False)


def size_bytes(folder: Path) -> int:
    """Bytes of the weights a user would send on; the new word's row is not among them."""
    return (folder / WEIGHTS).stat().st_size


def _save(adapted: Any, folder: Path) -> None:
    """Write the adapter as peft does, in 16 bits; the folder appears whole or not at all."""
    made = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(made, ignore_errors=True)
    adapted.save_pretrained(str(made))
    (made / "README.md").unlink(missing_ok=True)
    halves = {name: each.half() for name, each in load_file(made / WEIGHTS).items()}
    save_file(halves, made / WEIGHTS, {"format": "pt"})
    share_as_usual(made / WEIGHTS)
    shutil.rmtree(folder, ignore_errors=True)
    made.rename(folder)
