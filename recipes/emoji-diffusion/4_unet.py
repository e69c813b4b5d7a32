"""Stage 4: the denoising UNet, on one process or several.

    python recipes/emoji-diffusion/4_unet.py                       # one process, resumes from runs/emoji-diffusion/unet
    python recipes/emoji-diffusion/4_unet.py --processes 2         # gradients averaged over processes (gloo)
    python recipes/emoji-diffusion/4_unet.py --export              # write the averaged weights into the bundled model
    python recipes/emoji-diffusion/4_unet.py --name unet-2 --start bundled --train-text --compile --steps 6000 --lr 1.5e-3

The last line trains the exported weights on, and the text encoder with them: the contrastive loss of stage 2 never asks
which object is where, so a frozen encoder leaves the UNet to work out "left of" by itself.
"""

from __future__ import annotations

import torch
from common import MODEL, RUNS
from diffusers import DDIMScheduler, UNet2DConditionModel

from _common.denoiser import Config, Parts, main, parser_of, scheduler_of, unet_of


def unet(config: Config) -> UNet2DConditionModel:
    if config.start == "bundled":
        return UNet2DConditionModel.from_pretrained(MODEL / "unet", dtype=torch.float32)
    return unet_of(4, (48, 96, 192), (False, True, True), heads=6)


def scheduler() -> DDIMScheduler:
    return scheduler_of("scaled_linear", beta_start=0.00085, beta_end=0.012)


PARTS = Parts(unet, scheduler, text=MODEL, vae=MODEL / "vae")

if __name__ == "__main__":
    arguments = parser_of(__doc__ or "", Config(), ("random", "bundled")).parse_args()
    main(arguments, PARTS, Config(), RUNS, RUNS / "latents", MODEL)
