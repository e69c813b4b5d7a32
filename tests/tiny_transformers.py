"""Tiny random transformer text-to-image pipelines of the real diffusers and transformers classes, built in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import torch
import transformers
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

from tests.tiny import WORDS, tiny_tokenizer

DIM = 16  # of every text encoder
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<pad>", "</s>", "<unk>", "<bos>", "<|im_start|>", "<|im_end|>")
PROMPTS = ["a bear on a red background", "a cat and a striped house with two boats above four yellow bananas"]


def word_tokenizer(length: int = 48) -> transformers.PreTrainedTokenizerFast:
    """Each of ``WORDS``, each letter and each sign is one token; ends with ``</s>`` and pads on the right, as T5 does."""
    letters = [chr(code) for code in range(33, 127)]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys([*SPECIAL, *WORDS, *letters]))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    known = "|".join(WORDS)
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(rf"\b(?:{known})\b|\S"), "removed", invert=True)
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        bos_token="<bos>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        model_max_length=length,
        chat_template=CHAT,
    )


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


def _t5(kind: str = "T5") -> Any:
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=256, d_model=DIM, d_kv=8, d_ff=DIM, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu"
    )
    return getattr(transformers, f"{kind}EncoderModel")(config)


def _clip(projection: bool) -> Any:
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
    return transformers.CLIPTextModelWithProjection(config) if projection else transformers.CLIPTextModel(config)


def _vae(channels: int = 4, blocks: int = 2, **others: Any) -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(8,) * blocks,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        latent_channels=channels,
        norm_num_groups=4,
        layers_per_block=1,
        **({"scaling_factor": 0.5, "shift_factor": 0.1} | others),
    )


def _flow(**options: Any) -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(**options)


DYNAMIC = {"use_dynamic_shifting": True}
HEADS = {"attention_head_dim": 8, "num_attention_heads": 2}
LATENT = {"in_channels": 4, "out_channels": 4}


def _pipeline(kind: str, transformer: Any, encoder: Callable[[], Any], scheduler: Any = None, **others: Any) -> Any:
    """A pipeline of one text encoder, which is built after the autoencoder."""
    found = {"vae": others.pop("vae", None) or _vae(), "tokenizer": word_tokenizer(), "text_encoder": encoder()}
    return getattr(diffusers, kind)(transformer=transformer, scheduler=scheduler or _flow(shift=3.0), **found | others)


def _sd3() -> Any:
    return diffusers.StableDiffusion3Pipeline(
        transformer=diffusers.SD3Transformer2DModel(
            **HEADS,
            **LATENT,
            sample_size=8,
            num_layers=2,
            joint_attention_dim=2 * DIM,
            caption_projection_dim=DIM,
            pooled_projection_dim=2 * DIM,
            pos_embed_max_size=16,
            dual_attention_layers=(0,),
            qk_norm="rms_norm",
        ),
        scheduler=_flow(shift=3.0),
        vae=_vae(),
        text_encoder=_clip(True),
        tokenizer=tiny_tokenizer(),
        text_encoder_2=_clip(True),
        tokenizer_2=tiny_tokenizer(),
        text_encoder_3=_wide_t5(2 * DIM),
        tokenizer_3=word_tokenizer(),
    )


def _wide_t5(width: int) -> Any:
    config = transformers.T5Config(vocab_size=256, d_model=width, d_kv=8, d_ff=DIM, num_layers=1, num_heads=2)
    return transformers.T5EncoderModel(config)


def _flux_like(**others: Any) -> dict[str, Any]:
    layers = {"num_layers": 1, "num_single_layers": 1, "joint_attention_dim": DIM, "axes_dims_rope": (2, 2, 4)}
    return HEADS | {"in_channels": 16} | layers | others


def _flux(guidance_embeds: bool = True) -> Any:
    return diffusers.FluxPipeline(
        transformer=diffusers.FluxTransformer2DModel(
            **_flux_like(pooled_projection_dim=DIM, guidance_embeds=guidance_embeds)
        ),
        scheduler=_flow(**DYNAMIC),
        vae=_vae(),
        text_encoder=_clip(False),
        tokenizer=tiny_tokenizer(),
        text_encoder_2=_t5(),
        tokenizer_2=word_tokenizer(),
    )


def _chroma() -> Any:
    sizes = _flux_like(approximator_num_channels=8, approximator_hidden_dim=16, approximator_layers=1)
    return _pipeline("ChromaPipeline", diffusers.ChromaTransformer2DModel(**sizes), _t5, _flow(**DYNAMIC))


def _aura() -> Any:
    transformer = diffusers.AuraFlowTransformer2DModel(
        **HEADS,
        **LATENT,
        sample_size=8,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        joint_attention_dim=DIM,
        caption_projection_dim=16,
        pos_embed_max_size=64,
    )
    return _pipeline("AuraFlowPipeline", transformer, lambda: _t5("UMT5"), _flow(shift=1.73))


def _gemma() -> Any:
    return transformers.Gemma2Model(transformers.Gemma2Config(**_decoder()))


def _sana() -> Any:
    transformer = diffusers.SanaTransformer2DModel(
        **HEADS,
        **LATENT,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=DIM,
        sample_size=16,
    )
    vae = diffusers.AutoencoderDC(
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
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
    return _pipeline("SanaPipeline", transformer, _gemma, diffusers.DPMSolverMultistepScheduler(**flow), vae=vae)


def _pixart() -> Any:
    transformer = diffusers.PixArtTransformer2DModel(
        **HEADS, sample_size=8, num_layers=2, cross_attention_dim=16, caption_channels=DIM, norm_num_groups=4
    )
    return _pipeline("PixArtSigmaPipeline", transformer, _t5, diffusers.DDIMScheduler(clip_sample=False))


def _qwen_vae() -> Any:
    return diffusers.AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.1, 0.9, 1.2, 1.0],
    )


def _qwen() -> Any:
    rope = {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default", "rope_theta": 1e4}
    sizes = {"depth": 1, "hidden_size": DIM, "intermediate_size": DIM, "num_heads": 2, "out_hidden_size": DIM}
    places = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    config = transformers.Qwen2_5_VLConfig(
        text_config=_decoder(rope_parameters=rope),
        vision_config=sizes,
        **{name: place for place, name in enumerate(places, 4)},
    )
    transformer = diffusers.QwenImageTransformer2DModel(
        **HEADS, in_channels=16, out_channels=4, num_layers=2, joint_attention_dim=DIM, axes_dims_rope=(2, 2, 4)
    )
    scheduler, vae = _flow(**DYNAMIC, shift_terminal=0.02), _qwen_vae()
    encoder = transformers.Qwen2_5_VLForConditionalGeneration
    return _pipeline("QwenImagePipeline", transformer, lambda: encoder(config), scheduler, vae=vae)


def _lumina() -> Any:
    transformer = diffusers.Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=24,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=8,
        scaling_factor=1.0,
        axes_dim_rope=(4, 4, 4),
        axes_lens=(300, 64, 64),
        cap_feat_dim=DIM,
    )
    vae = _vae(blocks=4)  # this pipeline takes a factor of 8 for granted
    return _pipeline("Lumina2Pipeline", transformer, _gemma, _flow(shift=6.0), vae=vae)


def _z_image() -> Any:
    transformer = diffusers.ZImageTransformer2DModel(
        in_channels=4,
        dim=24,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=DIM,
        axes_dims=[4, 4, 4],
        axes_lens=[256, 32, 32],
    )
    return _pipeline(
        "ZImagePipeline", transformer, lambda: transformers.Qwen3Model(transformers.Qwen3Config(**_decoder()))
    )


def _cogview4() -> Any:
    tokenizer = word_tokenizer()
    tokenizer.padding_side = "left"
    transformer = diffusers.CogView4Transformer2DModel(
        **HEADS,
        **LATENT,
        num_layers=2,
        text_embed_dim=DIM,
        time_embed_dim=8,
        condition_dim=4,
        pos_embed_max_size=16,
        sample_size=8,
        rope_axes_dim=(8, 8),
    )
    scheduler = _flow(use_dynamic_shifting=True, base_shift=0.25, max_shift=0.75, time_shift_type="linear")
    encoder = transformers.GlmModel
    return _pipeline(
        "CogView4Pipeline",
        transformer,
        lambda: encoder(transformers.GlmConfig(**_decoder())),
        scheduler,
        tokenizer=tokenizer,
    )


def _prx() -> Any:
    part = _decoder(layer_types=["sliding_attention", "full_attention"], query_pre_attn_scalar=8)
    config = transformers.T5GemmaConfig(encoder=part, decoder=part, is_encoder_decoder=False, vocab_size=256)
    transformer = diffusers.PRXTransformer2DModel(
        in_channels=4, context_in_dim=DIM, hidden_size=16, mlp_ratio=2.0, num_heads=2, depth=2, axes_dim=[4, 4]
    )
    encoder = transformers.T5GemmaEncoderModel
    return _pipeline("PRXPipeline", transformer, lambda: encoder(config).encoder, default_sample_size=16)


BUILDERS: dict[str, Callable[[], Any]] = {
    "StableDiffusion3Pipeline": _sd3,
    "FluxPipeline": _flux,
    "ChromaPipeline": _chroma,
    "AuraFlowPipeline": _aura,
    "SanaPipeline": _sana,
    "PixArtSigmaPipeline": _pixart,
    "QwenImagePipeline": _qwen,
    "Lumina2Pipeline": _lumina,
    "ZImagePipeline": _z_image,
    "CogView4Pipeline": _cogview4,
    "PRXPipeline": _prx,
}


def tiny_transformer_pipeline(kind: str, seed: int = 0) -> Any:
    """A tiny pipeline of that class; the same seed gives the same weights, none of which is zero."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pipeline = BUILDERS[kind]()
        for part in pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                part.eval()
        for parameter in pipeline.transformer.parameters():  # zeroed gates and outputs would hide everything
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.2)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
