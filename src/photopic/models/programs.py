"""Classifiers as exported programs, ONNX files and programs of ``torch.export``: logits of pictures, and nothing inside.

ONNX files are run by onnxruntime (``pip install 'photopic[onnx]'``). Files of ``torch.export`` (.pt2) are refused: PyTorch reads
them by unpickling, which runs code of whoever wrote the file. A program that one's own code has loaded is taken as a module.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from photopic.core.errors import ModelError
from photopic.models.files import first_line, read_json

if TYPE_CHECKING:
    from torch.export import ExportedProgram

ONNX, EXPORTED = ".onnx", ".pt2"
TRAINED = {
    "batch_norm": 5,
    "dropout": 2,
    "instance_norm": 5,
}  # operation: which of its arguments says that it is in training


class Program(nn.Module):
    """A network that gives logits and shows neither gradients nor layers.

    Args:
        content: The hash of what makes it, bytes; a buffer, so that the model's digest is of it.
    """

    def __init__(self, content: bytes):
        super().__init__()
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)  # says where the pixels go, and in which numbers
        self.register_buffer("content", torch.frombuffer(bytearray(content), dtype=torch.uint8))


class OnnxProgram(Program):
    """An ONNX file with one input, pixels (n, channels, height, width), and logits as its first output.

    Args:
        file: The file.

    Raises:
        ModelError: If onnxruntime is missing, or does not take the file.
    """

    def __init__(self, file: Path):
        try:
            import onnxruntime
        except ImportError:
            raise ModelError(
                f"{file}: needs onnxruntime, which is not installed; pip install 'photopic[onnx]'"
            ) from None
        super().__init__(_digest(file))
        try:
            self.session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises a dozen types, none of which is public
            raise ModelError(f"{file}: expected an ONNX file, onnxruntime refuses it: {first_line(error)}") from None
        inputs = self.session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            found = ", ".join(f"{each.name} {each.shape}" for each in inputs)
            raise ModelError(f"{file}: expected one input (n, channels, height, width), found {found}")
        self._input, self._dtype = inputs[0].name, np.float16 if "float16" in inputs[0].type else np.float32

    def forward(self, pixels: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n classes"]:
        """Logits, on the device of the pixels; without gradients."""
        try:
            logits = self.session.run(None, {self._input: pixels.detach().cpu().numpy().astype(self._dtype)})[0]
        except Exception as error:  # as above; of another size or number of pictures than the file is for
            raise ValueError(first_line(error)) from error
        return torch.from_numpy(logits).to(pixels)


class TorchProgram(Program):
    """A program of ``torch.export``, loaded by the caller.

    Args:
        program: With one input of pixels.
        name: What messages call it.

    Raises:
        ModelError: If it was exported in training mode, and would write to its statistics.
    """

    def __init__(self, program: ExportedProgram, name: str):
        super().__init__(hashlib.sha256(program.graph_module.code.encode()).digest())
        for node in program.graph.nodes:
            operation = str(node.target).removeprefix("aten.").partition(".")[0]
            if node.args[TRAINED.get(operation, 99) :][:1] == (True,):
                raise ModelError(f"{name}: was exported in training mode ({node.name}); export network.eval()")
        self.module = program.module()  # its weights are parameters of it, and so in the digest

    def forward(self, pixels: Float[Tensor, "n channels height width"]) -> Any:
        """What the program gives: logits, or an output with ``.logits``."""
        return self.module(pixels)

    def train(self, mode: bool = True) -> TorchProgram:
        """Nothing: the mode was fixed when it was exported."""
        return self


def is_exported(model: Any) -> bool:
    """Whether a value is a program of ``torch.export``, which is not imported to find out."""
    module = sys.modules.get("torch.export")
    return module is not None and isinstance(model, module.ExportedProgram)


def is_program(name: str) -> bool:
    """Whether a name is that of an exported file.

    Example:
        >>> is_program("net.onnx"), is_program("owner/name")
        (True, False)
    """
    return Path(name).suffix.lower() in (ONNX, EXPORTED)


def read_program(name: str) -> OnnxProgram:
    """The program of an ONNX file.

    Raises:
        ModelError: If there is no such file, it is none, or it is one of ``torch.export``.
    """
    file = Path(name).expanduser()
    if not file.is_file():
        raise ModelError(f"{name}: no such file; check the spelling")
    if file.suffix.lower() == EXPORTED:
        raise ModelError(
            f"{name}: PyTorch reads {EXPORTED} files by unpickling, which runs code of whoever wrote them; export to ONNX, or load "
            "it in a function of your own and name that as module:factory"
        )
    return OnnxProgram(file)


def labels_beside(name: str) -> tuple[str, ...]:
    """The class names in the ``config.json`` beside a program's file, in the order of the logits.

    Raises:
        ModelError: If there is none.
    """
    config = read_json(Path(name).expanduser().parent, "config.json") or {}
    found = config.get("id2label")
    if not isinstance(found, dict) or set(found) != {str(index) for index in range(len(found))} or not found:
        raise ModelError(
            f"{name}: expected a config.json beside it with id2label, the name of every class by its number, found none; copy that "
            "of the network it was exported from, or give labels in Python"
        )
    return tuple(str(found[str(index)]) for index in range(len(found)))


def _digest(file: Path) -> bytes:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").digest()
