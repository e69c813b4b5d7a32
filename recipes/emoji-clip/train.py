"""Train the two dual encoders: ``python recipes/emoji-clip/train.py --out runs/emoji-clip``.

One after the other, or with ``--only vit`` and ``--only cnn`` side by side; one thread each, float32. Kill it at any moment and
start it again: it goes on from the last checkpoint and ends with the same weights. Every finished model is written to
``src/photopic/models/bundled/emoji-clip-<kind>/`` in half precision; ``card.py`` then measures both.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from networks import PREPROCESSOR, SEEDS, build, tokenizer
from pictures import Bank, bank
from torch import Tensor, nn
from torch.nn import functional as F

from photopic.core.runs import Run

from _common.card import write_json
from _common.training import Training, kernels_and_rest, trained, warm_then_linear

BUNDLED = Path(__file__).parents[2] / "src/photopic/models/bundled"
SCALE_LIMIT = 100.0  # of the logits, as CLIP clips it


@dataclass(frozen=True)
class TrainConfig:
    """Everything that determines the weights, apart from the art."""

    kind: str
    steps: int = 1_600
    batch: int = 192
    scenes: int = 48_000
    kernel_rate: float = 0.02  # Muon
    learning_rate: float = 3e-3  # AdamW, of everything that is not a kernel
    weight_decay: float = 0.1  # of kernels, times the rate
    warmup: int = 50
    naming_steps: int = (
        1_200  # after that: single objects and their names, so that the background does not tell them apart
    )
    naming_batch: int = 256
    naming_rate: float = 0.6  # of the learning rates, at its peak

    @property
    def all_steps(self) -> int:
        """Of both phases."""
        return self.steps + self.naming_steps


def train(config: TrainConfig, run: Run, data: Bank, save_every: int = 100) -> Iterator[dict[str, float]]:
    """Train from the last checkpoint of ``run`` to the end; yields the log line of each step."""
    network, optimizers = prepare(config)
    training = Training(run, network, optimizers, clip=None)
    for step in training.steps(config.all_steps, every=save_every):
        loss, accuracy = contrast(network, *batch_of(step, config, data))
        training.update(loss, schedule(step, config))
        yield {"step": step + 1, "loss": loss.item(), "accuracy": accuracy.item(), **training.spent}


def batch_of(step: int, config: TrainConfig, data: Bank) -> tuple[Tensor, Tensor]:
    """First scenes with their captions; then three batches of names for one of those."""
    if step < config.steps or step % 4 == 0:
        return data.batch(step, config.batch, SEEDS[config.kind])
    return data.names(step, config.naming_batch, SEEDS[config.kind])


def contrast(network: nn.Module, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """CLIP's symmetric loss over the batch; texts that are the same sentence count as right for each other."""
    image = F.normalize(network.get_image_features(pixel_values=pixels).pooler_output, dim=-1)
    text = F.normalize(network.get_text_features(input_ids=tokens).pooler_output, dim=-1)
    logits = network.logit_scale.exp().clamp(max=SCALE_LIMIT) * image @ text.mT  # (images, texts)
    same = (tokens[:, None] == tokens[None]).all(-1).float()
    target = same / same.sum(1, keepdim=True)  # symmetric, as ``same`` is, up to the normalisation that it shares
    loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.mT, target)) / 2
    return loss, same.gather(1, logits.argmax(1, keepdim=True)).mean()


def prepare(config: TrainConfig) -> tuple[nn.Module, list[torch.optim.Optimizer]]:
    """The network at its initial weights, Muon for its inner matrices and AdamW for the rest."""
    network = build(config.kind).train()
    if config.kind == "cnn":
        network.vision_model.to(memory_format=torch.channels_last)
    outer = ("embedding", "projection", "dwconv")
    return network, kernels_and_rest(
        network, lambda name, p: p.ndim in (2, 4) and not any(part in name for part in outer),
        kernel_rate=config.kernel_rate, decay=config.weight_decay, rate=config.learning_rate, betas=(0.9, 0.98),
    )  # fmt: skip


def schedule(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then linear to zero, in each phase."""
    if step < config.steps:
        return warm_then_linear(step, config.steps, config.warmup)
    return config.naming_rate * warm_then_linear(step - config.steps, config.naming_steps, config.warmup)


def export(config: TrainConfig, run: Run, folder: Path) -> None:
    """Write a transformers folder: half-precision weights, configuration, tokenizer and preprocessing."""
    network = build(config.kind)
    network.load_state_dict(trained(run, "model.")[0])
    folder.mkdir(parents=True, exist_ok=True)
    network.half().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    write_json(folder / "config.json", json.loads((folder / "config.json").read_text()))
    write_json(folder / "preprocessor_config.json", PREPROCESSOR)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/emoji-clip"), help="work folder")
    parser.add_argument("--weights", type=Path, default=BUNDLED, help="where the finished models go")
    parser.add_argument("--only", choices=tuple(SEEDS), help="one of the two")
    parser.add_argument("--export", action="store_true", help="write what the last checkpoint holds, and stop")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for kind in [options.only] if options.only else SEEDS:
        config = TrainConfig(kind)
        run = Run(options.out / kind, config)
        if not options.export:
            data = bank(options.out / "scenes", config.scenes)
            for line in train(config, run, data):
                if line["step"] % 20 == 0:
                    run.log(**line)
                    print(kind, " ".join(f"{key} {value:.4g}" for key, value in line.items()), flush=True)
        export(config, run, options.weights / f"emoji-clip-{kind}")


if __name__ == "__main__":
    main()
