"""Transformer text-to-image pipelines of diffusers 0.42, one row each: how time, sign, guidance, latents and text keys work.

A row says what the pipeline's own code does; ``measured.py`` compares its time and sign with the pipeline at load. Found by
running tiny pipelines of these classes; no released checkpoint was seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

# how the transformer is given latents of (batch, c, h, w); prefixed: flat, behind a row of zeros for each token of text
Layout = Literal["map", "packed", "flat", "prefixed", "list"]
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
        refines: Whether text reads text alone there, and the picture nothing.
        fused: Where one matrix holds both: ``halves``, keys and then values, or ``q_first``, queries, keys, values, each as many
            rows as the matrix has columns, and what is no attention.
    """

    key: str
    value: str | None
    stream: Stream
    fused: Literal["halves", "q_first"] | None = None
    refines: bool = False

    def rows(self, shape: tuple[int, ...], which: Literal["k", "v"]) -> range:
        """Rows of a fused matrix of that shape that make keys, or values.

        Example:
            >>> TextKeys("kv.weight", None, "text", "halves").rows((8, 6), "v")
            range(4, 8)
            >>> TextKeys("qkv.weight", None, "shared", "q_first").rows((48, 8), "k")
            range(8, 16)
        """
        step = shape[0] // 2 if self.fused == "halves" else shape[1]
        first = step * ((which == "v") + (self.fused == "q_first"))
        return range(first, first + step)


def _twins(stream: Stream, key: str, *, refines: bool = False) -> tuple[TextKeys, ...]:
    """A row where the value matrix is called as the key matrix with v for k."""
    return (TextKeys(f"{key}.weight", f"{key.replace('_k', '_v')}.weight", stream, refines=refines),)


JOINT = _twins("separate", "transformer_blocks.*.attn.add_k_proj")
SINGLE = _twins("shared", "single_transformer_blocks.*.attn.to_k")


@dataclass(frozen=True)
class Family:
    """How one pipeline class calls its transformer.

    Attributes:
        text_keys: Where text keys and values are made.
        time: (a, b): the transformer is told ``a * t + b`` for the scheduler's t of 0 to 1000.
        rounded_late: Whether that is computed in single precision and then rounded to the network's; otherwise t is rounded first.
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
        image_first: Whether the picture's tokens stand before the text's in an attention over both.
        crossed: Whether pictures read text in attentions of their own.
        registers: How many learnt tokens the network puts before the text.
        padded: What the network makes the lengths of both multiples of.
        ragged: Whether it packs texts of different lengths, so that positions in a batch are not those of a prompt alone.
        halved: Whether the second half of the output's channels is dropped.
        epsilon: Added to the variances of ``batch_norm`` whatever the VAE's configuration says; None: what it says.
        channels_last: Whether ``batch_norm`` puts the 2x2 cells of a channel apart, (dy, dx, c), and not side by side, (c, dy, dx).
        slots: Whether 2x2 cells share a slot of the mask.
        by_layers: Whether the layers of the text encoder are called one by one, so that nothing it puts out is read.
        second: Name of a network of its own for the unconditional half.
        guider: Whether guidance is a component of the pipeline, so that each half is encoded in a call of its own.
        alone: Whether prompts are encoded one by one, because the pipeline lets them change each other.
        shifted_time: Whether the scheduler shifts sigmas but not the time that the network is told.
        needs: A package without which the pipeline cannot run.
        options: Further arguments of every call.
    """

    text_keys: tuple[TextKeys, ...]
    time: tuple[float, float] = (0.001, 0.0)
    rounded_late: bool = False
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
    image_first: bool = False
    crossed: bool = False
    registers: int = 0
    padded: int = 1
    ragged: bool = False
    halved: bool = False
    epsilon: float | None = None
    channels_last: bool = False
    slots: bool = False
    by_layers: bool = False
    second: str | None = None
    guider: bool = False
    alone: bool = False
    shifted_time: bool = False
    needs: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def networks(self) -> tuple[str, ...]:
        """What the pipeline calls its denoising networks."""
        return ("transformer",) if self.second is None else ("transformer", self.second)

    def of(self, pipeline: Any) -> Family:
        """The row of one pipeline: a distilled one has no unconditional half, whatever is asked for."""
        if self.guider and pipeline.transformer.config.guidance_embeds:
            return replace(self, unconditional="none", scale="distilled_guidance_scale", guider=False)
        if self.unconditional == "empty" and pipeline.config.get("is_distilled", False):
            return replace(self, unconditional="none")
        return self


