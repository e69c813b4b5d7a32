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

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor

from photopic.core.config import Config, Flags
from photopic.core.digests import plain
from photopic.core.edits import Edit, SparseWeights, TokenEmbedding, ZeroedWeights
from photopic.core.edits.part import Part
from photopic.core.errors import DataError, ModelError
from photopic.core.events import Event, Steps
from photopic.core.fit import fit
from photopic.core.identity import Fingerprint
from photopic.core.method import method
from photopic.core.provenance import versions
from photopic.core.runs import Run
from photopic.data.captioned import CaptionedImages
from photopic.learning.losses.denoising import UNLIMITED, ConceptLoss, Evaluation, Limits
from photopic.learning.losses.memory import bytes_of, limits_within
from photopic.learning.parameters.soft_mask import MaskOptimizer, Structure, WeightMask
from photopic.learning.parameters.sparse_values import Bits, SparseValues
from photopic.learning.subject.examples import subject
from photopic.learning.subject.new_token import TokenStart, check_noun, check_token, new_rows
from photopic.learning.subject.preservation import Preservation, preservation_examples
from photopic.learning.subject.value_tuning import tuned_values
from photopic.locate._byte_budget import Budget
from photopic.models.set_aside import give_back, set_aside
from photopic.models.text_to_image.attention_weights import (
    Layers,
    attention_rows,
    attention_weights,
    check_plain,
    random_positions,
    with_zeros,
)
from photopic.models.text_to_image.handle import TextToImage

DENSITY = 0.05  # shut by default; the 14 % below a threshold of 0.5 moved unrelated prompts three times as much
LINE_SEARCH = (0.001, 0.003, 0.01, 0.03, 0.1)  # densities tried where the paper gives no threshold
TUNING_RATE = 1e-3  # of the values that are learnt after the search
STAMP = 390  # bytes that an edit's file keeps at most of what it was made from, apart from its settings


class Schedule(NamedTuple):
    """How a search descends, and for how long.

    Attributes:
        steps: Of the search.
        lr: Size of a step on the mask; None: the optimizer's own.
        betas: Of Adam: how slowly its means of gradients and of their squares forget.
    """

    steps: int
    lr: float | None
    betas: tuple[float, float]


# Of soft masks and of binary ones. Fewer and larger steps move what is to be preserved more; see the page of the method.
LONG, SHORT = Schedule(200, 0.02, (0.9, 0.999)), Schedule(50, 0.04, (0.8, 0.99))


