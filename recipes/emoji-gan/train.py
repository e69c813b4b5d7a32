"""Parts three and four of emoji-gan: ``python recipes/emoji-gan/train.py``; then ``--encoder``, then ``--export``.

The generator of ``codes.py`` learns against discriminators: one on pixels, and heads on frozen features of the bundled
``emoji-resnet-64-0`` (projected, arXiv:2111.01007); the mean and covariance of these features are to be those of real pictures
(generative feature matching, arXiv:1904.02762). Non-saturating loss, lazy R1, moving average; products in bfloat16. Then the
encoder learns the generator. One thread; kill it and start it again, and it goes on from the last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from photopic.core.files import share_as_usual
from photopic.core.numerics.muon import Muon
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
CHECKPOINT = Path(__file__).with_name("checkpoint") / "checkpoint.safetensors"
SHEET = Path(__file__).parents[2] / "docs" / "images" / "emoji-gan.webp"
FEATURES = "emoji-resnet-64-0"


@dataclass(frozen=True)
class Config:
    """What determines the weights, apart from the art and the start."""

    steps: int = 794  # the committed run was stopped there, of 1,000
    waiting: int = 100  # first steps in which the discriminators learn alone
    batch: int = 16
    rate: float = 5e-4  # Adam's, of the generator
    matrix_rate: float = 5e-4  # Muon's, of its 3x3 kernels
    critic_rate: float = 2e-3
    moments: float = 0.1  # weight of the moments
    memory: float = 0.98  # of the drawn pictures' moments, which thus are those of some 1,600 pictures
    r1: float = 1.0  # weight of the squared gradient, asked for every ``lazy`` steps
    lazy: int = 16
    average: float = 0.998
    falling: float = 0.5  # last part of the run, over which the rates fall to nothing
    pictures: int = 12_000
    reading: int = 500  # steps of the encoder afterwards
    seed: int = 2026


def design(seed: int) -> GeneratorConfig:
    """What the generator is made of."""
    return GeneratorConfig(codes=2 * len(face_sprites()), mapping_rate=1.0, seed=seed)


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

    def stages(self, pictures: Tensor) -> list[Tensor]:
        """The frozen features of each stage."""
        network, found = self.frozen[0], []
        x = network.embedder(((pictures + 1) / 2 - self.mean) / self.std)
        for stage in network.encoder.stages:
            x = stage(x)
            found.append(x)
        return found

    def told(self, stages: list[Tensor]) -> list[Tensor]:
        """Logits (batch, places) of each stage's features."""
        return [head(x).flatten(1) for x, head in zip(stages, self.heads, strict=True)]

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Logits (batch, places) of each stage."""
        return self.told(self.stages(pictures))


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


class Moments(nn.Module):
    """How far the mean and covariance of drawn features are from those of real ones, in directions of equal weight.

    Features are scaled by real ones' principal deviations, small ones less (a hundredth of the largest variance is added).
    The drawn ones' moments are running means; the gradient is that of their present share.

    Args:
        real: Features of real pictures, (n, d).
        memory: Share of the past in the running means.
    """

    mean: Tensor
    scale: Tensor
    wanted: Tensor
    drawn: Tensor
    spread: Tensor

    def __init__(self, real: Tensor, memory: float):
        super().__init__()
        values, vectors = torch.linalg.eigh(torch.cov(real.T))
        values = values.clamp_min(0)
        scale = vectors / (values + 0.01 * values[-1]).sqrt()
        self.memory = memory
        for name, value in {
            "mean": real.mean(0), "scale": scale, "wanted": torch.diag(values / (values + 0.01 * values[-1])),
        }.items():  # fmt: skip
            self.register_buffer(name, value)
        self.register_buffer("drawn", torch.zeros(len(values)))
        self.register_buffer("spread", self.wanted.clone())

    def forward(self, features: Tensor) -> Tensor:
        """The squared differences after these features, (n, d), are counted."""
        at = (features.float() - self.mean) @ self.scale
        drawn = self.memory * self.drawn + (1 - self.memory) * at.mean(0)
        spread = self.memory * self.spread + (1 - self.memory) * at.T @ at / len(at)
        self.drawn.copy_(drawn.detach())
        self.spread.copy_(spread.detach())
        apart = drawn.square().sum() + (spread - self.wanted).square().sum() / len(drawn)
        return apart / (1 - self.memory)


def pooled(stages: list[Tensor]) -> Tensor:
    """Mean of each channel of each stage, (batch, d)."""
    return torch.cat([stage.float().mean((2, 3)) for stage in stages], 1)


def bfloat16() -> torch.autocast:
    """Products in bfloat16."""
    return torch.autocast("cpu", torch.bfloat16)


def train(config: Config, run: Run, start: Path, save_every: int = 250, sheets: int = 0) -> Iterator[dict[str, float]]:
    """Train from the last checkpoint of ``run``, or from ``start``, to the end; yields the numbers of each step.

    Args:
        config: What to do.
        run: Where.
        start: A generator's folder, whose discriminators begin anew, or a file that ``export`` wrote, which has everything.
        save_every: Steps between checkpoints.
        sheets: Steps between sheets; 0 for none.
    """
    torch.manual_seed(config.seed)
    made = design(config.seed)
    model = beginning(start, made)
    critics, heads = model["critics"], model["critics"].heads
    bank = torch.from_numpy(emoji_faces(config.pictures, config.seed)).permute(0, 3, 1, 2)  # uint8
    with torch.no_grad(), bfloat16():
        real = torch.cat([pooled(heads.stages(signed(part))) for part in bank[:4_000].split(100)])
    model["moments"] = Moments(real, config.memory)
    model.to(memory_format=torch.channels_last)
    drawing = [p for name in ("mapping", "synthesis") for p in model[name].parameters()]
    kernels = [p for p in model["synthesis"].parameters() if p.ndim == 4 and p.shape[-1] == 3]
    rest = [p for p in drawing if all(p is not k for k in kernels)]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Adam([*critics.parameters()], lr=config.critic_rate, betas=(0.0, 0.99)),
        torch.optim.Adam(rest, lr=config.rate, betas=(0.0, 0.99)),
        Muon(kernels, lr=config.matrix_rate, momentum=0.9),
    ]
    training = Training(run, model, optimizers, average=config.average, clip=None)
    for step in training.steps(config.steps, every=save_every):
        at = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        share = min(1.0, (config.steps - step) / (config.falling * config.steps))
        x = signed(bank[torch.randint(len(bank), (config.batch,), generator=at)])
        with bfloat16():
            w = model["mapping"](torch.randn(config.batch, made.z_width, generator=at))
            noise = [torch.randn(len(w), *each.noise.shape[1:], generator=at) for each in model["synthesis"].convs]
            fake = model["synthesis"](w[:, None].expand(-1, made.layers, -1), noise)
            stages = heads.stages(fake)  # read once, by both updates
            with torch.no_grad():
                at_real = heads.stages(x)
            critics.requires_grad_(True)
            real = [critics.pixels(x)[:, None], *heads.told(at_real)]
            false = [critics.pixels(fake.detach())[:, None], *heads.told([each.detach() for each in stages])]
        told = sum(
            F.softplus(-a.float()).mean() + F.softplus(b.float()).mean() for a, b in zip(real, false, strict=True)
        )
        line = {f"gap{k}": (a.mean() - b.mean()).item() for k, (a, b) in enumerate(zip(real, false, strict=True))}
        line["told"] = told.item()
        if step % config.lazy == 0:
            x.requires_grad_(True)
            (slope,) = torch.autograd.grad(sum(o.mean(1).sum() for o in critics(x)), x, create_graph=True)
            told = told + config.lazy * config.r1 / 2 * slope.square().sum((1, 2, 3)).mean()
        training.update(told, share, slice(0, 1), averaged=False)
        if step >= config.waiting:
            critics.requires_grad_(False)
            with bfloat16():
                judged = [critics.pixels(fake)[:, None], *heads.told(stages)]
            apart = model["moments"](pooled(stages))
            line["apart"] = apart.item() * (1 - config.memory)
            loss = sum(F.softplus(-each.float()).mean() for each in judged) + config.moments * apart
            training.update(loss, share, slice(1, None))
        training.log(50, **line)
        if sheets and (step + 1) % sheets == 0:
            sheet(model_of(training.average, made), run.folder / f"sheet-{step + 1}.png", rows=6)
        yield {"step": step + 1} | line


def signed(pictures: Tensor) -> Tensor:
    """Pictures of whole numbers, -1 to 1."""
    return (pictures.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def beginning(start: Path, made: GeneratorConfig) -> nn.ModuleDict:
    """What learns, with the weights of a generator's folder or of a checkpoint file."""
    mapping, synthesis = networks(made)
    model = nn.ModuleDict({"mapping": mapping, "synthesis": synthesis, "critics": Critics(made)})
    if start.is_file():
        model.load_state_dict({name: value.float() for name, value in load_file(start).items() if name != "place"})
        return model
    found = Generator.load(start, device="cpu")
    mapping.load_state_dict(found.mapping.float().state_dict())
    synthesis.load_state_dict(found.synthesis.float().state_dict())
    return model


