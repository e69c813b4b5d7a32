"""The kept digest: used while nothing changed, never when a file, a tensor or the entry itself did."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from photopic.core import fingerprint_cache
from photopic.core.edits.stack import EditStack
from photopic.core.fingerprint import fingerprint
from photopic.core.fingerprint_cache import LoadedDigest, cache_folder

POISON = "f" * 64  # in the cache, and nowhere else, so that whoever reports it has not hashed


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PHOTOPIC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return save(tmp_path / "m.safetensors", 0)


def save(path: Path, seed: int, size: int = 6) -> Path:
    generator = torch.Generator().manual_seed(seed)
    tensors = {"weight": torch.randn(size, 5, generator=generator), "bias": torch.randn(size, generator=generator)}
    save_file(tensors, path)
    return path


def load(path: Path, dtype: torch.dtype = torch.float32) -> tuple[dict[str, nn.Module], LoadedDigest]:
    tensors = load_file(path)
    layer = nn.Linear(5, len(tensors["bias"]))
    layer.load_state_dict(tensors)
    modules: dict[str, nn.Module] = {"m": layer.to(dtype).requires_grad_(False)}
    return modules, LoadedDigest(modules, [path], started=time.time() + 60)  # as if the file were a minute old


def poison(path: Path) -> Path:
    """Load once, so that there is an entry, and put another digest in."""
    assert load(path)[1].find() is not None
    (entry,) = Path(str(cache_folder())).iterdir()
    samples = json.loads(entry.read_text())["samples"]
    entry.write_text(json.dumps(fingerprint_cache._entry(entry, POISON, samples)))
    return entry


def test_an_unchanged_file_is_not_hashed_again(file: Path) -> None:
    modules, loaded = load(file)
    assert loaded.find() == fingerprint(modules, "tiny").digest
    poison(file)
    assert load(file)[1].find() == loaded.find() == POISON


def test_a_changed_file_is_noticed(file: Path) -> None:
    save(file, 0, size=400)
    poison(file)
    before, tensors = file.stat(), load_file(file)
    tensors["weight"][123, 2] += 1  # which no sample shows
    save_file(tensors, file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # the same size and, as after rsync -t, the same time
    modules, loaded = load(file)
    assert loaded.find() == fingerprint(modules, "tiny").digest != POISON
    save(file, 2, size=7)
    modules, loaded = load(file)
    assert loaded.find() == fingerprint(modules, "tiny").digest


def test_a_file_changed_after_loading_names_nothing_in_the_cache(file: Path) -> None:
    entry = poison(file)
    modules, loaded = load(file)
    save(file, 1)
    assert loaded.find() == fingerprint(modules, "tiny").digest
    file.unlink()
    assert loaded.find() == fingerprint(modules, "tiny").digest
    assert [POISON in each.read_text() for each in entry.parent.iterdir()] == [True]  # and nothing was written


def test_another_precision_has_another_entry(file: Path) -> None:
    poison(file)
    modules, loaded = load(file, torch.float16)
    assert loaded.find() == fingerprint(modules, "tiny").digest != POISON


def test_a_file_just_written_is_not_trusted(file: Path) -> None:
    modules, _ = load(file)
    assert LoadedDigest(modules, [file], started=time.time()).find() == fingerprint(modules, "tiny").digest
    assert not Path(str(cache_folder())).exists()


def test_a_tensor_changed_after_loading_is_noticed(file: Path) -> None:
    poison(file)
    modules, loaded = load(file)
    modules["m"].weight[0, 0] += 1  # type: ignore[operator, index]
    assert loaded.find() is None
    modules, loaded = load(file)
    modules["m"].weight = nn.Parameter(modules["m"].weight.clone())  # type: ignore[operator]
    assert loaded.find() is None
    modules, loaded = load(file)
    modules["m"].weight.data *= 1.01  # type: ignore[operator]  # which torch does not count
    assert loaded.find() is None
    modules, loaded = load(file)
    modules["m"].half()
    assert loaded.find() is None


def test_weights_that_are_not_in_the_files_are_noticed(file: Path) -> None:
    digests = []
    for seed in (0, 1):
        modules, _ = load(file)
        torch.manual_seed(seed)
        modules["new"] = nn.Linear(2, 2)  # drawn at random, as transformers does with a missing weight
        digests.append(LoadedDigest(modules, [file], started=time.time() + 60).find())
    assert digests[0] != digests[1]


@pytest.mark.parametrize("damage", ["", "{", "[]", "3", '{"digest": 3}', "[" * 100_000, "\0", "cut", "flipped"])
def test_a_damaged_entry_is_ignored_and_replaced(file: Path, damage: str) -> None:
    modules, loaded = load(file)
    digest = loaded.find()
    assert digest == fingerprint(modules, "tiny").digest
    (entry,) = Path(str(cache_folder())).iterdir()
    whole = entry.read_text()
    changed = digest[:-1] + ("0" if digest[-1] != "0" else "1")
    entry.write_text({"cut": whole[:-9], "flipped": whole.replace(digest, changed)}.get(damage, damage))
    assert load(file)[1].find() == digest
    assert entry.read_text() == whole


def test_an_entry_that_is_not_text_is_ignored(file: Path) -> None:
    entry = poison(file)
    entry.write_bytes(b"\xff\xfe\x00")
    modules, loaded = load(file)
    assert loaded.find() == fingerprint(modules, "tiny").digest


def test_an_unwritable_cache_is_no_error(file: Path, cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    modules, loaded = load(file)
    assert loaded.find() == fingerprint(modules, "tiny").digest


def test_where_the_cache_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == tmp_path / "cache" / "fingerprints"
    monkeypatch.delenv("PHOTOPIC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "photopic" / "fingerprints"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "photopic" / "fingerprints"


def write_often(path: Path, digest: str) -> None:
    for _ in range(50):
        fingerprint_cache._write(path, digest, "samples")


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="starting torch anew takes long")
def test_processes_writing_at_once_leave_a_whole_entry(tmp_path: Path) -> None:
    path, digests = tmp_path / "entry.json", ("a" * 64, "b" * 64)
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_often, args=(path, digest)) for digest in digests]
    for writer in writers:
        writer.start()
    while not path.exists():
        time.sleep(0.001)
    while any(writer.is_alive() for writer in writers):
        assert fingerprint_cache._read(path, "samples") in digests
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["entry.json"]


def test_a_stack_takes_the_kept_digest_until_the_weights_change(file: Path) -> None:
    poison(file)
    modules, loaded = load(file)
    stack = EditStack(modules, name="tiny", loaded=loaded)
    assert stack.fingerprint("m.weight").digest == POISON
    modules["m"].weight[0, 0] += 1  # type: ignore[operator, index]
    assert stack.fingerprint("m.weight").digest == fingerprint(modules, "tiny").digest
