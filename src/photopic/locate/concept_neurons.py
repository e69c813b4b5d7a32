"""Concept neurons: the few attention weights that must be zero for a diffusion model to draw a new subject.

A multiplicative mask on the key and value projections is trained, from ones, to lower the concept-implanting loss on a
few pictures of the subject; the share of the weights whose mask ends lowest is shut. No weight value is learnt.

Paper: Cones: Concept Neurons in Diffusion Models for Customized Generation (arXiv:2303.05125). Changed: the published
step (``optimizer="paper"``) moves no mask entry at the loss scale of an averaged error, so by default the mask is
optimised with Adam and clipped to [0, 1]; a share is asked for instead of a threshold, because what a threshold shuts
grows with the steps and spills into unrelated prompts; preservation uses diverse scenes beside the class, because with
the class prompt alone the mask becomes a prompt-independent bias, and with scenes alone the identifier gap grew less
(one search). ``binary`` shuts the share while searching and not only at the end (straight through, arXiv:1308.3432):
pictures come closer, but more of it is the same with the class noun alone; see docs/methods/concept_neurons.md. Claims:
``neurons.loss_drop``, ``neurons.identifier_gap_ratio`` and ``neurons.index_only_similarity_gain`` of
benchmarks/locate/concept_neurons.py; exact identities in tests/learning/losses/test_denoising.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from jaxtyping import Float
from torch import Tensor

from photopic.core.edits import Edit, ZeroedWeights, check_new_token
from photopic.core.errors import DataError, ModelError
from photopic.core.runs import Run
from photopic.learning.losses.denoising import ConceptLoss, Evaluation
from photopic.learning.parameters.soft_mask import MaskOptimizer, WeightMask
from photopic.learning.progress import Progress, environment, load_matching, peak_bytes
from photopic.learning.subject.examples import Captioned, check_unedited, subject
from photopic.learning.subject.new_token import TokenStart, check_noun, new_rows
from photopic.learning.subject.preservation import Preservation, preservation_examples
from photopic.models.text_to_image.attention_weights import Layers, attention_weights, random_positions, with_zeros

if TYPE_CHECKING:
    from photopic.models.text_to_image.handle import TextToImage

DENSITY = 0.05  # shut by default; the 14 % below a threshold of 0.5 moved unrelated prompts three times as much
LINE_SEARCH = (0.001, 0.003, 0.01, 0.03, 0.1)  # densities tried where the paper gives no threshold


@dataclass(frozen=True)
class ConceptNeuronsConfig:
    """How to locate; every field is written into the edit."""

    layers: Layers = "cross"  # attention layers searched: cross, self or all
    which: tuple[str, ...] = ("k", "v")  # projections searched
    optimizer: MaskOptimizer = "adam"  # adam and sgd: clipped mask descent; paper: the published loop
    lr: float | None = None  # of the mask; None: 0.02 adam, 0.03 sgd (times 1 / size of the gradients), 2e-5 paper
    steps: int = 200  # gradient steps on the mask
    batch: int = 8  # subject pictures a step, and as many preservation pictures
    density: float | None = None  # share of the weights shut, those with the lowest mask; None: 0.05, paper: searched
    binary: bool = (
        False  # shut that share while searching too: closer pictures at less drift, but not of the token alone
    )
    threshold: float | None = None  # if set, shut the weights whose mask is below it instead, however many they are
    prior_weight: float = 1.0  # lambda, weight of the preservation loss
    preservation: Preservation = "both"  # what to preserve: diverse scenes, the class, or half and half
    preservation_count: int = 200  # preservation pictures
    token_start: TokenStart = "random"  # first embedding row of the token
    evaluation: int = 48  # problems a part of the fixed evaluation set; 0 leaves evaluation and guard out
    controls: int = 3  # random masks of the same per-layer sizes the guard compares with
    max_prior_rise: float = 0.05  # the guard objects if preservation loss rises by more than this share
    guard: Literal["warn", "refuse"] = "warn"  # what the guard does
    seed: int = 0  # of the preservation pictures and every draw

    def __post_init__(self) -> None:
        if self.density is not None and self.threshold is not None:
            raise DataError(
                f"expected a density or a threshold, found both ({self.density}, {self.threshold}); leave one out"
            )
        for name in ("density", "threshold"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise DataError(f"{name}: expected above 0 and at most 1, found {value}")
        if self.binary and (self.threshold is not None or self.optimizer == "paper"):
            raise DataError("binary: expected a share to shut, found a threshold or the published loop; leave one out")


def concept_neurons(
    model: TextToImage,
    images: Float[Tensor, "n 3 size size"],
    *,
    noun: str,
    token: str = "<mine>",
    captions: Sequence[str] | None = None,
    config: ConceptNeuronsConfig = ConceptNeuronsConfig(),
) -> Edit:
    """Locate a subject's weights; drives ``locate`` to its end. See there for arguments and errors.

    Example:
        >>> edit = concept_neurons(photopic.load("emoji-diffusion"), images, noun="bear")  # doctest: +SKIP
    """
    *_, last = locate(model, images, noun=noun, token=token, captions=captions, config=config)
    assert last.edit is not None
    return last.edit


def locate(
    model: TextToImage,
    images: Float[Tensor, "n 3 size size"],
    *,
    noun: str,
    token: str = "<mine>",
    captions: Sequence[str] | None = None,
    config: ConceptNeuronsConfig = ConceptNeuronsConfig(),
    preservation: Captioned | None = None,
    run: Run | None = None,
    save_every: int = 25,
) -> Iterator[Progress]:
    """Locate a subject's weights, reporting after every step; the last event carries the edit.

    Args:
        model: The model; its weights are never written.
        images: 1 or more pictures of the subject in -1 to 1, as large as the model's own.
        noun: The subject's class, a word the model knows.
        token: A new word for the subject.
        captions: One a picture, naming the noun; None means ``a <token> noun``.
        config: How to locate.
        preservation: Pictures and captions to preserve; None makes them as ``config.preservation`` says.
        run: A run folder to checkpoint in and to resume from.
        save_every: Steps between checkpoints.

    Raises:
        DataError: If pictures, captions or noun do not fit, or nothing would be shut.
        EditError: If the token is in the vocabulary already or is no single word.
        ModelError: If the UNet has no such attention weights, has edits applied, or the guard refuses.
        RunMismatchError: If the run folder holds another search.

    Example:
        >>> for event in locate(model, images, noun="bear"): print(event.step, event.concept_loss)  # doctest: +SKIP
    """
    clock = time.monotonic()
    check_unedited(model)
    for tokenizer in model.tokenizers.values():
        check_new_token(tokenizer, token)
    check_noun(model, noun)
    rows = new_rows(model, token, noun, start=config.token_start)
    subject(model, images, captions, noun=noun, rows=rows, preservation=preservation)  # before the slow part
    weights = attention_weights(model, config.layers, config.which)
    yield Progress("preparing", steps=config.steps)
    if preservation is None and config.prior_weight > 0:
        kept, count = config.preservation, config.preservation_count
        preservation = preservation_examples(model, noun, kind=kept, count=count, seed=config.seed)
    chosen = subject(model, images, captions, noun=noun, rows=rows, preservation=preservation)
    base = model.edits.fingerprint(*weights)
    loss = chosen.loss(model, base, prior_weight=config.prior_weight, batch=config.batch, seed=config.seed)
    density = _density(config) if config.binary else None
    search = WeightMask(weights, optimizer=config.optimizer, lr=config.lr, density=density, steps=config.steps)
    identity = chosen.identity(asdict(config), base.digest)
    done = 0
    if run and (found := load_matching(run, identity)):
        tensors, done = found
        search.restore(tensors, done)
    for step in range(done, config.steps):
        losses = search.step(loss, step)
        if run and ((step + 1) % save_every == 0 or step + 1 == config.steps):
            run.save(search.tensors(), {"step": step + 1, "identity": identity})
        elapsed = time.monotonic() - clock
        pace = elapsed / (step + 1 - done)
        concept, prior, share = (
            losses.concept.item(),
            losses.prior.item(),
            search.share_shut(step, config.threshold or 0.5),
        )
        if run:
            run.log(step=step + 1, concept=concept, prior=prior, share=share)
        to_go = pace * (config.steps - step - 1)
        yield Progress("locating", step + 1, config.steps, concept, prior, share, elapsed, to_go)
    shut = _select(search, loss, config)
    evidence, warning = _evidence(loss, weights, shut, config)
    if warning and config.guard == "refuse":
        raise ModelError(f"{warning}; use more steps or pictures, a larger prior_weight, or guard='warn'")
    provenance = {
        "method": "concept_neurons",
        "paper": "arXiv:2303.05125",
        "config": asdict(config) | {"which": list(config.which)},
        "seed": config.seed,
        "steps": config.steps,
        "noun": noun,
        "token": token,
        "prompt": chosen.captions[0],
        "images": len(images),
        "data": chosen.digest,
        "preservation_data": chosen.preservation_digest,
        "share_shut": sum(map(len, shut.values())) / sum(weight.numel() for weight in weights.values()),
        **evidence,
        **environment(model),
        "elapsed_s": round(time.monotonic() - clock, 1),
        "peak_bytes": peak_bytes(model.device),
    }
    edit = Edit(parts=(ZeroedWeights(indices=shut), rows), base=base, provenance=provenance)
    elapsed, share = time.monotonic() - clock, provenance["share_shut"]
    yield Progress("done", config.steps, config.steps, share=share, elapsed_s=elapsed, warning=warning, edit=edit)


def _density(config: ConceptNeuronsConfig) -> float | None:
    """The share to shut, None where the threshold or the line search of the published loop says it."""
    if config.density is None and config.threshold is None and config.optimizer != "paper":
        return DENSITY
    return config.density


def _select(search: WeightMask, loss: ConceptLoss, config: ConceptNeuronsConfig) -> dict[str, Tensor]:
    """The positions to shut: by the density, by the threshold or, for the published loop, by a line search."""
    density = _density(config)
    if config.threshold is not None:
        shut = search.below(config.threshold)
    elif config.optimizer == "paper":
        densities = LINE_SEARCH if density is None else (density,)
        sets = [search.most_salient(density) for density in densities]
        tried = [loss.evaluate(with_zeros(search.weights, each), config.evaluation or config.batch) for each in sets]
        losses = [each.concept + config.prior_weight * each.prior for each in tried]
        shut = sets[losses.index(min(losses))]
    else:
        assert density is not None
        shut = search.lowest(density)
    if not shut:
        raise DataError(f"nothing to shut after {config.steps} steps; use more steps, a larger lr or a density")
    return shut


def _evidence(
    loss: ConceptLoss, weights: Mapping[str, Tensor], shut: Mapping[str, Tensor], config: ConceptNeuronsConfig
) -> tuple[dict[str, Any], str]:
    """Losses before, after and under random masks of equal per-layer sizes; and what the guard objects to."""
    if not config.evaluation:
        return {}, ""
    before = loss.evaluate(count=config.evaluation)
    after = loss.evaluate(with_zeros(weights, shut), config.evaluation)
    sets = [random_positions(shut, weights, config.seed + 1 + control) for control in range(config.controls)]
    controls = [loss.evaluate_concept(with_zeros(weights, each), config.evaluation) for each in sets]
    warning = _objection(before, after, controls, config.max_prior_rise)
    losses = {"before": asdict(before), "after": asdict(after), "random_concept": controls}
    return {"losses": losses | {"problems": config.evaluation}, "warning": warning}, warning


def _objection(before: Evaluation, after: Evaluation, controls: Sequence[float], limit: float) -> str:
    if after.prior > before.prior * (1 + limit):
        rise = after.prior / before.prior - 1
        return f"shutting raises the preservation loss by {rise:.1%}, more than the {limit:.1%} allowed"
    if after.concept >= min([before.concept, *controls]):
        return "shutting a random set of the same size, or nothing, lowers the loss on the subject as much"
    return ""
