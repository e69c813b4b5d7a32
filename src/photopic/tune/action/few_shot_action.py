"""Few-shot action recognition: learn from some classes of videos to name others by one to five labelled clips and the class
names.

A dual encoder reads frames; a small transformer over time refines them, with the class name's feature beside the labelled
clips (temporal prototype modulation); clips are compared by ordered temporal alignment. A second loss draws videos to the
names of all training classes.

Paper: CLIP-guided Prototype Modulating for Few-shot Action Recognition (CLIP-FSAR, arXiv:2303.02982). Changed: half of a
distance is between frames without the mean of their clip (``motion``), for without that the order of frames hardly counts;
the image tower is frozen by default, so that its features are read once; the rate is of a transformer that starts from
nothing, the published one of a large model's fine-tuning; the state is chosen on validation classes, where the published code
looks at test classes; a loss that is no number stops the training, where the published code skips it. The preset ``paper`` is
of the released Kinetics-100 settings (alibaba-mmai-research/CLIP-FSAR, CLIPFSAR_K100_1shot_v1.yaml): 5,000 episodes at 1e-5,
here by 4 a step, and 10,000 to judge by. The rate falls there after 60 and 90 % of the steps (40 and 60 % on other data),
here after 60 and 80 %. Claims: ``few_shot_action.*`` of benchmarks/tune/few_shot_action.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from photopic.core.errors import DataError
from photopic.core.events import Event, Steps
from photopic.core.fit import fit
from photopic.core.method import method
from photopic.core.runs import Run
from photopic.core.view import Section, Table, Text, View
from photopic.data.clips import ActionTask
from photopic.data.episodes import draw_episodes
from photopic.models.dual_encoder import DualEncoder
from photopic.tune.action._episodes import EpisodeScores, VideoBank, normal_interval
from photopic.tune.action._learner import FewShotActionConfig, Learner, within_group
from photopic.tune.action._recogniser import ActionRecogniser, Named, Recognition

__all__ = [
    "ActionRecogniser",
    "EpisodeScores",
    "FewShotActionConfig",
    "Named",
    "Recognition",
    "VideoBank",
    "few_shot_action",
    "normal_interval",
]


RECOMMENDED = FewShotActionConfig()
PUBLISHED = FewShotActionConfig(
    motion=0.0, within_group=0.0, lr=1e-5, tower="tuned", tower_lr=1e-5, steps=1250, test_episodes=10_000
)


def action_view(made: ActionRecogniser) -> View:
    """Accuracy on test classes by each way of naming, with 95 % intervals."""
    count = Text(f"{made.trainable:,} trained parameters")
    test = made.provenance.get("test")
    if not test:
        return View("accuracy", [Section("", [count, Text("accuracy: not measured, since there are no test classes")])])
    rows = [
        [each["named_by"], f"{each['value']:.1%}", f"{max(0.0, each['low']):.1%} to {min(1.0, each['high']):.1%}"]
        for each in test["rows"]
    ]
    title = f"accuracy on {test['classes']} classes that were not trained on, {test['episodes']} episodes"
    return View("accuracy", [Section("", [count, Table(["named by", "right", "95 % interval"], rows, caption=title)])])


@method(
    paper="arXiv:2303.02982",
    claims="few_shot_action.",
    presets={"paper": PUBLISHED},
    command="tune action",
    examples=(
        "Example: photopic tune action sprites -o actions/",
        "Your clips: photopic tune action clips/ --model openai/clip-vit-base-patch32 -o actions/",
        "Without the class names: photopic tune action clips/ --no-modulation -o plain/",
    ),
    view=action_view,
    after=('in Python: ActionRecogniser.load("{output}", model)',),
)
def few_shot_action(
    model: DualEncoder,
    data: ActionTask,
    *,
    config: FewShotActionConfig = RECOMMENDED,
    run: Run | None = None,
) -> Steps[ActionRecogniser]:
    """Learn from some classes of clips to name others, which were never trained on, by one to five clips and their names.

    Training, validation and test share no class: the state that is kept is chosen on validation classes, and the table is about
    test classes. Interrupted with Ctrl-C, the same command goes on where it stopped.

    Args:
        model: A bundled dual encoder, a folder with one of transformers, or a hub id.
        data: Clips of ``config.way`` classes or more, of other classes to choose the state, and of others to measure; or the
            features of clips, where the tower is frozen.
        config: How to train.
        run: A run folder to checkpoint in and to resume from.

    Returns:
        The recogniser as it was when best on validation classes.

    Raises:
        DataError: If there are too few classes or clips, or a name has no token.
        ModelError: If the loss is no number.

    Example:
        >>> few_shot_action(model, ActionTask(training, validation)).name(support, videos)  # doctest: +SKIP
    """
    _check(data, config)
    bank = yield from VideoBank.reading(model, data.training, config.template)
    held = yield from VideoBank.reading(model, data.validation, config.template)
    learner = Learner(model, data, (bank, held), config)
    yield from fit(learner, config.steps, run=run)
    made = learner.result()
    if data.test is None:
        return made
    test = yield from _tested(model, made, data.test, config)
    return replace(made, provenance={"test": test})


def _tested(
    model: DualEncoder, made: ActionRecogniser, test: Any, config: FewShotActionConfig
) -> Steps[dict[str, Any]]:
    """Accuracy on test classes with each number of labelled clips there are enough clips for."""
    yield Event("measuring")

    def judged(bank: VideoBank, shots: int) -> EpisodeScores:
        bank = bank.shuffled(config.seed) if config.shuffled_text else bank
        how: dict[str, Any] = {"way": config.way, "episodes": config.test_episodes, "beta": config.beta}
        return made.evaluate(bank, shots=shots, seed=config.seed, **how)

    bank = test if isinstance(test, VideoBank) else made.bank(test)
    once = judged(bank, 1)
    ways: dict[str, Any] = {}
    if made.edit is not None:
        before = judged(VideoBank.of(model, test, made.how.template), 1)
        ways["class names alone, before training"] = before.interval("zero_shot")
    ways["class names alone"] = once.interval("zero_shot")
    ways |= {"1 clip a class": once.interval(), "1 clip a class and names fused": once.interval("fused")}
    fewest = min(int((bank.labels == label).sum()) for label in range(len(bank.names)))
    if fewest > 5:
        five = judged(bank, 5)
        ways |= {"5 clips a class": five.interval(), "5 clips a class and names fused": five.interval("fused")}
    else:
        said = f"5 labelled clips a class need 6 or more of each, found {fewest}; that row is left out"
        yield Event("measuring", warning=said)
    rows: list[Mapping[str, Any]] = [{"named_by": name, **found._asdict()} for name, found in ways.items()]
    return {"classes": len(bank.names), "episodes": config.test_episodes, "rows": rows}


def _check(data: ActionTask, config: FewShotActionConfig) -> None:
    """What is wrong with the clips is said before anything slow."""
    training, validation, way = data.training, data.validation, config.way
    if config.tower == "tuned" and any(isinstance(each, VideoBank) for each in (training, validation, data.test)):
        raise DataError("tower: tuning needs clips, found their features; give the clips, or keep the tower frozen")
    hard = {"groups": training.groups, "within": within_group(config, training)}
    draw_episodes(training.labels, training.names, episodes=1, way=way, queries=config.queries, **hard)
    draw_episodes(validation.labels, validation.names, episodes=1, way=min(way, max(2, len(validation.names))))
    if data.test is not None:
        draw_episodes(data.test.labels, data.test.names, episodes=1, way=way)
