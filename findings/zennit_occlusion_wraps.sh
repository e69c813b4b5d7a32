#!/usr/bin/env bash
# zennit's occlusion window goes round the picture: at the right edge it shows the left edge too, and both are counted twice.
#
# Expected: `Occlusion(window=8, stride=8)` slides a window over the picture; where the size is no multiple of the stride the last
#           window is cut off or moved back. A network that treats all pixels alike gives a symmetric map.
# Happens:  the window is moved by torch.roll, so that the part beyond an edge comes in on the opposite side: the mask of one
#           evaluation has four pieces in four corners, and its score is added to all of them.
# Hurt:     maps of 28 x 28 pictures (MNIST) or 300 x 300 with the default window of 8: two edges up to four times as hot as the middle,
#           an object at the right edge heats the left edge.
# Instead:  a stride that divides the picture's sides (7 for 28), or padding to a multiple.
# Known:    no report found (chr5tphr/zennit); 1.0.0 (for Python from 3.11.11) has the same lines.
# Seen (2026-11): all pixels alike, 28 x 28: rows 0 to 3 twice the middle, the corner four times; an object at the right edge alone:
#           50 % of the heat lies at the left edge. With stride 7: 0 %.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/pip" install -qq --disable-pip-version-check --no-deps zennit==0.5.1
cat > "$folder/finding.py" <<'EOF'
import sys
from importlib.metadata import distribution
from types import ModuleType

import torch
from torch import nn

package = distribution("zennit")
sys.modules["zennit"] = ModuleType("zennit")  # without its torchvision models and colour maps
sys.modules["zennit"].__path__ = [str(package.locate_file("zennit"))]
from zennit.attribution import Occlusion  # noqa: E402

total = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 1, bias=False))
nn.init.constant_(total[1].weight, 1 / 28**2)
flat, edge = torch.ones(1, 1, 28, 28), torch.zeros(1, 1, 28, 28)
edge[..., 10:14, 24:] = 1  # an object of 4 x 4 at the right edge


def attribute(picture, size):
    with torch.no_grad():
        return Occlusion(total, window=size, stride=size)(picture, lambda output: output)[1][0, 0]


print(f"zennit {package.version}, torch {torch.__version__}; default window and stride: 8")
even, odd = attribute(flat, 7), attribute(flat, 8)
ratios = (odd[0, 14] / odd[14, 14]).item(), (odd[0, 0] / odd[14, 14]).item()
print(f"all pixels alike: stride 7 heat {even.min():.3f} to {even.max():.3f}; stride 8 middle {odd[14, 14]:.3f}, "
      f"upper edge {odd[0, 14]:.3f}, corner {odd[0, 0]:.3f}")  # fmt: skip
share = {}
for size in (7, 8):
    heat = attribute(edge, size)
    share[size] = (heat[:, :4].sum() / heat.sum()).item()
    print(f"object at the right edge, stride {size}: {share[size]:.0%} of the heat in the leftmost 4 columns")
if even.max() - even.min() > 1e-6 or share[7] > 0:
    sys.exit("the comparison itself no longer holds")
if ratios[0] < 1.5 or share[8] < 0.2:
    sys.exit("no longer so: the window stays inside the picture")
EOF
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -I -W ignore "$folder/finding.py"
