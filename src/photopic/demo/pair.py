"""The demo's last part: a second subject, taught on its own, and both in one scene; beside the same subjects' LoRAs.

    teach the second -> compare the two files -> a LoRA each -> draw (one prompt, same seeds, one row a kind) -> oracle

Every finished part lies in the folder, as in ``demo_work``; a LoRA that was interrupted starts again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from photopic.core.edits import Edit, TokenEmbedding, compose
from photopic.core.edits.interference import interference
from photopic.core.events import Event, Steps
from photopic.core.runs import Run, write_atomically
from photopic.data.layout import Box, Layout, Region
from photopic.data.splits import SUBJECTS
from photopic.demo import lora as demo_lora
from photopic.demo.pair_numbers import judge
from photopic.demo.teach import DemoConfig, Pictures, Taught, teach
from photopic.demo.work import DemoResult, draw, read_strip
from photopic.generate.guidance.layout_guidance import LayoutGuidance, subject_positions
from photopic.generate.guidance.regional_edits import by_region, regional_edits

if TYPE_CHECKING:
    from photopic.core.sampling import Control
    from photopic.models.text_to_image.handle import TextToImage

SECONDS = ("violin", "panda")  # the first whose class noun is another one stands beside the subject
TOKEN = "<other>"
SCENE = "a {} left of a {} on a green background"
BOXES: tuple[Box, Box] = ((0.03, 0.2, 0.47, 0.8), (0.53, 0.2, 0.97, 0.8))
OURS = ("edits", "layout", "regions")
PEERS = ("lora_linear", "lora_cat", "lora_layout")


@dataclass(frozen=True)
class PairResult:
    """What the last part of the page shows.

    Attributes:
        configs: Of both subjects.
        prompt: Names both.
        layout: Where each shall be.
        references: The pictures of the second subject.
        sizes: Bytes of the tuned files, then of the LoRAs if there are any.
        pictures: kind -> pictures of the same seeds; kinds are ``words``, ``OURS`` and ``PEERS`` without the absent.
        shared: The interference report of the two files.
        numbers: What the oracle says, as in ``pair/numbers.json``.
    """

    configs: tuple[DemoConfig, DemoConfig]
    prompt: str
    layout: Layout
    references: Pictures
    sizes: tuple[int, ...]
    pictures: dict[str, Pictures]
    shared: dict[str, Any]
    numbers: dict[str, Any]

    @property
    def has_peers(self) -> bool:
        """Whether peft was there to train them."""
        return PEERS[0] in self.pictures

    def preview(self) -> UInt8[np.ndarray, "h w 3"]:
        """The layout, drawn over the first picture made with it."""
        return self.layout.preview(self.pictures["regions"][0], scale=5)


def second_of(config: DemoConfig) -> DemoConfig:
    """The subject that is put beside another: of another class, with its own word."""
    name = next(each for each in SECONDS if SUBJECTS[each] != config.noun)
    return replace(config, subject=name, noun=SUBJECTS[name], token=TOKEN)


def layout_of(configs: tuple[DemoConfig, DemoConfig]) -> Layout:
    """The first on the left, the second on the right."""
    return Layout(tuple(Region(_words(each), box) for each, box in zip(configs, BOXES, strict=True)))


def work_pair(model: TextToImage, folder: Path, first: DemoResult) -> Steps[PairResult]:
    """Teach a second subject and draw it beside the first.

    Args:
        model: The model of the first part; it ends as it began.
        folder: The demo's; this part is kept in its ``pair/``.
        first: What the first part came to.

    Raises:
        RunMismatchError: If the folder holds another pair.
    """
    home, second = folder / "pair", second_of(first.config)
    Run(home, asdict(second) | {"first": first.config.subject, "model_digest": model.digest()})
    taught = yield from _told(teach(model, home, second), second.subject)
    configs, tuned = (first.config, second), (first.edits["tuned"], taught.edits["tuned"])
    layout = layout_of(configs)
    regions = [{"words": region.words, "box": region.box} for region in layout.regions]
    write_atomically(home / "layout.json", json.dumps({"regions": regions}, indent=1).encode())
    result = PairResult(
        configs=configs,
        prompt=SCENE.format(*map(_words, configs)),
        layout=layout,
        references=taught.references,
        sizes=(first.taught.sizes["tuned"], taught.sizes["tuned"]),
        pictures={},
        shared=dict(interference(*tuned, base=model.components, spans=False).values),
        numbers={},
    )
    loras: list[Path] = []  # of the same two things, as the field trains them; none where peft is not installed
    if demo_lora.is_available():
        for config, each in zip(configs, (first.taught, taught), strict=True):
            loras.append(home / f"{config.subject}-lora")
            if not loras[-1].exists():  # finished parts of an earlier call are taken from the folder
                yield from demo_lora.train(model, each, loras[-1])
        result = replace(result, sizes=(*result.sizes, *map(demo_lora.size_bytes, loras)))
    yield from _draw_all(model, home / "pictures", result, tuned, loras)
    yield Event("oracle (both)")
    result.numbers.update(judge(result.pictures, configs, (first.taught.references, taught.references), BOXES))
    write_atomically(home / "numbers.json", json.dumps(result.numbers, indent=1, sort_keys=True).encode())
    return result


def _words(config: DemoConfig) -> str:
    return f"{config.token} {config.noun}"


def _told(steps: Steps[Taught], name: str) -> Steps[Taught]:
    """The same steps, with the subject in the names of their stages."""
    while True:
        try:
            event = next(steps)
        except StopIteration as stop:
            return stop.value
        yield replace(event, stage=f"{event.stage} ({name})")


def _draw_all(
    model: TextToImage, folder: Path, result: PairResult, tuned: tuple[Edit, Edit], loras: list[Path]
) -> Steps[None]:
    folder.mkdir(exist_ok=True)
    kinds = ("words", *OURS, *(PEERS if loras else ()))
    for done, kind in enumerate(kinds):
        yield Event("drawing both", done, len(kinds))
        file = folder / f"{kind}.png"
        if not file.exists():  # a strip is written whole, so one that is there is finished
            with in_force(model, kind, result.layout, tuned, loras):
                controls: tuple[Control, ...] = ()
                if kind in ("layout", "regions", "lora_layout"):
                    positions = subject_positions(model, result.prompt, result.layout)
                    controls = (LayoutGuidance(result.layout, positions),)
                draw(model, file, result.prompt, result.configs[0], kind, controls)
        result.pictures[kind] = read_strip(file)


@contextmanager
def in_force(
    model: TextToImage, kind: str, layout: Layout, tuned: tuple[Edit, Edit], loras: list[Path]
) -> Iterator[None]:
    """The model that draws a row: it knows both words, and by its kind both subjects."""
    with ExitStack() as stack:
        if kind == "regions":
            stack.enter_context(regional_edits(model, layout, by_region(layout, tuned)))
        elif kind in OURS:  # both files start from weights that are shut, so their changes are not added
            stack.enter_context(model.edits.applied(compose(*tuned, overlap="ties", base=model.components)))
        else:
            rows = [edit.of(TokenEmbedding) for edit in tuned]
            # LoRAs carry no words: both new words come from our edits, so that all rows read the same prompt
            words = compose(*(replace(edit, parts=part) for edit, part in zip(tuned, rows, strict=True)))
            stack.enter_context(model.edits.applied(words))
            if kind in PEERS:
                merge: demo_lora.Merge = "linear" if kind == "lora_linear" else "cat"
                stack.enter_context(demo_lora.merged(model, loras, merge))
        yield
