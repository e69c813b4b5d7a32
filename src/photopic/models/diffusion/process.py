"""One diffusion process: any schedule and prediction type, a map of the time input, and components that fade and are dropped.

The state at timestep t is Gaussian around the clean picture's components v_i, ``x_t = sum_i lambda_{i,t} v_i + sigma_t noise`` with
``lambda_{i,t} = alpha_t gamma_{i,t}``; the noise is the same in all components. Without a pyramid there is one component and
this is the usual process, computed by the very same operations. Formulas: `dimensionality` and `shared_timesteps`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from photopic.core.errors import ModelError
from photopic.models.diffusion._checks import PREDICTIONS
from photopic.models.diffusion.pyramid import Pyramid
from photopic.models.diffusion.schedules import Schedule

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""Noisy pictures (n, c, h, w) and the time input (n,) to a prediction (n, c, h, w)."""

Pictures = Float[Tensor, "n c h w"]
Timesteps = Int[Tensor, " n"]  # one a picture
END = -1  # the timestep of clean samples
WHOLE = Pyramid()


@dataclass(frozen=True, eq=False)
class Diffusion:
    """A process.

    Attributes:
        schedule: Of alpha and sigma.
        prediction: What the network puts out.
        pyramid: How pictures are taken apart; no levels: not at all.
        turning: T_1 < ... < T_K, a timestep for each level of the pyramid: at later ones the finest component left is gone, and the
            state is half as large.
        attenuation: gamma, (levels + 1, timesteps): factor of every component, the finest first; None: 1.
        time_map: What time the network is told at every timestep; None: the timestep.
        inserted: Standard deviation of each dropped detail of clean pictures, added in quadrature to the noise that takes its place
            when it returns (Subspace Diffusion); None: nothing is added, which is right where the detail has faded.

    Raises:
        ModelError: If turning points are not one a level, out of order or out of range; if attenuation has another shape, is not
            positive, rises, or lets a component's signal-to-noise ratio rise; if noise is to be predicted where no signal is
            left; if the time map has another length or leaves the timesteps.

    Example:
        >>> process = Diffusion(Schedule.of_kind("linear"))
        >>> x = process.noised(torch.ones(1, 3, 8, 8), torch.zeros(1, 3, 8, 8), torch.tensor([0]))
        >>> round(x.mean().item(), 5)
        0.99995
    """

    schedule: Schedule
    prediction: str = "epsilon"
    pyramid: Pyramid = WHOLE
    turning: tuple[int, ...] = ()
    attenuation: Float64[Tensor, "components timesteps"] | None = None
    time_map: Int[Tensor, " timesteps"] | None = None
    inserted: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.prediction not in PREDICTIONS:
            raise ModelError(f"prediction: expected one of {', '.join(PREDICTIONS)}, found {self.prediction!r}")
        if self.prediction == "epsilon" and float(self.schedule.alphas[-1]) == 0:
            raise ModelError(
                "prediction: noise says nothing about the picture where no signal is left; predict velocity or sample"
            )
        self._check_turning()
        if self.attenuation is not None:
            self._check_attenuation(self.attenuation)
        if self.time_map is not None:
            _check_time_map(self.time_map, self.timesteps)
        if self.inserted is not None and len(self.inserted) != self.pyramid.levels:
            raise ModelError(
                f"inserted: expected a deviation for each of {self.pyramid.levels} levels, found {len(self.inserted)}"
            )

    def __str__(self) -> str:
        """In words, such as ``epsilon, 1000 timesteps, turning points 300, 600 (pool, fading), shared times``."""
        said = [self.prediction, f"{self.timesteps} timesteps"]
        if self.turning:
            fading = self.attenuation is not None and bool((self.attenuation < 1).any())
            how = [
                self.pyramid.kind,
                "fading" if fading else "not fading",
                *(["noise as strong as details"] if self.inserted else []),
            ]
            said.append(f"turning points {', '.join(map(str, self.turning))} ({', '.join(how)})")
        if self.time_map is not None:
            said.append("shared times")
        return ", ".join(said)

    @property
    def timesteps(self) -> int:
        """How many there are."""
        return len(self.schedule)

    # -- sizes

    def level(self, timestep: int) -> int:
        """How often the picture that the network reads at a timestep is halved: how many turning points lie before it."""
        return sum(point < timestep for point in self.turning)

    def levels(self, timesteps: Timesteps) -> Timesteps:
        """The same for many."""
        points = torch.tensor(self.turning, dtype=timesteps.dtype, device=timesteps.device)
        return (points[None] < timesteps[:, None]).sum(1)

    def lifted(
        self, y: Pictures, timestep: int, noise: Float[Tensor, "n c h2 w2"], level: int
    ) -> Float[Tensor, "n c h2 w2"]:
        """A state one level finer: its components as they are, and noise in the place of the detail.

        Args:
            y: The state at ``timestep``, halved ``level`` times.
            timestep: Where the detail returns.
            noise: Standard normal, twice as large.
            level: Of ``y``, 1 or more.
        """
        scale = float(self.schedule.sigmas[timestep])
        if self.inserted is not None:
            signal = float(self.schedule.alphas[timestep]) * self.inserted[level - 1]
            scale = (scale**2 + signal**2) ** 0.5
        return self.pyramid.up(y) + scale * self.pyramid.detail(noise)

    # -- factors

    @cached_property
    def _signal(self) -> Float64[Tensor, "components timesteps_and_end"]:
        """lambda of every component and timestep; the last column is that of clean samples."""
        signal = self.schedule.alphas.expand(self.pyramid.levels + 1, -1)
        if self.attenuation is not None:
            signal = signal * self.attenuation
        return torch.cat([signal, torch.ones(len(signal), 1, dtype=torch.float64)], 1)

    @cached_property
    def _noise(self) -> Float64[Tensor, " timesteps_and_end"]:
        return torch.cat([self.schedule.sigmas, torch.zeros(1, dtype=torch.float64)])

    def scales(self, timesteps: Timesteps, like: Tensor, level: int | None = None) -> tuple[list[Tensor], Tensor]:
        """lambda of every component that is left and sigma, each (n, 1, 1, 1) in the dtype of ``like``; timestep -1 is clean."""
        level = self.level(int(timesteps.max())) if level is None else level
        at = timesteps.to(like.device) % (self.timesteps + 1)  # -1 is the last column
        signal = [_at(row, at, like) for row in self._signal[level:]]
        return signal, _at(self._noise, at, like)

    def input_time(self, timesteps: Timesteps) -> Timesteps:
        """What the network is told."""
        return timesteps if self.time_map is None else self.time_map.to(timesteps.device)[timesteps]

    # -- forward

    def noised(self, clean: Pictures, noise: Pictures, timesteps: Timesteps, level: int | None = None) -> Pictures:
        """x_t of clean pictures that are halved as the timesteps ask; all timesteps on one level."""
        signal, sigma = self.scales(timesteps, clean, level)
        return self.pyramid.weigh(clean, signal) + sigma * noise

    def target(self, clean: Pictures, noise: Pictures, timesteps: Timesteps) -> Pictures:
        """What a perfect network puts out; velocity is alpha noise - sigma clean, whatever has faded."""
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "sample":
            return clean
        alpha, sigma = self._plain(timesteps, clean)
        return alpha * noise - sigma * clean

    # -- backward

    def to_sample(
        self, prediction: Pictures, noisy: Pictures, timesteps: Timesteps, level: int | None = None
    ) -> Pictures:
        """The clean picture that a prediction implies."""
        if self.prediction == "sample":
            return prediction
        signal, sigma = self.scales(timesteps, noisy, level)
        if self.prediction == "epsilon":
            return self.pyramid.weigh(noisy - sigma * prediction, [1 / each for each in signal])
        alpha, _ = self._plain(timesteps, noisy)  # x = l v + s e and p = a e - s v give v = (a x - s p) / (a l + s^2)
        return self.pyramid.weigh(
            alpha * noisy - sigma * prediction, [1 / (alpha * each + sigma.square()) for each in signal]
        )

    def to_noise(
        self, prediction: Pictures, noisy: Pictures, timesteps: Timesteps, level: int | None = None
    ) -> Pictures:
        """The noise that a prediction implies."""
        if self.prediction == "epsilon":
            return prediction
        signal, sigma = self.scales(timesteps, noisy, level)
        clean = self.to_sample(prediction, noisy, timesteps, level)
        return (noisy - self.pyramid.weigh(clean, signal)) / sigma

    def posterior(
        self, noisy: Pictures, clean: Pictures, timestep: int, earlier: int, level: int | None = None
    ) -> tuple[Pictures, list[Float64[Tensor, ""]]]:
        """q(x_earlier | x_t, x_0): the mean, and the standard deviation of every component.

        Args:
            noisy: x_t.
            clean: x_0, as large.
            timestep: t.
            earlier: A timestep before it; -1 is the clean sample.
            level: Of both pictures; None: that of ``timestep``.
        """
        level = self.level(timestep) if level is None else level
        mean_clean, mean_noisy, spread = [], [], []
        for row in self._signal[level:]:
            now, then = row[timestep], row[earlier]
            noise_now, noise_then = self._noise[timestep].square(), self._noise[earlier].square()
            ratio = now / then  # a
            fresh = noise_now - ratio.square() * noise_then  # s^2
            weight = ratio * noise_then / noise_now
            mean_noisy.append(weight.to(noisy))
            mean_clean.append((then - weight * now).to(noisy))
            spread.append((noise_then * fresh / noise_now).clamp(min=0).sqrt())
        return self.pyramid.weigh(clean, mean_clean) + self.pyramid.weigh(noisy, mean_noisy), spread

    def _plain(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma of the schedule itself."""
        at = timesteps.to(like.device)
        return _at(self.schedule.alphas, at, like), _at(self.schedule.sigmas, at, like)

    # -- checks

    def _check_turning(self) -> None:
        points = self.turning
        if len(points) != self.pyramid.levels:
            raise ModelError(
                f"turning points: expected one for each of {self.pyramid.levels} levels, found {len(points)}: {points}"
            )
        if list(points) != sorted(set(points)) or (points and not 0 < points[0] <= points[-1] < self.timesteps - 1):
            raise ModelError(
                f"turning points: expected rising timesteps from 1 to {self.timesteps - 2}, found {points}"
            )

    def _check_attenuation(self, gamma: Tensor) -> None:
        wanted = (self.pyramid.levels + 1, self.timesteps)
        if tuple(gamma.shape) != wanted:
            raise ModelError(f"attenuation: expected (components, timesteps) = {wanted}, found {tuple(gamma.shape)}")
        if not bool((gamma > 0).all()) or not bool(gamma.isfinite().all()):
            raise ModelError("attenuation: expected factors above 0, found others")
        if bool((gamma[-1] != 1).any()):
            raise ModelError("attenuation: the coarsest component must not fade; expected factors of 1")
        for index, row in enumerate(gamma):
            rising = (row.diff() > 0).nonzero()
            if len(rising):
                at = int(rising[0])
                raise ModelError(
                    f"attenuation: component {index} rises from {float(row[at]):g} to {float(row[at + 1]):g} at timestep "
                    f"{at + 1}; it may only fall, or noise would have to be taken away"
                )


def _at(table: Tensor, timesteps: Tensor, like: Tensor) -> Tensor:
    """Entries of a table as (n, 1, 1, 1); the table goes to the device, so that no step waits for the timesteps to come back."""
    return table.to(like)[timesteps].view(-1, 1, 1, 1)


def _check_time_map(time_map: Sequence[int] | Tensor, timesteps: int) -> None:
    found = torch.as_tensor(time_map)
    if len(found) != timesteps or int(found.min()) < 0 or int(found.max()) >= timesteps:
        raise ModelError(
            f"time map: expected a timestep from 0 to {timesteps - 1} for each of {timesteps}, found {len(found)} from "
            f"{int(found.min())} to {int(found.max())}"
        )
