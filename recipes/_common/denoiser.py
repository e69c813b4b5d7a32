"""A denoising UNet and its text encoder in training on a bank of latents, on one process or several.

v-prediction on a zero-terminal-SNR schedule (Lin et al., arXiv 2305.08891), loss weighted by the truncated signal-to-noise
ratio (Hang et al., arXiv 2303.09556), exponential moving average of the weights; on request the cross-attention of each thing's
words is drawn to where the thing is (the token loss of TokenCompose, Wang et al., arXiv 2312.03626).
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from photopic.core.numerics.muon import muon_and_adamw
from photopic.core.runs import Run
from photopic.models.files import forget_sources

from _common.latents import Bank
from _common.training import BFLOAT16, Training, trained

ENDS = ("unet.conv_in", "unet.conv_out", "unet.time_embedding", "text.embeddings", "text.text_model.embeddings")


@dataclass(frozen=True)
class Config:
    """What determines the weights, apart from the bank and the first weights."""

    steps: int = 3_400  # may be changed while the rate is constant; the result is that of a run with the new number
    batch: int = 48  # over all processes
    lr: float = 2e-3  # linear warm-up, constant, linear to zero
    warmup: int = 100
    decay: float = 0.667  # share of the steps over which the rate falls
    muon: bool = True  # orthogonalised momentum for matrices; AdamW for the rest
    ema: float = 0.9985
    snr_limit: float = 5.0
    unconditional: float = 0.1  # share of captions replaced by the empty one, for classifier-free guidance
    seed: int = 0
    save_every: int = 50
    start: str = "random"  # first weights of the UNet: random, or a name the recipe knows
    train_text: bool = False  # train the text encoder with the UNet, or leave it frozen
    attention: float = 0.0  # weight of the attention that words give to cells without their thing


@dataclass(frozen=True)
class Parts:
    """Where a recipe's denoiser comes from; its functions live in modules, so that processes can be started with it."""

    unet: Callable[[Config], UNet2DConditionModel]  # at its first weights
    scheduler: Callable[[], DDIMScheduler]
    text: Path  # holds text_encoder/ and tokenizer/
    vae: Path  # the autoencoder's folder


def unet_of(
    latent_channels: int, channels: tuple[int, ...], attends: tuple[bool, ...], heads: int | tuple[int, ...]
) -> UNet2DConditionModel:
    """A fresh UNet on 16x16 latents: one layer a level, cross-attention on the levels that attend, from the finest on."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=latent_channels,
        out_channels=latent_channels,
        layers_per_block=1,
        block_out_channels=channels,
        down_block_types=tuple("CrossAttnDownBlock2D" if each else "DownBlock2D" for each in attends),
        up_block_types=tuple("CrossAttnUpBlock2D" if each else "UpBlock2D" for each in reversed(attends)),
        cross_attention_dim=192,
        attention_head_dim=heads,  # diffusers' name for the number of heads
        norm_num_groups=16,
    )


def scheduler_of(beta_schedule: str, **options: Any) -> DDIMScheduler:
    """v-prediction on a zero-terminal-SNR schedule of a thousand timesteps."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule=beta_schedule,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,  # latents are not pixels
        set_alpha_to_one=False,
        steps_offset=1,
        **options,
    )


class Painter(nn.Module):
    """The UNet and the text encoder that conditions it."""

    def __init__(self, parts: Parts, config: Config) -> None:
        super().__init__()
        torch.manual_seed(config.seed)
        self.unet = parts.unet(config).to(memory_format=torch.channels_last)
        self.text = CLIPTextModel.from_pretrained(parts.text / "text_encoder", dtype=torch.float32)
        self.text.requires_grad_(config.train_text)

        self.seen: list[Tensor] = []  # cross-attention of the last call, of each layer: (batch * heads, cells, tokens)

    def watch(self) -> None:
        """Keep the cross-attention of every call; needs diffusers' unfused processor."""
        for name, module in self.unet.named_modules():
            if name.endswith("attn2"):
                module.get_attention_scores = partial(self._keep, module.get_attention_scores)

    def _keep(self, scores: Callable[..., Tensor], *given: Tensor) -> Tensor:
        self.seen.append(scores(*given))
        return self.seen[-1]

    def forward(self, noisy: Tensor, timesteps: Tensor, ids: Tensor) -> Tensor:
        self.seen.clear()
        return self.unet(noisy, timesteps, self.text(ids).last_hidden_state).sample


