"""Train the processes: ``python recipes/emoji-processes/train.py --out runs/emoji-processes``.

Every variant of `variants.py` for three seeds, or the runs that are named. One thread, float32. Kill it at any moment and start it
again: it goes on from the last checkpoint and ends with the same weights. ``--only`` shares the runs among processes.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from rich.progress import Progress
from variants import CHANNELS, VARIANTS, pictures

from photopic.models.diffusion.model import DiffusionModel
from photopic.models.diffusion.networks import unet
from photopic.train.diffusion.training import train_events

SEEDS = (0, 1, 2)
SINGLE = ("steady", "plain-128", "varying-128")  # one seed alone
SNAPSHOT = 500  # steps


def names() -> list[str]:
    """All runs, such as ``varying-1``; those that start from another come after it."""
    return [f"{variant}-{seed}" for variant in VARIANTS for seed in (SEEDS[:1] if variant in SINGLE else SEEDS)]


def train(name: str, out: Path, progress: Progress) -> None:
    """One run, from where it is; its model is written to ``model/`` and, on the way, to ``snapshots/``."""
    variant, seed = name.rsplit("-", 1)
    chosen = VARIANTS[variant]
    images = pictures(chosen.size)
    network = unet(chosen.size, CHANNELS, levels=chosen.process.pyramid.levels, seed=int(seed))
    if chosen.start is not None:
        network.load_state_dict(DiffusionModel.load(out / f"{chosen.start}-{seed}" / "model").network.state_dict())
    config = replace(chosen.config, seed=int(seed))
    task = progress.add_task(name, total=config.steps)
    for event in train_events(network, chosen.process, images, out / name, config, save_every=SNAPSHOT // 2):
        progress.update(task, completed=event.done)
        if event.result is not None and event.done % SNAPSHOT == 0:
            event.result.save(out / name / "snapshots" / str(event.done))
        if event.stage == "done" and event.result is not None:
            event.result.save(out / name / "model")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/emoji-processes"), help="work folder")
    parser.add_argument("--only", nargs="*", help=f"of {', '.join(names())}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with Progress() as progress:
        for name in options.only or names():
            if not DiffusionModel.is_saved(options.out / name / "model"):
                train(name, options.out, progress)


if __name__ == "__main__":
    main()
