"""Train the oracle: ``python recipes/emoji-oracle/train.py --out runs/emoji-oracle``; ``--side 128``: for larger pictures.

One thread, float32. Kill it at any moment and start it again: it goes on from the last checkpoint and ends with the
same weights. The end writes ``src/photopic/metrics/bundled/emoji-oracle.safetensors`` in half precision and
``card.json``; then ``python -m benchmarks oracle`` measures it on fresh scenes and adds the numbers to the card.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from pictures import KNOWN_SHARE, Batch, Painter, oracle_config
from safetensors.torch import save

from photopic.core.runs import Run, read_log, write_atomically
from photopic.metrics.oracle_network import OracleNetwork, describe

from _common.card import write_card
from _common.training import BFLOAT16, Training, kernels_and_rest, trained, under, warm_then_linear

CARDS = {64: Path(__file__).with_name("card.json"), 128: Path(__file__).with_name("card-128.json")}
FOLDER = Path(__file__).parents[2] / "src/photopic/metrics/bundled"
BUNDLED = {64: FOLDER / "emoji-oracle.safetensors", 128: FOLDER / "emoji-oracle-128.safetensors"}


@dataclass(frozen=True)
class TrainConfig:
    """Everything that determines the weights, apart from the art."""

    steps: int = 2400
    batch: int = 48
    kernel_rate: float = 0.02  # Muon
    learning_rate: float = 5e-3  # AdamW, of everything that is not a kernel
    weight_decay: float = 0.5  # of kernels, times the rate
    warmup: int = 50
    cells: int = 6  # cells of each object whose concept is asked too
    attribute_batches: int = 500  # afterwards, whose objects the style and tint head is fitted to
    attribute_epochs: int = 24
    seed: int = 90210  # apart from every other model's
    side: int = 64  # pixels along a side of the pictures


def losses(network: OracleNetwork, batch: Batch, cells: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Every head's cross-entropy."""
    reading = network(batch.images)
    share = batch.coverage  # (objects, 8, 8)
    total = share.sum((1, 2))[:, None]
    embedding = torch.einsum("oeij,oij->oe", reading.embedding[batch.owner], share)
    features = torch.einsum("ofij,oij->of", reading.features[batch.owner], share) / total
    logits = network.concept_logits(F.normalize(embedding, dim=1))
    picked = torch.multinomial(share.flatten(1), cells, replacement=True, generator=generator)  # (objects, cells)
    at_cells = reading.embedding.flatten(2)[batch.owner[:, None], :, picked]  # (objects, cells, embedding)
    cell_logits = network.concept_logits(at_cells).flatten(0, 1)
    top, bottom, kind = network.background_logits(reading)
    return {
        "concept": F.cross_entropy(logits, batch.concept),
        "cell": 0.5 * F.cross_entropy(cell_logits, batch.concept.repeat_interleave(cells)),
        "foreground": F.binary_cross_entropy_with_logits(reading.foreground, batch.foreground),
        "style": 0.5 * F.cross_entropy(network.to_style(features), batch.style),
        "tint": 0.5 * F.cross_entropy(network.to_tint(features), batch.tint),
        "top": 0.5 * F.cross_entropy(top, batch.top),
        "bottom": 0.5 * F.cross_entropy(bottom, batch.bottom),
        "kind": 0.5 * F.cross_entropy(kind, batch.kind),
        "accuracy": (logits.argmax(1) == batch.concept).float().mean().detach(),
    }


def train(config: TrainConfig, run: Run, save_every: int = 200, bfloat16: bool = False) -> Iterator[dict[str, float]]:
    """Train from the last checkpoint of ``run`` to the end; yields the log line of each step."""
    torch.manual_seed(config.seed)
    painter = Painter(oracle_config(config.side), config.seed)
    network = OracleNetwork(painter.config).to(memory_format=torch.channels_last)
    optimizers = kernels_and_rest(
        network,
        lambda name, p: name == "to_embedding.weight" or (name.startswith("trunk.") and p.ndim > 1),
        kernel_rate=config.kernel_rate,
        decay=config.weight_decay,
        rate=config.learning_rate,
    )
    training = Training(run, network, optimizers, clip=None)
    for step in training.steps(config.steps, every=save_every):
        started = time.monotonic()
        batch = painter.batch(step, config.batch)
        drawn = time.monotonic()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            parts = losses(network, batch, config.cells, torch.Generator().manual_seed(step))
        loss = sum(value for name, value in parts.items() if name != "accuracy")
        training.update(loss, warm_then_linear(step, config.steps, config.warmup))
        line = {"step": step + 1, "draw_s": drawn - started, "step_s": time.monotonic() - drawn, "loss": loss.item()}
        yield line | {name: value.item() for name, value in parts.items()}