UNBINNED = {"use_resolution_binning": False}  # the size that is asked for, not the nearest of a list
BOTH_STREAMS = _twins("shared", "transformer_blocks.*.attn1.to_k")
CROSS = _twins("text", "transformer_blocks.*.attn2.to_k")
# rows of [queries, keys, values, mlp (twice)], so keys begin after a share that goes with the mlp's width
FUSED = TextKeys("single_transformer_blocks.*.attn.to_qkv_mlp_proj.weight", None, "shared", "q_first")

FAMILIES: dict[str, Family] = {
    "StableDiffusion3Pipeline": Family(JOINT, time=(1.0, 0.0), calls="one", image_first=True),
    "FluxPipeline": Family(JOINT + SINGLE, unconditional="none", layout="packed"),
    "ChromaPipeline": Family(JOINT + SINGLE, layout="packed"),
    "AuraFlowPipeline": Family(
        _twins("separate", "joint_transformer_blocks.*.attn.add_k_proj") + SINGLE,
        calls="one",
        autoencoding="scale",
        registers=8,
        rounded_late=True,
    ),
    "SanaPipeline": Family(CROSS, time=(1.0, 0.0), calls="one", autoencoding="scale", crossed=True, options=UNBINNED),
    "PixArtSigmaPipeline": Family(
        CROSS,
        time=(1.0, 0.0),
        predicts="scheduler",
        calls="one",
        autoencoding="scale",
        halved=True,
        crossed=True,
        options=UNBINNED,
    ),
    "QwenImagePipeline": Family(
        JOINT, scale="true_cfg_scale", negative="", renormalised="per_token", layout="packed", autoencoding="mean_std"
    ),
    "Lumina2Pipeline": Family(
        _twins("text", "context_refiner.*.attn.to_k", refines=True) + _twins("shared", "layers.*.attn.to_k"),
        time=(-0.001, 1.0),
        sign=-1,
        renormalised="per_row",
        ragged=True,
    ),
    "ZImagePipeline": Family(
        _twins("text", "context_refiner.*.attention.to_k", refines=True) + _twins("shared", "layers.*.attention.to_k"),
        time=(-0.001, 1.0),
        sign=-1,
        calls="one",
        extra=1.0,
        layout="list",
        image_first=True,
        padded=32,
        ragged=True,
    ),
    "CogView4Pipeline": Family(BOTH_STREAMS, time=(1.0, 0.0), autoencoding="scale", alone=True, shifted_time=True),
    "PRXPipeline": Family(
        (TextKeys("blocks.*.attention.txt_kv_proj.weight", None, "text", "halves"),),
        calls="one",
        needs="ftfy",
        options=UNBINNED,
    ),
    "Flux2Pipeline": Family((*JOINT, FUSED), unconditional="none", layout="flat", autoencoding="batch_norm"),
    "Flux2KleinPipeline": Family((*JOINT, FUSED), unconditional="empty", layout="flat", autoencoding="batch_norm"),
    "OvisImagePipeline": Family(JOINT + SINGLE, layout="packed"),
    "LongCatImagePipeline": Family(
        JOINT + SINGLE,
        negative="",
        renormalised="at_most_per_token",
        layout="packed",
        options={"enable_prompt_rewrite": False},  # a language model would write another prompt
    ),
    "ErnieImagePipeline": Family(
        _twins("shared", "layers.*.self_attention.to_k"),
        time=(1.0, 0.0),
        calls="one",
        autoencoding="batch_norm",
        epsilon=1e-5,
        image_first=True,
        options={"use_pe": False},  # likewise
    ),
    "Krea2Pipeline": Family(
        _twins("text", "text_fusion.*_blocks.*.attn.to_k", refines=True)
        + _twins("shared", "transformer_blocks.*.attn.to_k"),
        rounded_late=True,
        extra=1.0,
        layout="packed",
        autoencoding="mean_std",
    ),
    "NucleusMoEImagePipeline": Family(
        _twins("text", "transformer_blocks.*.attn.add_k_proj"),
        image_first=True,
        sign=-1,
        renormalised="per_token",
        layout="packed",
        autoencoding="mean_std",
    ),
    "QwenImage21Pipeline": Family(
        _twins(
            "shared", "transformer_blocks.*.attn.to_k"
        ),  # rows of text are text alone at every depth: they see no picture
        scale="true_cfg_scale",
        negative="",
        layout="flat",
        autoencoding="mean_std",
        slots=True,
        options={"use_kv_cache": False},  # which would be filled with what the recorder answers
    ),
    "HunyuanImagePipeline": Family(
        _twins("text", "context_embedder.token_refiner.refiner_blocks.*.attn.to_k", refines=True) + JOINT + SINGLE,
        time=(1.0, 0.0),
        autoencoding="scale",
        guider=True,
        image_first=True,
    ),
    "Ideogram4Pipeline": Family(
        _twins("shared", "layers.*.attention.to_k"),
        time=(-0.001, 1.0),
        rounded_late=True,
        sign=-1,
        unconditional="empty",
        layout="prefixed",
        autoencoding="batch_norm",
        channels_last=True,
        by_layers=True,
        second="unconditional_transformer",
        options={"guidance_schedule": None},
    ),
}


