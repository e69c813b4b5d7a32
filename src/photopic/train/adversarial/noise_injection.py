"""Train a style-based generator whose noise layers learn from the feature map where noise acts and how strongly.

Paper: *On Noise Injection in Generative Adversarial Networks* (ICML 2021, arXiv:2006.05891): o = sigma(x) * (x + strength * noise),
sigma a learnt gate of the map's own channel sum. ``noise="add"`` is StyleGAN2's layer, ``"none"`` leaves noise out. Changed:
the recommended gate has the paper's plain sum and largest size of 1 with the author's code's mean square of 1 and separate
strength, which starts at 0; ``gate_reduction`` names the code's other sums (``negative``, ``abs``, ``max``: one a data set),
``gate_scale`` and ``gate_norm`` its other steps. Training: non-saturating loss, lazy R1, moving average (StyleGAN2,
arXiv:1912.04958). Claims ``gan.noise.*`` of benchmarks/train/noise_injection.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Lt
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from photopic.core.config import Config
from photopic.core.errors import DataError, DivergedError, FieldError
from photopic.core.events import Event, Steps
from photopic.core.fit import fit
from photopic.core.method import method
from photopic.core.runs import Run, load_optimizer, optimizer_tensors
from photopic.data.picture_set import PictureSet
from photopic.models.generator import Generator, GeneratorConfig
from photopic.models.networks import fastest
from photopic.models.style_critics import Discriminator
from photopic.models.style_files import networks, seeded_normal
from photopic.models.style_networks import Noise, Norm, Reduction, Scale

GROUP = 4  # pictures whose spread the discriminator sees


@dataclass(frozen=True, kw_only=True)
class NoiseInjectionConfig(Config):
    """What to train and how."""

    noise: Noise = "gated"  # gated: where and how strongly is learnt; add: the same strength everywhere; none
    gate_reduction: Reduction = "sum"  # of a map's channels, which the gate reads; the author's code has one a data set
    gate_scale: Scale = "max_abs"  # of that sum: mean 0 and largest size 1; shifted_max: about 0 to 1, as in the code
    gate_norm: Norm = "rms"  # of the gate: mean square 1; l2: squares sum to 1 and one gain follows, as published
    size: Annotated[int, Ge(8)] = 64  # side of the pictures in pixels, a power of two
    width: Annotated[int, Ge(4)] = 16  # channels at the full size; twice as many at each half, at most six times
    latent: Annotated[int, Ge(1)] = 64  # numbers of z and of w
    steps: Annotated[int, Ge(1)] = 20_000  # steps of learning; more takes longer
    batch: Annotated[int, Ge(1)] = 16  # pictures a step
    lr: Annotated[float, Gt(0)] = 2.5e-3  # size of a step of Adam, of both networks
    mapping_rate: Annotated[float, Gt(0)] = 0.01  # that of the mapping, as a share of lr
    r1: Annotated[float, Ge(0)] = 1.0  # weight of the discriminator's squared gradient at pictures
    lazy: Annotated[int, Ge(1)] = 16  # steps between two times it is asked for
    average: Annotated[float, Ge(0), Lt(1)] = 0.998  # decay of the moving average of the generator, which is kept
    flip: bool = False  # also mirror pictures at random, where left and right do not matter
    seed: Annotated[int, Ge(0)] = 0  # seed of everything random; the same seed learns the same

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size & (self.size - 1):
            raise FieldError("size", f"expected a power of two, found {self.size}")

    @property
    def design(self) -> GeneratorConfig:
        """What the generator is made of."""
        sizes = self.size.bit_length() - 2
        channels = tuple(self.width * min(6, 1 << (sizes - 1 - k)) for k in range(sizes))
        return GeneratorConfig(
            resolution=self.size, z_width=self.latent, w_width=self.latent, channels=channels, mapping_rate=self.mapping_rate,
            noise=self.noise, gate_reduction=self.gate_reduction, gate_scale=self.gate_scale, gate_norm=self.gate_norm,
            seed=self.seed,
        )  # fmt: skip


PAPER = NoiseInjectionConfig(  # FFHQ at 128 pixels; the author's code gives no length
    size=128, width=128, latent=512, batch=32, lr=2e-3, r1=10.0, average=0.999, gate_norm="l2", steps=800_000
)  # fmt: skip


class AdversarialLearner:
    """Generator and discriminator in turns, and the moving average of the generator.

    Args:
        images: To learn from, of the generator's size.
        config: What to train and how.
        device: Where.
    """

    def __init__(self, images: UInt8[Tensor, "n h w 3"], config: NoiseInjectionConfig, device: str = "cpu"):
        self.images, self.config = images, config
        self.mapping, self.synthesis = networks(config.design)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed + 1)
            self.critic = Discriminator(config.design, group=GROUP).to(device)
        self.generator = nn.ModuleDict({"mapping": self.mapping, "synthesis": self.synthesis}).to(device)
        self.average = {name: value.clone() for name, value in self.generator.state_dict().items()}
        parts = (self.generator, self.critic)
        self.optimizers = [torch.optim.Adam(part.parameters(), lr=config.lr, betas=(0.0, 0.99)) for part in parts]

    def step(self, step: int) -> Mapping[str, float]:
        """One step of the discriminator, one of the generator, on the same drawn pictures."""
        config, device = self.config, next(self.critic.parameters()).device
        at = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        count = GROUP * max(1, config.batch // GROUP)
        chosen = self.images[torch.randint(len(self.images), (count,), generator=at)]
        real = (chosen.permute(0, 3, 1, 2).float() / 127.5 - 1).to(device)
        if config.flip:
            real = torch.where(torch.rand(count, 1, 1, 1, generator=at).to(device) < 0.5, real.flip(3), real)
        z = seeded_normal(config.latent, int(torch.randint(2**62, (), generator=at)), count).to(device)
        noise = [
            None if each is None else torch.randn(count, *each.shape[1:], generator=at).to(device)
            for each in self.synthesis.stored_noise()
        ]
        drawn = self.synthesis(self.mapping(z)[:, None].expand(-1, config.design.layers, -1), noise)
        self.critic.requires_grad_(True)
        told = F.softplus(-self.critic(real)).mean() + F.softplus(self.critic(drawn.detach())).mean()
        asked = told
        if config.r1 and step % config.lazy == 0:
            asked = told + config.lazy * config.r1 / 2 * self.slope(real)
        self._descend(1, asked, step)
        self.critic.requires_grad_(False)
        fooled = F.softplus(-self.critic(drawn)).mean()
        self._descend(0, fooled, step)
        decay = min(config.average, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in self.generator.state_dict().items():
                self.average[name].lerp_(value, 1 - decay)
        return {"loss": fooled.item(), "discriminator": told.item()}

    def slope(self, real: Float[Tensor, "n 3 h w"]) -> Float[Tensor, ""]:
        """R1: the squared gradient of the logit at pictures."""
        at = real.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(self.critic(at).sum(), at, create_graph=True)
        return gradient.square().sum((1, 2, 3)).mean()

    def _descend(self, which: int, loss: Float[Tensor, ""], step: int) -> None:
        if not torch.isfinite(loss):
            raise DivergedError(f"step {step + 1}: the loss is {loss.item()}; lower the learning rate")
        self.optimizers[which].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers[which].step()

    def model(self) -> Generator:
        """The moving average as a generator, with the discriminator that judges every picture alone."""
        mapping, synthesis = networks(self.config.design)
        nn.ModuleDict({"mapping": mapping, "synthesis": synthesis}).load_state_dict(self.average)
        alone = Discriminator(self.config.design)
        alone.load_state_dict(self.critic.state_dict())
        device = next(self.critic.parameters()).device
        return Generator(mapping.to(device), synthesis.to(device), self.config.design, discriminator=alone.to(device))

    def state(self) -> dict[str, Tensor]:
        """Both networks, the average, and what both optimizers remember."""
        found = {f"average.{name}": value for name, value in self.average.items()}
        for name, part in (("generator", self.generator), ("critic", self.critic)):
            found |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
        for index, optimizer in enumerate(self.optimizers):
            found |= optimizer_tensors(optimizer, f"optimizer{index}.")
        return found

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put back what ``state`` gave."""
        for name, value in self.average.items():
            value.copy_(state[f"average.{name}"])
        for name, part in (("generator", self.generator), ("critic", self.critic)):
            part.load_state_dict({key: state[f"{name}.{key}"] for key in part.state_dict()})
        for index, optimizer in enumerate(self.optimizers):
            load_optimizer(optimizer, state, f"optimizer{index}.")


