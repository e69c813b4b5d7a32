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

from _common.denoiser import Config, Parts, main, parser_of

CONFIG = Config(steps=20_000, batch=64, lr=1.5e-3, decay=0.4, ema=0.999, save_every=200)


def unet(config: Config) -> UNet2DConditionModel:
    """13 million weights, 405,504 of them keys and values of cross-attention: on the two finer grids and in the middle."""
    if config.start == "landed":
        return UNet2DConditionModel.from_pretrained(LANDED / "unet")
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=16,
        out_channels=16,
        layers_per_block=1,
        block_out_channels=(96, 192, 192),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=192,
        attention_head_dim=8,  # diffusers' name for the number of heads
        norm_num_groups=16,
    )


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",  # 8x8 latents repeat little: less noise hides them than hides larger ones
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,  # latents are not pixels
        set_alpha_to_one=False,
        steps_offset=1,
    )


def parts() -> Parts:
    """The text encoder of checkpoint/ once it was trained along, before that the first edition's."""
    text = LANDED if (LANDED / "text_encoder").is_dir() else FIRST_EDITION
    return Parts(unet, scheduler, text=text, vae=LANDED / "vae")


if __name__ == "__main__":
    parser = parser_of(__doc__ or "", CONFIG, ("random", "landed"))
    parser.add_argument("--size", type=int, choices=(64, 128), default=64, help="of the scenes it learns from")
    arguments = parser.parse_args()
    main(arguments, parts(), CONFIG, RUNS, RUNS / f"latents-{arguments.size}", LANDED)