@dataclass(frozen=True, kw_only=True)
class ConceptNeuronsConfig(Config):
    """How to locate; every field is written into the edit."""

    layers: Layers = "cross"  # attention layers to search: cross, self or all
    which: Annotated[tuple[Literal["k", "v"], ...], Flags()] = ("k", "v")  # projections to search: k, v or both
    optimizer: MaskOptimizer = "adam"  # how the search descends; paper is the published loop to the letter
    # size of a step on the mask; without: 0.02 adam, 0.04 adam with --binary, 0.03 sgd, 2e-5 paper
    lr: Annotated[float | None, Gt(0)] = None
    # how slowly adam's means of gradients and of their squares forget; None: 0.9 and 0.999, binary 0.8 and 0.99
    betas: Annotated[tuple[float, float] | None, Ge(0), Lt(1), Flags()] = None
    # steps of the search; more finds more and takes longer; without: 200, or 50 with --binary
    steps: Annotated[int | None, Ge(1)] = None
    batch: Annotated[int, Ge(1)] = 8  # pictures a step, and as many to preserve; lower it when memory is short
    # share of the weights to shut; more draws the thing more closely and spills over more; without: 0.05, or with the paper's loop
    # the best of five
    density: Annotated[float | None, Gt(0), Le(1)] = None
    binary: bool = False  # shut weights while searching too: closer to the thing, and more of the noun with it
    # shut the weights whose mask is below it instead, however many they are
    threshold: Annotated[float | None, Gt(0), Le(1)] = None
    # what is shut or stays as a whole: single weights, or rows of matrices, of which a file holds more in as many bytes
    structure: Structure = "entries"
    # largest size of the edit's file in bytes: as many weights as fit take the place of a share
    bytes: Annotated[int | None, Ge(1)] = None
    prior_weight: Annotated[float, Ge(0)] = 1.0  # weight of what must not change, against the likeness
    preservation: Preservation = "both"  # what must keep looking as it does: diverse scenes, the noun's class, or both
    # pictures of what must not change; a model that draws them itself takes its time
    preservation_count: Annotated[int, Ge(1)] = 200
    token_start: TokenStart = "random"  # what the new word means at first: nothing, or half the noun
    memory: str | None = None  # memory the process may take, such as 6GiB: slower, the same weights but for rounding
    tune: Annotated[int, Ge(0)] = 0  # steps that then train the located weights; 0 keeps the edit a list of positions
    bits: Bits = 16  # precision the trained values are kept at; needs tuning
    evaluation: Annotated[int, Ge(0)] = (
        48  # problems a part of the fixed evaluation set; 0 leaves evaluation and guard out
    )
    controls: Annotated[int, Ge(1)] = 3  # random masks of the same sizes that the guard compares with
    max_prior_rise: Annotated[float, Gt(-1)] = 0.05  # how much the loss on what must not change may rise, as a share
    guard: Literal["warn", "refuse"] = "warn"  # what happens where a search did more harm, or no more good than chance
    seed: Annotated[int, Ge(0)] = 0  # seed of everything random; the same seed finds the same weights

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory is not None:
            bytes_of(self.memory)  # refused before anything takes time
        if self.density is not None and self.threshold is not None:
            raise DataError(
                f"expected a density or a threshold, found both ({self.density}, {self.threshold}); leave one out"
            )
        if self.bytes is not None and (self.density is not None or self.threshold is not None):
            raise DataError("bytes: expected no density and no threshold beside it, found one; leave it out")
        if self.binary and (self.threshold is not None or self.optimizer == "paper"):
            raise DataError("binary: expected a share to shut, found a threshold or the published loop; leave one out")

    @property
    def schedule(self) -> Schedule:
        """Steps, rate and decays: those given, else the usual ones; binary masks say early which weights are to go."""
        usual = SHORT if self.binary and self.optimizer == "adam" else LONG
        rate = usual.lr if self.optimizer == "adam" else None  # the others have theirs in the mask
        return Schedule(self.steps or usual.steps, self.lr or rate, self.betas or usual.betas)

    @property
    def share(self) -> float | None:
        """The share to shut, None where the threshold or the line search of the published loop says it."""
        is_given = self.density is not None or self.threshold is not None or self.optimizer == "paper"
        return self.density if is_given or self.bytes is not None else DENSITY

    @property
    def changed(self) -> dict[str, Any]:
        """What differs from the defaults, which is all that an edit of few bytes keeps."""
        told = plain(self)
        return {each.name: told[each.name] for each in fields(self) if getattr(self, each.name) != each.default}