def train_attributes(config: TrainConfig, run: Run) -> Iterator[dict[str, float]]:
    """Fit the style and tint head over the frozen network; interrupted, it starts again and ends the same."""
    saved = run.load()
    assert saved is not None and saved[1]["step"] >= config.steps, f"{run.folder}: train the network first"
    if saved[1].get("attributes"):
        return
    torch.manual_seed(config.seed + 1)
    painter = Painter(oracle_config(config.side), config.seed + 1, tinted=0.3)
    network = OracleNetwork(painter.config).to(memory_format=torch.channels_last)
    learnt = under(saved[0], "model.")
    network.load_state_dict(network.state_dict() | {k: v for k, v in learnt.items() if not k.startswith("attributes")})
    network.eval().requires_grad_(False)
    rows, styles, tints = [], [], []
    for step in range(config.attribute_batches):
        started = time.monotonic()
        batch = painter.batch(step, config.batch)
        drawn = time.monotonic()
        with torch.no_grad():
            reading = network(batch.images)
        share = batch.coverage * reading.foreground.sigmoid()[batch.owner]  # as it will be weighed when judging
        rows.append(describe(reading.moments[batch.owner], reading.embedding[batch.owner], share))
        styles.append(batch.style)
        tints.append(batch.tint)
        yield {"step": step + 1, "draw_s": drawn - started, "step_s": time.monotonic() - drawn}
    yield from _fit_head(config, network, torch.cat(rows), torch.cat(styles), torch.cat(tints))
    run.save({f"model.{name}": value for name, value in network.state_dict().items()}, saved[1] | {"attributes": True})


def _fit_head(
    config: TrainConfig, network: OracleNetwork, rows: torch.Tensor, styles: torch.Tensor, tints: torch.Tensor
) -> Iterator[dict[str, float]]:
    """Passes over the described objects with a linearly falling rate."""
    head = network.attributes.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(head.parameters(), lr=2e-3, weight_decay=0.05)
    generator = torch.Generator().manual_seed(config.seed)
    for epoch in range(config.attribute_epochs):
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - epoch / config.attribute_epochs)
        right = 0
        started = time.monotonic()
        for picked in torch.randperm(len(rows), generator=generator).split(256):
            style, tint = network.attribute_logits(rows[picked])
            loss = F.cross_entropy(style, styles[picked]) + F.cross_entropy(tint, tints[picked])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            right += int((style.argmax(1) == styles[picked]).sum())
        line = {"epoch": epoch + 1, "step": 25, "draw_s": 0.0, "step_s": (time.monotonic() - started) / 25}
        yield line | {"attribute_loss": loss.item(), "style_accuracy": right / len(rows)}
    head.eval().requires_grad_(False)


def export(run: Run, path: Path, side: int) -> None:
    """Write the weights of the last checkpoint in half precision, with the network's configuration as metadata."""
    weights = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in sorted(trained(run, "model.")[0].items())
        if not name.endswith("num_batches_tracked")
    }
    metadata = {"photopic": json.dumps(asdict(oracle_config(side)), sort_keys=True)}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, save(weights, metadata))


def write_oracle_card(config: TrainConfig, run: Run, weights: Path) -> None:
    """What was trained, on what, and how the log ended; ``benchmarks/metrics/oracle.py`` adds what it reaches."""
    lines, network = read_log(run.folder), oracle_config(config.side)
    card = {
        "weights": weights.name,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "size_bytes": weights.stat().st_size,
        "config": asdict(config),
        "concepts": len(network.concepts),
        "styles": network.styles,
        "objects_known_share": KNOWN_SHARE,
        "pictures": config.steps * config.batch,
        "elapsed_s_estimated": round(
            25 * sum(line["draw_s"] + line["step_s"] for line in lines)
        ),  # every 25th step is logged
        "last_losses": [line for line in lines if "concept" in line][-1],
    }
    write_card(CARDS[config.side], card)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/emoji-oracle"), help="run folder")
    parser.add_argument("--steps", type=int, default=TrainConfig.steps)
    parser.add_argument("--side", type=int, choices=(64, 128), default=64, help="pixels along a side of the pictures")
    parser.add_argument("--weights", type=Path, help="where the finished weights go; by default the bundled file")
    parser.add_argument("--bfloat16", action="store_true", help=BFLOAT16)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = TrainConfig(steps=options.steps, batch=48 if options.side == 64 else 24, side=options.side)
    run, weights = Run(options.out, config), options.weights or BUNDLED[config.side]
    for phase in (partial(train, bfloat16=options.bfloat16), train_attributes):
        for line in phase(config, run):
            if line["step"] % 25 == 0:
                run.log(**{name: round(value, 4) for name, value in line.items()})
    export(run, weights, config.side)
    if weights == BUNDLED[config.side]:
        write_oracle_card(config, run, weights)


if __name__ == "__main__":
    main()
