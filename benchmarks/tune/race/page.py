"""The page of the race, docs/methods/race.md, and its picture, written from the stored results and from nothing else.

python -m benchmarks.tune.race.page      # writes them again
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from benchmarks.harness.ledger import RESULTS, ROOT, Row, read_result

Rectangle = tuple[float, float, float, float]  # left, top, right, bottom
PAGE, PICTURE = ROOT / "docs" / "methods" / "race.md", ROOT / "docs" / "images" / "race.svg"
TITLES = {
    "base": "nothing but the token's row",
    "dreambooth": "DreamBooth (all weights)",
    "custom_diffusion": "Custom Diffusion (K, V, row)",
    "lora4": "LoRA r=4",
    "lora16": "LoRA r=16",
    "shira": "SHiRA r=4",
    "ia3": "IA3",
    "textual_inversion": "textual inversion",
    "token_residual": "**token residual**",
}
COLUMNS = (  # of the table: claim, heading, how a value is written
    ("similarity", "similarity", "{:.3f}"),
    ("alignment", "text", "{:.3f}"),
    ("drift", "drift", "{:.3f}"),
    ("bytes", "bytes", "{:,.0f}"),
    ("seconds", "s to make", "{:.0f}"),
    ("peak_mb", "peak MB", "{:.0f}"),
    ("apply_s", "s to apply", "{:.3f}"),
    ("revert_s", "s to revert", "{:.3f}"),
    ("exact_revert", "bits back", "{:.4%}"),
)
KINDS = {
    "rows": "the tokens' rows alone",
    "edits": "**edits composed**",
    "edits_layout": "**edits, layout**",
    "alone_layout": "**edits taught alone, layout**",
    "lora_linear": "LoRA, linear",
    "lora_cat": "LoRA, cat",
    "lora_ties": "LoRA, TIES",
    "lora_cat_layout": "LoRA, cat, our layout",
    "lora_company_layout": "LoRA taught in company, cat, our layout",
}
INTRO = """# The race

What each way of customising costs and gives, on one model and one machine: the same held-out subjects, five pictures each,
the same first row of the token, preservation pictures, prompts and seeds. Peers are trained on the same loss, at the rate and
number of steps that one stated rule chose for each of them on a subject that is not in the test; each is kept in the form it
is published in and applied by its own library. The plan, with everything fixed before any result:
`benchmarks/tune/race/README.md`. Made by `python -m benchmarks race` and written from
`benchmarks/results/race.json`, not by hand. All numbers hold for the small bundled model only. A way without a line was not
measured.
"""
ONE = """## One subject

Similarity: mean cosine of the oracle's embedding to real pictures of the subject that were not given. Text: share of the facts
the prompt states. Drift: 1 - cosine to the base's picture of an unrelated prompt, same seed. Bytes: what is sent on, float16
for peers, without the row of a token where it stays as it started; ours hold it. Seconds are CPU seconds of one thread, of the
chosen setting alone. Bits back: share of the weights with the base's bits after the method's own way back (for DreamBooth:
reading the base again).

![bytes against similarity](../images/race.svg)
"""
MANY = """## Several subjects in one picture

