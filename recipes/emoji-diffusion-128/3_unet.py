"""Stage 3: the denoising UNet: one thing at 64 px first, then one to four at 128 px, on one process or several.

    python recipes/emoji-diffusion-128/3_unet.py --size 64 --name unet-64 --processes 2      # resumes from its run folder
    python recipes/emoji-diffusion-128/3_unet.py --size 64 --name unet-64 --export           # into checkpoint/
    python recipes/emoji-diffusion-128/3_unet.py --size 128 --name unet-128 --start landed --train-text --processes 2
    python recipes/emoji-diffusion-128/3_unet.py --size 128 --name unet-128 --start landed --train-text --export

The second size trains the text encoder along, as the first edition had to: its frozen states do not say which thing is where.
"""

from __future__ import annotations

from common import FIRST_EDITION, LANDED, RUNS
from diffusers import DDIMScheduler, UNet2DConditionModel

from _common.denoiser import Config, Parts, main, parser_of, scheduler_of, unet_of

HEADS = (4, 8, 8)  # 24 numbers each: on 256 cells eight of 12 took two and a half times as long
CONFIG = Config(steps=20_000, batch=128, lr=2e-3, decay=0.4, ema=0.999, save_every=200)


def unet(config: Config) -> UNet2DConditionModel:
    """13 million weights, 405,504 of them keys and values of cross-attention: on the two finer grids and in the middle."""
    if config.start == "landed":
        return UNet2DConditionModel.from_pretrained(LANDED / "unet")
    return unet_of(16, (96, 192, 192), (True, True, False), heads=HEADS)


def scheduler() -> DDIMScheduler:
    return scheduler_of("squaredcos_cap_v2")  # 8x8 latents repeat little: less noise hides them than hides larger ones


def parts() -> Parts:
    """The text encoder of checkpoint/ once it was trained along, before that the first edition's."""
    text = LANDED if (LANDED / "text_encoder").is_dir() else FIRST_EDITION
    return Parts(unet, scheduler, text=text, vae=LANDED / "vae")


if __name__ == "__main__":
    parser = parser_of(__doc__ or "", CONFIG, ("random", "landed"))
    parser.add_argument("--size", type=int, choices=(64, 128), default=64, help="of the scenes it learns from")
    arguments = parser.parse_args()
    main(arguments, parts(), CONFIG, RUNS, RUNS / f"latents-{arguments.size}", LANDED)
