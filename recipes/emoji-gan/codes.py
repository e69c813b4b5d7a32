"""Parts one and two of emoji-gan: ``python recipes/emoji-gan/codes.py``.

Codes and a synthesis that draws the pictures again from them, without discriminators (GLO, arXiv:1707.05776): one of each drawing
and its mirror image, and a linear part of place, size and background. Then a mapping that draws such codes from noise (in two
parts, as GLANN, arXiv:1812.08985): a mixture of the codes, and layers that draw what is added to them, by the energy distance.
One thread; kill it and start it again, and it goes on from the last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from photopic.core.numerics.muon import Muon
from photopic.core.runs import Run
from photopic.data import scenes
from photopic.data.emoji_faces import emoji_faces, face_plans, face_sprites
from photopic.models.generator import Generator
from photopic.models.style_files import networks
from photopic.models.style_networks import Mapping

sys.path.append(str(Path(__file__).parents[1]))  # recipes/, which holds _common
import train as first

from _common.training import Training, trained, under


@dataclass(frozen=True)
class Config:
    """What determines the weights, apart from the art."""

    steps: int = 6_000  # after 4,500 of an earlier run
    mapping_steps: int = 24_000
    mapping_batch: int = 512  # codes of a step; twice as many in the last quarter
    batch: int = 16
    rate: float = 4e-3
    code_rate: float = 0.02
    matrix_rate: float = 0.02  # Muon's
    features: float = 1.0  # weight of the differences of features
    blur: float = 0.15  # standard deviation of what is added to each number of a code
    average: float = 0.995
    pictures: int = 12_000
    places: int = 40_000  # that the mapping learns from
    sharper: float = 2.0  # keys of the softmax over codes: fewer draws lie between two
    draws: int = 100_000  # of the mapping, to draw every code as often
    seed: int = 2026


class Codes(nn.Module):
    """w of a picture, of unit mean square: a code of its drawing or its mirror image, and a linear part of place and background."""

    def __init__(self, width: int):
        super().__init__()
        self.drawing = nn.Embedding(2 * len(face_sprites()), width)
        self.place = nn.Linear(10, width, bias=False)
        nn.init.normal_(self.drawing.weight)
        nn.init.normal_(self.place.weight, std=0.5)

    def forward(self, which: Tensor, where: Tensor) -> Tensor:
        """(batch,) and (batch, 10) to (batch, width)."""
        w = self.drawing(which) + self.place(where)
        return w * (w.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def known(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Number of the drawing (its mirror image apart), and place, size and background, about unit variance."""
    number = {each: i for i, each in enumerate(face_sprites())}
    colour = {name: (torch.tensor(rgb) / 127.5 - 1) * 1.5 for name, rgb in scenes.COLOURS.items()}
    which, where = [], []
    for face, background, flipped in face_plans(count, seed):
        which.append(2 * number[face.concept, face.style] + flipped)
        top = colour[background.colour]
        across = (face.centre[0] - 0.5) * (-1 if flipped else 1)
        rest = torch.tensor([across / 0.0087, (face.centre[1] - 0.5) / 0.0087, (face.side - 0.9) / 0.0115]) / 2
        where.append(torch.cat([top, colour[background.second or background.colour] - top, rest,
                                torch.tensor([1.0 if background.second else -0.5])]))  # fmt: skip
    return torch.tensor(which), torch.stack(where)


