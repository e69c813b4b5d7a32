"""Stage 5: the card of the exported model: how each stage was run, and what benchmarks/models/bundled_model.py measured.

python recipes/emoji-diffusion/5_card.py            # after --export and the benchmark; writes card.json beside this file
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from common import KNOWN, MODEL, RUNS, STYLES
from safetensors import safe_open

from photopic.core.runs import read_log

from _common.card import write_card

HERE = Path(__file__).parent
RESULT = HERE.parents[1] / "benchmarks" / "results" / "bundled-model.json"
STAGES = {
    "autoencoder": ("vae",),
    "text_encoder": (),
    "unet": (),
    "unet-2": ("unet", "text_encoder"),
}  # run: parts it wrote last


def stage(name: str, parts: tuple[str, ...]) -> dict[str, object]:
    """Configuration, last log line and weights of one stage; the log of an interrupted run restarts its clock."""
    folder = RUNS / name
    lines = read_log(folder)
    clocks = [line["elapsed_s"] for line in lines]
    spans = [now for now, after in zip(clocks, [*clocks[1:], 0.0], strict=True) if after < now]  # last of every process
    return {
        "config": json.loads((folder / "config.json").read_text()),
        "steps": lines[-1]["step"],
        "last": {key: value for key, value in lines[-1].items() if key not in ("elapsed_s", "step")},
        "elapsed_s": round(sum(spans)),
        "wrote": {part: weights_of(part) for part in parts},
    }


def weights_of(part: str) -> dict[str, object]:
    """How many weights a part of the model has, and the hash of their file."""
    path = next((MODEL / part).glob("*.safetensors"))
    with safe_open(path, "pt") as file:
        count = sum(file.get_tensor(key).numel() for key in file.keys())
    return {"weights": count, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def main() -> None:
    reached = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else []
    card = {
        "stages": {name: stage(name, parts) for name, parts in STAGES.items()},
        "concepts": list(KNOWN),
        "styles": list(STYLES),
        "scenes_encoded": sum(1000 for _ in (RUNS / "latents").glob("*.safetensors")),
        "reached": reached,
    }
    write_card(HERE / "card.json", card)
    print(f"wrote {HERE.name}/card.json with {len(reached)} measured rows")


if __name__ == "__main__":
    main()
