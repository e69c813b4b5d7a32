"""What the product of two factors is multiplied with: alphas of a file, the settings of peft, block sizes of DyLoRA."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from photopic.core.errors import EditError

METADATA_KEY = "lora_adapter_metadata"  # under which diffusers keeps the settings of peft
CONFIG_FILE = "adapter_config.json"  # in which peft keeps them
_TAKEN = ("LORA", "LOHA", "LOKR", "SHIRA", "OFT", "BOFT")
_OTHER_BASE = ("pissa", "corda", "olora", "loftq", "lora_ga")  # starts that take something off the base's own weights


@dataclass(frozen=True)
class Scales:
    """The settings that came with a file.

    Attributes:
        source: Where they stand, for messages.
        settings: Of peft: those of all layers, or of each component with its name before them.
        block: Ranks of a DyLoRA that count as one; 1 for everything else.
        common: The commonest alpha of each component, for its layers that name none; diffusers gives them that.
    """

    source: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    block: int = 1
    common: Mapping[str, float] = field(default_factory=dict)

    def of(self, name: str, rank: int | None, alpha: float | None) -> float:
        """alpha / rank, or alpha / sqrt(rank) for a rank-stabilised LoRA; 1 where nothing names an alpha.

        Args:
            name: Of the weight.
            rank: Of its factors; None for a product of whole matrices, which has the rank of the settings or is not scaled.
            alpha: What the file has for it.

        Raises:
            EditError: If the settings hold something else than a number.
        """
        component, path = name.rsplit(".", 1)[0].split(".", 1)
        settings = {key.removeprefix(f"{component}."): value for key, value in self.settings.items()}
        default = settings.get("lora_alpha", settings.get("alpha"))  # the latter of LoHa and LoKr
        if rank is None and "r" in settings:
            rank = of_pattern(settings.get("rank_pattern") or {}, path, settings["r"])
        if not rank:
            return 1.0
        if alpha is None and default is not None:
            alpha = of_pattern(settings.get("alpha_pattern") or {}, path, default)
            if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not math.isfinite(alpha):
                raise EditError(f"{self.source}: {name}: expected a finite number as alpha, found {alpha!r}")
            if settings.get("use_rslora"):
                return alpha / math.sqrt(rank)
        alpha = self.common.get(component) if alpha is None else alpha
        return 1.0 if alpha is None else alpha * self.block / rank


def of_pattern(patterns: Mapping[str, Any], path: str, default: Any) -> Any:
    """As peft reads its patterns: a regular expression for the whole path or for its end."""
    return next((value for key, value in patterns.items() if re.fullmatch(rf"(.*\.)?({key})", path)), default)


def commonest(alphas: Mapping[str, float]) -> dict[str, float]:
    """The commonest alpha of each component, by the names of its weights."""
    by_component: dict[str, list[float]] = {}
    for name, alpha in alphas.items():
        by_component.setdefault(name.partition(".")[0], []).append(alpha)
    return {component: Counter(found).most_common(1)[0][0] for component, found in by_component.items()}


def read_scales(path: Path, metadata: Mapping[str, str]) -> Scales:
    """The settings of peft in a file's metadata or in the ``adapter_config.json`` beside it, and the block size of a DyLoRA.

    Args:
        path: Of the file.
        metadata: Of the file.

    Raises:
        EditError: If they are no JSON object, are those of an adapter that no edit holds, or a DyLoRA lacks its block size.
    """
    beside = path.with_name(CONFIG_FILE)
    source, text = f"{path.name}: {METADATA_KEY}", metadata.get(METADATA_KEY)
    if text is None and beside.is_file():
        source, text = f"{path.parent.name}/{CONFIG_FILE}", beside.read_text(encoding="utf-8", errors="replace")
    settings = {} if text is None else _object(source, text)
    kind = str(settings.get("peft_type") or "LORA").upper()
    if kind not in _TAKEN:
        raise EditError(
            f"{source}: expected a LoRA, LoHa, LoKr, SHiRA, OFT or BOFT, found {kind}, which photopic cannot import"
        )
    for key, value in settings.items():
        if key.endswith("init_lora_weights") and str(value).lower().startswith(_OTHER_BASE):
            raise EditError(
                f"{source}: {key}: expected factors for the base as it is, found {value}, whose factors belong to a changed base; "
                "let peft convert them (path_initial_model_for_weight_conversion) and save them again"
            )
    return Scales(source, settings, _block(path.name, metadata))


def _block(file: str, metadata: Mapping[str, str]) -> int:
    """The block size of a DyLoRA of LyCORIS, which trains alpha / blocks and writes it nowhere but in its arguments.

    LyCORIS itself reads such a file as a plain LoRA, alpha / rank: too weak by the block size. Its training scales the
    first n blocks by alpha / n, so all of them by alpha / blocks, which is also what fits best after it (docs/interop.md).
    """
    text = metadata.get("ss_network_args")
    arguments = {} if text is None else _object(f"{file}: ss_network_args", text)
    if str(arguments.get("algo", "")).lower() != "dylora":
        return 1
    block = str(arguments.get("block_size", ""))
    if not block.isdigit() or int(block) < 1:
        raise EditError(
            f"{file}: ss_network_args: expected the block_size of this DyLoRA, found {block or 'none'}; without it its "
            "strength is not known"
        )
    return int(block)


def _object(source: str, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise EditError(f"{source}: expected JSON, found something else ({error})") from None
    if not isinstance(found, dict):
        raise EditError(f"{source}: expected an object, found {type(found).__name__}")
    return found
