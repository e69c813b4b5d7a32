"""Small real arguments for every method, by the types it asks for, so that the contract of ``test_methods.py`` runs on all of them.

A new method needs an entry in ``SMALL`` only where the defaults of its config are too slow for a test.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, get_args

import numpy as np
import torch
from PIL import Image

from photopic.core.config import hints_of, unpacked
from photopic.core.editfile.content import AnyEdit
from photopic.core.edits import DenseDelta, Edit, LowRankDelta, SteeringVector, TokenEmbedding, ZeroedWeights
from photopic.core.method import Method
from photopic.data.captioned import CaptionedImages
from photopic.data.captioned_pictures import CaptionedPictures, captioned_scenes
from photopic.data.class_folder import ClassFolder, load_classes
from photopic.data.clips import ActionTask, Clips
from photopic.data.collage import Collage
from photopic.data.conditioned_pictures import ConditionedPictures
from photopic.data.few_shot import FewShotTask, LabelledImages, ShotPool
from photopic.data.knowledge_graph import KnowledgeGraph
from photopic.data.layout import Layout, Region
from photopic.data.masked_picture import MaskedPicture
from photopic.data.picture_set import PictureSet
from photopic.data.rendered_shapes import DepthPictures, rendered_shapes
from photopic.data.scenes import Background, Placement, compose
from photopic.data.segmented import SegmentedPictures, segmented_scenes
from photopic.data.silhouettes import Silhouettes
from photopic.data.skeleton_pairs import SkeletonPairs
from photopic.data.sprite_people import sprite_collage
from photopic.data.sprite_videos import SpriteVideos, actions, sprite_clips
from photopic.edit.interop import export_lora
from photopic.generate.guidance.linear_guidance import LinearFitConfig, fit_linear_guidance
from photopic.knowledge.bag_file import write_bags
from photopic.knowledge.bag_record import BagRecord
from photopic.knowledge.build import build
from photopic.knowledge.scene_bags import bag_of_scene
from photopic.learning.subject.new_token import new_rows
from photopic.models.captioner import Captioner
from photopic.models.classifier import Classifier
from photopic.models.dual_encoder import DualEncoder
from photopic.models.generator import Generator, GeneratorConfig
from photopic.models.handle import Handle
from photopic.models.preprocessing import Preprocessing
from photopic.models.segmenter import Segmenter
from photopic.models.text_to_image.attention_weights import attention_weights, random_positions
from photopic.models.text_to_image.handle import TextToImage
from photopic.tune.subject.joint_tuning import JointTuningConfig, joint_tuning
from tests.tiny import IMAGE_SIZE, tiny_pipeline
from tests.tiny_captioners import tiny_captioner
from tests.tiny_classifiers import knowing_classifier, tinted_class_folder, tiny_class_folder, tiny_classifier
from tests.tiny_conditional import tiny_conditional
from tests.tiny_encoders import tiny_dual_encoder
from tests.tiny_link_graph import tiny_link_graph

QUICK: Mapping[str, Any] = {"steps": 4, "batch": 2}  # of configs that have such fields
WEIGHT = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"


def pipeline() -> TextToImage:
    """A tiny pipeline, the base of ``edit``."""
    return TextToImage(tiny_pipeline(), "tiny")


def edit(first: int = 0) -> Edit:
    """Ten entries of the tiny pipeline's shut, from ``first`` on."""
    part = ZeroedWeights({WEIGHT: torch.arange(first, first + 10)})
    return Edit((part,), pipeline().edits.fingerprint(WEIGHT), {"noun": "bear"})


def small_graph() -> str:
    """A knowledge graph of three scenes."""
    folder = mkdtemp(dir=os.environ["PHOTOPIC_CACHE"])
    build("emoji-scenes:3", output=folder)
    return folder


def encoder_edit(seed: int = 0) -> Edit:
    """A task vector of the tiny dual encoder's."""
    model, name = tiny_dual_encoder(), "network.visual_projection.weight"
    draw = torch.Generator().manual_seed(seed)
    delta = torch.randn(model.parameters(name)[name].shape, generator=draw)
    return Edit((DenseDelta({name: delta}),), model.fingerprint(name))


def exported() -> str:
    """A LoRA file of the tiny pipeline."""
    model, folder = pipeline(), mkdtemp(dir=os.environ["PHOTOPIC_CACHE"])
    part = LowRankDelta({WEIGHT: torch.ones(32, 1)}, {WEIGHT: torch.ones(1, 32)})
    export_lora(Edit((part,), model.edits.fingerprint(WEIGHT)), f"{folder}/x.safetensors", model, rank=1)
    return f"{folder}/x.safetensors"