@method(
    paper="arXiv:2303.05125",
    claims="neurons.",
    presets={
        "paper": ConceptNeuronsConfig(optimizer="paper"),
        "quick": ConceptNeuronsConfig(steps=SHORT.steps, lr=SHORT.lr, betas=SHORT.betas, prior_weight=2.0),
        "small-batch": ConceptNeuronsConfig(binary=True, batch=4),
    },
    command="locate neurons",
    examples=(
        "Example: photopic locate neurons photos/ --noun bear --token '<mine>' -o bear.edit",
        "Several GPUs: accelerate launch -m photopic locate neurons photos/ --noun bear --token '<mine>' -o bear.edit",
    ),
    after=('next: photopic generate "{prompt}" --with {output} -n 8 -o out/',),
)
def concept_neurons(
    model: TextToImage,
    images: CaptionedImages,
    *,
    noun: str,
    token: str = "<mine>",
    preserved: Annotated[CaptionedImages | None, Flags()] = None,
    config: ConceptNeuronsConfig = ConceptNeuronsConfig(),
    run: Run | None = None,
) -> Steps[Edit]:
    """Find the weights that keep a model from drawing your thing, and shut them.

    No weight is learnt: the edit says which attention weights become zero, and gives the thing a new word.
    Interrupted with Ctrl-C, the same command goes on where it stopped.

    Args:
        model: A bundled model, a folder with a diffusers pipeline, or a hub id. Its weights are never written.
        images: 1 or more pictures of the subject, as large as the model's own; one without a caption is ``a <token> noun``.
        noun: What kind of thing it is, as a word the model knows, such as bear.
        token: A new word for your thing; prompts say it before the noun.
        preserved: Pictures and captions to preserve; None makes them as ``config.preservation`` says.
        config: How to locate.
        run: A run folder to checkpoint in and to resume from.

    Returns:
        The weights to shut and the row of the token; with ``config.tune`` the values of these weights.

    Raises:
        DataError: If pictures, captions or noun do not fit, or nothing would be shut.
        EditError: If the token is in the vocabulary already or is no single word.
        ModelError: If the UNet has no such attention weights, or the guard refuses.
        RunMismatchError: If the run folder holds another search.

    Example:
        >>> edit = concept_neurons(model, CaptionedImages(images), noun="bear")  # doctest: +SKIP
    """
    check_token(model, token)
    check_noun(model, noun)
    rows = new_rows(model, token, noun, start=config.token_start)
    subject(model, images, noun=noun, rows=rows, preserved=preserved)  # refuses before the slow part
    weights = attention_weights(model, config.layers, config.which)
    check_plain(model, weights)
    searched = attention_rows(model, config.which)
    limits = UNLIMITED if config.memory is None else Limits(pixels=1)  # under a budget one picture is encoded at a time
    if preserved is None and config.prior_weight > 0:
        kind, count, seed = config.preservation, config.preservation_count, config.seed
        preserved = yield from preservation_examples(
            model, noun, kind=kind, count=count, seed=seed, run=run, limits=limits
        )
    chosen = subject(model, images, noun=noun, rows=rows, preserved=preserved)
    base = model.fingerprint(*weights)
    loss = chosen.loss(
        model, base, prior_weight=config.prior_weight, batch=config.batch, seed=config.seed, limits=limits
    )
    # everything is encoded: only the denoising network is called from here on
    encoders = [part for name, part in model.components.items() if name != model.network_name]
    with set_aside([] if config.memory is None else encoders):
        if config.memory is not None:
            loss.limits = limits_within(loss, weights, config.memory)
        named = {"noun": noun, "token": token, "prompt": chosen.captions[0]}
        told = {"schedule": config.schedule._asdict(), **named, "images": len(images)}
        if config.bytes is not None:
            # what the file says of how it was made counts too: the usual settings are left out
            told |= {"config": config.changed, "model": model.name, "versions": {"photopic": versions()["photopic"]}}
        budget = Budget(config.bytes, partial(_stamped, rows, base, told, config), config.bits if config.tune else None)
        search = _Search(weights, loss, config, searched, budget)
        for event in fit(search, config.schedule.steps, run=run, stage="locating"):
            # under a budget of memory the encoders that would draw it are set aside
            preview = None if config.memory is not None else lambda: _so_far(search, config, rows, base, named)
            yield replace(event, preview=preview)
            if config.memory is not None:
                give_back()  # or what a step freed lies below what the next one takes
        zeroed = _select(search.mask, loss, config, budget)
        del search  # masks and their optimizer's means take four times the searched weights
        yield Event("evaluating")
        facts, warning = _evidence(loss, weights, zeroed, config, searched)
        if warning and config.guard == "refuse":
            raise ModelError(f"{warning}; use more steps or pictures, a larger prior_weight, or guard='warn'")
        yield Event("evaluating", warning=warning)
        part: ZeroedWeights | SparseWeights = ZeroedWeights(zeroed)
        if config.tune:
            # learning goes on from the shut state: (positions,) zeros a matrix
            start = {name: torch.zeros(len(index), device=model.device) for name, index in zeroed.items()}
            values = SparseValues(weights, zeroed, start, bits=config.bits, lr=TUNING_RATE)
            final = yield from tuned_values(values, [loss], config.tune, run=run and run.part("tune"))
            part = SparseWeights(zeroed, final, config.bits)
    entries = {name: weight.numel() for name, weight in weights.items()}
    entries |= {name: len(rows) * weights[name][0].numel() for name, rows in searched.items()}
    share = sum(map(len, zeroed.values())) / sum(entries.values())
    return Edit((part, rows), base, facts | told | {"share_shut": share})


class _Search:
    """The mask, and what a step on it measures."""

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        loss: ConceptLoss,
        config: ConceptNeuronsConfig,
        rows: Mapping[str, range],
        budget: Budget,
    ):
        steps, lr, betas = config.schedule
        self.mask = WeightMask(
            weights, optimizer=config.optimizer, lr=lr, steps=steps, betas=betas, rows=rows, structure=config.structure
        )
        # which weights of a number hardly changes how large a file is, so what fits is known before the search
        self.share = config.share if budget.limit is None else budget.share(self.mask)
        self.mask.density = self.share if config.binary else None
        self.loss, self.threshold = loss, config.threshold or 0.5
        self.state, self.restore = self.mask.state, self.mask.restore

    def step(self, step: int) -> Mapping[str, float]:
        losses = self.mask.step(self.loss, step)
        share = self.mask.share_shut(step, self.threshold)
        return {"loss": losses.concept.item(), "prior": losses.prior.item(), "share": share}


