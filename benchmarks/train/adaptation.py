"""Do classifiers and segmentation models carry over to pictures of another kind that nobody labelled?

    python -m benchmarks dann        # writes benchmarks/results/dann.json
    python -m benchmarks sfda        # writes benchmarks/results/sfda.json

Protocol, written before the runs. Five seeds, each with its own pictures, weights and batches; all arms of a seed share them.
Intervals are Student's t of the paired differences. Settings were looked at on seeds 100 to 106 only.

``dann``: a small untrained network with group normalisation learns ten concepts, drawn by the seed, from 20 scenes each of one
thing in Noto's drawings on any background, and 20 unlabelled ones of each in Twemoji's; 400 steps of 32 and 32. Measured on 30
fresh scenes of each concept and style. Baseline: the same steps at strength 0, which is the source alone. Control: other scenes
of the source in the target's place. The probe is a logistic regression on half of the fresh features, asked about the other half;
chance is 1/2.

``sfda``: a small SegFormer learns 500 scenes of Noto's drawings on flat backgrounds (thing or background, 250 steps), and meets
the high-contrast drawings of Fluent on textures: 200 unlabelled scenes to adapt to, 200 fresh ones to measure on. The prior is the
class ratio of 200 further scenes of the target, a single pair of numbers. Baseline: the source model as it is. Ablation: entropy
alone. Control: a prior that nobody counted, both classes alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Gt
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from benchmarks.harness.benchmark import Bench, Benchmark, Claim, Row, paired
from photopic.core.config import Config
from photopic.data import renderings
from photopic.data.few_shot import LabelledImages
from photopic.data.scenes import SceneOptions, sample_scene
from photopic.data.segmented import SegmentedPictures, segmented_scenes
from photopic.metrics.segmentation import class_iou
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Preprocessing
from photopic.train.adaptation.domain_adversarial import DomainAdversarialConfig, domain_adversarial
from photopic.train.adaptation.segmentation import SegmentationConfig, segmentation
from photopic.train.adaptation.source_free import SourceFreeConfig, source_free

DANN = (
    Claim("dann.target_gain", ">= 0.03", "accuracy on the target: DANN minus the source alone"),
    Claim("dann.domain_probe", "high < 0", "a fresh probe's accuracy in telling the domains apart, likewise"),
    Claim("dann.source_change", "", "accuracy on the source, likewise"),
)
SFDA = (
    Claim("sfda.miou_gain", "low > 0", "mean IoU on the target: AdaMI minus the source model"),
    Claim("sfda.adaent_gain", "low > 0", "the same of AdaEnt"),
    Claim("sfda.entropy_dominant", "> 0.95", "largest class's share of pixels under entropy alone"),
    Claim("sfda.prior_dominant", "", "the same under AdaMI"),
    Claim("sfda.source_miou", "", "mean IoU of the source model on its own domain"),
)


@dataclass(frozen=True)
class DannConfig(Config):
    """How much is measured."""

    source: str = "noto"  # style that is labelled
    target: str = "twemoji"  # style that is not
    classes: Annotated[int, Ge(2)] = 10  # concepts, drawn by the seed
    steps: Annotated[int, Ge(1)] = 400  # of each arm
    lr: Annotated[float, Gt(0)] = 1e-3  # of all arms
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)  # of classes, pictures, weights and batches


@dataclass(frozen=True)
class Case:
    """One arm with one seed."""

    arm: str
    seed: int
    how: tuple[Any, ...]


def dann_cases(config: DannConfig) -> list[Case]:
    """Every arm with every seed."""
    how = (config.source, config.target, config.classes, config.steps, config.lr)
    return [Case(arm, seed, how) for seed in config.seeds for arm in ("source", "dann", "none")]


def drawn(names: tuple[str, ...], style: str, count: int, seed: tuple[int, ...]) -> LabelledImages:
    """Scenes of one thing each, ``count`` of every class."""
    options = [SceneOptions(concepts=(name,), styles=(style,), size=32, objects=(1.0, 0.0, 0.0, 0.0)) for name in names]
    images = [sample_scene(each, (*seed, label, k)).image for label, each in enumerate(options) for k in range(count)]
    return LabelledImages(np.stack(images), np.repeat(np.arange(len(names)), count), names)


def untrained(names: tuple[str, ...], seed: int) -> Classifier:
    """A small network with group normalisation, which has no statistics to keep."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.GroupNorm(8, outputs), nn.ReLU()]

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        body = [*block(3, 32), *block(32, 64), *block(64, 128), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        network = nn.Sequential(*body, nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, len(names)))
    prepare = Preprocessing(resize=(32, 32), mean=(0.5,) * 3, std=(0.25,) * 3)
    return Classifier(network, preprocess=prepare, labels=names, name="small-cnn")


