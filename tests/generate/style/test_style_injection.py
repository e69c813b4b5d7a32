"""Style injection: off is off to the bit, a picture in its own style is its reconstruction, and what is read is the style's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from photopic.core.errors import DataError, ModelError
from photopic.core.nn.attention import Place
from photopic.core.sampling import Control, Sampling, Step, invert, sample
from photopic.data.pictures import read_settings
from photopic.generate.style.style_injection import StyleInjection, StyleInjectionConfig, _Reader, adain
from photopic.models.text_to_image.handle import TextToImage
from tests.cli.conftest import refusal, run
from tests.core.sampling.test_controls import counted

STEPS = 4


class Watching(Control):
    """Writes down what self-attention computes with."""

    kinds = ("self",)

    def __init__(self) -> None:
        self.seen: dict[tuple[int, str], tuple[Tensor, Tensor, Tensor]] = {}

    def qkv(self, query: Tensor, key: Tensor, value: Tensor, place: Place, step: Step) -> tuple[Tensor, Tensor, Tensor]:
        self.seen[step.index, place.name] = (query, key, value)
        return query, key, value


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[str, str]:
    rng = np.random.default_rng(0)
    for name in ("style", "content"):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / f"{name}.png")
    return str(tmp_path / "style.png"), str(tmp_path / "content.png")


def injecting(style: str, content: str | None = None, **options: object) -> StyleInjection:
    return StyleInjection(style, content, config=StyleInjectionConfig(**{"adain": False} | options))  # type: ignore[arg-type]


def draw(model: TextToImage, *controls: Control, prompt: str = "a bear", **options: object) -> np.ndarray:
    return model.generate(prompt, seeds=[0, 1], steps=STEPS, controls=controls, **options)


def test_nothing_injected_is_the_plain_picture_bit_for_bit(model: TextToImage, pictures: tuple[str, str]) -> None:
    plain = draw(model)
    for options in ({"until": 0.0}, {"layers": "down_blocks.*", "until": 0.0, "gamma": 0.0}):
        assert np.array_equal(draw(model, injecting(pictures[0], **options)), plain)
    assert (draw(model, injecting(pictures[0])) != plain).any()


def test_a_picture_in_its_own_style_is_itself_bit_for_bit(model: TextToImage, pictures: tuple[str, str]) -> None:
    class Own(StyleInjection):
        """Injects what a plain run of the same noise computes."""

        def start_noise(self, noise: Tensor, sampling: Sampling) -> Tensor:
            reader = _Reader(self.config.layers)
            sample(replace(sampling, controls=(reader,)), noise)
            self.style = {place: found[1:] for place, found in reader.read.items()}
            self.content = {place: found[0] for place, found in reader.read.items()}
            return noise

    def drawn(**options: float) -> np.ndarray:
        return draw(model, Own(pictures[0], config=StyleInjectionConfig(**options)), guidance=1.0)

    assert np.array_equal(drawn(temperature=1.0), draw(model, guidance=1.0))
    assert (drawn(temperature=1.5) != draw(model, guidance=1.0)).any()


def test_a_content_picture_is_drawn_again_the_same_whatever_the_seed(
    model: TextToImage, pictures: tuple[str, str]
) -> None:
    again = draw(model, injecting(*pictures, until=0.0, refinements=3), guidance=1.0, prompt="")
    assert np.array_equal(again[0], again[1])
    other = draw(model, injecting(pictures[0], pictures[0], until=0.0, refinements=3), guidance=1.0, prompt="")
    plain = draw(model, guidance=1.0, prompt="")
    assert (again != other).any() and (plain[0] != plain[1]).any()


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_late_layers_read_keys_and_values_of_the_style_and_mixed_queries(
    model: TextToImage, pictures: tuple[str, str], guidance: float
) -> None:
    before, after = Watching(), Watching()
    control = injecting(*pictures, gamma=0.25, until=0.5)
    draw(model, before, control, after, guidance=guidance)
    changed = 0
    for (index, name), (query, key, value) in after.seen.items():
        mine = before.seen[index, name]
        at = next(at for at in control.style if at[1] == name) if name.startswith("up_blocks") else None
        if at is None or index >= STEPS / 2:
            assert all(torch.equal(*pair) for pair in zip((query, key, value), mine, strict=True))
            continue
        times = sorted({time for time, _ in control.style}, reverse=True)
        style, content = control.style[times[index], name], control.content[times[index], name]
        assert torch.equal(key, style[0].expand_as(key)) and torch.equal(value, style[1].expand_as(value))
        assert torch.allclose(query, 1.5 * (0.25 * content + 0.75 * mine[0]))
        changed += 1
    assert changed > 0


def test_latents_take_the_styles_statistics_channel_by_channel() -> None:
    torch.manual_seed(0)
    content, style = torch.randn(2, 3, 4, 4), 5 + 2 * torch.randn(1, 3, 4, 4)
    found = adain(content, style)
    assert torch.allclose(found.mean((2, 3)), style.mean((2, 3)).expand(2, 3), atol=1e-5)
    assert torch.allclose(found.std((2, 3)), style.std((2, 3)).expand(2, 3), atol=1e-5)
    assert torch.allclose(adain(content, content[:1])[0], content[0], atol=1e-5)


def test_the_way_back_is_walked_once_a_batch_and_another_sampler_or_size_is_refused(
    model: TextToImage, pictures: tuple[str, str]
) -> None:
    with counted(model) as rows:
        draw(model, injecting(*pictures, refinements=1), guidance=1.0)
    assert rows == [2] * 2 * STEPS + [2] * STEPS  # both pictures back, twice a step, then the batch of two
    with pytest.raises(ModelError, match="expected DDIMScheduler"):
        draw(model, injecting(*pictures), scheduler="ddpm")
    with pytest.raises(ModelError, match="style injection: expected latents"):
        draw(model, injecting(*pictures), width=2 * model.image_size)
    with pytest.raises(ModelError, match="matches no self-attention layer"):
        draw(model, injecting(*pictures, layers="nowhere"))
    (Path(pictures[0])).write_text("no picture")
    with pytest.raises(DataError, match=r"style\.png"):
        injecting(*pictures)


def test_a_command_draws_one_picture_again_in_the_style_of_another(
    model: TextToImage, pictures: tuple[str, str], tmp_path: Path
) -> None:
    folder, (style, content) = tmp_path / "model", pictures
    model.pipeline.save_pretrained(folder)
    out = tmp_path / "out"
    run("generate", "--image", content, "--style-of", style, "--steps", 2, "--model", folder, "-o", out)
    assert [each.name for each in sorted(out.glob("0*.png"))] == ["0001.png"]
    settings = read_settings(out / "0001.png")
    assert settings["style_of"]["file"] == "style.png" and settings["guidance"] == 1.0
    drawn = np.asarray(Image.open(out / "0001.png"))
    control = StyleInjection(style, content)
    expected = model.generate("", seeds=[0], steps=2, guidance=1.0, scheduler="ddim", controls=[control])[0]
    assert np.array_equal(drawn, expected)
    run("generate", "a bear", "--style-of", style, "--steps", 2, "-n", 2, "--model", folder, "-o", out)
    said = refusal("generate", "--image", content, "--style-of", style, "--strength", 0.5, "-o", out)
    assert "--style-of: draws the whole of --image again" in said
    assert "prompt: expected words" in refusal("generate", "--style-of", style, "-o", out)


def test_other_controls_draw_the_prompts_own_picture_and_then_begin_anew(
    model: TextToImage, pictures: tuple[str, str]
) -> None:
    class Counts(Control):
        """Remembers the steps of its last run, and of all."""

        every = 0

        def start(self, sampling: Sampling) -> None:
            self.last = 0

        def latents(self, latents: Tensor, step: Step) -> Tensor:
            self.last, self.every = self.last + 1, self.every + 1
            return latents

    other = Counts()
    draw(model, other, injecting(pictures[0]))
    assert (other.last, other.every) == (STEPS, 2 * STEPS)


def test_from_a_prompt_alone_its_guided_picture_is_the_content_and_what_is_injected_is_not_guided(
    model: TextToImage, pictures: tuple[str, str]
) -> None:
    control = injecting(pictures[0])
    with counted(model) as rows:
        draw(model, control, guidance=5.0)
    # the prompt's two pictures with guidance, they and the style back, twice a step, and the two again without guidance
    assert rows == [4] * STEPS + [3] * 2 * STEPS + [2] * STEPS

    class Finished(Control):
        def end(self, latents: Tensor) -> Tensor:
            self.latents_ = latents
            return latents

    class Back(Finished):
        def start_noise(self, noise: Tensor, sampling: Sampling) -> Tensor:
            self.noise, self.sampling = noise, sampling
            return noise

    plain, begun = Finished(), Back()
    draw(model, plain, guidance=5.0)
    draw(model, control, begun, guidance=5.0)
    told = replace(begun.sampling, unconditional=None, controls=())
    assert torch.allclose(begun.noise, invert(told, plain.latents_, refinements=1), atol=1e-5)


def test_a_picture_to_start_from_is_refused(model: TextToImage, pictures: tuple[str, str]) -> None:
    with pytest.raises(ModelError, match="style injection: expected no picture to start from"):
        draw(model, injecting(pictures[0]), image=pictures[1])
