"""What ``photopic demo`` does, without the page: a held-out subject in an unseen style, from five pictures to numbers.

    references -> locate -> tune -> draw (same prompts, same seeds, four treatments) -> attention -> oracle

Every finished part lies in the output folder, so an interrupted demo goes on from there and ends the same.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from photopic.core.edits import Edit, TokenEmbedding, ZeroedWeights
from photopic.core.events import Event, Steps
from photopic.core.runs import Run, write_atomically
from photopic.data.picture_file import read_picture
from photopic.data.pictures import contact_sheet, png_bytes
from photopic.data.scenes import with_article
from photopic.demo.teach import DemoConfig, Pictures, Taught, teach
from photopic.models.text_to_image.attention_weights import random_positions

if TYPE_CHECKING:
    from photopic.core.sampling import Control
    from photopic.models.text_to_image.handle import TextToImage

TREATMENTS = ("before", "random", "shut", "tuned")
SCENES = (  # what the subject is asked for; none of the references' backgrounds
    "a {} on a red background",
    "a {} on a striped teal background",
    "a {} on an orange to purple gradient background",
)
PAIR = "a {} left of an avocado on a purple background"
UNRELATED = (  # the first three that do not name the subject's class are drawn
    "a guitar on a teal background",
    "an avocado on a pink background",
    "a cat above a rose on a blue background",
    "a snowman on a green background",
    "a tractor on a yellow background",
)


@dataclass(frozen=True)
class DemoResult:
    """Everything the page shows.

    Attributes:
        config: What was asked for.
        model: Name of the model.
        edits: The edits by treatment: ``random``, ``shut`` and ``tuned``.
        taught: What came of teaching the subject.
        pictures: (treatment, prompt) -> pictures of the same seeds.
        attention: (treatment, word) -> share of attention the word gets in each latent cell, with the picture drawn.
        numbers: What the oracle says, as in ``numbers.json``.
    """

    config: DemoConfig
    model: str
    edits: dict[str, Edit]
    taught: Taught
    pictures: dict[tuple[str, str], Pictures]
    attention: dict[tuple[str, str], Float[np.ndarray, "h w"]]
    numbers: dict[str, Any]

    @property
    def subject_prompts(self) -> tuple[str, ...]:
        """The single-object prompts with the new token."""
        return tuple(scene.format(f"{self.config.token} {self.config.noun}") for scene in SCENES)

    @property
    def class_prompts(self) -> tuple[str, ...]:
        """The same prompts with the class noun alone."""
        return tuple(scene.replace("a {}", with_article(self.config.noun), 1) for scene in SCENES)

    @property
    def unrelated_prompts(self) -> tuple[str, ...]:
        """Prompts that have nothing to do with the subject."""
        return tuple(prompt for prompt in UNRELATED if self.config.noun not in prompt.split())[:3]

    @property
    def pair_prompt(self) -> str:
        """The subject beside something else."""
        return PAIR.format(f"{self.config.token} {self.config.noun}")


def work(model: TextToImage, folder: Path, config: DemoConfig) -> Steps[DemoResult]:
    """Do the demo's work.

    Args:
        model: The model to customise; it ends as it began.
        folder: Where every part is kept; finished parts of the same demo are taken from there.
        config: What to show.

    Raises:
        RunMismatchError: If the folder holds another demo.
    """
    Run(folder, asdict(config) | {"model": model.name, "model_digest": model.digest()})
    taught = yield from teach(model, folder, config)
    edits = dict(taught.edits)
    # the negative control: as many weights of the same layers, drawn by chance
    edits["random"] = random_control(model, edits["shut"], config.seed)
    result = DemoResult(
        config=config,
        model=model.name,
        edits=edits,
        taught=taught,
        pictures={},
        attention={},
        numbers={},
    )
    yield from _draw_all(model, folder / "pictures", result)
    yield Event("attention")
    result.attention.update(attention(model, result))
    yield Event("oracle")
    result.numbers.update(measure(result))
    write_atomically(folder / "numbers.json", json.dumps(result.numbers, indent=1, sort_keys=True).encode())
    return result


def random_control(model: TextToImage, edit: Edit, seed: int) -> Edit:
    """The same number of weights in the same layers, chosen at random, with the same token."""
    positions = {name: each for name, each in edit.touched().items() if each is not None}
    random = random_positions(positions, model.parameters(*positions), seed + 1)
    parts = (ZeroedWeights(random), *edit.of(TokenEmbedding))
    return replace(edit, parts=parts, provenance={"method": "random control", "seed": seed + 1})


def treated(model: TextToImage, edits: dict[str, Edit], treatment: str) -> AbstractContextManager[Any]:
    """The model under a treatment; ``before`` knows the new word and has every weight."""
    if treatment == "before":
        rows = edits["shut"].of(TokenEmbedding)
        return model.edits.applied(replace(edits["shut"], parts=rows))
    return model.edits.applied(edits[treatment])


def _draw_all(model: TextToImage, folder: Path, result: DemoResult) -> Steps[None]:
    """Draw every (treatment, prompt) row that is not in the folder yet: one PNG strip a row."""
    folder.mkdir(exist_ok=True)
    config = result.config
    # the class and unrelated things must not change, so they are drawn where a change would show
    kept = (*result.class_prompts, *result.unrelated_prompts)
    wanted = {
        (treatment, prompt): folder / f"{treatment}-{plain_name(prompt, config)}.png"
        for treatment in TREATMENTS
        for prompt in (*result.subject_prompts, result.pair_prompt, *(() if treatment == "random" else kept))
    }
    with ExitStack() as stack:
        under = ""  # the treatment in force: it is changed four times and not for every row
        for done, ((treatment, prompt), file) in enumerate(wanted.items()):
            yield Event("drawing", done, len(wanted))
            if not file.exists():
                if treatment != under:
                    stack.close()
                    stack.enter_context(treated(model, result.edits, treatment))
                    under = treatment
                draw(model, file, prompt, config, treatment)
            result.pictures[treatment, prompt] = read_strip(file)


def plain_name(prompt: str, config: DemoConfig) -> str:
    """A prompt as part of a file's name."""
    return "".join(letter if letter.isalnum() else "-" for letter in prompt.replace(config.token, "mine"))