def probed(source: torch.Tensor, target: torch.Tensor) -> float:
    """Accuracy of a linear probe that was trained on half of the features and asked about the other half."""
    features = np.concatenate([source.numpy(), target.numpy()])
    domains, order = np.repeat([0, 1], [len(source), len(target)]), np.random.default_rng(0).permutation(len(features))
    known, asked = np.array_split(order, 2)
    scale = StandardScaler().fit(features[known])
    probe = LogisticRegression(max_iter=1000).fit(scale.transform(features[known]), domains[known])
    return float(probe.score(scale.transform(features[asked]), domains[asked]))


def dann_measure(bench: Bench[DannConfig, Any], case: Case) -> dict[str, float]:
    """Accuracies on both domains' fresh scenes, and the probe's on their features."""
    source, target, classes, steps, lr = case.how
    rng = np.random.default_rng((case.seed, 9))
    names = tuple(sorted(rng.choice(renderings.classes(), classes, replace=False).tolist()))
    learnt, unlabelled = (drawn(names, style, 20, (case.seed, part)) for part, style in enumerate((source, target)))
    fresh = [drawn(names, style, 30, (case.seed, part + 2)) for part, style in enumerate((source, target))]
    images = unlabelled.images
    if case.arm == "none":  # other scenes of the source in the target's place
        images = drawn(names, source, 20, (case.seed, 4)).images
    config = DomainAdversarialConfig(
        steps=steps, lr=lr, batch=32, augment=False, seed=case.seed, strength=float(case.arm != "source")
    )
    model = untrained(names, case.seed)
    with model.edits.applied(domain_adversarial(model, learnt, images, config=config)):
        features = [model.features(each.images) for each in fresh]
        right = [np.mean(model.logits(each.images).argmax(1).numpy() == each.labels) for each in fresh]
    return {"source": float(right[0]), "target": float(right[1]), "probe": probed(*features)}


def gain(claim: str, arms: dict[str, list[dict[str, float]]], what: str, arm: str, base: str, control: str = "") -> Row:
    """Paired differences of an arm to the baseline, Student's interval over seeds."""
    values = {name: np.array([each[what] for each in found]) for name, found in arms.items()}
    return paired(claim, values[arm], values[base], values[control] if control else None)


def by_arm(bench: Bench[Any, Any]) -> dict[str, list[dict[str, float]]]:
    """What was found, by arm, in the order of seeds."""
    found: dict[str, list[dict[str, float]]] = {}
    for case in bench.cases:
        found.setdefault(case.arm, []).append(bench.found(case))
    return found


def dann_rows(bench: Bench[DannConfig, Any]) -> Iterator[Row]:
    """The claims of domain-adversarial training."""
    arms = by_arm(bench)
    yield gain("dann.target_gain", arms, "target", "dann", "source", "none")
    yield gain("dann.domain_probe", arms, "probe", "dann", "source", "none")
    yield gain("dann.source_change", arms, "source", "dann", "source", "none")


