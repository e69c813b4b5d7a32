"""Diffusion processes: one process that every schedule, predictor, time map and solver shares, and what saves work in it."""

from photopic.models.diffusion.process import Denoiser, Diffusion
from photopic.models.diffusion.pyramid import Pyramid
from photopic.models.diffusion.schedules import Schedule
from photopic.models.diffusion.solvers import Drawn, draw, draw_events, sampling_times

__all__ = ["Denoiser", "Diffusion", "Drawn", "Pyramid", "Schedule", "draw", "draw_events", "sampling_times"]
