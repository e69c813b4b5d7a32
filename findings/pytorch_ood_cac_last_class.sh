#!/usr/bin/env bash
# pytorch-ood's class anchor clustering never pushes samples away from the anchor of the last class.
#
# Expected: `CACLoss` is the loss of its paper (Miller et al., WACV 2021): a tuplet term over the distances to all anchors but the
#           sample's own, near 0 when every sample sits on its anchor, plus alpha times the distance to its own.
# Happens:  "all others" are anchors 0 to C-2 for every sample: the own one is among them (a constant log 2 at the optimum) and the
#           last is not. The line meant to swap it in compares the label with C, which no label is.
# Hurt:     open-set recognition: members of other classes may lie on the last anchor at no cost, which is where unknowns and the last
#           class then meet; a loss that stays at 0.69 looks like an unfinished training.
# Instead:  the tuplet term by hand from `loss.distance(z)`, as in the script.
# Known:    no report found.
# Seen (2026-11): five classes, every sample on its anchor: 0.555 (four of five at log 2) in place of 0.000. Samples as far from
#           every anchor: gradient of the distance to each other anchor -0.05, to the last 0 (by the paper -0.05 too).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/pip" install -qq --disable-pip-version-check --no-deps pytorch-ood==0.4.0  # the loss needs no more
cat > "$folder/finding.py" <<'EOF'
import math
import sys
from importlib.metadata import distribution
from types import ModuleType

import torch

package = distribution("pytorch-ood")
for name in ("pytorch_ood", "pytorch_ood.model"):  # without its detectors and its list of networks (torchvision)
    sys.modules[name] = ModuleType(name)
    sys.modules[name].__path__ = [str(package.locate_file(name.replace(".", "/")))]
from pytorch_ood.model import centers  # noqa: E402

vars(sys.modules["pytorch_ood.model"]).update(vars(centers))
from pytorch_ood.loss import CACLoss  # noqa: E402

CLASSES, MAGNITUDE, ALPHA = 5, 10.0, 0.1
loss = CACLoss(CLASSES, magnitude=MAGNITUDE, alpha=ALPHA)


def by_paper(distances, labels):
    """log(1 + sum over the other anchors of exp(d_own - d_other)) + alpha d_own, mean of the batch."""
    own = distances.gather(1, labels[:, None])
    others = torch.ones_like(distances, dtype=torch.bool).scatter(1, labels[:, None], False)
    terms = (own - distances[others].view(len(labels), -1)).exp().sum(1)
    return torch.log1p(terms).mean() + ALPHA * own.mean()


print(f"pytorch-ood {package.version}, torch {torch.__version__}")
labels = torch.arange(CLASSES)
distances = loss.distance(MAGNITUDE * torch.eye(CLASSES))
floor, right = loss(distances, labels).item(), by_paper(distances, labels).item()
print(f"every sample on its anchor: {floor:.3f}, by the paper {right:.3f} (log 2 times {CLASSES - 1} / {CLASSES}: "
      f"{math.log(2) * (CLASSES - 1) / CLASSES:.3f})")  # fmt: skip
gradients = {}
for name, function in (("CACLoss", loss), ("by the paper", by_paper)):
    distances = torch.full((CLASSES - 1, CLASSES), 5.0, requires_grad=True)
    function(distances, labels[:-1]).backward()
    gradients[name] = distances.grad
    print(f"{name}: gradient of class 0's distance to each anchor", [round(each, 3) for each in distances.grad[0].tolist()])
if right > 1e-3 or gradients["by the paper"][:, -1].max() > -1e-3:
    sys.exit("the comparison itself no longer holds")
if floor < 0.5 or gradients["CACLoss"][:, -1].abs().max() > 0:
    sys.exit("no longer so: samples are pushed from the last anchor too")
EOF
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -I -W ignore "$folder/finding.py"