@dataclass(frozen=True)
class SfdaConfig(Config):
    """How much is measured."""

    source: str = "noto"  # style the source model is trained on
    target: str = "fluent-high-contrast"  # style it is adapted to
    scenes: Annotated[int, Ge(1)] = 500  # of the source
    unlabelled: Annotated[int, Ge(1)] = 200  # of the target, and as many fresh ones
    training: Annotated[int, Ge(1)] = 250  # steps of the source model
    steps: Annotated[int, Ge(1)] = 60  # of adaptation
    lr: Annotated[float, Gt(0)] = 3e-4  # of adaptation
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)  # of scenes, weights and batches


def sfda_cases(config: SfdaConfig) -> list[Case]:
    """Every seed: its source model is trained once, and every arm begins there."""
    how = (config.source, config.target, config.scenes, config.unlabelled, config.training, config.steps, config.lr)
    return [Case("all", seed, how) for seed in config.seeds]


def sfda_measure(bench: Bench[SfdaConfig, Any], case: Case) -> dict[str, dict[str, float]]:
    """Mean IoU and the largest class's share on fresh scenes of the target, by arm."""
    source, target, scenes, unlabelled, training, steps, lr = case.how

    def drawn_as(of: str, part: int, count: int = unlabelled) -> SegmentedPictures:
        flat, textured = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)
        style, backgrounds = (source, flat) if of == "own" else (target, textured)
        return segmented_scenes(count, (style,), seed=(case.seed, part), backgrounds=backgrounds)

    model = segmentation(drawn_as("own", 0, scenes), config=SegmentationConfig(steps=training, seed=case.seed))
    images, prior = drawn_as("target", 2).images, tuple(drawn_as("target", 4).class_ratio.tolist())
    fresh = {of: drawn_as(of, 3) for of in ("own", "target")}

    def judged(of: str) -> dict[str, float]:
        said, classes = model.segment(fresh[of].images), len(model.labels)
        iou = class_iou(said, fresh[of].masks, classes)
        shares = np.bincount(said.ravel(), minlength=classes) / said.size
        return {"miou": float(np.nanmean(iou)), "dominant": float(shares.max())}

    found = {"own": judged("own"), "source": judged("target")}
    arms = {"adami": ("mutual-information", prior), "adaent": ("weighted-entropy", prior), "entropy": ("entropy", ())}
    for name, (loss, shares) in {**arms, "uniform": ("mutual-information", (0.5, 0.5))}.items():
        config = SourceFreeConfig(prior=shares, loss=loss, steps=steps, lr=lr, seed=case.seed)  # type: ignore[arg-type]
        with model.edits.applied(source_free(model, images, config=config)):
            found[name] = judged("target")
    return found


def sfda_rows(bench: Bench[SfdaConfig, Any]) -> Iterator[Row]:
    """The claims of source-free adaptation."""
    found = [bench.found(case) for case in bench.cases]
    arms = {name: [each[name] for each in found] for name in found[0]}
    yield gain("sfda.miou_gain", arms, "miou", "adami", "source", "uniform")
    yield gain("sfda.adaent_gain", arms, "miou", "adaent", "source", "uniform")
    truth = {"": [{"dominant": 0.0, "miou": 0.0}] * len(found)}
    yield gain("sfda.entropy_dominant", arms | truth, "dominant", "entropy", "")
    yield gain("sfda.prior_dominant", arms | truth, "dominant", "adami", "")
    yield gain("sfda.source_miou", arms | truth, "miou", "own", "")


BENCHMARKS = (
    Benchmark(
        "dann",
        __doc__,
        DannConfig(),
        DannConfig(steps=3, classes=3, seeds=(0,)),
        DANN,
        dann_rows,
        dann_cases,
        dann_measure,
        seeds=DannConfig().seeds,
    ),
    Benchmark(
        "sfda",
        __doc__,
        SfdaConfig(),
        SfdaConfig(scenes=20, unlabelled=8, training=3, steps=2, seeds=(0,)),
        SFDA,
        sfda_rows,
        sfda_cases,
        sfda_measure,
        seeds=SfdaConfig().seeds,
    ),
)
