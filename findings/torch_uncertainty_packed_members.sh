#!/usr/bin/env bash
# torch-uncertainty's packed transformer layers mix their ensemble members, in the layer norm and in the self-attention.
#
# Expected: a packed ensemble is `num_estimators` networks in one, in groups of channels: what one member computes is its own.
#           `PackedLayerNorm` and `PackedMultiheadAttention` are `nn.LayerNorm` and `nn.MultiheadAttention` of each member.
# Happens:  the norm's groups are the wrong way round: one group for all members, as many as members where `first=True`.
#           The attention projects each member to its query, key and value, one member after another, and cuts the row in
#           three as if it were all queries, all keys, all values: heads compare the query of one member with the key of
#           another and read the value of a third. Three different tensors go through other code, which is right.
# Hurt:     a member whose features grow changes all others, each layer further; the disagreement of the members, for which
#           one packs an ensemble, is not that of independent networks. Shapes fit, training works.
# Instead:  `norm.num_groups = num_estimators` after construction, and `attention(x, x.clone(), x.clone())`.
# Known:    a report of 2025 on the norm with `num_estimators=1` was mended; no report of either found.
# Seen (2026-11): member 0 of 4 times ten, relative change of member 1's output: packed linear layer 0, norm 0.81, attention
#           1.29, encoder layer 0.77; mended 0. The attention of one tensor and of three equal ones differ by 125 %.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check torch==2.13.0 numpy==2.4.6 einops==0.8.2
"$folder/venv/bin/pip" install -qq --disable-pip-version-check --no-deps torch-uncertainty==0.13.0  # its layers need no more
cat > "$folder/finding.py" <<'EOF'
import sys
from importlib.metadata import distribution

import torch

package = distribution("torch-uncertainty")
sys.path.append(str(package.locate_file("torch_uncertainty")))  # its layers alone, without lightning and torchvision
from layers.packed import PackedLayerNorm, PackedLinear, PackedMultiheadAttention, PackedTransformerEncoderLayer  # noqa: E402

MEMBERS, SIZE = 4, 16


class Mended(PackedTransformerEncoderLayer):
    """The layer with norms in groups, and with an attention that is given three tensors."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.norm1.num_groups = self.norm2.num_groups = MEMBERS

    def _sa_block(self, x, attn_mask, key_padding_mask, is_causal=False):
        return self.self_attn(x, x.clone(), x.clone())[0]


def influence(layer):
    """Relative change of member 1's output when member 0's input is taken times ten: 0 for independent members."""
    torch.manual_seed(1)
    x = torch.randn(2, 5, MEMBERS * SIZE)  # (batch, tokens, members x channels)
    louder = x.clone()
    louder[..., :SIZE] *= 10
    before, after = (layer(given)[..., SIZE : 2 * SIZE] for given in (x, louder))
    return ((after - before).norm() / before.norm()).item()


torch.manual_seed(0)
torch.set_grad_enabled(False)
sizes = {"num_estimators": MEMBERS, "alpha": MEMBERS}
norm = PackedLayerNorm(SIZE, **sizes)
attention = PackedMultiheadAttention(SIZE, 2, batch_first=True, **sizes).eval()
options = {"dim_feedforward": 32, "batch_first": True, **sizes}
found = {
    "PackedLinear": influence(PackedLinear(SIZE, SIZE, **sizes)),
    f"PackedLayerNorm ({norm.num_groups} group)": influence(norm),
    "PackedMultiheadAttention(x, x, x)": influence(lambda x: attention(x, x, x)[0]),
    "PackedMultiheadAttention(x, copy, copy)": influence(lambda x: attention(x, x.clone(), x.clone())[0]),
    "PackedTransformerEncoderLayer": influence(PackedTransformerEncoderLayer(SIZE, 2, **options).eval()),
    "the same, mended": influence(Mended(SIZE, 2, **options).eval()),
}
print(f"torch-uncertainty {package.version}, torch {torch.__version__}; {MEMBERS} members, change of one by another")
for name, value in found.items():
    print(f"{name}: {value:.3f}")
x = torch.randn(2, 5, MEMBERS * SIZE)
own = torch.nn.functional.layer_norm(x.view(2, 5, MEMBERS, SIZE), (SIZE,)).flatten(2)  # each member by itself
print(f"largest difference of the norm to each member's own: {(norm(x) - own).abs().max():.3f}")
same, copies = attention(x, x, x)[0], attention(x, x.clone(), x.clone())[0]
print(f"the attention of equal numbers, one tensor or three: relative difference {(same - copies).norm() / copies.norm():.3f}")
values = list(found.values())
if min(values[1], values[2], values[4]) < 0.05 or max(values[0], values[3], values[5]) > 1e-5:
    sys.exit("no longer so: a member's output does not depend on another's input")
EOF
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -I -W ignore "$folder/finding.py"
