"""The edit file: the same bytes on each save, everything back on load, and nothing but EditFileError for anything else."""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from photopic.core.editfile import content as editfile_content
from photopic.core.edits import DenseDelta, Edit, EditStack, SparseWeights, TokenEmbedding, ZeroedWeights
from photopic.core.edits.file import from_bytes, load, save, to_bytes
from photopic.core.errors import EditError, EditFileError
from photopic.core.fingerprint import fingerprint
from photopic.core.identity import Fingerprint
from photopic.edit.inspect import describe
from tests.fuzz.corpus import edits as examples
from tests.fuzz.fuzz_editfile import sealed
from tests.processes import started

ROOT = Path(__file__).resolve().parents[4]
SIZES = {"m.weight": 600, "m.bias": 20}


def module(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(30, 20)


BASE = fingerprint({"m": module()}, "tiny-base", SIZES)
KILLS = int(os.environ.get("PHOTOPIC_KILLS", "5"))
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
        parts.append(ZeroedWeights(tensors(shut)))
    if any(rest.values()):
        indices = tensors(rest)
        parts.append(
            SparseWeights.rounded(indices, {name: torch.randn(len(found)) for name, found in indices.items()}, bits)
        )
    if token or not parts:
        rows = {"text_encoder": torch.randn(5).to(dtype), "text_encoder_2": torch.randn(3).to(dtype)}
        parts.append(TokenEmbedding(token or "<mine>", rows))
    return Edit(tuple(parts), BASE, provenance)


def sample() -> Edit:
    torch.manual_seed(0)
    indices = tensors({"m.weight": range(100, 300, 3), "m.bias": [1, 5, 7, 8, 9, 11]})
    values = {name: torch.randn(len(found)) for name, found in indices.items()}
    parts = (
        ZeroedWeights(tensors({"m.weight": range(0, 90, 7)})),
        SparseWeights.rounded(indices, values, 2),
        SparseWeights.rounded(tensors({"m.weight": [400, 401]}), {"m.weight": torch.randn(2)}, 16),
        TokenEmbedding("<mine>", {"text_encoder": torch.randn(6)}),
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
        (ZeroedWeights(dict(reversed(edit.parts[0].indices.items()))), *edit.parts[1:]),  # type: ignore[union-attr]
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
    base = Fingerprint("x", "0" * 64, {"m.weight": ""}, {"m.weight": (2, 2)})
    edit = Edit((ZeroedWeights({"m.weight": torch.tensor([1, 2])}),), base, {"seed": 1, "lr": 0.1})
    assert (
        hashlib.sha256(to_bytes(edit)).hexdigest() == "4785aa0e1db2e36c07eab5fe12220681f288292d3ee6a93b2bf1abee40170d97"
    )


def test_the_file_is_a_safetensors_file_with_one_metadata_key(tmp_path: Path) -> None:
    save(sample(), tmp_path / "a.edit")
    with safetensors.safe_open(tmp_path / "a.edit", "pt") as file:
        assert list(file.metadata()) == ["photopic"]
        metadata = json.loads(file.metadata()["photopic"])
        assert metadata["base"][0] == "tiny-base" and metadata["provenance"]["seed"] == 3
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


def forged(change: Any, content: bytes = CONTENT, data: bytes | None = None, fitting: bool = False) -> bytes:
    """A file with changed metadata or data, everything else as the writer would have made it, checksum included."""
    length = struct.unpack("<Q", content[:8])[0]
    data = content[8 + length :] if data is None else data
    header = json.loads(content[8 : 8 + length])
    metadata = json.loads(header["__metadata__"]["photopic"])
    change(metadata)
    return sealed(header, metadata, data, fitting=fitting)


def nothing(metadata: Any) -> None:
    """Change nothing."""


def put(*path: Any) -> Any:
    *way, key, value = path

    def change(metadata: Any) -> None:
        for step in way:
            metadata = metadata[step]
        metadata[key] = value

    return change


def test_a_forged_file_without_a_change_is_the_same_file() -> None:
    assert forged(nothing) == CONTENT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("format", 1), "expected format version 2, found 1; another version of photopic wrote it"),
        (put("format", True), "expected format version 2, found True"),
        (put("format", "photopic guard 1"), "expected an edit, found a file of photopic of another kind"),
        (put("format", 2.0), r"expected format version 2, found 2\.0"),
        (put("extra", 1), "metadata: expected the fields"),
        (put("provenance", []), "provenance: expected an object"),
        (put("base", 2, "zz"), "base: sketch"),
        (put("base", {}), "base: expected name, digest and sketch"),
        (put("base", 1, "A" * 42), "base: digest: expected 32 bytes in base64"),
        (put("base", 1, "A" * 42 + "B"), "base: digest: expected 32 bytes in base64"),
        (put("halves", {}), "halves: expected a list"),
        (put("halves", [0.0]), "halves: expected lengths"),
        (put("halves", [0, 0, 0]), "halves: expected [0-9] lengths"),
        (put("tensors", 0, 1, [2**40, 2**40]), r"m\.bias: expected a shape"),
        (put("tensors", 0, 1, [-20]), r"m\.bias: expected a shape"),
        (put("tensors", 0, 1, [20.0]), r"m\.bias: expected a shape"),
        (put("tensors", 0, 2, "="), r"m\.bias: expected a sketch"),
        (put("tensors", 0, 0, "n.bias"), "names sorted"),
        (put("tensors", 1, 1, [10, 30]), r"m\.weight"),
        (put("parts", 0, "kind", "rank"), "part 0: kind: expected one of shut, values, token, .*, found 'rank'"),
        (put("parts", 0, "tensors", 0, 1, 12), r"0\.indices: m\.weight: expected 12 positions, found 13"),
        (put("parts", 0, "tensors", 0, 1, 601), "between 1 and 600 positions"),
        (put("parts", 0, "tensors", 0, 0, 2), "rows of tensor number"),
        (put("parts", 0, "tensors", 0, 0, True), "rows of tensor number"),
        (put("parts", 0, "tensors", []), r"tensor 0\.indices: expected"),
        (put("parts", 1, "bits", 4), "bits: expected 32, 16, 8 or 2, found 4"),
        (put("parts", 1, "bits", 32), r"tensor 1\.levels: not expected"),
        (put("parts", 3, "token", "a b"), "without spaces"),
        (put("parts", 3, "rows", "text_encoder", ["F32", 2**40]), r"tensor 3\.rows\.text_encoder: expected"),
        (put("parts", 3, "rows", "text_encoder", ["I64", 3]), "floating-point type"),
        (put("parts", [None]), "part 0: kind"),
        (put("parts", {}), "parts: expected a list"),
        (lambda metadata: metadata["parts"].pop(), r"tensor 3\.rows\.text_encoder: not expected"),
        (lambda metadata: metadata["parts"][0]["tensors"].append([1, 1, 0]), "tensors sorted and once each"),
    ],
)
def test_what_is_wrong_is_named(change: Any, message: str) -> None:
    assert re.search(message, refused(forged(change)))


