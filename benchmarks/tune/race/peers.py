"""The peers as they are trained: dense weights (DreamBooth, Custom Diffusion), a token row, and adapters of peft.

All descend on the same loss with AdamW, as the scripts of diffusers do: weight decay 1e-2, gradients clipped to length 1.
Each writes the file it is published as, in float16.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.tune.race.subject_case import SEED, Given, first_row, loss_of
from photopic.core.identity import Fingerprint
from photopic.learning.losses.denoising import ConceptLoss, Examples
from photopic.models.text_to_image.conditioning import Conditioning
from photopic.models.text_to_image.handle import TextToImage

ATTENTION = ["to_k", "to_q", "to_v", "to_out.0"]  # as diffusers' DreamBooth LoRA script
JOINT = [  # as its script for Stable Diffusion 3
    f"attn.{name}"
    for name in ("add_k_proj", "add_q_proj", "add_v_proj", "to_add_out", "to_k", "to_out.0", "to_q", "to_v")
]
ADAPTER = "adapter_model.safetensors"


class Dense:
    """Copies of UNet weights are trained: all (DreamBooth), or cross-attention keys and values with the row (Custom Diffusion)."""

    def __init__(self, model: TextToImage, loss: ConceptLoss, given: Given, base: Fingerprint, *, custom: bool):
        self._loss, self._custom, self._given = loss, custom, given
        names = [f"unet.{name}" for name, _ in model.unet.named_parameters()]
        kept = [name for name in names if not custom or ".attn2.to_k." in name or ".attn2.to_v." in name]
        tensors = dict(model.unet.named_parameters())
        self.weights = {name: tensors[name.removeprefix("unet.")].detach().clone().requires_grad_() for name in kept}
        self._row = Row(model, loss, given, base) if custom else None
        self.parameters = [*self.weights.values(), *(self._row.parameters if self._row else [])]
        self._processors = dict(model.unet.attn_processors)

    def loss(self, step: int) -> Tensor:
        return self._row.total(step, self.weights) if self._row else self._loss.step(step, self.weights).total

    def save(self, folder: Path) -> None:
        weights = {name.removeprefix("unet."): each.detach().half() for name, each in self.weights.items()}
        if self._row is None:
            save_file(weights, folder / "unet.safetensors")
            return
        state = {}
        for key in self._processors:  # diffusers wants every processor named, those without weights by an empty tensor
            layer = key.removesuffix(".processor")
            if f"{layer}.to_k.weight" in weights:
                for which in ("k", "v"):
                    state[f"{key}.to_{which}_custom_diffusion.weight"] = weights[f"{layer}.to_{which}.weight"]
            else:
                state[key] = torch.zeros(0)
        save_file(state, folder / "custom_diffusion.safetensors")
        self._row.save(folder)

    def close(self) -> None:
        if self._row:
            self._row.close()


class Row:
    """The row of the new token is trained, the gradient flowing through the text encoder."""

    def __init__(self, model: TextToImage, loss: ConceptLoss, given: Given, base: Fingerprint):
        self._model, self._loss, self._given = model, loss, given
        self.row = first_row(given.rows(model)).clone().requires_grad_()
        self.parameters = [self.row]
        self._stack = ExitStack()
        self._stack.enter_context(model.edits.applied(given.row_edit(model, base)))
        ((component, tokenizer),) = model.tokenizers.items()
        number = tokenizer.convert_tokens_to_ids(given.token)
        encoder: Any = model.components[component]

        def put_in(module: Any, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return torch.where((arguments[0] == number)[..., None], self.row, output)

        self._stack.enter_context(_Hook(encoder.get_input_embeddings().register_forward_hook(put_in)))

    def total(self, step: int, weights: Mapping[str, Tensor]) -> Tensor:
        """The total of ``ConceptLoss.step`` with the captions encoded anew."""
        loss = self._loss
        conditioning = self._model.encode_prompts(list(self._given.captions))
        examples = replace(loss.concept, conditioning=conditioning)
        if loss.prior is not None:
            both = torch.cat([conditioning.hidden, loss.prior.conditioning.hidden])
            latents = torch.cat([examples.latents, loss.prior.latents])
            examples = Examples(latents, Conditioning(both), examples.captions + loss.prior.captions)
        errors = loss.errors(examples, loss.draws(step), weights)
        prior = errors[loss.batch :].mean() * loss.prior_weight if loss.prior is not None else 0.0
        return errors[: loss.batch].mean() + prior

    def loss(self, step: int) -> Tensor:
        return self.total(step, {})

    def save(self, folder: Path) -> None:
        save_file({self._given.token: self.row.detach().half()[None]}, folder / "row.safetensors", {"format": "pt"})

    def close(self) -> None:
        self._stack.close()


class Adapter:
    """An adapter of peft beside the denoising network's layers."""

    def __init__(self, model: TextToImage, loss: ConceptLoss, config: Any):
        from peft import get_peft_model

        self._loss = loss
        with torch.random.fork_rng():
            torch.manual_seed(loss.seed)
            self._adapted = get_peft_model(model.network, config)
        self.parameters = [each for each in self._adapted.parameters() if each.requires_grad]

    def loss(self, step: int) -> Tensor:
        return self._loss.step(step, {}).total

    def save(self, folder: Path) -> None:
        self._adapted.save_pretrained(str(folder))
        (folder / "README.md").unlink(missing_ok=True)
        tensors = {
            key: each.half() if each.is_floating_point() else each for key, each in load_file(folder / ADAPTER).items()
        }
        save_file(tensors, folder / ADAPTER, {"format": "pt"})

    def close(self) -> None:
        self._adapted.unload()
        for each in self._adapted.get_base_model().parameters():
            each.requires_grad_(False)


