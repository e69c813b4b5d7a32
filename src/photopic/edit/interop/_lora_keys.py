"""What the keys of a LoRA file mean: the weight of the model, and which of its factors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from photopic.edit.interop._lora_products import LOHA, LOKR
from photopic.edit.interop._names import ADAPTED, NETWORKS, kohya_names, original_names
from photopic.edit.interop._rotations import LYCORIS, PEFT_BOFT
from photopic.edit.interop._transformer_names import Fused, fused_layers
from photopic.models.text_to_image.handle import TextToImage

_ADAPTER = r"(?:\.(?P<adapter>(?!weight$|bias$)[^.]+))?"  # peft names several adapters of one model in the keys
_ENDINGS = (  # how the keys of one layer end, and what stands there; the first that matches counts
    (rf"\.lora_A{_ADAPTER}\.weight", "down"),
    (rf"\.lora_B{_ADAPTER}\.weight", "up"),
    (rf"\.lora_B{_ADAPTER}\.bias", "up_bias"),
    (r"\.lora_down\.weight", "down"),
    (r"\.lora_up\.weight", "up"),
    (r"\.lora_up\.bias", "up_bias"),
    (r"(?:\.lora_linear_layer|\.lora|_lora)\.down\.weight", "down"),
    (r"(?:\.lora_linear_layer|\.lora|_lora)\.up\.weight", "up"),
    (r"\.alpha", "alpha"),
    (r"\.(?:diff|w_norm)", "diff"),  # whole differences, as ComfyUI and LyCORIS write them
    (r"\.(?:diff_b|b_norm)", "diff_b"),
    *((rf"\.{role}{_ADAPTER}", role) for role in (*LOHA, *LOKR)),
    (rf"\.lora_magnitude_vector{_ADAPTER}(?:\.weight)?", "magnitude"),
    (r"\.dora_scale", "dora_scale"),
    (rf"\.oft_R{_ADAPTER}(?:\.weight)?", "oft_R"),
    *((rf"\.{role}{_ADAPTER}", role) for role in PEFT_BOFT),
    *((rf"\.{role}", role) for role in LYCORIS),
    (rf"\.shira_weight{_ADAPTER}", "shira_values"),
    (rf"\.shira_indices{_ADAPTER}", "shira_positions"),
)
_PATTERNS = tuple((re.compile(rf"(?P<stem>.+?){ending}"), role) for ending, role in _ENDINGS)
_OTHER_KINDS = (  # what else is sent in such files, by a part of its keys
    (r"\.lora_mid\.", "a CP-decomposed (LoCon mid) convolution"),
    (r"\.hada_t|\.lokr_t2", "a CP-decomposed LoHa or LoKr"),
    (r"\.oft_(?:r|diag|embedding_R)\b", "an OFT of another layout than peft's (0.16 and later) and LyCORIS'"),
    (r"\.[ab][12m]\.weight$", "GLoRA"),
    (r"\.lambda_layer$|\.[qp]_layer\.weight$", "T-LoRA"),
    (r"\.on_input$|\.ia3_l", "IA3"),
    (r"vera_lambda", "VeRA"),
    (r"\.lora_embedding_[AB]", "a LoRA of an embedding"),
    (r"\.lora_E", "AdaLoRA"),
    (r"\.hra_u", "HRA"),
    (r"trainable_tokens_", "TrainableTokens"),
    (r"modules_to_save", "a layer trained in full"),
)
_OTHERS = tuple((re.compile(pattern), kind) for pattern, kind in _OTHER_KINDS)
_WRAPPERS = ("base_model.model.", "model.diffusion_model.", "diffusion_model.")
_OLD_PROJECTIONS = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


class Key(NamedTuple):
    """A key taken apart: the layer's name as the file has it, what stands there, and the adapter's name or none."""

    stem: str
    role: str
    adapter: str | None


def parsed(key: str) -> Key | None:
    """A key of a LoRA file taken apart; None if it is none.

    Example:
        >>> parsed("unet.conv_in.lora_A.default_0.weight")
        Key(stem='unet.conv_in', role='down', adapter='default_0')
    """
    for pattern, role in _PATTERNS:
        if found := pattern.fullmatch(key):
            return Key(found["stem"], role, found.groupdict().get("adapter"))
    return None


def other_kind(key: str) -> str | None:
    """What a key belongs to, if it is a kind of adapter that no edit holds.

    Example:
        >>> other_kind("unet.conv_in.vera_lambda_b")
        'VeRA'
    """
    return next((kind for pattern, kind in _OTHERS if pattern.search(key)), None)


class Names:
    """The weights of a model by every name that files call their layers.

    Args:
        model: Whose layers.
        weights: Names of the weights that a file may change.
        component: The only one to look in, for a file that is known to be of one; None looks in all.
    """

    def __init__(self, model: TextToImage, weights: Iterable[str], component: str | None = None):
        self.weights = set(weights)
        self.components = [each for each in ADAPTED if each in model.components and component in (None, each)]
        self._kohya = kohya_names(model, sorted(self.weights))
        paths = [
            each.removeprefix("unet.").removesuffix(".weight") for each in self.weights if each.startswith("unet.")
        ]
        self._original: Mapping[str, str] = {old: path for path, old in original_names(paths).items()}
        self._fused: dict[str, Fused] = {}
        for name, layer in fused_layers(type(model.pipeline).__name__, self.weights).items():
            flat = name.replace(".", "_")
            self._fused |= {name: layer} | {f"{prefix}_{flat}": layer for prefix in ("lora_unet", "lycoris")}

    def fused(self, stem: str) -> Fused | None:
        """The original matrix that a layer of a file is, where it is several weights here or one of another name."""
        for wrapper in (*_WRAPPERS, "transformer."):
            stem = stem.removeprefix(wrapper)
        return self._fused.get(stem)

    def find(self, stem: str) -> list[str]:
        """The weights that a layer of a file may mean: none if it is of another model, several if the file does not say."""
        if stem in self._kohya:
            return [self._kohya[stem]]
        for wrapper in _WRAPPERS:
            stem = stem.removeprefix(wrapper)
        if stem in self._original:
            return [f"unet.{self._original[stem]}.weight"]
        component, _, layer = stem.partition(".")
        pairs = [(component, layer)] if component in ADAPTED else [(each, stem) for each in self.components]
        return [name for each, path in pairs for name in self._spelled(each, path)[:1]]

    def _spelled(self, component: str, layer: str) -> list[str]:
        """One layer of a component in the spellings of all versions of diffusers and transformers."""
        layer = layer.replace(".processor.", ".")
        if component not in NETWORKS:
            head, dot, last = layer.rpartition(".")
            layer = f"{head}{dot}{_OLD_PROJECTIONS.get(last, last)}"
        plain = layer.removeprefix("text_model.")
        spellings = (layer, f"{layer}.0", plain, f"text_model.{plain}")  # to_out is to_out.0 since diffusers 0.14
        return [name for each in spellings if (name := f"{component}.{each}.weight") in self.weights]
