#!/usr/bin/env bash
# Compel: two words at weight 0 are both half there; beside a word at 0, a word at 0.5 acts in full on the rest of the prompt.
#
# Expected: a down-weighted fragment is blended with the prompt in which it is masked out, the closer to 0 the nearer to that; at
#           weight 0 it does not matter which word stands there.
# Happens:  each down-weighted fragment adds one embedding without it alone, with the weight tan((1 - w) * 90 degrees), and all
#           are averaged: with two words at 0 each is still present in the other's half. At other positions (the end tokens
#           among them) n words at 0 act with (n - 1) / n of their strength; 0.5 beside 0 acts with 1.
# Hurt:     prompts that weigh down several things: the more words are weighed down, the less each of them is, and a sweep of
#           one weight does nothing behind the words while another stands at 0.
# Instead:  leave out what shall weigh nothing, and weigh down one fragment of a prompt at most ("(cat, dog)0.5").
# Known:    there are reports of `.and()` at weight 0 and of what becomes of a single word; none of several words found.
# Seen (2026-11): which word A is matters, as a share of weight 1, in "(A)0 b c" 0; "(A)0 b (c)0" 50 %; "(A)0 b (c)0 d (e)0"
#           67 %; "(A)0.5 b c" 50 %; "(A)0.5 b (c)0.5" 67 %; "(A)0.5 b (c)0" 100 % (a small CLIP of random weights).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check \
  torch==2.13.0 numpy==2.4.6 compel==2.5.1 transformers==5.23.0 diffusers==0.42.0
cat > "$folder/finding.py" <<'EOF'
import string
import sys
from importlib.metadata import version

import torch
from compel import Compel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

letters = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]  # every word is one letter
vocabulary = {token: i for i, token in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
begin, end = len(letters), len(letters) + 1
tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)
torch.manual_seed(0)
config = CLIPTextConfig(
    vocab_size=len(vocabulary),
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    bos_token_id=begin,
    eos_token_id=end,
    pad_token_id=end,
)
compel = Compel(tokenizer=tokenizer, text_encoder=CLIPTextModel(config).eval())


def rest(prompt):
    """The prompt's embedding at the positions behind its words (the end tokens)."""
    with torch.no_grad():
        return compel(prompt)[0, 12:]  # (77 - 12, 32)


def apart(first, second, others):
    return (rest(f"{first} {others}") - rest(f"{second} {others}")).norm()


def share(weight, others):
    """How much it matters whether the first word is "a" or "z", as a share of how much it matters at weight 1."""
    return (apart(f"(a){weight}", f"(z){weight}", others) / apart("a", "z", others)).item()


print(f"compel {version('compel')}, transformers {version('transformers')}, torch {torch.__version__}")
found = {}
for weight, others, wanted in (
    (0, "b c d e f", 0),
    (0, "b (c)0 d e f", 0),
    (0, "b (c)0 d (e)0 f", 0),
    (0.5, "b c d e f", 0.5),
    (0.5, "b (c)0.5 d e f", 0.5),
    (0.5, "b (c)0 d e f", 0.5),
):
    value = share(weight, others)
    found[weight, others] = round(value, 2)
    print(f"(A){weight} {others}: which word A is matters {100 * value:.0f} % as much as at weight 1; {100 * wanted:.0f} expected")
if list(found.values()) != [0, 0.5, 0.67, 0.5, 0.67, 1]:
    sys.exit("no longer so: a fragment's weight acts whatever the other weights are")
EOF
HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 "$folder/venv/bin/python" -I -W ignore "$folder/finding.py"
