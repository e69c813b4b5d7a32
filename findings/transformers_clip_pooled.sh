#!/usr/bin/env bash
# With published CLIP configurations the pooled text embedding is read at an added word, not at the end of the text.
#
# Expected: the pooled embedding of CLIP is the state at the end-of-text token, which has seen the whole prompt.
# Happens:  many published configurations (SDXL's among them) say `eos_token_id: 2`, which was wrong; for it the model
#           takes the position of the largest id. That is end-of-text until a word is added: new ids are larger. With a
#           textual inversion in the prompt the pooled embedding is the state at its first vector: causal, so nothing
#           that stands behind the word counts. With the right id in the configuration it is where it should be.
# Hurt:     CLIP scores and retrieval of prompts with learnt words; the pooled condition of text-to-image models after
#           load_textual_inversion: what stands behind the word has no say in it. No warning.
# Instead:  `from_pretrained(..., eos_token_id=tokenizer.eos_token_id)`, or pool by hand.
# Known:    a comment in transformers' CLIP says that such configurations cannot take new tokens (pull request 24773);
#           diffusers adds tokens to them and does not say so.
# Seen (2026-11): swapping every word behind the added one moves the pooled embedding by exactly 0 with eos_token_id 2,
#           by 0.8 of its norm with 49407; with a known word in its place by 0.7 with both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check \
  torch==2.13.0 numpy==2.4.6 transformers==5.23.0
cat > "$folder/finding.py" <<'EOF'
import sys

import torch
import transformers
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

START, END = 49406, 49407  # CLIP's vocabulary; a word that is added gets 49408
ADDED = 49408


def pooled_and_states(eos_token_id, ids):
    torch.manual_seed(0)
    config = CLIPTextConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=32,
        eos_token_id=eos_token_id,
    )
    model = CLIPTextModelWithProjection(config).eval()
    model.resize_token_embeddings(ADDED + 1, mean_resizing=False)
    with torch.no_grad():
        output = model(ids)
        return output.text_embeds[0], model.text_projection(output.last_hidden_state[0])  # (32,), (tokens, 32)


def prompt(*words):
    return torch.tensor([[START, *words, END, END]])


print(f"transformers {transformers.__version__}, torch {torch.__version__}")
moved = {}
for name, word in (("a known word", 1929), ("an added word", ADDED)):
    for eos_token_id in (2, END):
        pooled, states = pooled_and_states(eos_token_id, prompt(320, word, 530, 518, 2117))
        other, _ = pooled_and_states(eos_token_id, prompt(320, word, 7, 8000, 11))
        place = (states - pooled).norm(dim=1).argmin().item()
        moved[name, eos_token_id] = ((other - pooled).norm() / pooled.norm()).item()
        print(f"{name} at position 2, end at 6, eos_token_id {eos_token_id}: pooled at position {place};", end=" ")
        print(f"other words behind it move it by {moved[name, eos_token_id]:.3f}")
if moved["an added word", 2] != 0 or min(v for k, v in moved.items() if k != ("an added word", 2)) < 0.05:
    sys.exit("no longer so: the pooled embedding is read elsewhere")
EOF
HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 "$folder/venv/bin/python" -I "$folder/finding.py"
