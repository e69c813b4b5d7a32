"""Any file of another library as an edit, and an edit as a file of another library: the commands over this folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

from photopic.core.config import Existing, Flags
from photopic.core.edits import Edit
from photopic.core.events import Event, Steps
from photopic.core.method import method
from photopic.core.results import Report
from photopic.core.view import Section, Table, Text, View
from photopic.edit.interop.checkpoints import import_checkpoint
from photopic.edit.interop.comfy import export_comfy
from photopic.edit.interop.lora_export import export_lora
from photopic.edit.interop.lora_import import import_lora
from photopic.edit.interop.peft_states import export_peft_shira, export_peft_trainable_tokens
from photopic.edit.interop.recognise import kind_of_file
from photopic.edit.interop.textual_inversion import export_textual_inversion, import_textual_inversion
from photopic.models.text_to_image.handle import TextToImage

Format = Literal["diffusers", "kohya", "original", "comfyui", "shira", "tokens", "textual-inversion"]
WORST = 12  # rows of a report on the terminal, those with the largest errors


@method(
    command="edit import",
    examples=(
        "Example: photopic edit import style.safetensors --model stabilityai/sdxl -o style.edit",
        "The largest hundredth of a fine-tuning: photopic edit import tuned/ --keep 0.01 -o tuned.edit",
    ),
)
def import_file(
    model: TextToImage,
    file: Annotated[str, Flags("FILE"), Existing()],
    *,
    keep: Annotated[float | None, Gt(0), Le(1)] = None,
    token: str | None = None,
) -> Steps[Edit]:
    """Read a file or folder of another library as an edit: LoRA, peft adapter, ComfyUI differences, textual inversion, checkpoint.

    What it is is told from its content. Anything of it that an edit cannot hold is refused by name.

    Args:
        model: The model it was made for: a bundled name, a folder or a hub id.
        file: A safetensors file, or a folder as peft or diffusers writes it.
        keep: Of a checkpoint, the share of all entries to keep, those with the largest relative change; all by default.
        token: Of a textual inversion, the word; by default that of the file.

    Returns:
        The edit, bound to the model.

    Raises:
        EditError: If the file is of no kind that is read, or does not fit the model; names the first thing that does not.

    Example:
        >>> import_file(model, "style.safetensors").touched()  # doctest: +SKIP
    """
    yield Event("reading")
    path = Path(file)
    readers: Mapping[str, Callable[[], Edit]] = {
        "lora": lambda: import_lora(path, model),
        "textual-inversion": lambda: import_textual_inversion(path, model, token=token),
        "checkpoint": lambda: import_checkpoint(path, model, keep=keep),
    }
    kind = kind_of_file(path)
    edit = readers[kind]()
    facts = {key: value for key, value in edit.provenance.items() if key != "method"}
    return replace(edit, provenance=facts | {"format": kind})


def export_view(report: Report) -> View:
    """What was written, what was lost, and the layers that lost most."""
    left_out, rows = report.values["left_out"], list(report.rows)
    numbers = [
        [key.replace("_", " "), value]
        for key, value in report.values.items()
        if isinstance(value, str | int | float) and not isinstance(value, bool)
    ]
    lost = f"left out: {', '.join(left_out)}" if left_out else "nothing was left out"
    blocks: list[Any] = [Table(["", ""], numbers), Text(lost)]
    if rows:
        rows.sort(key=lambda row: -row.get("relative_error", 0.0))
        header = [key.replace("_", " ") for key in rows[0]]
        blocks.append(Table(header, [list(row.values()) for row in rows[:WORST]], "Written, worst first"))
    return View("Export", [Section("", blocks)])


@method(
    command="edit export",
    examples=(
        "Example: photopic edit export bear.edit --to kohya --rank 16 -o bear.safetensors",
        "Without loss, for ComfyUI: photopic edit export bear.edit --to comfyui -o bear.safetensors",
    ),
    view=export_view,
    page=False,
)
def export_file(
    edit: Edit,
    model: TextToImage,
    *,
    to: Format,
    output: Annotated[str, Flags("--output", "-o", "--out")],
    rank: Annotated[int, Ge(1)] = 16,
    half: bool = True,
    token: str | None = None,
) -> Steps[Report]:
    """Write an edit as a file of another library, and say what it loses there.

    Args:
        edit: An edit file.
        model: The base it was made for: a bundled name, a folder or a hub id.
        to: A LoRA in the naming of diffusers, of kohya, or of a transformer's original layout, ComfyUI differences, peft SHiRA or
            TrainableTokens adapters, or a textual inversion.
        output: The file to write; for shira and tokens a new folder.
        rank: Of a LoRA, the largest rank of a layer.
        half: Of ComfyUI differences, whether they are stored as float16.
        token: Of a textual inversion, which word, where the edit has several.

    Returns:
        One row a tensor or word, with its error where there is one; in the values what was ``left_out``.

    Raises:
        EditError: If the model is not the edit's base, or nothing of the edit fits into the format.

    Example:
        >>> export_file(edit, model, to="kohya", output="bear.safetensors").values["left_out"]  # doctest: +SKIP
    """
    yield Event("writing")
    writers: Mapping[str, Callable[[], Report]] = {
        "diffusers": lambda: export_lora(edit, output, model, rank=rank),
        "kohya": lambda: export_lora(edit, output, model, rank=rank, naming="kohya"),
        "original": lambda: export_lora(edit, output, model, rank=rank, naming="original"),
        "comfyui": lambda: export_comfy(edit, output, model, half=half),
        "shira": lambda: export_peft_shira(edit, output, model),
        "tokens": lambda: export_peft_trainable_tokens(edit, output, model),
        "textual-inversion": lambda: export_textual_inversion(edit, output, token=token),
    }
    report = writers[to]()
    return replace(report, provenance={key: value for key, value in report.provenance.items() if key != "method"})
