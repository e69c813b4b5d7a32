"""Edits to and from the files of other libraries: LoRA, peft, ComfyUI, textual inversion, dense checkpoints, the hub."""

from photopic.edit.interop.checkpoints import import_checkpoint
from photopic.edit.interop.comfy import export_comfy
from photopic.edit.interop.files import export_file, import_file
from photopic.edit.interop.hub import hub_files, load_from_hub, model_card, save_to_hub
from photopic.edit.interop.lora_export import export_lora
from photopic.edit.interop.lora_import import import_lora
from photopic.edit.interop.peft_states import export_peft_shira, export_peft_trainable_tokens
from photopic.edit.interop.textual_inversion import export_textual_inversion, import_textual_inversion

__all__ = [
    "export_comfy",
    "export_file",
    "export_lora",
    "export_peft_shira",
    "export_peft_trainable_tokens",
    "export_textual_inversion",
    "hub_files",
    "import_checkpoint",
    "import_file",
    "import_lora",
    "import_textual_inversion",
    "load_from_hub",
    "model_card",
    "save_to_hub",
]
