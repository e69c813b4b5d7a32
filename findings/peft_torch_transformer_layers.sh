#!/usr/bin/env bash
# LoRA on torch's own transformer layers: trained, then gone in eval(); and on `out_proj` never there at all.
#
# Expected: an adapter that is active acts, in train() and in eval().
# Happens:  - nn.TransformerEncoderLayer in eval() takes a fused kernel that reads linear1.weight and linear2.weight
#             itself. The adapted layer answers with its base weight: the LoRA has no effect at all, with gradients on
#             or off. In train() it acts.
#           - nn.MultiheadAttention reads out_proj.weight likewise, in both modes. A LoRA there has no effect and gets
#             no gradient, so it stays at its start; the merged model, though, has it.
# Hurt:     LoRA on open_clip-like towers, ViTs and small transformers made of torch's layers: the training loss falls,
#           the evaluation shows the base model; a wide target list trains fewer layers than it counts.
# Instead:  torch.backends.mha.set_fastpath_enabled(False), or evaluate after merge_and_unload(); target the whole
#           MultiheadAttention (peft has a layer for it) and not its out_proj.
# Known:    huggingface/peft issue 761 (adapters for open_clip) tells of errors in eval() here; now it is silent.
# Seen (2026-11): effect on the output 0.41 in train(), 0 in eval(), 0.41 merged; out_proj: 0 in both modes, 0.85
#           merged.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check \
  torch==2.13.0 numpy==2.4.6 peft==0.21.0 transformers==5.23.0 accelerate==1.15.0
cat > "$folder/finding.py" <<'EOF'
import sys

import peft
import torch
from peft import LoraConfig, get_peft_model
from torch import nn


class SelfAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x)[0]


def effects(model, targets):
    """Relative effect of an active LoRA on the output in train(), in eval() and merged; no dropout anywhere."""
    with torch.no_grad():
        base = model.eval()(x)
    wrapped = get_peft_model(model, LoraConfig(r=4, init_lora_weights=False, target_modules=targets))
    outputs = {"train()": wrapped.train()(x), "eval()": wrapped.eval()(x)}
    with torch.no_grad():
        outputs["eval(), no gradients"] = wrapped(x)
        torch.backends.mha.set_fastpath_enabled(False)
        outputs["eval(), without the fast path"] = wrapped(x)
        torch.backends.mha.set_fastpath_enabled(True)
        outputs["merged"] = wrapped.merge_and_unload()(x)
    return {name: ((y.detach() - base).norm() / base.norm()).item() for name, y in outputs.items()}


torch.manual_seed(0)
x = torch.randn(2, 6, 16)
print(f"peft {peft.__version__}, torch {torch.__version__}")
layer = effects(nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True), ["linear1", "linear2"])
print("TransformerEncoderLayer, linear1 and linear2:", ", ".join(f"{k} {v:.3f}" for k, v in layer.items()))
attention = effects(SelfAttention(), ["out_proj"])
print("MultiheadAttention, out_proj:", ", ".join(f"{k} {v:.3f}" for k, v in attention.items()))
vanishes = layer["train()"] > 0.1 and layer["eval()"] == layer["eval(), no gradients"] == 0 and layer["merged"] > 0.1
if not vanishes or max(attention["train()"], attention["eval()"]) > 1e-4 or attention["merged"] < 0.1:
    sys.exit("no longer so: the adapter acts where it did not, or does not where it did")
EOF
HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 "$folder/venv/bin/python" -I "$folder/finding.py"
