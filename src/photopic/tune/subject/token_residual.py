"""Token residuals: one vector a subject, added to the text encoder's output where its word stands.

A copy of the text encoder is trained on a few pictures of the subject while everything it says but the subject's own positions is
held; what the copy says differently at these positions, averaged over many sentences, is kept, and the copy is thrown away.
Subjects learnt apart combine by loading their edits together.

Paper: Cones 2: Customizable Image Synthesis with Multiple Subjects (arXiv:2305.19327). Changed: sentences come from templates, not
from a language model; a subject of several tokens, or with a word of its own, is supported; the pooled embedding of XL models is
the base's, because a residual does not carry it; the loss of denoising reads the copy at the noun only (``reads="noun"``), because
what the copy says elsewhere is thrown away with it; fewer and larger steps, on batches. The published code holds the output for
the bare noun only: ``preservation="bare-noun"``. Claims: exact ones in tests/tune/subject/test_token_residual.py; the effect
in the race of benchmarks/.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from photopic.core.edits import Edit, check_new_token
from photopic.core.errors import DataError
from photopic.core.runs import Run, load_optimizer, optimizer_tensors
from photopic.data.scenes import with_article
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
from photopic.learning.progress import Progress, data_digest, environment, load_matching, peak_bytes
from photopic.learning.subject.examples import check_unedited, subject
from photopic.learning.subject.new_token import check_noun, new_rows
from photopic.learning.subject.prompts import fitting, sentences_with

if TYPE_CHECKING:
    from photopic.models.text_to_image.handle import TextToImage

PLACEHOLDER = "<subject>"  # never seen by an encoder


@dataclass(frozen=True)
class TokenResidualConfig:
    """How to learn a residual; every field is written into the edit."""

    reads: Literal["noun", "all"] = (
        "noun"  # where denoising reads the copy; the paper: all, elsewhere it reads the base
    )
    preservation: Literal["sentences", "bare-noun"] = "sentences"  # what the copy must go on saying
    sentences: int = 240  # sentences with the noun: some are held at each step, the residual is the mean over all
    sentences_per_step: int = 8  # held at a step
    sentence_weight: float = 1e-3  # of the squared distance of a held position, mean over positions
    head_weight: float = 1e-2  # a, bare noun: of the distance before the noun
    tail_weight: float = 1e-3  # b, bare noun: of the distance after it
    steps: int = 300  # AdamW steps on the whole text encoder; the paper: 4000 of one picture
    lr: float = 2e-4  # the paper: 5e-6
    weight_decay: float = 1e-2  # of AdamW
    clip: float = 1.0  # largest norm of a gradient
    batch: int = 4  # subject pictures a step
    evaluation: int = 48  # problems of the fixed evaluation set; 0 leaves the evaluation out
    seed: int = 0  # of every draw


def tune_token_residual(
    model: TextToImage,
    images: Float[Tensor, "n 3 size size"],
    *,
    noun: str,
    token: str | None = None,
    captions: Sequence[str] | None = None,
    config: TokenResidualConfig = TokenResidualConfig(),
) -> Edit:
    """Learn a residual; drives ``tune`` to its end. See there for arguments and errors.

    Example:
        >>> edit = tune_token_residual(model, images, noun="bear")  # doctest: +SKIP
    """
    *_, last = tune(model, images, noun=noun, token=token, captions=captions, config=config)
    assert last.edit is not None
    return last.edit


def tune(
    model: TextToImage,
    images: Float[Tensor, "n 3 size size"],
    *,
    noun: str,
    token: str | None = None,
    captions: Sequence[str] | None = None,
    config: TokenResidualConfig = TokenResidualConfig(),
    run: Run | None = None,
    save_every: int = 100,
) -> Iterator[Progress]:
    """Learn the residual of a subject, reporting after every step; the last event carries the edit.

    Args:
        model: Whose words it is for; its weights are never written. Memory for four float32 copies of its text encoders is needed.
        images: The pictures of the subject, in -1 to 1, as large as the model's own.
        noun: What the subject is, one word or several that the model knows.
        token: None: prompts go on saying the noun, and every one of them means the subject. A new word, such as ``<mine>``: it
            stands for the noun and only it means the subject, so that several subjects of one noun fit into a prompt.
        captions: One a picture, naming the noun; None means ``a noun``, or the noun alone with ``preservation="bare-noun"``.
        config: How to learn.
        run: A run folder to checkpoint in and to resume from; a checkpoint holds the copy and the optimiser.
        save_every: Steps between checkpoints.

    Raises:
        DataError: If the noun is unknown, pictures or captions do not fit, or a caption does not read as the noun.
        EditError: If the token is a word the model has.
        ModelError: If the model has edits applied.
        RunMismatchError: If the run folder holds another tuning.

    Example:
        >>> for event in tune(model, images, noun="bear"): print(event.step, event.concept_loss)  # doctest: +SKIP
    """
    clock = time.monotonic()
    check_unedited(model)
    check_noun(model, noun)
    for tokenizer in model.tokenizers.values() if token else ():
        check_new_token(tokenizer, str(token))
    said = _captions(model, images, noun, token, captions, config)
    yield Progress("preparing", steps=config.steps)
    concept = encode_examples(model, images, said)
    learner = _Learner(model, concept, noun, config)
    base, done = model.edits.fingerprint(), 0
    data = data_digest(images, said)
    identity = hashlib.sha256(repr((sorted(asdict(config).items()), data, noun, base.digest)).encode()).hexdigest()
    if run and (found := load_matching(run, identity)):
        tensors, done = found
        learner.restore(tensors)
    for step in range(done, config.steps):
        error, held = learner.step(step)
        if run and ((step + 1) % save_every == 0 or step + 1 == config.steps):
            run.save(learner.tensors(), {"step": step + 1, "identity": identity})
        elapsed = time.monotonic() - clock
        to_go = elapsed / (step + 1 - done) * (config.steps - step - 1)
        yield Progress("tuning", step + 1, config.steps, error, held, elapsed_s=elapsed, eta_s=to_go)
    residuals = learner.residuals()
    unnamed = Edit(word_parts(model, noun, None, residuals), base)  # does the same as under a new word
    provenance = {
        "method": "token_residual",
        "paper": "arXiv:2305.19327",
        "config": asdict(config),
        "seed": config.seed,
        "steps": config.steps,
        "noun": noun,
        "prompt": said[0] if token is None else said[0].replace(noun, token),
        "images": len(images),
        "data": data,
        "losses": _losses(model, concept, images, unnamed, config),
        **environment(model),
        "elapsed_s": round(time.monotonic() - clock, 1),
        "peak_bytes": peak_bytes(model.device),
    }
    new = {} if token is None else {"token": token}
    edit = Edit(word_parts(model, noun, token, residuals), base, provenance | new)
    yield Progress("done", config.steps, config.steps, elapsed_s=time.monotonic() - clock, edit=edit)


class _Learner:
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
        self.optimizer = torch.optim.AdamW(
            self.text.weights.values(), lr=config.lr, betas=(0.9, 0.999), weight_decay=config.weight_decay
        )

    def step(self, step: int) -> tuple[float, float]:
        """One step of the optimiser; the loss of denoising, and that of what is held."""
        error = self._denoising(step)
        held = self._held(step)
        self.optimizer.zero_grad()
        (error + held).backward()
        torch.nn.utils.clip_grad_norm_(self.text.weights.values(), self.config.clip)
        self.optimizer.step()
        return error.item(), held.item()

    def residuals(self) -> dict[str, Float[Tensor, "words dim"]]:
        """Mean over the sentences of what the copy says differently at each of the noun's positions."""
        return mean_moved(self.model, self.text, self.sentences, self.ids)

    def tensors(self) -> dict[str, Tensor]:
        """Everything a checkpoint needs; ``restore`` is the inverse."""
        return {f"weight.{name}": each for name, each in self.text.weights.items()} | optimizer_tensors(self.optimizer)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, weight in self.text.weights.items():
                weight.copy_(tensors[f"weight.{name}"])
        load_optimizer(self.optimizer, tensors)

    def _denoising(self, step: int) -> Float[Tensor, ""]:
        """The error of predicting the noise, the text encoded by the copy."""
        examples, config = self.concept, self.config
        draws = uniform_draws(examples, config.batch, self.loss.timesteps, (config.seed, "concept", step))
        captions = tuple(examples.captions[index] for index in draws.index.tolist())
        base = examples.conditioning[draws.index]
        hidden = self.text.encode(captions).hidden
        if config.reads == "noun":
            hidden = torch.where(self._rows(captions).to(hidden.device), hidden, base.hidden)
        encoded = replace(base, hidden=hidden)  # pooled text stays the base's
        chosen = Examples(examples.latents[draws.index], encoded, captions)
        in_order = Draws(torch.arange(config.batch, device=draws.index.device), draws.timesteps, draws.noise)
        return self.loss.errors(chosen, in_order).mean()

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
            head, tail = change[:, :start], change[:, start + len(ids) :]
            total = total + self.config.head_weight * head.norm() + self.config.tail_weight * tail.norm()
        return total


def _captions(
    model: TextToImage,
    images: Tensor,
    noun: str,
    token: str | None,
    captions: Sequence[str] | None,
    config: TokenResidualConfig,
) -> list[str]:
    """Checked captions with the noun in the subject's place."""
    if captions is None:
        captions = [noun if config.preservation == "bare-noun" else with_article(noun)] * len(images)
    mark = token or PLACEHOLDER
    captions = [each if noun in each else each.replace(mark, noun) for each in captions]
    rows = new_rows(model, mark, noun, start="random")
    checked = subject(model, images, captions, noun=noun, rows=rows, preservation=None)
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
