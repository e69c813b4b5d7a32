"""Probes of an edit: what it does to the model's attention, to its new word, to other edits, at fewer bits, and where.

The interpreting tools of the Cones paper (arXiv:2303.05125: attention before and after shutting, the map of disentanglement,
the ladder of precisions) and two that it does not report: the four cells of edit and word, and the touched weights by
block. Each probe is a function that returns a report with its pictures; ``explain`` runs those
that an edit allows.
Changed: the new word is known before the edit too, so that both sides read the same prompt; overlaps are compared with
what independent sets of these sizes would share. A probe shows one edit at one prompt and few seeds: it is there to be
looked at, and no claim rests on it. Exact properties are in tests/edit/explain/test_probes.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from photopic.core.edits import Edit
from photopic.core.edits.file import to_bytes
from photopic.core.errors import EditError
from photopic.core.results import Map, provenance
from photopic.data.captioned import CaptionedImages
from photopic.edit.explain._common import PROBE_SETTINGS, Probe, ProbeSettings, SubjectWords, losses, origin, state
from photopic.models.text_to_image.word_attention import END, START, draw_and_read, words_of

if TYPE_CHECKING:
    from photopic.models.text_to_image.handle import TextToImage

EVALUATION = 48  # denoising problems behind each loss
RUNGS = (32, 16, 8, 2)  # bits


def attention_before_after(
    model: TextToImage, edit: Edit, *, prompt: str | None = None, config: ProbeSettings = PROBE_SETTINGS
) -> Probe:
    """Where each word is read before the edit and with it: the same prompt, seed and new word.

    Returns:
        One row a word, with what surrounds the prompt as ``[start]`` and ``[end]``: mean share of attention ``before`` and
        ``with`` the edit, the ``correlation`` of the two maps over the cells (None where one is flat), and the
        ``contrast`` of each: standard deviation over mean. Maps and pictures by ``before`` and ``with``.

    Raises:
        EditError: If the edit is for another model, or adds no word and no prompt is given.
        ModelError: If a word of the prompt is cut off.

    Example:
        >>> attention_before_after(model, edit).maps["with"].labels  # doctest: +SKIP
        ('[start]', 'a', '<mine>', 'bear', 'on', 'red', 'background', '[end]')
    """
    prompt = prompt or SubjectWords.of(edit).prompt
    words = (START, *words_of(prompt), END)
    maps, pictures, facts = {}, {}, _facts(model, edit, "attention_before_after", prompt, config)
    for kind in ("before", "with"):
        with state(model, edit, kind):
            values, image = draw_and_read(
                model, prompt, words, seed=config.seed, steps=config.steps, guidance=config.guidance
            )
        maps[kind], pictures[kind] = Map(values[None], words, facts, image[None]), image[None]
    rows = tuple(
        {
            "word": word,
            "before": float(before.mean()),
            "with": float(after.mean()),
            "correlation": _correlation(before, after),
            "contrast_before": float(before.std() / before.mean()),
            "contrast_with": float(after.std() / after.mean()),
        }
        for word, before, after in zip(words, maps["before"].values[0], maps["with"].values[0], strict=True)
    )
    return Probe("attention", {"prompt": prompt}, rows, facts, pictures, maps)


def with_and_without_identifier(
    model: TextToImage,
    edit: Edit,
    *,
    images: CaptionedImages | None = None,
    prompt: str | None = None,
    config: ProbeSettings = PROBE_SETTINGS,
    evaluation: int = EVALUATION,
) -> Probe:
    """Four cells: before the edit and with it, the new word in the prompt and not.

    Returns:
        Four rows: ``edit``, ``word``, ``prompt``, ``loss`` on the pictures (None without any). ``values``: the identifier
        gap ``gap_before`` and ``gap_with``, loss without the word minus loss with it: above zero, the word explains the
        subject better than its class does. Pictures by ``<edit>/<word>``, all cells from the same seeds.

    Raises:
        EditError: If the edit adds no word or is for another model.
        DataError: If pictures and captions do not fit.

    Example:
        >>> with_and_without_identifier(model, edit, images=CaptionedImages(images)).values["gap_with"]  # doctest: +SKIP
        0.011
    """
    subject = SubjectWords.of(edit)
    prompt = prompt or subject.prompt
    prompts = {"with word": prompt, "without": subject.without(prompt)}
    rows, pictures, values = [], {}, {}
    for kind in ("before", "with"):
        with state(model, edit, kind):
            found = None if images is None else losses(model, images, subject, evaluation)
            for word, said in prompts.items():
                loss = None if found is None else found.concept if word == "with word" else found.class_prompt
                rows.append({"edit": kind, "word": word, "prompt": said, "loss": loss})
                pictures[f"{kind}/{word}"] = config.draw(model, said)
        values[f"gap_{kind}"] = None if found is None else found.identifier_gap
    facts = _facts(model, edit, "with_and_without_identifier", prompt, config) | {"evaluation": evaluation}
    return Probe("identifier", values, tuple(rows), facts, pictures)


def precision_ladder(
    model: TextToImage,
    edit: Edit,
    *,
    images: CaptionedImages | None = None,
    prompt: str | None = None,
    config: ProbeSettings = PROBE_SETTINGS,
    evaluation: int = EVALUATION,
) -> Probe:
    """The same positions with their values at ever fewer bits, and shut.

    The top rung is the precision the edit is stored at; bits that it never had are not made up.

    Returns:
        One row a rung: ``rung`` (``16 bits``, ``2 bits``, ``shut``, ...), ``bytes`` of the file, and on the pictures ``loss``
        and ``gap`` (None without any). The last row is the model ``before`` the edit. Pictures by rung.

    Raises:
        EditError: If the edit holds no values or is for another model.
        DataError: If pictures and captions do not fit.

    Example:
        >>> [row["rung"] for row in precision_ladder(model, tuned).rows]  # doctest: +SKIP
        ['16 bits', '8 bits', '2 bits', 'shut', 'before']
    """
    stored = [part.bits for part in edit.parts if part.bits]
    if not stored:
        raise EditError("precision ladder: expected an edit that holds values, found none; tune it first")
    rungs = {f"{bits} bits": _at(edit, bits) for bits in RUNGS if bits <= max(stored)} | {"shut": _at(edit, 0)}
    subject = SubjectWords.of(edit)
    prompt = prompt or subject.prompt
    rows, pictures = [], {}
    for rung, each in (rungs | {"before": edit}).items():
        with state(model, each, "before" if rung == "before" else "with"):
            found = None if images is None else losses(model, images, subject, evaluation)
            pictures[rung] = config.draw(model, prompt)
        loss, gap = (None, None) if found is None else (found.concept, found.identifier_gap)
        rows.append({"rung": rung, "bytes": 0 if rung == "before" else len(to_bytes(each)), "loss": loss, "gap": gap})
    facts = _facts(model, edit, "precision_ladder", prompt, config) | {"evaluation": evaluation}
    return Probe("precision", {}, tuple(rows), facts, pictures)


def _at(edit: Edit, bits: int) -> Edit:
    """The same edit with its values rounded to at most that many bits; 0 shuts entries that are set and drops what is added."""
    parts = tuple(each for part in edit.parts for each in part.at_bits(bits))
    return replace(edit, parts=parts)


def _correlation(a: Float[np.ndarray, "h w"], b: Float[np.ndarray, "h w"]) -> float | None:
    flat = min(float(a.std()), float(b.std())) < 1e-9
    return None if flat else float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def _facts(model: TextToImage, edit: Edit, probe: str, prompt: str, config: ProbeSettings) -> dict[str, Any]:
    how = {"pictures": config.pictures, "steps": config.steps, "guidance": config.guidance}
    about = {"model": model.name, "edit": origin(edit), "prompt": prompt, "seed": config.seed, "config": how}
    return provenance(f"locate.explain.{probe}", **about)
