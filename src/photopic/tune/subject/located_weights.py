"""Further tuning: train only the located weights of a subject for a few steps, from the shut state, and keep few bits.

Where concept neurons alone are not enough, their values are learnt on the same loss and stored at 32, 16 or 2 bits;
every other weight, and the row of the token, stays as it is. A random set of the same per-layer sizes and all key and value
projections are the baselines; Custom Diffusion trains these and the row.

Paper: Cones (arXiv:2303.05125), figure 3. Changed: for 2 bits the four levels of a matrix are fitted to the trained
values and the last third of the steps trains through the rounding. Claims: ``neurons.similarity_vs_random`` and
``neurons.similarity_vs_all_kv`` of benchmarks/tune/customisation.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Literal, cast

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from photopic.core.config import Config, Flags
from photopic.core.editfile.views import Searched
from photopic.core.edits import Edit, SparseWeights, TokenEmbedding, ZeroedWeights
from photopic.core.errors import DataError, EditError
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.runs import Run
from photopic.data.captioned import CaptionedImages
from photopic.learning.parameters.sparse_values import Bits, SparseValues
from photopic.learning.subject.collage import in_company
from photopic.learning.subject.examples import subject
from photopic.learning.subject.preservation import Preservation, preservation_examples
from photopic.learning.subject.value_tuning import tuned_values
from photopic.models.text_to_image.attention_weights import Layers, attention_rows, attention_weights, random_positions
from photopic.models.text_to_image.handle import TextToImage


@dataclass(frozen=True, kw_only=True)
class LocatedWeightsConfig(Config):
    """How to tune; every field is written into the edit."""

    where: Literal["located", "random", "all"] = "located"  # the shut weights, as many random ones, or all searched
    bits: Bits = 16  # precision the values are kept at; 2: four levels a matrix
    steps: Annotated[int, Ge(1)] = 100  # steps of learning; more takes longer
    lr: Annotated[float, Gt(0)] = 1e-3  # size of a step
    batch: Annotated[int, Ge(1)] = 8  # pictures a step, and as many to preserve; lower it when memory is short
    prior_weight: Annotated[float, Ge(0)] = 1.0  # weight of what must not change, against the likeness
    preservation: Preservation = "both"  # what must keep looking as it does: diverse scenes, the noun's class, or both
    preservation_count: Annotated[int, Ge(1)] = 200  # pictures of what must not change
    # also learn from so many collages a picture, where your thing stands small beside another: for drawing several things in one
    # picture; 4 is good, then double the steps
    beside: Annotated[int, Ge(0)] = 0
    # with collages: weight of the attention that words give to places without their thing; 0 leaves it out
    attention: Annotated[float, Ge(0)] = 0.0
    evaluation: Annotated[int, Ge(0)] = 48  # problems a part of the fixed evaluation set; 0 leaves the evaluation out
    seed: Annotated[int, Ge(0)] = 0  # seed of everything random; the same seed learns the same


@method(
    paper="arXiv:2303.05125",
    claims="neurons.similarity_vs neurons.two_bits customisation.",
    command="tune located",
    examples=("Example: photopic tune located bear.edit photos/ -o bear-tuned.edit",),
)
def located_weights(
    model: TextToImage,
    edit: Edit,
    images: CaptionedImages,
    *,
    preserved: Annotated[CaptionedImages | None, Flags()] = None,
    config: LocatedWeightsConfig = LocatedWeightsConfig(),
    run: Run | None = None,
) -> Steps[Edit]:
    """Train the weights that an edit shuts, and nothing else: closer to your thing, for a larger file.

    Args:
        model: A bundled model, a folder with a diffusers pipeline, or a hub id. Its weights are never written.
        edit: What photopic locate neurons wrote: a shut set and a token.
        images: The pictures it was located from.
        preserved: Pictures and captions to preserve; None makes them as ``config.preservation`` says.
        config: How to tune.
        run: A run folder to checkpoint in and to resume from.

    Returns:
        Values in the place of the shut weights, and the same token.

    Raises:
        EditError: If the edit has no shut set and token of concept neurons.
        DataError: If pictures or captions do not fit.
        RunMismatchError: If the run folder holds another tuning.

    Example:
        >>> tuned = located_weights(model, edit, images, config=LocatedWeightsConfig(bits=2))  # doctest: +SKIP
    """
    zeroed, rows, noun = _parts(edit)
    chosen = subject(model, images, noun=noun, rows=rows, preserved=preserved)  # refuses before the slow part
    if config.attention:
        model.check_unet("whose attention is not learnt from places")
        if not config.beside and not images.layouts:
            raise DataError(
                "attention: expected collages, in which the place of your thing is known; raise beside, to 4"
            )
    if preserved is None and config.prior_weight > 0:
        kind, count = config.preservation, config.preservation_count
        preserved = yield from preservation_examples(model, noun, kind=kind, count=count, seed=config.seed, run=run)
    taught = CaptionedImages(chosen.images, chosen.captions, images.layouts)  # with the token said in every caption
    if config.beside:
        yield Event("drawing what stands beside it")
        taught = in_company(model, taught, subject=f"{rows.token} {noun}", each=config.beside, seed=config.seed)
    chosen = subject(model, taught, noun=noun, rows=rows, preserved=preserved)
    loss = chosen.loss(
        model, edit.base,
        prior_weight=config.prior_weight, batch=config.batch, seed=config.seed, attention=config.attention,
    )  # fmt: skip
    weights, fused = _searched(model, edit)
    positions = _positions(weights, zeroed, config, fused)
    values = SparseValues(weights, positions, _start(weights, positions, config), bits=config.bits, lr=config.lr)
    final = yield from tuned_values(values, [loss], config.steps, run)
    yield Event("evaluating")
    after = asdict(loss.evaluate(values.written(final), config.evaluation)) if config.evaluation else None
    facts = {
        "noun": noun,
        "token": rows.token,
        "prompt": chosen.captions[0],
        "images": len(images),
        "share_tuned": values.share,
        "losses": {"after": after},
        "located": dict(edit.provenance),
    }
    return Edit((SparseWeights(positions, final, config.bits), rows), model.fingerprint(*positions), facts)


def _parts(edit: Edit) -> tuple[ZeroedWeights, TokenEmbedding, str]:
    """The shut set, the row of the token, and the noun."""
    zeroed, rows, noun = edit.of(ZeroedWeights), edit.of(TokenEmbedding), edit.subject.noun if edit.subject else ""
    if len(zeroed) != 1 or len(rows) != 1 or not noun:
        found = ", ".join(type(part).__name__ for part in edit.parts) or "nothing"
        raise EditError(
            f"edit: expected one shut set and one token of concept neurons, found {found}; run locate first"
        )
    return zeroed[0], rows[0], noun


def _searched(model: TextToImage, edit: Edit) -> tuple[dict[str, Tensor], dict[str, range]]:
    """The weights the edit was searched in, and of those that make more than keys and values the rows that were."""
    searched = edit.searched or Searched("cross", ("k", "v"))
    return attention_weights(model, cast(Layers, searched.layers), searched.which), attention_rows(
        model, searched.which
    )


def _positions(
    weights: Mapping[str, Tensor], zeroed: ZeroedWeights, config: LocatedWeightsConfig, rows: Mapping[str, range]
) -> dict[str, Tensor]:
    if config.where == "all":
        searched = {name: rows.get(name, range(len(weight))) for name, weight in weights.items()}
        columns = {name: weight[0].numel() for name, weight in weights.items()}
        return {
            name: torch.arange(part.start * columns[name], part.stop * columns[name]) for name, part in searched.items()
        }
    if config.where == "random":
        return random_positions(zeroed.indices, weights, config.seed + 1, rows)  # as many in each matrix
    return dict(zeroed.indices)


def _start(
    weights: Mapping[str, Tensor], positions: Mapping[str, Tensor], config: LocatedWeightsConfig
) -> dict[str, Tensor]:
    """Located weights start shut, others from what they are."""
    # (out, in) -> (positions,): what these entries hold now
    found = {name: weights[name].view(-1)[index.to(weights[name].device)] for name, index in positions.items()}
    return {name: torch.zeros_like(value) for name, value in found.items()} if config.where == "located" else found
