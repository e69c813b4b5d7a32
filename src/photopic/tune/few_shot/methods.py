"""Every few-shot method by name, ready for a learning curve: from a model, the shots and a seed to events.

The methods that take steps all get the same number of them, the same batches and the same augmentation; what differs is the
learning rate, each method's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from photopic.core.errors import DataError
from photopic.data.few_shot import FewShotTask, LabelledImages
from photopic.learning.classifiers import TextClassifier
from photopic.learning.few_shot_batches import Step
from photopic.models.dual_encoder import TEMPLATES, DualEncoder

Learn = Callable[[DualEncoder, LabelledImages, int], Iterator[Step]]
MASK_REACH = (
    2.0  # how far the steps of a mask go, in distances from its start to its threshold; its rate follows from that
)
NAMES = (
    "zero-shot",
    "linear-probe",
    "linear-adam",
    "coop",
    "tip-adapter",
    "tip-adapter-f",
    "lora",
    "bitfit",
    "full",
    "mask",
    "mask-plain",
    "tuners",
)


def learner(
    name: str,
    *,
    steps: int = 200,
    batch: int = 32,
    augment: bool = True,
    rate: float = 1.0,
    templates: Sequence[str] = TEMPLATES,
) -> Learn:
    """A few-shot method with its own learning rate and the budget of all.

    Args:
        name: One of ``NAMES``.
        steps: Of the optimizer, for the methods that have one.
        batch: Pictures a step; all of them where there are fewer.
        augment: Whether pictures are cropped at random.
        rate: What every method's own learning rate is multiplied with, but for masks, whose rate follows from the steps; the
            rates fit the small bundled encoders.
        templates: Sentences with ``{}`` where a class name goes.

    Raises:
        DataError: If there is no such method; the message says which name is nearest.

    Example:
        >>> learn = learner("lora", steps=100)
        >>> events = learn(model, train.shots(4, seed=0), 0)  # doctest: +SKIP
    """
    if name not in NAMES:
        near = get_close_matches(name, NAMES, n=1, cutoff=0.0)[0]
        raise DataError(f"method {name}: expected one of {', '.join(NAMES)}; did you mean {near}?")
    if not rate > 0:
        raise DataError(f"rate: expected a number above 0, found {rate}")
    budget = {"steps": steps, "batch": batch, "augment": augment}

    def learn(model: DualEncoder, data: LabelledImages, seed: int) -> Iterator[Step]:
        return _events(name, model, data, budget | {"seed": seed}, rate, templates)

    return learn


def able(names: Sequence[str], model: DualEncoder) -> tuple[str, ...]:
    """The methods of a list that a model can do: unified tuners need transformer blocks in the image tower.

    Example:
        >>> able(("lora", "tuners"), DualEncoder.load("emoji-clip-cnn"))  # doctest: +SKIP
        ('lora',)
    """
    from photopic.learning.parameters.adapters import blocks_of

    return tuple(name for name in names if name != "tuners" or blocks_of(model.image_tower))


def _events(
    name: str, model: DualEncoder, data: LabelledImages, budget: dict[str, Any], rate: float, templates: Sequence[str]
) -> Iterator[Step]:
    from photopic.tune.few_shot import bias_only, full, linear_probe, lora, zero_shot
    from photopic.tune.few_shot import coop as prompts
    from photopic.tune.few_shot import tip_adapter as cache

    def within(config: Any) -> Any:
        return replace(config, training=replace(config.training, lr=rate * config.training.lr, **budget))

    if name == "zero-shot":
        return zero_shot.zero_shot(model, data, templates=templates)
    if name in ("mask", "mask-plain"):
        from photopic.tune.few_shot import mask_tuning

        dropout = 1.0 if name == "mask" else 0.0
        mask = mask_tuning.MaskTuningConfig(dropout=dropout, reach=MASK_REACH, **budget)
        return _of_method(mask_tuning.mask_tuning, model, data, config=mask, templates=templates)
    if name == "tuners":
        from photopic.tune.few_shot import unified_tuners

        branches = unified_tuners.UnifiedTunersConfig(**budget)
        return unified_tuners.tune(model, data, config=replace(branches, lr=rate * branches.lr), templates=templates)
    method, config = {
        "linear-probe": (linear_probe.linear_probe, linear_probe.LinearProbeConfig()),
        "linear-adam": (linear_probe.linear_probe, linear_probe.LinearProbeConfig(solver="adam")),
        "coop": (prompts.coop, prompts.PromptConfig()),
        "tip-adapter": (cache.tip_adapter, cache.CacheConfig()),
        "tip-adapter-f": (cache.tip_adapter, cache.CacheConfig(trained=True)),
        "lora": (lora.lora, lora.LoraConfig()),
        "bitfit": (bias_only.bias_only, bias_only.BiasOnlyConfig()),
        "full": (full.full_fine_tuning, full.FullConfig()),
    }[name]
    found: Iterator[Step] = method(model, data, config=within(config), templates=templates)  # type: ignore[operator]
    return found


def _of_method(method: Any, model: DualEncoder, data: LabelledImages, **options: Any) -> Iterator[Step]:
    """The events of a method as those of a learner, the last with the classifier that its edit makes."""
    for event in method.events(model, FewShotTask(data), **options):
        numbers = event.numbers
        loss, accuracy = numbers.get("loss", 0.0), numbers.get("accuracy", 0.0)
        tuned = None
        if event.result is not None:
            rows = model.class_features(data.names, options["templates"])
            tuned = TextClassifier(model, rows, event.result, templates=options["templates"])
        yield Step(event.stage, event.done, event.total, loss, accuracy, edit=event.result, tuned=tuned)