@method(
    paper="arXiv:2006.05891",
    claims="gan.noise.",
    presets={"paper": PAPER},
    command="train generator",
    examples=(
        "Example: photopic train generator pictures/ -o mine",
        "Without pictures, with StyleGAN2's noise: photopic train generator emoji-scenes:4000 --noise add -o mine",
    ),
    after=("{output}: learnt from {pictures} pictures; draw: photopic generate --model {output} -o out/",),
)
def noise_injection(
    data: PictureSet, *, config: NoiseInjectionConfig = NoiseInjectionConfig(), run: Run | None = None
) -> Steps[Generator]:
    """Train a style-based generator on pictures alone, with noise layers that learn where noise acts.

    Args:
        data: Pictures; the emoji world's scenes to try it.
        config: What to train and how.
        run: A run folder to checkpoint in and to resume from.

    Returns:
        The moving average of the generator, and its discriminator.

    Raises:
        DataError: If there is no picture, or a size is no power of two.
        DivergedError: If a loss is no number.

    Example:
        >>> config = NoiseInjectionConfig(size=8, width=4, latent=4, steps=1, batch=4)
        >>> noise_injection(PictureSet("emoji-scenes:4"), config=config).resolution
        8
    """
    yield Event("reading pictures")
    images = data.read(config.size)
    if not len(images):
        raise DataError("expected 1 picture or more, found none")
    learner = AdversarialLearner(images, config, fastest())
    yield from fit(learner, config.steps, run=run)
    return replace(learner.model(), provenance={"pictures": len(images)})
