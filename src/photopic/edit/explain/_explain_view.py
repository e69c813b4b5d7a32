"""How what ``explain`` found is shown: one section a probe, with the pictures it looked at and how to read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from photopic.core.nn.layer_names import place
from photopic.core.view import Bars, Code, Figure, Gallery, Note, PictureRows, Section, Table, Text, View
from photopic.data.overlays import overlay
from photopic.edit.explain._common import Probe
from photopic.edit.explain.weight_probes import COLOURS, PATCH

WIDTH = 876  # of the page's text, CSS pixels
GAP = 18
LAYERS = 32  # pictures of matrices on the page
EDIT = {"before": "before the edit", "with": "with the edit"}
WORD = {"with word": "word in the prompt", "without": "word left out"}


def explain_view(report: Any) -> View:
    """Each probe a section: its pictures, its numbers and how to read them.

    Args:
        report: What ``explain`` returned.
    """
    probes: Mapping[str, Probe] = report.probes
    weights = probes["touched weights"]
    lead = "It touches no weight."
    if weights.values["count"]:
        count, size = weights.values["count"], weights.values["size"]
        blocks = len({row["block"] for row in weights.rows})
        lead = f"It touches {count:,} of the {size:,} weights of its matrices ({count / size:.1%}), in {blocks} blocks."
    makers = {
        "attention": _attention,
        "identifier": _identifier,
        "precision": _precision,
        "disentanglement": _disentanglement,
        "touched weights": _weights,
    }
    sections = [make(probes[name]) for name, make in makers.items() if name in probes]
    return View(report.name, [*_opening(probes), *sections], lead, _facts(report.provenance))


def _facts(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    config = provenance["config"]
    return [
        ("model", provenance["model"]),
        ("seeds", f"{config['seed']} to {config['seed'] + config['pictures'] - 1}"),
        ("denoising", f"{config['steps']} steps, guidance {config['guidance']:g}"),
        ("photopic", provenance["versions"]["photopic"]),
    ]


def _opening(probes: Mapping[str, Probe]) -> list[Section]:
    if "identifier" not in probes:
        return []
    probe, figures = probes["identifier"], []
    for kind, badge in (("before", "before"), ("with", "with the edit")):
        for image in probe.pictures[f"{kind}/with word"][:2]:
            figures.append(Figure(image, alt=f"{probe.rows[0]['prompt']}, {badge}", width=192, badge=badge))
    return [Section("", [Gallery(figures), Code(probe.rows[0]["prompt"])])]


def _attention(probe: Probe) -> Section:
    words = probe.maps["before"].labels
    width = max(64, (WIDTH - GAP * len(words)) // (len(words) + 1) - 3)
    galleries = []
    for kind in ("before", "with"):
        image = probe.pictures[kind][0]
        figures = [Figure(image, kind, f"the picture, {EDIT[kind]}", width)]
        for number, word in enumerate(words):
            both = [probe.maps[each].values[0, number] for each in ("before", "with")]
            low, high = min(each.min() for each in both), max(each.max() for each in both)
            heat = (probe.maps[kind].values[0, number] - low) / max(high - low, 1e-9)
            figures.append(Figure(overlay(_large(image), heat), word, f"where {word} is read, {EDIT[kind]}", width))
        galleries.append(Gallery(figures))
    rows = [
        (
            row["word"],
            f"{row['before']:.1%}",
            f"{row['with']:.1%}",
            _number(row["correlation"], "{:+.2f}"),
            f"{row['contrast_before']:.2f}",
            f"{row['contrast_with']:.2f}",
        )
        for row in probe.rows
    ]
    text = (
        "While a picture is drawn, every place of it divides its attention among the words. Bright places read a word most; "
        "each word has one scale for both rows, from its darkest to its brightest place. Prompt, seed and new word are the "
        "same in both rows. Means over layers, heads and steps."
    )
    header = ("word", "share before", "share with", "correlation", "contrast before", "contrast with")
    caption = (
        "Share: of all attention; a word of several tokens, and [end], have the mean of theirs. Correlation: of the two maps over "
        "the places; near 1, the word is read where it was. Contrast: how much the map varies over the picture (standard "
        "deviation over mean). [start] and [end] are the tokens before and after the words. One picture, so an impression and "
        "not a measurement."
    )
    return Section("Where the words are read", [Text(text), *galleries, Table(header, rows, caption)])


def _identifier(probe: Probe) -> Section:
    rows = [
        (f"{EDIT[row['edit']]}, {WORD[row['word']]}", list(probe.pictures[f"{row['edit']}/{row['word']}"]))
        for row in probe.rows
    ]
    text = (
        "The same seeds in four cells. The edit should show where its word is in the prompt; where the word is left out, the "
        "pictures should be those of before."
    )
    blocks: list[Any] = [Text(text), PictureRows(rows)]
    if probe.values["gap_with"] is None:
        blocks.append(Note("give pictures of the subject with --images to see the reconstruction loss.", "No loss"))
        return Section("The edit and its word", blocks)
    table = [(EDIT[row["edit"]], WORD[row["word"]], f"{row['loss']:.4f}") for row in probe.rows]
    before, after = probe.values["gap_before"], probe.values["gap_with"]
    caption = (
        f"Reconstruction loss on the pictures given, {probe.provenance['evaluation']} fixed denoising problems. The gap that the "
        f"word makes is {before:+.4f} before the edit and {after:+.4f} with it; above zero, the word explains the subject better "
        "than its class noun alone."
    )
    blocks.append(Table(("edit", "prompt", "loss"), table, caption))
    if after <= before:
        blocks.append(
            Note("the gap did not grow: the edit lowers the loss for every prompt, word or not.", "A bias, not a word")
        )
    return Section("The edit and its word", blocks)


def _precision(probe: Probe) -> Section:
    said = {row["rung"]: f"at {row['rung']}" if row["rung"][0].isdigit() else row["rung"] for row in probe.rows}
    rows = [(said[row["rung"]], list(probe.pictures[row["rung"]])) for row in probe.rows]
    table = [
        (
            said[row["rung"]],
            f"{row['bytes']:,}" if row["bytes"] else "-",
            _number(row["loss"]),
            _number(row["gap"], "{:+.4f}"),
        )
        for row in probe.rows
    ]
    text = (
        "The same positions with their values at ever fewer bits, and at zero. The first row is what the file holds; rounding "
        "was done afterwards, without further training."
    )
    caption = "Loss on the pictures given, if any, and the gap that the word makes."
    return Section(
        "At fewer bits",
        [Text(text), PictureRows(rows), Table(("values", "file, bytes", "loss", "gap"), table, caption)],
    )


def _disentanglement(probe: Probe) -> Section:
    names = probe.values["edits"]
    legend = [("nobody", 0), *((f"only {name}", number + 2) for number, name in enumerate(names)), ("shared", 1)]
    swatches = [Figure(np.full((4, 4, 3), COLOURS[number], np.uint8), label, width=40) for label, number in legend]
    figures = [
        Figure(image[0], " ".join(place(name)).strip(), f"who touches {name}", width=2 * image.shape[2])
        for name, image in list(probe.pictures.items())[:LAYERS]
    ]
    pairs = [
        (pair, f"{each['shared']:,}", f"{each['expected']:,.1f}", _number(each["ratio"], "{:.2f}"))
        for pair, each in probe.values["pairs"].items()
    ]
    rows = [
        (
            *([row["pair"]] if len(names) > 2 else []),
            " ".join(place(row["tensor"])).strip(),
            " and ".join(f"{only:,}" for only in row["only"]),
            f"{row['shared']:,}",
            f"{row['expected']:,.1f}",
            _number(row["ratio"], "{:.2f}"),
        )
        for row in probe.rows[: 4 * LAYERS]
    ]
    text = (
        "A pixel is a weight. Sets that were found independently share some weights by chance; more than that means that the "
        "edits want the same weights, and composing them costs one of them something."
    )
    head = (*(["edits"] if len(names) > 2 else []), "layer", "only", "shared", "by chance", "ratio")
    return Section(
        "Beside other edits",
        [
            Text(text),
            Table(("edits", "shared", "by chance", "ratio"), pairs),
            Gallery(swatches),
            Gallery(figures, f"Upper left corner of each matrix, up to {PATCH} by {PATCH} weights."),
            Table(head, rows),
        ],
    )


def _weights(probe: Probe) -> Section:
    if not probe.rows:
        return Section(
            "Which weights", [Text("None: it adds something to the model and leaves its weights as they are.")]
        )
    most = max(row["share"] for row in probe.rows)
    bars = [
        (
            f"{row['block']} {row['projection']}".strip(),
            row["share"] / most,
            f"{row['share']:.1%} of {row['size']:,}",
        )
        for row in probe.rows
    ]
    split = [
        f"{value:.1%} of the {'key' if name == 'share_k' else 'value'} weights"
        for name, value in probe.values.items()
        if name in ("share_k", "share_v")
    ]
    said = f"{' and '.join(split)} in the touched matrices." if split else "Share of the touched tensors."
    return Section("Which weights", [Bars(bars, f"Share of the weights touched, per block and projection; {said}")])


def _number(value: float | None, form: str = "{:.4f}") -> str:
    return "-" if value is None else form.format(value)


def _large(image: Any) -> Any:
    """Enough pixels for a smooth map."""
    scale = max(1, 128 // image.shape[0])
    return image.repeat(scale, 0).repeat(scale, 1)