class _Hook:
    """A forward hook as a context manager."""

    def __init__(self, handle: Any):
        self._handle = handle

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self._handle.remove()


Learner = Dense | Row | Adapter  # in training: its parameters and loss; ``close`` leaves the model as it was


def learner(name: str, model: TextToImage, given: Given, base: Fingerprint, loss: ConceptLoss) -> Learner:
    """The peer of a name, ready to be trained."""
    from peft import IA3Config, LoraConfig, ShiraConfig

    attention = ATTENTION if model.network_name == "unet" else JOINT
    adapters: dict[str, Callable[[], Any]] = {
        "lora4": lambda: LoraConfig(r=4, lora_alpha=4, init_lora_weights="gaussian", target_modules=attention),
        "lora16": lambda: LoraConfig(r=16, lora_alpha=16, init_lora_weights="gaussian", target_modules=attention),
        "shira": lambda: ShiraConfig(r=4, random_seed=SEED, target_modules=attention),
        "ia3": lambda: IA3Config(target_modules=["to_k", "to_v", "ff.net.2"], feedforward_modules=["ff.net.2"]),
    }
    if name in adapters:
        return Adapter(model, loss, adapters[name]())
    if name == "textual_inversion":
        return Row(model, loss, given, base)
    return Dense(model, loss, given, base, custom=name == "custom_diffusion")


def train(
    name: str, model: TextToImage, given: Given, base: Fingerprint, folder: Path, *,
    rate: float, counts: Sequence[int], batch: int, preservation: int, seed: int = SEED,
) -> Iterator[int]:  # fmt: skip
    """Train a peer, yielding after every step; after each of ``counts`` its file and facts are in a folder of that name.

    Args:
        name: Of a method in ``plan.PEERS``.
        model: A handle whose weights are the base's; they are so again at the end.
        given: The subject.
        base: The base's fingerprint.
        folder: Gets ``<steps>/`` with the published file and ``facts.json``.
        rate: Learning rate.
        counts: After how many steps to save.
        batch: Subject pictures a step.
        preservation: Preservation pictures. Textual inversion gets none: their captions lack the token, so that their
            gradient on its row is zero.
        seed: Of everything random.
    """
    began = time.process_time()
    has_prior = name != "textual_inversion"
    loss = loss_of(model, given, base, batch=batch, count=preservation if has_prior else 0, seed=seed)
    peer = learner(name, model, given, base, loss)
    try:
        optimizer = torch.optim.AdamW(peer.parameters, lr=rate, weight_decay=1e-2)
        for step in range(max(counts)):
            optimizer.zero_grad(set_to_none=True)
            peer.loss(step).backward()
            torch.nn.utils.clip_grad_norm_(peer.parameters, 1.0)
            optimizer.step()
            if step + 1 in counts:
                made = folder / str(step + 1)
                shutil.rmtree(made, ignore_errors=True)
                made.mkdir(parents=True)
                peer.save(made)
                write_facts(made, time.process_time() - began)
            yield step + 1
    finally:
        peer.close()


def write_facts(folder: Path, seconds: float) -> None:
    """What a made file cost: CPU seconds of one thread, and the bytes of what a user would send on."""
    files = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".edit"))
    facts = {"seconds": round(seconds, 3), "bytes": sum(path.stat().st_size for path in files)}
    (folder / "facts.json").write_text(json.dumps(facts))
