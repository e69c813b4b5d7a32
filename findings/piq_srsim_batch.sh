#!/usr/bin/env bash
# piq's SR-SIM of a picture depends on the other pictures of its batch.
#
# Expected: `srsim(x, y, reduction="none")` gives every pair its own number, that of its paper's code for one picture; the
#           order of two methods does not depend on the batch size.
# Happens:  the saliency maps are brought to 0..1 by the smallest and the largest value of the whole batch, not of each
#           picture. As `SRSIMLoss` too. Of piq's thirteen full-reference measures tried it is the only one.
# Hurt:     tables of restored, compressed or generated pictures: the same file scores otherwise at batch size 1 and 16, and
#           among other neighbours.
# Instead:  one pair at a time.
# Known:    no report found.
# Seen (2026-11): five noisy pictures, two to a batch: a dark one alone 0.748, beside others 0.767 to 0.779; another alone 0.896,
#           beside one of the others 0.870: which of two pictures is better depends on the neighbour.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check torch==2.13.0 numpy==2.4.6 scikit-image==0.26.0
"$folder/venv/bin/pip" install -qq --disable-pip-version-check --no-deps piq==0.8.0  # the measure needs no more
cat > "$folder/finding.py" <<'EOF'
import sys
from importlib.metadata import distribution
from types import ModuleType

import torch
from skimage import data

package = distribution("piq")
sys.modules["piq"] = ModuleType("piq")  # its measures alone, without its networks and torchvision
sys.modules["piq"].__path__ = [str(package.locate_file("piq"))]
from piq.srsim import srsim  # noqa: E402

print(f"piq {package.version}, torch {torch.__version__}")
noise = torch.Generator().manual_seed(0)
names = "chelsea", "coffee", "rocket", "astronaut"
pictures = {name: torch.tensor(getattr(data, name)()[:256, :256]).permute(2, 0, 1)[None] / 255 for name in names}
pictures["chelsea, dark"] = 0.3 * pictures["chelsea"]
noisy = {name: (x + 0.1 * torch.randn(x.shape, generator=noise)).clamp(0, 1) for name, x in pictures.items()}
alone = {name: srsim(noisy[name], x).item() for name, x in pictures.items()}
largest = {}
for name in pictures:
    pairs = {}
    for other in pictures:
        if other != name:
            batch = [torch.cat([side[name], side[other]]) for side in (noisy, pictures)]
            pairs[other] = srsim(*batch, reduction="none").flatten()[0].item()
    largest[name] = max(abs(value - alone[name]) for value in pairs.values())
    print(f"{name}: alone {alone[name]:.4f}; beside", ", ".join(f"{other} {value:.4f}" for other, value in pairs.items()))
if max(largest.values()) < 0.005:
    sys.exit("no longer so: every pair has its own number")
EOF
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -I -W ignore "$folder/finding.py"