def _so_far(
    search: _Search, config: ConceptNeuronsConfig, rows: TokenEmbedding, base: Fingerprint, named: Mapping[str, Any]
) -> Edit | None:
    """The edit that the masks of now would make, its values not tuned; nothing where they would shut nothing."""
    density, mask = search.share or DENSITY, search.mask
    by_mask = mask.below(config.threshold) if config.threshold is not None else mask.lowest(density)
    zeroed = mask.most_salient(density) if config.optimizer == "paper" else by_mask
    return Edit((ZeroedWeights(zeroed), rows), base, dict(named)) if zeroed else None


def _select(search: WeightMask, loss: ConceptLoss, config: ConceptNeuronsConfig, budget: Budget) -> dict[str, Tensor]:
    """The positions to shut: by the density, the bytes, the threshold or, for the published loop, by a line search."""
    density = config.share
    if budget.limit is not None:
        found = budget.best(search, search.most_salient if config.optimizer == "paper" else search.lowest)
    elif config.threshold is not None:
        found = search.below(config.threshold)
    elif config.optimizer == "paper":
        # the published step moves masks too little to tell them apart by a threshold: saliency ranks, the loss chooses
        densities = LINE_SEARCH if density is None else (density,)
        sets = [search.most_salient(density) for density in densities]
        tried = [loss.evaluate(with_zeros(search.weights, each), config.evaluation or config.batch) for each in sets]
        losses = [each.concept + config.prior_weight * each.prior for each in tried]
        found = sets[losses.index(min(losses))]
    else:
        assert density is not None
        found = search.lowest(density)
    if not found:
        raise DataError(
            f"nothing to shut after {config.schedule.steps} steps; use more steps, a larger lr or a density"
        )
    return found


def _evidence(
    loss: ConceptLoss,
    weights: Mapping[str, Tensor],
    zeroed: Mapping[str, Tensor],
    config: ConceptNeuronsConfig,
    rows: Mapping[str, range],
) -> tuple[dict[str, Any], str]:
    """Losses before, after and under random masks of equal per-layer sizes; and what the guard objects to."""
    if not config.evaluation:
        return {}, ""
    before = loss.evaluate(count=config.evaluation)
    after = loss.evaluate(with_zeros(weights, zeroed), config.evaluation)
    # as many in each matrix as were found: layers differ in how much a weight matters
    whole = config.structure == "rows"
    seeds = [config.seed + 1 + control for control in range(config.controls)]
    sets = [random_positions(zeroed, weights, seed, rows, whole_rows=whole) for seed in seeds]
    controls = [loss.evaluate_concept(with_zeros(weights, each), config.evaluation) for each in sets]
    warning = _objection(before, after, controls, config.max_prior_rise)
    return _losses(before, after, controls, config.evaluation) | {"warning": warning}, warning


def _losses(before: Evaluation, after: Evaluation, controls: Sequence[float], problems: int) -> dict[str, Any]:
    losses = {"before": asdict(before), "after": asdict(after), "random_concept": controls, "problems": problems}
    return {"losses": losses}


def _stamped(
    rows: TokenEmbedding, base: Fingerprint, told: Mapping[str, Any], config: ConceptNeuronsConfig, part: Part
) -> Edit:
    """An edit of a part with as much written about it as there will be: numbers that are not known yet are long ones."""
    number = 0.012345678901234567
    unknown = Evaluation(number, number, number)
    facts = _losses(unknown, unknown, [number] * config.controls, config.evaluation) if config.evaluation else {}
    return Edit((part, rows), base, {**facts, **told, "warning": "?" * 100, "share_shut": number, "stamp": "?" * STAMP})


def _objection(before: Evaluation, after: Evaluation, controls: Sequence[float], limit: float) -> str:
    if after.prior > before.prior * (1 + limit):
        rise = after.prior / before.prior - 1
        return f"shutting raises the preservation loss by {rise:.1%}, more than the {limit:.1%} allowed"
    if after.concept >= min([before.concept, *controls]):  # chance, at its best of a few draws
        return "shutting a random set of the same size, or nothing, lowers the loss on the subject as much"
    return ""
