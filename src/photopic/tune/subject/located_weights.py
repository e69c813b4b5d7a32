"""Further tuning: train only the located weights of a subject for a few steps, from the shut state, and keep few bits.

Where concept neurons alone are not enough, their values are learnt on the same loss and stored at 32, 16 or 2 bits;
every other weight, and the row of the token, stays as it is. A random set of the same per-layer sizes and all key and value
projections are the baselines; Custom Diffusion trains these and the row.

Paper: Cones (arXiv:2303.05125), figure 3. Changed: for 2 bits the four levels of a matrix are fitted to the trained
values and the last third of the steps trains through the rounding. Claims: ``neurons.similarity_vs_random`` and
``neurons.similarity_vs_all_kv`` of benchmarks/tune/customisation.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from photopic.core.edits import Edit, SparseWeights, TokenEmbedding, ZeroedWeights
from photopic.core.errors import DataError, EditError
from photopic.core.runs import Run
from photopic.learning.parameters.sparse_values import SparseValues, positions_digest
from photopic.learning.progress import Progress, environment, load_matching, peak_bytes
from photopic.learning.subject.collage import in_company
from photopic.learning.subject.examples import Captioned, check_unedited, subject
from photopic.learning.subject.preservation import Preservation, preservation_examples
from photopic.models.text_to_image.attention_weights import Layers, attention_weights, random_positions

if TYPE_CHECKING:
    from photopic.models.text_to_image.handle import TextToImage


@dataclass(frozen=True)
class LocatedWeightsConfig:
    """How to tune; every field is written into the edit."""

    where: Literal["located", "random", "all"] = "located"  # the shut weights, as many random ones, or all searched
    bits: Literal[32, 16, 2] = 16  # precision of the stored values; 2: four levels a matrix
    steps: int = 100  # Adam steps on the values
    lr: float = 1e-3  # of the values
    batch: int = 8  # subject pictures a step, and as many preservation pictures
    prior_weight: float = 1.0  # lambda, weight of the preservation loss
    preservation: Preservation = "both"  # what to preserve: diverse scenes, the class, or half and half
    preservation_count: int = 200  # preservation pictures
    beside: int = 0  # collages a picture, beside other things the model draws; half of what is learnt from, 0: none
    evaluation: int = 48  # problems a part of the fixed evaluation set; 0 leaves the evaluation out
    seed: int = 0  # of the preservation pictures, the random set, the collages and every draw

    def __post_init__(self) -> None:
        if self.beside < 0:
            raise DataError(f"beside: expected 0 or more collages a picture, found {self.beside}")


def tune_located_weights(
    model: TextToImage,
    images: Float[Tensor, "n 3 size size"],
    edit: Edit,
    *,
    captions: Sequence[str] | None = None,
    config: LocatedWeightsConfig = LocatedWeightsConfig(),
) -> Edit:
    """Tune the weights an edit shuts; drives ``tune`` to its end. See there for arguments and errors.

    Example:
        >>> tuned = tune_located_weights(model, images, edit, config=LocatedWeightsConfig(bits=2))  # doctest: +SKIP
    """
    *_, last = tune(model, images, edit, captions=captions, config=config)
    assert last.edit is not None
    return last.edit


def tune(
    model: TextToImage,
    images: Float[Tensor, "n 3 size size"],
    edit: Edit,
    *,
    captions: Sequence[str] | None = None,
    config: LocatedWeightsConfig = LocatedWeightsConfig(),
    preservation: Captioned | None = None,
    run: Run | None = None,
    save_every: int = 25,
) -> Iterator[Progress]:
    """Tune the located weights, reporting after every step; the last event carries an edit of values.

    Args:
        model: The model the edit was made for; its weights are never written.
        images: The pictures of the subject, in -1 to 1.
        edit: What ``locate`` returned: a shut set and a token.
        captions: One a picture, naming the noun; None means ``a <token> noun``.
        config: How to tune.
        preservation: Pictures and captions to preserve; None makes them as ``config.preservation`` says.
        run: A run folder to checkpoint in and to resume from.
        save_every: Steps between checkpoints.

    Raises:
        EditError: If the edit has no shut set and token of concept neurons.
        DataError: If pictures or captions do not fit.
        ModelError: If the model has edits applied.
        RunMismatchError: If the run folder holds another tuning.

    Example:
        >>> for event in tune(model, images, edit): print(event.step, event.concept_loss)  # doctest: +SKIP
    """
    clock = time.monotonic()
    check_unedited(model)
    shut, rows = _parts(edit)
    noun = str(edit.provenance["noun"])
    chosen = subject(model, images, captions, noun=noun, rows=rows, preservation=preservation)  # before the slow part
    yield Progress("preparing", steps=config.steps)
    if preservation is None and config.prior_weight > 0:
        kept, count = config.preservation, config.preservation_count
        preservation = preservation_examples(model, noun, kind=kept, count=count, seed=config.seed)
    pictures, named = chosen.images, list(chosen.captions)
    if config.beside:
        words = f"{rows.token} {noun}"
        pictures, named = in_company(model, pictures, named, subject=words, each=config.beside, seed=config.seed)
    chosen = subject(model, pictures, named, noun=noun, rows=rows, preservation=preservation)
    loss = chosen.loss(model, edit.base, prior_weight=config.prior_weight, batch=config.batch, seed=config.seed)
    weights = _searched(model, edit)
    positions = _positions(weights, shut, config)
    values = SparseValues(weights, positions, _start(weights, positions, config), bits=config.bits, lr=config.lr)
    identity = chosen.identity(asdict(config) | {"positions": positions_digest(positions)}, edit.base.digest)
    done = 0
    if run and (found := load_matching(run, identity)):
        tensors, done = found
        values.restore(tensors)
    for step in range(done, config.steps):
        if config.bits == 2 and step >= config.steps * 2 // 3:
            values.fit_levels()
        losses = loss.step(step, values.weights())
        values.update(losses.total)
        if run and ((step + 1) % save_every == 0 or step + 1 == config.steps):
            run.save(values.tensors(), {"step": step + 1, "identity": identity})
        elapsed = time.monotonic() - clock
        to_go = elapsed / (step + 1 - done) * (config.steps - step - 1)
        concept, prior = losses.concept.item(), losses.prior.item()
        yield Progress("tuning", step + 1, config.steps, concept, prior, values.share, elapsed, to_go)
    final = values.final()
    after = asdict(loss.evaluate(values.written(final), config.evaluation)) if config.evaluation else None
    provenance = {
        "method": "located_weights",
        "paper": "arXiv:2303.05125",
        "config": asdict(config),
        "seed": config.seed,
        "steps": config.steps,
        "noun": noun,
        "token": rows.token,
        "prompt": chosen.captions[0],
        "images": len(images),
        "data": chosen.digest,
        "preservation_data": chosen.preservation_digest,
        "share_tuned": values.share,
        "losses": {"after": after},
        "located": dict(edit.provenance),
        **environment(model),
        "elapsed_s": round(time.monotonic() - clock, 1),
        "peak_bytes": peak_bytes(model.device),
    }
    part = SparseWeights(indices=values.positions, values=final, bits=config.bits)
    tuned = Edit(parts=(part, rows), base=model.edits.fingerprint(*values.positions), provenance=provenance)
    elapsed = time.monotonic() - clock
    yield Progress("done", config.steps, config.steps, share=values.share, elapsed_s=elapsed, edit=tuned)


def _parts(edit: Edit) -> tuple[ZeroedWeights, TokenEmbedding]:
    shut = [part for part in edit.parts if isinstance(part, ZeroedWeights)]
    rows = [part for part in edit.parts if isinstance(part, TokenEmbedding)]
    if len(shut) != 1 or len(rows) != 1 or "noun" not in edit.provenance:
        found = ", ".join(type(part).__name__ for part in edit.parts) or "nothing"
        raise EditError(
            f"edit: expected one shut set and one token of concept neurons, found {found}; run locate first"
        )
    return shut[0], rows[0]


def _searched(model: TextToImage, edit: Edit) -> dict[str, Tensor]:
    """The weights the edit was searched in."""
    config = edit.provenance.get("config", {})
    layers: Layers = config.get("layers", "cross")
    return attention_weights(model, layers, tuple(config.get("which", ("k", "v"))))


def _positions(weights: Mapping[str, Tensor], shut: ZeroedWeights, config: LocatedWeightsConfig) -> dict[str, Tensor]:
    if config.where == "all":
        return {name: torch.arange(weight.numel()) for name, weight in weights.items()}
    if config.where == "random":
        return random_positions(shut.indices, weights, config.seed + 1)
    return dict(shut.indices)


def _start(
    weights: Mapping[str, Tensor], positions: Mapping[str, Tensor], config: LocatedWeightsConfig
) -> dict[str, Tensor]:
    """Located weights start shut, others from what they are."""
    found = {name: weights[name].view(-1)[index.to(weights[name].device)] for name, index in positions.items()}
    return {name: torch.zeros_like(value) for name, value in found.items()} if config.where == "located" else found