EXAMPLES = examples()


def fields(part: Any) -> dict[str, Any]:
    """Everything a part holds, tensors as their bytes."""

    def plain(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return str(value.dtype), tuple(value.shape), value.contiguous().view(-1).view(torch.uint8).tolist()
        return {name: plain(each) for name, each in value.items()} if isinstance(value, dict) else value

    return {name: plain(value) for name, value in vars(part).items()}


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_kind_of_part_comes_back_and_saves_to_the_same_bytes(name: str) -> None:
    edit = EXAMPLES[name]
    back = from_bytes(to_bytes(edit))
    assert [type(part) for part in back.parts] == [type(part) for part in edit.parts]
    assert [fields(part) for part in back.parts] == [fields(part) for part in edit.parts]
    assert to_bytes(back) == to_bytes(edit) and safetensors.torch.load(to_bytes(edit))


def test_large_parts_of_16_bits_stand_plain_and_coded_ones_are_still_read(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)).half()
    base = fingerprint({"m": nn.Linear(64, 64, bias=False)}, "random", ["m.weight"])
    edit = Edit((DenseDelta({"m.weight": weight}),), base)
    coded = to_bytes(edit)
    assert len(coded) < 0.93 * weight.nbytes + 700
    monkeypatch.setattr(editfile_content, "LARGE", weight.nbytes - 1)
    plain = to_bytes(edit)
    assert weight.numpy().tobytes() in plain
    for each in (plain, coded):
        assert_same(from_bytes(each), edit)
        assert to_bytes(from_bytes(each)) == plain
    monkeypatch.setattr(editfile_content, "LARGE", weight.nbytes)
    assert "expected coded numbers" in refused(plain)  # what is not large has one form


