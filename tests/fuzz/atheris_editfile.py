"""The same fuzzer under libFuzzer's coverage guidance: ``pip install '.[fuzz]'``, then

    python tests/fuzz/atheris_editfile.py -max_total_time=600 out/fuzz/atheris

An input that fails is printed and kept by libFuzzer as ``crash-...``.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)] if str(ROOT) not in sys.path else []

with atheris.instrument_imports(include=["photopic.core"]):
    from photopic.core.edits import file as edit_file
from photopic.core.errors import EditFileError  # noqa: E402
from tests.fuzz.corpus import files  # noqa: E402
from tests.fuzz.fuzz_editfile import mutated  # noqa: E402

SEEDS = list(files().values())


def read(content: bytes) -> None:
    """Anything raised here is a find."""
    try:
        edit = edit_file.from_bytes(content, "fuzzed")
    except EditFileError as error:
        assert "\n" not in str(error)
    else:
        assert edit_file.to_bytes(edit) == content


def mutate(content: bytes, most: int, seed: int) -> bytes:
    """Our changes, which keep the checksum right, half of the time; libFuzzer's own otherwise."""
    if seed % 2:
        return atheris.Mutate(content, most)
    rng = random.Random(seed)
    return mutated(content if len(content) > 8 else rng.choice(SEEDS), rng, SEEDS)[:most]


if __name__ == "__main__":
    folders = [Path(argument) for argument in sys.argv[1:] if not argument.startswith("-")]
    for folder in folders[:1]:  # the corpus it starts from
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files().items():
            (folder / name).write_bytes(content)
    atheris.Setup(sys.argv, read, custom_mutator=mutate)
    atheris.Fuzz()
