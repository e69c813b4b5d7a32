#!/usr/bin/env bash
# torchmetrics' relative average spectral error is too large by the number of pixels in its window: 64 times by default.
#
# Expected: `RelativeAverageSpectralError` is 100 times the root mean square error over the mean of the target, so that pictures
#           that are 10 % too bright everywhere have a RASE of 10, and about so whatever the window.
# Happens:  the local means of the target are taken by a filter that is a mean already, and divided by the window's pixels once
#           more: the error is divided by a 64th of the mean. Twice the window is four times the error.
# Hurt:     tables of fused, upscaled or restored pictures: numbers in the thousands that fit no published table, and a ranking
#           that the choice of the window reverses where two papers chose it differently.
# Instead:  divide by window_size ** 2, or compute it: 100 / target.mean() * ((preds - target) ** 2).mean().sqrt().
# Known:    no report found; sewar, by which it is tested, divides twice likewise.
# Seen (2026-11): target 0.5 everywhere, prediction 0.55: 160 with a window of 4, 640 with 8 (default), 2560 with 16; 10 is right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check torch==2.13.0 numpy==2.4.6 torchmetrics==1.9.0
cat > "$folder/finding.py" <<'EOF'
import sys

import torch
import torchmetrics
from torchmetrics.image import RelativeAverageSpectralError

target = torch.full((2, 3, 64, 64), 0.5)
bright = 1.1 * target
right = (100 / target.mean() * ((bright - target) ** 2).mean().sqrt()).item()
print(f"torchmetrics {torchmetrics.__version__}, torch {torch.__version__}; 10 % too bright everywhere: {right:.1f} is right")
found = {size: RelativeAverageSpectralError(window_size=size)(bright, target).item() for size in (4, 8, 16)}
for size, value in found.items():
    print(f"window {size}: {value:.0f}, over its {size * size} pixels {value / size**2:.1f}")
if any(abs(value / size**2 - right) > 0.1 for size, value in found.items()):
    sys.exit("no longer so: the error is not that of the window's pixels too many")
EOF
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -I -W ignore "$folder/finding.py"
