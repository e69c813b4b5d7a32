"""How the trainings went: ``python recipes/emoji-processes/card.py --out runs/emoji-processes`` writes ``card.json`` and a picture.

Of every run its steps, seconds and last losses; of the first seed's runs the distance on the way, drawn from the snapshots.
What the finished runs are compared by is in `benchmarks/train/dvdp.py` and `benchmarks/train/shared_timesteps.py`.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from train import SNAPSHOT, names
from variants import CHANNELS, CONCEPTS, TRAINING, TURNING, VARIANTS, pictures

from photopic.core.runs import read_log
from photopic.metrics.frechet import frechet_distance
from photopic.models.diffusion.dimensionality import pixel_share
from photopic.models.diffusion.model import DiffusionModel
from photopic.models.dual_encoder import DualEncoder

from _common.card import write_card

CARD = Path(__file__).with_name("card.json")
PICTURE = Path(__file__).parents[2] / "docs" / "images" / "emoji-processes-curves.svg"
CURVES = ("plain", "varying", "steady", "shared")
DRAWN, STEPS = 128, 10  # pictures of a point of the curve, and DPM-Solver++ steps each


def logged(folder: Path) -> dict[str, Any]:
    """Steps, seconds of the process that ended the run, and the mean of its last losses."""
    lines = read_log(folder)
    last = lines[-200:]
    return {
        "steps": lines[-1]["step"],
        "seconds": round(lines[-1]["elapsed_s"]),
        "last_losses": round(float(np.mean([line["loss"] for line in last])), 5),
    }


def is_done(folder: Path) -> bool:
    """Whether a run came to its end."""
    return DiffusionModel.is_saved(folder / "model")


def smoothed(folder: Path, width: int = 100) -> tuple[list[int], list[float]]:
    """Loss by step, means of ``width`` steps."""
    losses = [line["loss"] for line in read_log(folder)]
    parts = [losses[start : start + width] for start in range(0, len(losses), width)]
    return [min(len(losses), (i + 1) * width) for i in range(len(parts))], [float(np.mean(part)) for part in parts]


def distances(out: Path, kind: str, encoder: DualEncoder) -> dict[int, float]:
    """By step, of the first seed's run."""
    folder = out / f"{kind}-0"
    found = {}
    real = encoder.image_features(pictures(64, True).numpy()).numpy()
    for path in sorted((folder / "snapshots").iterdir(), key=lambda path: int(path.name)):
        if int(path.name) % (2 * SNAPSHOT) and int(path.name) != SNAPSHOT:
            continue
        model = DiffusionModel.load(path)
        drawn = [model.draw(range(start, start + 32), solver="dpm++", steps=STEPS) for start in range(0, DRAWN, 32)]
        found[int(path.name)] = round(frechet_distance(encoder.image_features(np.concatenate(drawn)).numpy(), real), 4)
        print(kind, path.name, found[int(path.name)], flush=True)
    return found


def draw(out: Path, curves: dict[str, dict[int, float]]) -> None:
    """Loss and distance by step, the first seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8.4, 3.4))
    for kind in CURVES:
        left.plot(*smoothed(out / f"{kind}-0"), label=kind, linewidth=1)
        right.plot(list(curves[kind]), list(curves[kind].values()), "o-", label=kind, linewidth=1, markersize=3)
    left.set(yscale="log", xlabel="step", ylabel="loss (of its own sizes and times)")
    right.set(xlabel="step", ylabel=f"Fréchet distance, {DRAWN} pictures of {STEPS} steps", ylim=(0, None))
    for axes in (left, right):
        axes.grid(True, alpha=0.3)
    right.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(PICTURE, metadata={"Date": None})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/emoji-processes"), help="work folder")
    options = parser.parse_args()
    torch.set_num_threads(1)
    encoder = DualEncoder.load("emoji-clip-vit")
    curves = {kind: distances(options.out, kind, encoder) for kind in CURVES}
    network = DiffusionModel.load(options.out / "plain-0" / "model").network
    card = {
        "network": {"channels": CHANNELS, "parameters": sum(each.numel() for each in network.parameters())},
        "pictures": {"scenes": TRAINING, "concepts": CONCEPTS},
        "turning": TURNING,
        "kinds": {
            kind: {"about": each.about, "size": each.size, "pixel_share": round(pixel_share(each.process), 3)}
            | {"config": {**asdict(each.config), "seed": None}}
            for kind, each in VARIANTS.items()
        },
        "runs": {name: logged(options.out / name) for name in names() if is_done(options.out / name)},
        "distance_on_the_way": curves,
    }
    write_card(CARD, card)
    draw(options.out, curves)


if __name__ == "__main__":
    main()
