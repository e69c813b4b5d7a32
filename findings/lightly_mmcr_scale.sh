#!/usr/bin/env bash
# lightly's MMCR loss is not bounded: ten times longer embeddings have a ten times better loss, a collapse included.
#
# Expected: `MMCRLoss` is the loss of maximum manifold capacity representations: views of a picture are points on the unit
#           sphere, and the nuclear norm of the matrix of their centroids is largest when pictures point in different
#           directions and views of one picture in the same: at best about -B for B pictures (in B or more dimensions).
# Happens:  nothing puts the embeddings on the sphere, neither the loss nor lightly's projection head nor its example. Both
#           nuclear norms grow with the length of the embeddings, and the loss is lower the longer they are.
# Hurt:     training lowers the loss by the last layer's weights; 16 pictures in one and the same point, 5 units from the
#           origin, are better than the optimum of the paper, and logs of two runs cannot be compared.
# Instead:  `loss(F.normalize(online, dim=-1), F.normalize(momentum, dim=-1))`.
# Known:    no report found; the authors' code and two other implementations normalize within the loss.
# Seen (2026-11): 16 pictures of 4 + 4 views in 64 dimensions. All apart on the unit sphere: -15.99; the same at length 10:
#           -159.9; all in one point of length 1: -3.99, of length 5: -19.9. 200 steps of SGD on random embeddings of length 1:
#           -47.7 at length 3.1 and still falling; normalized -15.9.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/pip" install -qq --disable-pip-version-check --no-deps lightly==1.6.0  # the loss needs no more
cat > "$folder/finding.py" <<'EOF'
import sys
from importlib.metadata import distribution

import torch
from torch.nn.functional import normalize

package = distribution("lightly")
sys.path.append(str(package.locate_file("lightly/loss")))  # one file of it, without its models and their needs
from mmcr_loss import MMCRLoss  # noqa: E402

PICTURES, VIEWS, SIZE = 16, 4, 64
loss = MMCRLoss()


def of(directions, length=1.0):
    """Loss of pictures whose views all lie at one point each: directions (PICTURES, SIZE) times this length."""
    views = length * directions[:, None].expand(-1, VIEWS, -1)  # (PICTURES, VIEWS, SIZE)
    return loss(views, views).item()


apart = torch.eye(SIZE)[:PICTURES]
collapsed = torch.eye(SIZE)[:1].expand(PICTURES, -1)
print(f"lightly {package.version}, torch {torch.__version__}; {PICTURES} pictures, {VIEWS} + {VIEWS} views, {SIZE} dimensions")
for length in (1.0, 5.0, 10.0):
    print(f"length {length:g}: all apart {of(apart, length):.2f}, all in one point {of(collapsed, length):.2f}")

lengths = {}
for on_the_sphere in (False, True):
    torch.manual_seed(0)
    online = normalize(torch.randn(PICTURES, VIEWS, SIZE), dim=-1).requires_grad_()
    optimizer = torch.optim.SGD([online], lr=0.1)
    for _ in range(200):
        views = normalize(online, dim=-1) if on_the_sphere else online
        value = loss(views, views.detach())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    lengths[on_the_sphere] = online.norm(dim=-1).mean().item()
    print(f"200 steps{', normalized' * on_the_sphere}: loss {value:.2f}, mean length {lengths[on_the_sphere]:.2f}")
if of(collapsed, 5.0) > of(apart) or abs(of(apart, 10.0) / of(apart) - 10) > 0.01 or lengths[False] < 2:
    sys.exit("no longer so: the loss does not grow with the length of the embeddings")
EOF
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -I -W ignore "$folder/finding.py"