def loss_of(model: nn.Module, alphas: Tensor, batch: tuple[Tensor, ...], snr_limit: float) -> Tensor:
    """Weighted squared error of the velocity, for a batch as ``Bank.draw`` gives it."""
    latents, noise, timesteps, ids = batch[:4]
    alpha = alphas[timesteps].view(-1, 1, 1, 1).sqrt()
    sigma = (1 - alphas[timesteps]).view(-1, 1, 1, 1).sqrt()
    noisy = (alpha * latents + sigma * noise).contiguous(memory_format=torch.channels_last)
    velocity = alpha * noise - sigma * latents
    error = (model(noisy, timesteps, ids) - velocity).square().mean((1, 2, 3))
    snr = alphas[timesteps] / (1 - alphas[timesteps])
    weight = (snr.clamp(max=snr_limit) + 1) / (snr + 1)  # error of the sample weighs min(snr, limit) + 1
    return (weight * error).mean()


def attention_loss(seen: Sequence[Tensor], owners: Tensor, coverage: Tensor, weight: Tensor) -> Tensor:
    """Squared share of each thing's attention that lies in cells without it, weighted mean over things, mean over layers.

    Args:
        seen: Cross-attention of each layer, (batch * heads, cells, tokens), of square grids.
        owners: The thing each token names, or -1: (batch, tokens).
        coverage: Of each cell by each thing, 0 to 1: (batch, things, side, side).
        weight: Of each sample, (batch,).
    """
    batch, things = coverage.shape[:2]
    named = F.one_hot(owners + 1, things + 1)[..., 1:].float()  # (batch, tokens, things)
    weights = weight[:, None] * (named.any(1) & coverage.flatten(2).any(2))  # (batch, things)
    losses = []
    for shares in seen:
        side = math.isqrt(shares.shape[1])
        maps = shares.float().unflatten(0, (batch, -1)).mean(1) @ named  # (batch, cells, things)
        there = (F.adaptive_avg_pool2d(coverage, side) > 0).flatten(2).mT  # (batch, cells, things)
        inside = (maps * there).sum(1) / maps.sum(1).clamp(min=1e-8)
        losses.append((weights * (1 - inside).square()).sum() / weights.sum().clamp(min=1e-8))
    return torch.stack(losses).mean()


def share_of_rate(config: Config, step: int) -> float:
    return min(1.0, (step + 1) / config.warmup, (config.steps - step) / (config.decay * config.steps))


def optimizers(model: nn.Module, config: Config, bfloat16: bool = False) -> list[torch.optim.Optimizer]:
    if config.muon:
        return muon_and_adamw(model, config.lr, ENDS, bfloat16=bfloat16)
    return [torch.optim.AdamW(model.parameters(), lr=config.lr, betas=(0.9, 0.99), weight_decay=0.01)]


def run_of(folder: Path, config: Config) -> Run:
    """The run of a configuration; the number of steps may differ from that of its first start."""
    return Run(folder, {key: value for key, value in asdict(config).items() if key != "steps"})


