"""Sprite videos: exact classes that splits do not share, seeded, and played backwards the reverse class."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from photopic.core.errors import DataError
from photopic.data import emoji_world, sprite_videos
from photopic.data.clips import SPLITS
from photopic.data.sprite_videos import MOTIONS, OBJECTS, REVERSED, Action, SpriteVideos, actions, objects, sprite_clips

SMALL = SpriteVideos(frames=4, size=32)


def test_splits_share_neither_class_nor_object() -> None:
    found = {split: set(objects(split)) for split in SPLITS}
    assert {split: len(each) for split, each in found.items()} == OBJECTS
    assert len(set.union(*found.values())) == sum(OBJECTS.values())
    classes = [action for split in SPLITS for action in actions(split)]
    assert len({action.name for action in classes}) == len(classes) == len(MOTIONS) * sum(OBJECTS.values())
    assert {emoji_world.concept(thing).split for each in found.values() for thing in each} == {"known"}


def test_a_second_object_never_comes_from_another_split() -> None:
    for split in SPLITS:
        plans = [
            sprite_videos._plan(action, split, SpriteVideos(clutter=1.0), [0, number])
            for number, action in enumerate(actions(split)[:20])
        ]
        assert {sprite.action.thing for plan in plans for sprite in plan.moving} <= set(objects(split))
        assert all(len({sprite.action.thing for sprite in plan.moving}) == 2 for plan in plans)


def test_a_clip_depends_on_its_class_number_and_seed_alone() -> None:
    few, many = actions("test")[3:5], actions("test")[:5]
    a = sprite_clips("test", 2, chosen=few, config=SMALL)
    b = sprite_clips("test", 3, chosen=many, config=SMALL)
    assert a.videos.shape == (4, 4, 32, 32, 3) and a.videos.dtype == np.uint8
    assert (a.videos[0] == b.videos[9]).all() and a.captions is not None and b.captions is not None
    assert a.captions[0] == b.captions[9]
    assert (sprite_clips("test", 2, chosen=few, config=SMALL, seed=1).videos != a.videos).any()


def test_captions_name_the_class_and_the_background() -> None:
    clips = sprite_clips("train", 1, chosen=actions("train")[:3], config=SMALL)
    assert clips.captions is not None
    for label, caption in zip(clips.labels.tolist(), clips.captions, strict=True):
        assert clips.names[label] in caption and caption.endswith("background") and caption.startswith("a")


def test_backwards_is_exactly_the_reverse_class() -> None:
    """A clip and its partner of one seed have one path, seen from both ends."""
    assert all(REVERSED[REVERSED[motion]] == motion for motion in MOTIONS)
    for motion in MOTIONS:
        rng = [np.random.default_rng(5) for _ in range(2)]
        there, back = (sprite_videos._pose(each, 6, rng.pop()) for each in (motion, REVERSED[motion]))
        if motion == REVERSED[motion]:
            continue
        for field, a, b in zip(there._fields, there, back, strict=True):
            np.testing.assert_array_equal(a, b[::-1], err_msg=f"{motion} {field}")
    clips = sprite_clips("test", 1, chosen=actions("test")[: len(MOTIONS)], config=SMALL)
    turned = sprite_videos.reversed_clips(clips)
    assert (turned.videos == clips.videos[:, ::-1]).all()
    left, right = (clips.names.index(f"{objects('test')[0]} sliding {side}") for side in ("left", "right"))
    assert turned.labels[left] == right and turned.labels[right] == left


def test_motions_go_where_they_say() -> None:
    thing = objects("test")[0]
    chosen = [Action(thing, motion) for motion in ("sliding left", "sliding up", "growing", "appearing")]
    config = SpriteVideos(frames=5, size=32, clutter=0.0)
    for action in chosen:
        pose = sprite_videos._pose(action.motion, 5, np.random.default_rng(0))
        moving = {"sliding left": -pose.x, "sliding up": -pose.y, "growing": pose.side, "appearing": pose.opacity}
        assert (np.diff(moving[action.motion]) >= 0).all() and np.ptp(moving[action.motion]) > 0.3
    clips = sprite_clips("test", 1, chosen=chosen, config=config).videos.astype(float)
    change = np.abs(clips - clips[:, :1]).sum((2, 3, 4))  # from the first frame on
    assert (change[:, 1:] > 0).all()


def test_a_sprite_is_drawn_where_and_how_its_pose_says() -> None:
    plain = np.ones(1)
    pose = sprite_videos.Pose(0.25 * plain, 0.75 * plain, 0.5 * plain, np.pi / 2 * plain, plain)
    upright = pose._replace(angle=0 * plain)
    style = "noto"
    drawn, still = (
        sprite_videos._drawn([sprite_videos._Sprite(Action("horse", "growing"), style, each)], SpriteVideos(frames=1))[
            0, 0
        ]
        for each in (pose, upright)
    )
    assert drawn[3, :31].max() == 0 and drawn[3, :, 33:].max() == 0 and drawn[3, 34:62, 2:30].max() > 0.9
    window = np.s_[:, 32:, :32]
    torch.testing.assert_close(drawn[window], torch.rot90(still[window], 1, (1, 2)), atol=1e-4, rtol=0)  # anticlockwise


def test_bad_input_is_one_line() -> None:
    with pytest.raises(DataError, match="expected train, validation, test"):
        objects("dev")
    with pytest.raises(DataError, match="expected one of the split test"):
        sprite_clips("test", 1, chosen=actions("train")[:1])
    with pytest.raises(DataError, match="1 or more frames"):
        SpriteVideos(frames=0)
    with pytest.raises(DataError, match="is not among the 1 classes"):
        sprite_videos.reversed_clips(sprite_clips("test", 1, chosen=actions("test")[:1], config=SMALL))
