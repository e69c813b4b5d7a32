"""Stage 2: the flow-matching transformer on the bank of latents; resumes from its run folder.

    python recipes/emoji-flow/2_transformer.py --bfloat16 --compile
    python recipes/emoji-flow/2_transformer.py --export                             # into checkpoint/, half precision
    python recipes/emoji-flow/2_transformer.py --start landed --name more --bfloat16 --compile      # elsewhere

Straight-line flow matching as Stable Diffusion 3 (Esser et al., arXiv 2403.03206): the network predicts noise minus picture,
noise levels are logit-normal; Muon for the matrices, a moving average of the weights is kept.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, replace

import torch
from common import BANK, LANDED, RUNS, fresh_transformer, pipeline_of, text_encoders, tokenizer
from diffusers import SD3Transformer2DModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from photopic.core.numerics.muon import muon_and_adamw
from photopic.core.runs import Run
from photopic.models.files import forget_sources
from photopic.models.text_to_image.call_defaults import write_call_defaults

from _common.latents import Bank
from _common.training import BFLOAT16, Training, trained

ENDS = ("transformer.pos_embed", "transformer.time_text_embed", "transformer.proj_out", "transformer.context_embedder")


@dataclass(frozen=True)
class Config:
    """What determines the weights, apart from the bank and the first weights."""

    batch: int = 128
    lr: float = 2e-3  # linear warm-up, then constant; the moving average stands for its fall
    warmup: int = 200
    ema: float = 0.999
    unconditional: float = 0.1  # share of captions replaced by the empty one, for classifier-free guidance
    layers: int = 6
    seed: int = 0
    start: str = "random"  # or landed: the transformer of checkpoint/


class Flow(nn.Module):
    """The transformer, and the frozen encoders as functions of token ids."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        torch.manual_seed(config.seed)
        self.transformer = (
            SD3Transformer2DModel.from_pretrained(LANDED / "transformer", torch_dtype=torch.float32)
            if config.start == "landed"
            else fresh_transformer(config.layers)
        )
        self.encoders = text_encoders()  # a tuple: not among the weights

    def text(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """What the pipeline makes of token ids: states before the last layer (batch, tokens, 320), pooled (batch, 320)."""
        with torch.no_grad():
            read = [encoder(ids, output_hidden_states=True) for encoder in self.encoders]
        return torch.cat([each.hidden_states[-2] for each in read], -1), torch.cat([each[0] for each in read], -1)

    def forward(self, noisy: Tensor, sigma: Tensor, ids: Tensor) -> Tensor:
        states, pooled = self.text(ids)
        given = {"encoder_hidden_states": states, "pooled_projections": pooled, "timestep": 1000 * sigma}
        return self.transformer(noisy, **given, return_dict=False)[0]


def loss_of(model: Flow, batch: tuple[Tensor, ...]) -> Tensor:
    """Squared error of the velocity; stratified timesteps of the bank become logit-normal noise levels."""
    latents, noise, timesteps, ids = batch[:4]
    share = (timesteps + 0.5) / 1000
    sigma = torch.special.ndtri(share).sigmoid().float()  # the logit of sigma is a standard normal number
    noisy = torch.lerp(latents, noise, sigma.view(-1, 1, 1, 1))
    return (model(noisy, sigma, ids).float() - (noise - latents)).square().mean()


def run_of(name: str, config: Config) -> Run:
    return Run(RUNS / name, asdict(config))


def train(arguments: argparse.Namespace, config: Config) -> None:
    torch.set_num_threads(arguments.threads)
    model = Flow(config)
    optimizers = muon_and_adamw(model, config.lr, ENDS, bfloat16=arguments.bfloat16)
    training = Training(run_of(arguments.name, config), model, optimizers, config.ema)
    bank = Bank(BANK, tokenizer()([""], padding="max_length", return_tensors="pt").input_ids[0])
    if arguments.compile:
        model.transformer.compile()
    for step in training.steps(arguments.steps, every=200):
        batch = bank.draw(step, config.batch, seed=config.seed, unconditional=config.unconditional)
        # the fused attention's gradient is five times slower in bfloat16
        with torch.autocast("cpu", torch.bfloat16, enabled=arguments.bfloat16), sdpa_kernel(SDPBackend.MATH):
            loss = loss_of(model, batch)
        training.update(loss, min(1.0, (step + 1) / config.warmup))
        training.log(50, loss=loss.item())


def export(name: str, config: Config) -> None:
    model = Flow(config)
    weights, state = trained(run_of(name, config))
    model.load_state_dict(weights)
    pipeline_of(model.transformer).to(torch.float16).save_pretrained(LANDED)
    forget_sources(LANDED)
    write_call_defaults(LANDED, {"max_sequence_length": 0})
    print(f"exported step {state['step']} to {LANDED.name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="transformer", help="run folder below the recipe's")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--lr", type=float, default=Config.lr)
    parser.add_argument("--batch", type=int, default=Config.batch, help="scenes a step")
    parser.add_argument("--layers", type=int, default=Config.layers)
    parser.add_argument("--start", choices=("random", "landed"), default="random")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="compile the transformer: a minute first, then faster")
    parser.add_argument("--bfloat16", action="store_true", help=BFLOAT16)
    parser.add_argument("--export", action="store_true", help="write the moving average as a pipeline, and stop")
    arguments = parser.parse_args()
    config = replace(Config(), batch=arguments.batch, lr=arguments.lr, layers=arguments.layers, start=arguments.start)
    if arguments.export:
        export(arguments.name, config)
    else:
        train(arguments, config)


if __name__ == "__main__":
    main()
