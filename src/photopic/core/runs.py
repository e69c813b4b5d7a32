"""A run folder: the configuration, a JSONL log and checkpoints from which an interrupted run goes on exactly.

Checkpoints are safetensors (no pickle), written beside the old one and renamed, so that a kill at any moment leaves either the
old checkpoint or the new one.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from photopic.core.errors import DivergedError, PhotopicError
from photopic.core.files import finite, share_as_usual, write_atomically

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.jsonl"
LOCK = "lock"  # empty; it stays, since taking it away would let two have it
DIVERGED = "diverged"  # holds the identity of the computation that will not come to an end
CONFIG = "config.json"
BOOKS = (LOG, LOCK, DIVERGED, CONFIG)  # what a run keeps of itself before there is anything to go on from
RANK = "RANK"  # environment variable of torch: the number of this process among those that compute one run


class RunMismatchError(PhotopicError):
    """A run folder holds another configuration than the one asked to continue it."""


def is_first_process() -> bool:
    """Whether this process is the one that writes, of those that ``accelerate launch`` started for one run."""
    return os.environ.get(RANK, "0") == "0"


class RunInUseError(PhotopicError):
    """Another process is writing to a run folder."""


class Run:
    """One run in one folder.

    Args:
        folder: Created if missing. A folder that holds a run with the same configuration is continued.
        config: A dataclass or mapping of JSON values; a different one in the folder is refused.

    Raises:
        RunMismatchError: If the folder was made with another configuration; the message names the first difference.
    """

    def __init__(self, folder: str | Path, config: Any = None):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.started = time.monotonic()
        self.identity = ""
        if config is not None:
            # through JSON and back, so that tuples compare as the lists that they become
            self._bind(json.loads(json.dumps(asdict(config) if is_dataclass(config) else config)))  # type: ignore[arg-type]

    def _bind(self, config: dict[str, Any]) -> None:
        path = self.folder / CONFIG
        if path.exists():
            try:
                found = dict(json.loads(path.read_text()))
            except (ValueError, TypeError) as error:
                raise PhotopicError(f"{path}: is damaged: {error}; use another folder or delete this one") from error
            if found != config and (self.folder / DIVERGED).exists():
                self._clear()
                write_atomically(path, json.dumps(config, indent=1, sort_keys=True).encode())
                return
            for key in sorted(config.keys() | found.keys()):
                if config.get(key) != found.get(key):
                    raise RunMismatchError(
                        f"{self.folder}: holds a run with {key}={found.get(key)!r}, asked for {config.get(key)!r}; "
                        "use another folder or delete this one"
                    )
        else:
            write_atomically(path, json.dumps(config, indent=1, sort_keys=True).encode())

    def bound(self, identity: str) -> Run:
        """The same folder for one computation: checkpoints carry ``identity``, and others are refused."""
        run = Run(self.folder)
        run.identity = identity
        return run

    def part(self, name: str) -> Run:
        """A folder inside for one stage of several, bound to the same computation."""
        return Run(self.folder / name).bound(self.identity)

    @contextmanager
    def held(self) -> Iterator[None]:
        """A block in which no other process takes the folder; the system frees it when this process ends, however it ends.

        Raises:
            RunInUseError: If another has it.
        """
        if not is_first_process():  # the first holds it for all
            yield
            return
        with (self.folder / LOCK).open(
            "a"
        ) as file:  # closed with it goes the lock; shared file systems lock no folders
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunInUseError(
                    f"{self.folder}: another process is writing this run; wait for it, or use another folder"
                ) from None
            yield

    @contextmanager
    def computing(self) -> Iterator[None]:
        """A block that has the folder for itself; where it diverges, one with other settings may have the folder after it.

        Raises:
            RunInUseError: If another process has it.
        """
        with self.held():
            marker = self.folder / DIVERGED
            if marker.exists() and marker.read_text() != self.identity:
                self._clear()
            marker.unlink(missing_ok=True)  # while this runs the folder is not to be had
            try:
                yield
            except DivergedError:
                write_atomically(marker, self.identity.encode())
                raise

    def _clear(self) -> None:
        """Take away what a computation left here; what others put into the folder stays."""
        for name in (CHECKPOINT, LOG, DIVERGED):
            for path in self.folder.rglob(name):
                path.unlink()

    def checkpoint(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Replace the checkpoint by the state after ``step`` steps; ``resume`` gives it back."""
        self.save(tensors, {"step": step, "identity": self.identity})

    def resume(self) -> tuple[dict[str, Tensor], int] | None:
        """The last checkpoint as (tensors, steps done), or None before the first.

        Raises:
            RunMismatchError: If it belongs to another computation.
        """
        found = self.load()
        if found is None:
            return None
        tensors, state = found
        self.check(state)
        return tensors, int(state["step"])

    def check(self, state: Mapping[str, Any]) -> None:
        """Refuse the state of another computation.

        Raises:
            RunMismatchError: Names the folder.
        """
        if state.get("identity", "") != self.identity:
            raise RunMismatchError(
                f"{self.folder}: holds another run (data, model or options differ); use another folder or delete this one"
            )

    def log(self, **values: Any) -> None:
        """Append one line to ``log.jsonl``; the elapsed seconds of this process are added."""
        line = json.dumps(finite({"elapsed_s": round(time.monotonic() - self.started, 3), **values}))
        with (self.folder / LOG).open("a") as file:
            file.write(line + "\n")

    def forget_after(self, step: int) -> None:
        """Drop the log lines of steps that are done again, after a kill between two checkpoints."""
        if (lines := read_log(self.folder)) or (self.folder / LOG).is_file():
            kept = [json.dumps(line) + "\n" for line in lines if line.get("step", 0) <= step]
            write_atomically(self.folder / LOG, "".join(kept).encode())

    def save(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Replace the checkpoint by ``tensors`` and the JSON-able ``state``, atomically."""
        from safetensors.torch import save_file  # torch with it, which a run without checkpoints needs not

        path = self.folder / CHECKPOINT
        temporary = path.with_suffix(".tmp")
        # copies: safetensors refuses views that share memory, and a learner goes on writing to its own
        packed = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        try:
            save_file(packed, temporary, metadata={"photopic": json.dumps(state, sort_keys=True)})
            share_as_usual(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The last checkpoint as (tensors, state), or None before the first.

        Raises:
            PhotopicError: If it is damaged.
        """
        path = self.folder / CHECKPOINT
        if not path.exists():
            return None
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
                return tensors, json.loads(file.metadata()["photopic"])
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise PhotopicError(f"{path}: is damaged: {error}; copy it again, or delete it to begin anew") from error


def goes_on(folder: Path) -> bool:
    """Whether a run folder holds something to go on from, a checkpoint or what a method keeps in files of its own."""
    return any(path.is_file() and path.name not in BOOKS for path in folder.rglob("*"))


def read_log(folder: str | Path) -> list[dict[str, Any]]:
    """The lines that ``Run.log`` wrote, without a last one that a kill cut short; none where there is no log."""
    path = Path(folder) / LOG
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    # a kill cuts at most the last line, which then has no end
    return [json.loads(line) for line in lines if line.endswith("\n")]


def optimizer_tensors(optimizer: Optimizer, prefix: str = "optimizer.") -> dict[str, Tensor]:
    """The state of an optimizer as named tensors; ``load_optimizer`` is the inverse."""
    import torch

    return {
        f"{prefix}{index}.{key}": torch.as_tensor(value)
        for index, values in optimizer.state_dict()["state"].items()
        for key, value in values.items()
    }


def load_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor], prefix: str = "optimizer.") -> None:
    """Put back what ``optimizer_tensors`` took; learning rates and groups stay as constructed."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            index, key = name[len(prefix) :].split(".", 1)
            state.setdefault(int(index), {})[key] = tensor
    # the groups as constructed: a checkpoint of another learning rate is refused before, by its identity
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
