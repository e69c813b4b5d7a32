"""What a word of the command line becomes, by the type that a method asks for: folders, tasks of the emoji world, files.

A method names a data type; the entry of that type here says how to read it, which options that takes, and what its help says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from annotated_types import Ge, Le

from photopic.core.config import Config
from photopic.core.edits.stored import StoredEdit
from photopic.core.errors import DataError
from photopic.data.captioned import CaptionedImages, read_captioned
from photopic.data.captioned_pictures import SCENES as CAPTIONED_SCENES
from photopic.data.captioned_pictures import CaptionedPictures, read_captioned_pictures
from photopic.data.class_folder import ClassFolder, load_classes
from photopic.data.clips import SPLITS, ActionTask, load_splits
from photopic.data.collage import Collage, read_collage
from photopic.data.conditioned_pictures import SCENES as CONDITIONED_SCENES
from photopic.data.conditioned_pictures import ConditionedPictures
from photopic.data.emoji_tasks import emoji_task
from photopic.data.few_shot import FewShotTask, ShotPool, labelled_folder, split
from photopic.data.knowledge_graph import KnowledgeGraph, read_knowledge_graph
from photopic.data.layout import Layout
from photopic.data.layout_file import read_layout
from photopic.data.masked_picture import MaskedPicture, read_masked_picture
from photopic.data.picture_set import SCENES, PictureSet
from photopic.data.rendered_shapes import SHAPES, DepthPictures, read_shapes
from photopic.data.segmented import SCENES as SEGMENTED_SCENES
from photopic.data.segmented import SegmentedOptions, SegmentedPictures, read_segmented
from photopic.data.silhouettes import SilhouetteOptions, Silhouettes, read_silhouettes
from photopic.data.skeleton_pairs import EMOJI, PairOptions, SkeletonPairs, read_pairs
from photopic.data.sprite_people import PERSON, read_sprite_collage
from photopic.data.sprite_videos import MOTIONS, SpriteVideos, actions, sprite_clips

T = TypeVar("T")
SPRITES = "sprites"
TASK = "emoji:"  # before the name of a task of the emoji world


@dataclass(frozen=True)
class Source(Generic[T]):
    """How to read one type of data.

    Attributes:
        help: What the word may be, for the help of every command that takes one.
        read: From the word, the options and the model that the data is for, or None.
        options: The config whose fields are further options of the command; None for none.
        words: What the word may begin with when it is no file or folder.
    """

    help: str
    read: Callable[[str, Any, Any], T]
    options: type[Config] | None = None
    words: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FewShotOptions(Config):
    """How a task is drawn from labelled pictures."""

    shots: Annotated[int, Ge(1)] = 16  # pictures of each class to learn from; the others are measured on
    classes: Annotated[int | None, Ge(2)] = None  # classes of an emoji task; as the task has it by default
    seed: Annotated[int, Ge(0)] = 0  # seed of everything random; the same seed learns the same


def read_few_shot(word: str, options: FewShotOptions, model: Any = None) -> FewShotTask:
    """What to learn from and what to measure on.

    Args:
        word: A folder, or a task of the emoji world after ``emoji:``.
        options: How to draw.
        model: Not asked; pictures keep their sizes.

    Raises:
        DataError: If there is no such folder or task, one class only, or a class with fewer pictures.
    """
    shots, seed = options.shots, options.seed
    if word.startswith(TASK):
        kept = max(16, shots)  # so that the test pictures are the same for all numbers of shots up to 16
        train, test = emoji_task(word.removeprefix(TASK), classes=options.classes, train_per_class=kept, seed=seed)
        return FewShotTask(train.shots(shots, seed), test)
    _no_classes(options.classes)
    return FewShotTask(*labelled_folder(Path(word)).draw(shots, seed))


@dataclass(frozen=True, kw_only=True)
class PoolOptions(Config):
    """How pictures are divided into those that shots are drawn from and those that are measured on."""

    shots: Annotated[tuple[int, ...], Ge(1)] = (1, 2, 4, 8, 16)  # pictures of each class to learn from, commas between
    classes: Annotated[int | None, Ge(2)] = None  # classes of an emoji task; as the task has it by default
    test_share: Annotated[float, Ge(0.01), Le(0.99)] = 0.5  # share of a folder's pictures of each class to measure on


def read_pool(word: str, options: PoolOptions, model: Any = None) -> ShotPool:
    """What to draw shots from and what to measure on; the same for every number of shots and every seed."""
    if word.startswith(TASK):
        kept = max(16, *options.shots)
        return ShotPool(*emoji_task(word.removeprefix(TASK), classes=options.classes, train_per_class=kept))
    _no_classes(options.classes)
    return ShotPool(*split(labelled_folder(Path(word)), options.test_share, seed=0))


def _no_classes(classes: int | None) -> None:
    if classes is not None:
        raise DataError("--classes: is for emoji tasks; a folder has the classes it has, so leave it out")


@dataclass(frozen=True, kw_only=True)
class ActionOptions(Config):
    """How clips are read and their classes parted."""

    frames: Annotated[int, Ge(1)] = 8  # frames taken of each clip, at equal distances
    objects: Annotated[int, Ge(1), Le(48)] = 16  # objects of the training classes of sprites
    seed: Annotated[int, Ge(0)] = 0  # seed of everything random; the same seed learns the same


def read_action(word: str, options: ActionOptions, model: Any = None) -> ActionTask:
    """Clips of training, validation and test classes: of a folder, or sprites of the emoji world."""
    if word != SPRITES:
        splits = load_splits(word, options.frames, seed=options.seed)
        return ActionTask(*(splits[split] for split in SPLITS))
    shares = {"train": (options.objects, 6), "validation": (6, 3), "test": (8, 6)}  # objects, clips a class
    config = SpriteVideos(frames=options.frames)
    return ActionTask(*(
        sprite_clips(split, each, seed=options.seed, config=config, chosen=actions(split)[: count * len(MOTIONS)])
        for split, (count, each) in shares.items()
    ))  # fmt: skip


SHOTS_HELP = (
    "Folder with one sub-folder of pictures a class, named as the class; or emoji:held-out-style, emoji:held-out-concepts, "
    "emoji:groups to try it without pictures."
)
SOURCES: dict[type, Source[Any]] = {
    CaptionedImages: Source(
        "Folder with 1 to 10 pictures of the thing: PNG, JPEG, WebP, ... A text file of the same name (bear-1.txt beside "
        "bear-1.jpg) holds a picture's caption; captions help to tell thing from background.",
        lambda word, options, model: read_captioned(word, model.image_size),
    ),
    CaptionedPictures: Source(
        "Folder of pictures, each with a text file of the same name that holds its caption (bear-1.txt beside bear-1.jpg), or a "
        f"metadata.jsonl; or {CAPTIONED_SCENES}: captioned scenes of the emoji world, {CAPTIONED_SCENES}:5000 for so many.",
        lambda word, options, model: read_captioned_pictures(word, model.image_size),
        words=(CAPTIONED_SCENES,),
    ),
    ConditionedPictures: Source(
        "A picture, or a folder of them; bear-1.txt beside bear-1.jpg holds its caption, bear-1.conditions what photopic measure "
        f"conditions wrote. Or {CONDITIONED_SCENES}: scenes of the emoji world, {CONDITIONED_SCENES}:500 for so many.",
        lambda word, options, model: ConditionedPictures(word),
        words=(CONDITIONED_SCENES,),
    ),
    FewShotTask: Source(SHOTS_HELP, read_few_shot, FewShotOptions, (TASK,)),
    ActionTask: Source(
        "Folder with one sub-folder of clips a class, named as the action ('dog running'). A clip is a folder of frames, or an "
        "animated GIF, WebP or PNG. Sub-folders train, validation and test part the classes, else chance does. Or sprites, to try "
        "it without clips.",
        read_action,
        ActionOptions,
        (SPRITES,),
    ),
    ShotPool: Source(SHOTS_HELP, read_pool, PoolOptions, (TASK,)),
    PictureSet: Source(
        f"A folder of pictures, or {SCENES}: scenes of the emoji world, {SCENES}:5000 for so many.",
        lambda word, options, model: PictureSet(word),
        words=(SCENES,),
    ),
    ClassFolder: Source(
        "Folder of pictures; for what needs true classes, one sub-folder a class, named as the model names the class.",
        lambda word, options, model: load_classes(word),
    ),
    SegmentedPictures: Source(
        "Folder with images, masks of the same names whose gray value or palette index is the class, and classes.txt with a name a "
        f"line; or {SEGMENTED_SCENES}: scenes of the emoji world, {SEGMENTED_SCENES}:500 for so many.",
        read_segmented,
        SegmentedOptions,
        (SEGMENTED_SCENES,),
    ),
    Silhouettes: Source(
        "A picture of a shape, or a folder of them: masks in black and white, or pictures with transparency.",
        read_silhouettes,
        SilhouetteOptions,
    ),
    SkeletonPairs: Source(
        "Folder with shapes and skeletons, pictures of the same names in sub-folders; or labels of the Pixel SkelNetOn challenge, "
        f"the skeleton blue and the rest of the shape white; or {EMOJI}: silhouettes of emoji, {EMOJI}:500 for so many.",
        read_pairs,
        PairOptions,
        (EMOJI,),
    ),
    StoredEdit: Source(
        "Edit files for one base model; each is read when its turn comes, so they may be many and large.",
        lambda word, options, model: StoredEdit(Path(word)),
    ),
    KnowledgeGraph: Source(
        "Folder of a knowledge graph, as photopic knowledge build writes it.",
        lambda word, options, model: read_knowledge_graph(word),
    ),
    Layout: Source(
        "JSON with a box or a painted mask for each subject; see docs/methods/layout_guidance.md.",
        lambda word, options, model: read_layout(word),
    ),
    DepthPictures: Source(
        f"{SHAPES}: heads rendered with their depth, {SHAPES}:1000 for so many; or a folder with images and depth.",
        lambda word, options, model: read_shapes(word),
        words=(SHAPES,),
    ),
    Collage: Source(
        "JSON with a picture, a cut-out piece and the key points of both, see docs/methods/projection.md; or "
        f"{PERSON}:3, a drawn figure with another shirt.",
        lambda word, options, model: (read_sprite_collage if word.partition(":")[0] == PERSON else read_collage)(
            word, model.resolution
        ),
        words=(PERSON,),
    ),
    MaskedPicture: Source(
        "JSON with one picture and a box, a painted mask or a cut-out for each thing in it; see docs/methods/break_a_scene.md.",
        lambda word, options, model: read_masked_picture(word, model.image_size),
    ),
}
