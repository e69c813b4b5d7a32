"""Token residuals: one vector a subject, added to the text encoder's output where its word stands.

A copy of the text encoder is trained on a few pictures of the subject while everything it says but the subject's own positions is
held; what the copy says differently at these positions, averaged over many sentences, is kept, and the copy is thrown away.
Subjects learnt apart combine by loading their edits together.

Paper: Cones 2: Customizable Image Synthesis with Multiple Subjects (arXiv:2305.19327). Changed: sentences come from templates, not
from a language model; a subject of several tokens, or with a word of its own, is supported; the pooled embedding of XL models is
the base's, because a residual does not carry it; the loss of denoising reads the copy at the noun only (``reads="noun"``), because
what the copy says elsewhere is thrown away with it; fewer and larger steps, on batches. On transformer pipelines, whose text
encoders are language models of gigabytes, the vectors themselves learn and nothing has to be held. The published code holds the
output for the bare noun only: ``preservation="bare-noun"``. Claims: exact ones in tests/tune/subject/test_token_residual.py; the
effect in the race of benchmarks/.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt
from jaxtyping import Bool, Float
from torch import Tensor

from photopic.core.config import Config
from photopic.core.edits import Edit
from photopic.core.edits.runtime_tokens import input_embedding
from photopic.core.errors import DataError, FieldError, ModelError
from photopic.core.events import Event, Steps
from photopic.core.fit import OptimizedTensors, fit
from photopic.core.method import method
from photopic.core.runs import Run
from photopic.data.captioned import CaptionedImages
from photopic.learning.losses.denoising import ConceptLoss, Draws, Examples, encode_examples, uniform_draws
from photopic.learning.parameters.text_encoder_copy import (
    TunedText,
    mean_moved,
    moved,
    rows_of,
    starts_of,
    word_ids,
    word_parts,
)
from photopic.learning.parameters.told_residual import ToldResidual
from photopic.learning.subject.examples import subject
from photopic.learning.subject.new_token import check_noun, check_token, default_caption, new_rows
from photopic.learning.subject.prompts import fitting, sentences_with
from photopic.models.text_to_image.handle import TextToImage
from photopic.models.text_to_image.transformer_handle import TransformerTextToImage

PLACEHOLDER = "<subject>"  # never seen by an encoder
SAVE_EVERY = 100  # steps: a checkpoint holds three copies of the text encoders
FOR_BOTH = {"steps", "batch", "evaluation", "seed"}  # options of every model; a transformer's has one more
FOR_VECTORS = {"vector_lr"}


@dataclass(frozen=True, kw_only=True)
class TokenResidualConfig(Config):
    """How to learn a residual; every field is written into the edit."""

    reads: Literal["noun", "all"] = (
        "noun"  # where denoising reads the copy; the paper: all, elsewhere it reads the base
    )
    # what the text encoder must go on saying: many sentences with the noun, or as in the published code the noun
    preservation: Literal["sentences", "bare-noun"] = "sentences"
    # sentences with the noun: some are held at each step, the residual is the mean over all
    sentences: Annotated[int, Ge(1)] = 240
    sentences_per_step: Annotated[int, Ge(1)] = 8  # sentences held at a step
    sentence_weight: Annotated[float, Ge(0)] = 1e-3  # weight of the squared distance of a held position
    head_weight: Annotated[float, Ge(0)] = 1e-2  # weight a of the distance before the noun, where the bare noun is held
    tail_weight: Annotated[float, Ge(0)] = 1e-3  # weight b of the distance after it
    steps: Annotated[int, Ge(1)] = 300  # steps of learning; more takes longer; the paper: 4000 of one picture
    lr: Annotated[float, Gt(0)] = 2e-4  # size of a step; the paper: 5e-6
    weight_decay: Annotated[float, Ge(0)] = 1e-2  # weight decay of the copy's weights
    clip: Annotated[float, Gt(0)] = 1.0  # largest norm of a gradient
    # of a model with a transformer, where no copy but the vector learns: size of a step, as a share of what it is added to
    vector_lr: Annotated[float, Gt(0)] = 1e-2
    batch: Annotated[int, Ge(1)] = 4  # pictures a step; lower it when memory is short
    evaluation: Annotated[int, Ge(0)] = 48  # problems of the fixed evaluation set; 0 leaves the evaluation out
    seed: Annotated[int, Ge(0)] = 0  # seed of everything random; the same seed learns the same


@method(
    paper="arXiv:2305.19327",
    presets={
        "paper": TokenResidualConfig(reads="all", preservation="bare-noun", steps=4000, lr=5e-6, batch=1),
    },
    command="tune residual",
    examples=("Example: photopic tune residual photos/ --noun bear -o bear.edit",),
    after=('next: photopic generate "{prompt}" --with {output} -n 8 -o out/',),
)
def token_residual(
    model: TextToImage,
    images: CaptionedImages,
    *,
    noun: str,
    token: str | None = None,
    config: TokenResidualConfig = TokenResidualConfig(),
    run: Run | None = None,
) -> Steps[Edit]:
    """Learn what to add to the meaning of a word so that it draws your thing: a file of a few kilobytes.

    A copy of the text encoder learns from your pictures and is thrown away; what it says differently at the noun is kept.
    Interrupted with Ctrl-C, the same command goes on where it stopped.

    Args:
        model: A bundled model, a folder with a diffusers pipeline, or a hub id. Its weights are never written; of a UNet's pipeline
            memory for four float32 copies of the text encoders is needed.
        images: The pictures of the subject; one without a caption is ``a noun``, or the noun alone where that is held.
        noun: What kind of thing it is, one word or more the model knows, such as bear.
        token: A new word that stands for the noun where your thing is meant, such as '<mine>': several things of one noun then fit
            into one picture. Without one the noun itself means your thing.
        config: How to learn.
        run: A run folder to checkpoint in and to resume from; a checkpoint holds the copy and the optimiser.

    Returns:
        The residual, and for a token the new words it is added at.

    Raises:
        DataError: If the noun is unknown, pictures or captions do not fit, or a caption does not read as the noun.
        EditError: If the token is a word the model has.
        FieldError: If an option has no effect on this kind of model.
        ModelError: If no residual can be added in its text encoder.
        RunMismatchError: If the run folder holds another tuning.

    Example:
        >>> edit = token_residual(model, CaptionedImages(images), noun="bear")  # doctest: +SKIP
    """
    _check(model, config)
    check_noun(model, noun)
    if token is not None:
        check_token(model, token)
    said = _captions(model, images, noun, token, config)
    yield Event("preparing")
    concept = encode_examples(model, images.images, said)
    learner: _Vectors | _Copy
    if isinstance(model, TransformerTextToImage):
        learner = _Vectors(model, concept, noun, config)
    else:
        learner = _Copy(model, concept, noun, config)
    yield from fit(learner, config.steps, run=run, save_every=SAVE_EVERY)
    residuals, base = learner.residuals(), model.fingerprint()
    unnamed = Edit(word_parts(model, noun, None, residuals), base)  # does the same as under a new word
    yield Event("evaluating")
    facts = {
        "noun": noun,
        "prompt": said[0] if token is None else said[0].replace(noun, token),
        "images": len(images),
        "losses": _losses(model, concept, images.images, unnamed, config),
    }
    new = {} if token is None else {"token": token}
    if token is not None and isinstance(learner, _Vectors):
        residuals = learner.with_zeros(residuals)
    return Edit(word_parts(model, noun, token, residuals), base, facts | new)


def _check(model: TextToImage, config: TokenResidualConfig) -> None:
    """Refuse options that would do nothing, and a model that reads no residual."""
    of_vectors = isinstance(model, TransformerTextToImage)
    if isinstance(model, TransformerTextToImage) and model.family.by_layers:
        raise ModelError(
            f"{model.name}: {type(model.pipeline).__name__} calls the layers of its text encoder one by one, so that a token "
            "residual is added to nothing it reads; use another method"
        )
    for each in fields(config):
        is_idle = each.name in FOR_VECTORS if not of_vectors else each.name not in FOR_BOTH | FOR_VECTORS
        if is_idle and getattr(config, each.name) != each.default:
            learns = "the vector itself learns" if of_vectors else "a copy of the text encoders learns"
            raise FieldError(each.name, f"has no effect on {model.name}, where {learns}; leave it out")


class _Vectors(OptimizedTensors):
    """The vectors of a transformer's pipeline, their optimiser and their loss."""

    def __init__(self, model: TransformerTextToImage, concept: Examples, noun: str, config: TokenResidualConfig):
        self.model, self.concept, self.noun, self.config = model, concept, noun, config
        self.texts = list(dict.fromkeys(concept.captions))
        self.told = ToldResidual(model, noun, self.texts)
        self.loss = ConceptLoss(model, concept, concept, None, batch=config.batch, seed=config.seed)
        values = self.told.values
        super().__init__(
            {f"vectors.{name}": each for name, each in values.items()},
            torch.optim.Adam(values.values(), lr=config.vector_lr),
            lambda step: config.vector_lr,
        )

    def step(self, step: int) -> Mapping[str, float]:
        draws = uniform_draws(self.concept, self.config.batch, self.loss.timesteps, (self.config.seed, "concept", step))
        captions = [self.concept.captions[index] for index in draws.index.tolist()]
        encoded = self.told.encoded([self.texts.index(each) for each in captions])
        error = _error(self.loss, draws, encoded, captions)
        self.update(error, step=step)
        return {"loss": error.item()}

    def residuals(self) -> dict[str, Float[Tensor, "words dim"]]:
        """What was learnt."""
        return self.told.residuals()

    def with_zeros(self, residuals: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """With nothing added in the encoders that the pipeline reads otherwise, which have to know a new word all the same."""
        ids = word_ids(self.model, self.noun)
        widths = {name: input_embedding(self.model.components[name]).embedding_dim for name in self.told.asked}
        return {name: torch.zeros(len(ids[name]), width) for name, width in sorted(widths.items())} | dict(residuals)


class _Copy(OptimizedTensors):
    """The copy of the text encoders, its optimiser and its loss."""

    def __init__(self, model: TextToImage, concept: Examples, noun: str, config: TokenResidualConfig):
        self.model, self.concept, self.noun, self.config = model, concept, noun, config
        self.text, self.ids = TunedText(model), word_ids(model, noun)
        self.sentences = fitting(model, sentences_with(noun, config.sentences))
        if not self.sentences:
            raise DataError(
                f"sentences: expected at least one with {noun!r} that {model.name} can read, found none; ask for more"
            )
        self.order = torch.randperm(len(self.sentences), generator=torch.Generator().manual_seed(config.seed))
        self.loss = ConceptLoss(model, concept, concept, None, batch=config.batch, seed=config.seed)
        weights = self.text.weights
        optimizer = torch.optim.AdamW(
            weights.values(), lr=config.lr, betas=(0.9, 0.999), weight_decay=config.weight_decay
        )
        super().__init__({f"weight.{name}": each for name, each in weights.items()}, optimizer, lambda step: config.lr)

    def step(self, step: int) -> Mapping[str, float]:
        error = self._denoising(step)
        held = self._held(step)
        self.optimizer.zero_grad()
        (error + held).backward()
        torch.nn.utils.clip_grad_norm_(self.text.weights.values(), self.config.clip)
        self.optimizer.step()
        return {"loss": error.item(), "held": held.item()}

    def residuals(self) -> dict[str, Float[Tensor, "words dim"]]:
        """Mean over the sentences of what the copy says differently at each of the noun's positions."""
        return mean_moved(self.model, self.text, self.sentences, self.ids)

    def _denoising(self, step: int) -> Float[Tensor, ""]:
        """The error of predicting the noise, the text encoded by the copy."""
        examples, config = self.concept, self.config
        draws = uniform_draws(examples, config.batch, self.loss.timesteps, (config.seed, "concept", step))
        captions = tuple(examples.captions[index] for index in draws.index.tolist())
        base = examples.conditioning[draws.index]
        hidden = self.text.encode(captions).hidden  # (batch, tokens, dim of all encoders)
        if config.reads == "noun":
            # elsewhere the base speaks: what the copy says there is thrown away with it, so it must not help here
            hidden = torch.where(self._rows(captions).to(hidden.device), hidden, base.hidden)
        encoded = replace(base, hidden=hidden)  # pooled text stays the base's
        return _error(self.loss, draws, encoded, captions)

    def _rows(self, prompts: Sequence[str]) -> Bool[Tensor, "prompts tokens dim"]:
        """Where the noun stands in the hidden states, by encoder side by side."""
        found = []
        for component, ids in self.ids.items():
            rows = rows_of(starts_of(self.model.tokenizers[component], prompts, ids), len(ids))
            encoder: Any = self.model.components[component]
            found.append(rows[..., None].expand(-1, -1, encoder.config.hidden_size))
        return torch.cat(found, dim=-1)  # (prompts, tokens, dim of all encoders)

    def _held(self, step: int) -> Float[Tensor, ""]:
        """The text-embedding-preservation loss: how far the output moved where the noun does not stand."""
        config = self.config
        if config.preservation == "bare-noun":
            return self._held_bare()
        # in a random order without return: every sentence is held equally often
        turn = (step * config.sentences_per_step + torch.arange(config.sentences_per_step)) % len(self.order)
        prompts = [self.sentences[index] for index in self.order[turn].tolist()]
        squares = []
        for component, change in moved(self.model, self.text, prompts).items():
            ids = self.ids[component]
            rows = rows_of(starts_of(self.model.tokenizers[component], prompts, ids), len(ids))
            squares.append(change.square().sum(-1)[~rows.to(change.device)].mean())  # (prompts, tokens, dim) -> ()
        return config.sentence_weight * torch.stack(squares).sum()

    def _held_bare(self) -> Float[Tensor, ""]:
        """a |E - E0| before the noun + b |E - E0| after it, for the noun alone as the prompt."""
        total = torch.zeros((), device=self.model.device)
        for component, change in moved(self.model, self.text, [self.noun]).items():
            ids = self.ids[component]
            start = int(starts_of(self.model.tokenizers[component], [self.noun], ids)[0].nonzero()[0])
            # causal attention: what stands before the noun cannot see it, so it moves by the weights alone
            head, tail = change[:, :start], change[:, start + len(ids) :]
            total = total + self.config.head_weight * head.norm() + self.config.tail_weight * tail.norm()
        return total


def _error(loss: ConceptLoss, draws: Draws, encoded: Any, captions: Sequence[str]) -> Float[Tensor, ""]:
    """The error of predicting the noise, with these rows of text for the problems."""
    chosen = Examples(loss.concept.latents[draws.index], encoded, tuple(captions))
    in_order = Draws(torch.arange(len(captions), device=draws.index.device), draws.timesteps, draws.noise)
    return loss.errors(chosen, in_order).mean()


def _captions(
    model: TextToImage, images: CaptionedImages, noun: str, token: str | None, config: TokenResidualConfig
) -> list[str]:
    """Checked captions with the noun in the subject's place."""
    plain = noun if config.preservation == "bare-noun" else default_caption(noun)
    mark = token or PLACEHOLDER
    given = [each or plain for each in images.captions or [None] * len(images)]
    said = CaptionedImages(images.images, [each if noun in each else each.replace(mark, noun) for each in given])
    checked = subject(model, said, noun=noun, rows=new_rows(model, mark, noun, start="random"))
    if isinstance(model, TransformerTextToImage):  # whose captions are followed through the pipeline
        return list(checked.class_captions)
    for component, ids in word_ids(model, noun).items():
        seen = starts_of(model.tokenizers[component], checked.class_captions, ids).any(1)
        for caption, is_seen in zip(checked.class_captions, seen.tolist(), strict=True):
            if not is_seen:
                raise DataError(
                    f"caption {caption!r}: expected {noun!r} as a word of its own where {model.name} reads it, "
                    "found none; change the caption"
                )
    return list(checked.class_captions)


def _losses(
    model: TextToImage, plain: Examples, images: Tensor, edit: Edit, config: TokenResidualConfig
) -> dict[str, float] | None:
    """L_rec with the noun as the base reads it, and with the residual."""
    if not config.evaluation:
        return None
    with model.edits.applied(edit):
        changed = encode_examples(model, images, plain.captions)
    found = ConceptLoss(model, changed, plain, None).evaluate(count=config.evaluation)
    return {"before": found.class_prompt, "after": found.concept}