def draw(
    model: TextToImage, file: Path, prompt: str, config: DemoConfig, treatment: str, controls: Sequence[Control] = ()
) -> None:
    """Draw one row of pictures as a strip, from the same seeds as every other row."""
    seed = config.seed + 1000  # away from the seeds of the search, which drew pictures of the class
    drawn = model.generate(
        [prompt] * config.pictures,
        seeds=[seed + index for index in range(config.pictures)],
        steps=config.sampling_steps,
        guidance=config.guidance,
        controls=controls,
    )
    settings = {"treatment": treatment, "prompt": prompt, "seed": seed}
    write_atomically(file, png_bytes(contact_sheet(list(drawn), columns=len(drawn), gap=0), settings))


def read_strip(file: Path) -> Pictures:
    """The pictures of a row."""
    pixels = np.array(read_picture(file))  # (side, n x side, 3)
    side = pixels.shape[0]
    return pixels.reshape(side, -1, side, 3).swapaxes(0, 1)  # (n, side, side, 3)


def attention(model: TextToImage, result: DemoResult) -> dict[tuple[str, str], Float[np.ndarray, "h w"]]:
    """Where each word of the first subject prompt looks, before and after shutting, on the first picture."""
    from photopic.core.nn.attention import capture_attention

    config, prompt = result.config, result.subject_prompts[0]
    words = (config.token, config.noun, "red background")
    found = {}
    for treatment in ("before", "shut"):
        with treated(model, result.edits, treatment):
            positions = [model.token_positions(prompt, word) for word in words]
            with capture_attention(model.unet, tokens=positions) as maps:
                model.generate(
                    [prompt], seeds=[config.seed + 1000], steps=config.sampling_steps, guidance=config.guidance
                )
        for word, values in zip(words, maps.mean(), strict=True):  # (words, h, w) over all steps and layers
            found[treatment, word] = values.numpy()
    return found


def measure(result: DemoResult) -> dict[str, Any]:
    """The oracle's numbers: similarity to the subject, recognition, backgrounds, and what must not change."""
    from photopic.metrics.oracle import Oracle

    oracle, config = Oracle.load(), result.config

    @cache  # each picture is judged once
    def scores(treatment: str, prompts: tuple[str, ...]) -> Any:
        return oracle.score(np.concatenate([result.pictures[treatment, prompt] for prompt in prompts]))

    references = oracle.score(result.taught.references)
    also = {config.subject: references}  # held out, so the oracle knows it by these pictures only
    # one value a picture, and the same seeds in every treatment: differences are paired
    similarity = {
        name: oracle.subject_similarity(scores(name, result.subject_prompts), references) for name in TREATMENTS
    }
    numbers: dict[str, Any] = {"similarity": {name: _interval(values) for name, values in similarity.items()}}
    numbers["similarity_gain"] = {
        f"{name}_over_{other}": _paired(similarity[name], similarity[other])
        for name, other in (("shut", "before"), ("shut", "random"), ("tuned", "shut"))
    }
    numbers["recognised"] = {
        name: float(
            np.mean(
                [found == config.subject for found in oracle.concept(scores(name, result.subject_prompts), also=also)]
            )
        )
        for name in TREATMENTS
    }
    stated = [prompt for prompt in result.subject_prompts for _ in range(config.pictures)]
    numbers["text_alignment"] = {
        name: _interval(oracle.text_alignment(scores(name, result.subject_prompts), stated)) for name in TREATMENTS
    }
    for group, prompts in (("class", result.class_prompts), ("unrelated", result.unrelated_prompts)):
        stated = [prompt for prompt in prompts for _ in range(config.pictures)]
        aligned = {name: oracle.text_alignment(scores(name, prompts), stated) for name in ("before", "shut", "tuned")}
        numbers[group] = {name: _interval(values) for name, values in aligned.items()}
        numbers[f"{group}_change"] = {name: _paired(aligned[name], aligned["before"]) for name in ("shut", "tuned")}
    return numbers


def _interval(values: Float[np.ndarray, "n"]) -> dict[str, float]:
    from photopic.metrics.intervals import bootstrap

    return bootstrap(values)._asdict() | {"n": len(values)}


def _paired(values: Float[np.ndarray, "n"], baseline: Float[np.ndarray, "n"]) -> dict[str, float]:
    from photopic.metrics.intervals import paired_bootstrap

    return paired_bootstrap(values, baseline)._asdict() | {"n": len(values)}
