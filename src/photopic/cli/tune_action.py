"""``photopic tune action``: name actions in videos by one to five labelled clips of each.

photopic tune action clips/ --model openai/clip-vit-base-patch32 -o actions/
photopic tune action sprites -o actions/
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from photopic.cli.outputs import check_output, run_folder

if TYPE_CHECKING:
    from photopic.data.clips import Clips
    from photopic.metrics.intervals import Interval
    from photopic.models.dual_encoder import DualEncoder
    from photopic.tune.action.few_shot_action import ActionRecogniser, EpisodeScores

EPILOG = (
    "Example: photopic tune action sprites -o actions/    "
    "Your clips: photopic tune action clips/ --model openai/clip-vit-base-patch32 -o actions/    "
    "Without the class names: photopic tune action clips/ --no-modulation -o plain/"
)
SPRITES = "sprites"


def action(
    data: Annotated[
        str,
        typer.Argument(
            help="Folder with one sub-folder of clips a class, named as the action ('dog running'). A clip is a folder of "
            "frames, or an animated GIF, WebP or PNG. Sub-folders train, validation and test part the classes, else chance "
            "does. Or sprites, to try it without clips."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", "--out", help="The folder to write, for the trained model.")
    ],
    model: Annotated[
        str, typer.Option(help="A bundled dual encoder, a folder with one of transformers, or a hub id.")
    ] = "emoji-clip-vit",
    frames: Annotated[int, typer.Option(min=1, help="Frames taken of each clip, at equal distances.")] = 8,
    way: Annotated[int, typer.Option(min=2, help="Classes to choose among in an episode.")] = 5,
    steps: Annotated[int, typer.Option(min=1, help="Steps of learning; more takes longer.")] = 500,
    lr: Annotated[float, typer.Option(min=0.0, help="Size of a step.")] = 1e-3,
    tower: Annotated[
        Literal["frozen", "tuned"],
        typer.Option(
            help="frozen: the image encoder stays, every clip is read once, training takes minutes. tuned: it learns too, as "
            "published, and every step reads its clips again."
        ),
    ] = "frozen",
    modulation: Annotated[
        bool, typer.Option(help="Let the class name correct what a few clips say of the class.")
    ] = True,
    video_text: Annotated[
        float, typer.Option(min=0.0, help="Weight of the loss that draws clips to the names of their classes.")
    ] = 1.5,
    matcher: Annotated[
        Literal["otam", "mean"],
        typer.Option(help="otam: compare clips frame by frame in order of time. mean: compare their mean frames."),
    ] = "otam",
    motion: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Share of a distance that is between what changes in a clip; 0, as published, hardly knows the order of frames.",
        ),
    ] = 0.5,
    beta: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the names where names and clips are fused in the table.")
    ] = 0.9,
    template: Annotated[str, typer.Option(help="Sentence with {} where a class name goes.")] = "a photo of {}",
    shuffled_text: Annotated[
        bool, typer.Option("--shuffled-text", help="Give every class another's name: what names help is then gone.")
    ] = False,
    episodes: Annotated[int, typer.Option(min=2, help="Test episodes behind each number of the table.")] = 1000,
    objects: Annotated[int, typer.Option(min=1, max=48, help="Objects of the training classes of sprites.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random; the same seed learns the same.")] = 0,
    run: Annotated[
        Path | None,
        typer.Option(help="Folder for checkpoints, kept afterwards.", show_default="OUTPUT.run, removed at the end"),
    ] = None,
    device: Annotated[str, typer.Option(help="Where to read frames: cpu, cuda, cuda:1, mps, ...")] = "cpu",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the model if the folder exists.")] = False,
) -> None:
    """Learn from some classes of clips to name others, which were never trained on, by one to five clips and their names.

    Training, validation and test share no class: the state that is kept is chosen on validation classes, and the table is about
    test classes. Interrupted with Ctrl-C, the same command goes on where it stopped.
    """
    check_output(output, overwrite=overwrite)
    from photopic.core.runs import Run
    from photopic.data.episodes import draw_episodes
    from photopic.models.dual_encoder import DualEncoder
    from photopic.report.progress import bars, console, follow
    from photopic.tune.action.few_shot_action import FewShotActionConfig, train

    config = FewShotActionConfig(
        way=way,
        steps=steps,
        lr=lr,
        tower=tower,
        modulation=modulation,
        video_text=video_text,
        matcher=matcher,
        motion=motion,
        template=template,
        shuffled_text=shuffled_text,
        within_group=0.5 if data == SPRITES else 0.0,  # half of the episodes are of one object, so that motion counts
        seed=seed,
    )
    with run_folder(run, output) as folder:
        with console().status(f"listing {data}"):
            splits = _splits(data, frames, objects, seed)
            draw_episodes(splits["test"].labels, splits["test"].names, episodes=1, way=way)  # says what is missing now
        with console().status(f"loading {model}"):
            handle = DualEncoder.load(model, device)
        with bars() as shown:
            events = train(handle, splits["train"], splits["validation"], config=config, run=Run(folder))
            made = follow(events, shown, "tuning").result
        made.save(output)
        with console().status("reading test clips"):
            rows = _rows(handle, made, splits["test"], way, episodes, beta, shuffled_text, seed)
    _show(rows, splits["test"], episodes)
    typer.echo(
        f"{output}: {made.trainable:,} trained parameters; in Python: ActionRecogniser.load({str(output)!r}, model)"
    )


def _splits(data: str, frames: int, objects: int, seed: int) -> dict[str, Clips]:
    from photopic.data.clips import load_splits
    from photopic.data.sprite_videos import MOTIONS, SpriteVideos, actions, sprite_clips

    if data != SPRITES:
        return load_splits(data, frames, seed=seed)
    config = SpriteVideos(frames=frames)
    shares = {"train": (objects, 6), "validation": (6, 3), "test": (8, 6)}  # objects, clips a class
    return {
        split: sprite_clips(split, each, seed=seed, config=config, chosen=actions(split)[: count * len(MOTIONS)])
        for split, (count, each) in shares.items()
    }


def _rows(
    model: DualEncoder,
    made: ActionRecogniser,
    test: Clips,
    way: int,
    episodes: int,
    beta: float,
    shuffled: bool,
    seed: int,
) -> list[tuple[str, Interval]]:
    """Accuracy on test classes with each number of labelled clips there are enough clips for."""
    from photopic.tune.action.few_shot_action import VideoBank

    def judged(bank: VideoBank, shots: int) -> EpisodeScores:
        bank = bank.shuffled(seed) if shuffled else bank
        return made.evaluate(bank, way=way, shots=shots, episodes=episodes, beta=beta, seed=seed)

    bank = made.bank(test)
    fewest = min(int((bank.labels == label).sum()) for label in range(len(bank.names)))
    once = judged(bank, 1)
    rows = [("class names alone", once.interval("zero_shot"))]
    if made.edit is not None:
        before = judged(VideoBank.of(model, test, made.how.template), 1)
        rows.insert(0, ("class names alone, before training", before.interval("zero_shot")))
    rows += [("1 clip a class", once.interval()), ("1 clip a class and names fused", once.interval("fused"))]
    if fewest <= 5:
        typer.echo(
            f"note: 5 labelled clips a class need 6 or more of each, found {fewest}; that row is left out", err=True
        )
        return rows
    five = judged(bank, 5)
    return [*rows, ("5 clips a class", five.interval()), ("5 clips a class and names fused", five.interval("fused"))]


def _show(rows: list[tuple[str, Interval]], test: Clips, episodes: int) -> None:
    from rich.console import Console

    from photopic.report.terminal import table

    title = f"accuracy on {len(test.names)} classes that were not trained on, {episodes} episodes"
    shown = table(title, "named by", ">right", ">95 % interval")
    for name, (value, low, high) in rows:
        shown.add_row(name, f"{value:.1%}", f"{max(0.0, low):.1%} to {min(1.0, high):.1%}")
    Console().print(shown)