def model_of(tensors: dict[str, Tensor], design: GeneratorConfig, encoder: Encoder | None = None) -> Generator:
    """The generator of a run's tensors, with its discriminator on pixels."""
    mapping, synthesis = networks(design)
    pixels = Discriminator(design)
    for part, name in ((mapping, "mapping."), (synthesis, "synthesis."), (pixels, "critics.pixels.")):
        part.load_state_dict(under(tensors, name))
    return Generator(mapping, synthesis, design, "emoji-gan", discriminator=pixels, encoder=encoder)


@torch.no_grad()
def sheet(model: Generator, path: Path, rows: int = 16) -> None:
    """The first pictures of seed 0, 16 a row."""
    save_sheet(list(model.synthesize(model.map(model.sample_z(16 * rows, seed=0))).split(16)), path)


def read_again(config: Config, run: Run, model: Generator) -> Iterator[dict[str, float]]:
    """Teach the encoder a finished generator: to draw real pictures again, and the z of drawn ones."""
    torch.manual_seed(config.seed)
    model.synthesis.to(memory_format=torch.channels_last)
    encoder = Encoder(model.config).to(memory_format=torch.channels_last)
    training = Training(run, encoder, [torch.optim.Adam(encoder.parameters(), lr=1e-3)], average=0.99, clip=None)
    bank = torch.from_numpy(emoji_faces(config.pictures, config.seed)).permute(0, 3, 1, 2)
    for step in training.steps(config.reading, every=100):
        at = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        x = signed(bank[torch.randint(len(bank), (config.batch,), generator=at)])
        z = torch.randn(config.batch, model.config.z_width, generator=at)
        with bfloat16():
            with torch.no_grad():
                drawn = model.synthesize(model.map(z)).float()
            mean, log_variance = (each.float() for each in encoder(torch.cat([x, drawn])))
            again = distance(model.synthesize(model.map(mean[: config.batch])).float(), x)
        mean, log_variance = mean[config.batch :], log_variance[config.batch :]
        missed = ((z - mean).square() / log_variance.exp() + log_variance).mean() / 2
        training.update(again + 0.3 * missed, min(1.0, 2 * (config.reading - step) / config.reading))
        training.log(50, again=again.item(), missed=missed.item())
        yield {"step": step + 1, "again": again.item()}


