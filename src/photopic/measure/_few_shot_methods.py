"""The few-shot methods of a learning curve by the names a report calls them: each its own learning rate, the budget of all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from photopic.core.events import Event, Steps
from photopic.core.method import method_named
from photopic.data.few_shot import FewShotTask, LabelledImages
from photopic.learning.classifiers import Tuned
from photopic.learning.parameters.adapters import blocks_of
from photopic.learning.tuned_classifier import classifier_of
from photopic.models.dual_encoder import TEMPLATES, DualEncoder

Learn = Callable[[DualEncoder, LabelledImages, int], Steps[Tuned]]
"""From the model, the shots and a seed to what was learnt."""
MASK = {"reach": 2.0}  # how far the steps of a mask go, from its start to its threshold; its rate follows from that
METHODS: Mapping[str, tuple[str, Mapping[str, Any]]] = {  # name: the method, and what differs from its defaults
    "zero-shot": ("zero_shot", {}),
    "linear-probe": ("linear_probe", {}),
    "linear-adam": ("linear_probe", {"solver": "adam"}),
    "coop": ("coop", {}),
    "tip-adapter": ("tip_adapter", {}),
    "tip-adapter-f": ("tip_adapter", {"trained": True}),
    "lora": ("lora", {}),
    "bitfit": ("bias_only", {}),
    "full": ("full_fine_tuning", {}),
    "mask": ("mask_tuning", MASK),
    "mask-plain": ("mask_tuning", {**MASK, "dropout": 0.0}),
    "tuners": ("unified_tuners", {}),
}


def learner(name: str, budget: Mapping[str, Any], *, rate: float = 1.0, templates: Sequence[str] = TEMPLATES) -> Learn:
    """A few-shot method with its own learning rate and the budget of all.

    Args:
        name: A key of ``METHODS``.
        budget: Fields of a config that all methods get, such as ``steps``, ``batch`` and ``augment``.
        rate: What every method's own learning rate is multiplied with, but for masks, whose rate follows from the steps; the
            rates fit the small bundled encoders.
        templates: Sentences with ``{}`` where a class name goes.

    Example:
        >>> learn = learner("lora", {"steps": 100})
        >>> events = learn(model, train.shots(4, seed=0), 0)  # doctest: +SKIP
    """
    function, changes = METHODS[name]
    called = method_named(f"tune.few_shot.{function}")
    parameters = called.signature.parameters

    def learn(model: DualEncoder, data: LabelledImages, seed: int) -> Steps[Tuned]:
        options: dict[str, Any] = {"templates": tuple(templates)} if "templates" in parameters else {}
        if "config" in parameters:
            options["config"] = _within(parameters["config"].default, {**budget, **changes, "seed": seed}, rate)
        result = None
        for event in called.events(model, FewShotTask(data), **options):
            result = event.result
            yield Event(event.stage, event.done, event.total, event.numbers, event.warning)
        return classifier_of(model, result, model.class_features(data.names, templates), templates)

    return learn


def _within(config: Any, changes: Mapping[str, Any], rate: float) -> Any:
    """A config within the budget; a rate that follows from the steps stays so."""
    known = {each.name for each in fields(config)}
    changed = replace(config, **{name: value for name, value in changes.items() if name in known})
    return changed if changed.lr is None else replace(changed, lr=rate * changed.lr)


def able(names: Sequence[str], model: DualEncoder) -> tuple[str, ...]:
    """The methods of a list that a model can do: unified tuners need transformer blocks in the image tower.

    Example:
        >>> able(("lora", "tuners"), DualEncoder.load("emoji-clip-cnn"))  # doctest: +SKIP
        ('lora',)
    """
    return tuple(name for name in names if name != "tuners" or blocks_of(model.image_tower))