def test_another_process_writes_the_same_bytes_of_every_kind() -> None:
    code = (
        "import hashlib; from tests.fuzz.corpus import files\n"
        "print(hashlib.sha256(b''.join(content for _, content in sorted(files().items()))).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=200)
    expected = b"".join(to_bytes(edit) for _, edit in sorted(EXAMPLES.items()))
    assert done.stdout.split() == [hashlib.sha256(expected).hexdigest()], done.stderr


WRONG = {  # what may stand in a field, but in none of these
    "low_rank-float32": {"up": [[0, "F32", [20, 2]]], "down": [], "scales": {"m.conv": 1.0, "m.weight": 2}},
    "delta-float32": {"deltas": [[0, "F32", [2]]]},
    "residual-float32": {"tokens": [["text_encoder", [3, -9], "F32", 2]], "words": 3},
    "insertion-bfloat16": {"activation": 1, "scale": 1, "down": [["m", "BF16", [2, -4]]], "up": [["m", "I8", [5, 2]]]},
    "tuner-float32": {
        "branches": {"m.mlp": {"kind": "adapter"}, "m.attn": 1},
        "tensors": [["m.mlp/up", "F32", [4, 2]], ["m.attn/gate", "F32", [4]]],
        "scale": 1,
    },
    "head-bfloat16": {"labels": ["mug", 3], "weight": [["weight", "BF16", [2, -4]]], "bias": [["bias", "I8", [2]]]},
    "direction-float32": {"vectors": [["m.mid", "F32", [2, 1, 1]], ["m", "F32", [4]]]},
    "noise-float16": {"noise": [[0, "F16", [2, 3, 3]]]},
    "added-32": {"bits": 32.0, "delta": 1, "tensors": [[2, 67, 1.0], [0, 4, 1]]},
    "values-8": {"bits": "8", "delta": None, "tensors": {}},
}


@pytest.mark.parametrize(("name", "field"), [(name, field) for name, wrong in WRONG.items() for field in wrong])
def test_each_field_of_each_kind_is_checked_and_named(name: str, field: str) -> None:
    content = to_bytes(EXAMPLES[name])
    message = refused(forged(put("parts", 0, field, WRONG[name][field]), content))
    assert re.search(rf"part 0: {field}|tensor 0\.{field}|part 0: m\.", message), message

    def drop(metadata: Any) -> None:
        del metadata["parts"][0][field]

    assert "part 0: expected the fields" in refused(forged(drop, content))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("low_rank-float32", put("parts", 0, "scales", {"m.conv": 1.0}), "scales: expected one for each tensor"),
        ("low_rank-float32", put("parts", 0, "scales", "m.weight", 10**400), "scales"),
        ("low_rank-float32", put("parts", 0, "scales", "q", 1.0), "low-rank: q"),
        ("low_rank-float16", put("parts", 0, "up", 0, 2, [2, 2]), "m.conv|tensor 0"),
        ("insertion-float32", put("parts", 0, "activation", "tanh"), "insertion: expected one of identity"),
        ("tuner-float32", put("parts", 0, "branches", "m.mlp", "kind", "hypernetwork"), "expected a kind of adapter"),
        ("tuner-float32", put("parts", 0, "branches", "m.attn", "heads", 3), "a width that 3 heads divide"),
        ("tuner-float32", put("parts", 0, "branches", "m.mlp", "kind", "prefix"), "a prefix needs a query projection"),
        ("head-float32", put("parts", 0, "labels", ["mug", "mug"]), "head: expected one row"),
        ("head-float32", put("parts", 0, "bias", 0, 0, "biases"), "bias: expected one tensor of that name"),
        ("residual-float16", put("parts", 0, "words", " "), "expected words"),
        ("residual-float16", put("parts", 0, "words", "\n"), "expected words"),
        ("delta-float32", put("parts", 0, "deltas", 0, 2, [4, 5]), "expected a change of shape"),
        ("noise-float32", put("parts", 0, "noise", 0, 2, [18]), "start noise"),
        ("noise-float32", put("parts", 0, "noise", 0, 0, "drawn"), "noise: expected one tensor of that name"),
        ("values-2", put("parts", 0, "tensors", 1, 1, 66), r"m\.weight"),
    ],
)
def test_what_fits_no_part_is_refused_by_the_part(name: str, change: Any, message: str) -> None:
    assert re.search(message, refused(forged(change, to_bytes(EXAMPLES[name]), fitting=True)))