def train(
    config: Config, run: Run, start: Path | None = None, save_every: int = 250, sheets: int = 0
) -> Iterator[dict[str, float]]:
    """Learn codes and the synthesis that draws their pictures, from the beginning or from what ``train.export`` kept."""
    torch.manual_seed(config.seed)
    made = first.design(config.seed)
    _, synthesis = networks(made)
    frozen = first.Heads((48, 96, 64))
    model = nn.ModuleDict({"synthesis": synthesis, "codes": Codes(made.w_width)}).to(memory_format=torch.channels_last)
    if start is not None:
        kept = {name: value.float() for name, value in load_file(start).items()}
        synthesis.load_state_dict(under(kept, "synthesis."))
        model["codes"].load_state_dict({"drawing.weight": kept["mapping.values"], "place.weight": kept["place"]})
    kernels = [p for p in synthesis.parameters() if p.ndim == 4 and p.shape[-1] == 3]
    table = [model["codes"].drawing.weight]
    rest = [p for p in model.parameters() if all(p is not k for k in kernels + table)]
    optimizers = [
        Muon(kernels, lr=config.matrix_rate, momentum=0.95),
        torch.optim.Adam(rest, lr=config.rate, betas=(0.9, 0.99)),
        torch.optim.Adam(table, lr=config.code_rate, betas=(0.9, 0.99)),
    ]
    training = Training(run, model, optimizers, average=config.average, clip=None)
    bank = torch.from_numpy(emoji_faces(config.pictures, config.seed)).permute(0, 3, 1, 2)  # uint8
    which, where = known(config.pictures, config.seed)
    for step in training.steps(config.steps, every=save_every):
        at = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        share = min(1.0, (step + 1) / 100, 2 * (config.steps - step) / config.steps)
        rows = torch.randint(len(bank), (config.batch,), generator=at)
        x = (bank[rows].float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            w = model["codes"](which[rows], where[rows])
            w = w + config.blur * torch.randn(w.shape, generator=at)
            drawn = synthesis(w[:, None].expand(-1, made.layers, -1), [None] * len(synthesis.convs)).float()
            with torch.no_grad():
                wanted = frozen.stages(x)
            felt = sum((a - b).abs().mean() / b.abs().mean() for a, b in zip(frozen.stages(drawn), wanted, strict=True))
        again = first.distance(drawn, x)
        training.update(again + config.features * felt, share)
        line = {"again": again.item(), "felt": felt.item(), "square": (drawn - x).square().mean().item()}
        training.log(50, **line)
        if sheets and (step + 1) % sheets == 0:
            first.save_sheet([x, drawn.detach()], run.folder / f"sheet-{step + 1}.png")
        yield {"step": step + 1} | line


def apart(one: Tensor, other: Tensor) -> Tensor:
    """Energy distance of two sets of codes, (n, d) each."""
    n = len(one)
    inner = (torch.cdist(one, one).sum() + torch.cdist(other, other).sum()) / (n * (n - 1))
    return 2 * torch.cdist(one, other).mean() - inner


@torch.no_grad()
def even_out(mapping: Mapping, width: int, seed: int, draws: int, rounds: int = 40) -> None:
    """Move the offsets, less and less, until every code is drawn about as often; each round counts other draws."""
    rate = 0.1 * mapping.keys.norm(dim=1).mean()
    for number in range(rounds):
        z = torch.randn(draws, width, generator=torch.Generator().manual_seed(seed + number))
        at = (z * z.square().mean(1, keepdim=True).rsqrt())[:, : mapping.chooses]
        share = torch.stack([mapping.choice(each).sum(0) for each in at.split(4_000)]).sum(0) / draws
        mapping.offset.sub_(rate * 0.9**number * (share * len(share)).clamp(min=0.05).log())


def map_codes(config: Config, run: Run, learnt: Run, save_every: int = 500) -> Iterator[dict[str, float]]:
    """Learn the layers that draw what is added to the codes, by the energy distance; the codes are those learnt."""
    torch.manual_seed(config.seed + 1)
    made = first.design(config.seed)
    codes = Codes(made.w_width)
    codes.load_state_dict(under(trained(learnt)[0], "codes."))
    bank = codes.place(known(config.places, config.seed)[1]).detach()
    mapping = networks(made)[0]
    with torch.no_grad():
        mapping.values.copy_(codes.drawing.weight)
        mapping.keys.mul_(config.sharper)
        even_out(mapping, made.z_width, config.seed, config.draws)
    optimizer = torch.optim.Adam(mapping.layers.parameters(), lr=4e-3, betas=(0.9, 0.99))
    training = Training(run, mapping, [optimizer], average=0.99, clip=None)
    for step in training.steps(config.mapping_steps, every=save_every):
        at = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        share = min(1.0, 2 * (config.mapping_steps - step) / config.mapping_steps)
        batch = config.mapping_batch * (2 if step >= 0.75 * config.mapping_steps else 1)
        real = bank[torch.randint(len(bank), (batch,), generator=at)]
        z = torch.randn(batch, made.z_width, generator=at)
        drawn = mapping.added(z * z.square().mean(1, keepdim=True).rsqrt())
        loss = apart(drawn, real)
        training.update(loss, share)
        if (step + 1) % 500 == 0:
            training.note(energy=apart(drawn.detach(), real).item())
        yield {"step": step + 1, "energy": loss.item()}


def write(config: Config, learnt: Run, mapped: Run) -> None:
    """The generator of both parts, for ``train.py``."""
    mapping, synthesis = networks(first.design(config.seed))
    for part, run, name in ((mapping, mapped, ""), (synthesis, learnt, "synthesis.")):
        tensors, spent = trained(run)
        part.load_state_dict(under(tensors, name))
        (run.folder / "spent.json").write_text(json.dumps(spent))
    Generator(mapping, synthesis, first.design(config.seed), "emoji-gan").save(mapped.folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/emoji-gan"))
    parser.add_argument("--start", type=Path, help="go on from this checkpoint file, in another --out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = Config()
    learnt, mapped = (Run(options.out / name, asdict(config)) for name in ("codes", "mapping"))
    if (done := learnt.load()) is None or done[1]["step"] < config.steps:
        for _ in train(config, learnt, options.start, sheets=500):
            pass
    for _ in map_codes(config, mapped, learnt):
        pass
    write(config, learnt, mapped)
