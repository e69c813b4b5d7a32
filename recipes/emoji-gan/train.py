"""Train emoji-gan: ``python recipes/emoji-gan/train.py --out runs/emoji-gan``; ``--export`` bundles what was trained.

A generator learns with an encoder to draw pictures again (a variational autoencoder), then also against discriminators: one
on pixels, and heads on frozen features of the bundled ``emoji-resnet-64-0`` (projected, arXiv:2111.01007). Non-saturating
loss, lazy R1, moving average. One thread; kill it and start it again, and it goes on from the last checkpoint.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from photopic.core.runs import Run
from photopic.data.emoji_faces import emoji_faces, face_sprites
from photopic.models.classifier import Classifier
from photopic.models.files import BUNDLED
from photopic.models.generator import Generator, GeneratorConfig
from photopic.models.style_critics import Discriminator, Encoder, EqualConv
from photopic.models.style_files import networks

sys.path.append(str(Path(__file__).parents[1]))  # recipes/, which holds _common
from _common.card import file_facts, write_card
from _common.pictures import save_sheet
from _common.training import Training, trained, under

TARGET, CARD = BUNDLED / "emoji-gan", Path(__file__).with_name("card.json")
SHEET = Path(__file__).parents[2] / "docs" / "images" / "emoji-gan.webp"
FEATURES = "emoji-resnet-64-0"


@dataclass(frozen=True)
class Config:
    """What determines the weights, apart from the art."""

    steps: int = 2_000
    alone: int = 300  # first steps without discriminators
    batch: int = 16
    rate: float = 4e-3
    mapping_rate: float = 0.1  # of it; StyleGAN2's 0.01 is for runs a thousand times as long
    again: float = 0.5  # weight of drawing pictures again once discriminators are there
    divergence: float = 0.002  # weight of the encoder's divergence from N(0, 1)
    r1: float = 1.0  # weight of the squared gradient, asked for every ``lazy`` steps
    lazy: int = 16
    average: float = 0.995
    pictures: int = 4_000
    seed: int = 2020


class Heads(nn.Module):
    """Discriminators on the frozen features of a classifier, one a stage; the classifier itself is not among its weights."""

    def __init__(self, widths: tuple[int, ...], hidden: int = 48):
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(EqualConv(width, hidden, 3), nn.LeakyReLU(0.2), EqualConv(hidden, hidden, 3), nn.LeakyReLU(0.2),
                          EqualConv(hidden, 1, 1)) for width in widths
        )  # fmt: skip
        model = Classifier.load(FEATURES, device="cpu")
        scale = model._preprocess
        self.frozen = [model.network.resnet.to(memory_format=torch.channels_last)]  # in a list: no submodule
        self.mean, self.std = (torch.tensor(each).view(1, 3, 1, 1) for each in (scale.mean, scale.std))

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Logits (batch, places) of each stage."""
        network, found = self.frozen[0], []
        x = network.embedder(((pictures + 1) / 2 - self.mean) / self.std)
        for stage, head in zip(network.encoder.stages, self.heads, strict=True):
            x = stage(x)
            found.append(head(x).flatten(1))
        return found


class Critics(nn.Module):
    """Both kinds of discriminators."""

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        self.pixels, self.heads = Discriminator(config, group=4), Heads((48, 96, 64))

    def forward(self, pictures: Tensor) -> list[Tensor]:
        return [self.pixels(pictures)[:, None], *self.heads(pictures)]


def distance(drawn: Tensor, pictures: Tensor) -> Tensor:
    """Mean absolute differences at four sizes, summed."""
    off = drawn - pictures
    return sum(F.avg_pool2d(off, k).abs().mean() for k in (1, 2, 4, 8))


