"""emoji-diffusion taught to inpaint: a mask and the latents of the masked picture as five more input channels.

python recipes/emoji-inpainting/train.py             # scenes encoded with their masks, then the training; resumes
python recipes/emoji-inpainting/train.py --export    # the weights that differ from emoji-diffusion's, in half precision
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from jaxtyping import Bool
from safetensors.torch import load_file, save_file
from scipy.ndimage import binary_dilation
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from photopic.core.numerics.muon import muon_and_adamw
from photopic.core.runs import Run
from photopic.data.scenes import Scene, sample_scene

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "emoji-diffusion")]
from common import KNOWN_SCENES, MODEL

from _common.pictures import pixels
from _common.training import Training, trained, warm_then_linear

RUNS = Path(__file__).parents[2] / "runs" / "emoji-inpainting"
TARGET = MODEL.parent / "emoji-inpainting" / "unet" / "inpainting.safetensors"
ENDS = ("unet.conv_in", "unet.conv_out")
LEARNT = ("conv_in", "conv_norm_out", "conv_out", "down_blocks.0", "down_blocks.1", "up_blocks.1", "up_blocks.2")
SCENES = replace(KNOWN_SCENES, objects=(0.25, 0.75, 0.0, 0.0))


@dataclass(frozen=True)
class Config:
    """What determines the weights, apart from the first ones."""

    steps: int = 1_600
    batch: int = 32
    lr: float = 1e-3
    warmup: int = 50
    ema: float = 0.99
    snr_limit: float = 5.0
    unconditional: float = 0.1  # share of captions replaced by the empty one
    scenes: int = 8_000
    seed: int = 71


def drawn_region(scene: Scene, rng: np.random.Generator) -> Bool[np.ndarray, "size size"]:
    """The pixels to draw: all around one object (half), one object's box, a rectangle or all but one, everything."""
    size, kind = len(scene.image), rng.random()
    if kind < 0.5:
        kept = scene.masks[rng.integers(len(scene.masks))]
        return ~binary_dilation(kept, iterations=int(rng.integers(1, 5)))
    if kind < 0.75:
        left, top, right, bottom = scene.boxes[rng.integers(len(scene.boxes))]
    else:
        (left, right), (top, bottom) = (np.sort(rng.integers(0, size + 1, 2)) for _ in range(2))
    margin = rng.integers(0, 5)
    box = np.zeros((size, size), bool)
    box[max(0, int(top) - margin) : int(bottom) + margin, max(0, int(left) - margin) : int(right) + margin] = True
    return np.ones_like(box) if kind > 0.95 else ~box if kind > 0.85 else box


@torch.no_grad()
def bank(config: Config, path: Path) -> dict[str, Tensor]:
    """Scenes encoded once: scaled latents, those of the masked picture, the mask in cells, token ids."""
    if not path.exists():
        vae = AutoencoderKL.from_pretrained(MODEL / "vae", torch_dtype=torch.float32).to(
            memory_format=torch.channels_last
        )
        tokenizer = CLIPTokenizer.from_pretrained(MODEL / "tokenizer")
        parts: list[dict[str, Tensor]] = []
        for at in range(0, config.scenes, 50):
            scenes = [sample_scene(SCENES, (config.seed, index)) for index in range(at, at + 50)]
            regions = [
                drawn_region(scene, np.random.default_rng((config.seed, at + k, 1))) for k, scene in enumerate(scenes)
            ]
            drawn = torch.from_numpy(np.stack(regions))[:, None].float()  # (50, 1, size, size)
            images = pixels(scenes)
            both = torch.cat([images, images * (1 - drawn)]).contiguous(memory_format=torch.channels_last)
            latents = vae.encode(both).latent_dist.mean * vae.config.scaling_factor
            ids = tokenizer([scene.caption for scene in scenes], padding="max_length", truncation=True).input_ids
            parts.append(
                {
                    "latents": latents[:50].half().contiguous(),
                    "masked": latents[50:].half().contiguous(),
                    "mask": F.max_pool2d(drawn, 4).half(),
                    "ids": torch.tensor(ids, dtype=torch.int16),
                }
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: torch.cat([part[name] for part in parts]) for name in parts[0]}, path)
    return load_file(path)


