"""Makes, keeps and measures: every training, batch of pictures and timing of the race, under the hash of what decides it."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import json
import os
import shutil
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from benchmarks.harness.cache import Kept, code_of, key_hash
from benchmarks.harness.subjects import DRAWING, LOCATING, TOKEN, TUNING, Bench, token_prompts, unrelated_prompts
from benchmarks.tune.race import applying, memory, own_methods, peers, subject_case
from benchmarks.tune.race.plan import PEERS, VALUES, Method, Settings, Tried, chosen, token
from benchmarks.tune.race.subject_case import Given, first_row
from photopic.core.edits import Edit, ZeroedWeights
from photopic.core.edits import file as edit_file
from photopic.core.runs import write_atomically
from photopic.data import splits
from photopic.models.text_to_image.attention_weights import attention_weights, random_positions
from photopic.models.text_to_image.handle import TextToImage

T = TypeVar("T")
SEED = 7_000_000  # of the samples of the test; of the tuning 1,000,000 more
RESIDUAL = "photopic.tune.subject.token_residual"
BASES = (
    "photopic.learning.subject.collage",
    "photopic.learning.losses.denoising",
    "photopic.learning.subject.examples",
    "photopic.learning.subject.preservation",
)


class NotMeasured(Exception):
    """Something was asked for that no run kept."""


class OnlyKept(Kept):
    """What is kept, to be read: what is not there raises ``NotMeasured`` instead of being made."""

    def _entry(self, key: Mapping[str, Any], make: Callable[[], Any]) -> dict[str, Any]:
        if not (self.folder / f"{key_hash(key)}.json").exists():
            raise NotMeasured
        return super()._entry(key, make)


def if_kept(measure: Callable[..., T], *arguments: Any) -> T | None:
    """What ``measure`` gives of the arguments, None where something of it is not kept.

    Example:
        >>> if_kept(abs, -3)
        3
    """
    try:
        return measure(*arguments)
    except NotMeasured:
        return None


@dataclass(frozen=True)
class Way:
    """One row of the table: a method, and for neurons the density and the bits of their values."""

    name: str
    method: str
    density: float | None = None
    bits: int | None = None  # of tuned values; None: shut only
    company: bool = False  # taught in company too, for as many steps as `Settings.company` says; for composing


@dataclass(frozen=True)
class Measured:
    """One subject customised one way; the arrays hold one number a picture."""

    similarity: np.ndarray
    alignment: np.ndarray
    drift: np.ndarray
    size_bytes: int
    seconds: float


def has_residual() -> bool:
    """Whether this version has token residuals; without them the row is left out."""
    return importlib.util.find_spec(RESIDUAL) is not None


def ways_of(settings: Settings) -> list[Way]:
    """All rows of the table but the base."""
    ways = [Way(peer.name, peer.name) for peer in PEERS]
    if has_residual():
        ways.append(Way("token_residual", "token_residual"))
    for density in settings.densities:
        label = f"{density:.0%}".rstrip("%")
        ways.append(Way(f"neurons_{label}pc", "neurons", density))
        ways += [Way(f"tuned{bits}_{label}pc", "neurons", density, bits) for bits in settings.bits[density]]
    return ways


class Race:
    """A bench, its settings and a second copy of the model that only peers touch."""

    def __init__(self, bench: Bench, settings: Settings):
        self.bench, self.settings, self.kept = bench, settings, bench.kept
        self.code = code()
        self._chosen: dict[str, Tried] = {}
        self.merged: dict[str, Any] = {}  # what `composing.setting_of` chose, by kind

    @cached_property
    def peer(self) -> TextToImage:
        """The model peers are trained and applied on."""
        model = self.bench.model
        return TextToImage(copy.deepcopy(model.pipeline), model.name, knows_emoji=model.knows_emoji)

    @cached_property
    def base_state(self) -> dict[str, Tensor]:
        """Copies of the base's tensors."""
        return {name: tensor.clone() for name, tensor in applying.state(self.bench.model).items()}

    @cached_property
    def base_file(self) -> Path:
        """The base UNet on disk."""
        path = self.kept.folder / "base-unet.safetensors"
        if not path.exists():
            tensors = {n.removeprefix("unet."): t for n, t in self.base_state.items() if n.startswith("unet.")}
            write_atomically(path, save(tensors))
        return path

    def row_file(self, name: str) -> Path:
        """The token's row where it is not trained, as a textual-inversion file; not counted as bytes of the peer."""
        path = self.kept.folder / f"row-{token(name).strip('<>')}.safetensors"
        if not path.exists():
            row = first_row(Given.of(name).rows(self.bench.model))
            write_atomically(path, save({token(name): row[None].clone()}, {"format": "pt"}))
        return path

    # -- making

    def made(self, method: str, name: str, rate: float, counts: Sequence[int], **more: Any) -> Path:
        """The folder of a training, made if it is not there."""
        settings, subject = self.settings, Given.of(name)
        sizes = {"batch": settings.batch, "preservation": settings.preservation}
        key = {
            "race": method, "subject": name, "data": subject.digest, "rate": rate, "counts": counts, **sizes,
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

        return self.kept.file(key, ".made", make)

    def steps_of(
        self, method: str, subject: Given, folder: Path, rate: float, counts: Sequence[int], **more: Any
    ) -> Iterator[int]:
        """The training of a method; every training of the race, kept or measured for memory, is this one."""
        sizes: dict[str, Any] = {"batch": self.settings.batch, "preservation": self.settings.preservation}
        if method == "neurons":
            return own_methods.search(self.bench.model, subject, folder, steps=max(counts), **sizes, **more)
        if method == "tuned":
            return own_methods.values(self.bench.model, subject, folder, rate=rate, counts=counts, **sizes, **more)
        if method == "token_residual":
            return own_methods.residual(self.bench.model, subject, folder, **more)
        if beside := more.get("beside", 0):
            subject = subject.in_company(self.peer, beside)
        return peers.train(method, self.peer, subject, self.bench.base, folder, rate=rate, counts=counts, **sizes)

    def setting(self, method: Method) -> Tried:
        """What the rule of `plan.chosen` takes from the method's grid on the tuning subject."""
        if method.name not in self._chosen:
            self._chosen[method.name] = chosen(self.tried(method))
        return self._chosen[method.name]

    def tried(self, method: Method) -> list[Tried]:
        """The grid on the tuning subject."""
        name, settings = self.settings.tuning[0], self.settings
        found = []
        for rate in method.rates[: settings.rates]:
            if method is VALUES:
                located = self._located(name, settings.composed)
                made = self.made("tuned", name, rate, settings.counts, located=located, bits=16)
            else:
                made = self.made(method.name, name, rate, settings.counts)
            for steps in settings.counts:
                sample = self.drawn(made / str(steps), name, settings.tuning_samples, SEED + 1_000_000)
                similarity, _, drift = sample
                found.append(Tried(rate, steps, float(similarity.mean()), float(drift.mean())))
        return found

    def _located(self, name: str, density: float | None) -> Path:
        """The folder of a subject's concept neurons at a density, by a search of its own at the default rate."""
        steps = max(self.settings.counts)
        return self.made("neurons", name, 0.0, (steps,), density=density) / str(steps)

    def _counts(self, name: str, setting: Tried) -> tuple[int, ...]:
        """The chosen number of steps; all of the grid for the subject it was tuned on, whose training is there."""
        return self.settings.counts if name == self.settings.tuning[0] else (setting.steps,)

    def folder(self, way: Way, name: str) -> Path:
        """The published file of a way and a subject, in its folder; made if it is not there."""
        if way.method == "token_residual":
            short = {"steps": 4} if self.settings.batch < 8 else {}  # the quick form
            return self.made("token_residual", name, 0.0, (0,), **short) / "default"
        if way.method != "neurons":
            setting = self.setting(next(peer for peer in PEERS if peer.name == way.method))
            if way.company:
                beside, steps = self.settings.company
                return self.made(way.method, name, setting.rate, (steps,), beside=beside) / str(steps)
            return self.made(way.method, name, setting.rate, self._counts(name, setting)) / str(setting.steps)
        located = self._located(name, way.density)
        if way.bits is None:
            return located
        setting = self.setting(VALUES)
        if way.company:
            beside, steps = self.settings.company
            more = {"located": located, "bits": way.bits, "beside": beside}
            return self.made("tuned", name, setting.rate, (steps,), **more) / str(steps)
        made = self.made("tuned", name, setting.rate, self._counts(name, setting), located=located, bits=way.bits)
        return made / str(setting.steps)

    def facts(self, way: Way, name: str) -> tuple[int, float]:
        """Bytes of the file and CPU seconds it took, the search included."""
        facts = json.loads((self.folder(way, name) / "facts.json").read_text())
        seconds = float(facts["seconds"])
        if way.bits is not None:
            seconds += json.loads((self._located(name, way.density) / "facts.json").read_text())["seconds"]
        return int(facts["bytes"]), seconds

    # -- drawing

    def in_force(
        self, folders: Sequence[Path], names: Sequence[str], merge: tuple[str, float, float | None] | None = None
    ) -> tuple[TextToImage, AbstractContextManager[applying.Applied]]:
        """The model to draw with, and the context in which the files are in force on it."""
        edits = [folder / own_methods.EDIT for folder in folders if (folder / own_methods.EDIT).exists()]
        if edits:
            return self.bench.model, applying.edits_applied(self.bench.model, self.base_state, edits)
        rows = [self.row_file(name) for name in names]
        context = applying.applied(self.peer, self.base_state, folders, rows, self.base_file, merge=merge)
        return self.peer, context

    def pictures(
        self,
        key: Mapping[str, Any],
        force: Callable[[], tuple[TextToImage, AbstractContextManager[Any]]],
        prompts: Sequence[str],
        seeds: Sequence[int],
        **options: Any,
    ) -> np.ndarray:
        """Pictures drawn in a context, kept under what is in force."""
        bench = self.bench
        key = {
            **key, "code": code_of(DRAWING),
            "raced": {"prompts": prompts, "seeds": seeds, "steps": bench.steps, "guidance": bench.guidance},
        }  # fmt: skip

        def make(path: Path) -> None:
            model, context = force()
            with context:
                images = model.generate(
                    prompts, seeds=seeds, steps=bench.steps, guidance=bench.guidance, batch=24, **options
                )
            write_atomically(path, save({"images": torch.from_numpy(images).contiguous()}))

        return load_file(self.kept.file(key, ".safetensors", make))["images"].numpy()

    def drawn(
        self, folder: Path | None, name: str, count: int, seed: int = SEED, others: int | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(similarity, text alignment, drift) of a made file; None is the token's row alone, and has no drift."""
        bench = self.bench
        words = [prompt.replace(TOKEN, token(name)) for prompt in token_prompts(name, count)]
        asked = words
        if folder is not None and _is_residual(folder):  # its token stands for the noun
            asked = [word.replace(f"{token(name)} {splits.SUBJECTS[name]}", token(name)) for word in words]
        unrelated = unrelated_prompts(name, count if others is None else others)
        seeds = list(range(seed, seed + max(len(words), len(unrelated))))

        def force() -> tuple[TextToImage, AbstractContextManager[Any]]:
            if folder is None:
                edit = Given.of(name).row_edit(bench.model, bench.base)
                return bench.model, bench.model.edits.applied(edit)
            return self.in_force([folder], [name])

        key = {"of": digest_of(folder) if folder else f"row {name}"}
        scores = bench.oracle.score(self.pictures(key, force, asked, seeds[: len(words)]))
        similarity = (scores.embedding.numpy() @ bench.truth(name).T).mean(1)
        alignment = bench.oracle.text_alignment(scores, words)
        plain = bench.judged(None, unrelated, seeds[: len(unrelated)])
        if folder is None:
            return similarity, alignment, np.zeros(len(unrelated))
        moved = bench.oracle.score(self.pictures(key, force, unrelated, seeds[: len(unrelated)])).embedding.numpy()
        return similarity, alignment, 1 - (plain.embedding * moved).sum(1)

    def measured(self, way: Way | None, name: str) -> Measured:
        """One way and subject of the test; None is the base with the token's row."""
        settings = self.settings
        folder = self.folder(way, name) if way else None
        size, seconds = self.facts(way, name) if way else (0, 0.0)
        arrays = self.drawn(folder, name, settings.samples, others=settings.others)
        return Measured(*arrays, size, seconds)

    # -- timing

    def applying(self, way: Way, name: str, rounds: int = 5) -> dict[str, float]:
        """Median CPU seconds to apply and to revert, and the smallest share of bits that came back."""
        folder = self.folder(way, name)
        key = {
            "applying": digest_of(folder),
            "rounds": rounds,
            "code": code_of(applying.applied, applying.edits_applied),
        }

        def measure() -> dict[str, float]:
            found = []
            for _ in range(rounds):
                _, context = self.in_force([folder], [name])
                with context as each:
                    pass
                found.append(each)
            return {
                "apply_s": statistics.median(each.apply_s for each in found),
                "revert_s": statistics.median(each.revert_s for each in found),
                "exact": min(each.exact for each in found),
            }

        result: dict[str, float] = self.kept.value(key, measure)
        return result

    def peak(self, way: Way) -> int | None:
        """Peak bytes of a training, if `measure_peaks` kept them; the values of neurons: the larger of search and tuning."""
        found = [self.kept_peak(method) for method in _trainings(way)]
        return max(found) if all(found) else None  # type: ignore[type-var]

    def kept_peak(self, method: str, measure: Callable[[], int] | None = None) -> int | None:
        """The peak of one training; None if nobody measured it and ``measure`` does not."""
        sizes = [self.settings.batch, self.settings.preservation]
        key = {"peak": method, "sizes": sizes, "code": self.code[method], "measured by": code_of(memory.peak_of)}
        if measure is None and not (self.kept.folder / f"{key_hash(key)}.json").exists():
            return None
        return self.kept.value(key, measure or (lambda: None))

    def measure_peaks(self) -> None:
        """Peaks of all trainings on the tuning subject; to be called before anything else in a process of one thread."""
        subject = Given.of(self.settings.tuning[0])
        methods = [
            *(method.name for method in PEERS),
            "neurons",
            "tuned",
            *(["token_residual"] if has_residual() else []),
        ]
        _ = self.peer, self.bench.base
        for method in methods:

            def measure(method: str = method) -> int:
                more: dict[str, Any] = {}
                folder = memory.scratch()
                if method == "tuned":
                    more = {"located": self.random_edit(folder), "bits": 16}
                if method == "neurons":
                    more = {"density": max(self.settings.densities)}
                if method == "token_residual":
                    more = {"steps": 4}
                return memory.peak_of(self.steps_of(method, subject, folder, 1e-5, (4,), **more))

            self.kept_peak(method, measure)
            print(f"peak {method}", flush=True)

    def random_edit(self, folder: Path) -> Path:
        """An edit of the default density at random positions: memory does not depend on which they are."""
        model, subject = self.bench.model, Given.of(self.settings.tuning[0])
        weights = attention_weights(model)
        sizes = {n: torch.arange(round(w.numel() * max(self.settings.densities))) for n, w in weights.items()}
        parts = (ZeroedWeights(random_positions(sizes, weights, 0)), subject.rows(model))
        edit = Edit(parts, model.edits.fingerprint(*weights), {"noun": subject.noun})
        edit_file.save(edit, folder / own_methods.EDIT)
        return folder


def _trainings(way: Way) -> list[str]:
    return [way.method, *(["tuned"] if way.bits is not None else [])]


def _is_residual(folder: Path) -> bool:
    path = folder / own_methods.EDIT
    return path.exists() and edit_file.load(path).provenance.get("method", "").endswith("token_residual")


def digest_of(folder: Path) -> str:
    """Hex sha256 of the published files in a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".edit"):
            digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def code() -> dict[str, str]:
    """The code that decides each method's training, read once."""
    peer = code_of(*BASES, subject_case.loss_of, peers.train, peers.learner, peers.Dense, peers.Row, peers.Adapter)
    found = {method.name: peer for method in PEERS}
    found["neurons"] = code_of(LOCATING, own_methods.search)
    found["tuned"] = code_of(TUNING, "photopic.learning.subject.collage", own_methods.values)
    if has_residual():
        found["token_residual"] = code_of(RESIDUAL, own_methods.residual)
    return found
