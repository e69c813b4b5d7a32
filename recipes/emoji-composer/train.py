"""emoji-diffusion taught to read conditions, by ``photopic train conditions`` on scenes of its known concepts.

python recipes/emoji-composer/train.py             # scenes taken apart and encoded, then the training; resumes
python recipes/emoji-composer/train.py --export    # the average of the last checkpoint, in half precision
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from photopic.core.runs import Run
from photopic.data.conditioned_pictures import ConditionedPictures
from photopic.data.conditions import EIGHT
from photopic.learning.condition_dropout import ALL, DROP, DROP_INTENSITY, NONE
from photopic.models.dual_encoder import DualEncoder
from photopic.models.files import BUNDLED
from photopic.models.text_to_image.condition_files import About, write_encoder
from photopic.models.text_to_image.conditional import ConditionalTextToImage
from photopic.models.text_to_image.handle import TextToImage
from photopic.train.diffusion.conditions import ConditionsConfig, conditions, fresh_adapter

sys.path.append(str(Path(__file__).parents[1]))
from _common.training import trained

RUNS = Path(__file__).parents[2] / "runs" / "emoji-composer"
TARGET = BUNDLED / "emoji-composer"
SCENES = 6_000
CONFIG = ConditionsConfig(steps=2_600, batch=32, lr=1e-3, ema=0.99, seed=2302)


def train(config: ConditionsConfig, scenes: int, folder: Path) -> ConditionalTextToImage:
    data = ConditionedPictures(f"emoji-scenes:{scenes}")
    model = TextToImage.load("emoji-diffusion", device="cpu")
    model.unet.to(memory_format=torch.channels_last)
    encoder = DualEncoder.load("emoji-clip-vit", device="cpu")
    began, result = time.process_time(), None
    for event in conditions.events(model, data, encoder, config=config, run=Run(folder)):
        if event.done % 50 == 0 or event.result is not None:
            spent = {"processor_s": round(time.process_time() - began), **event.numbers}
            print(json.dumps({"stage": event.stage, "done": event.done, **spent}), flush=True)
        result = event.result or result
    assert result is not None
    return result


def export(folder: Path, target: Path) -> None:
    """The average of the run's last checkpoint, beside the bundled base, whose weights are not written again."""
    weights, state = trained(Run(folder), "ema.")
    model, encoder = TextToImage.load("emoji-diffusion", device="cpu"), DualEncoder.load("emoji-clip-vit", device="cpu")
    adapter = fresh_adapter(model, tuple(name for name in EIGHT if name != "caption"), encoder)
    adapter.load_state_dict(weights)
    drop = {"each": DROP, "intensity": DROP_INTENSITY, "none": NONE, "all": ALL}
    facts = {"recipe": "emoji-composer", "scenes": SCENES, "steps": state["step"], "of": CONFIG.steps}
    target.mkdir(parents=True, exist_ok=True)
    write_encoder(target, adapter, About("emoji-diffusion", encoder.name, encoder.digest(), drop, facts))
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    (target / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    print(json.dumps({path.name: path.stat().st_size for path in sorted(target.iterdir())}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--export", action="store_true", help="write the last checkpoint's average into the bundled model, and stop"
    )
    parser.add_argument("--steps", type=int, default=CONFIG.steps)
    parser.add_argument("--scenes", type=int, default=SCENES)
    parser.add_argument("--shuffle", action="store_true", help="conditions of other pictures: the control")
    parser.add_argument("--name", default="adapter", help="run folder")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    chosen = replace(CONFIG, steps=arguments.steps, shuffle=arguments.shuffle)
    if arguments.export:
        export(RUNS / arguments.name, TARGET)
    else:
        train(chosen, arguments.scenes, RUNS / arguments.name)