def export(config: Config, out: Path, target: Path = TARGET, checkpoint: Path = CHECKPOINT) -> None:
    """Bundle the generator of ``codes.py`` with the discriminator and encoder, and keep everything that learnt to go on from.

    All in half precision. The generator is not the one that learnt against the discriminators: that one's pictures lay farther
    from real ones (README).
    """
    tensors, spent = trained(Run(out / "adversarial", asdict(config)), "model.")
    if spent["step"] != config.steps:
        raise SystemExit(f"{out}: expected {config.steps} steps, found {spent['step']}; train to the end first")
    read, reading = trained(Run(out / "encoder", asdict(config)))
    model = Generator.load(out / "mapping", device="cpu")
    encoder, pixels = Encoder(model.config), Discriminator(model.config)
    encoder.load_state_dict(read)
    pixels.load_state_dict(under(trained(Run(out / "adversarial"))[0], "critics.pixels."))
    whole = {name: value for name, value in tensors.items() if name.startswith("critics.")}
    for name, part in model.components.items():
        whole |= {f"{name}.{each}": value for each, value in part.state_dict().items()}
    whole["place"] = trained(Run(out / "codes"))[0][
        "codes.place.weight"
    ]  # the codes themselves are the mapping's values
    checkpoint.parent.mkdir(exist_ok=True)
    save_file({name: value.half().contiguous() for name, value in whole.items()}, checkpoint)
    share_as_usual(checkpoint)
    before = {each: json.loads((out / each / "spent.json").read_text()) for each in ("codes", "mapping")}
    about = {"recipe": "recipes/emoji-gan", "config": asdict(config), "pictures": len(face_sprites())}
    about |= {"spent": before | {"adversarial": spent, "encoder": reading}}
    replace(model, encoder=encoder, discriminator=pixels, provenance=about).save(target, dtype=torch.float16)
    model = Generator.load(target, device="cpu")
    sheet(model, SHEET)
    about |= {"sha256": file_facts(target)["sha256"], "size_bytes": file_facts(target)["size_bytes"]}
    write_card(CARD, {"models": {"emoji-gan": about | {"parameters": model.parameter_count}}})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/emoji-gan"), help="where codes.py wrote")
    parser.add_argument("--start", type=Path, help="go on from this checkpoint file, not from what codes.py wrote")
    parser.add_argument("--steps", type=int, default=Config.steps)
    parser.add_argument("--encoder", action="store_true", help="teach the encoder the generator of codes.py")
    parser.add_argument("--export", action="store_true", help="bundle what was trained")
    parser.add_argument("--sheet-every", type=int, default=300)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = replace(Config(), steps=options.steps)
    if options.export:
        export(config, options.out)
    elif options.encoder:
        mapped = Generator.load(options.out / "mapping", device="cpu")
        for _ in read_again(config, Run(options.out / "encoder", asdict(config)), mapped):
            pass
    else:
        run = Run(options.out / "adversarial", asdict(config))
        for _ in train(config, run, options.start or options.out / "mapping", sheets=options.sheet_every):
            pass