Prompts name every subject by its own token. Edits are tuned in company, as `tune located --beside 4` does: half of the pictures
are collages beside other things that the model draws. Two lines show what that gives: edits taught alone, and LoRAs taught in the
same company. LoRAs are merged by peft's `add_weighted_adapter` at the weights chosen on another
pair. A picture counts where every subject is found, each in a place of its own: the place most like it is taken for it, not for its
class noun or another of the group. Leaked: a place in B's box is taken for A. In place: found with its peak in its own box,
asked for by the layout or, without one, only by the words.
"""


def write() -> None:
    """Write the page and the picture."""
    _, rows = read_result(RESULTS / "race.json")
    found = {row.claim: row for row in rows}
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(picture(points(found)))
    PAGE.write_text(page(found))
    print(f"{PAGE.relative_to(ROOT)}, {PICTURE.relative_to(ROOT)}")


def page(found: Mapping[str, Row]) -> str:
    """The page as Markdown."""
    parts = [INTRO, ONE, table(found), "", _asked(found, "race."), MANY]
    for word in ("two", "three", "four"):
        if any(f"compose.{word}.present.{kind}" in found for kind in KINDS):
            parts += [f"**{word.capitalize()} subjects**", "", group_table(found, word), ""]
    parts += [_asked(found, "compose."), _chosen(found)]
    return "\n".join(parts).rstrip() + "\n"


def table(found: Mapping[str, Row]) -> str:
    """One line a way."""
    lines = [["way", *(heading for _, heading, _ in COLUMNS)]]
    for name in names(found):
        cells = [_cell(found.get(f"race.{claim}.{name}"), form) for claim, _, form in COLUMNS]
        lines.append([title(name), *cells])
    return _markdown(lines)


def group_table(found: Mapping[str, Row], word: str) -> str:
    """One line a way of putting subjects together."""
    lines = [["way", "all present", "95 %", "leaked", "in place", "drift"]]
    for kind, name in KINDS.items():
        row = found.get(f"compose.{word}.present.{kind}")
        if row is None:
            continue
        rest = [_cell(found.get(f"compose.{word}.{field}.{kind}"), "{:.3f}") for field in ("leaked", "obeyed", "drift")]
        lines.append([name, _cell(row, "{:.3f}"), f"{row.low:.2f} to {row.high:.2f}", *rest])
    return _markdown(lines)


def names(found: Mapping[str, Row]) -> list[str]:
    """The ways in the order of the results."""
    return [claim.removeprefix("race.similarity.") for claim in found if claim.startswith("race.similarity.")]


def title(name: str) -> str:
    """What a way is called in the table; ours are bold.

    Example:
        >>> title("tuned16_5pc")
        '**5 % of K, V, tuned, 16 bits**'
    """
    if name in TITLES:
        return TITLES[name]
    kind, share = name.split("_")
    share = share.removesuffix("pc")
    return f"**{share} % of K, V shut**" if kind == "neurons" else f"**{share} % of K, V, tuned, {kind[5:]} bits**"


def points(found: Mapping[str, Row]) -> list[tuple[str, float, float]]:
    """(way, bytes, similarity) of everything that has a file."""
    ways = [name for name in names(found) if f"race.bytes.{name}" in found]
    pairs = [(name, found[f"race.bytes.{name}"].value, found[f"race.similarity.{name}"].value) for name in ways]
    return [(name, float(size), float(similar)) for name, size, similar in pairs if size and similar is not None]


def front(given: Sequence[tuple[str, float, float]]) -> list[tuple[str, float, float]]:
    """What nothing both smaller and more similar beats, by bytes.

    Example:
        >>> [name for name, *_ in front([("a", 10, 0.5), ("b", 20, 0.4), ("c", 30, 0.6)])]
        ['a', 'c']
    """
    best: list[tuple[str, float, float]] = []
    for each in sorted(given, key=lambda one: (one[1], -one[2])):
        if not best or each[2] > best[-1][2]:
            best.append(each)
    return best


def picture(given: Sequence[tuple[str, float, float]]) -> str:
    """Bytes (logarithmic) against similarity as SVG, with the front as a line."""
    width, height, left, bottom = 760, 440, 60, 50
    low, high = (f(math.log10(size) for _, size, _ in given) for f in (min, max))
    low, high = math.floor(low), math.ceil(high)
    floor = math.floor(min(each[2] for each in given) * 20) / 20
    top = math.ceil(max(each[2] for each in given) * 20) / 20 + 0.02

    def at(size: float, similar: float) -> tuple[float, float]:
        x = left + (math.log10(size) - low) / max(1, high - low) * (width - left - 130)
        return x, height - bottom - (similar - floor) / (top - floor) * (height - bottom - 20)

    marks = []
    for power in range(low, high + 1):
        x, _ = at(10**power, floor)
        third = min(power // 3, 2)
        label = f"{10 ** (power - 3 * third):,} {('B', 'kB', 'MB')[third]}"
        marks.append(f'<line x1="{x:.1f}" y1="20" x2="{x:.1f}" y2="{height - bottom}" stroke="#ddd"/>')
        marks.append(f'<text x="{x:.1f}" y="{height - bottom + 18}" text-anchor="middle">{label}</text>')
    for step in range(round((top - floor) / 0.05) + 1):
        value = floor + 0.05 * step
        _, y = at(10**low, value)
        marks.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.2f}</text>')
    line = " ".join("{:.1f},{:.1f}".format(*at(size, similar)) for _, size, similar in front(given))
    marks.append(f'<polyline points="{line}" fill="none" stroke="#999" stroke-dasharray="4 3"/>')
    dots = [at(size, similar) for _, size, similar in given]
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in dots]
    for (name, _, _), (x, y) in zip(given, dots, strict=True):
        colour = "#c33" if is_ours(name) else "#36c"
        label = title(name).replace("*", "").replace(" of K, V,", "").replace(" of K, V", "").split(" (")[0]
        left_edge, line_y = _free(x, y, 5.6 * len(label), taken)
        whole = escape(title(name).replace("*", ""))
        marks.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"><title>{whole}</title></circle>')
        marks.append(f'<text x="{left_edge:.1f}" y="{line_y:.1f}" fill="{colour}">{escape(label)}</text>')
    axis = (
        f'<text x="{(width - 70) / 2:.0f}" y="{height - 12}" text-anchor="middle">size of the file</text>'
        f'<text x="14" y="{height / 2:.0f}" text-anchor="middle" transform="rotate(-90 14 {height / 2:.0f})">'
        "similarity to the subject</text>"
    )
    style = "<style>text{font:11px sans-serif}</style><rect width='100%' height='100%' fill='white'/>"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">'
    return "\n".join([head, style, *marks, axis, "</svg>", ""])


def _free(x: float, y: float, width: float, taken: list[Rectangle]) -> tuple[float, float]:
    """Where the label of a dot starts: right of it, left, above or below, the first that covers nothing; it is then taken."""
    starts = [(x + 7, y + 4), (x - 7 - width, y + 4), (x - width / 2, y - 8), (x - width / 2, y + 15)]
    starts += [(x + 7, y + 13), (x + 7, y - 5), (x - 7 - width, y + 13), (x - 7 - width, y - 5)]
    places = [(a, b - 9, a + width, b + 2) for a, b in starts]
    others = [each for each in taken if each != (x - 5, y - 5, x + 5, y + 5)]

    def covered(one: Rectangle) -> int:
        return sum(one[0] < o[2] and o[0] < one[2] and one[1] < o[3] and o[1] < one[3] for o in others)

    best = min(range(len(places)), key=lambda index: covered(places[index]))
    taken.append(places[best])
    return starts[best]


def is_ours(name: str) -> bool:
    """Whether a way is this library's own."""
    return title(name).startswith("**")


def _asked(found: Mapping[str, Row], prefix: str) -> str:
    """What was asked for, reached or not."""
    lines = [["claim", "value", "95 %", "asked", "reached", ""]]
    for claim, row in found.items():
        if claim.startswith(prefix) and row.target is not None and not claim.startswith("race.exact_revert"):
            interval = "-" if row.low is None else f"{row.low:.3g} to {row.high:.3g}"
            lines.append([f"`{claim}`", _cell(row, "{:.3g}"), interval, row.target, row.verdict, row.note])
    return _markdown(lines) + "\n"


def _chosen(found: Mapping[str, Row]) -> str:
    lines = [["method", "rate", "settings tried", ""]]
    for claim, row in found.items():
        if claim.startswith("race.chosen_rate."):
            lines.append([claim.rsplit(".", 1)[1].replace("_", " "), _cell(row, "{:g}"), str(row.n), row.note])
    return "## What the rule chose\n\n" + _markdown(lines)


def _cell(row: Row | None, form: str) -> str:
    return "-" if row is None or row.value is None else form.format(row.value)


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    cells = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in cells)


if __name__ == "__main__":
    write()
