"""Stage 4: the denoising UNet, on one process or several.

    python recipes/emoji-diffusion/4_unet.py                       # one process, resumes from runs/emoji-diffusion/unet
    python recipes/emoji-diffusion/4_unet.py --processes 2         # gradients averaged over processes (gloo)
    python recipes/emoji-diffusion/4_unet.py --export              # write the averaged weights into the bundled model
    python recipes/emoji-diffusion/4_unet.py --name unet-2 --start bundled --train-text --compile --steps 6000 --lr 1.5e-3

The last line trains the exported weights on, and the text encoder with them: the contrastive loss of stage 2 never asks
which object is where, so a frozen encoder leaves the UNet to work out "left of" by itself.

v-prediction on a zero-terminal-SNR schedule (Lin et al., arXiv 2305.08891), loss weighted by the truncated
signal-to-noise ratio (Hang et al., arXiv 2303.09556), exponential moving average of the weights.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict, dataclass, replace

import torch
import torch.distributed as dist
from common import MODEL, RUNS
from diffusers import DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from photopic.core.numerics.muon import muon_and_adamw
from photopic.core.runs import Run, load_optimizer, optimizer_tensors


@dataclass(frozen=True)
class Config:
    steps: int = 3_400  # may be changed while the rate is constant; the result is that of a run with the new number
    batch: int = 48  # over all processes
    lr: float = 2e-3  # linear warm-up, constant, linear to zero
    warmup: int = 100
    decay: float = 0.667  # share of the steps over which the rate falls
    muon: bool = True  # orthogonalised momentum for matrices; AdamW for the rest
    ema: float = 0.9985
    snr_limit: float = 5.0
    unconditional: float = 0.1  # share of captions replaced by the empty one, for classifier-free guidance
    channels: tuple[int, ...] = (48, 96, 192)
    text: int = 192  # width of the text encoder
    seed: int = 0
    save_every: int = 50
    start: str = "random"  # first weights of the UNet: random, or bundled (those exported last)
    train_text: bool = False  # train the text encoder with the UNet, or leave it frozen


def build(config: Config) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=config.channels,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=config.text,
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


class Painter(nn.Module):
    """The UNet and the text encoder that conditions it."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.unet = build(config)
        if config.start == "bundled":
            exported = UNet2DConditionModel.from_pretrained(MODEL / "unet", dtype=torch.float32)
            self.unet.load_state_dict(exported.state_dict())
        self.unet.to(memory_format=torch.channels_last)
        self.text = CLIPTextModel.from_pretrained(MODEL / "text_encoder", dtype=torch.float32)
        self.text.requires_grad_(config.train_text)

    def forward(self, noisy: Tensor, timesteps: Tensor, ids: Tensor) -> Tensor:
        return self.unet(noisy, timesteps, self.text(ids).last_hidden_state).sample