MAKES = {  # what pipelines make that are no text-to-image pipelines, by what their class names begin with
    "a film": (
        "AnimateDiff Allegro AnyFlow ChronoEdit CogVideoX ConsisID Cosmos EasyAnimate Helios HunyuanSkyreels HunyuanVideo I2VGen "
        "Kandinsky5I2V Kandinsky5T2V Kandinsky6TI2VA Latte LTX Lucy Mochi MotifVideo PIAPipeline SanaImageToVideo SanaVideo SanaWM "
        "SkyReels StableVideo TextToVideo VideoToVideo Wan"
    ).split(),
    "sound": "AceStep AudioDiffusion AudioLDM DanceDiffusion LongCatAudio MusicLDM SpectrogramDiffusion StableAudio".split(),
}
FROM_PICTURES = (
    "Img2ImgPipeline",
    "InpaintPipeline",
    "InpaintingPipeline",
)  # how classes end that draw with the same weights
UNTRIED = "nobody ran it here, so that nothing is known to be right"
WHY = {  # pipelines that do draw a picture from text
    "GlmImagePipeline": "its transformer is told nothing of a prompt but what stands in quotes",
    "SanaSprintPipeline": "it is told angles in the place of times, and mixes its input into what it predicts",
    "PRXPixelPipeline": "it has no VAE and predicts pictures",
    "Cosmos2TextToImagePipeline": "it has noise levels without end in the place of times",
    "LuminaPipeline": "it guides three of its channels",
    "Kandinsky5T2IPipeline": "its latents are films, channels last",
    **dict.fromkeys(
        (
            "HiDreamImagePipeline",
            "BriaPipeline",
            "BriaFiboPipeline",
            "BriaFibo2Pipeline",
            "CogView3PlusPipeline",
            "HunyuanDiTPipeline",
            "PixArtAlphaPipeline",
        ),
        UNTRIED,
    ),
}


def made_by(kind: str) -> str | None:
    """What a pipeline class makes in the place of pictures, by its name; None: pictures, as far as is known.

    Example:
        >>> made_by("WanPipeline"), made_by("AudioLDM2Pipeline"), made_by("Cosmos2TextToImagePipeline")
        ('a film', 'sound', None)
    """
    known = FAMILIES.keys() | WHY.keys()
    found = (what for what, beginnings in MAKES.items() if kind.startswith(tuple(beginnings)))
    return None if kind in known else next(found, None)


def not_taken(name: str, kind: str) -> str:
    """One line on a pipeline class that is in no row.

    Example:
        >>> not_taken("mine", "WanPipeline").partition(";")[0]
        'mine: WanPipeline makes a film, photopic takes pipelines that draw a picture from text'
    """
    if kind in WHY:
        return f"{name}: {kind} is not taken, because {WHY[kind]}; load one of {', '.join(FAMILIES)}"
    if (what := made_by(kind)) is not None:
        return f"{name}: {kind} makes {what}, photopic takes pipelines that draw a picture from text; load one of those"
    for ending in FROM_PICTURES:
        if (own := f"{kind.removesuffix(ending)}Pipeline") in FAMILIES:
            return (
                f"{name}: {kind} asks for a picture beside the text; load it as {own} (_class_name of its model_index.json), which "
                "photopic draws from pictures and masks with"
            )
    return (
        f"{name}: {kind} is no pipeline that photopic takes; load a StableDiffusionPipeline, a StableDiffusionXLPipeline or one of "
        f"{', '.join(FAMILIES)}"
    )
