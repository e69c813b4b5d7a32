"""Joint tuning of subjects that were located apart: a few steps on the union of their entries, and on nothing else.

Edits made on different days know nothing of each other; where their entries meet, and wherever one's entries act on the other's
pictures, composing costs both. From the composed state the entries of the union are trained on the sum of the subjects' losses,
each with its own word and pictures. The result is one edit that remembers its parents and can be taken apart into them again.

Paper: Cones (arXiv:2303.05125), its first version: a few steps of further tuning on the concatenated neurons. Changed: the entries
of each parent stay apart in the file, so that `take_apart` gives each parent's entries with the values they have now. Claims: exact
ones in tests/tune/subject/test_joint_tuning.py; the effect in the race of benchmarks/.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from photopic.core.edits import (
    Edit,
    OverlapPolicy,
    Part,
    SparseWeights,
    TokenEmbedding,
    ZeroedWeights,
    belonging,
    compose,
    regions,
)
from photopic.core.edits.file import to_bytes
from photopic.core.errors import DataError, EditError
from photopic.core.runs import Run
from photopic.learning.losses.denoising import ConceptLoss
from photopic.learning.parameters.sparse_values import Bits, SparseValues, positions_digest
from photopic.learning.progress import Progress, environment, load_matching, peak_bytes
from photopic.learning.subject.examples import Subject, check_unedited, subject
from photopic.learning.subject.preservation import Preservation, preservation_examples

if TYPE_CHECKING:
    from photopic.models.text_to_image.handle import TextToImage

Kept = tuple[Float[Tensor, "_ 3 _ _"], Sequence[str]]  # pictures and captions, as many for each subject as there are


@dataclass(frozen=True)
class TogetherConfig:
    """How to tune together; every field is written into the edit."""

    overlap: OverlapPolicy = "union"  # what entries that several edits touch start from; see core.edits.compose
    bits: Bits = 16  # precision of the stored values; 2: four levels a weight
    steps: int = 60  # Adam steps on the values; 0 only composes, and what is composed can be taken apart
    lr: float = 1e-3  # of the values
    batch: int = 4  # pictures of each subject a step, and as many preservation pictures of each
    prior_weight: float = 1.0  # lambda, weight of each preservation loss
    preservation: Preservation = "both"  # what to preserve: diverse scenes, each class, or half and half
    preservation_count: int = 100  # preservation pictures of each subject
    evaluation: int = 48  # problems a part of each fixed evaluation set; 0 leaves the evaluation out
    seed: int = 0  # of the preservation pictures and every draw


def tune_together(
    model: TextToImage,
    edits: Sequence[Edit],
    images: Sequence[Float[Tensor, "_ 3 _ _"]],
    *,
    captions: Sequence[Sequence[str] | None] | None = None,
    config: TogetherConfig = TogetherConfig(),
) -> Edit:
    """Tune edits together; drives ``tune`` to its end. See there for arguments and errors.

    Example:
        >>> both = tune_together(model, [bear, mug], [bear_pictures, mug_pictures])  # doctest: +SKIP
    """
    *_, last = tune(model, edits, images, captions=captions, config=config)
    assert last.edit is not None
    return last.edit


def tune(
    model: TextToImage,
    edits: Sequence[Edit],
    images: Sequence[Float[Tensor, "_ 3 _ _"]],
    *,
    captions: Sequence[Sequence[str] | None] | None = None,
    config: TogetherConfig = TogetherConfig(),
    preservation: Sequence[Kept] | None = None,
    run: Run | None = None,
    save_every: int = 25,
) -> Iterator[Progress]:
    """Tune the union of the edits' entries on all their subjects, reporting after every step; the last event carries the edit.

    Args:
        model: The model the edits were made for; its weights are never written.
        edits: Two or more, each of shut or set entries of the UNet and one token.
        images: For each edit the pictures of its subject, in -1 to 1.
        captions: For each edit one a picture, naming its noun, or None for ``a <token> noun``.
        config: How to tune.
        preservation: For each edit pictures and captions to preserve; None makes them as ``config.preservation`` says.
        run: A run folder to checkpoint in and to resume from.
        save_every: Steps between checkpoints.

    Raises:
        EditError: If an edit is of another kind, two add one token, or their entries clash under ``config.overlap``.
        DataError: If pictures or captions do not fit, or not every edit has its own.
        ModelError: If the model has edits applied.
        RunMismatchError: If the run folder holds another tuning.

    Example:
        >>> for event in tune(model, [bear, mug], [bears, mugs]): print(event.step, event.concept_loss)  # doctest: +SKIP
    """
    clock = time.monotonic()
    check_unedited(model)
    rows = [_row(number, edit) for number, edit in enumerate(edits)]
    counts = {"edits": len(edits), "images": len(images)} | ({"captions": len(captions)} if captions else {})
    if len(edits) < 2 or len(set(counts.values())) > 1:
        found = ", ".join(f"{count} {what}" for what, count in counts.items())
        raise DataError(f"tune together: expected two or more edits with a set of pictures each, found {found}")
    captions = captions or [None] * len(edits)
    values, positions = _starting(model, edits, config)
    nouns = [str(edit.provenance["noun"]) for edit in edits]
    for each in zip(images, captions, nouns, rows, strict=True):  # before the slow part
        _subject(model, *each, None)
    yield Progress("preparing", steps=config.steps)
    if preservation is None and config.prior_weight > 0:
        kept, count = config.preservation, config.preservation_count
        preservation = [
            preservation_examples(model, noun, kind=kept, count=count, seed=config.seed + number)
            for number, noun in enumerate(nouns)
        ]
    kept_each: Sequence[Kept | None] = preservation or [None] * len(edits)
    chosen = [_subject(model, *each) for each in zip(images, captions, nouns, rows, kept_each, strict=True)]
    losses = [
        each.loss(model, edits[0].base, prior_weight=config.prior_weight, batch=config.batch, seed=config.seed + number)
        for number, each in enumerate(chosen)
    ]
    identity = _identity(chosen, edits, positions, config)
    done = 0
    if run and (found_state := load_matching(run, identity)):
        tensors, done = found_state
        values.restore(tensors)
    for step in range(done, config.steps):
        if config.bits == 2 and step >= config.steps * 2 // 3:
            values.fit_levels()
        concept, prior = _step(values, losses, step)
        if run and ((step + 1) % save_every == 0 or step + 1 == config.steps):
            run.save(values.tensors(), {"step": step + 1, "identity": identity})
        elapsed = time.monotonic() - clock
        to_go = elapsed / (step + 1 - done) * (config.steps - step - 1)
        yield Progress("tuning", step + 1, config.steps, concept, prior, values.share, elapsed, to_go)
    final = values.final()
    parts = _parts(edits, rows, positions, final, config)
    count = config.evaluation
    after = [asdict(loss.evaluate(values.written(final), count)) for loss in losses] if count else None
    provenance = {
        "method": "tune_together",
        "paper": "arXiv:2303.05125",
        "config": asdict(config),
        "seed": config.seed,
        "steps": config.steps,
        "prompt": " and ".join(f"a {row.token} {noun}" for row, noun in zip(rows, nouns, strict=True)),
        "images": [len(each) for each in images],
        "data": [each.digest for each in chosen],
        "preservation_data": [each.preservation_digest for each in chosen],
        "losses": {"after": after},
        "parents": [dict(edit.provenance) for edit in edits],
        "parent_digests": [hashlib.sha256(to_bytes(edit)).hexdigest() for edit in edits],
        "apart": belonging(parts),
        **environment(model),
        "elapsed_s": round(time.monotonic() - clock, 1),
        "peak_bytes": peak_bytes(model.device),
    }
    base = model.edits.fingerprint(*positions)
    both = Edit(tuple(part for part, _ in parts), base, provenance)
    elapsed = time.monotonic() - clock
    yield Progress("done", config.steps, config.steps, share=values.share, elapsed_s=elapsed, edit=both)


def _row(number: int, edit: Edit) -> TokenEmbedding:
    """The one token of an edit that this can tune."""
    rows = [part for part in edit.parts if isinstance(part, TokenEmbedding)]
    others = [part for part in edit.parts if not isinstance(part, TokenEmbedding | ZeroedWeights | SparseWeights)]
    outside = [name for name in edit.touched() if not name.startswith("unet.")]
    if len(rows) != 1 or others or outside or not edit.touched() or "noun" not in edit.provenance:
        found = ", ".join(part.kind for part in edit.parts)
        raise EditError(
            f"edit {number + 1}: expected shut or set entries of the UNet and one token, as locate makes them, found {found}"
            f"{' in ' + outside[0] if outside else ''}"
        )
    return rows[0]


def _subject(
    model: TextToImage,
    images: Tensor,
    captions: Sequence[str] | None,
    noun: str,
    rows: TokenEmbedding,
    preservation: Kept | None,
) -> Subject:
    return subject(model, images, captions, noun=noun, rows=rows, preservation=preservation)


def _starting(
    model: TextToImage, edits: Sequence[Edit], config: TogetherConfig
) -> tuple[SparseValues, dict[str, Tensor]]:
    """The union of the edits' entries, with the values that composing gives them."""
    base = model.components if config.overlap in ("sum", "ties") else None  # the others need not know what was there
    composed = compose(*edits, overlap=config.overlap, base=base)
    positions = {name: each for name, each in composed.touched().items() if each is not None}
    unet = model.unet
    weights = {name: unet.get_parameter(name.removeprefix("unet.")).detach() for name in positions}
    with model.edits.applied(composed):
        start = {name: weights[name].view(-1)[at.to(weights[name].device)].float() for name, at in positions.items()}
    return SparseValues(weights, positions, start, bits=config.bits, lr=config.lr), positions


