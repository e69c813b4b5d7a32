"""Write the card of the captioner: ``python recipes/emoji-captioner/card.py --out runs/emoji-captioner``.

What the weights are and how they were made, of the captioner and of its baseline. What they reach is measured by ``python -m
benchmarks bacon-captions``.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from train import TEXTS, WEIGHTS, TrainConfig

from photopic.core.runs import Run
from photopic.models.captioner import Captioner

from _common.card import file_facts, trained_facts, write_card

CARD = Path(__file__).with_name("card.json")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/emoji-captioner"), help="work folder of train.py")
    options = parser.parse_args()
    models = {}
    for text in TEXTS:
        folder, config = WEIGHTS[text], TrainConfig(text)
        facts = trained_facts(Run(options.out / text, config), config.steps)
        models[folder.name] = file_facts(folder) | {
            "config": asdict(config),
            "parameters": Captioner.load(folder, "cpu").parameter_count,
            "processor_s": facts["state"]["processor_s"],
            "last_line": facts["last_line"],
        }
    write_card(CARD, {"models": models})


if __name__ == "__main__":
    main()