def stored(name: str) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """The data of a file and where each tensor stands in it."""
    content = to_bytes(EXAMPLES[name])
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    return content[8 + length :], {n: tuple(e["data_offsets"]) for n, e in header.items() if n != "__metadata__"}


@pytest.mark.parametrize("payload", [b"\x00\x00\xc0\x7f", b"\x01\x00\xa0\x7f", b"\x00\x00\x80\xff"])
@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("values-32", "0.values"),
        ("added-2", "0.levels"),
        ("values-8", "0.steps"),
        ("token-float32", "0.rows.text_encoder"),
        ("low_rank-float32", "0.up.2"),
        ("delta-float32", "0.deltas.0"),
        ("residual-float32", "0.tokens.text_encoder"),
        ("insertion-float32", "0.down.m"),
        ("tuner-float32", "0.tensors.m.attn/tokens"),
        ("head-float32", "0.weight.weight"),
        ("direction-float32", "0.vectors.m"),
        ("noise-float32", "0.noise.noise"),
    ],
)
def test_nan_and_infinity_are_refused_wherever_they_stand(name: str, tensor: str, payload: bytes) -> None:
    data, places = stored(name)
    start, _ = places[tensor]
    refused(forged(nothing, to_bytes(EXAMPLES[name]), data[:start] + payload + data[start + 4 :]))


@pytest.mark.parametrize(
    ("name", "tensor", "entries"),
    [
        ("values-8", "0.steps", struct.pack("<f", 0.0)),  # every value zero, with other codes
        ("values-8", "0.steps", struct.pack("<f", -0.01)),
        ("values-8", "0.steps", struct.pack("<f", 0.3)),  # not of 8 bits
        ("values-8", "0.values", b"\x80"),  # -128
        ("values-8", "0.values", bytes(4)),  # no code at an end
        ("values-2", "0.levels", struct.pack("<4f", 3, 2, 1, 0)),
        ("values-2", "0.levels", struct.pack("<4f", -0.0, 1, 2, 3)),
        ("values-2", "0.levels", struct.pack("<4f", 1, 1, 1, 1)),  # other codes for the same values
        ("values-2", "0.values", b"\x00"),  # levels that no value has
    ],
)
def test_values_have_one_form(name: str, tensor: str, entries: bytes) -> None:
    data, places = stored(name)
    start, _ = places[tensor]
    message = refused(forged(nothing, to_bytes(EXAMPLES[name]), data[:start] + entries + data[start + len(entries) :]))
    assert "tensor 0.values: m.bias: expected" in message


def test_parts_stand_in_the_order_in_which_they_act() -> None:
    edit = EXAMPLES["several"]
    backwards = Edit(edit.parts, edit.base, edit.provenance)
    object.__setattr__(backwards, "parts", edit.parts[::-1])
    assert "those that set entries first" in refused(to_bytes(backwards))


def test_a_saved_zero_is_the_zero_in_memory() -> None:
    indices = {"m.bias": torch.arange(5)}
    for bits in (2, 8):
        part = SparseWeights.rounded(indices, {"m.bias": torch.tensor([-1e-9, -0.0, 0.0, 127.0, 127.0])}, bits)
        back = from_bytes(to_bytes(Edit((part,), BASE))).parts[0]
        assert fields(back) == fields(part)