SMALL: Mapping[str, Mapping[str, Any]] = {  # of a method: config fields by their names, arguments by theirs
    "knowledge.describe": {"output": lambda: mkdtemp(dir=os.environ["PHOTOPIC_CACHE"]) + "/x.jsonl", "overwrite": True},
    "knowledge.check": {"file": lambda: grounded()[1]},
    "knowledge.ask": {"graph": lambda: grounded()[1], "question": "where is the cat?"},
    "knowledge.show": {"graph": lambda: grounded()[1]},
    "knowledge.compare_graphs": {"predicted": lambda: grounded()[1], "truth": lambda: grounded()[1]},
    "knowledge.ground": {"picture": lambda: grounded()[0], "graph": lambda: grounded()[1], "threshold": -1.0},
    "knowledge.caption": {
        "model": lambda: Captioner.load("emoji-captioner", device="cpu"),
        "pictures": lambda: grounded()[0],
        "output": lambda: mkdtemp(dir=os.environ["PHOTOPIC_CACHE"]) + "/bags.jsonl",
    },
    "tune.latent.inversion": {"picture": lambda: grounded()[0], "steps": 2, "tuning_steps": 2},
    "train.adversarial.noise_injection": {"size": 8, "width": 4, "latent": 4, "steps": 3, "batch": 4},
    "knowledge.detect": {"picture": lambda: grounded()[0], "names": ["bear", "cat"], "threshold": -1.0},
    "guard.protect.protect": {
        "pictures": lambda: grounded()[0],
        "output": lambda: mkdtemp(dir=os.environ["PHOTOPIC_CACHE"]) + "/x.png",
        "overwrite": True,
        "draws": 1,
    },
    "guard.protect.protect_inpainting": {
        "model": lambda: TextToImage.load("emoji-inpainting", device="cpu"),
        "picture": lambda: grounded()[0],
        "mask": lambda: half_masked(),
        "output": lambda: mkdtemp(dir=os.environ["PHOTOPIC_CACHE"]) + "/x.png",
        "overwrite": True,
    },
    "guard.protect.robustness": {
        "model": lambda: DualEncoder.load("emoji-clip-vit", device="cpu"),  # which finds some captions
        "attacks": ("set-level",),
        "words": 2,
        "scales": (0.5,),
    },
    "guard.fit_guard": {"model": knowing_classifier, "clean": tinted_class_folder, "rate": 0.2},
    "measure.conditions": {
        "output": lambda: mkdtemp(dir=os.environ["PHOTOPIC_CACHE"]),
        "overwrite": True,
        "size": 32,
    },
    "generate.condition_gains": {"model": lambda: tiny_conditional(), "steps": 1},
    "measure.network_rank": {"patch": 4, "samples": 20},
    "measure.seeds": {"prompts": ["a bear", "a cat"], "count": 4, "steps": 2, "batch": 2},
    "generate.guidance.fit_linear_guidance": {"prompts": ["a bear"], "pictures": 2, "steps": 3},
    "edit.compose": {"edits": lambda: [edit(), edit(5)]},
    "generate.guidance.start_noise": {"ranking": lambda: ranking()},
    "edit.bake": {"edits": lambda: [edit(), edit(20)]},
    "edit.merging.merge": {"edits": lambda: [edit(), edit(5)], "model": pipeline},
    "edit.merging.anisotropic_scaling": {"edits": lambda: [encoder_edit(), encoder_edit(1)]},
    "edit.interference": {"edits": lambda: [edit(), edit(5)]},
    "edit.interop.import_file": {"file": exported},
    "edit.interop.export_file": {
        "to": "kohya",
        "output": lambda: mkdtemp(dir=os.environ["PHOTOPIC_CACHE"]) + "/x.safetensors",
    },
    "knowledge.build": {
        "folder": "emoji-scenes:3",
        "output": lambda: mkdtemp(dir=os.environ["PHOTOPIC_CACHE"]),
        "encoder": lambda: tiny_dual_encoder(),
    },
    "knowledge.query": {"graph": lambda: small_graph(), "word": "scene-00001"},
    "knowledge.export": {
        "graph": lambda: small_graph(),
        "output": lambda: mkdtemp(dir=os.environ["PHOTOPIC_CACHE"]) + "/x.graphml",
    },
    "edit.explain.explain": {"steps": 1, "pictures": 1, "edit": lambda: located_edit()},
    "knowledge.graphs.dagnn": {"depth": 2, "hidden": 4},
    "knowledge.links.link_prediction": {"scorers": ("distmult", "rotate"), "dim": 4},
    "locate.concept_neurons": {"noun": "bear", "preservation_count": 2, "evaluation": 2, "tune": 2},
    "locate.attribution.grad_cam": {
        "relu": False
    },  # nothing raises the logits of this one, and maps of zeros show nothing
    "locate.attribution.layer_masking": {"cells": 4, "samples": 30},
    "locate.saliency": {"methods": ("normgrad", "layer-masking"), "samples": 30, "randomised": 1},
    "locate.attention": {"prompt": "a bear on a red background"},
    "tune.few_shot.mask_tuning": {"reach": 8.0},
    "tune.action.few_shot_action": {
        "hidden": 16,
        "queries": 2,
        "validate_every": 2,
        "validation_episodes": 10,
        "test_episodes": 10,
        "way": 2,
    },
    "tune.few_shot.tip_adapter": {"trained": True},
    "tune.few_shot.linear_probe": {"solver": "adam"},
    "measure.diffusion_classifier": {
        "images": lambda: labelled(2).images,
        "classes": ["bear", "mug"],
        "samples": (1, 2),
        "keep": (2,),
    },
    "measure.diffusion_features": {"timesteps": (100,)},
    "measure.denoiser_slopes": {"pictures": 1, "every": 2, "points": 2},
    "measure.learning_curve": {"methods": ("zero-shot", "linear-probe", "lora"), "shots": (1,), "seeds": 2},
    "tune.subject.joint_tuning": {
        "edits": lambda: [located_edit(), located_edit("<two>", "cat", 2)],
        "data": lambda: [captioned(2), captioned(2, seed=1)],
        "preservation_count": 2,
        "evaluation": 2,
    },
    "tune.subject.located_weights": {"edit": lambda: located_edit(), "preservation_count": 2, "evaluation": 2},
    "train.adversarial.geometry_discriminator": {
        "fit": 2,
        "fitted": 3,
        "channels": 8,
        "codes": 4,
        "samples": 4,
        "full": 1,
    },
    "tune.latent.projection": {
        "output": lambda: mkdtemp(dir=os.environ["PHOTOPIC_CACHE"]),
        "overwrite": True,
        "projection_steps": 2,
        "semantic_steps": 2,
        "pattern_steps": 2,
        "draws": 4,
    },
    "train.masked.coloured_noise": {"size": 24, "patch": 2, "width": 32, "depth": 1, "decoder_width": 32, "field": 64},
    "train.diffusion.diffusion": {
        "size": 8,
        "channels": (8, 8),
        "measured": 0,
        "samples": 1,
        "save_every": 1,
        "turning": (500,),
        "share": 100,
    },
    "train.adaptation.segmentation": {"width": 8},
    "train.skeleton_network": {"widths": (4, 4)},
    "measure.skeleton_score": {"predicted": lambda: skeleton_pictures()},
    "train.adaptation.source_free": {"prior": (0.4, 0.2, 0.2, 0.2)},
    "tune.graph_contrast": {"pictures": "emoji-world"},
    "measure.aro": {"pairs": 3},
    "locate.latent.low_rank": {"region": "0,0,0.5,1", "min_keep": 0.0},
    "locate.latent.region_factorization": {"region": "0,0,0.5,1"},
    "measure.locality": {"edit": lambda: steering(), "region": "0,0,0.5,1", "samples": 2, "strips": 1},
    "edit.slider": {"edit": lambda: steering(), "pictures": 1, "weights": (0.0, 1.0)},
    "edit.reroll": {"edit": lambda: steering(), "pictures": 1, "count": 1},
    "tune.latent.linked_latents": {"regions": ["0,0,0.5,1"], "axes": 2, "every": 1},
    "tune.latent.knowledge_extrapolation": {"samples": 2},
    "tune.subject.take_apart": {"edit": lambda: joint_edit()},
    "tune.reward.reward_backpropagation": {
        "prompts": ["a bear", "a cat"],
        "encoder": tiny_dual_encoder,
        "drawing_steps": 2,
    },
    "tune.reward.policy_gradient": {"prompts": ["a bear", "a cat"], "encoder": tiny_dual_encoder, "drawing_steps": 2},
    "tune.subject.break_a_scene": {"embedding_steps": 2, "weight_steps": 2, "preservation_count": 2},
    "tune.subject.token_residual": {"noun": "bear", "sentences": 4, "evaluation": 2},
}
ARGUMENTS: Mapping[type, Callable[[], Any]] = {
    Captioner: lambda: tiny_captioner(),
    Classifier: lambda: tiny_classifier(),
    Collage: lambda: sprite_collage((0, 0), 16),
    DepthPictures: lambda: rendered_shapes(4, seed=0, side=16),
    ClassFolder: tiny_class_folder,
    DualEncoder: lambda: tiny_dual_encoder(),
    Edit: edit,
    AnyEdit: edit,
    Handle: pipeline,
    Segmenter: lambda: segmenter(),
    Generator: lambda: tiny_generator(),
    SegmentedPictures: lambda: segmented_scenes(3, size=32),
    Silhouettes: lambda: Silhouettes.of(skeleton_pairs().shapes),
    SkeletonPairs: lambda: skeleton_pairs(),
    KnowledgeGraph: tiny_link_graph,
    TextToImage: pipeline,
    ActionTask: lambda: ActionTask(*(clips(split) for split in ("train", "validation", "test"))),
    ConditionedPictures: lambda: ConditionedPictures("emoji-scenes:2"),
    PictureSet: lambda: PictureSet("emoji-scenes:2"),
    ShotPool: lambda: ShotPool(labelled(6), labelled(4, seed=1)),
    FewShotTask: lambda: FewShotTask(labelled(6), labelled(4, seed=1)),
    CaptionedImages: lambda: captioned(2),
    MaskedPicture: lambda: masked_picture(),
    CaptionedPictures: lambda: captioned_scenes(6),
}


