"""Train the bank of classifiers: ``python recipes/emoji-classifiers/train.py --out runs/emoji-classifiers``.

Eight models, one after the other: four networks, two seeds each. One thread, float32. Kill it at any moment and start it again:
it goes on from the last checkpoint and ends with the same weights. Every finished model is written to
``src/photopic/models/bundled/emoji-<network>-<seed>/`` in half precision; ``card.py`` then measures them all.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from networks import PREPROCESSOR, SHAPES, build
from pictures import Painter
from torch import nn

from photopic.core.runs import Run

from _common.card import write_json
from _common.training import Training, kernels_and_rest, trained, warm_then_linear

BUNDLED = Path(__file__).parents[2] / "src/photopic/models/bundled"
ORDER = [(network, seed) for seed in (0, 1) for network in ("resnet-64", "vit-64", "resnet-256", "vit-256")]


@dataclass(frozen=True)
class TrainConfig:
    """Everything that determines the weights, apart from the art."""

    network: str
    seed: int  # of the data order and the augmentation; the initial weights are one for both seeds
    steps: int
    batch: int = 128
    kernel_rate: float = 0.02  # Muon
    learning_rate: float = 4e-3  # AdamW, of everything that is not a kernel
    weight_decay: float = 0.3  # of kernels, times the rate
    smoothing: float = 0.1  # of the labels
    warmup: int = 30


def config_of(network: str, seed: int) -> TrainConfig:
    """How a model of the bank is trained."""
    return TrainConfig(network, seed, steps=SHAPES[network].steps)


def train(config: TrainConfig, run: Run, save_every: int = 100) -> Iterator[dict[str, float]]:
    """Train from the last checkpoint of ``run`` to the end; yields the log line of each step."""
    network, optimizers = prepare(config)
    training = Training(run, network, optimizers, clip=None)
    painter = Painter(config.seed)
    for step in training.steps(config.steps, every=save_every):
        images, labels = painter.batch(step, config.batch, strength=step / config.steps)
        logits = network(images).logits
        loss = F.cross_entropy(logits, labels, label_smoothing=config.smoothing)
        training.update(loss, warm_then_linear(step, config.steps, config.warmup))
        accuracy = (logits.argmax(1) == labels).float().mean()
        yield {"step": step + 1, "loss": loss.item(), "accuracy": accuracy.item(), **training.spent}


def prepare(config: TrainConfig) -> tuple[nn.Module, list[torch.optim.Optimizer]]:
    """The network at its initial weights, Muon for its inner kernels and AdamW for the rest."""
    network = build(config.network).train()
    if SHAPES[config.network].kind == "resnet":
        network.to(memory_format=torch.channels_last)
    return network, kernels_and_rest(
        network, lambda name, p: p.ndim in (2, 4) and "classifier" not in name, kernel_rate=config.kernel_rate,
        decay=config.weight_decay, rate=config.learning_rate, betas=(0.9, 0.99),
    )  # fmt: skip


def export(config: TrainConfig, run: Run, folder: Path) -> None:
    """Write a transformers folder: half-precision weights, configuration and preprocessing."""
    network = build(config.network)
    network.load_state_dict(trained(run, "model.")[0])
    folder.mkdir(parents=True, exist_ok=True)
    network.half().save_pretrained(folder)  # so names and metadata are those of transformers
    (folder / "model.safetensors").chmod(0o644)
    stated = json.loads((folder / "config.json").read_text())
    stated.pop("label2id", None)  # follows from id2label
    write_json(folder / "config.json", stated, indent=0)
    write_json(folder / "preprocessor_config.json", PREPROCESSOR)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/emoji-classifiers"), help="work folder")
    parser.add_argument("--weights", type=Path, default=BUNDLED, help="where the finished models go")
    parser.add_argument("--only", nargs="*", help="names such as resnet-64-0; default all eight")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for network, seed in ORDER:
        name = f"{network}-{seed}"
        if options.only and name not in options.only:
            continue
        config = config_of(network, seed)
        run = Run(options.out / name, config)
        for line in train(config, run):
            if line["step"] % 25 == 0 or line["step"] == config.steps:
                run.log(**{key: round(value, 4) for key, value in line.items()})
        export(config, run, options.weights / f"emoji-{name}")


if __name__ == "__main__":
    main()