def train(
    rank: int, processes: int, parts: Parts, config: Config, folder: Path, latents: Path, options: Mapping[str, Any]
) -> None:
    """Train to the end in one of several processes; ``options``: device, threads, compile, bfloat16, log (steps a line)."""
    torch.set_num_threads(options["threads"])
    parent = os.getppid()
    if processes > 1:
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        os.environ.setdefault("MASTER_PORT", "29517")
        dist.init_process_group("gloo", rank=rank, world_size=processes)
    model = Painter(parts, config).to(options["device"])
    training = Training(run_of(folder, config), model, optimizers(model, config, options["bfloat16"]), config.ema)
    bank = Bank(latents, empty_ids(parts))
    alphas = parts.scheduler().alphas_cumprod.to(options["device"])
    part = config.batch // processes
    if options["bfloat16"]:
        model.unet.set_attn_processor(AttnProcessor())  # the fused attention's gradient is ten times slower in bfloat16
    if config.attention:
        model.unet.set_attn_processor(AttnProcessor())
        model.watch()
    if options["compile"]:
        model.unet.compile()
    for step in training.steps(config.steps, every=config.save_every):
        if processes > 1 and os.getppid() != parent:
            raise SystemExit("the process that started this one is gone")  # or a killed run would train on unseen
        whole = bank.draw(step, config.batch, seed=config.seed, unconditional=config.unconditional)
        batch = tuple(each[rank * part : (rank + 1) * part].to(options["device"]) for each in whole)
        with torch.autocast(options["device"], torch.bfloat16, enabled=options["bfloat16"]):
            loss = loss_of(model, alphas, batch, config.snr_limit)
        logged = {"loss": loss.item(), "lr": config.lr * share_of_rate(config, step)}
        if config.attention:
            outside = attention_loss(
                model.seen, *batch[4:], alphas[batch[2]]
            )  # where a thing is shows when noise is low
            loss, logged["outside"] = loss + config.attention * outside, outside.item()
        training.update(loss, share_of_rate(config, step))
        training.log(options.get("log", 50), **logged)


def empty_ids(parts: Parts) -> Tensor:
    tokenizer = CLIPTokenizer.from_pretrained(parts.text / "tokenizer")
    return tokenizer([""], padding="max_length", return_tensors="pt").input_ids[0]  # (tokens,)


def export(parts: Parts, config: Config, folder: Path, target: Path) -> None:
    """Write a run's moving average, in half precision, as a pipeline in diffusers' layout."""
    from diffusers import StableDiffusionPipeline  # seconds to import

    painter = Painter(parts, config)
    weights, state = trained(run_of(folder, config))
    painter.load_state_dict(weights)
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(parts.vae, torch_dtype=torch.float16),
        text_encoder=painter.text.half(),
        tokenizer=CLIPTokenizer.from_pretrained(parts.text / "tokenizer"),
        unet=painter.unet.half(),
        scheduler=parts.scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(target)
    forget_sources(target)
    print(f"exported step {state['step']} to {target.name}")


def parser_of(description: str, config: Config, starts: tuple[str, ...]) -> argparse.ArgumentParser:
    """The options both recipes' UNet stages take."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--export", action="store_true", help="write the moving average as a pipeline, and stop")
    parser.add_argument("--name", default="unet", help="run folder below the recipe's")
    parser.add_argument("--steps", type=int, default=config.steps)
    parser.add_argument("--lr", type=float, default=config.lr)
    parser.add_argument("--start", choices=starts, default=config.start, help="first weights")
    parser.add_argument("--adamw", action="store_true", help="AdamW for every weight, for comparison")
    parser.add_argument("--attention", type=float, default=0.0, help="weight of attention outside of the things")
    parser.add_argument("--train-text", action="store_true", help="train the text encoder too")
    parser.add_argument("--compile", action="store_true", help="compile the UNet: 2 minutes first, then a sixth faster")
    parser.add_argument("--bfloat16", action="store_true", help=BFLOAT16)
    return parser


def main(arguments: argparse.Namespace, parts: Parts, config: Config, runs: Path, latents: Path, target: Path) -> None:
    """Train or export as the command line says."""
    config = replace(
        config,
        steps=arguments.steps,
        lr=arguments.lr,
        muon=not arguments.adamw,
        start=arguments.start,
        train_text=arguments.train_text,
        attention=arguments.attention,
    )
    folder = runs / arguments.name
    options = {name: getattr(arguments, name) for name in ("device", "threads", "compile", "bfloat16")}
    rest = (arguments.processes, parts, config, folder, latents, options)
    if arguments.export:
        export(parts, config, folder, target)
    elif arguments.processes == 1:
        train(0, *rest)
    else:
        torch.multiprocessing.spawn(train, rest, nprocs=arguments.processes)
