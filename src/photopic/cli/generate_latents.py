"""``photopic generate --model emoji-gan``: pictures of a generator without words, with edits of its latents or weights applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from photopic.cli.says import say
from photopic.core.errors import PhotopicError

BATCH = 16


def is_generator(model: str) -> bool:
    """Whether a word names a style-based generator, told from its files; a hub id is none."""
    from photopic.core.errors import ModelError
    from photopic.models.files import GENERATOR, found_source, kind_of

    try:
        source = found_source(model)
        return isinstance(source, Path) and kind_of(source) == GENERATOR
    except ModelError:  # whoever loads it says what is wrong
        return False


def generate_latents(
    model: str, edits: Sequence[tuple[Path, float]], count: int, output: Path, seed: int, truncation: float, *,
    device: str | None, force: bool, overlap: Any, unfit: Mapping[str, Any],
) -> None:  # fmt: skip
    """Draw and write numbered pictures that carry their settings, and a sheet of them all.

    Args:
        model: A bundled name, or a folder.
        edits: Files with their weights.
        count: How many.
        output: Folder for the pictures.
        seed: Of the first; picture i is of seed + i.
        truncation: How far pictures lie from the mean one.
        device: Where to compute.
        force: Whether edits for another base are taken.
        overlap: What entries become that several edits set.
        unfit: Options that only models with words and denoising take, by name, None where not given.

    Raises:
        PhotopicError: If one of those was given, or an edit does not fit.
    """
    for name, value in unfit.items():
        if value not in (None, False):
            raise PhotopicError(f"{name}: {model} draws from latents, without words or denoising steps; leave it out")
    from hashlib import sha256

    import torch

    from photopic import __version__
    from photopic.core.edits.file import load
    from photopic.core.files import write_atomically
    from photopic.data.pictures import contact_sheet, png_bytes, write_next
    from photopic.data.pixels import to_pixels
    from photopic.edit.applying import in_force
    from photopic.models.generator import Generator
    from photopic.report.progress import bars, waiting

    paths, weights = [path for path, _ in edits], [weight for _, weight in edits]
    loaded = [load(path) for path in paths]
    with waiting(f"loading {model}"):
        handle = Generator.load(model, device=device)
    settings = {
        "kind": "latents", "model": handle.name, "truncation": truncation, "photopic": __version__,
        "edits": [
            {"file": path.name, "sha256": sha256(path.read_bytes()).hexdigest(), "weight": weight} for path, weight in edits
        ],
    }  # fmt: skip
    output.mkdir(parents=True, exist_ok=True)
    images: list[Any] = []
    numbers: list[int] = []
    with torch.no_grad(), in_force(handle, paths, loaded, weights, force=force, overlap=overlap), bars() as shown:
        drawing = shown.add_task("drawing", total=count, remark="")
        for first in range(seed, seed + count, BATCH):
            seeds = range(first, min(first + BATCH, seed + count))
            z = torch.cat([handle.sample_z(1, each) for each in seeds])
            drawn = list(to_pixels(handle.synthesize(handle.map(z, truncation))))
            numbers += [  # written as they come: what is drawn stays when the rest is interrupted
                write_next(output, png_bytes(each, {**settings, "seed": one}))
                for one, each in zip(seeds, drawn, strict=True)
            ]
            images += drawn
            shown.update(drawing, completed=len(images))
    span = f"{numbers[0]:04d}-{numbers[-1]:04d}"
    sheet = contact_sheet(images, scale=max(1, 128 // handle.resolution))
    write_atomically(output / f"sheet-{span}.png", png_bytes(sheet, {**settings, "seeds": [seed, count]}), new=True)
    say(f"{output}: {numbers[0]:04d}.png to {numbers[-1]:04d}.png, and sheet-{span}.png with all of them")