def test_positions_that_crowd_in_some_rows_cost_less() -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (256, 256)
    base = Fingerprint("x", "0" * 64, {"w": ""}, {"w": shape})
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[::16] = torch.rand((16, 256), generator=generator) < 0.5
    spread = mask.view(-1)[torch.randperm(mask.numel(), generator=generator)]
    sizes = [
        len(to_bytes(Edit((ZeroedWeights({"w": each.reshape(-1).nonzero().squeeze(1)}),), base)))
        for each in (mask, spread)
    ]
    assert sizes[0] < 0.7 * sizes[1], sizes


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("shut", put("tensors", 2, 1, [2**24, 2**24])),
        ("values-32", put("parts", 0, "tensors", 0, 1, 20)),
        ("delta-float32", put("parts", 0, "deltas", 0, 2, [2**24, 2**20])),
        ("low_rank-float32", put("parts", 0, "up", 0, 2, [2**20, 2**20])),
        ("noise-float32", put("parts", 0, "noise", 0, 2, [2**16, 2**16, 2**16])),
        ("token-float32", put("parts", 0, "rows", "text_encoder", ["F32", 2**47])),
        ("direction-float32", put("parts", 0, "vectors", 0, 2, [2**48] * 9)),
    ],
)
def test_what_is_claimed_is_refused_before_it_is_allocated(name: str, change: Any) -> None:
    content = to_bytes(EXAMPLES[name])
    forgery = forged(change, content, fitting=True)
    tracemalloc.start()
    try:
        refused(forgery)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_a_message_stays_one_line_and_deep_nesting_is_an_error_of_the_file() -> None:
    def rename(metadata: Any) -> None:
        metadata["tensors"][0][0] = "a\nb"
        metadata["tensors"][0][2] = "="

    assert "a\\nb" in refused(forged(rename))
    for depth in range(700, 1000, 7):
        deep: Any = []
        for _ in range(depth):
            deep = [deep]
        try:
            forgery = forged(put("base", 0, deep))
        except (RecursionError, EditFileError):
            break
        refused(forgery)


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
    with pytest.raises(EditFileError, match=r"no\.edit: expected a file, found nothing"):
        load(tmp_path / "no.edit")
    with pytest.raises(EditFileError, match="expected a file, found a folder"):
        load(tmp_path)
    os.mkfifo(tmp_path / "pipe.edit")  # to open it would wait for ever
    with pytest.raises(EditFileError, match="expected a file, found a pipe"):
        load(tmp_path / "pipe.edit")
    with pytest.raises(EditFileError, match="cannot be written"):
        save(sample(), tmp_path / "none" / "a.edit")


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(sample(), tmp_path / "a.edit")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    other = Edit((ZeroedWeights(tensors({"m.bias": [1]})),), BASE)
    with pytest.raises(EditFileError, match=r"a\.edit: cannot be written \(No space left on device\); free some space"):
        save(other, tmp_path / "a.edit")
    assert (tmp_path / "a.edit").read_bytes() == CONTENT and os.listdir(tmp_path) == ["a.edit"]


def test_a_loaded_edit_is_refused_on_another_base_and_recognised_on_a_half_copy(tmp_path: Path) -> None:
    edit = Edit(sample().parts[:3], BASE)
    save(edit, tmp_path / "a.edit")
    loaded = load(tmp_path / "a.edit")
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        model = module().to(dtype)
        stack = EditStack({"m": model})  # held: one that is collected takes its edits away
        stack.load(loaded)
        assert model.weight.view(-1)[[0, 7, 14]].tolist() == [0.0, 0.0, 0.0]
        with pytest.raises(EditError, match=r"tiny-base \(\w{12}\).* is other \(\w{12}\)"):
            EditStack({"m": module(1).to(dtype)}, name="other").load(loaded)


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


def save_in_turn(connection: Connection, first: Edit, second: Edit, path: Path) -> None:
    connection.send("ready")
    while True:
        save(second, path), save(first, path)


def test_a_save_killed_at_any_moment_leaves_one_of_the_two_files(tmp_path: Path) -> None:
    """A process that saves one edit and another in turn over the same file is killed at random moments."""
    path = tmp_path / "a.edit"
    large = Edit(
        (ZeroedWeights({"w": torch.arange(0, 2**20, 3)}),), Fingerprint("x", "0" * 64, {"w": ""}, {"w": (2**20,)})
    )
    edits = {to_bytes(sample()), to_bytes(large)}
    save(large, path)
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(KILLS):
        process, connection = started(save_in_turn, sample(), large, path)
        assert connection.recv() == "ready"
        time.sleep(0.2 * float(torch.rand((), generator=generator)))
        process.kill(), process.join()
        load(path)
        assert path.read_bytes() in edits
        seen.add(path.read_bytes())
    assert seen <= edits
