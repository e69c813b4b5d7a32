"""Measures the race: which setting each method gets, what its files draw, and what they cost; all kept."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks.harness.cache import NotMeasured
from benchmarks.harness.code import code_of
from benchmarks.harness.subjects import TOKEN, JudgedModel, token_prompts, unrelated_prompts
from benchmarks.tune.race import applying, memory, own_methods
from benchmarks.tune.race.making import Trainer, Way, digest_of
from benchmarks.tune.race.plan import PEERS, RESIDUAL, VALUES, Method, RaceConfig, Tried, chosen, token
from benchmarks.tune.race.subject_case import Given
from photopic.core.edits import file as edit_file
from photopic.data import splits
from photopic.models.text_to_image.handle import TextToImage

T = TypeVar("T")
SEED = 7_000_000  # of the samples of the test; of the tuning 1,000,000 more
Force = Callable[[], tuple[TextToImage, AbstractContextManager[Any]]]


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
class Measured:
    """One subject customised one way; the arrays hold one number a picture."""

    similarity: np.ndarray
    alignment: np.ndarray
    drift: np.ndarray
    size_bytes: int
    seconds: float


class Race(Trainer):
    """The race on a model: settings by the rule, pictures, and costs."""

    def __init__(self, judge: JudgedModel, config: RaceConfig):
        super().__init__(judge, config)
        self._chosen: dict[str, Tried] = {}
        self.merged: dict[str, Any] = {}  # what `composing.setting_of` chose, by kind

    def setting(self, method: Method) -> Tried:
        """What the rule of `plan.chosen` takes from the method's grid on the tuning subject."""
        if method.name not in self._chosen:
            self._chosen[method.name] = chosen(self.tried(method))
        return self._chosen[method.name]

    def tried(self, method: Method) -> list[Tried]:
        """The grid on the tuning subject."""
        name, config = self.config.tuning[0], self.config
        found = []
        for rate in method.rates[: config.rates]:
            if method is VALUES:
                located = self._located(name, config.composed)
                made = self.made("tuned", name, rate, config.counts, located=located, bits=16)
            else:
                made = self.made(method.name, name, rate, config.counts)
            for steps in config.counts:
                similarity, _, drift = self.drawn(made / str(steps), name, config.tuning_samples, SEED + 1_000_000)
                found.append(Tried(rate, steps, float(similarity.mean()), float(drift.mean())))
        return found

    def _located(self, name: str, density: float | None) -> Path:
        """The folder of a subject's concept neurons at a density, by a search of its own at the default rate."""
        steps = max(self.config.counts)
        return self.made("neurons", name, 0.0, (steps,), density=density) / str(steps)

    def _counts(self, name: str, setting: Tried) -> tuple[int, ...]:
        """The chosen number of steps; all of the grid for the subject it was tuned on, whose training is there."""
        return self.config.counts if name == self.config.tuning[0] else (setting.steps,)

    def folder(self, way: Way, name: str) -> Path:
        """The published file of a way and a subject, in its folder; made if it is not there."""
        if way.method == "token_residual":
            short = {"steps": 4} if self.config.batch < 8 else {}  # the quick form
            return self.made("token_residual", name, 0.0, (0,), **short) / "default"
        if way.method != "neurons":
            setting = self.setting(next(peer for peer in PEERS if peer.name == way.method))
            if way.company:
                beside, steps = self.config.company
                return self.made(way.method, name, setting.rate, (steps,), beside=beside) / str(steps)
            return self.made(way.method, name, setting.rate, self._counts(name, setting)) / str(setting.steps)
        located = self._located(name, way.density)
        if way.bits is None:
            return located
        setting = self.setting(VALUES)
        if way.company:
            beside, steps = self.config.company
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

    def in_force(
        self, folders: Sequence[Path], names: Sequence[str], merge: tuple[str, float, float | None] | None = None
    ) -> tuple[TextToImage, AbstractContextManager[applying.Applied]]:
        """The model to draw with, and the context in which the files are in force on it."""
        edits = [folder / own_methods.EDIT for folder in folders if (folder / own_methods.EDIT).exists()]
        if edits:
            return self.judge.model, applying.edits_applied(self.judge.model, self.base_state, edits)
        rows = [self.row_file(name) for name in names]
        context = applying.applied(self.peer, self.base_state, folders, rows, self.base_file, merge=merge)
        return self.peer, context

    def pictures(
        self, key: Mapping[str, Any], force: Force, prompts: Sequence[str], seeds: Sequence[int], **options: Any
    ) -> np.ndarray:
        """Pictures drawn in a context, kept under what is in force."""
        judge = self.judge

        def make() -> np.ndarray:
            model, context = force()
            with context:
                return model.generate(
                    prompts, seeds=seeds, steps=judge.steps, guidance=judge.guidance, batch=24, **options
                )

        return judge.pictures({**key, "raced": True}, make, prompts, seeds)

    def drawn(
        self, folder: Path | None, name: str, count: int, seed: int = SEED, others: int | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(similarity, text alignment, drift) of a made file; None is the token's row alone, and has no drift."""
        judge = self.judge
        words = [prompt.replace(TOKEN, token(name)) for prompt in token_prompts(name, count)]
        asked = words
        if folder is not None and _is_residual(folder):  # its token stands for the noun
            asked = [word.replace(f"{token(name)} {splits.SUBJECTS[name]}", token(name)) for word in words]
        unrelated = unrelated_prompts(name, count if others is None else others)
        seeds = list(range(seed, seed + max(len(words), len(unrelated))))

        def force() -> tuple[TextToImage, AbstractContextManager[Any]]:
            if folder is None:
                edit = Given.of(name).row_edit(judge.model, judge.base)
                return judge.model, judge.model.edits.applied(edit)
            return self.in_force([folder], [name])

        key = {"of": digest_of(folder) if folder else f"row {name}"}
        scores = judge.oracle.score(self.pictures(key, force, asked, seeds[: len(words)]))
        similarity = (scores.embedding.numpy() @ judge.truth(name).T).mean(1)
        alignment = judge.oracle.text_alignment(scores, words)
        plain = judge.judged(None, unrelated, seeds[: len(unrelated)])
        if folder is None:
            return similarity, alignment, np.zeros(len(unrelated))
        moved = judge.oracle.score(self.pictures(key, force, unrelated, seeds[: len(unrelated)])).embedding.numpy()
        return similarity, alignment, 1 - (plain.embedding * moved).sum(1)

    def measured(self, way: Way | None, name: str) -> Measured:
        """One way and subject of the test; None is the base with the token's row."""
        folder = self.folder(way, name) if way else None
        size, seconds = self.facts(way, name) if way else (0, 0.0)
        arrays = self.drawn(folder, name, self.config.samples, others=self.config.others)
        return Measured(*arrays, size, seconds)

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

        result: dict[str, float] = self.cache.value(key, measure)
        return result

    def peak(self, way: Way) -> int | None:
        """Peak bytes of a way's trainings, if `measure_peaks` kept them: of values the larger of search and tuning."""
        found: list[Any] = [if_kept(self.cache.value, self._peak_key(method), _not_here) for method in way.trainings]
        return max(map(int, found)) if all(found) else None

    def _peak_key(self, method: str) -> dict[str, Any]:
        sizes = [self.config.batch, self.config.preservation]
        return {"peak": method, "sizes": sizes, "code": self.code[method], "measured by": code_of(memory.peak_of)}

    def measure_peaks(self) -> None:
        """Peaks of all trainings on the tuning subject; to be called before anything else in a process of one thread."""
        _ = self.peer, self.judge.base
        for method in (*(peer.name for peer in PEERS), "neurons", "tuned", RESIDUAL.name):

            def measure(method: str = method) -> int:
                folder = memory.scratch()
                own: dict[str, dict[str, Any]] = {
                    "neurons": {"density": max(self.config.densities)},
                    RESIDUAL.name: {"steps": 4},
                }
                more = own.get(method, {})
                if method == "tuned":
                    more = {"located": self.random_edit(folder), "bits": 16}
                subject = Given.of(self.config.tuning[0])
                return memory.peak_of(self.steps_of(method, subject, folder, 1e-5, (4,), **more))

            self.cache.value(self._peak_key(method), measure)
            print(f"peak {method}", flush=True)


def _not_here() -> None:
    raise NotMeasured


def _is_residual(folder: Path) -> bool:
    path = folder / own_methods.EDIT
    return path.exists() and edit_file.load(path).provenance.get("method", "").endswith("token_residual")