def grounded() -> tuple[str, str]:
    """A picture of a bear beside a cat, and the file of its graph."""
    pair = [Placement("bear", "noto", (0.26, 0.5), 0.4), Placement("cat", "noto", (0.74, 0.5), 0.4)]
    scene, folder = compose(pair, Background("red")), Path(mkdtemp(dir=os.environ["PHOTOPIC_CACHE"]))
    Image.fromarray(scene.image).save(folder / "a.png")
    write_bags(folder / "a.jsonl", [BagRecord(bag_of_scene(scene))])
    return str(folder / "a.png"), str(folder / "a.jsonl")


def segmenter() -> Segmenter:
    """A module of one's own that reads each pixel alone."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = torch.nn.Conv2d(3, 4, 1)
    return Segmenter(
        network, preprocess=Preprocessing(resize=(16, 16)), labels=("none", "bear", "mug", "owl"), name="tiny"
    )


def tiny_generator() -> Generator:
    """At 16 pixels, with stored noise that shows."""
    model = Generator.fresh(GeneratorConfig(resolution=16, channels=(8, 8, 4), z_width=6, w_width=6, mapping_layers=2))
    for layer in model.synthesis.convs:
        layer.strength.fill_(0.3)
    return model


def steering() -> Edit:
    """A direction of the tiny generator, with a link as training one would leave it."""
    model = tiny_generator()
    links = [{"region": "0,0,0.5,1", "first": 0, "count": 2}]
    return Edit((SteeringVector({"mapping": 0.1 * torch.ones(6)}),), model.fingerprint(), {"links": links})


def skeleton_pairs() -> SkeletonPairs:
    """Three bars with their middle lines."""
    shapes, skeletons = np.zeros((2, 3, 16, 16), bool)
    shapes[:, 5:12, 2:14] = skeletons[:, 8, 5:11] = True
    return SkeletonPairs(shapes, skeletons, ("a", "b", "c"))


def skeleton_pictures() -> ClassFolder:
    """Their skeletons as pictures of the same names."""
    folder, pairs = Path(mkdtemp(dir=os.environ["PHOTOPIC_CACHE"])), skeleton_pairs()
    for name, skeleton in zip(pairs.names, pairs.skeletons, strict=True):
        Image.fromarray(np.where(skeleton, 255, 0).astype(np.uint8)).save(folder / f"{name}.png")
    return load_classes(folder)


def half_masked() -> str:
    """A mask as large as the picture of ``grounded``, whose right half is to draw."""
    place = f"{mkdtemp(dir=os.environ['PHOTOPIC_CACHE'])}/mask.png"
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 255
    Image.fromarray(mask).save(place)
    return place


def clips(split: str) -> Clips:
    """Three clips of three frames of each of two actions."""
    return sprite_clips(split, 3, chosen=actions(split)[:2], config=SpriteVideos(frames=3, size=32))


def captioned(count: int, *, seed: int = 0) -> CaptionedImages:
    """Noise, its captions left to the method."""
    generator = torch.Generator().manual_seed(seed)
    return CaptionedImages(torch.rand(count, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator) * 2 - 1)


def located_edit(token: str = "<one>", noun: str = "bear", seed: int = 1) -> Edit:
    """What a search could have found: an eighth of the cross-attention weights, and a new word."""
    model = pipeline()
    weights = attention_weights(model)
    sizes = {name: torch.arange(weight.numel() // 8) for name, weight in weights.items()}
    part, rows = ZeroedWeights(random_positions(sizes, weights, seed)), new_rows(model, token, noun, start="random")
    return Edit((part, rows), model.fingerprint(*part.indices), {"method": "by hand", "noun": noun, "token": token})


def joint_edit() -> Edit:
    """Two located edits made one, without learning."""
    edits, data = [located_edit(), located_edit("<two>", "cat", 2)], [captioned(1), captioned(1, seed=1)]
    return joint_tuning(pipeline(), edits, data, config=JointTuningConfig(steps=0, evaluation=0, prior_weight=0.0))


def masked_picture() -> MaskedPicture:
    """Noise with two things side by side."""
    halves = (Region("<one> bear", (0.0, 0.0, 0.5, 1.0)), Region("<two> cat", (0.5, 0.0, 1.0, 1.0)))
    return MaskedPicture(captioned(1).images[0], Layout(halves))


def labelled(count: int, *, seed: int = 0) -> LabelledImages:
    """Noise of two classes, bright and dark."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    pictures = (rng.integers(0, 100, (count, 16, 16, 3)) + 150 * labels[:, None, None, None]).astype(np.uint8)
    return LabelledImages(pictures, labels, ("bear", "mug"))


