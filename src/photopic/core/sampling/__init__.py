"""One denoising loop over diffusers schedulers, with hooks for everything that steers a picture while it is drawn.

A `Sampling` describes a run, `sample` carries it out, `sample_events` does so step by step, `invert` walks it backwards. A
`Control` overrides what it wants to change: start noise, model input, attention, embeddings, guidance, the
prediction, latents. Without controls the loop computes what the stock diffusers pipelines do, bit for bit, with any of
their schedulers: their list of timesteps drives it, so second-order ones work too.
"""

from photopic.core.sampling.control import Conditioned, Control, Sampled, Sampling, Step, steps_from_image
from photopic.core.sampling.finite import check_finite
from photopic.core.sampling.inpainting import Inpainting, MaskedPicture
from photopic.core.sampling.inversion import invert, invert_events
from photopic.core.sampling.levels import noised, standard_noise
from photopic.core.sampling.loop import sample, sample_events
from photopic.core.sampling.predict import block_outputs

__all__ = [
    "Conditioned",
    "Control",
    "Inpainting",
    "MaskedPicture",
    "Sampled",
    "Sampling",
    "Step",
    "block_outputs",
    "check_finite",
    "invert",
    "invert_events",
    "noised",
    "sample",
    "sample_events",
    "standard_noise",
    "steps_from_image",
]