def unet_with_mask() -> UNet2DConditionModel:
    """The bundled UNet with nine input channels; the five new ones weigh nothing at first."""
    plain = UNet2DConditionModel.from_pretrained(MODEL / "unet", dtype=torch.float32)
    unet = UNet2DConditionModel.from_config({**plain.config, "in_channels": 9})
    weights = plain.state_dict()
    first = torch.zeros_like(unet.conv_in.weight)
    first[:, :4] = weights["conv_in.weight"]
    unet.load_state_dict({**weights, "conv_in.weight": first})
    return unet


class Inpainter(nn.Module):
    """The UNet, of which the two finer levels learn, and the text encoder, frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = unet_with_mask().to(memory_format=torch.channels_last)
        for name, parameter in self.unet.named_parameters():
            parameter.requires_grad_(name.startswith(LEARNT))
        self.text = CLIPTextModel.from_pretrained(MODEL / "text_encoder", dtype=torch.float32).requires_grad_(False)


def loss_of(
    model: Inpainter, alphas: Tensor, scenes: dict[str, Tensor], empty: Tensor, config: Config, step: int
) -> Tensor:
    """Weighted squared error of the velocity (arXiv 2303.09556) on a batch that is a function of seed and step."""
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    pick = torch.randint(len(scenes["ids"]), (config.batch,), generator=generator)
    latents, masked, mask = (scenes[name][pick].float() for name in ("latents", "masked", "mask"))
    noise = torch.randn(latents.shape, generator=generator)
    strata = (
        torch.randperm(config.batch, generator=generator) + torch.rand(config.batch, generator=generator)
    ) / config.batch
    timesteps = (strata * 1000).long().clamp(max=999)
    ids = scenes["ids"][pick].long()
    ids[torch.rand(config.batch, generator=generator) < config.unconditional] = empty
    kept = alphas[timesteps].view(-1, 1, 1, 1)
    noisy = kept.sqrt() * latents + (1 - kept).sqrt() * noise
    given = torch.cat([noisy, mask, masked], 1).contiguous(memory_format=torch.channels_last)  # (batch, 9, 16, 16)
    velocity = model.unet(given, timesteps, model.text(ids).last_hidden_state).sample
    error = (velocity - (kept.sqrt() * noise - (1 - kept).sqrt() * latents)).square().mean((1, 2, 3))
    snr = alphas[timesteps] / (1 - alphas[timesteps])
    return ((snr.clamp(max=config.snr_limit) + 1) / (snr + 1) * error).mean()


def train(config: Config, folder: Path) -> None:
    torch.manual_seed(config.seed)
    model = Inpainter()
    training = Training(Run(folder, asdict(config)), model, muon_and_adamw(model, config.lr, ENDS), config.ema)
    scenes = bank(config, folder.parent / f"bank-{config.scenes}.safetensors")
    empty = torch.tensor(CLIPTokenizer.from_pretrained(MODEL / "tokenizer")("", padding="max_length").input_ids)
    alphas = DDIMScheduler.from_pretrained(MODEL / "scheduler").alphas_cumprod
    for step in training.steps(config.steps, every=100):
        loss = loss_of(model, alphas, scenes, empty, config, step)
        training.update(loss, warm_then_linear(step, config.steps, config.warmup))
        training.log(25, loss=loss.item())


def export(config: Config, folder: Path, target: Path) -> None:
    """Write the weights that were learnt; the rest are emoji-diffusion's."""
    weights, spent = trained(Run(folder, asdict(config)), "ema.unet.")
    learnt = {name: value.half().contiguous() for name, value in weights.items() if name.startswith(LEARNT)}
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(learnt, target, {"base": "emoji-diffusion"})
    index = {"_class_name": "StableDiffusionInpaintPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    (target.parents[1] / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    print(json.dumps({"tensors": len(learnt), "bytes": target.stat().st_size, **spent}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--export", action="store_true", help="write the weights into the bundled model, and stop")
    parser.add_argument("--steps", type=int, default=Config.steps)
    parser.add_argument("--name", default="unet", help="run folder")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = Config(steps=arguments.steps)
    if arguments.export:
        export(config, RUNS / arguments.name, TARGET)
    else:
        train(config, RUNS / arguments.name)
