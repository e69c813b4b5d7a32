"""CoOp: vectors in place of the words before a class name are learnt through the frozen text tower.

One context for all classes, before the name. It can be read with other names: what was learnt on some classes serves new
ones.

Paper: Learning to Prompt for Vision-Language Models (arXiv:2109.01134). Changed: Adam in place of SGD. Kept as a safetensors
file of the vectors, since no kind of edit changes what stands before every name. The preset ``paper`` was read in the released code
(KaiyangZhou/CoOp: COOP.md, configs/trainers/CoOp/rn50.yaml at 6979355, trainers/coop.py at 1e5ec09): 16 vectors of deviation
0.02, batches of 32, rate 0.002 on a half cosine, crops and mirroring. Not in it: SGD, a first epoch at 1e-5, and 50 to 200
epochs by the number of shots; ``--steps`` says how long. Claim: ``few_shot.accuracy`` of benchmarks/tune/few_shot.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from photopic.core.errors import DataError, ModelError
from photopic.core.events import Event, Steps
from photopic.core.fit import fit
from photopic.core.method import method
from photopic.core.runs import Run
from photopic.data.few_shot import FewShotTask
from photopic.learning.classifiers import TextClassifier, load_classifier, save_classifier, tensor_bytes
from photopic.learning.few_shot_batches import Training, check_trainable
from photopic.models.dual_encoder import TEMPLATES, DualEncoder
from photopic.tune.few_shot._common import Classifying, accuracy_view, frozen_features, measured, unit_rows


@dataclass(frozen=True, kw_only=True)
class PromptConfig(Training):
    """How to learn a prompt."""

    words: str = "a photo of a"  # what the context starts from; as many vectors as it has tokens
    ending: str = "."  # what follows the class name in the sentence
    deviation: Annotated[float, Ge(0)] = 0.0  # above 0, start from random vectors of this standard deviation instead
    lr: Annotated[float, Gt(0)] = 5e-2  # size of a step at first; it falls along a half cosine


class Prompt:
    """Sentences of a text tower whose first words are given as vectors.

    Args:
        model: Whose text tower reads them.
        config: The words and the ending.

    Attributes:
        start: The vectors of the words, float32.

    Raises:
        ModelError: If the text tower has no token embedding to put vectors in, or its tokenizer puts words elsewhere.
        DataError: If the words have no token.
    """

    def __init__(self, model: DualEncoder, config: PromptConfig):
        self.model, self.config = model, config
        try:
            self.embedding = model.network.text_model.get_input_embeddings()
        except (AttributeError, NotImplementedError):
            raise ModelError(
                f"{model.name}: expected a text tower with a token embedding, as CLIPTextModel has, found "
                f"{type(model.network.text_model).__name__}; prompts cannot be learnt for it"
            ) from None
        ids = model.tokenizer(config.words, add_special_tokens=False).input_ids
        if not ids:
            raise DataError(f"words {config.words!r}: expected words to start from, found none with a token")
        whole = model.tokenizer(f"{config.words} {config.words}{config.ending}").input_ids
        places = [
            place for place in range(2) if whole[place : place + len(ids)] == ids
        ]  # after the start token, if any
        if not places:
            raise ModelError(
                f"{model.name}: expected the words first in a text, found its tokenizer puts other tokens there"
            )
        self.place, self.count = places[0], len(ids)
        with torch.no_grad():
            known = self.embedding.weight[torch.tensor(ids, device=model.device)].float().clone()
        self.start = known if not config.deviation else self._random(known)

    def _random(self, like: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.config.seed)
        return (self.config.deviation * torch.randn(like.shape, generator=generator)).to(like.device)

    def rows(self, context: Float[Tensor, "tokens width"], names: Sequence[str]) -> Float[Tensor, "classes dim"]:
        """Class rows of length 1 of sentences that begin with the context; gradients flow to it.

        Args:
            context: One vector a token of the words.
            names: Class names; underscores become spaces.

        Raises:
            DataError: If a name has no token.
        """
        said = [name.replace("_", " ").strip() for name in names]
        if lacking := [name for name in said if not self.model.tokenizer(name, add_special_tokens=False).input_ids]:
            raise DataError(f"text {lacking[0]!r}: expected words, found none that {self.model.name} has a token for")
        handle = self.embedding.register_forward_hook(lambda _module, _ids, found: self._put(found, context))
        try:
            encoded = self.model.encode_texts([f"{self.config.words} {name}{self.config.ending}" for name in said])
        finally:
            handle.remove()
        return F.normalize(encoded.float(), dim=-1)

    def _put(self, found: Any, context: Tensor) -> Tensor:
        """Vectors in place of the words' embeddings."""
        before, after = found[:, : self.place], found[:, self.place + self.count :]
        middle = context.to(found.dtype).expand(len(found), -1, -1)  # (tokens, width) -> (n, tokens, width)
        return torch.cat([before, middle, after], dim=1)


