#!/usr/bin/env bash
# segmentation-models-pytorch's multi-class focal loss on probabilities does not focus: a perfect prediction still costs 0.17.
#
# Expected: `FocalLoss("multiclass", from_logits=False)` takes softmax probabilities, as DiceLoss and JaccardLoss do, and is the
#           focal loss of them: 0 where the right class has probability 1, next to 0 at 0.99.
# Happens:  the probability p is turned into log p, and log p is given to a sigmoid as if it were a logit: p / (1 + p), so that
#           1 is read as 0.5. The factor (1 - p)^2 of the right class can no longer fall below a quarter.
# Hurt:     a loss chosen to leave the easy pixels out weighs them in again: where 99 pixels of 100 are easy they make most of
#           it, and small or hard classes are drowned as without it. Nothing tells: the loss falls, to a floor above 0.
# Instead:  logits with from_logits=True, or `F.one_hot` targets with mode "multilabel", whose from_logits=False is right.
# Known:    `from_logits` came with 0.6.0 after a request; that logits go through sigmoids, one class against the rest, has been
#           reported and is meant so. No report of the probabilities found.
# Seen (2026-11): three classes, right class at 1: 0.0578 a class and pixel (0.173 a pixel), where multilabel says 0; at 0.99
#           0.0588 against 4e-7. 99 pixels at 0.99 and one at 0.1 (gamma 2): the easy ones are 89.5 % of the loss, not 0.006 %.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/pip" install -qq --disable-pip-version-check --no-deps segmentation-models-pytorch==0.6.0  # the losses need no more
cat > "$folder/finding.py" <<'EOF'
import sys
from importlib.metadata import distribution

import torch

package = distribution("segmentation-models-pytorch")
sys.path.append(str(package.locate_file("segmentation_models_pytorch")))  # its losses alone, without encoders and their needs
from losses import FocalLoss  # noqa: E402


def focal(right):
    """Loss of pixels whose right class has these probabilities: as multiclass, and as multilabel with one-hot targets."""
    right = torch.tensor(right, dtype=torch.float64)
    probabilities = torch.stack([right, (1 - right) / 2, (1 - right) / 2])[None, :, None]  # (1, 3 classes, 1, pixels)
    classes = torch.zeros(1, 1, len(right), dtype=torch.long)
    one_hot = torch.nn.functional.one_hot(classes, 3).permute(0, 3, 1, 2)
    multiclass = FocalLoss("multiclass", from_logits=False)(probabilities, classes)
    return multiclass.item(), FocalLoss("multilabel", from_logits=False)(probabilities, one_hot).item()


print(f"segmentation-models-pytorch {package.version}, torch {torch.__version__}")
for p in (1.0, 0.99, 0.9, 0.5, 0.1):
    print("right class at {}: multiclass {:.4g}, multilabel {:.4g}".format(p, *focal([p])))
shares = []
for k, mode in enumerate(("multiclass", "multilabel")):
    easy, hard = 99 * focal([0.99])[k], focal([0.1])[k]
    shares.append(easy / (easy + hard))
    print(f"{mode}: 99 easy pixels are {100 * shares[-1]:.3g} % of the loss beside one hard pixel")
as_logits = FocalLoss("multiclass")(torch.tensor([1.0, 1e-7, 1e-7]).log().view(1, 3, 1, 1), torch.zeros(1, 1, 1).long())
print(f"log-probabilities of a perfect pixel, given as logits: {as_logits:.4f}")
if focal([1.0])[0] < 0.05 or focal([1.0])[1] > 1e-6 or shares[0] < 0.8 or shares[1] > 0.001:
    sys.exit("no longer so: the multi-class loss of probabilities vanishes where they are right")
EOF
HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 "$folder/venv/bin/python" -I -W ignore "$folder/finding.py"