def train(config: Config, run: Run, save_every: int = 250, sheets: int = 0) -> Iterator[dict[str, float]]:
    """Train from the last checkpoint of ``run`` to the end; yields the numbers of each step."""
    torch.manual_seed(config.seed)
    design = GeneratorConfig(mapping_rate=config.mapping_rate, seed=config.seed)
    mapping, synthesis = networks(design)
    model = nn.ModuleDict(
        {"mapping": mapping, "synthesis": synthesis, "encoder": Encoder(design), "critics": Critics(design)}
    )
    model.to(memory_format=torch.channels_last)
    critics = model["critics"]
    drawing = [p for name in ("mapping", "synthesis", "encoder") for p in model[name].parameters()]
    optimizers = [
        torch.optim.Adam(each, lr=config.rate, betas=(0.0, 0.99)) for each in (drawing, [*critics.parameters()])
    ]
    training = Training(run, model, optimizers, average=config.average, clip=None)
    bank = torch.from_numpy(emoji_faces(config.pictures, config.seed)).permute(0, 3, 1, 2)  # uint8
    for step in training.steps(config.steps, every=save_every):
        at = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        share = min(1.0, 4 * (config.steps - step) / config.steps)  # falls over the last quarter
        x = bank[torch.randint(len(bank), (config.batch,), generator=at)].float() / 127.5 - 1
        x = x.contiguous(memory_format=torch.channels_last)
        mean, log_variance = model["encoder"](x)
        read = mean + (log_variance / 2).exp() * torch.randn(mean.shape, generator=at)
        adversarial = step >= config.alone
        z = torch.cat([read, torch.randn(mean.shape, generator=at)]) if adversarial else read
        w = mapping(z)[:, None].expand(-1, design.layers, -1)
        noise = [torch.randn(len(z), *layer.noise.shape[1:], generator=at) for layer in synthesis.convs]
        drawn = synthesis(w, noise)
        apart = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2
        again = distance(drawn[: config.batch], x)
        loss, line = (
            (config.again if adversarial else 1.0) * again + config.divergence * apart,
            {"again": again.item(), "apart": apart.item()},
        )
        if adversarial:
            fake = drawn[config.batch :]
            critics.requires_grad_(True)
            real, false = critics(x), critics(fake.detach())
            told = sum(F.softplus(-a).mean() + F.softplus(b).mean() for a, b in zip(real, false, strict=True))
            line |= {"told": told.item()} | {
                f"gap{k}": (a.mean() - b.mean()).item() for k, (a, b) in enumerate(zip(real, false, strict=True))
            }
            if step % config.lazy == 0:
                at_real = x.detach().requires_grad_(True)
                (slope,) = torch.autograd.grad(
                    sum(o.mean(1).sum() for o in critics(at_real)), at_real, create_graph=True
                )
                told = told + config.lazy * config.r1 / 2 * slope.square().sum((1, 2, 3)).mean()
            training.update(told, share, slice(1, 2), averaged=False)
            critics.requires_grad_(False)
            loss = loss + sum(F.softplus(-each).mean() for each in critics(fake))
        training.update(loss, share, slice(0, 1))
        training.log(50, **line)
        if sheets and (step + 1) % sheets == 0:
            sheet(model_of(training.average, design), run.folder / f"sheet-{step + 1}.png", rows=6)
        yield {"step": step + 1} | line


def model_of(tensors: dict[str, Tensor], design: GeneratorConfig) -> Generator:
    """The generator of a run's tensors, with its discriminator on pixels and its encoder."""
    mapping, synthesis = networks(design)
    parts = {
        "mapping": mapping,
        "synthesis": synthesis,
        "encoder": Encoder(design),
        "critics.pixels": Discriminator(design),
    }
    for name, part in parts.items():
        part.load_state_dict(under(tensors, f"{name}."))
    return Generator(
        mapping, synthesis, design, "emoji-gan", discriminator=parts["critics.pixels"], encoder=parts["encoder"]
    )


@torch.no_grad()
def sheet(model: Generator, path: Path, rows: int = 16) -> None:
    """The first pictures of seed 0, 16 a row."""
    save_sheet(list(model.synthesize(model.map(model.sample_z(16 * rows, seed=0))).split(16)), path)


def export(config: Config, run: Run, target: Path = TARGET) -> None:
    """Bundle the moving average in half precision, with a sheet and what was spent."""
    tensors, spent = trained(run)
    if spent["step"] != config.steps:
        raise SystemExit(f"{run.folder}: expected {config.steps} steps, found {spent['step']}; train to the end first")
    design = GeneratorConfig(mapping_rate=config.mapping_rate, seed=config.seed)
    model = model_of(tensors, design)
    about = {"recipe": "recipes/emoji-gan", "config": asdict(config), "spent": spent, "pictures": len(face_sprites())}
    replace(model, provenance=about).save(target, dtype=torch.float16)
    model = Generator.load(target, device="cpu")
    sheet(model, SHEET)
    about |= {"sha256": file_facts(target)["sha256"], "size_bytes": file_facts(target)["size_bytes"]}
    write_card(CARD, {"models": {"emoji-gan": about | {"parameters": model.parameter_count}}})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/emoji-gan"))
    parser.add_argument("--export", action="store_true", help="bundle the last checkpoint of a finished run")
    parser.add_argument("--sheet-every", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = Config()
    run = Run(options.out, asdict(config))
    if options.export:
        export(config, run)
    else:
        for _ in train(config, run, sheets=options.sheet_every):
            pass