@dataclass(frozen=True, eq=False)
class PromptedClassifier(TextClassifier):
    """A text classifier with a learnt context; ``for_names`` reads it with other names.

    Attributes:
        prompt: Says where the context goes.
        context: The vectors.
    """

    prompt: Prompt | None = None
    context: Float[Tensor, "tokens width"] | None = None

    def for_names(self, names: Sequence[str]) -> PromptedClassifier:
        """The learnt context before other names."""
        assert self.prompt is not None and self.context is not None
        return self.of(self.prompt, self.context, names)

    @property
    def size_bytes(self) -> int:
        """Bytes of the vectors; the rows follow from them."""
        assert self.context is not None
        return tensor_bytes([self.context])

    def save(self, folder: str | Path) -> None:
        """Write the vectors and how they were learnt into a folder, made if missing."""
        assert self.prompt is not None and self.context is not None
        settings = asdict(self.prompt.config)
        save_classifier(folder, self.model, {"context": self.context}, self.names, self.provenance, **settings)

    @classmethod
    def load(cls, folder: str | Path, model: DualEncoder) -> PromptedClassifier:
        """Read what ``save`` wrote; raises as ``load_classifier`` and ``Prompt``."""
        tensors, about = load_classifier(folder, model)
        found = cls.of(Prompt(model, PromptConfig(**about["settings"])), tensors["context"], about["names"])
        return replace(found, provenance=about["provenance"])

    @classmethod
    def of(cls, prompt: Prompt, context: Float[Tensor, "tokens width"], names: Sequence[str]) -> PromptedClassifier:
        """The classifier that a context before some names makes."""
        with torch.no_grad():
            rows = prompt.rows(context.to(prompt.model.device), names).cpu()
        trained = context.numel()
        return cls(prompt.model, rows, None, trained, names=tuple(names), prompt=prompt, context=context)


@method(
    paper="arXiv:2109.01134",
    claims="few_shot.",
    presets={"paper": PromptConfig(words=" ".join(["a"] * 16), deviation=0.02, lr=2e-3, flip=True)},
    examples=("Example: photopic tune coop emoji:held-out-style --shots 4 -o prompt/",),
    view=accuracy_view,
)
def coop(
    model: DualEncoder, data: FewShotTask, *, config: PromptConfig = PromptConfig(), run: Run | None = None
) -> Steps[PromptedClassifier]:
    """Learn vectors in the place of the words before a class name; both encoders stay as they are (CoOp).

    Args:
        model: A bundled dual encoder, a folder with one of transformers, or a hub id.
        data: A few pictures of each class, and perhaps others to measure on.
        config: How to learn.
        run: A run folder to checkpoint in and to resume from.

    Returns:
        The classifier that the learnt context makes of the names, and of others.

    Raises:
        DataError: If there is one class only, a class without pictures, or a name without a token.
        ModelError: If the text tower cannot be given vectors in place of words.

    Example:
        >>> coop(model, data).for_names(["fox", "owl"]).logits(images)  # doctest: +SKIP
    """
    check_trainable(data.train)
    prompt, names = Prompt(model, config), data.train.names
    yield Event("preparing")
    context = prompt.start.clone().requires_grad_()

    def logits(pixels: Tensor) -> Tensor:
        return (
            model.logit_scale * frozen_features(model, pixels) @ prompt.rows(context, names).mT
        )  # (n, dim) @ (dim, k)

    yield from fit(Classifying(model, data.train, config, {"context": context}, logits), config.steps, run=run)
    found = PromptedClassifier.of(prompt, context.detach().cpu(), names)
    if data.test is None:
        return found
    return measured(found, model, data.test, unit_rows(model, data.train, TEMPLATES).cpu())
