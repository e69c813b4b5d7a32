"""Transformer text-to-image pipelines of diffusers 0.42, one row each: how time, sign, guidance, latents and text keys work.

A row says what the pipeline's own code does; ``measured.py`` compares its time and sign with the pipeline at load. Found by
running tiny pipelines of these classes; no released checkpoint was seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Layout = Literal["map", "packed", "flat", "list"]  # how the transformer is given latents of (batch, c, h, w)
Autoencoding = Literal["shift_scale", "scale", "mean_std", "batch_norm"]  # from the VAE's numbers to latents, and back
Renormalised = Literal["no", "per_token", "at_most_per_token", "per_row"]
# text: the input is text alone at every depth; separate: text has matrices of its own; shared: the image goes through them too
Stream = Literal["text", "separate", "shared"]


@dataclass(frozen=True)
class TextKeys:
    """Matrices that make keys, and by their twins values, of text.

    Attributes:
        key: Pattern of parameter names below the transformer, ``*`` for the number of the block.
        value: The same for values; None where keys and values are rows of one matrix.
        stream: What else goes through the matrix, and whether its input is text alone.
        rows: Where one matrix holds both: the share of its rows at which keys begin and end; values follow, as many.
    """

    key: str
    value: str | None
    stream: Stream
    rows: tuple[float, float] | None = None


def _twins(stream: Stream, *keys: str) -> tuple[TextKeys, ...]:
    """Rows where the value matrix is called as the key matrix with v for k."""
    return tuple(TextKeys(f"{key}.weight", f"{key.replace('_k', '_v')}.weight", stream) for key in keys)


JOINT = _twins("separate", "transformer_blocks.*.attn.add_k_proj")
SINGLE = _twins("shared", "single_transformer_blocks.*.attn.to_k")


@dataclass(frozen=True)
class Family:
    """How one pipeline class calls its transformer.

    Attributes:
        text_keys: Where text keys and values are made.
        time: (a, b): the transformer is told ``a * t + b`` for the scheduler's t of 0 to 1000.
        sign: -1 where it predicts clean minus noise.
        predicts: ``velocity`` (noise minus clean), or ``scheduler``: what the scheduler's configuration says, such as epsilon.
        unconditional: What guidance leads away from: a ``negative`` prompt or nothing, always ``empty``, or ``none``: guidance is a
            number that the network is given.
        calls: Whether both halves go through the network in ``one`` call or in ``two``.
        extra: What is added to the pipeline's own guidance number for the usual count, in which 1 is no guidance.
        scale: Name of that number in the pipeline's call.
        negative: A negative prompt without which the pipeline does not guide at all, given where the caller has none.
        renormalised: Whether the guided prediction gets the conditional one's length back.
        layout: How the transformer is given latents.
        autoencoding: How the VAE's numbers become latents.
        halved: Whether the second half of the output's channels is dropped.
        alone: Whether prompts are encoded one by one, because the pipeline lets them change each other.
        shifted_time: Whether the scheduler shifts sigmas but not the time that the network is told.
        needs: A package without which the pipeline cannot run.
        options: Further arguments of every call.
    """

    text_keys: tuple[TextKeys, ...]
    time: tuple[float, float] = (0.001, 0.0)
    sign: int = 1
    predicts: Literal["velocity", "scheduler"] = "velocity"
    unconditional: Literal["negative", "empty", "none"] = "negative"
    calls: Literal["one", "two"] = "two"
    extra: float = 0.0
    scale: str = "guidance_scale"
    negative: str | None = None
    renormalised: Renormalised = "no"
    layout: Layout = "map"
    autoencoding: Autoencoding = "shift_scale"
    halved: bool = False
    alone: bool = False
    shifted_time: bool = False
    needs: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


UNBINNED = {"use_resolution_binning": False}  # the size that is asked for, not the nearest of a list
BOTH_STREAMS = _twins("shared", "transformer_blocks.*.attn1.to_k")
CROSS = _twins("text", "transformer_blocks.*.attn2.to_k")

FAMILIES: dict[str, Family] = {
    "StableDiffusion3Pipeline": Family(JOINT, time=(1.0, 0.0), calls="one"),
    "FluxPipeline": Family(JOINT + SINGLE, unconditional="none", layout="packed"),
    "ChromaPipeline": Family(JOINT + SINGLE, layout="packed"),
    "AuraFlowPipeline": Family(
        _twins("separate", "joint_transformer_blocks.*.attn.add_k_proj") + SINGLE, calls="one", autoencoding="scale"
    ),
    "SanaPipeline": Family(CROSS, time=(1.0, 0.0), calls="one", autoencoding="scale", options=UNBINNED),
    "PixArtSigmaPipeline": Family(
        CROSS,
        time=(1.0, 0.0),
        predicts="scheduler",
        calls="one",
        autoencoding="scale",
        halved=True,
        options=UNBINNED,
    ),
    "QwenImagePipeline": Family(
        JOINT, scale="true_cfg_scale", negative="", renormalised="per_token", layout="packed", autoencoding="mean_std"
    ),
    "Lumina2Pipeline": Family(
        _twins("text", "context_refiner.*.attn.to_k") + _twins("shared", "layers.*.attn.to_k"),
        time=(-0.001, 1.0),
        sign=-1,
        renormalised="per_row",
    ),
    "ZImagePipeline": Family(
        _twins("text", "context_refiner.*.attention.to_k") + _twins("shared", "layers.*.attention.to_k"),
        time=(-0.001, 1.0),
        sign=-1,
        calls="one",
        extra=1.0,
        layout="list",
    ),
    "CogView4Pipeline": Family(BOTH_STREAMS, time=(1.0, 0.0), autoencoding="scale", alone=True, shifted_time=True),
    "PRXPipeline": Family(
        (TextKeys("blocks.*.attention.txt_kv_proj.weight", None, "text", (0.0, 0.5)),),
        calls="one",
        needs="ftfy",
        options=UNBINNED,
    ),
}


MAKES = {  # what pipelines make that are no text-to-image pipelines, by what their class names begin with
    "a film": (
        "AnimateDiff Allegro ChronoEdit CogVideoX ConsisID Cosmos EasyAnimate HunyuanVideo Kandinsky5T2V Latte LTX Lucy Mochi "
        "SanaVideo SkyReels StableVideo TextToVideo VideoToVideo Wan"
    ).split(),
    "sound": "AceStep AudioLDM LongCatAudio MusicLDM StableAudio".split(),
}


def not_taken(name: str, kind: str) -> str:
    """One line on a pipeline class that is in no row.

    Example:
        >>> not_taken("mine", "WanPipeline").partition(";")[0]
        'mine: WanPipeline makes a film, photopic takes pipelines that draw a picture from text'
    """
    for what, beginnings in MAKES.items():
        if kind.startswith(tuple(beginnings)):
            return f"{name}: {kind} makes {what}, photopic takes pipelines that draw a picture from text; load one of those"
    return (
        f"{name}: {kind} is no pipeline that photopic takes; load a StableDiffusionPipeline, a StableDiffusionXLPipeline or one of "
        f"{', '.join(FAMILIES)}"
    )
