"""Joint tuning of subjects that were located apart: a few steps on the union of their entries, and on nothing else.

Edits made on different days know nothing of each other; where their entries meet, and wherever one's entries act on the other's
pictures, composing costs both. From the composed state the entries of the union are trained on the sum of the subjects' losses,
each with its own word and pictures, and on request on collages of them beside one another. The result is one edit that remembers
its parents and can be taken apart into them again.

Paper: Cones (arXiv:2303.05125), its first version: a few steps of further tuning on the concatenated neurons. Changed: the entries
of each parent stay apart in the file, so that `take_apart` gives each parent's entries with the values they have now. Claims: exact
ones in tests/tune/subject/test_joint_tuning.py; the effect in the race of benchmarks/.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from photopic.core.config import Config, Flags
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
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.runs import Run
from photopic.data.captioned import CaptionedImages
from photopic.learning.losses.denoising import ConceptLoss, encode_examples
from photopic.learning.parameters.sparse_values import Bits, SparseValues
from photopic.learning.subject.collage import together
from photopic.learning.subject.examples import subject
from photopic.learning.subject.new_token import default_caption
from photopic.learning.subject.preservation import Preservation, preservation_examples
from photopic.learning.subject.value_tuning import tuned_values
from photopic.models.text_to_image.handle import TextToImage


@dataclass(frozen=True, kw_only=True)
class JointTuningConfig(Config):
    """How to tune together; every field is written into the edit."""

    overlap: OverlapPolicy = "union"  # what entries start from that several edits touch, as in photopic compose
    bits: Bits = 16  # precision the values are kept at; 2: four levels a weight
    # steps of learning; 0 only composes, so that it can be taken apart again
    steps: Annotated[int, Ge(0)] = 60
    lr: Annotated[float, Gt(0)] = 1e-3  # size of a step
    batch: Annotated[int, Ge(1)] = 4  # pictures of each thing a step, and as many to preserve
    # also learn from so many collages a picture, where the things stand beside one another
    beside: Annotated[int, Ge(0)] = 0
    prior_weight: Annotated[float, Ge(0)] = 1.0  # weight of what must not change, against the likeness
    preservation: Preservation = "both"  # what must keep looking as it does: diverse scenes, each noun's class, or both
    preservation_count: Annotated[int, Ge(1)] = 100  # pictures of what must not change, for each thing
    evaluation: Annotated[int, Ge(0)] = 48  # problems a part of each fixed evaluation set; 0 leaves the evaluation out
    seed: Annotated[int, Ge(0)] = 0  # seed of everything random; the same seed learns the same


@method(
    paper="arXiv:2303.05125",
    command="tune together",
    examples=(
        "Example: photopic tune together bear.edit mug.edit --images bears/ --images mugs/ -o both.edit",
        "Back again: photopic tune apart both.edit -o parents/",
    ),
    after=('next: photopic generate "{prompt}" --with {output} -n 8 -o out/',),
)
def joint_tuning(
    model: TextToImage,
    edits: Sequence[Edit],
    data: Annotated[Sequence[CaptionedImages], Flags("--images")],
    *,
    preserved: Annotated[Sequence[CaptionedImages] | None, Flags()] = None,
    config: JointTuningConfig = JointTuningConfig(),
    run: Run | None = None,
) -> Steps[Edit]:
    """Make one edit of several and train their weights for a few steps on all their pictures, so that they get on.

    Only weights that one of them touches change. The file remembers its parents: photopic tune apart gives them back.

    Args:
        model: A bundled model, a folder with a diffusers pipeline, or a hub id. Its weights are never written.
        edits: Two or more located edits of one base model, each of shut or set entries of the UNet and one token.
        data: The pictures of an edit's thing: one set for each edit, in order.
        preserved: For each edit pictures and captions to preserve; None makes them as ``config.preservation`` says.
        config: How to tune.
        run: A run folder to checkpoint in and to resume from.

    Returns:
        One edit of the union of their entries and of all their tokens.

    Raises:
        EditError: If an edit is of another kind, two add one token, or their entries clash under ``config.overlap``.
        DataError: If pictures or captions do not fit, or not every edit has its own.
        RunMismatchError: If the run folder holds another tuning.

    Example:
        >>> both = joint_tuning(model, [bear, mug], [bear_pictures, mug_pictures])  # doctest: +SKIP
    """
    rows = [_row(number, edit) for number, edit in enumerate(edits)]
    if len(edits) < 2 or len(data) != len(edits):
        raise DataError(
            f"tune together: expected two or more edits and an --images for each, found {len(edits)} and {len(data)}"
        )
    values, positions = _starting(model, edits, config)
    nouns = [edit.subject.noun for edit in edits if edit.subject]  # every edit has one, as _row has checked
    for pictures, noun, row in zip(data, nouns, rows, strict=True):
        subject(model, pictures, noun=noun, rows=row)  # refuses before the slow part
    losses: list[ConceptLoss] = []
    for number, (pictures, noun, row) in enumerate(zip(data, nouns, rows, strict=True)):
        seed, kept = config.seed + number, None if preserved is None else preserved[number]
        if kept is None and config.prior_weight > 0:
            kind, count = config.preservation, config.preservation_count
            part = run and run.part(f"subject{number}")
            kept = yield from preservation_examples(model, noun, kind=kind, count=count, seed=seed, run=part)
        chosen = subject(model, pictures, noun=noun, rows=row, preserved=kept)
        losses.append(
            chosen.loss(model, edits[0].base, prior_weight=config.prior_weight, batch=config.batch, seed=seed)
        )
    company = [_in_company(model, edits, rows, data, config)] if config.beside else []
    final = yield from tuned_values(values, [*losses, *company], config.steps, run)
    parts = _parts(edits, rows, positions, final, config)
    yield Event("evaluating")
    count = config.evaluation
    facts = {
        "steps": config.steps,  # whether taking apart gives back the parents as they were
        "prompt": " and ".join(default_caption(noun, row.token) for row, noun in zip(rows, nouns, strict=True)),
        "images": [len(each) for each in data],
        "losses": {
            "after": [asdict(loss.evaluate(values.written(final), count)) for loss in losses] if count else None
        },
        "parents": [dict(edit.provenance) for edit in edits],
        "parent_digests": [hashlib.sha256(to_bytes(edit)).hexdigest() for edit in edits],
        "apart": belonging(parts),
    }
    return Edit(tuple(part for part, _ in parts), model.fingerprint(*positions), facts)


def _in_company(
    model: TextToImage,
    edits: Sequence[Edit],
    rows: Sequence[TokenEmbedding],
    data: Sequence[CaptionedImages],
    config: JointTuningConfig,
) -> ConceptLoss:
    """The loss on collages of the things beside one another, whose captions say the words of all; nothing to preserve besides."""
    nouns = [edit.subject.noun for edit in edits if edit.subject]
    named = [
        CaptionedImages(each.images, subject(model, each, noun=noun, rows=row).captions)
        for each, noun, row in zip(data, nouns, rows, strict=True)
    ]
    words = [f"{row.token} {noun}" for noun, row in zip(nouns, rows, strict=True)]
    made = together(named, words, each=config.beside, seed=config.seed)
    with model.edits.applied(Edit(tuple(rows), edits[0].base, {})):
        examples = encode_examples(model, made.images, [each or "" for each in made.captions or ()])
    return ConceptLoss(model, examples, examples, None, batch=config.batch, seed=config.seed + len(edits))


def _row(number: int, edit: Edit) -> TokenEmbedding:
    """The one token of an edit that this can tune."""
    rows, noun, touched = edit.of(TokenEmbedding), edit.subject.noun if edit.subject else "", edit.touched()
    outside = [name for name in touched if not name.startswith("unet.")]
    has_more = len(edit.parts) > len(edit.weight_parts) + len(rows)  # hooks, or something that acts on the start noise
    is_sparse = bool(touched) and None not in touched.values()  # None: all of a tensor, which no entries can hold
    if len(rows) != 1 or has_more or outside or not is_sparse or not noun:
        found = ", ".join(part.kind for part in edit.parts)
        raise EditError(
            f"edit {number + 1}: expected shut or set entries of the UNet and one token, as locate makes them, found {found}"
            f"{' in ' + outside[0] if outside else ''}"
        )
    return rows[0]


def _starting(
    model: TextToImage, edits: Sequence[Edit], config: JointTuningConfig
) -> tuple[SparseValues, dict[str, Tensor]]:
    """The union of the edits' entries, with the values that composing gives them."""
    base = model.components if config.overlap in ("sum", "ties") else None  # the others need not know what was there
    composed = compose(*edits, overlap=config.overlap, base=base)
    positions = {name: each for name, each in composed.touched().items() if each is not None}
    weights = {name: model.network.get_parameter(name.partition(".")[2]).detach() for name in positions}
    # start from what composing alone gives, so that no step can only make up for it
    with model.edits.applied(composed):
        start = {name: weights[name].view(-1)[at.to(weights[name].device)].float() for name, at in positions.items()}
    return SparseValues(weights, positions, start, bits=config.bits, lr=config.lr), positions


def _parts(
    edits: Sequence[Edit],
    rows: Sequence[TokenEmbedding],
    positions: Mapping[str, Tensor],
    final: Mapping[str, Tensor],
    config: JointTuningConfig,
) -> list[tuple[Part, tuple[int, ...]]]:
    """One part for the entries that the same parents touch, and each parent's token; each with the numbers of its parents."""
    found: list[tuple[Part, tuple[int, ...]]] = []
    supports = [{name: each for name, each in edit.touched().items() if each is not None} for edit in edits]
    for who, inside in regions(supports).items():
        # positions are sorted, so a region's entries are found in the union by bisection: (entries of the region,)
        values = {name: final[name].cpu()[torch.searchsorted(positions[name], at)] for name, at in inside.items()}
        # without a step of tuning shut entries stay shut, and taking apart gives the parents back to the byte
        is_zero = not any(bool(value.any()) for value in values.values())
        found.append((ZeroedWeights(inside) if is_zero else SparseWeights(inside, values, config.bits), who))
    return [*found, *((row, (number,)) for number, row in enumerate(rows))]