class Bank:
    """The encoded scenes of stage 3, read from every shard that exists."""

    def __init__(self) -> None:
        parts = [load_file(path) for path in sorted((RUNS / "latents").glob("*.safetensors"))]
        if not parts:
            raise SystemExit(f"{RUNS / 'latents'}: no shards; run 3_latents.py first")
        self.latents = torch.cat([part["latents"] for part in parts])  # (scenes, 4, 16, 16)
        self.ids = torch.cat([part["ids"] for part in parts])  # (scenes, 24)
        tokenizer = CLIPTokenizer.from_pretrained(MODEL / "tokenizer")
        self.empty = tokenizer([""], padding="max_length", return_tensors="pt").input_ids[0]  # (24,)

    def draw(self, config: Config, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The whole batch of a step: latents, noise, timesteps (stratified), token ids; a function of seed and step only."""
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        pick = torch.randint(len(self.latents), (config.batch,), generator=generator)
        noise = torch.randn((config.batch, *self.latents.shape[1:]), generator=generator)
        strata = (
            torch.randperm(config.batch, generator=generator) + torch.rand(config.batch, generator=generator)
        ) / config.batch
        timesteps = (strata * 1000).long().clamp(max=999)
        ids = self.ids[pick].long()
        dropped = torch.rand(config.batch, generator=generator) < config.unconditional
        ids[dropped] = self.empty
        return self.latents[pick].float(), noise, timesteps, ids


def loss_of(model: Painter, alphas: Tensor, batch: tuple[Tensor, ...], config: Config) -> Tensor:
    latents, noise, timesteps, ids = batch
    alpha = alphas[timesteps].view(-1, 1, 1, 1).sqrt()
    sigma = (1 - alphas[timesteps]).view(-1, 1, 1, 1).sqrt()
    noisy = (alpha * latents + sigma * noise).contiguous(memory_format=torch.channels_last)
    velocity = alpha * noise - sigma * latents
    error = (model(noisy, timesteps, ids) - velocity).square().mean((1, 2, 3))
    snr = alphas[timesteps] / (1 - alphas[timesteps])
    weight = (snr.clamp(max=config.snr_limit) + 1) / (snr + 1)  # error of the sample weighs min(snr, limit) + 1
    return (weight * error).mean()


def rate(config: Config, step: int) -> float:
    return config.lr * min(1.0, (step + 1) / config.warmup, (config.steps - step) / (config.decay * config.steps))


def optimizers(model: Painter, config: Config) -> list[torch.optim.Optimizer]:
    if config.muon:
        ends = ("unet.conv_in", "unet.conv_out", "unet.time_embedding", "text.embeddings", "text.text_model.embeddings")
        return muon_and_adamw(model, config.lr, ends)
    return [torch.optim.AdamW(model.parameters(), lr=config.lr, betas=(0.9, 0.99), weight_decay=0.01)]


def train(rank: int, processes: int, config: Config, name: str, compiled: bool) -> None:
    torch.set_num_threads(1)
    parent = os.getppid()
    if processes > 1:
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        os.environ.setdefault("MASTER_PORT", "29517")
        dist.init_process_group("gloo", rank=rank, world_size=processes)
    torch.manual_seed(config.seed)
    run = Run(RUNS / name, {key: value for key, value in asdict(config).items() if key != "steps"})
    model = Painter(config)
    average = {key: value.clone() for key, value in model.state_dict().items()}
    steppers = optimizers(model, config)
    step = 0
    if found := run.load():
        tensors, state = found
        model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
        average = {key: tensors[f"ema.{key}"] for key in average}  # in the order of the model
        for index, stepper in enumerate(steppers):
            load_optimizer(stepper, tensors, f"optimizer{index}.")
        step = state["step"]
    bank = Bank()
    alphas = scheduler().alphas_cumprod
    share = config.batch // processes
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if compiled:
        model.unet.compile()
    clock, total = time.time(), 0.0
    while step < config.steps:
        if processes > 1 and os.getppid() != parent:
            raise SystemExit("the process that started this one is gone")  # or a killed run would train on unseen
        batch = tuple(part[rank * share : (rank + 1) * share] for part in bank.draw(config, step))
        for stepper in steppers:
            stepper.param_groups[0]["lr"] = rate(config, step)
        loss = loss_of(model, alphas, batch, config)
        model.zero_grad(set_to_none=True)
        loss.backward()
        if processes > 1:
            average_gradients(parameters, processes)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for stepper in steppers:
            stepper.step()
        step += 1
        decay = min(config.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.values()), list(model.state_dict().values()), 1 - decay)
        total += loss.item()
        if rank == 0 and step % 50 == 0:
            run.log(step=step, loss=total / 50, lr=rate(config, step), step_s=(time.time() - clock) / 50)
            clock, total = time.time(), 0.0
        if rank == 0 and (step % config.save_every == 0 or step == config.steps):
            tensors = {f"model.{k}": v for k, v in model.state_dict().items()} | {
                f"ema.{k}": v for k, v in average.items()
            }
            for index, stepper in enumerate(steppers):
                tensors |= optimizer_tensors(stepper, f"optimizer{index}.")
            run.save(tensors, {"step": step})


def average_gradients(parameters: list[torch.nn.Parameter], processes: int) -> None:
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= processes
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def export(config: Config, name: str) -> None:
    """Write the moving average, in half precision, and the pipeline's index into the bundled model."""
    from diffusers import AutoencoderKL, StableDiffusionPipeline

    found = Run(RUNS / name).load()
    if found is None:
        raise SystemExit(f"{RUNS / name}: no checkpoint to export")
    tensors, state = found
    painter = Painter(config)
    painter.load_state_dict({k.removeprefix("ema."): v for k, v in tensors.items() if k.startswith("ema.")})
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(MODEL / "vae", torch_dtype=torch.float16),
        text_encoder=painter.text.half(),
        tokenizer=CLIPTokenizer.from_pretrained(MODEL / "tokenizer"),
        unet=painter.unet.half(),
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(MODEL)
    for path in MODEL.rglob("*config.json"):  # where the parts were loaded from is nobody's business
        entries = json.loads(path.read_text())
        kept = {k: v for k, v in entries.items() if k not in ("_name_or_path", "is_local", "local_files_only")}
        path.write_text(json.dumps(kept, indent=2) + "\n")
    print(f"exported step {state['step']} to {MODEL}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--export", action="store_true")
    parser.add_argument("--name", default="unet", help="run folder below runs/emoji-diffusion")
    parser.add_argument("--steps", type=int, default=Config.steps)
    parser.add_argument("--lr", type=float, default=Config.lr)
    parser.add_argument("--start", choices=("random", "bundled"), default=Config.start, help="first weights")
    parser.add_argument("--adamw", action="store_true", help="AdamW for every weight, for comparison")
    parser.add_argument("--train-text", action="store_true", help="train the text encoder too")
    parser.add_argument("--compile", action="store_true", help="compile the UNet: 2 minutes first, then a sixth faster")
    arguments = parser.parse_args()
    chosen = replace(
        Config(),
        steps=arguments.steps,
        lr=arguments.lr,
        muon=not arguments.adamw,
        start=arguments.start,
        train_text=arguments.train_text,
    )
    if arguments.export:
        export(chosen, arguments.name)
    elif arguments.processes == 1:
        train(0, 1, chosen, arguments.name, arguments.compile)
    else:
        rest = (arguments.processes, chosen, arguments.name, arguments.compile)
        torch.multiprocessing.spawn(train, rest, nprocs=arguments.processes)
