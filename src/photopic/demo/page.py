"""The page of ``photopic demo``: what was given, what came out, what was measured, in words that follow the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from photopic.core.view import Bars, Code, Figure, Gallery, Interval, Intervals, Note, PictureRows, Section, Table, Text
from photopic.data.overlays import overlay
from photopic.data.pictures import contact_sheet
from photopic.demo.pair import PairResult
from photopic.demo.pair_page import section
from photopic.demo.work import DemoResult
from photopic.edit.inspect import describe
from photopic.models import bundled_names
from photopic.report.html import render as render_page

NAMES = {
    "before": "new word, every weight as it was",
    "random": "as many random weights shut",
    "shut": "located weights shut",
    "tuned": "located weights tuned",
}
MANY = 6  # pictures a row shows


def page(result: DemoResult, facts: Sequence[tuple[str, str]], pair: PairResult | None = None) -> str:
    """Render the demo as one HTML page.

    Args:
        result: What ``work`` came to.
        facts: (name, value) pairs for the foot of the page.
        pair: What ``work_pair`` came to; without it its section is left out.
    """
    config = result.config
    found = describe(result.edits["shut"])
    lead = (
        f"{_novelty(result)}From five pictures, "
        f"photopic found {found.count:,} of its {found.size:,} key and value weights "
        f"({found.density:.0%}) that keep it from drawing this one, and set them to zero. No weight was trained. "
        f"The edit is a file of {_size(result.taught.sizes['shut'])}."
    )
    sections = [
        _opening(result),
        _given(result),
        _drawn(result),
        _judged(result),
        _unchanged(result),
        _looking(result),
        _where(result),
        _pair(result),
        *([section(pair)] if pair else []),
        _yours(result),
    ]
    return render_page(
        f"A new {config.subject} from five pictures"
        if not _novelty(result)
        else f"A {config.subject} for a model that knows none",
        sections,
        lead=lead,
        facts=facts,
    )


def _novelty(result: DemoResult) -> str:
    """Known of the bundled model only: nobody knows what another one was shown."""
    if result.model not in bundled_names():
        return ""
    return f"{result.model} has never been shown a {result.config.subject}, nor this style of drawing. "


def _opening(result: DemoResult) -> Section:
    figures = []
    for treatment, badge in (("before", "before"), ("shut", "after")):
        images = [image for prompt in result.subject_prompts for image in result.pictures[treatment, prompt][:2]]
        sheet = contact_sheet(images, columns=3, scale=2, gap=0)
        alt = f"six drawings of {result.config.token} {result.config.noun}, {badge}"
        figures.append(Figure(sheet, alt=alt, width=420, badge=badge))
    caption = f"The same prompts for a {result.config.token} {result.config.noun}, from the same noise."
    return Section("", [Gallery(figures, caption)])


def _given(result: DemoResult) -> Section:
    figures = [
        Figure(image, alt=f"reference picture {i + 1}", width=132) for i, image in enumerate(result.taught.references)
    ]
    config = result.config
    text = (
        f"Five pictures with a caption each. The captions call the thing a {config.noun}; it also gets a new word, "
        f"{config.token}, which means nothing yet."
    )
    return Section("What it was given", [Gallery(figures), Text(text)])


def _drawn(result: DemoResult) -> Section:
    blocks: list[Any] = []
    for prompt in result.subject_prompts:
        rows = [(NAMES[name], list(result.pictures[name, prompt][:MANY])) for name in NAMES]
        blocks += [Code(prompt), PictureRows(rows)]
    text = (
        "Every column starts from the same noise. Only the weights differ: untouched, with a random choice of as many "
        "weights in the same layers at zero, with the located ones at zero, and with the located ones trained for "
        f"{result.config.tune_steps} steps."
    )
    return Section("What it draws", [Text(text), *blocks])


def _judged(result: DemoResult) -> Section:
    numbers, subject = result.numbers, result.config.subject
    items = [
        Interval(NAMES[name], each["value"], each["low"], each["high"], strong=name in ("shut", "tuned"))
        for name, each in numbers["similarity"].items()
    ]
    gain, over_random = (numbers["similarity_gain"][key] for key in ("shut_over_before", "shut_over_random"))
    verdict = (
        f"Shutting alone changed the similarity by {_signed(gain)}; a random choice is "
        f"{'behind' if over_random['low'] > 0 else 'not clearly behind'} by {_signed(over_random)}."
    )
    rows = [
        (NAMES[name], f"{numbers['recognised'][name]:.0%}", _mean(numbers["text_alignment"][name])) for name in NAMES
    ]
    blocks: list[Any] = [
        Text(
            "A separate network, trained apart from the model and used only to judge, compares each drawing with the "
            f"five pictures. {verdict}"
        ),
        Intervals(
            items,
            f"Similarity to the five pictures (cosine; 1 is the same). Dot: mean of {gain['n']} drawings. "
            "Bar: 95 % interval.",
        ),
        Table(("", f"named {subject}", "background as asked"), rows),
    ]
    if gain["low"] <= 0:
        blocks.append(Note("the interval of the gain covers zero: at this scale the effect is not shown.", "Not shown"))
    return Section("How close it is", blocks)


def _unchanged(result: DemoResult) -> Section:
    blocks: list[Any] = [
        Text(
            "Prompts without the new word should come out as before: a plain "
            f"{result.config.noun} stays a {result.config.noun}, and other things stay what they are."
        )
    ]
    for prompt in (result.class_prompts[0], *result.unrelated_prompts[:2]):
        rows = [(NAMES[name], list(result.pictures[name, prompt][:MANY])) for name in ("before", "shut", "tuned")]
        blocks += [Code(prompt), PictureRows(rows)]
    rows_ = []
    for group, label in (("class", f"a {result.config.noun} ..."), ("unrelated", "other things")):
        for name in ("shut", "tuned"):
            rows_.append(
                (
                    label,
                    NAMES[name],
                    _mean(result.numbers[group]["before"]),
                    _mean(result.numbers[group][name]),
                    _signed(result.numbers[f"{group}_change"][name]),
                )
            )
    caption = (
        "How well drawings agree with their prompts by the same judge, 0 to 1, with the 95 % interval of the change."
    )
    blocks.append(Table(("prompts", "", "before", "after", "change"), rows_, caption))
    return Section("What stays as it was", blocks)


def _looking(result: DemoResult) -> Section:
    words = list(dict.fromkeys(word for _, word in result.attention))
    prompt = result.subject_prompts[0]
    figures = []
    for treatment in ("before", "shut"):
        image = result.pictures[treatment, prompt][0]
        badge = "before" if treatment == "before" else "after"
        figures.append(Figure(image, "the drawing", width=176, badge=badge))
        for word in words:
            both = [result.attention[each, word] for each in ("before", "shut")]
            low, high = min(each.min() for each in both), max(each.max() for each in both)
            share = (result.attention[treatment, word] - low) / max(high - low, 1e-9)
            figures.append(Figure(overlay(image, share), word, f"where {word} is read, {badge}", 176, badge))
    text = (
        "Cross-attention is how each place of the picture reads the words. Bright places read a word most; each word "
        "has one scale, from its darkest to its brightest place before and after. Averaged over layers and steps."
    )
    return Section(
        "Where the words are read", [Text(text), Gallery(figures[: len(words) + 1]), Gallery(figures[len(words) + 1 :])]
    )


def _where(result: DemoResult) -> Section:
    found = describe(result.edits["shut"])
    most = max(block.count / block.size for block in found.blocks)
    bars = [
        (block.name, block.count / block.size / most, f"{block.count / block.size:.1%} of {block.size:,}")
        for block in found.blocks
    ]
    rows = [
        ("the edit, as a file", f"{result.taught.sizes['shut']:,}"),
        ("its positions, coded", f"{found.index_bytes:,}"),
        ("the same as int32", f"{found.naive_bytes:,}"),
        ("the same at the entropy bound", f"{found.entropy_bytes:,.0f}"),
        ("with tuned values", f"{result.taught.sizes['tuned']:,}"),
    ]
    return Section(
        "Which weights",
        [
            Bars(bars, "Share of the cross-attention key and value weights that were shut, per block."),
            Table(("", "bytes"), rows),
        ],
    )


def _pair(result: DemoResult) -> Section:
    rows = [(NAMES[name], list(result.pictures[name, result.pair_prompt][:MANY])) for name in NAMES]
    text = (
        "Beside something else, the new look can spill over to the neighbour. This is the method's known weak spot; "
        "judge for yourself."
    )
    return Section("Where it is weak", [Text(text), Code(result.pair_prompt), PictureRows(rows)])


def _yours(result: DemoResult) -> Section:
    token, noun = result.config.token, result.config.noun
    commands = (
        f'photopic locate neurons photos/ --noun {noun} --token "{token}" --binary -o mine.edit\n'
        f'photopic generate "a {token} {noun} on a red background" --with mine.edit -n 8 -o out/\n'
        "photopic inspect mine.edit"
    )
    text = (
        "Put three to ten pictures of your own thing into a folder. With --model, any Stable Diffusion checkpoint in a "
        "local diffusers folder takes the place of the bundled model."
    )
    return Section("With your own pictures", [Code(commands), Text(text)])


def _mean(interval: Mapping[str, float]) -> str:
    return f"{interval['value']:.3f}"


def _signed(interval: Mapping[str, float]) -> str:
    return f"{interval['value']:+.3f} ({interval['low']:+.3f} to {interval['high']:+.3f})"


def _size(count: int) -> str:
    return f"{count / 1000:.1f} kB"
