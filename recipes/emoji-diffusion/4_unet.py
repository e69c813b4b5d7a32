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

from _common.denoiser import Config, Parts, main, parser_of


def unet(config: Config) -> UNet2DConditionModel:
    if config.start == "bundled":
        return UNet2DConditionModel.from_pretrained(MODEL / "unet", dtype=torch.float32)
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(48, 96, 192),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=192,
        attention_head_dim=6,  # diffusers' name for the number of heads
        norm_num_groups=16,
    )


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,  # latents are not pixels
        set_alpha_to_one=False,
        steps_offset=1,
    )


PARTS = Parts(unet, scheduler, text=MODEL, vae=MODEL / "vae")

if __name__ == "__main__":
    arguments = parser_of(__doc__ or "", Config(), ("random", "bundled")).parse_args()
    main(arguments, PARTS, Config(), RUNS, RUNS / "latents", MODEL)