def _step(values: SparseValues, losses: Sequence[ConceptLoss], step: int) -> tuple[float, float]:
    """One step on the sum of the subjects' losses, one subject's graph in memory at a time."""
    concept = prior = 0.0
    sums: list[Tensor] | None = None
    for loss in losses:
        found = loss.step(step, values.weights())
        gradients = torch.autograd.grad(found.total, list(values.values.values()))
        sums = list(gradients) if sums is None else [a + b for a, b in zip(sums, gradients, strict=True)]
        concept, prior = concept + found.concept.item(), prior + found.prior.item()
    assert sums is not None
    values.step(tuple(sums))
    return concept / len(losses), prior / len(losses)


def _parts(
    edits: Sequence[Edit],
    rows: Sequence[TokenEmbedding],
    positions: Mapping[str, Tensor],
    final: Mapping[str, Tensor],
    config: TogetherConfig,
) -> list[tuple[Part, tuple[int, ...]]]:
    """One part for the entries that the same parents touch, and each parent's token; each with the numbers of its parents."""
    found: list[tuple[Part, tuple[int, ...]]] = []
    supports = [{name: each for name, each in edit.touched().items() if each is not None} for edit in edits]
    for who, inside in regions(supports).items():
        values = {name: final[name].cpu()[torch.searchsorted(positions[name], at)] for name, at in inside.items()}
        is_shut = not any(bool(value.any()) for value in values.values())
        found.append((ZeroedWeights(inside) if is_shut else SparseWeights(inside, values, config.bits), who))
    return [*found, *((row, (number,)) for number, row in enumerate(rows))]


def _identity(
    chosen: Sequence[Subject], edits: Sequence[Edit], positions: Mapping[str, Tensor], config: TogetherConfig
) -> str:
    """Hex sha256 of everything the tuning depends on."""
    what: list[Any] = [each.identity(asdict(config), edits[0].base.digest) for each in chosen]
    what += [hashlib.sha256(to_bytes(edit)).hexdigest() for edit in edits] + [positions_digest(positions)]
    return hashlib.sha256(repr(what).encode()).hexdigest()