def case(method: Method[Any, Any]) -> dict[str, Any]:
    """Arguments for a quick call of a method."""
    small = dict(SMALL.get(method.name, {}))
    hints, given = hints_of(method.body), {}
    for name, parameter in method.signature.parameters.items():
        kind, _ = unpacked(hints[name])
        plain = next((each for each in (kind, *get_args(kind)) if each in ARGUMENTS), None)
        if name == "config":
            names = {each.name for each in fields(parameter.default)}
            chosen = {key: value for key, value in {**QUICK, **small}.items() if key in names}
            given[name] = replace(parameter.default, **chosen)
        elif name in small:
            given[name] = small[name]() if callable(small[name]) else small[name]
        elif parameter.default is inspect.Parameter.empty and plain is not None:
            given[name] = ARGUMENTS[plain]()
    return given


def control_arguments(control: type, model: TextToImage) -> dict[str, Any]:
    """Arguments for a control: a layout of the bear, an edit of its new word, a picture, a report; no configs."""
    row = TokenEmbedding("<mine>", {"text_encoder": torch.ones(32)})
    shut = ZeroedWeights({WEIGHT: torch.arange(10)})
    words = "<mine> bear" if "edits" in inspect.signature(control).parameters else "bear"
    made: dict[str, Any] = {
        "layout": Layout((Region(words, (0.0, 0.0, 0.5, 1.0)),)),
        "edits": [Edit((shut, row), model.edits.fingerprint(WEIGHT))],
    }
    wanted = inspect.signature(control).parameters
    if "style" in wanted:
        made["style"] = grounded()[0]
    if "ranking" in wanted:
        made["ranking"] = ranking()
    if "weights" in wanted:
        fit = LinearFitConfig(steps=2, pictures=2)
        made["weights"] = _kept(fit_linear_guidance(model, prompts=["a bear"], config=fit).to_dict())
    return {name: value for name, value in made.items() if name in wanted}


def ranking() -> str:
    """What ``measure seeds`` printed of a hundred seeds."""
    return _kept({"name": "measure seeds", "rows": [{"seed": seed} for seed in range(100, 200)]})


def _kept(report: dict[str, Any]) -> str:
    file = Path(mkdtemp(dir=os.environ["PHOTOPIC_CACHE"])) / "report.json"
    file.write_text(json.dumps(report))
    return str(file)
