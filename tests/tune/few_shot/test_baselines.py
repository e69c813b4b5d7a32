"""Few-shot baselines: each learns, none writes the base, and each is exactly what its paper says at its limits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from photopic.core.edits import LowRankDelta, SparseWeights
from photopic.core.errors import DataError, ModelError
from photopic.data.few_shot import FewShotTask, LabelledImages
from photopic.learning.classifiers import TextClassifier, Transferable, Tuned
from photopic.learning.few_shot_batches import batch_at
from photopic.learning.tuned_classifier import TunedClassifier, classifier_of
from photopic.models.dual_encoder import TEMPLATES, DualEncoder
from photopic.tune.few_shot._common import best_setting, cosines, held_back, image_parameters
from photopic.tune.few_shot.bias_only import BiasOnlyConfig, bias_only
from photopic.tune.few_shot.coop import Prompt, PromptConfig, PromptedClassifier, coop
from photopic.tune.few_shot.full import FullConfig, full_fine_tuning
from photopic.tune.few_shot.linear_probe import LinearProbeConfig, linear_probe
from photopic.tune.few_shot.lora import LoraConfig, exported, lora, with_adapters
from photopic.tune.few_shot.tip_adapter import CacheClassifier, CacheConfig, said, tip_adapter
from photopic.tune.few_shot.zero_shot import zero_shot
from tests.tiny_encoders import SIDE, tiny_dual_encoder

COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}


def colours(each: int, seed: int = 0) -> LabelledImages:
    """Noisy pictures of one colour each."""
    rng = np.random.default_rng(seed)
    images = np.concatenate([rng.normal(colour, 30, (each, SIDE, SIDE, 3)) for colour in COLOURS.values()])
    return LabelledImages(images.clip(0, 255).astype(np.uint8), np.repeat(range(3), each), tuple(COLOURS))


def budget(lr: float, steps: int = 12) -> Any:
    return {"lr": lr, "steps": steps, "batch": 12, "augment": False}


Learn = Callable[[DualEncoder, FewShotTask], Any]
LEARNT: dict[str, Learn] = {
    "linear probe": lambda m, d: linear_probe(m, d),
    "linear probe, adam": lambda m, d: linear_probe(m, d, config=LinearProbeConfig(solver="adam", **budget(1.0))),
    "coop": lambda m, d: coop(m, d, config=PromptConfig(**budget(0.03, 40))),
    "tip-adapter": lambda m, d: tip_adapter(m, d),
    "tip-adapter-f": lambda m, d: tip_adapter(m, d, config=CacheConfig(trained=True, **budget(0.01))),
    "lora": lambda m, d: lora(m, d, config=LoraConfig(**budget(0.03))),
    "bitfit": lambda m, d: bias_only(m, d, config=BiasOnlyConfig(**budget(0.03))),
    "full": lambda m, d: full_fine_tuning(m, d, config=FullConfig(**budget(0.003))),
}


def learn(name: str, model: DualEncoder, data: LabelledImages) -> Tuned:
    """The classifier that a method makes of some pictures."""
    return classifier_of(model, LEARNT[name](model, FewShotTask(data)), model.class_features(data.names))


def names_alone(model: DualEncoder, data: LabelledImages) -> Tuned:
    return zero_shot(model, FewShotTask(data))


@pytest.fixture(scope="module")
def model() -> DualEncoder:
    return tiny_dual_encoder("vit")


@pytest.fixture(scope="module")
def shots() -> LabelledImages:
    return colours(4)


@pytest.fixture(scope="module")
def tuned(model: DualEncoder, shots: LabelledImages) -> dict[str, Tuned]:
    before = model.digest()
    found = {name: learn(name, model, shots) for name in LEARNT}
    assert model.digest() == before
    return found


def accuracy(tuned: Tuned, data: LabelledImages) -> float:
    return float((tuned.logits(data.images).argmax(1).numpy() == data.labels).mean())


def cross_entropy(tuned: Tuned, data: LabelledImages) -> float:
    return F.cross_entropy(tuned.logits(data.images), torch.from_numpy(data.labels)).item()


@pytest.mark.parametrize("name", LEARNT)
def test_every_baseline_learns_a_separable_task_and_leaves_the_base(
    model: DualEncoder, tuned: dict[str, Tuned], shots: LabelledImages, name: str
) -> None:
    before, test = model.digest(), colours(10, seed=1)
    nothing = names_alone(model, shots)
    assert nothing.trainable == 0 and nothing.size_bytes == 0
    if name == "coop":  # one layer of random text cannot reorder the classes, but fit them
        assert cross_entropy(tuned[name], test) < cross_entropy(nothing, test) - 0.1
    else:
        assert accuracy(tuned[name], test) >= max(0.75, accuracy(nothing, test) + 0.2)
    assert model.digest() == before
    assert tuned[name].size_bytes > 0
    assert (tuned[name].trainable > 0) == (name != "tip-adapter")


def test_baselines_learn_on_a_convolutional_tower() -> None:
    model, data = tiny_dual_encoder("cnn"), colours(2)
    before = model.digest()
    state = {name: each.clone() for name, each in model.network.state_dict().items()}
    for made in (
        lora(model, FewShotTask(data), config=LoraConfig(**budget(0.01, 2))),
        bias_only(model, FewShotTask(data), config=BiasOnlyConfig(**budget(0.01, 2))),
        full_fine_tuning(model, FewShotTask(data), config=FullConfig(**budget(0.001, 2))),
        coop(model, FewShotTask(data), config=PromptConfig(**budget(0.1, 2))),
    ):
        learnt = classifier_of(model, made, model.class_features(data.names))
        assert not torch.equal(learnt.logits(data.images), names_alone(model, data).logits(data.images))
        assert model.digest() == before
    assert all(torch.equal(each, state[name]) for name, each in model.network.state_dict().items())


def test_an_unfinished_baseline_leaves_the_base(model: DualEncoder, shots: LabelledImages) -> None:
    before = model.digest()
    hooks = [len(part._forward_hooks) for part in model.network.modules()]
    for each in (full_fine_tuning, lora, bias_only, coop):
        events = each.events(model, FewShotTask(shots))
        while next(events).done < 1:
            pass
        events.close()
    assert model.digest() == before and not any(each.requires_grad for each in model.network.parameters())
    assert hooks == [len(part._forward_hooks) for part in model.network.modules()]


def test_every_method_sees_the_same_batches(model: DualEncoder, shots: LabelledImages) -> None:
    plan: Any = {"steps": 3, "lr": 0.01, "batch": 5, "seed": 3}
    seen: list[list[torch.Tensor]] = []
    encode = model.encode_pixels
    wanted = [batch_at(model, shots, FullConfig(**plan), step)[1] for step in range(3)]
    for called, config in (
        (full_fine_tuning, FullConfig(**plan)),
        (coop, PromptConfig(**plan)),
        (tip_adapter, CacheConfig(trained=True, **plan)),
    ):
        kept: list[torch.Tensor] = []
        model.encode_pixels = lambda pixels, kept=kept: (kept.append(pixels), encode(pixels))[1]  # type: ignore[method-assign]
        try:
            called(model, FewShotTask(shots), config=config)  # type: ignore[operator]
        finally:
            del model.encode_pixels
        seen.append([each for each in kept if len(each) == 5])
    assert all(len(each) == 3 for each in seen)
    assert all(torch.equal(a, b) for each in seen for a, b in zip(each, wanted, strict=True))


# -- zero-shot and classifiers


def test_zero_shot_is_the_handles(model: DualEncoder, shots: LabelledImages) -> None:
    found = zero_shot(model, FewShotTask(shots), templates=("a {} mug", "the {}"))
    assert torch.equal(found.logits(shots.images), model.zero_shot(shots.images, shots.names, ("a {} mug", "the {}")))


def test_text_classifiers_serve_other_names(model: DualEncoder, tuned: dict[str, Tuned]) -> None:
    images = colours(1).images
    for name in ("lora", "full", "bitfit", "coop"):
        each = tuned[name]
        assert isinstance(each, Transferable)
        again = each.for_names(tuple(reversed(COLOURS)))
        torch.testing.assert_close(again.logits(images).flip(1), each.logits(images))
        assert again.size_bytes == each.size_bytes
    assert not isinstance(tuned["linear probe"], Transferable) and not isinstance(tuned["tip-adapter"], Transferable)


def test_rows_of_another_width_are_refused(model: DualEncoder) -> None:
    with pytest.raises(DataError, match=r"expected rows of 16 numbers, .* found 3"):
        TextClassifier(model, torch.ones(2, 3)).logits(colours(1).images)


# -- Tip-Adapter


def test_tip_adapter_without_weight_is_zero_shot(model: DualEncoder, shots: LabelledImages) -> None:
    rows, keys = model.class_features(shots.names), model.image_features(shots.images)
    cache = CacheClassifier(model, rows, keys, torch.from_numpy(shots.labels), alpha=0.0, beta=5.5)
    assert torch.equal(cache.logits(shots.images), model.zero_shot(shots.images, shots.names))


def test_the_cache_says_the_sum_of_the_affinities() -> None:
    keys = F.normalize(torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    labels, beta = torch.tensor([0, 2, 2, 0, 1]), 3.0
    found = said(keys[:2], keys, labels, 4, beta)
    for n in range(2):
        for k in range(4):
            wanted = sum(torch.exp(-beta * (1 - keys[n] @ keys[s])) for s in range(5) if labels[s] == k)
            assert float(found[n, k]) == pytest.approx(float(wanted), abs=1e-6)
    assert torch.equal(said(keys[:2], keys, labels, 4, 0.0), torch.tensor([[2.0, 1.0, 2.0, 0.0]] * 2))


def test_settings_are_chosen_on_held_back_shots_alone(model: DualEncoder, shots: LabelledImages) -> None:
    parts = held_back(shots, seed=0)
    assert parts is not None and [each.counts for each in parts] == [(3, 3, 3), (1, 1, 1)]
    pictures = {each.tobytes() for each in shots.images}
    assert {each.tobytes() for part in parts for each in part.images} == pictures
    assert held_back(shots.shots(1, 0), seed=0) is None
    alone = tip_adapter(model, FewShotTask(shots.shots(1, 0)), config=CacheConfig(alpha=0.7, beta=2.0))
    assert isinstance(alone, CacheClassifier) and (alone.alpha, alone.beta) == (0.7, 2.0)


def test_the_best_setting_is_the_one_most_often_right_then_the_surest() -> None:
    labels = torch.tensor([0, 1])
    right, sure, wrong = torch.eye(2), 3 * torch.eye(2), 9 * torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    tried = {"right": right, "sure": sure, "wrong": wrong}
    assert best_setting(tried, tried.__getitem__, labels) == "sure"


# -- CoOp


def test_an_untrained_prompt_is_its_template(model: DualEncoder) -> None:
    for each in (model, tiny_dual_encoder("cnn")):
        prompt = Prompt(each, PromptConfig(words="a photo of a"))
        assert torch.equal(prompt.rows(prompt.start, list(COLOURS)), each.text_features(
            [f"a photo of a {name}." for name in COLOURS]))  # fmt: skip


def test_gradients_of_a_prompt_reach_its_vectors_and_nothing_else(model: DualEncoder) -> None:
    prompt = Prompt(model, PromptConfig())
    context = prompt.start.clone().requires_grad_()
    prompt.rows(context, ["red"])[:, 0].sum().backward()
    assert context.grad is not None and bool((context.grad != 0).any(1).all())
    assert all(each.grad is None for each in model.network.parameters())


def test_a_random_context_has_the_words_length(model: DualEncoder) -> None:
    prompt = Prompt(model, PromptConfig(words="a a a", deviation=0.02))
    assert prompt.start.shape == (3, 16) and 0.005 < float(prompt.start.std()) < 0.05


def test_prompts_need_a_text_tower_with_embeddings(model: DualEncoder, shots: LabelledImages) -> None:
    class Silent(nn.Module):
        pass

    other = tiny_dual_encoder("vit")
    other.network.text_model = Silent()
    with pytest.raises(ModelError, match=r"expected a text tower with a token embedding.*found Silent"):
        Prompt(other, PromptConfig())
    with pytest.raises(DataError, match="expected words to start from"):
        Prompt(model, PromptConfig(words=" "))


# -- LoRA


def test_untrained_adapters_change_nothing(model: DualEncoder) -> None:
    images = colours(1).images
    assert torch.equal(with_adapters(model, LoraConfig()).image_features(images), model.image_features(images))


@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_the_edit_gives_the_logits_of_peft(kind: Any) -> None:
    model, data = tiny_dual_encoder(kind), colours(2)
    adapted = with_adapters(model, LoraConfig(rank=3, alpha=5.0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, each in adapted.image_tower.named_parameters():
            if "lora_B" in name:
                each.copy_(0.1 * torch.randn(each.shape, generator=generator))
    part = exported(adapted.image_tower)
    from photopic.core.edits import Edit

    edit = Edit((part,), model.edits.fingerprint(*part.names()))
    rows = model.class_features(data.names)
    wanted = TextClassifier(adapted, rows).logits(data.images)
    found = TextClassifier(model, rows, edit).logits(data.images)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, model.zero_shot(data.images, data.names), atol=1e-2)


@pytest.mark.parametrize(("name", "kind"), [("lora", "low_rank"), ("bitfit", "values"), ("full", "delta")])
def test_an_edit_is_of_what_was_trained_and_of_nothing_else(
    model: DualEncoder, tuned: dict[str, Tuned], name: str, kind: str
) -> None:
    found, tower = tuned[name], image_parameters(model)
    assert isinstance(found, TextClassifier) and found.edit
    (part,) = found.edit.parts
    assert part.kind == kind and set(part.names()) <= set(tower)
    if isinstance(part, LowRankDelta):
        trained = [*part.up.values(), *part.down.values()]
    else:
        trained = [each for at, each in tower.items() if name == "full" or at.endswith("bias")]
    assert found.trainable == sum(each.numel() for each in trained)
    if isinstance(part, SparseWeights):
        assert found.trainable == part.count and set(part.names()) == {at for at in tower if at.endswith("bias")}


def test_cosines_are_the_handles(model: DualEncoder, shots: LabelledImages) -> None:
    rows = model.class_features(shots.names)
    found = cosines(model, model.encode_pixels(model.preprocess(shots.images)), rows)
    torch.testing.assert_close(found.detach(), model.zero_shot(shots.images, shots.names, TEMPLATES))


# -- bad input


@pytest.mark.parametrize("name", LEARNT)
def test_a_class_without_pictures_and_one_class_only_are_refused(model: DualEncoder, name: str) -> None:
    data = colours(2)
    with pytest.raises(DataError, match="class blue: expected one picture or more"):
        learn(name, model, data.take([0, 1, 2, 3]))
    with pytest.raises(DataError, match="expected two or more to tell apart, found only green"):
        learn(name, model, data.classes([1]))


@pytest.mark.parametrize("name", ["coop", "tip-adapter", "lora", "bitfit", "full"])
def test_a_name_without_a_token_is_refused(model: DualEncoder, name: str) -> None:
    data = LabelledImages(colours(1).images, np.arange(3), ("red", " ", "blue"))
    with pytest.raises(DataError, match="expected words, found none"):
        LEARNT[name](model, FewShotTask(data))


def test_a_classifier_with_two_classes_has_two_rows(model: DualEncoder) -> None:
    data = colours(3).classes([0, 2])
    found = TunedClassifier(model, linear_probe(model, FewShotTask(data)))
    assert found.logits(data.images).shape == (6, 2)
    assert accuracy(found, data) == 1.0


def test_a_prompted_classifier_is_made_of_its_context(model: DualEncoder, tuned: dict[str, Tuned]) -> None:
    found = tuned["coop"]
    assert isinstance(found, PromptedClassifier) and found.context is not None
    assert found.trainable == found.context.numel() == 4 * 16 and found.size_bytes == 4 * found.trainable


def test_a_saved_classifier_is_of_its_model_and_serves_again(
    model: DualEncoder, tuned: dict[str, Tuned], tmp_path: Path
) -> None:
    """That it is saved again as it was is the contract's; here it names alike."""
    images = colours(1).images
    for kind, name in ((PromptedClassifier, "coop"), (CacheClassifier, "tip-adapter-f")):
        tuned[name].save(tmp_path / name)  # type: ignore[attr-defined]
        read = kind.load(tmp_path / name, model)
        assert torch.equal(read.logits(images), tuned[name].logits(images)) and read.trainable == tuned[name].trainable
        with pytest.raises(ModelError, match=r"made for base tiny-vit \(.*\), but this model is tiny-vit"):
            kind.load(tmp_path / name, tiny_dual_encoder(seed=1))
    (tmp_path / "coop" / "classifier.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match="expected a classifier that photopic tune wrote"):
        PromptedClassifier.load(tmp_path / "coop", model)
