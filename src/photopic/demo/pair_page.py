"""The section of the demo's page that shows two subjects in one scene, from two files."""

from __future__ import annotations

from typing import Any

from photopic.core.view import Code, Figure, Gallery, Note, PictureRows, Section, Table, Text
from photopic.data.scenes import with_article
from photopic.demo.pair import OURS, PEERS, PairResult

NAMES = {
    "words": "new words, every weight as it was",
    "edits": "both files",
    "layout": "both files, and the layout",
    "regions": "each file in its box only, and the layout",
    "lora_linear": "both LoRAs, factors added",
    "lora_cat": "both LoRAs, changes added",
    "lora_layout": "the same, and the layout",
}
MANY = 6  # pictures a row shows


def section(pair: PairResult) -> Section:
    """Two subjects in one scene: what was given, the pictures, and what the judge says of them."""
    first, second = pair.configs
    blocks: list[Any] = [
        Text(
            f"A second thing, {with_article(second.subject)}, was taught the same way and on its own: five pictures, the new "
            f"word {second.token}, a file of its own. The two files meet only here; nothing was trained on both."
        ),
        Gallery(
            [
                Figure(image, alt=f"picture {number} of the {second.subject}", width=132)
                for number, image in enumerate(pair.references, 1)
            ]
        ),
        Text(_shared(pair)),
        Code(pair.prompt),
        Gallery([Figure(pair.preview(), alt="the boxes of the layout over a picture", width=320)], _layout(pair)),
        _rows(pair, ("words", *OURS)),
    ]
    if pair.has_peers:
        steps = first.tune_steps
        blocks += [
            Text(
                "And the usual way: a LoRA for each, a small trained addition to every attention layer. It saw the same "
                f"pictures for {steps} training steps, as many as the tuning of each file, which came after a search of "
                f"{first.steps} steps. peft, the library that made the two, merged them: by adding the thin factors that each is "
                "stored as, or the changes that these stand for."
            ),
            _rows(pair, PEERS),
        ]
    else:
        blocks.append(
            Note(
                "LoRAs of the same two things would stand here for comparison; they need peft: "
                "pip install 'photopic[peft]', then run the same command again.",
                "Left out",
            )
        )
    blocks += [Text(_verdict(pair)), _counts(pair), Text(_sizes(pair)), Code(_command(pair))]
    return Section("Two of them in one scene", blocks)


def _shared(pair: PairResult) -> str:
    shared, expected, opposite = (pair.shared[key] for key in ("shared", "expected", "opposite"))
    if not shared:
        return "The two files touch none of the same weights."
    found = (
        f"The files touch {shared:,} weights in common, {shared / expected:.1f} times as many as two random choices of their "
        "sizes would."
    )
    if opposite is not None and opposite >= 0.01:
        found += f" {opposite:.0%} of these they push in opposite directions; such a weight goes where the stronger push goes."
    return found


def _layout(pair: PairResult) -> str:
    first, second = (f"{each.token} {each.noun}" for each in pair.configs)
    return (
        f"The layout, a picture drawn with it behind. While a picture is drawn, “{first}” is read in the left box only and "
        f"“{second}” in the right one. No weight changes for it."
    )


def _rows(pair: PairResult, kinds: tuple[str, ...]) -> PictureRows:
    return PictureRows([(NAMES[kind], list(pair.pictures[kind][:MANY])) for kind in kinds])


def _verdict(pair: PairResult) -> str:
    kinds = pair.numbers["kinds"]
    n = kinds["words"]["n"]
    ours = _best(kinds, OURS)
    found = f"At best ({NAMES[ours]}) the judge finds both in {kinds[ours]['both']} of {n} pictures"
    if not any(kinds[kind]["both"] for kind in kinds):
        found = f"The judge finds both together in none of the {n} pictures, in whatever way they are drawn"
    elif pair.has_peers:
        peer = _best(kinds, PEERS)
        ahead = kinds[ours]["both"] - kinds[peer]["both"]
        who = "The files are ahead here" if ahead > 0 else "The LoRAs are ahead here" if ahead < 0 else "It is a draw"
        found += f", with the LoRAs at best ({NAMES[peer]}) in {kinds[peer]['both']}. {who}"
    return f"{found}. {n} pictures of one pair show how it looks; they are too few to settle a race."


def _best(kinds: dict[str, Any], among: tuple[str, ...]) -> str:
    """The kind with both there most often; of equals the one more like them."""
    return max(among, key=lambda kind: (kinds[kind]["both"], kinds[kind]["likeness"]))


def _counts(pair: PairResult) -> Table:
    rows = []
    for kind, found in pair.numbers["kinds"].items():
        counts = [f"{count} of {found['n']}" for count in (found["both"], *found["each"])]
        who = "LoRAs: " if kind in PEERS else ""
        rows.append((f"{who}{NAMES[kind]}", *counts, f"{found['likeness']:.2f}"))
    first, second = pair.configs
    real, nouns = pair.numbers["real"], pair.numbers["nouns"]
    caption = (
        "In how many pictures the judge takes what stands in each half for that subject, rather than for its class noun or the "
        f"other subject. Of real scenes of the two it does so in {real:.0%}, of real scenes of a {first.noun} beside "
        f"a {second.noun} in {nouns:.0%}. "
        "Likeness: of the less like of the two, 1 is the same."
    )
    return Table(("", "both there", first.subject, second.subject, "likeness"), rows, caption)


def _sizes(pair: PairResult) -> str:
    ours, peers = sum(pair.sizes[:2]), sum(pair.sizes[2:])
    found = f"The two files are {ours / 1000:.1f} kB together, new words included"
    return f"{found}; the two LoRAs are {peers / 1000:.1f} kB, without them." if peers else f"{found}."


def _command(pair: PairResult) -> str:
    first, second = (each.subject for each in pair.configs)
    return (
        f'photopic generate "{pair.prompt}" \\\n'
        f'    --with "{first}-tuned.edit" --with "pair/{second}-tuned.edit" \\\n'
        "    --layout pair/layout.json --in-region -n 8 -o out/    # in the folder of this page"
    )
