"""The trainings of the race: every file of every method, kept under the hash of what decides it."""

from __future__ import annotations

import copy
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from benchmarks.harness.code import code_of
from benchmarks.harness.subjects import LOCATING, TUNING, JudgedModel
from benchmarks.tune.race import applying, own_methods, peers, subject_case
from benchmarks.tune.race.plan import PEERS, RESIDUAL, RaceConfig, token
from benchmarks.tune.race.subject_case import Given, first_row
from photopic.core.edits import Edit, ZeroedWeights
from photopic.core.edits import file as edit_file
from photopic.core.runs import write_atomically
from photopic.models.text_to_image.attention_weights import attention_weights, random_positions
from photopic.models.text_to_image.handle import TextToImage

BASES = (
    "photopic.learning.subject.collage",
    "photopic.learning.losses.denoising",
    "photopic.learning.subject.examples",
    "photopic.learning.subject.preservation",
)


@dataclass(frozen=True)
class Way:
    """One row of the table: a method, and for neurons the density and the bits of their values."""

    name: str
    method: str
    density: float | None = None
    bits: int | None = None  # of tuned values; None: shut only
    company: bool = False  # taught in company too, for as many steps as the config says; for composing

    @property
    def trainings(self) -> tuple[str, ...]:
        """What is trained for it."""
        return (self.method,) if self.bits is None else (self.method, "tuned")


def ways_of(config: RaceConfig) -> list[Way]:
    """All rows of the table but the base."""
    ways = [Way(method.name, method.name) for method in (*PEERS, RESIDUAL)]
    for density in config.densities:
        label = f"{density:.0%}".rstrip("%")
        ways.append(Way(f"neurons_{label}pc", "neurons", density))
        ways += [Way(f"tuned{bits}_{label}pc", "neurons", density, bits) for bits in config.bits[density]]
    return ways


class Trainer:
    """The trainings of the race on a model, and a second copy of it that only peers touch.

    Args:
        judge: The model with its judge and what is kept.
        config: How much is measured.
    """

    def __init__(self, judge: JudgedModel, config: RaceConfig):
        self.judge, self.config, self.cache, self.digest = judge, config, judge.cache, judge.digest
        self.code = code()

    @cached_property
    def peer(self) -> TextToImage:
        """The model peers are trained and applied on."""
        model = self.judge.model
        return TextToImage(copy.deepcopy(model.pipeline), model.name, knows_emoji=model.knows_emoji)

    @cached_property
    def base_state(self) -> dict[str, Tensor]:
        """Copies of the base's tensors."""
        return {name: tensor.clone() for name, tensor in applying.state(self.judge.model).items()}

    @cached_property
    def base_file(self) -> Path:
        """The base UNet on disk."""
        path = self.cache.folder / f"base-unet-{self.judge.digest[:12]}.safetensors"
        if not path.exists():
            tensors = {n.removeprefix("unet."): t for n, t in self.base_state.items() if n.startswith("unet.")}
            write_atomically(path, save(tensors))
        return path

    def row_file(self, name: str) -> Path:
        """The token's row where it is not trained, as a textual-inversion file; not counted as bytes of the peer."""
        path = self.cache.folder / f"row-{token(name).strip('<>')}-{self.judge.digest[:12]}.safetensors"
        if not path.exists():
            row = first_row(Given.of(name).rows(self.judge.model))
            write_atomically(path, save({token(name): row[None].clone()}, {"format": "pt"}))
        return path

    def made(self, method: str, name: str, rate: float, counts: Sequence[int], **more: Any) -> Path:
        """The folder of a training, made if it is not there."""
        subject = Given.of(name)
        sizes = {"batch": self.config.batch, "preservation": self.config.preservation}
        key = {
            "race": method, "subject": name, "data": subject.digest, "rate": rate, "counts": counts, "of": self.digest, **sizes,
            **{k: digest_of(v) if isinstance(v, Path) else v for k, v in more.items()}, "code": self.code[method],
        }  # fmt: skip

        def make(path: Path) -> None:
            part = path.with_name(f"{path.name}.{os.getpid()}")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            for _ in self.steps_of(method, subject, part, rate, counts, **more):
                pass
            shutil.rmtree(part / "run", ignore_errors=True)
            shutil.rmtree(path, ignore_errors=True)
            os.replace(part, path)
            print(f"made {method} {name} {rate:g} {list(counts)}", flush=True)

        return self.cache.file(key, ".made", make)

    def steps_of(
        self, method: str, subject: Given, folder: Path, rate: float, counts: Sequence[int], **more: Any
    ) -> Iterator[int]:
        """The training of a method; every training of the race, kept or measured for memory, is this one."""
        sizes: dict[str, Any] = {"batch": self.config.batch, "preservation": self.config.preservation}
        if method == "neurons":
            return own_methods.search(self.judge.model, subject, folder, steps=max(counts), **sizes, **more)
        if method == "tuned":
            return own_methods.values(self.judge.model, subject, folder, rate=rate, counts=counts, **sizes, **more)
        if method == "token_residual":
            return own_methods.residual(self.judge.model, subject, folder, **more)
        if beside := more.get("beside", 0):
            subject = subject.in_company(self.peer, beside)
        return peers.train(method, self.peer, subject, self.judge.base, folder, rate=rate, counts=counts, **sizes)

    def random_edit(self, folder: Path) -> Path:
        """An edit of the largest density at random positions: memory does not depend on which they are."""
        model, subject = self.judge.model, Given.of(self.config.tuning[0])
        weights = attention_weights(model)
        sizes = {n: torch.arange(round(w.numel() * max(self.config.densities))) for n, w in weights.items()}
        parts = (ZeroedWeights(random_positions(sizes, weights, 0)), subject.rows(model))
        edit = Edit(parts, model.edits.fingerprint(*weights), {"noun": subject.noun})
        edit_file.save(edit, folder / own_methods.EDIT)
        return folder


def digest_of(folder: Path) -> str:
    """Hex sha256 of the published files in a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".edit"):
            digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def code() -> dict[str, str]:
    """The code that decides each method's training, read once."""
    peer = code_of(*BASES, subject_case.loss_of, peers.train)
    return {method.name: peer for method in PEERS} | {
        "neurons": code_of(LOCATING, own_methods.search),
        "tuned": code_of(TUNING, "photopic.learning.subject.collage", own_methods.values),
        RESIDUAL.name: code_of("photopic.tune.subject.token_residual", own_methods.residual),
    }
