"""The edit file: the same bytes on each save, everything back on load, and nothing but EditFileError for anything else."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from photopic.core import editfile
from photopic.core.describe import describe
from photopic.core.editfile import from_bytes, load, save, to_bytes
from photopic.core.edits import Edit, EditStack, Shut, TokenRows, Values
from photopic.core.errors import EditError, EditFileError
from photopic.core.fingerprint import Fingerprint, fingerprint

SIZES = {"m.weight": 600, "m.bias": 20}


def module(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(30, 20)


BASE = fingerprint({"m": module()}, "tiny-base", SIZES)
support = st.fixed_dictionaries(
    {name: st.sets(st.integers(0, size - 1), max_size=size) for name, size in SIZES.items()}
)


def tensors(positions: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(sorted(found), dtype=torch.int64) for name, found in positions.items()}


@st.composite
def specs(draw: st.DrawFn) -> Callable[[], Edit]:
    """How to make an edit; made in the test, as the checker of annotations draws random numbers, which strategies must not."""
    shut = draw(support)
    rest = {name: draw(st.sets(st.integers(0, size - 1), max_size=30)) - shut[name] for name, size in SIZES.items()}
    seed, bits = draw(st.integers(0, 9)), draw(st.sampled_from([32, 16, 2]))
    token = draw(st.sampled_from([None, "<mine>", "<mïne>", '<"\\>', "🐻"]))
    dtype = draw(st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
    leaves = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=5)
    )
    values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=2), max_leaves=3)
    provenance = draw(st.dictionaries(st.text(max_size=4), values, max_size=3))
    return lambda: _make(shut, rest, seed, bits, token, dtype, provenance)


def _make(
    shut: dict[str, set[int]],
    rest: dict[str, set[int]],
    seed: int,
    bits: int,
    token: str | None,
    dtype: torch.dtype,
    provenance: dict,
) -> Edit:
    parts: list[Any] = []
    torch.manual_seed(seed)
    if any(shut.values()):
        parts.append(Shut(tensors(shut)))
    if any(rest.values()):
        indices = tensors(rest)
        parts.append(Values.rounded(indices, {name: torch.randn(len(found)) for name, found in indices.items()}, bits))
    if token or not parts:
        rows = {"text_encoder": torch.randn(5).to(dtype), "text_encoder_2": torch.randn(3).to(dtype)}
        parts.append(TokenRows(token or "<mine>", rows))
    return Edit(tuple(parts), BASE, provenance)


def sample() -> Edit:
    torch.manual_seed(0)
    indices = tensors({"m.weight": range(100, 300, 3), "m.bias": [1, 5, 7, 8, 9, 11]})
    values = {name: torch.randn(len(found)) for name, found in indices.items()}
    parts = (
        Shut(tensors({"m.weight": range(0, 90, 7)})),
        Values.rounded(indices, values, 2),
        Values.rounded(tensors({"m.weight": [400, 401]}), {"m.weight": torch.randn(2)}, 16),
        TokenRows("<mine>", {"text_encoder": torch.randn(6)}),
    )
    return Edit(parts, BASE, {"method": "concept neurons", "seed": 3, "config": {"steps": 200, "lr": 0.02}})


def assert_same(a: Edit, b: Edit) -> None:
    assert a.base == b.base and a.provenance == b.provenance and len(a.parts) == len(b.parts)
    for one, other in zip(a.parts, b.parts, strict=True):
        assert type(one) is type(other)
        for field in ("indices", "values", "rows"):
            x, y = getattr(one, field, {}), getattr(other, field, {})
            assert list(x) == list(y) and all(x[n].dtype == y[n].dtype and torch.equal(x[n], y[n]) for n in x)
        assert getattr(one, "bits", 0) == getattr(other, "bits", 0) and getattr(one, "token", "") == getattr(
            other, "token", ""
        )


@settings(max_examples=30, deadline=None, database=None)
@given(specs())
def test_everything_survives_the_file_and_saves_to_the_same_bytes(spec: Callable[[], Edit]) -> None:
    edit = spec()
    content = to_bytes(edit)
    back = from_bytes(content)
    assert_same(edit, back)
    assert to_bytes(back) == content == to_bytes(edit)


def test_saving_twice_gives_identical_files_whatever_the_order_of_insertion(tmp_path: Path) -> None:
    edit = sample()
    shuffled = Edit(
        (Shut(dict(reversed(edit.parts[0].indices.items()))), *edit.parts[1:]),  # type: ignore[union-attr]
        edit.base,
        dict(reversed(edit.provenance.items())),
    )
    save(edit, tmp_path / "a.edit"), save(shuffled, tmp_path / "b.edit")
    save(load(tmp_path / "a.edit"), tmp_path / "c.edit")
    assert (
        (tmp_path / "a.edit").read_bytes() == (tmp_path / "b.edit").read_bytes() == (tmp_path / "c.edit").read_bytes()
    )
    assert sorted(os.listdir(tmp_path)) == ["a.edit", "b.edit", "c.edit"]


def test_the_bytes_are_these_on_every_machine() -> None:
    import hashlib

    base = Fingerprint("x", "0" * 64, {"m.weight": ""}, {"m.weight": (2, 2)})
    edit = Edit((Shut({"m.weight": torch.tensor([1, 2])}),), base, {"seed": 1, "lr": 0.1})
    assert (
        hashlib.sha256(to_bytes(edit)).hexdigest() == "c8aa095ab348e43f9e81707f22a8a0177e3581270ea97ee09038ae9a44a43a0c"
    )


def test_the_file_is_a_safetensors_file_with_one_metadata_key(tmp_path: Path) -> None:
    save(sample(), tmp_path / "a.edit")
    with safetensors.safe_open(tmp_path / "a.edit", "pt") as file:
        assert list(file.metadata()) == ["photopic"]
        metadata = json.loads(file.metadata()["photopic"])
        assert metadata["base"]["name"] == "tiny-base" and metadata["provenance"]["seed"] == 3
        assert torch.equal(file.get_tensor("3.rows.text_encoder"), sample().parts[3].rows["text_encoder"])  # type: ignore[union-attr]


CONTENT = to_bytes(sample())


def refused(content: bytes) -> str:
    with pytest.raises(EditFileError) as error:
        from_bytes(content, "bear.edit")
    assert str(error.value).startswith("bear.edit: ") and "\n" not in str(error.value)
    return str(error.value)


@settings(max_examples=150, deadline=None, database=None)
@given(st.integers(0, 8 * len(CONTENT) - 1))
def test_any_flipped_bit_is_refused(bit: int) -> None:
    damaged = bytearray(CONTENT)
    damaged[bit // 8] ^= 1 << bit % 8
    refused(bytes(damaged))


@settings(max_examples=60, deadline=None, database=None)
@given(st.integers(0, len(CONTENT) - 1))
def test_any_truncation_is_refused(length: int) -> None:
    refused(CONTENT[:length])


@settings(max_examples=60, deadline=None, database=None)
@given(st.binary(max_size=200))
def test_any_other_bytes_are_refused(content: bytes) -> None:
    refused(content)
    refused(CONTENT + content + b"x")
    refused(struct.pack("<Q", len(content)) + content)


def forged(change: Any) -> bytes:
    """A file with changed metadata, everything else as the writer would have made it, checksum included."""
    length = struct.unpack("<Q", CONTENT[:8])[0]
    header = json.loads(CONTENT[8 : 8 + length])
    metadata = json.loads(header["__metadata__"]["photopic"])
    change(metadata)
    metadata.pop("checksum", None)
    metadata["checksum"] = editfile._checksum(metadata, CONTENT[8 + length :])
    header["__metadata__"]["photopic"] = editfile._canonical(metadata)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + CONTENT[8 + length :]


def put(*path: Any) -> Any:
    *way, key, value = path

    def change(metadata: Any) -> None:
        for step in way:
            metadata = metadata[step]
        metadata[key] = value

    return change


def test_a_forged_file_without_a_change_is_the_same_file() -> None:
    assert forged(lambda metadata: None) == CONTENT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("format", 2), "expected format version 1, found 2"),
        (put("extra", 1), "metadata: expected the fields"),
        (put("provenance", []), "provenance: expected an object"),
        (put("base", "sketch", "zz"), "base: sketch"),
        (put("tensors", 0, 1, [2**40, 2**40]), r"m\.bias: expected a shape"),
        (put("tensors", 0, 1, [-20]), r"m\.bias: expected a shape"),
        (put("tensors", 0, 1, [20.0]), r"m\.bias: expected a shape"),
        (put("tensors", 0, 2, "="), r"m\.bias: expected a sketch"),
        (put("tensors", 0, 0, "n.bias"), "names sorted"),
        (put("tensors", 1, 1, [10, 30]), r"m\.weight"),
        (put("parts", 0, "kind", "rank"), "part 0: kind: expected shut, values or token, found 'rank'"),
        (put("parts", 0, "tensors", 0, 1, 12), r"0\.indices: m\.weight: expected 12 positions, found 13"),
        (put("parts", 0, "tensors", 0, 1, 601), "between 1 and 600 positions"),
        (put("parts", 0, "tensors", 0, 0, 2), "rows of tensor number"),
        (put("parts", 0, "tensors", 0, 0, True), "rows of tensor number"),
        (put("parts", 0, "tensors", []), r"tensor 0\.indices: expected"),
        (put("parts", 1, "bits", 8), "bits: expected 32, 16 or 2, found 8"),
        (put("parts", 1, "bits", 32), r"tensor 1\.levels: not expected"),
        (put("parts", 3, "token", "a b"), "without spaces"),
        (put("parts", 3, "rows", "text_encoder", ["F32", 2**40]), r"tensor 3\.rows\.text_encoder: expected"),
        (put("parts", 3, "rows", "text_encoder", ["I64", 3]), "floating-point type"),
        (put("parts", [None]), "part 0: kind"),
        (put("parts", {}), "parts: expected a list"),
        (lambda metadata: metadata["parts"].pop(), r"tensor 3\.rows\.text_encoder: not expected"),
        (lambda metadata: metadata["parts"][0]["tensors"].append([1, 1, 0]), "numbers sorted and once each"),
    ],
)
def test_what_is_wrong_is_named(change: Any, message: str) -> None:
    import re

    assert re.search(message, refused(forged(change)))


def test_metadata_that_is_not_canonical_is_refused() -> None:
    length = struct.unpack("<Q", CONTENT[:8])[0]
    header = json.loads(CONTENT[8 : 8 + length])
    header["__metadata__"]["photopic"] = json.dumps(json.loads(header["__metadata__"]["photopic"]), indent=1)
    text = json.dumps(header, separators=(",", ":")).encode()
    assert "canonical" in refused(struct.pack("<Q", len(text)) + text + CONTENT[8 + length :])


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 50_000, "NaN", "9" * 5000, '{"a":1e999}', "null", '"\\ud800"']
)
def test_hostile_json_is_refused(text: str) -> None:
    refused(struct.pack("<Q", len(text)) + text.encode())
    header = json.dumps({"__metadata__": {"photopic": text}}).encode()
    refused(struct.pack("<Q", len(header)) + header)


def test_a_header_longer_than_the_file_is_refused_before_it_is_read() -> None:
    assert "header" in refused(struct.pack("<Q", 2**63) + b"{}")


def test_other_safetensors_files_are_not_edits() -> None:
    assert "not a photopic edit" in refused(safetensors.torch.save({"a": torch.zeros(2)}, {"format": "pt"}))


def test_missing_files_and_places_are_named(tmp_path: Path) -> None:
    with pytest.raises(EditFileError, match=r"no\.edit: cannot be read \(No such file"):
        load(tmp_path / "no.edit")
    with pytest.raises(EditFileError, match="cannot be read"):
        load(tmp_path)
    with pytest.raises(EditFileError, match="cannot be written"):
        save(sample(), tmp_path / "none" / "a.edit")


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(sample(), tmp_path / "a.edit")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    other = Edit((Shut(tensors({"m.bias": [1]})),), BASE)
    with pytest.raises(EditFileError, match=r"a\.edit: cannot be written \(No space left on device\); free some space"):
        save(other, tmp_path / "a.edit")
    assert (tmp_path / "a.edit").read_bytes() == CONTENT and os.listdir(tmp_path) == ["a.edit"]


def test_a_loaded_edit_is_refused_on_another_base_and_recognised_on_a_half_copy(tmp_path: Path) -> None:
    edit = Edit(sample().parts[:3], BASE)
    save(edit, tmp_path / "a.edit")
    loaded = load(tmp_path / "a.edit")
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        model = module().to(dtype)
        EditStack({"m": model}).add(loaded)
        assert model.weight.view(-1)[[0, 7, 14]].tolist() == [0.0, 0.0, 0.0]
        with pytest.raises(EditError, match=r"tiny-base \(\w{12}\).* is other \(\w{12}\)"):
            EditStack({"m": module(1).to(dtype)}, name="other").add(loaded)


def test_the_description_counts_what_the_file_holds() -> None:
    found = describe(sample())
    assert found.file_bytes == len(CONTENT) and found.tokens == ("<mine>",)
    assert [row.count for row in found.tensors] == [13, 6, 67, 2, 6]
    assert found.count == 13 + 6 + 67 + 2 and found.size == 620 and found.naive_bytes == 4 * found.count
    entries = safetensors.torch.load(CONTENT)
    stored = sum(tensor.numel() for name, tensor in entries.items() if name.endswith(".indices"))
    assert found.index_bytes == stored
    assert found.tensors[0].density == 13 / 600 and 0 < found.tensors[0].entropy_bytes < found.tensors[0].naive_bytes
    json.dumps(found.to_dict())
