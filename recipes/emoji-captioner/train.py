"""Train the captioner and its baseline: ``python recipes/emoji-captioner/train.py --out runs/emoji-captioner``.

``graph`` writes the words of a bag of concepts and becomes the bundled ``emoji-captioner``; ``caption`` is the same network, the
same scenes and the same steps on plain captions, kept under ``recipes/emoji-captioner/baseline`` for the benchmark. One thread
each, float32. Kill it at any moment and start it again: it goes on from the last checkpoint and ends with the same weights.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from networks import LONGEST, PAD, build, tokenizer
from pictures import MEAN, NAMES, SPREAD, TEXTS, Bank, bank
from torch import Tensor, nn
from torch.nn import functional as F

from photopic.core.runs import Run
from photopic.knowledge.compact_caption import SIDE, vocabulary

from _common.card import write_json
from _common.training import Training, kernels_and_rest, trained, warm_then_linear

HERE = Path(__file__).parent
WEIGHTS = {
    "graph": HERE.parents[1] / "src/photopic/models/bundled/emoji-captioner",
    "caption": HERE / "baseline",
}
PREPROCESSOR = {
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "size": {"height": SIDE, "width": SIDE},
    "resample": 3,
    "image_mean": [MEAN] * 3,
    "image_std": [SPREAD] * 3,
    "image_processor_type": "CLIPImageProcessorPil",
}


@dataclass(frozen=True)
class TrainConfig:
    """Everything that determines the weights, apart from the art."""

    text: str
    steps: int = 1_300
    batch: int = 96
    scenes: int = 40_000
    kernel_rate: float = 0.01  # Muon
    learning_rate: float = 3e-3  # AdamW, of everything that is not a kernel
    weight_decay: float = 0.1  # of kernels, times the rate
    name_weight: float = 3.0  # of the loss of a name, against 1 of any other word
    warmup: int = 50


def train(config: TrainConfig, run: Run, data: Bank, save_every: int = 50) -> Iterator[dict[str, float]]:
    """Train from the last checkpoint of ``run`` to the end; yields the log line of each step."""
    network, optimizers = prepare(config)
    training = Training(run, network, optimizers)
    weights = torch.tensor([config.name_weight if each in NAMES else 1.0 for each in vocabulary()])
    weights[PAD] = 0
    for step in training.steps(config.steps, every=save_every):
        pixels, tokens = data.batch(step, config.batch)
        loss, numbers = loss_of(network, pixels, tokens, weights, config.name_weight)
        training.update(loss, warm_then_linear(step, config.steps, config.warmup))
        yield {"step": step + 1, "loss": loss.item(), **numbers, **training.spent}


def loss_of(
    network: nn.Module, pixels: Tensor, tokens: Tensor, weights: Tensor, name_weight: float
) -> tuple[Tensor, dict[str, float]]:
    """Weighted cross-entropy of each next word, and how often the best word is right, of names and of the others."""
    tokens = tokens[:, : int((tokens != PAD).sum(1).max())]  # nothing behind the longest text of the batch
    patches = network.encoder(pixel_values=pixels).last_hidden_state  # (batch, 65, 128)
    logits = network.decoder(input_ids=tokens[:, :-1], encoder_hidden_states=patches).logits.flatten(0, 1)
    target = tokens[:, 1:].flatten()  # (batch * words,), against logits (batch * words, vocabulary)
    loss = F.cross_entropy(logits, target, weights)  # the weighted mean
    right, weight = (logits.argmax(-1) == target).float(), weights[target]
    names, others = weight == name_weight, weight == 1
    return loss, {"names": right[names].mean().item(), "others": right[others].mean().item()}


def prepare(config: TrainConfig) -> tuple[nn.Module, list[torch.optim.Optimizer]]:
    """The network at its initial weights, Muon for its inner matrices and AdamW for the rest."""
    network = build().train()
    return network, kernels_and_rest(
        network, lambda name, p: p.ndim == 2 and "embedding" not in name and "wte" not in name and "wpe" not in name,
        kernel_rate=config.kernel_rate, decay=config.weight_decay, rate=config.learning_rate, betas=(0.9, 0.98),
    )  # fmt: skip


def export(run: Run, folder: Path) -> None:
    """Write a transformers folder: half-precision weights, configuration, tokenizer and preprocessing."""
    network = build()
    network.load_state_dict(trained(run, "model.")[0])
    network.generation_config.max_new_tokens = LONGEST - 1
    folder.mkdir(parents=True, exist_ok=True)
    network.half().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    write_json(folder / "config.json", json.loads((folder / "config.json").read_text()))
    write_json(folder / "preprocessor_config.json", PREPROCESSOR)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/emoji-captioner"), help="work folder")
    parser.add_argument("--only", choices=TEXTS, help="one of the two")
    parser.add_argument("--export", action="store_true", help="write what the last checkpoint holds, and stop")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for text in [options.only] if options.only else TEXTS:
        config = TrainConfig(text)
        run = Run(options.out / text, config)
        if not options.export:
            data = bank(options.out / "scenes", config.scenes, text)
            for line in train(config, run, data):
                if line["step"] % 10 == 0:
                    run.log(**line)
                    print(text, " ".join(f"{key} {value:.4g}" for key, value in line.items()), flush=True)
        export(run, WEIGHTS[text])


if __name__ == "__main__":
    main()
