"""Tiny random transformer text-to-image pipelines of the real diffusers and transformers classes, built in memory.

``TINY`` says in one row a class what is its own; everything alike is in ``tiny_transformer_pipeline``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import transformers
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from torch import Tensor

from photopic.core.sampling import Control, Step
from photopic.models.text_to_image.families import FAMILIES
from photopic.models.text_to_image.transformer_drawing import call_arguments
from photopic.models.text_to_image.transformer_handle import TransformerTextToImage
from tests.tiny import WORDS, tiny_tokenizer

DIM = 16  # of every text encoder
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<pad>", "</s>", "<unk>", "<bos>", "<|im_start|>", "<|im_end|>", "<|image_pad|>")
# what templates say is one token a word, as in the real vocabularies: pipelines cut off a fixed number of them
TEMPLATES = (
    "system user assistant Describe image by detailing color quantity text shape size texture spatial relationships objects As "
    "captioning expert generate descriptive prompt based content suitable for input model Comprehend analyze provided You are AI "
    "that reasons about descriptions give structured responses focusing object attribution actions without speculation"
).split()
PROMPTS = ["a bear on a red background", "a cat and a striped house with two boats above four yellow bananas"]
LENGTH = 64  # tokens of text, where a pipeline would take hundreds


def word_tokenizer(*, end: bool = True, left: bool = False, length: int = 48) -> transformers.PreTrainedTokenizerFast:
    """Each of ``WORDS``, each letter, sign and end of line is one token.

    Args:
        end: Whether texts end with ``</s>``, as for T5; those of chat models do not.
        left: Whether to pad on the left.
        length: How many tokens are read.
    """
    letters = [chr(code) for code in range(33, 127)]
    words = [*WORDS, *TEMPLATES]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys([*SPECIAL, "\n", *words, *letters]))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(rf"\b(?:{'|'.join(words)})\b|\n|\S"), "removed", invert=True)
    if end:
        backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        bos_token="<bos>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>", "<|image_pad|>"],
        model_max_length=length,
        padding_side="left" if left else "right",
        chat_template=CHAT,
    )


def chat_tokenizer() -> transformers.PreTrainedTokenizerFast:
    return word_tokenizer(end=False, length=256)


class Processor:
    """Hands texts on to a tokenizer, as the processors of vision-language models do with texts alone; theirs need torchvision."""

    def __init__(self) -> None:
        self.tokenizer = chat_tokenizer()

    def __call__(self, text: list[str], **options: Any) -> Any:
        return self.tokenizer(text, **options)

    def apply_chat_template(self, messages: Any, **options: Any) -> Any:
        found = self.tokenizer.apply_chat_template(messages, **options)
        return [found] if options.get("tokenize") else found


# text encoders


def _decoder(**others: Any) -> dict[str, Any]:
    return {
        "vocab_size": 256,
        "hidden_size": DIM,
        "intermediate_size": DIM,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 3,
    } | others


def _t5(kind: str = "T5", width: int = DIM) -> Any:
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=256, d_model=width, d_kv=8, d_ff=DIM, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu"
    )
    return getattr(transformers, f"{kind}EncoderModel")(config)


def _clip(kind: str = "CLIPTextModelWithProjection") -> Any:
    tokenizer = tiny_tokenizer()
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=DIM,
        intermediate_size=DIM,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=DIM,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return getattr(transformers, kind)(config)


def _of(kind: str, **others: Any) -> Any:
    """A decoder of that class."""
    made = getattr(transformers, kind)
    return made(made.config_class(**_decoder(**others)))


VISION = {"depth": 1, "hidden_size": DIM, "intermediate_size": DIM, "num_heads": 2, "out_hidden_size": DIM}
ROPE = {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default", "rope_theta": 1e4}


def _qwen_vl(kind: str, layers: int = 2) -> Any:
    """A vision-language model of the Qwen line."""
    made = getattr(transformers, kind)
    config = made.config_class(
        text_config=_decoder(rope_parameters=ROPE, num_hidden_layers=layers),
        vision_config=VISION | ({"deepstack_visual_indexes": [0]} if "3" in kind.partition("VL")[0] else {}),
        vision_start_token_id=4,
        vision_end_token_id=5,
        image_token_id=6,
        video_token_id=7,
    )
    return made(config)


def _mistral(kind: str) -> Any:
    vision = {
        "model_type": "pixtral",
        "hidden_size": DIM,
        "intermediate_size": DIM,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    made = getattr(transformers, kind)
    return made(transformers.Mistral3Config(text_config={"model_type": "mistral"} | _decoder(), vision_config=vision))


def _t5gemma() -> Any:
    part = _decoder(layer_types=["sliding_attention", "full_attention"], query_pre_attn_scalar=8)
    config = transformers.T5GemmaConfig(encoder=part, decoder=part, is_encoder_decoder=False, vocab_size=256)
    return transformers.T5GemmaEncoderModel(config).encoder


# autoencoders


def _vae(kind: str = "AutoencoderKL", channels: int = 4, blocks: int = 2, **others: Any) -> Any:
    made = getattr(diffusers, kind)(
        block_out_channels=(8,) * blocks,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        latent_channels=channels,
        norm_num_groups=4,
        layers_per_block=1,
        **others,
    )
    if hasattr(made, "bn"):  # statistics of zero and one would hide the order of channels
        torch.nn.init.normal_(made.bn.running_mean)
        torch.nn.init.uniform_(made.bn.running_var, 0.01, 2.0)
    return made


def _kl(channels: int = 4, blocks: int = 2) -> Any:
    return _vae(channels=channels, blocks=blocks, scaling_factor=0.5, shift_factor=0.1)


def _flux2_vae() -> Any:
    return _vae("AutoencoderKLFlux2")


STATISTICS = {"latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [1.1, 0.9, 1.2, 1.0]}


def _qwen_vae() -> Any:
    return diffusers.AutoencoderKLQwenImage(
        base_dim=8, z_dim=4, dim_mult=[1, 2], num_res_blocks=1, temperal_downsample=[False], **STATISTICS
    )


def _qwen21_vae() -> Any:
    return diffusers.AutoencoderKLQwenImage21(
        base_dim=8,
        decoder_base_dim=8,
        z_dim=4,
        dim_mult=[1] * 5,
        num_res_blocks=1,
        temperal_downsample=[False] * 4,
        **STATISTICS,
    )


def _hunyuan_vae() -> Any:
    return diffusers.AutoencoderKLHunyuanImage(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(32, 32),
        layers_per_block=1,
        spatial_compression_ratio=2,
        sample_size=16,
        scaling_factor=0.75,
    )


def _dc() -> Any:
    return diffusers.AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    )


# pipelines

HEADS = {"attention_head_dim": 8, "num_attention_heads": 2}
AXES = {"axes_dims_rope": (2, 2, 4)}
MAP = {"in_channels": 4, "out_channels": 4}
# two streams and then one
FLUX = {"in_channels": 16, "num_layers": 1, "num_single_layers": 1, "joint_attention_dim": DIM} | HEADS | AXES
QWEN = {"in_channels": 16, "out_channels": 4, "num_layers": 2, "joint_attention_dim": DIM} | HEADS | AXES
DYNAMIC = {"use_dynamic_shifting": True}
Part = Callable[[], Any]


@dataclass(frozen=True)
class Tiny:
    """What is a class's own.

    Attributes:
        transformer: Its class.
        config: Arguments of that.
        text: Encoder and tokenizer by the name of the encoder.
        vae: The autoencoder.
        scheduler: Arguments of ``FlowMatchEulerDiscreteScheduler``, or a scheduler.
        others: Further arguments of the pipeline.
        call: Of its call, where nothing else is asked for: shorter texts, fewer layers read.
        set: Attributes of the pipeline, likewise.
    """

    transformer: str
    config: Mapping[str, Any]
    text: Mapping[str, tuple[Part, Part]]
    vae: Part = _kl
    scheduler: Mapping[str, Any] | Part = field(default_factory=dict)
    others: Callable[[], Mapping[str, Any]] = dict
    call: Mapping[str, Any] = field(default_factory=dict)
    set: Mapping[str, Any] = field(default_factory=dict)


def _one(encoder: Part, tokenizer: Part = word_tokenizer) -> dict[str, tuple[Part, Part]]:
    return {"text_encoder": (encoder, tokenizer)}


def _chat(kind: str, layers: int = 2) -> dict[str, tuple[Part, Part]]:
    return _one(lambda: _qwen_vl(kind, layers), chat_tokenizer)


def _ideogram() -> Any:
    return diffusers.Ideogram4Transformer2DModel(**IDEOGRAM)


SHORT = {"max_sequence_length": LENGTH}
QWEN_MODEL = "Qwen2_5_VLForConditionalGeneration"
IDEOGRAM = HEADS | {
    "in_channels": 16,
    "num_layers": 2,
    "intermediate_size": DIM,
    "adaln_dim": 8,
    "llm_features_dim": 13 * DIM,
    "mrope_section": (2, 1, 1),
}
TINY: dict[str, Tiny] = {
    "StableDiffusion3Pipeline": Tiny(
        "SD3Transformer2DModel",
        MAP
        | HEADS
        | {
            "sample_size": 8,
            "num_layers": 2,
            "joint_attention_dim": 2 * DIM,
            "caption_projection_dim": DIM,
            "pooled_projection_dim": 2 * DIM,
            "pos_embed_max_size": 16,
            "dual_attention_layers": (0,),
            "qk_norm": "rms_norm",
        },
        {
            "text_encoder": (_clip, tiny_tokenizer),
            "text_encoder_2": (_clip, tiny_tokenizer),
            "text_encoder_3": (lambda: _t5(width=2 * DIM), word_tokenizer),
        },
        scheduler={"shift": 3.0},
        call=SHORT,
    ),
    "FluxPipeline": Tiny(
        "FluxTransformer2DModel",
        FLUX | {"pooled_projection_dim": DIM, "guidance_embeds": True},
        {"text_encoder": (lambda: _clip("CLIPTextModel"), tiny_tokenizer), "text_encoder_2": (_t5, word_tokenizer)},
        scheduler=DYNAMIC,
        call=SHORT,
    ),
    "ChromaPipeline": Tiny(
        "ChromaTransformer2DModel",
        FLUX | {"approximator_num_channels": 8, "approximator_hidden_dim": 16, "approximator_layers": 1},
        _one(_t5),
        scheduler=DYNAMIC,
        call=SHORT,
    ),
    "AuraFlowPipeline": Tiny(
        "AuraFlowTransformer2DModel",
        MAP
        | HEADS
        | {
            "sample_size": 8,
            "num_mmdit_layers": 1,
            "num_single_dit_layers": 1,
            "joint_attention_dim": DIM,
            "caption_projection_dim": 16,
            "pos_embed_max_size": 64,
        },
        _one(lambda: _t5("UMT5")),
        scheduler={"shift": 1.73},
        call=SHORT,
    ),
    "SanaPipeline": Tiny(
        "SanaTransformer2DModel",
        MAP
        | HEADS
        | {
            "num_layers": 2,
            "num_cross_attention_heads": 2,
            "cross_attention_head_dim": 8,
            "cross_attention_dim": 16,
            "caption_channels": DIM,
            "sample_size": 16,
        },
        _one(lambda: _of("Gemma2Model")),
        vae=_dc,
        scheduler=lambda: diffusers.DPMSolverMultistepScheduler(
            use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0
        ),
        # 298 tokens of its instruction to the language model are for those that were told to write captions
        call=SHORT | {"complex_human_instruction": None},
    ),
    "PixArtSigmaPipeline": Tiny(
        "PixArtTransformer2DModel",
        HEADS
        | {"sample_size": 8, "num_layers": 2, "cross_attention_dim": 16, "caption_channels": DIM, "norm_num_groups": 4},
        _one(_t5),
        scheduler=lambda: diffusers.DDIMScheduler(clip_sample=False),
        call=SHORT,
    ),
    "QwenImagePipeline": Tiny(
        "QwenImageTransformer2DModel",
        QWEN,
        _chat(QWEN_MODEL),
        vae=_qwen_vae,
        scheduler=DYNAMIC | {"shift_terminal": 0.02},
    ),
    "Lumina2Pipeline": Tiny(
        "Lumina2Transformer2DModel",
        {
            "sample_size": 8,
            "in_channels": 4,
            "hidden_size": 24,
            "num_layers": 1,
            "num_refiner_layers": 1,
            "num_attention_heads": 2,
            "num_kv_heads": 1,
            "multiple_of": 8,
            "scaling_factor": 1.0,
            "axes_dim_rope": (4, 4, 4),
            "axes_lens": (300, 64, 64),
            "cap_feat_dim": DIM,
        },
        _one(lambda: _of("Gemma2Model")),
        vae=lambda: _kl(blocks=4),  # this pipeline takes a factor of 8 for granted
        scheduler={"shift": 6.0},
        call={"system_prompt": "You are an assistant"},
    ),
    "ZImagePipeline": Tiny(
        "ZImageTransformer2DModel",
        {
            "in_channels": 4,
            "dim": 24,
            "n_layers": 1,
            "n_refiner_layers": 1,
            "n_heads": 2,
            "n_kv_heads": 2,
            "cap_feat_dim": DIM,
            "axes_dims": [4, 4, 4],
            "axes_lens": [256, 32, 32],
        },
        _one(lambda: _of("Qwen3Model"), chat_tokenizer),
        scheduler={"shift": 3.0},
        call=SHORT,
    ),
    "CogView4Pipeline": Tiny(
        "CogView4Transformer2DModel",
        MAP
        | HEADS
        | {
            "num_layers": 2,
            "text_embed_dim": DIM,
            "time_embed_dim": 8,
            "condition_dim": 4,
            "pos_embed_max_size": 16,
            "sample_size": 8,
            "rope_axes_dim": (8, 8),
        },
        _one(lambda: _of("GlmModel"), lambda: word_tokenizer(left=True)),
        scheduler=DYNAMIC | {"base_shift": 0.25, "max_shift": 0.75, "time_shift_type": "linear"},
    ),
    "PRXPipeline": Tiny(
        "PRXTransformer2DModel",
        {
            "in_channels": 4,
            "context_in_dim": DIM,
            "hidden_size": 16,
            "mlp_ratio": 2.0,
            "num_heads": 2,
            "depth": 2,
            "axes_dim": [4, 4],
        },
        _one(_t5gemma),
        scheduler={"shift": 3.0},
        others=lambda: {"default_sample_size": 16},
    ),
    "Flux2Pipeline": Tiny(
        "Flux2Transformer2DModel",
        FLUX | {"joint_attention_dim": 3 * DIM, "axes_dims_rope": (2, 2, 2, 2)},
        _one(lambda: _mistral("Mistral3ForConditionalGeneration"), chat_tokenizer),
        vae=_flux2_vae,
        scheduler=DYNAMIC,
        call=SHORT | {"text_encoder_out_layers": (0, 1, 2)},
    ),
    "Flux2KleinPipeline": Tiny(
        "Flux2Transformer2DModel",
        FLUX | {"joint_attention_dim": 3 * DIM, "axes_dims_rope": (2, 2, 2, 2), "guidance_embeds": False},
        _one(lambda: _of("Qwen3ForCausalLM"), chat_tokenizer),
        vae=_flux2_vae,
        scheduler=DYNAMIC,
        call=SHORT | {"text_encoder_out_layers": (0, 1, 2)},
    ),
    "OvisImagePipeline": Tiny(
        "OvisImageTransformer2DModel",
        FLUX | {"out_channels": 16},
        _one(lambda: _of("Qwen3Model"), chat_tokenizer),
        scheduler=DYNAMIC,
        call=SHORT,
    ),
    "LongCatImagePipeline": Tiny(
        "LongCatImageTransformer2DModel",
        FLUX | {"in_channels": 64, "pooled_projection_dim": DIM},  # 16 channels of latents are taken for granted
        _chat(QWEN_MODEL),
        vae=lambda: _kl(channels=16),
        scheduler=DYNAMIC,
        others=lambda: {"text_processor": None},
        set={"tokenizer_max_length": LENGTH},
    ),
    "ErnieImagePipeline": Tiny(
        "ErnieImageTransformer2DModel",
        {
            "hidden_size": 16,
            "num_attention_heads": 2,
            "num_layers": 2,
            "ffn_hidden_size": 16,
            "in_channels": 16,
            "out_channels": 16,
            "text_in_dim": DIM,
            "rope_axes_dim": (2, 2, 4),
        },
        _one(lambda: _mistral("Mistral3Model")),
        vae=_flux2_vae,
        scheduler={"shift": 3.0},
    ),
    "Krea2Pipeline": Tiny(
        "Krea2Transformer2DModel",
        HEADS
        | AXES
        | {
            "in_channels": 16,
            "num_layers": 2,
            "num_key_value_heads": 1,
            "intermediate_size": 16,
            "timestep_embed_dim": 8,
            "text_hidden_dim": DIM,
            "num_text_layers": 2,
            "text_num_attention_heads": 2,
            "text_num_key_value_heads": 2,
            "text_intermediate_size": 16,
            "num_layerwise_text_blocks": 1,
            "num_refiner_text_blocks": 1,
        },
        _chat("Qwen3VLModel"),
        vae=_qwen_vae,
        scheduler=DYNAMIC,
        others=lambda: {"text_encoder_select_layers": (1, 2)},
        call=SHORT,
    ),
    "NucleusMoEImagePipeline": Tiny(
        "NucleusMoEImageTransformer2DModel",
        QWEN
        | {
            "num_key_value_heads": 1,
            "num_experts": 2,
            "moe_intermediate_dim": 8,
            "capacity_factors": 2.0,
            "dense_moe_strategy": "all_moe",
        },
        _one(lambda: _qwen_vl("Qwen3VLForConditionalGeneration", 8), Processor),  # the eighth from the end is read
        vae=_qwen_vae,
        scheduler=DYNAMIC,
    ),
    "QwenImage21Pipeline": Tiny(
        "QwenImage21Transformer2DModel",
        HEADS | AXES | MAP | {"num_layers": 2, "context_in_dim": DIM},
        _one(lambda: _qwen_vl("Qwen3VLForConditionalGeneration"), Processor),
        vae=_qwen21_vae,
        scheduler=DYNAMIC,
    ),
    "HunyuanImagePipeline": Tiny(
        "HunyuanImageTransformer2DModel",
        MAP
        | HEADS
        | {
            "num_layers": 1,
            "num_single_layers": 1,
            "num_refiner_layers": 1,
            "text_embed_dim": DIM,
            "text_embed_2_dim": DIM,
            "rope_axes_dim": (4, 4),
        },
        _chat(QWEN_MODEL, 3) | {"text_encoder_2": (_t5, word_tokenizer)},
        vae=_hunyuan_vae,
        scheduler={"shift": 5.0},
        others=lambda: {"guider": diffusers.AdaptiveProjectedMixGuidance()},
        set={"tokenizer_max_length": LENGTH, "tokenizer_2_max_length": 16},
    ),
    "Ideogram4Pipeline": Tiny(
        "Ideogram4Transformer2DModel",
        IDEOGRAM,
        _chat("Qwen3VLModel", 36),
        vae=_flux2_vae,
        others=lambda: {"unconditional_transformer": _ideogram()},
        call=SHORT,
    ),
}


def tiny_transformer_pipeline(kind: str, seed: int = 0) -> Any:
    """A tiny pipeline of that class; the same seed gives the same weights, none of which is zero."""
    tiny = TINY[kind]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        parts = {"transformer": getattr(diffusers, tiny.transformer)(**tiny.config), "vae": tiny.vae()}
        for name, (encoder, tokenizer) in tiny.text.items():
            parts[name], made = encoder(), tokenizer()
            place = "processor" if isinstance(made, Processor) else name.replace("text_encoder", "tokenizer")
            parts[place] = made
        flow = diffusers.FlowMatchEulerDiscreteScheduler
        parts["scheduler"] = tiny.scheduler() if callable(tiny.scheduler) else flow(**tiny.scheduler)
        pipeline = _shortened(getattr(diffusers, kind), tiny.call)(**parts, **tiny.others())
        for name, value in tiny.set.items():
            setattr(pipeline, name, value)
        for part in pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                part.eval()
        for name, part in pipeline.components.items():
            for place, parameter in part.named_parameters() if name.endswith("transformer") else ():
                # zeroed gates and outputs would hide everything, and experts are whatever was in memory
                if ".experts." in place or not parameter.any():
                    torch.nn.init.normal_(parameter, std=0.2)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _shortened(kind: type, call: Mapping[str, Any]) -> type:
    """The class under its own name, with other defaults of its call."""

    def called(self: Any, **arguments: Any) -> Any:
        return kind.__call__(self, **call | arguments)  # type: ignore[operator]

    return type(kind.__name__, (kind,), {"__call__": called})


def handle_of(kind: str, dtype: torch.dtype = torch.float32) -> TransformerTextToImage:
    """A handle over such a pipeline that draws pictures as small as it can; skips what lacks a package."""
    if kind not in RUNNING:
        pytest.skip(f"{kind} needs {FAMILIES[kind].needs}")
    pipeline = tiny_transformer_pipeline(kind)
    model = TransformerTextToImage(pipeline if dtype == torch.float32 else pipeline.to(dtype=dtype), "tiny")
    model.image_size = {"Lumina2Pipeline": 32, "SanaPipeline": 32, "QwenImage21Pipeline": 64}.get(kind, 16)
    return model


@cache
def shared_handle(kind: str) -> TransformerTextToImage:
    """The same for all tests that leave it as it was."""
    return handle_of(kind)


RUNNING = [kind for kind, family in FAMILIES.items() if family.needs is None or find_spec(family.needs) is not None]
STEPS, GUIDANCE = 2, 4.0


def kind_of(model: TransformerTextToImage) -> str:
    return type(model.pipeline).__name__


class Recorder(Control):
    """Keeps the predictions that the scheduler is given, and the halves of those that are guided."""

    def __init__(self) -> None:
        self.found: list[Tensor] = []
        self.halves: list[tuple[Tensor, Tensor]] = []

    def guidance(self, conditional: Tensor, unconditional: Tensor, scale: float, step: Step) -> None:
        self.halves.append((conditional, unconditional))

    def prediction(self, prediction: Tensor, step: Step) -> Tensor:
        self.found.append(prediction)
        return prediction


def drawn(
    model: TransformerTextToImage, prompts: Sequence[str], seeds: Sequence[int], guidance: float
) -> tuple[list[Tensor], np.ndarray]:
    """What photopic hands the scheduler, a step, and the pictures it draws."""
    recorder = Recorder()
    pictures = model.generate(prompts, seeds=seeds, steps=STEPS, guidance=guidance, controls=[recorder])
    return recorder.found, pictures


def stock(
    model: TransformerTextToImage, prompts: Sequence[str], seeds: Sequence[int], guidance: float
) -> tuple[list[Tensor], np.ndarray]:
    """The same of the stock pipeline."""
    pipeline, found = model.pipeline, []
    arguments = call_arguments(pipeline, model.family, prompts, (model.image_size,) * 2, guidance=guidance, steps=STEPS)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    own, spy = pipeline.scheduler, copy.deepcopy(pipeline.scheduler)
    take = spy.step

    def step(output: Tensor, *args: Any, **kwargs: Any) -> Any:
        found.append(output)
        return take(output, *args, **kwargs)

    spy.step, pipeline.scheduler = step, spy
    if model.family.guider:
        pipeline.guider.guidance_scale = guidance
    try:
        pictures = pipeline(**arguments | {"generator": generators, "output_type": "np"}).images
    finally:
        pipeline.scheduler = own
    return found, (np.asarray(pictures)[..., :3] * 255).round().astype(np.uint8)


def tensors_of(row: Mapping[str, Any]) -> list[Tensor]:
    """What a transformer is told of one prompt, as numbers."""
    values = [item for value in row.values() for item in (value if isinstance(value, list) else [value])]
    return [value for value in values if isinstance(value, Tensor) and value.is_floating_point()]
