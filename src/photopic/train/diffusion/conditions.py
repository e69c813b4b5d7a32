"""Teach a text-to-image model to read conditions: palette, sketch, masks, depth, grey values, embeddings, in any combination.

The model's own weights stay as they are; an adapter beside its UNet is trained (``models/text_to_image/condition_encoder.py``).
Each picture of a step keeps a random subset of its conditions.

Paper: *Composer: Creative and Controllable Image Synthesis with Composable Conditions* (arXiv:2302.09778). Changed: the paper
trains the whole network, on a billion pictures; here only what is new learns, and the sentence vector is left out, so that a
caption alone is the base's. Losses weigh timesteps by min-SNR (arXiv:2303.09556). Claims ``composer.*`` of
benchmarks/generate/composer.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float, Int64
from torch import Tensor

from photopic.core.config import Config, Flags
from photopic.core.errors import DivergedError
from photopic.core.events import Event, Steps
from photopic.core.fit import fit
from photopic.core.method import method
from photopic.core.numerics.muon import muon_and_adamw
from photopic.core.runs import Run, load_optimizer, optimizer_tensors
from photopic.core.view import Section, Table, Text, View
from photopic.data.conditioned_pictures import ConditionedPictures
from photopic.data.conditions import EIGHT, Conditions
from photopic.data.extraction import WEIGHTS, intensity, masked, random_hidden
from photopic.data.pixels import from_pixels
from photopic.learning.condition_dropout import ALL, DROP, DROP_INTENSITY, NONE, kept_conditions
from photopic.learning.few_shot_batches import cosine
from photopic.learning.processes import Processes
from photopic.models.depth_network import with_depth
from photopic.models.dual_encoder import DualEncoder
from photopic.models.files import bundled_names
from photopic.models.text_to_image.condition_encoder import ConditionEncoder, Shape
from photopic.models.text_to_image.condition_files import About
from photopic.models.text_to_image.conditional import ConditionalTextToImage, batch_of, embedded
from photopic.models.text_to_image.handle import TextToImage

AT_ONCE = 32  # pictures read or encoded together
SAVE_EVERY = 100
SNR_LIMIT = 5.0
WARMUP = 50  # steps over which the rate rises
CLIP = 1.0  # largest length of the gradient


@dataclass(frozen=True, kw_only=True)
class ConditionsConfig(Config):
    """How to train."""

    steps: Annotated[int, Ge(1)] = 2_000  # steps of training; more takes longer
    batch: Annotated[int, Ge(1)] = 32  # pictures a step; lower it when memory is short
    lr: Annotated[float, Gt(0)] = 1e-3  # learning rate at its peak; it falls along a half cosine
    ema: Annotated[float, Ge(0), Le(0.9999)] = 0.99  # of the averaged weights, which are the result
    drop_intensity: Annotated[float, Ge(0), Le(1)] = DROP_INTENSITY  # how often the grey values are dropped
    shuffle: bool = False  # give each picture the conditions of another: a control, nothing can be learnt
    seed: Annotated[int, Ge(0)] = 0  # seed of everything random; the same seed learns the same


def trained_view(model: ConditionalTextToImage) -> View:
    """What was trained."""
    shape, about = model.condition_encoder.shape, model.about
    rows = [["reads", ", ".join(("caption", *shape.names))], ["beside", about.base or "the pipeline in this folder"]]
    rows += [["weights", f"{sum(each.numel() for each in model.condition_encoder.parameters()):,}"]]
    use = "photopic generate 'a fox' --model FOLDER --condition palette=a.png --condition sketch=b.png"
    return View("Conditional model", [Section("", [Table(["", ""], rows), Text(f"Use it: {use}")])])


@method(
    paper="arXiv:2302.09778",
    claims="composer.",
    command="train conditions",
    examples=(
        "Example: photopic train conditions pictures/ -o mine --run runs/mine",
        "Without pictures: photopic train conditions emoji-scenes:500 --steps 100 -o mine",
        "Several GPUs: accelerate launch -m photopic train conditions pictures/ --run runs/mine -o mine",
    ),
    view=trained_view,
)
def conditions(
    model: Annotated[TextToImage, Flags("--model", default="emoji-diffusion")],
    data: ConditionedPictures,
    encoder: Annotated[DualEncoder, Flags("--encoder", default="emoji-clip-vit")],
    *,
    config: ConditionsConfig = ConditionsConfig(),
    run: Run | None = None,
) -> Steps[ConditionalTextToImage]:
    """Teach a text-to-image model to read the palette, sketch, masks, depth and grey values of pictures, in any combination.

    Args:
        model: What it begins from, with a UNet; a conditional one goes on from its adapter.
        data: Pictures, perhaps with captions and conditions of their own.
        encoder: A dual encoder whose embeddings are one of the conditions.
        config: How to train.
        run: A run folder to checkpoint in and to resume from.

    Returns:
        The model with its adapter; its folder holds ``conditions.json``.

    Raises:
        DataError: If there is no picture.
        ModelError: If the model has no UNet, or the loss is no longer finite.

    Example:
        >>> model = conditions(model, ConditionedPictures("pictures/"), encoder)  # doctest: +SKIP
    """
    model.check_unet("conditions are read by a UNet")
    if (processes := Processes()).count > 1:
        model.pipeline.to(processes.device)
    bank = yield from _bank(model, data, encoder)
    names = tuple(name for name in EIGHT if any(name in each.names for each in bank.sets) and name != "caption")
    learner = ConditionLearner(model, fresh_adapter(model, names, encoder, config.seed), bank, config)
    yield from fit(learner, config.steps, run=run, save_every=SAVE_EVERY, stage="training")
    drop = {"each": DROP, "intensity": config.drop_intensity, "none": NONE, "all": ALL}
    base = model.name if model.name in bundled_names() else ""
    about = model.about.base if isinstance(model, ConditionalTextToImage) else base
    trained = _built(model, learner.averaged(), About(about, encoder.name, encoder.digest(), drop))
    return trained


@dataclass(eq=False)
class Bank:
    """Pictures read and encoded once; what a step draws anew are grey values and masks."""

    images: np.ndarray  # (n, size, size, 3) bytes
    latents: Tensor  # (n, c, h, w)
    sets: list[Conditions]


def _bank(model: TextToImage, data: ConditionedPictures, encoder: DualEncoder) -> Steps[Bank]:
    images: list[np.ndarray] = []
    latents: list[Tensor] = []
    sets: list[Conditions] = []
    total = len(data)
    for _, image, found in data.read(model.image_size):
        images.append(image)
        sets.append(with_depth(found, image))
        if len(images) % AT_ONCE and len(images) < total:
            continue
        last = images[len(latents) * AT_ONCE :]
        with torch.no_grad():
            latents.append(model.encode_images(from_pixels(np.stack(last)).to(model.device)).float().cpu())
        for place, each in enumerate(embedded(encoder, last), len(images) - len(last)):
            given = Conditions(sets[place].size, {"embedding": each.vector}, {"embedding": encoder.name}, each.encoder)
            sets[place] = sets[place].joined(given)
        yield Event("reading pictures", len(images), total)
    return Bank(np.stack(images), torch.cat(latents), [_with_mask(each) for each in sets])


def _with_mask(found: Conditions) -> Conditions:
    """A place for the mask, which each step draws anew."""
    kept = np.full((4, found.size, found.size), 255, np.uint8)
    return found.joined(Conditions(found.size, {"masked": kept}, {"masked": "drawn at random"}))


def fresh_adapter(model: TextToImage, names: tuple[str, ...], encoder: DualEncoder, seed: int = 0) -> ConditionEncoder:
    """The adapter that training begins with: a new one, or that of a conditional model."""
    if isinstance(model, ConditionalTextToImage):
        fresh = ConditionEncoder(model.condition_encoder.shape)
        fresh.load_state_dict(model.condition_encoder.state_dict())
        return fresh.to(model.device)
    unet = model.unet
    width = encoder.image_features([np.zeros((8, 8, 3), np.uint8)]).shape[1]
    blocks = tuple(unet.config.block_out_channels)
    shape = Shape(
        names,
        width,
        unet.time_embedding.linear_2.out_features,
        unet.config.cross_attention_dim,
        blocks,
        model.image_size // model.pipeline.vae_scale_factor,
        trunk=tuple(min(64 + 32 * level, own * 2) for level, own in enumerate(blocks)),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ConditionEncoder(shape).to(model.device)


class ConditionLearner:
    """The adapter with its optimizers and its moving average.

    Args:
        model: Whose UNet reads it; stays as it is.
        adapter: What learns.
        bank: The pictures.
        config: How.
    """

    def __init__(self, model: TextToImage, adapter: ConditionEncoder, bank: Bank, config: ConditionsConfig):
        self.model, self.adapter, self.bank, self.config = model, adapter.train().requires_grad_(True), bank, config
        self.names = ("caption", *adapter.shape.names)
        self.optimizers = muon_and_adamw(adapter, config.lr, ("stacks.", "conv_new."))
        self.average = {name: value.detach().clone() for name, value in adapter.state_dict().items()}
        self.order = np.random.default_rng((config.seed, 7)).permutation(len(bank.sets))
        self.processes = Processes()
        self.own = self.processes.share(config.batch)  # places of a batch

    def step(self, step: int) -> Mapping[str, float]:
        """One step down the loss of a batch."""
        loss = self.loss(step)
        measured = self.processes.mean(loss.detach())
        if not torch.isfinite(measured):
            raise DivergedError(f"step {step + 1}: the loss is {measured.item()}; lower the learning rate")
        self.adapter.zero_grad(set_to_none=True)
        loss.backward()
        self.processes.mean_gradients(self.adapter.parameters())
        held = [each for each in self.adapter.parameters() if each.grad is not None]
        torch.nn.utils.clip_grad_norm_(held, CLIP)
        rate = self.config.lr * min(1.0, (step + 1) / WARMUP) * cosine(step, self.config.steps)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        decay = min(self.config.ema, (2 + step) / (11 + step))
        with torch.no_grad():
            for name, value in self.adapter.state_dict().items():
                self.average[name].lerp_(value, 1 - decay)
        return {"loss": measured.item()}

    def loss(self, step: int) -> Tensor:
        """Weighted squared error of what the network predicts, for a batch that is a function of seed and step.

        Of several processes each has its share of it, and the mean of what they find is the loss of the whole batch.
        """
        config, bank = self.config, self.bank
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        chosen = torch.randint(len(bank.sets), (config.batch,), generator=generator)
        noise = torch.randn((config.batch, *bank.latents.shape[1:]), generator=generator)
        strata = torch.randperm(config.batch, generator=generator) + torch.rand(config.batch, generator=generator)
        timesteps = (strata / config.batch * self.model.timesteps).long().clamp(max=self.model.timesteps - 1)
        kept = kept_conditions(config.batch, self.names, generator, intensity=config.drop_intensity)
        places = self.order[chosen.numpy()] if config.shuffle else chosen.numpy()
        sets = [
            self.drawn(int(places[item]), np.random.default_rng((config.seed, 11, step, item))).only(
                _kept(self.names, kept[item])
            )
            for item in range(config.batch)[self.own]
        ]
        clean = bank.latents[chosen][self.own].to(self.model.device)
        noise, timesteps = noise[self.own].to(clean), timesteps[self.own].to(clean.device)
        return self.errors(sets, clean, noise, timesteps).sum() * self.processes.count / config.batch

    def errors(
        self,
        sets: Sequence[Conditions],
        clean: Float[Tensor, "batch c h w"],
        noise: Float[Tensor, "batch c h w"],
        timesteps: Int64[Tensor, " batch"],
    ) -> Float[Tensor, " batch"]:
        """Weighted squared error of what the network predicts for each picture under its set."""
        schedule = self.model.schedule
        text = self.model.encode_prompts([str(each.values.get("caption", "")) for each in sets])
        encoded = self.adapter(*batch_of(sets, self.adapter.shape, clean.device))
        with self.adapter.acting(self.model.unet, encoded):
            said = self.model.predict(schedule.add_noise(clean, noise, timesteps), timesteps, text).float()
        error = (said - schedule.target(clean, noise, timesteps)).square().mean((1, 2, 3))
        alpha, sigma = (each.flatten() for each in schedule.scales(clean, timesteps))
        snr = alpha**2 / sigma**2
        return (snr.clamp(max=SNR_LIMIT) + 1) / (snr + 1) * error

    def drawn(self, place: int, rng: np.random.Generator) -> Conditions:
        """The conditions of a picture, with grey values by other weights and another mask each time."""
        found, image = self.bank.sets[place], self.bank.images[place]
        numbers = found.values["instances"][0]
        objects = [numbers == number for number in np.unique(numbers) if number]
        new = {
            "intensity": intensity(image, WEIGHTS[int(rng.integers(len(WEIGHTS)))]),
            "masked": masked(image, random_hidden(rng, found.size, [each for each in objects if not each.all()])),
        }
        return found.joined(Conditions(found.size, new))

    def averaged(self) -> ConditionEncoder:
        """The adapter of the averaged weights."""
        found = ConditionEncoder(self.adapter.shape)
        found.load_state_dict(self.average)
        return found.eval().requires_grad_(False)

    def state(self) -> dict[str, Tensor]:
        """Weights, their average, and what the optimizers remember."""
        found = {f"net.{name}": value for name, value in self.adapter.state_dict().items()}
        found |= {f"ema.{name}": value for name, value in self.average.items()}
        for index, optimizer in enumerate(self.optimizers):
            found |= optimizer_tensors(optimizer, f"optimizer{index}.")
        return found

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put back what ``state`` gave."""
        self.adapter.load_state_dict({name[4:]: each for name, each in state.items() if name.startswith("net.")})
        self.average = {name[4:]: each.to(self.model.device) for name, each in state.items() if name.startswith("ema.")}
        for index, optimizer in enumerate(self.optimizers):
            load_optimizer(optimizer, state, f"optimizer{index}.")


def _kept(names: tuple[str, ...], row: Tensor) -> list[str]:
    return [name for name, kept in zip(names, row.tolist(), strict=True) if kept]


def _built(model: TextToImage, adapter: ConditionEncoder, about: About) -> ConditionalTextToImage:
    """A handle of its own over the model's pipeline, whose networks it shares."""
    parts = {name: getattr(model.pipeline, name) for name in model.pipeline.components}
    pipeline = type(model.pipeline)(**parts, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.conditions = (adapter, about)
    return ConditionalTextToImage(pipeline, model.name, knows_emoji=model.knows_emoji)
